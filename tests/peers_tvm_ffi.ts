/** The C API of tvm-ffi, for the tests that use it; `null` when it is missing. */

import { findLibrary } from "../examples/find_library.ts";
import { skipped } from "./skipped.ts";

const symbols = {
  TVMFFITensorFromDLPack: {
    parameters: [
      "pointer", // DLManagedTensor *from
      "i32", // int32_t require_alignment
      "i32", // int32_t require_contiguous
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  TVMFFITensorFromDLPackVersioned: {
    parameters: [
      "pointer", // DLManagedTensorVersioned *from
      "i32", // int32_t require_alignment
      "i32", // int32_t require_contiguous
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  TVMFFITensorToDLPack: {
    parameters: [
      "pointer", // TVMFFIObjectHandle from
      "buffer", // DLManagedTensor **out
    ],
    result: "i32",
  },
  TVMFFITensorToDLPackVersioned: {
    parameters: [
      "pointer", // TVMFFIObjectHandle from
      "buffer", // DLManagedTensorVersioned **out
    ],
    result: "i32",
  },
  TVMFFITensorCreateUnsafeView: {
    parameters: [
      "pointer", // TVMFFIObjectHandle source
      "buffer", // const DLTensor *prototype
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  TVMFFIObjectDecRef: {
    parameters: [
      "pointer", // TVMFFIObjectHandle obj
    ],
    result: "i32",
  },
  decRefOnThread: {
    name: "TVMFFIObjectDecRef",
    parameters: [
      "pointer", // TVMFFIObjectHandle obj
    ],
    result: "i32",
    nonblocking: true,
  },
  TVMFFIErrorMoveFromRaised: {
    parameters: [
      "buffer", // TVMFFIObjectHandle *result
    ],
    result: "void",
  },
} as const;

const path = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
if (path === null) {
  skipped("tvm-ffi", "pip install apache-tvm-ffi");
}

/** Its functions. */
export const tvm: Deno.DynamicLibrary<typeof symbols>["symbols"] | null =
  path === null ? null : Deno.dlopen(path, symbols).symbols;
