/** Runs every example as a user does, and looks at what it prints. */

import { dlopen, fromDlpack } from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { askPython, pythonPath } from "../examples/python.ts";
import { compile } from "./native/cc.ts";
import { compileModule, tvmFfiPath } from "./native/tvm_ffi.ts";
import { skipped } from "./skipped.ts";

interface Run {
  readonly code: number;
  readonly out: string;
}

async function run(
  name: string,
  env: Record<string, string> = {},
): Promise<Run> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL(`../examples/${name}`, import.meta.url).href],
    env: { NO_COLOR: "1", ...env },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout) + text.decode(stderr) };
}

const root = new URL("../", import.meta.url);

/** A copy of what the demo needs, in which nothing is compiled yet. */
async function cloneForDemo(): Promise<string> {
  const clone = await Deno.makeTempDir();
  const copy = async (path: string): Promise<void> => {
    const from = new URL(path, root);
    if (!path.endsWith("/")) {
      return await Deno.copyFile(from, `${clone}/${path}`);
    }
    await Deno.mkdir(`${clone}/${path}`, { recursive: true });
    for await (const { name, isDirectory } of Deno.readDir(from)) {
      await copy(path + name + (isDirectory ? "/" : ""));
    }
  };
  for (const path of ["deno.json", "mod.ts", "src/", "ffi/", "examples/"]) {
    await copy(path);
  }
  await copy("tests/native/");
  return clone;
}

/** The demo as users run it: the first time, with nothing in Deno's cache. */
async function demo(cwd: string, env: Record<string, string>): Promise<Run> {
  const cache = await Deno.makeTempDir();
  try {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["task", "demo"],
      cwd,
      env: { NO_COLOR: "1", DENO_DIR: cache, ...env },
    }).output();
    const text = new TextDecoder();
    return { code, out: text.decode(stdout) + text.decode(stderr) };
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
}

Deno.test("The demo shows tensors of a C library, and downloads nothing", async () => {
  const { code, out } = await demo(fromFileUrl(root), {});
  assertEquals(code, 0, out);
  for (const expected of ["float32", "uint8", "strides", "BufferError"]) {
    assertStringIncludes(out, expected);
  }
  assertEquals(out.includes("Download"), false, out);
  assertEquals(out.includes("compiler"), false, out);
});

Deno.test("Without a C compiler the demo is the same, on memory of the C library", async () => {
  const clone = await cloneForDemo();
  try {
    const compiled = await demo(fromFileUrl(root), {});
    const { code, out } = await demo(clone, { CC: "/no/such/compiler" });
    assertEquals(code, 0, out);
    assertStringIncludes(out, "No C compiler found at CC=/no/such/compiler.");
    assertStringIncludes(out, "from calloc,\nwith free as the deleter");
    const tour = (text: string) => text.slice(text.indexOf("A tensor from C:"));
    assertEquals(
      tour(out).split("Task demo")[0],
      tour(compiled.out).split("Task demo")[0],
    );
  } finally {
    await Deno.remove(clone, { recursive: true });
  }
});

function fromFileUrl(url: URL): string {
  const path = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? path.slice(1) : path;
}

Deno.test("examples/filter.ts wraps a library with status codes", async () => {
  const { code, out } = await run("filter.ts");
  assertEquals(code, 0, out);
  for (const expected of ["bad radius", "not an image"]) {
    assertStringIncludes(out, `FilterError "${expected}"`);
  }
});

Deno.test("A C compiler that is not there is named in one line", () => {
  const before = Deno.env.get("CC");
  Deno.env.set("CC", "/no/such/compiler");
  try {
    const source = new URL("./native/fixture.c", import.meta.url);
    const error = assertThrows(() => compile(source, "never"), Error);
    assertEquals(error.message, "No C compiler found at CC=/no/such/compiler");
  } finally {
    if (before === undefined) Deno.env.delete("CC");
    else Deno.env.set("CC", before);
  }
});

Deno.test("The guide for your own library shows the C that is compiled", async () => {
  const guide = await Deno.readTextFile(
    new URL("../examples/your_own_library.md", import.meta.url),
  );
  const source = new URL("../examples/native/matrix.c", import.meta.url);
  const [, shown] = /```c\n([^]*?)```/.exec(guide)!;
  assertEquals(shown, await Deno.readTextFile(source));
  assert(shown!.split("\n").length <= 24);
  using lib = dlopen(compile(source, "matrix"), {
    matrix_new: {
      parameters: ["i64", "i64"],
      result: "DLManagedTensorVersioned*",
    },
  });
  using matrix = fromDlpack(lib.symbols.matrix_new(200n, 300n)!, {
    dtype: "float32",
  });
  assertEquals([matrix.shape, matrix.strides], [[200, 300], [300, 1]]);
  assertEquals(matrix.assign(1).copy().data, new Float32Array(60_000).fill(1));
});

const addOne = compileModule(
  new URL("../examples/native/add_one.cc", import.meta.url),
  "add_one",
);

Deno.test({
  name:
    "The page on TVM-FFI shows the kernel that is compiled, and code that runs",
  ignore: addOne === null,
  async fn() {
    const page = await Deno.readTextFile(
      new URL("../examples/tvm_ffi.md", import.meta.url),
    );
    const source = new URL("../examples/native/add_one.cc", import.meta.url);
    const [, shown] = /```cpp\n([^]*?)```/.exec(page)!;
    assertEquals(shown, await Deno.readTextFile(source));
    assert(shown!.trim().split("\n").length <= 15);
    const [first, errors] = page.matchAll(/```ts ignore\n([^]*?)```/g)
      .map(([, code]) => code!).toArray();
    const url = (path: string) => new URL(path, import.meta.url).href;
    const code = (first! + errors)
      .replace('"@dlpack/deno"', `"${url("../mod.ts")}"`)
      .replace('"@dlpack/deno/tvm_ffi"', `"${url("../src/tvm_ffi/mod.ts")}"`)
      .replace("{ TvmFfi }", "{ TvmFfi, TvmFfiError }")
      .replace("./add_one.so", addOne!);
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(file, code);
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", file],
      env: { NO_COLOR: "1", TVM_FFI_LIBRARY: tvmFfiPath! },
    }).output();
    await Deno.remove(file);
    const text = new TextDecoder();
    const out = text.decode(stdout) + text.decode(stderr);
    assertStringIncludes(out, "[2. 3. 4.]");
    assertStringIncludes(out, "TypeError Mismatched number of arguments");
  },
});

for (const name of ["tvm_ffi.ts", "metatensor.ts", "npy.ts"]) {
  Deno.test(`examples/${name} runs, or says what to install`, async () => {
    const { code, out } = await run(name);
    if (code === 0) assertStringIncludes(out, "Tensor ");
    else assertStringIncludes(out, "pip install");
  });
}

// Libpython takes the python3 that is first on PATH for its own program, unless
// it is told: then it would look for its files where another Python has them.
const ours = hasNumpy() ? pythonPath() : null;
if (ours === null) skipped("Python beside others", "pip install numpy");

/** As if the environment of the tests had been activated. */
function active(): Record<string, string> {
  return { VIRTUAL_ENV: askPython("import sys; print(sys.prefix)") };
}

for (
  const [name, module, words] of [
    ["numpy.ts", "numpy", "NumPy sees [1000.  107.]"],
    ["model.ts", "onnxruntime", "Best class 1"],
    ["pillow.ts", "PIL", "Pillow's is (48, 16) L 235"],
  ] as const
) {
  const ignore = ours === null || !has(module);
  if (ignore) {
    const packages = module === "PIL" ? "pillow" : module;
    skipped(`examples/${name}`, `pip install ${packages}`);
  }
  Deno.test({
    name: `examples/${name} runs in an active virtual environment`,
    ignore,
    async fn() {
      const { code, out } = await run(name, active());
      assertEquals(code, 0, out);
      assertStringIncludes(out, words);
    },
  });
}

function has(module: string): boolean {
  const program = "import importlib.util as u, sys; " +
    "print(u.find_spec(sys.argv[1]) is not None)";
  return askPython(program, module) === "True";
}

function hasNumpy(): boolean {
  try {
    askPython("import numpy");
    return true;
  } catch {
    return false;
  }
}

/** Makes a prefix of Python that has a program, but none of Python's modules. */
async function makeHollowPython(prefix: string): Promise<void> {
  const version = askPython(
    "import sys; print('python%d.%d' % sys.version_info[:2])",
  );
  await Deno.mkdir(`${prefix}/bin`);
  // Whoever asks for python3 gets the real one all the same.
  const real = askPython("import sys; print(sys.executable)");
  const program = `#!/bin/sh\nexec ${real} "$@"\n`;
  await Deno.writeTextFile(`${prefix}/bin/python3`, program, { mode: 0o755 });
  await Deno.mkdir(`${prefix}/lib/${version}/lib-dynload`, { recursive: true });
  await Deno.writeTextFile(`${prefix}/lib/${version}/os.py`, "");
}

Deno.test({
  name: "examples/numpy.ts has its own Python, wherever others are on PATH",
  ignore: ours === null || Deno.build.os === "windows",
  async fn() {
    const prefix = await Deno.makeTempDir();
    try {
      await makeHollowPython(prefix);
      const path = Deno.env.get("PATH")!;
      for (
        const PATH of [`${prefix}/bin:${path}`, `${path}:${prefix}/bin`]
      ) {
        const { code, out } = await run("numpy.ts", { ...active(), PATH });
        assertEquals(code, 0, out);
        assertStringIncludes(out, "NumPy sees");
      }
    } finally {
      await Deno.remove(prefix, { recursive: true });
    }
  },
});

Deno.test({
  name: "A PYTHONHOME of another Python is named, not taken for no NumPy",
  ignore: ours === null || Deno.build.os === "windows",
  async fn() {
    const environment = active();
    const PYTHONHOME = await Deno.makeTempDir();
    try {
      for (const name of ["numpy.ts", "tvm_ffi.ts", "metatensor.ts"]) {
        const { code, out } = await run(name, { ...environment, PYTHONHOME });
        assertEquals(code, 1, out);
        assertStringIncludes(out, `PYTHONHOME is ${PYTHONHOME}: unset it`);
        assertStringIncludes(out, "No module named 'encodings'");
        assertEquals(out.includes("pip install"), false, out);
      }
    } finally {
      await Deno.remove(PYTHONHOME);
    }
  },
});
