/**
 * Functions of libraries that speak TVM-FFI, called with tensors: what Python's
 * `tvm_ffi` package is to Python. No Python, no glue, no copy.
 *
 * {@linkcode TvmFfi.open} finds libtvm_ffi; modules, registered functions and
 * types of the libraries that are built on it are reached from there. It requires
 * full `--allow-ffi`.
 *
 * ```ts ignore
 * import { Tensor } from "@dlpack/deno";
 * import { TvmFfi } from "@dlpack/deno/tvm_ffi";
 *
 * using ffi = TvmFfi.open();
 * using mod = ffi.loadModule("./add_one.so");
 * const x = Tensor.from(new Float32Array([1, 2, 3]));
 * const y = Tensor.zeros([3], "float32");
 * mod.functions.add_one(x, y); // writes to y
 * console.log(y);
 * ```
 *
 * @module
 */

export { TvmFfi } from "./binding.ts";
export type { TvmFfiType } from "./classes.ts";
export { TvmFfiError } from "./error.ts";
export type { TvmFfiFunction } from "./function.ts";
export { dtype, float, shape, TvmFfiDType, TvmFfiFloat } from "./literals.ts";
export { type TvmFfiFunctions, TvmFfiModule } from "./module.ts";
export { TvmFfiObject } from "./object.ts";
