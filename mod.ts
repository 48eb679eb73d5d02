/**
 * `numpy.from_dlpack` for Deno: tensors of native libraries as typed, strided
 * views of the same memory.
 *
 * A script opens a C or C++ library, gets a
 * `DLManagedTensor*` or `DLManagedTensorVersioned*` from it, and
 * {@linkcode fromDlpack} turns that into a {@linkcode Tensor}: no copy, the
 * rules of NumPy, and the memory given back to the library exactly once.
 * It runs with full `--allow-ffi`.
 *
 * ```ts
 * import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
 *
 * // Any library's function that returns a DLManagedTensorVersioned* will do;
 * // here JavaScript's own memory stands in for one.
 * const image = Tensor.from(new Uint8Array(2 * 3 * 3), [2, 3, 3]);
 * const pointer = image.__dlpack__({ maxVersion: [1, 3] }).take();
 *
 * using t = fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
 * console.log(t.dtype, t.shape, t.strides); // uint8 [2, 3, 3] [9, 3, 1]
 * t.set(1, 2, 0, 255); // the library sees it
 * console.log(t.slice(null, null, 0)); // one channel, still no copy
 * ```
 *
 * @module
 */

export { registerDevice } from "./ffi/devices/registry.ts";
export type {
  DeviceMemory,
  DeviceReader,
  DeviceRows,
  DeviceRuntime,
} from "./ffi/devices/runtime.ts";
export { type LiveTensors, liveTensors } from "./ffi/live.ts";
export {
  type BorrowOptions,
  type CapsuleOptions,
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  type MemoryOptions,
} from "./src/capsule.ts";
export { type Device, type DeviceName, DeviceType } from "./src/device.ts";
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
export { BufferError, type BufferErrorCode } from "./src/errors.ts";
export {
  fromDlpack,
  fromDlpackAsync,
  type FromDlpackAsyncOptions,
  type FromDlpackOptions,
} from "./src/from_dlpack.ts";
export { dlopen } from "./src/library/dlopen.ts";
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
export {
  addressOf,
  type Range,
  Tensor,
  type TensorOptions,
} from "./src/tensor/class.ts";
