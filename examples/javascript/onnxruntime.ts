/**
 * A model of ONNX on a tensor's memory, with onnxruntime-node: the input is not
 * copied, and the output is written where you want it.
 *
 *   deno run -A examples/javascript/onnxruntime.ts
 *
 * dtypes: float32, float64, bool, int8 to int64, uint8 to uint64. Not float16,
 * bfloat16 and int4, which are refused. Elements in C order, at any offset.
 * To be awaited: `run`, which reads its inputs in a later turn: `t.during`.
 */

import type { Tensor } from "@dlpack/deno";
import * as ort from "npm:onnxruntime-node@1.30.0";
import { cZeros } from "../c_memory.ts";
import { onnxModel } from "../onnx_model.ts";

/** The same memory as a tensor of ONNX Runtime. */
export function toOrt(t: Tensor): ort.Tensor {
  if (!/^(bool|u?int(8|16|32|64)|float(32|64))$/.test(t.dtype)) {
    throw new TypeError(
      `ONNX Runtime does not take ${t.dtype} from JavaScript`,
    );
  }
  if (!t.isContiguous) throw new TypeError("Not in C order: pass t.copy()");
  const elements = t.data.subarray(t.offset, t.offset + t.size);
  return new ort.Tensor(t.dtype as "float32", elements as never, t.shape);
}

/** Runs a model of the inputs a and b, which writes its output c to `out`. */
export async function run(
  session: ort.InferenceSession,
  a: Tensor,
  b: Tensor,
  out: Tensor,
): Promise<void> {
  const running = session.run(
    { a: toOrt(a), b: toOrt(b) },
    { c: toOrt(out) },
  );
  await a.during(b.during(out.during(running)));
}

if (import.meta.main) {
  const session = await ort.InferenceSession.create(onnxModel("MatMul", 1));
  using a = cZeros([2, 3], "float32").assign(2); // C's memory
  using b = cZeros([3, 2], "float32").assign(Float32Array.of(1, 0, 0, 1, 1, 1));
  using c = cZeros([2, 2], "float32");
  await run(session, a, b, c);
  console.log("The product, in C's memory:", c);
}
