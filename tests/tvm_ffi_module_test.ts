/** libtvm_ffi, libraries and modules: opened, not found, closed. */

import { Tensor } from "@dlpack/deno";
import { TvmFfi, TvmFfiModule } from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { collectGarbage } from "./helpers.ts";
import { compile } from "./native/cc.ts";
import { testModule, tvmFfiPath } from "./native/tvm_ffi.ts";
import { assertTvmError, ffi, isOpen, k, tvmTest } from "./tvm_ffi.ts";

const plain = testModule("tvm_plain.c");
const types = testModule("tvm_types.cc");
const hasMaps = Deno.build.os === "linux";

/** A module that no other test has, which nothing keeps open. */
function copyOfPlain(): string {
  const path = plain!.replace(/\.so$/, `-${crypto.randomUUID()}.so`);
  Deno.copyFileSync(plain!, path);
  return path;
}

tvmTest("the library is open once, and shows where it is", (ffi) => {
  {
    using again = TvmFfi.open(tvmFfiPath!);
    using url = TvmFfi.open(new URL(`file://${tvmFfiPath}`));
    assertEquals([again.path, url.version], [ffi.path, ffi.version]);
    assert(/^0\.1\.\d+$/.test(ffi.version));
    assert(Deno.inspect(again).startsWith("TvmFfi 0.1."));
    again[Symbol.dispose]();
    assertThrows(() => again.globalFunctions(), TypeError, "was disposed");
    assertThrows(() => again.loadModule(plain!), TypeError, "was disposed");
  }
  assert(ffi.globalFunctions().includes("ffi.Array"));
  assertEquals(ffi.globalFunction("ffi.NoSuchFunction"), null);
});

tvmTest("without a path it is found as the package says", async () => {
  const script = `
    import { TvmFfi } from "${import.meta.resolve("../src/tvm_ffi/mod.ts")}";
    try {
      console.log(TvmFfi.open().path);
    } catch (error) {
      console.log(error.message);
    }
  `;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(file, script);
  const run = async (
    env: Record<string, string>,
    ...flags: string[]
  ): Promise<string> => {
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--no-config", "--no-check", ...flags, file],
      env: { NO_COLOR: "1", TVM_FFI_LIBRARY: "", VIRTUAL_ENV: "", ...env },
    }).output();
    const text = new TextDecoder();
    return text.decode(stdout).trim() + text.decode(stderr);
  };
  try {
    assertEquals(await run({ TVM_FFI_LIBRARY: tvmFfiPath! }, "-A"), tvmFfiPath);
    const environment = tvmFfiPath!.replace(/[/\\]lib[/\\].*/, "");
    if (await isVirtualEnvironment(environment)) {
      const found = await run({ VIRTUAL_ENV: environment }, "-A");
      assertEquals(
        await Deno.realPath(found),
        await Deno.realPath(tvmFfiPath!),
      );
    }
    const none = await run({}, "--allow-ffi");
    for (
      const expected of [
        "Cannot find libtvm_ffi",
        "TVM_FFI_LIBRARY (needs --allow-env=TVM_FFI_LIBRARY)",
        "python3 (needs --allow-run=python3)",
        "pip install apache-tvm-ffi",
      ]
    ) assert(none.includes(expected), none);
    const nowhere = await run(
      { TVM_FFI_LIBRARY: "/no/such/libtvm_ffi.so" },
      "-A",
    );
    assert(nowhere.includes("/no/such/libtvm_ffi.so"), nowhere);
  } finally {
    await Deno.remove(file);
  }
});

async function isVirtualEnvironment(folder: string): Promise<boolean> {
  try {
    return (await Deno.stat(`${folder}/pyvenv.cfg`)).isFile;
  } catch {
    return false;
  }
}

tvmTest("a library of another ABI is not used", () => {
  const source = Deno.makeTempFileSync({ suffix: ".c" });
  for (
    const [version, accepted] of [["0, 2, 0", false], ["1, 1, 16", false], [
      "0, 1, 3",
      false,
    ]] as const
  ) {
    Deno.writeTextFileSync(
      source,
      `void TVMFFIGetVersion(unsigned *v) { unsigned is[] = {${version}}; for (int i = 0; i < 3; i++) v[i] = is[i]; }`,
    );
    const name = `abi-${crypto.randomUUID()}`;
    const library = compile(new URL(`file://${source}`), name);
    const error = assertThrows(() => TvmFfi.open(library), Error);
    assertEquals(accepted, false);
    assert(
      error.message.includes(`ABI is ${version.replaceAll(", ", ".")}`),
      error.message,
    );
    assert(error.message.includes("this module knows 0.1."));
    Deno.removeSync(library);
  }
  Deno.removeSync(source);
  // What is linked to the library has its functions: it is the same one.
  assertEquals(TvmFfi.open(plain!).path, ffi!.path);
  assertThrows(() => TvmFfi.open(3 as never), TypeError, "pass a path");
  assertThrows(
    () => TvmFfi.open(new URL("https://x/y.so")),
    TypeError,
    "a path",
  );
});

tvmTest("what cannot be loaded or found is named", (ffi) => {
  assertTvmError(
    () => ffi.loadModule("/no/such.so"),
    "InternalError",
    "/no/such.so",
  );
  assertTvmError(() => ffi.loadModule("/no/such"), "RuntimeError", "/no/such");
  assertThrows(() => ffi.openLibrary("/no/such.so"), Error, "/no/such.so");
  assertThrows(() => ffi.loadModule(null as never), TypeError, "loadModule()");
  const error = assertThrows(() => k.no_such_function(1), TypeError);
  assert(
    error.message.includes('Cannot find the function "no_such_function" of '),
  );
  assert(error.message.includes("__tvm_ffi_no_such_function"));
  assertEquals(["add_one" in k, "no_such_function" in k], [true, false]);
});

tvmTest("functions of plain C", (ffi) => {
  using mod = ffi.loadModule(new URL(`file://${plain}`));
  assert(mod instanceof TvmFfiModule);
  assertEquals(Deno.inspect(mod), `TvmFfiModule ${plain}`);
  const shown = `the functions of ${plain}, each found by its name`;
  assertEquals(Object.keys(mod.functions), []);
  assertEquals(Deno.inspect(mod.functions), shown);
  const { empty, scale, silent } = mod.functions;
  assertEquals(Object.keys(mod.functions), ["empty", "scale", "silent"]);
  assertEquals(
    Deno.inspect(mod.functions),
    `${shown}; so far empty, scale, silent`,
  );
  assertEquals(Deno.inspect(empty), "TvmFfiFunction empty");
  assertEquals(empty!(1, "b", null), null);
  const x = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
  scale!(x, 0.5);
  assertEquals(x.toArray(), [[0.5, 1], [1.5, 2]]);
  assertTvmError(() => scale!(x, 2), "TypeError", "a Tensor and a float");
  assertTvmError(
    () => silent!(),
    "RuntimeError",
    "status -1, and left no error",
  );
  for (const f of [empty, scale, silent]) f![Symbol.dispose]();
});

tvmTest("a module closes when nothing of it is left", async (ffi) => {
  const path = copyOfPlain();
  const mod = ffi.loadModule(path);
  const { counter, deleted } = mod.functions;
  const f = counter!(3);
  assertEquals(f(), 2n);
  mod[Symbol.dispose]();
  assertThrows(() => mod.functions, TypeError, "was disposed");
  assertEquals(deleted!(), 0n);
  counter![Symbol.dispose]();
  deleted![Symbol.dispose]();
  // The code of this function, and its deleter, are the module's.
  if (hasMaps) assertEquals(isOpen(path), true);
  assertEquals(f(), 1n);
  f[Symbol.dispose]();
  await collectGarbage();
  if (hasMaps) assertEquals(isOpen(path), false);
  Deno.removeSync(path);
});

tvmTest(
  "a module stays open for what is in containers, and for garbage",
  async (ffi) => {
    const path = copyOfPlain();
    let mod: TvmFfiModule | null = ffi.loadModule(path);
    using makeList = ffi.globalFunction("ffi.List")!;
    using list = makeList(mod.functions.counter!(5));
    mod[Symbol.dispose]();
    mod = null;
    await collectGarbage();
    // The list has the only reference: whose code it is nobody can tell.
    if (hasMaps) assertEquals(isOpen(path), true);
    const [f] = list as Iterable<() => bigint> as unknown as [() => bigint];
    assertEquals(f(), 4n);
    (f as unknown as Disposable)[Symbol.dispose]();
    list[Symbol.dispose]();
    await collectGarbage();
    if (hasMaps) assertEquals(isOpen(path), false);
    Deno.removeSync(path);
  },
);

tvmTest(
  "a module that nobody disposed closes when it is garbage",
  async (ffi) => {
    const path = copyOfPlain();
    (() => {
      ffi.loadModule(path).functions.empty!(1);
    })();
    await collectGarbage();
    if (hasMaps) assertEquals(isOpen(path), false);
    Deno.removeSync(path);
  },
);

tvmTest("a module that registered something stays open", async (ffi) => {
  if (types === null) return;
  const mod = ffi.loadModule(types);
  assert(ffi.globalFunctions().includes("deno.test.total"));
  mod[Symbol.dispose]();
  await collectGarbage();
  using total = ffi.globalFunction("deno.test.total")!;
  assertEquals(total([]), 0n);
});

tvmTest("a tensor keeps the module of its deleter open", async (ffi) => {
  const path = testModule("tvm_kernels.cc")!.replace(/\.so$/, "-again.so");
  Deno.copyFileSync(testModule("tvm_kernels.cc")!, path);
  const mod = ffi.loadModule(path);
  const count = mod.functions.count_up!;
  const t: Tensor = count(3);
  mod[Symbol.dispose]();
  count[Symbol.dispose]();
  await collectGarbage();
  if (hasMaps) assertEquals(isOpen(path), true);
  assertEquals(t.toArray(), [0, 1, 2]);
  t[Symbol.dispose]();
  Deno.removeSync(path);
});

tvmTest("a Worker calls functions, too", async () => {
  const script = `
    import { Tensor } from "${import.meta.resolve("../mod.ts")}";
    import { TvmFfi } from "${import.meta.resolve("../src/tvm_ffi/mod.ts")}";
    const ffi = TvmFfi.open("${tvmFfiPath}");
    using mod = ffi.loadModule("${testModule("tvm_kernels.cc")}");
    const x = Tensor.from(new Float32Array([1, 2]));
    mod.functions.add_one(x, x);
    let message;
    try {
      mod.functions.call(() => mod.functions.fail("KeyError", "in a Worker"), 0);
    } catch (error) {
      message = error.kind + ": " + error.message;
    }
    const y = mod.functions.allocated([2], "int8", "cpu");
    postMessage([...x, message, y.size]);
  `;
  const url = URL.createObjectURL(
    new Blob([script], { type: "text/javascript" }),
  );
  const worker = new Worker(url, { type: "module" });
  const answer = await new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = reject;
  });
  worker.terminate();
  URL.revokeObjectURL(url);
  assertEquals(answer, [2, 3, "KeyError: in a Worker", 2]);
});

tvmTest("modules come and go", (ffi) => {
  const path = copyOfPlain();
  for (let i = 0; i < 100; i++) {
    using mod = ffi.loadModule(path);
    using empty = mod.functions.empty!;
    empty(i);
  }
  if (hasMaps) assertEquals(isOpen(path), false);
  Deno.removeSync(path);
});

Deno.test({
  name: "tvm-ffi: at exit all is given up, tensors first and modules last",
  ignore: plain === null || k.add_one === undefined,
  async fn() {
    const script = `
      import { Tensor } from "${import.meta.resolve("../mod.ts")}";
      import { TvmFfi } from "${import.meta.resolve("../src/tvm_ffi/mod.ts")}";
      const ffi = TvmFfi.open("${tvmFfiPath}");
      const mod = ffi.loadModule("${plain}");
      const kernels = ffi.loadModule("${testModule("tvm_kernels.cc")}");
      const f = mod.functions.counter(3);
      const x = Tensor.zeros([3], "float32");
      kernels.functions.add_one(x, x);
      const t = kernels.functions.count_up(5);
      const list = ffi.globalFunction("ffi.List")(f, t, x, () => 1);
      // To the very end, when this program's JavaScript is gone.
      const late = Tensor.from(new Float32Array([1, 2]));
      kernels.functions.keep([list, late, () => 2]);
      const held = t.hold();
      globalThis.all = [f, x, t, list, held];
      addEventListener("unload", () => {
        try {
          f();
        } catch (error) {
          console.log(error.message);
        }
      });
      console.log("running");
      EXIT
    `;
    for (const exit of ["", "Deno.exit(0);"]) {
      const file = await Deno.makeTempFile({ suffix: ".ts" });
      await Deno.writeTextFile(file, script.replace("EXIT", exit));
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-config", "--no-check", file],
        env: { NO_COLOR: "1" },
      }).output();
      const text = new TextDecoder();
      assertEquals(
        [code, text.decode(stdout), text.decode(stderr)],
        [
          0,
          'running\nCannot call "": the function was disposed; ask for it again\n',
          "",
        ],
      );
      await Deno.remove(file);
    }
  },
});
