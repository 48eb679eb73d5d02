/**
 * The layout of the sources: what may import what, and where pointers are. A
 * reader can then go through an import of a tensor from the top down, and knows
 * what a change can reach.
 */

import { assert, assertEquals } from "@std/assert";

/** From the top down: each imports what is further down, or beside it. */
const order = [
  "mod.ts",
  "src/python/",
  "src/tvm_ffi/",
  "src/upload_to.ts",
  "src/from_dlpack.ts",
  "src/library/",
  "src/tensor/",
  "src/capsule.ts",
  "src/transfer/",
  "src/convert/",
  "src/struct/",
  "src/copy/",
  "ffi/",
  "src/layout.ts",
  // The ground: these may import each other, but not in a circle.
  "src/",
];

const root = new URL("../", import.meta.url);

function* sourcesIn(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, root))) {
    if (isDirectory) yield* sourcesIn(`${folder}${name}/`);
    else if (name.endsWith(".ts")) yield folder + name;
  }
}

/** Every source file, and its text without comments. */
const sources = new Map(
  ["mod.ts", ...sourcesIn("src/"), ...sourcesIn("ffi/")].map((path) => {
    const text = Deno.readTextFileSync(new URL(path, root));
    return [path, text.replace(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "")];
  }),
);

/** What each file imports, or exports from, as paths in the repository. */
const imports = new Map(
  [...sources].map(([path, text]) => {
    const specifiers = [
      ...text.matchAll(/^(?:import|export)\b[^;"]* from "([^"]+)";$/gm),
      ...text.matchAll(/^import "([^"]+)";$|\bimport\("([^"]+)"\)/gm),
    ];
    const base = new URL(path, root);
    return [
      path,
      specifiers.map(([, specifier]) => {
        assert(specifier!.startsWith("."), `${path} imports ${specifier}`);
        return new URL(specifier!, base).href.slice(root.href.length);
      }),
    ];
  }),
);

function placeOf(path: string): number {
  return order.findIndex((part) =>
    part.endsWith("/") ? path.startsWith(part) : path === part
  );
}

Deno.test("The sources are found, and what they import", () => {
  assert(sources.size > 40);
  assert(imports.get("mod.ts")!.includes("src/from_dlpack.ts"));
  assert(imports.get("src/python/mod.ts")!.includes("src/python/handle.ts"));
  assert(imports.get("src/from_dlpack.ts")!.includes("src/struct/check.ts"));
  for (const [path, targets] of imports) {
    for (const target of targets) {
      assert(sources.has(target), `${path} imports ${target}, which is not`);
    }
  }
});

Deno.test("No import goes up the list", () => {
  const up = [...imports].flatMap(([path, targets]) =>
    targets.filter((target) => placeOf(target) < placeOf(path))
      .map((target) => `${path} imports ${target}`)
  );
  assertEquals(up, []);
});

Deno.test("Whoever imports mod.ts gets none of the other entry points", () => {
  const reached = new Set<string>();
  const visit = (path: string): void => {
    if (reached.has(path)) return;
    reached.add(path);
    imports.get(path)!.forEach(visit);
  };
  visit("mod.ts");
  assertEquals([...reached].filter((path) => path.includes("/python/")), []);
});

Deno.test("No file imports itself, through whatever others", () => {
  const circles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start !== -1) {
      circles.push([...trail.slice(start), path].join(" > "));
      return;
    }
    if (done.has(path)) return;
    for (const target of imports.get(path)!) visit(target, [...trail, path]);
    done.add(path);
  };
  const done = new Set<string>();
  for (const path of imports.keys()) visit(path, []);
  assertEquals(circles, []);
});

Deno.test("Pointers and libraries are only in ffi/, byte offsets only in abi.ts", () => {
  for (const [path, text] of sources) {
    if (!path.startsWith("ffi/")) {
      const found = /Deno\.(Unsafe\w+|dlopen)/.exec(text);
      assertEquals(found?.[0], undefined, path);
    }
    if (!path.endsWith("abi.ts")) {
      // As CUDA's, TVM's and DLPack's structs are described there.
      const found = /^\s*\w+: \d+, \/\/ \w.*[ *]\w+$/m.exec(text);
      assertEquals(found?.[0], undefined, path);
    }
  }
});

Deno.test("A file's name does not repeat its folder's", () => {
  for (const path of sources.keys()) {
    const [file, folder = ""] = path.split("/").reverse();
    const isRepeated = file!.replace(".ts", "").split("_").includes(folder);
    assertEquals(isRepeated, false, path);
  }
});
