/** ONNX Runtime, as examples/onnxruntime.ts uses it. */

import { assertEquals, assertMatch } from "@std/assert";
import { foldersOf } from "../examples/find_library.ts";
import { skipped } from "./skipped.ts";

const isInstalled = Deno.env.has("ONNXRUNTIME_LIBRARY") ||
  foldersOf("onnxruntime").length > 0;
if (!isInstalled) skipped("ONNX Runtime", "pip install onnxruntime");

async function run(
  env: Record<string, string> = {},
): Promise<{ code: number; out: string; err: string }> {
  const example = new URL("../examples/onnxruntime.ts", import.meta.url);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", example.href],
    env: { NO_COLOR: "1", ...env },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

Deno.test({
  name: "ONNX Runtime: tensors go in and come out without a copy",
  ignore: !isInstalled,
  async fn() {
    const { code, out, err } = await run();
    assertEquals(code, 0, err);
    const lines = out.trimEnd().split("\n");
    const [refused] = lines.splice(13, 1);
    assertEquals(lines, [
      "a Tensor float32 [2, 3], strides [3, 1], cpu:0",
      "[[1. 2. 3.]",
      " [4. 5. 6.]]",
      "b Tensor float32 [3, 2], strides [2, 1], cpu:0",
      "[[1. 0.]",
      " [0. 1.]",
      " [1. 1.]]",
      "ONNX Runtime has a where it is: true",
      "c = MatMul(a, b) Tensor float32 [2, 2], strides [2, 1], cpu:0",
      "[[ 4.  5.]",
      " [10. 11.]]",
      "Outputs given back: 0",
      "Out of scope, outputs given back: 1",
      "The session is gone, its output is not Tensor float32 [2, 2], " +
      "strides [2, 1], cpu:0",
      "[[14. 32.]",
      " [32. 77.]]",
    ]);
    assertMatch(refused!, /^Refused by ONNX Runtime: .*MatMul.*dimension/);
  },
});

Deno.test({
  name: "ONNX Runtime: where it is missing, one line says so",
  ignore: Deno.env.has("ONNXRUNTIME_LIBRARY"),
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      // A module of its name that is no package hides the package.
      await Deno.writeTextFile(`${folder}/onnxruntime.py`, "");
      assertEquals(await run({ PYTHONPATH: folder }), {
        code: 1,
        out: "",
        err: "ONNX Runtime is not installed: pip install onnxruntime\n",
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
