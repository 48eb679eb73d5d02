/**
 * The pages for libraries of npm: each over C's memory, where what is written
 * through one side is seen by the other, and what each page says that passes,
 * does not, and must be awaited.
 */

import { type Complex, type DType, Tensor } from "@dlpack/deno";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as tf from "npm:@tensorflow/tfjs-core@4.22.0";
import * as ort from "npm:onnxruntime-node@1.30.0";
import { allocated, cZeros } from "../examples/c_memory.ts";
import {
  fromImageData,
  toImageData,
} from "../examples/javascript/image_data.ts";
import {
  fromScijs,
  partsOf,
  toScijs,
  toStdlib,
} from "../examples/javascript/ndarray.ts";
import { run as runModel, toOrt } from "../examples/javascript/onnxruntime.ts";
import { fromSharp, toSharp } from "../examples/javascript/sharp.ts";
import { fromTf, toTf } from "../examples/javascript/tensorflow.ts";
import { onnxModel } from "../examples/onnx_model.ts";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import { collectGarbage } from "./helpers.ts";

/** 1, 2, 3, … in C's memory, as a view that is in no order. */
function example(dtype: DType): { whole: Tensor; view: Tensor } {
  const whole = cZeros([3, 4], dtype);
  const { kind } = dtypeByName(dtype)!;
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 4; j++) {
      const n = 4 * i + j;
      const element = kind === "bool"
        ? n % 3 === 0
        : kind === "bigint" || kind === "handle"
        ? BigInt(n)
        : kind === "complex"
        ? { re: n, im: -n }
        : n;
      whole.set(i, j, element as never);
    }
  }
  const view = whole.slice([null, null, -1], [1, null, 2]).transpose();
  return { whole, view };
}

const passes = dtypeNames.filter((name) =>
  /^(bool|u?int(8|16|32|64)|float(16|32|64)|complex.*)$/.test(name)
);
const refused = dtypeNames.filter((name) => !passes.includes(name));

for (
  const [name, wrap] of Object.entries({ scijs: toScijs, stdlib: toStdlib })
) {
  Deno.test(`examples/javascript/ndarray.ts: ${name} shares every dtype that it says`, () => {
    for (const dtype of passes) {
      const { whole, view } = example(dtype);
      const array = wrap(view) as unknown as {
        data: unknown;
        get(...index: number[]): number;
        set(...args: unknown[]): void;
      };
      assert(array.data === view.data, `${dtype}: no copy`);
      const isComplex = dtype.startsWith("complex");
      for (const i of [0, 1]) {
        for (const j of [0, 1, 2]) {
          const element = view.get(i, j);
          if (isComplex) {
            assertEquals(array.get(i, j, 0), (element as Complex).re, dtype);
            assertEquals(array.get(i, j, 1), (element as Complex).im, dtype);
          } else {
            const wanted = typeof element === "boolean"
              ? Number(element)
              : element;
            assertEquals<unknown>(array.get(i, j), wanted, dtype);
          }
        }
      }
      // view[1, 2] is whole[0, 3].
      const one = dtype.endsWith("int64") ? 1n : 1;
      if (isComplex) array.set(1, 2, 1, one);
      else array.set(1, 2, one);
      const seen = whole.get(0, 3);
      assertEquals<unknown>(
        isComplex ? (seen as Complex).im : Number(seen),
        1,
        dtype,
      );
      whole[Symbol.dispose]();
    }
    for (const dtype of refused) {
      const t = Tensor.zeros([2], dtype);
      assertThrows(() => wrap(t), TypeError, `${dtype} is raw bits here`);
    }
  });

  Deno.test(`examples/javascript/ndarray.ts: ${name} takes a tensor without axes`, () => {
    using t = cZeros([3], "float32").assign(Float32Array.of(1, 2, 3));
    assertEquals(wrap(t.slice(1)).get(), 2);
  });
}

Deno.test("examples/javascript/ndarray.ts: an ndarray comes back as a tensor", () => {
  using t = cZeros([2, 3], "int16").assign(Int16Array.of(1, 2, 3, 4, 5, 6));
  const back = fromScijs(toScijs(t).transpose(1, 0).step(-1, 1));
  assertEquals(back.toArray(), t.transpose().slice([null, null, -1]).toArray());
  back.set(0, 0, 9);
  assertEquals(t.get(0, 2), 9);
  assert(partsOf(t).data === t.data);
});

// ---- ONNX Runtime ----

/** ONNX's numbers of element types, and an operator for each. */
const onnxTypes: Record<string, [number, string]> = {
  float32: [1, "Add"],
  float64: [11, "Add"],
  uint8: [2, "Mod"],
  int8: [3, "Mod"],
  uint16: [4, "Mod"],
  int16: [5, "Mod"],
  int32: [6, "Mod"],
  int64: [7, "Mod"],
  uint32: [12, "Mod"],
  uint64: [13, "Mod"],
  bool: [9, "Or"],
};

Deno.test("examples/javascript/onnxruntime.ts: every dtype goes in and comes out in place", async () => {
  for (const [name, [type, operator]] of Object.entries(onnxTypes)) {
    const dtype = name as "float32";
    const session = await ort.InferenceSession.create(
      onnxModel(operator, type),
    );
    const values = Tensor.from(Float32Array.of(0, 0, 7, 5, 2, 0), [3, 2]);
    const others = Tensor.from(Float32Array.of(1, 1, 4, 3, 9, 1), [3, 2]);
    // At an offset, as the rows of a larger tensor.
    using whole = cZeros([4, 2], dtype);
    const a = whole.slice([1, null]).assign(values.astype(dtype));
    using b = cZeros([3, 2], dtype).assign(others.astype(dtype));
    using c = cZeros([3, 2], dtype);
    const { buffer } = toOrt(a).data as Uint8Array;
    assert(buffer === whole.data.buffer, "no copy");
    await runModel(session, a, b, c);
    const expected = operator === "Add"
      ? [1, 1, 11, 8, 11, 1]
      : operator === "Or"
      ? [1, 1, 1, 1, 1, 1]
      : [0, 0, 3, 2, 2, 0];
    assertEquals([...c.reshape([6])].map(Number), expected, dtype);
    await session.release();
  }
});

Deno.test("examples/javascript/onnxruntime.ts: run reads later, and during() waits", async () => {
  const session = await ort.InferenceSession.create(onnxModel("Add", 1));
  const before = allocated;
  const a = cZeros([1, 2], "float32").assign(1);
  const b = cZeros([1, 2], "float32").assign(1);
  using c = cZeros([1, 2], "float32");
  const running = runModel(session, a, b, c);
  a.assign(10); // as if the memory was C's again
  a[Symbol.dispose]();
  b[Symbol.dispose]();
  assertEquals(allocated, before + 3); // kept
  await running;
  assertEquals(c.toArray(), [[11, 11]]);
  assertEquals(allocated, before + 1);
  await session.release();
});

Deno.test("examples/javascript/onnxruntime.ts: what does not pass is refused, by ONNX Runtime itself", async () => {
  for (const dtype of dtypeNames.filter((name) => !(name in onnxTypes))) {
    assertThrows(() => toOrt(Tensor.zeros([2], dtype)), TypeError, dtype);
  }
  const columns = cZeros([2, 2], "float32").transpose();
  assertThrows(() => toOrt(columns), TypeError, "pass t.copy()");
  // Deno 2.7 ends when an add-on is handed a Float16Array.
  if (Deno.version.deno.startsWith("2.7.")) return;
  const session = await ort.InferenceSession.create(onnxModel("Add", 10));
  const half = new ort.Tensor("float16", new Float16Array(2) as never, [1, 2]);
  await assertRejects(() => session.run({ a: half, b: half }));
  await session.release();
});

// ---- TensorFlow.js ----

Deno.test("examples/javascript/tensorflow.ts: both sides see what is written", async () => {
  await tf.setBackend("cpu");
  for (const dtype of ["float32", "int32", "bool"] as const) {
    using whole = cZeros([3, 2], dtype);
    const t = whole.slice([1, null]) as Tensor;
    const x = toTf(t);
    assertEquals([x.dtype, x.shape], [dtype, [2, 2]]);
    t.set(1, 0, (dtype === "bool" ? true : 5) as never);
    assertEquals(Number(x.dataSync()[2]), dtype === "bool" ? 1 : 5, dtype);
    const back = fromTf(x);
    assertEquals([back.dtype, back.toArray()], [dtype, t.toArray()]);
    if (dtype === "bool") continue; // dataSync() gives a copy
    back.set(0, 1, 7);
    assertEquals<unknown>(t.get(0, 1), 7);
    assertEquals([...tf.add(x, 1).dataSync()], [1, 8, 6, 1], dtype);
  }
  for (const dtype of dtypeNames) {
    if (/^(float32|int32|bool)$/.test(dtype)) continue;
    assertThrows(() => toTf(Tensor.zeros([2], dtype)), TypeError, dtype);
  }
});

Deno.test("examples/javascript/tensorflow.ts: after dispose its numbers are NaN", () => {
  const t = cZeros([2], "float32");
  const x = toTf(t);
  t[Symbol.dispose]();
  assertEquals([...tf.add(x, 1).dataSync()], [NaN, NaN]);
});

// ---- sharp ----

Deno.test("examples/javascript/sharp.ts: the pixels go in, and come out, as they are", async () => {
  for (const channels of [1, 3, 4]) {
    using whole = cZeros([7, 6, channels], "uint8");
    const pixels = Uint8Array.from(whole.data, (_, i) => i);
    const t = whole.assign(pixels).slice([2, null]);
    const picture = toSharp(t);
    // Grey would come out as red, green and blue.
    if (channels === 1) picture.toColourspace("b-w");
    const out = await t.during(fromSharp(picture));
    assertEquals(out.shape, [5, 6, channels]);
    assertEquals(out.toArray(), t.toArray());
  }
  for (const dtype of dtypeNames.filter((name) => name !== "uint8")) {
    assertThrows(() => toSharp(Tensor.zeros([2, 2, 3], dtype)), TypeError);
  }
  assertThrows(() => toSharp(Tensor.zeros([2, 2, 2], "uint8")), TypeError);
  assertThrows(() => toSharp(Tensor.zeros([2, 2], "uint8")), TypeError);
});

Deno.test("examples/javascript/sharp.ts: sharp reads later, and during() waits", async () => {
  await collectGarbage(); // of the tests before
  const before = allocated;
  let isLate = false;
  for (let tries = 0; tries < 100 && !isLate; tries++) {
    const t = cZeros([8, 8, 3], "uint8").assign(200);
    const reading = t.during(fromSharp(toSharp(t)));
    t.assign(9); // as if the memory was C's again
    t[Symbol.dispose]();
    assertEquals(allocated, before + 1); // kept
    const last = (await reading).get(7, 7, 2);
    assert(last === 9 || last === 200);
    // Its thread may have been faster than this one.
    isLate = last === 9;
    assertEquals(allocated, before);
  }
  assert(isLate);
});

// ---- ImageData ----

Deno.test("examples/javascript/image_data.ts: both sides see what is written", async () => {
  using whole = cZeros([3, 5, 4], "uint8");
  const t = whole.slice([1, null]);
  const image = toImageData(t);
  assertEquals([image.width, image.height], [5, 2]);
  t.set(1, 4, 3, 77);
  assertEquals(image.data.at(-1), 77);
  image.data[0] = 300; // clamped
  assertEquals(whole.get(1, 0, 0), 255);
  const back = fromImageData(image);
  back.set(0, 1, 0, 8);
  assertEquals(t.get(0, 1, 0), 8);
  const { width, height } = await t.during(createImageBitmap(image));
  assertEquals([width, height], [5, 2]);
  assertThrows(() => toImageData(Tensor.zeros([2, 2, 3], "uint8")), TypeError);
  assertThrows(() => toImageData(Tensor.zeros([2, 2, 4], "int8")), TypeError);
  const turned = t.transpose(1, 0, 2);
  assertThrows(() => toImageData(turned), TypeError, "pass t.copy()");
});

// ---- As commands ----

for (
  const name of ["image_data", "ndarray", "onnxruntime", "sharp", "tensorflow"]
) {
  Deno.test(`examples/javascript/${name}.ts runs`, async () => {
    const url = new URL(`../examples/javascript/${name}.ts`, import.meta.url);
    const { success, stdout, stderr } = await new Deno.Command(
      Deno.execPath(),
      { args: ["run", "-A", url.href], env: { NO_COLOR: "1" } },
    ).output();
    const text = new TextDecoder();
    assert(success, text.decode(stderr));
    assert(text.decode(stdout).split("\n").length > 3);
  });
}
