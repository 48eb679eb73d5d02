/**
 * TensorFlow.js over the memory of a tensor, and back: backend "cpu".
 *
 *   deno run -A examples/javascript/tensorflow.ts
 *
 * dtypes: float32, int32, bool. All others are copied to one of these, or refused:
 * astype() first. Elements in C order. Nothing is to be awaited, but TensorFlow's
 * own tensor must not be used after the memory went back: its numbers are NaN then.
 */

import { Tensor } from "@dlpack/deno";
import * as tf from "npm:@tensorflow/tfjs-core@4.22.0";
import "npm:@tensorflow/tfjs-backend-cpu@4.22.0";
import { cZeros } from "../c_memory.ts";

/** The same memory as a tensor of TensorFlow.js. */
export function toTf(t: Tensor): tf.Tensor {
  if (!/^(float32|int32|bool)$/.test(t.dtype)) {
    throw new TypeError(`TensorFlow.js has no ${t.dtype}: astype("float32")`);
  }
  if (!t.isContiguous) throw new TypeError("Not in C order: pass t.copy()");
  const elements = t.data.subarray(t.offset, t.offset + t.size);
  return tf.tensor(
    elements as Float32Array,
    [...t.shape],
    t.dtype as "float32",
  );
}

/** The memory of a result, which TensorFlow.js keeps: clone what others change. */
export function fromTf(x: tf.Tensor): Tensor {
  const data = x.dataSync() as Float32Array | Int32Array | Uint8Array;
  return data instanceof Uint8Array && x.dtype === "bool"
    ? Tensor.from(data, x.shape, { dtype: "bool" })
    : Tensor.from<Float32Array | Int32Array | Uint8Array>(data, x.shape);
}

if (import.meta.main) {
  await tf.setBackend("cpu");
  using t = cZeros([2, 3], "float32").assign(1); // C's memory
  const x = toTf(t);
  t.set(1, 2, 9);
  console.log("TensorFlow.js sees what was written to it:");
  x.print();
  console.log("And a result of its own:", fromTf(tf.mul(x, 2)));
}
