/**
 * `numpy.from_dlpack` for Deno: tensors of native libraries as typed, strided
 * views of the same memory.
 *
 * A script opens a C or C++ library with {@linkcode dlopen}, calls a function
 * that returns a `DLManagedTensor*` or `DLManagedTensorVersioned*`, and
 * {@linkcode fromDlpack} turns that into a {@linkcode Tensor}: no copy, the
 * rules of NumPy, and the memory given back to the library exactly once. It
 * requires full `--allow-ffi`.
 *
 * ```ts
 * import { dlopen, fromDlpack } from "@dlpack/deno";
 *
 * using lib = dlopen("./build/matrix.so", {
 *   matrix_new: {
 *     parameters: ["i64", "i64"], // rows, columns
 *     result: "DLManagedTensorVersioned*",
 *   },
 * });
 * const capsule = lib.symbols.matrix_new(2n, 3n);
 * if (capsule === null) throw new Error("No memory");
 * using t = fromDlpack(capsule, { dtype: "float32" });
 * t.set(1, 2, 255); // the library's own memory
 * console.log(t.transpose()); // another view of it, still no copy
 * ```
 *
 * @module
 */

// In the order of the documentation: first what every script uses.
export { fromDlpack } from "./src/from_dlpack.ts";
export { Tensor } from "./src/tensor/class.ts";
export { dlopen } from "./src/library/dlopen.ts";
export { DlpackCapsule } from "./src/capsule.ts";
export {
  fromDlpackAsync,
  type FromDlpackAsyncOptions,
  type FromDlpackOptions,
} from "./src/from_dlpack.ts";
export {
  addressOf,
  type Range,
  type TensorOptions,
} from "./src/tensor/class.ts";
export { BufferError, type BufferErrorCode } from "./src/errors.ts";
export { type LiveTensors, liveTensors } from "./ffi/live.ts";
export {
  type BorrowOptions,
  type CapsuleOptions,
  type DlpackExporter,
  type DlpackRequest,
  type MemoryOptions,
} from "./src/capsule.ts";
export { OutCapsule } from "./src/library/out_capsule.ts";
export type {
  Checked,
  LentType,
  LooseFunction,
  OutType,
  TakenType,
  TensorArgument,
  TensorArguments,
  TensorFunction,
  TensorLibrary,
  TensorLibraryInterface,
  TensorParameterType,
  TensorPointerType,
  TensorResult,
  TensorResultType,
  TensorSymbol,
  TensorSymbols,
} from "./src/library/types.ts";
export { type Device, type DeviceName, DeviceType } from "./src/device.ts";
export { type UploadOptions, uploadTo } from "./src/upload_to.ts";
export { registerDevice } from "./ffi/devices/registry.ts";
export type {
  DeviceMemory,
  DeviceReader,
  DeviceRows,
  DeviceRuntime,
  DeviceWriter,
} from "./ffi/devices/runtime.ts";
export type {
  Complex,
  DType,
  DTypeIn,
  DTypeMap,
  DTypeOfArray,
  ElementOf,
  NestedArray,
  TypedArray,
  TypedArrayOf,
} from "./src/dtype/table.ts";
