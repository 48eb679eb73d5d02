// Memory of the C library, which every system has: a native library for
// examples where there is no compiler.

import { DlpackCapsule, type DType, fromDlpack, Tensor } from "@dlpack/deno";

/** The C library. */
export const c = Deno.dlopen(
  { windows: "ucrtbase.dll", darwin: "libSystem.B.dylib" }[
    Deno.build.os as string
  ] ?? "libc.so.6",
  {
    calloc: { parameters: ["usize", "usize"], result: "pointer" }, // count, size
    free: { parameters: ["pointer"], result: "void" },
    read: {
      name: "memcpy",
      parameters: ["buffer", "pointer", "usize"], // to, from, bytes
      result: "void",
    },
    write: {
      name: "memcpy",
      parameters: ["pointer", "buffer", "usize"],
      result: "void",
    },
  },
).symbols;

/** How many of the tensors below are not given back yet. */
export let allocated = 0;

/** Zeros in C's memory, from `calloc`; `free` is the deleter. */
export function cZeros<D extends DType>(
  shape: readonly number[],
  dtype: D,
): Tensor<D> {
  const { itemsize } = Tensor.empty([], dtype);
  const size = shape.reduce((product, length) => product * length, 1);
  // At least one byte: of none, C may say NULL.
  const data = c.calloc(BigInt(size) || 1n, BigInt(itemsize));
  if (data === null) throw new Error(`No memory for ${size} elements`);
  allocated++;
  const capsule = DlpackCapsule.from(data, {
    dtype,
    shape,
    release() {
      c.free(data);
      allocated--;
    },
  });
  return fromDlpack(capsule, { dtype });
}
