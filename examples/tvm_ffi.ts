// Tensors between Deno and tvm-ffi, both ways, without a copy.
//
//   pip install apache-tvm-ffi
//   deno run -A examples/tvm_ffi.ts
//
// TVM_FFI_LIBRARY=<path of libtvm_ffi> skips the search for the library.

import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
import { findLibrary } from "./find_library.ts";

const path = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
if (path === null) {
  console.error("tvm-ffi is not installed: pip install apache-tvm-ffi");
  Deno.exit(1);
}

// From <tvm/ffi/c_api.h>. Every function returns 0, or raises an error object.
const tvm = Deno.dlopen(path, {
  TVMFFITensorFromDLPackVersioned: {
    parameters: ["pointer", "i32", "i32", "buffer"],
    result: "i32",
  },
  TVMFFITensorToDLPack: { parameters: ["pointer", "buffer"], result: "i32" },
  TVMFFITensorToDLPackVersioned: {
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  TVMFFIObjectDecRef: { parameters: ["pointer"], result: "i32" },
  TVMFFIErrorMoveFromRaised: { parameters: ["buffer"], result: "void" },
}).symbols;

// 1. JavaScript makes a tensor and tvm-ffi takes it over.
const pixels = new Float32Array([1, 2, 3, 4, 5, 6]);
const handle = importIntoTvm(Tensor.from(pixels, [2, 3]));
console.log("tvm-ffi holds a tensor, use count", useCount(handle));

// 2. tvm-ffi hands it out again: the capsule owns a DLManagedTensorVersioned*,
//    the tensor is a view of the same memory.
const out = new BigUint64Array(1);
check(tvm.TVMFFITensorToDLPackVersioned(handle, out));
{
  using tensor = fromDlpack(new DlpackCapsule(out[0]!, "dltensor_versioned"));
  console.log(tensor);
  console.log("Viewed from Deno, use count", useCount(handle));

  pixels[0] = 100;
  console.log("Written on one side, read on the other:", tensor.get(0, 0));
  console.log(tensor.transpose());
}
console.log("Out of scope, use count", useCount(handle));

// 3. The struct of DLPack before 1.0 works too. It cannot say whether it may be
//    written to, so the view is read-only.
check(tvm.TVMFFITensorToDLPack(handle, out));
{
  using tensor = fromDlpack(new DlpackCapsule(out[0]!, "dltensor"));
  console.log("From a DLManagedTensor, read-only:", tensor.readOnly);
}

// 4. A call that fails leaves the struct with its caller: wrap it again.
const capsule = Tensor.from(pixels, [2, 3]).transpose()
  .__dlpack__({ maxVersion: [1, 0] });
const struct = capsule.take();
const requireContiguous = 1;
try {
  check(
    tvm.TVMFFITensorFromDLPackVersioned(struct, 0, requireContiguous, out),
  );
} catch (error) {
  console.log("Refused by tvm-ffi:", (error as Error).message);
  new DlpackCapsule(struct, "dltensor_versioned")[Symbol.dispose]();
}

tvm.TVMFFIObjectDecRef(handle);

function importIntoTvm(tensor: Tensor): Deno.PointerObject {
  const out = new BigUint64Array(1);
  const capsule = tensor.__dlpack__({ maxVersion: [1, 0] });
  check(tvm.TVMFFITensorFromDLPackVersioned(capsule.take(), 0, 0, out));
  return Deno.UnsafePointer.create(out[0]!)!;
}

/** The strong reference count: the first 32 bits of every tvm-ffi object. */
function useCount(object: Deno.PointerObject): number {
  return new Deno.UnsafePointerView(object).getUint32(0);
}

/** Throws the error that a tvm-ffi call raised. */
function check(status: number): void {
  if (status === 0) return;
  const out = new BigUint64Array(1);
  tvm.TVMFFIErrorMoveFromRaised(out);
  const error = Deno.UnsafePointer.create(out[0]!)!;
  const cell = new Deno.UnsafePointerView(error);
  // A 24-byte object header, then kind and message as { pointer, length }.
  const bytes = new Uint8Array(Number(cell.getBigUint64(48)));
  new Deno.UnsafePointerView(cell.getPointer(40)!).copyInto(bytes);
  tvm.TVMFFIObjectDecRef(error);
  throw new Error(new TextDecoder().decode(bytes));
}
