#!/usr/bin/env bash
# onnxruntime-web 1.30.0 answers with zeros where it is told to write an output.
#
# A guess: `session.run(inputs, { y: tensor })` writes the output y into that
# tensor's memory, as onnxruntime-common documents for tensors in the place of
# names, or it answers with a tensor of its own. onnxruntime-node has the same
# interface. Either way the result is right.
#
# So it is: onnxruntime-node writes it, and answers with a copy. onnxruntime-web
# answers with the tensor that was passed in, and that is as it was before: the
# result that the script reads is not the model's. No error is thrown. Without a
# tensor for the output its result is right.
#
# Seen, and compared with what comes now, y = x + x of [1, 2], into [7, 7]:
#   onnxruntime-node 1.30.0 by name: [2,4]
#   onnxruntime-node 1.30.0 into a tensor: result [2,4] passed in [2,4] the same memory: false
#   onnxruntime-web 1.30.0 by name: [2,4]
#   onnxruntime-web 1.30.0 into a tensor: result [7,7] passed in [7,7] the same memory: true
set -euo pipefail

if ! command -v npm >/dev/null; then
  echo "Node.js and npm are needed." >&2
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo '{}' >"$folder/package.json"
npm install --prefix "$folder" --silent --no-audit --no-fund --ignore-scripts \
  --cache "$folder/cache" onnxruntime-node@1.30.0 onnxruntime-web@1.30.0

cat >"$folder/run.mjs" <<'EOF'
import { createRequire } from "node:module";

// The model, in protobuf: the numbers of fields, and what is in them.
const message = (...fields) =>
  Uint8Array.from(fields.flatMap(([field, value]) => {
    if (typeof value === "number") return [field << 3, value];
    const content = typeof value === "string" ? Buffer.from(value) : value;
    return [field << 3 | 2, content.length, ...content];
  }));
const vector = (name) => {
  const shape = message([1, message()]);
  const float32 = message([1, 1], [2, shape]);
  return message([1, name], [2, message([1, float32])]);
};
const node = message([1, "x"], [1, "x"], [2, "y"], [4, "Add"]);
const graph = message([1, node], [2, "double"], [11, vector("x")], [12, vector("y")]);
const model = message([1, 8], [7, graph], [8, message([2, 13])]);

const require = createRequire(import.meta.url);
const text = (array) => JSON.stringify([...array]);
for (const name of ["onnxruntime-node", "onnxruntime-web"]) {
  const ort = await import(name);
  const { version } = require(`./node_modules/${name}/package.json`);
  const session = await ort.InferenceSession.create(model);
  const x = new ort.Tensor("float32", Float32Array.of(1, 2), [2]);
  const { y } = await session.run({ x });
  console.log(name, version, "by name:", text(y.data));
  const mine = Float32Array.of(7, 7);
  const into = { y: new ort.Tensor("float32", mine, [2]) };
  const { data } = (await session.run({ x }, into)).y;
  console.log(name, version, "into a tensor: result", text(data), "passed in",
    text(mine), "the same memory:", data.buffer === mine.buffer);
}
process.exit();
EOF

node "$folder/run.mjs" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
