// Functions of TVM-FFI, called with tensors: see tvm_ffi.md.
//
//   pip install apache-tvm-ffi
//   deno run -A examples/tvm_ffi.ts
//
// TVM_FFI_LIBRARY=<path of libtvm_ffi> skips the search for the library. With a
// C++ compiler (CXX=<another one than g++>), native/add_one.cc is called, too.

import { Tensor } from "@dlpack/deno";
import { TvmFfi, TvmFfiError } from "@dlpack/deno/tvm_ffi";
import { findLibrary } from "./find_library.ts";

const path = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
if (path === null) {
  console.error("TVM-FFI is not installed: pip install apache-tvm-ffi");
  Deno.exit(1);
}
using ffi = TvmFfi.open(path);
console.log(
  `TVM-FFI ${ffi.version}:`,
  ffi.globalFunctions().length,
  "functions",
);

// 1. A container of the library has a tensor of ours, and gives it back: no copy.
using makeList = ffi.globalFunction("ffi.List")!;
using getItem = ffi.globalFunction("ffi.ListGetItem")!;
const pixels = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
using list = makeList(pixels.transpose(), "a name", [1, 2.5, null]);
{
  using back: Tensor = getItem(list, 0);
  pixels.set(0, 0, 100);
  console.log(back, "and the rest:", [...list].slice(1));
}

// 2. What the library raises says what it is about.
try {
  getItem(list, 3);
} catch (error) {
  if (!(error instanceof TvmFfiError)) throw error;
  console.log(`${error.kind}: ${error.message}`);
}

// 3. A kernel of our own.
const module = compile();
if (module !== null) {
  using mod = ffi.loadModule(module);
  const { add_one } = mod.functions;
  const sums = Tensor.zeros([2, 3], "float32");
  add_one!(pixels, sums);
  console.log("add_one gives", sums);
  try {
    add_one!(pixels.transpose(), sums);
  } catch (error) {
    console.log("What it does not take:", (error as Error).message);
  }
}

/** Compiles native/add_one.cc: gives the module, `null` without a compiler. */
function compile(): string | null {
  const root = path!.replace(/lib[/\\][^/\\]*$/, "");
  const module = `${Deno.makeTempDirSync()}/add_one.so`;
  try {
    const { success, stderr } = new Deno.Command(
      Deno.env.get("CXX") ?? "g++",
      {
        args: [
          ...["-std=c++17", "-O2", "-shared", "-fPIC"],
          ...[`-I${root}include`, `-I${root}3rdparty/dlpack/include`],
          new URL("native/add_one.cc", import.meta.url).pathname,
          ...[`-L${root}lib`, "-ltvm_ffi", "-o", module],
        ],
      },
    ).outputSync();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return module;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
