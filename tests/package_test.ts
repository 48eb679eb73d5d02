/**
 * What is published, and what a visitor finds first: the files of the package, the
 * order of the documentation, the first page, and that the sources run from a URL.
 */

import { assert, assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);
const folder = Deno.build.os === "windows"
  ? decodeURIComponent(root.pathname).slice(1)
  : decodeURIComponent(root.pathname);

async function deno(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: folder,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  assert(success, text.decode(stderr));
  // What would be published is said on the one, what is documented on the other.
  return text.decode(args[0] === "publish" ? stderr : stdout);
}

Deno.test("The package holds what users need, and nothing else", async () => {
  const said = await deno(
    "publish",
    "--dry-run",
    "--allow-dirty",
    "--no-check",
  );
  const paths = [...said.matchAll(/^ +(file:\S+) \(/gm)]
    .map(([, url]) => url!.slice(root.href.length));
  assert(paths.includes("mod.ts"), said);
  assert(paths.length > 40, said);
  const others = paths.filter((path) =>
    !/^(mod|(src|ffi)\/.+)\.ts$/.test(path)
  );
  assertEquals(others.sort(), [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "deno.json",
  ]);
});

/** What `deno doc --json` says of a symbol, as far as it is used here. */
interface Symbol {
  readonly name: string;
  readonly declarations: readonly Declaration[];
}

interface Declaration {
  readonly jsDoc?: { readonly doc?: string; readonly tags?: readonly Tag[] };
}

interface Tag {
  readonly kind: string;
  readonly doc?: string;
}

async function documentation(): Promise<readonly Symbol[]> {
  const { version, nodes } = JSON.parse(await deno("doc", "--json", "mod.ts"));
  if (version === 1) { // of Deno 2.7
    const byName = Map.groupBy(
      (nodes as (Declaration & { name: string })[]).filter(({ name }) =>
        name !== ""
      ),
      ({ name }) => name,
    );
    return [...byName].map(([name, declarations]) => ({ name, declarations }));
  }
  const [{ symbols }] = Object.values(nodes) as [{ symbols: Symbol[] }];
  return symbols;
}

Deno.test("The documentation begins with what every script uses, by category", async () => {
  const symbols = await documentation();
  assertEquals(
    [...new Set(symbols.map(({ name }) => name))].slice(0, 4),
    ["fromDlpack", "Tensor", "dlopen", "DlpackCapsule"],
  );
  for (const { name, declarations } of symbols) {
    const tags = declarations.flatMap(({ jsDoc }) => jsDoc?.tags ?? []);
    const category = tags.find(({ kind }) => kind === "category");
    assert(category !== undefined, `${name} has no @category`);
    const known = ["Basics", "C functions", "Devices", "Elements"];
    assert(known.includes(category.doc!), `${name}: ${category.doc}`);
  }
});

Deno.test("No signature shows a name that begins with an underscore", async () => {
  const names = new Set<string>();
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const { params } = value as { params?: unknown };
    for (const param of Array.isArray(params) ? params : []) {
      names.add((param as { name?: string }).name ?? "");
    }
    Object.values(value).forEach(visit);
  };
  visit(await documentation());
  assert(names.has("options") && names.has("request"));
  assertEquals([...names].filter((name) => name.startsWith("_")), []);
});

Deno.test("The first page has 150 lines at most, in the order of what is asked", async () => {
  const page = await Deno.readTextFile(new URL("README.md", root));
  assert(page.trimEnd().split("\n").length <= 150);
  assertEquals([...page.matchAll(/^## (.*)$/gm)].map(([, title]) => title), [
    "Your C prototype",
    "Which libraries",
    "Rules",
    "Devices",
    "Permission",
    "Lifetime",
    "Speed",
    "Questions",
    "Without JSR",
  ]);
});

Deno.test("Every link of every page leads to a file", async () => {
  const pages = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "examples/c_libraries.md",
    "examples/dlpack_libraries.md",
    "examples/javascript/README.md",
    "examples/your_own_library.md",
    "ffi/devices/README.md",
    "tests/bench/README.md",
    "tests/parity/README.md",
  ];
  for (const path of pages) {
    const url = new URL(path, root);
    const text = await Deno.readTextFile(url);
    for (const [, target] of text.matchAll(/\]\(([^)#]+?)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      const file = new URL(target!, url);
      assert(await exists(file), `${path} links to ${target}`);
    }
  }
});

async function exists(file: URL): Promise<boolean> {
  try {
    await Deno.stat(file);
    return true;
  } catch {
    return false;
  }
}

Deno.test("Without JSR it runs from a URL, by an import map", async () => {
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      const file = new URL(`.${pathname.replace("/v1", "")}`, root);
      return new Response(await Deno.readTextFile(file), {
        headers: { "content-type": "application/typescript" },
      });
    },
  );
  const project = await Deno.makeTempDir();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    await Deno.writeTextFile(
      `${project}/deno.json`,
      JSON.stringify({
        imports: { "@dlpack/deno": `http://${host}/v1/mod.ts` },
      }),
    );
    await Deno.writeTextFile(
      `${project}/main.ts`,
      `import { fromDlpack, Tensor } from "@dlpack/deno";
      using t = fromDlpack(Tensor.from(new Float32Array([1, 2])));
      console.log(t.toArray());`,
    );
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--check",
        "--allow-ffi",
        `--allow-import=${host}`,
        "main.ts",
      ],
      cwd: project,
      env: { NO_COLOR: "1", DENO_DIR: `${project}/cache` },
    }).output();
    const text = new TextDecoder();
    assertEquals(text.decode(stdout), "[ 1, 2 ]\n", text.decode(stderr));
  } finally {
    await Deno.remove(project, { recursive: true });
  }
});
