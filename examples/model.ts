// A model that Python runs, on tensors of Deno's: ONNX Runtime by its own API.
//
//   python3 -m venv .venv && . .venv/bin/activate && pip install onnxruntime
//   deno run -A examples/model.ts

import { fromDlpack, Tensor } from "@dlpack/deno";
import { Python } from "@dlpack/deno/python";

const py = Python.open();

// The model: scores = Softmax(features @ weights). A file would do as well:
// session = ort.InferenceSession("model.onnx").
py.exec(`
  import onnxruntime as ort

  def message(*fields):
      """A message of protobuf, which ONNX's files are."""
      parts = b""
      for number, value in fields:
          if isinstance(value, int):
              parts += bytes([number << 3, value])
          else:
              value = value.encode() if isinstance(value, str) else value
              n = len(value)
              length = [n] if n < 128 else [n & 127 | 128, n >> 7]
              parts += bytes([number << 3 | 2, *length]) + value
      return parts

  def matrix(name):
      shape = message((1, message()), (1, message()))
      of_floats = message((1, message((1, 1), (2, shape))))
      return message((1, name), (2, of_floats))

  graph = message(
      (1, message((1, "features"), (1, "weights"), (2, "raw"), (4, "MatMul"))),
      (1, message((1, "raw"), (2, "scores"), (4, "Softmax"))),
      (2, "classifier"),
      (11, matrix("features")), (11, matrix("weights")), (12, matrix("scores")),
  )
  model = message((1, 8), (7, graph), (8, message((2, 13))))
  session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
`);

/** Scores of each row for each class: a view of ONNX Runtime's memory. */
function classify(features: Tensor, weights: Tensor): Tensor<"float32"> {
  const as = py.eval("ort.OrtValue.from_dlpack");
  py.set("features", features, { as });
  py.set("weights", weights, { as });
  py.exec(`
    inputs = {"features": features, "weights": weights}
    [scores] = session.run_with_ort_values(["scores"], inputs)
    del inputs, features, weights
  `);
  return fromDlpack(py.eval("scores"), { dtype: "float32" });
}

const weights = Tensor.from(new Float32Array([2, 0, 0, -1, 1, 0]), [2, 3]);
const features = Tensor.from(new Float32Array([1, 0, 0, 3, -1, -1]), [3, 2]);

using scores = classify(features, weights);
console.log("Scores of three classes", scores);
for (const row of scores) {
  if (row instanceof Tensor) console.log("Best class", best(row.toArray()));
}

/** The index of the largest. */
function best(row: unknown): number {
  const values = row as number[];
  return values.indexOf(Math.max(...values));
}
