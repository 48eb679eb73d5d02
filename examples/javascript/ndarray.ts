/**
 * scijs ndarray and stdlib's ndarray over the memory of a tensor, and back.
 *
 *   deno run -A examples/javascript/ndarray.ts
 *
 * dtypes: bool (as 0 and 1), int8 to int64, uint8 to uint64, float16, float32 and
 * float64 as they are; complex ones with real and imaginary part as a last axis.
 * The others are raw bits, which these classes cannot read: astype("float32")
 * first. Nothing is to be awaited: an ndarray reads when it is asked to.
 */

import { type DType, Tensor, type TypedArray } from "@dlpack/deno";
import scijs, { type NdArray } from "npm:ndarray@1.1.1";
// Of stdlib's classes the one without checks: `@stdlib/ndarray/ctor` has them, and
// `readonly`, but comes with 400 MB. The arguments are the same.
import Stdlib from "npm:@stdlib/ndarray-base-ctor@0.2.2";
import { cZeros } from "../c_memory.ts";

/** What both classes are made of: the very memory, and where its elements are. */
interface Parts {
  readonly dtype: string;
  readonly data: TypedArray;
  readonly shape: number[];
  readonly strides: number[];
  readonly offset: number;
}

/** Where the elements are in the numbers of `data`. */
export function partsOf(t: Tensor): Parts {
  const { data, offset } = t;
  const [shape, strides] = [[...t.shape], [...t.strides]];
  if (/^(bool|u?int(8|16|32|64)|float(16|32|64))$/.test(t.dtype)) {
    return { dtype: t.dtype, data, shape, strides, offset };
  }
  if (t.dtype.startsWith("complex")) {
    return {
      dtype: `float${t.bits / 2}`,
      data,
      shape: [...shape, 2],
      strides: [...strides.map((stride) => 2 * stride), 1],
      offset: 2 * offset,
    };
  }
  throw new TypeError(`${t.dtype} is raw bits here: astype("float32") first`);
}

export function toScijs(t: Tensor): NdArray {
  const { data, shape, strides, offset } = partsOf(t);
  return scijs(data as never, shape, strides, offset);
}

export function toStdlib(t: Tensor) {
  const { dtype, data, shape, strides, offset } = partsOf(t);
  // It has no 64-bit integers, and its bool is a class of its own.
  const name = /64$/.test(dtype) && !dtype.startsWith("float")
    ? "generic"
    : dtype === "bool"
    ? "uint8"
    : dtype;
  const steps = shape.length === 0 ? [0] : strides;
  return new Stdlib(name as "float32", data, shape, steps, offset, "row-major");
}

/** A tensor over the memory of a scijs ndarray. */
export function fromScijs(array: NdArray): Tensor {
  const { data, shape, stride: strides, offset } = array;
  if (!ArrayBuffer.isView(data)) {
    throw new TypeError("An ndarray over a plain array: copy it first");
  }
  return Tensor.from<TypedArray, DType>(data as never, shape, {
    strides,
    offset,
  });
}

if (import.meta.main) {
  using t = cZeros([2, 3], "float32"); // C's memory
  const view = t.transpose().slice([null, null, -1]);
  const [a, b] = [toScijs(view), toStdlib(view)];
  a.set(0, 1, 5); // scijs writes, C and stdlib see it
  b.set(2, 0, 7);
  console.log(t, b.get(0, 1), a.get(2, 0));
  console.log("And back:", fromScijs(a.transpose(1, 0)));
}
