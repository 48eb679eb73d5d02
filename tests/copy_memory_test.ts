// The memory of copies: given back at dispose, and used again.

import { type DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { markAsUntransferable } from "node:worker_threads";
import {
  assertBufferError,
  collectGarbage,
  floats,
  importFixture,
} from "./helpers.ts";

const matrix = Tensor.from(
  Float32Array.from({ length: 60_000 }, (_, i) => i),
  [200, 300],
);

function addressOf(data: Float32Array): bigint {
  return Deno.UnsafePointer.value(
    Deno.UnsafePointer.of(data as Float32Array<ArrayBuffer>),
  );
}

/** All ways to a copy, each of 200 x 300 float32. */
const ways: Record<string, () => Tensor<"float32">> = {
  "copy()": () => matrix.transpose().copy() as Tensor<"float32">,
  "copy() of what lies in order": () => matrix.copy() as Tensor<"float32">,
  "astype()": () => matrix.transpose().astype("float32"),
  "fromDlpack() with copy: true": () =>
    fromDlpack(matrix, { copy: true }) as Tensor<"float32">,
};

for (const [name, make] of Object.entries(ways)) {
  Deno.test(`dispose of a copy empties it, and its memory is used again: ${name}`, () => {
    const expected = make().toArray();
    const copy = make();
    const { data } = copy;
    const view = copy.transpose();
    const part = data.subarray(5, 10);
    const address = addressOf(data);
    copy[Symbol.dispose]();
    copy[Symbol.dispose]();
    assertEquals([data.length, part.length], [0, 0]);
    assertBufferError(() => copy.get(0, 0), "released", "given back");
    assertBufferError(() => view.get(0, 0), "released", "given back");

    const [next, another] = [make(), make()];
    assertEquals(addressOf(next.data), address);
    assert(addressOf(another.data) !== address);
    assertEquals(next.toArray(), expected);
    assertEquals(another.toArray(), expected);
  });
}

Deno.test("what was copied before does not show in a copy", () => {
  const junk = Tensor.from(new Uint8Array(1000).fill(255));
  const zeros = Tensor.from(new Uint8Array(2000), [1000, 2]);
  for (let i = 0; i < 3; i++) {
    junk.copy()[Symbol.dispose]();
    assertEquals(zeros.slice(null, 1).copy().data, new Uint8Array(1000));
    junk.copy()[Symbol.dispose]();
    assertEquals(zeros.slice(null, 1).astype("int8").data, new Int8Array(1000));
    junk.copy()[Symbol.dispose]();
    // 7993 bits: the last byte is not full.
    const bits = Tensor.from(new Uint8Array(1000), [7993], { dtype: "uint1" });
    assertEquals(bits.slice([1]).copy().data, new Uint8Array(999));
    assertEquals(bits.copy().data, new Uint8Array(1000));
  }
});

Deno.test("dispose leaves an array that the user gave to copy() alone", () => {
  const out = new Float32Array(60_000);
  matrix.copy({ out })[Symbol.dispose]();
  assertEquals(out.length, 60_000);
  assertEquals(out[59_999], 59_999);
});

Deno.test("dispose leaves a copy alone that C has the address of", () => {
  const copy = matrix.copy() as Tensor<"float32">;
  const { data } = copy;
  // By a tensor of its own: the other one does not know.
  const capsule = Tensor.from(data, [300, 200]).__dlpack__({
    maxVersion: [1, 3],
  });
  copy[Symbol.dispose]();
  assertEquals(data.length, 60_000);
  const other = matrix.copy() as Tensor<"float32">;
  assert(addressOf(other.data) !== addressOf(data));
  using consumer = fromDlpack(capsule);
  assertEquals(consumer.get(299, 199), 59_999);
});

Deno.test("dispose of a copy whose ArrayBuffer was transferred does nothing", () => {
  const copy = matrix.copy();
  const moved = structuredClone(copy.data, { transfer: [copy.data.buffer] });
  copy[Symbol.dispose]();
  assertEquals(moved.length, 60_000);
  assertBufferError(() => copy.get(0, 0), "released", "given back");
});

Deno.test("dispose leaves a copy alone that was marked as untransferable", () => {
  const copy = matrix.copy();
  const { data } = copy;
  markAsUntransferable(data.buffer);
  copy[Symbol.dispose]();
  assertEquals(data.length, 60_000);
  assertBufferError(() => copy.get(0, 0), "released", "given back");
});

Deno.test("An exported copy leaves no copy behind", () => {
  const copy = matrix.copy() as Tensor<"float32">;
  const address = addressOf(copy.data);
  copy[Symbol.dispose]();
  const capsule: DlpackCapsule = matrix.__dlpack__({
    maxVersion: [1, 3],
    copy: true,
  });
  using consumer = fromDlpack(capsule);
  assertEquals(consumer.get(199, 299), 59_999);
  assertEquals(addressOf(matrix.copy().data as Float32Array), address);
});

Deno.test("Memory of copies that nobody uses is bounded", () => {
  const kept = new Set<bigint>();
  const copies = Array.from({ length: 40 }, () => matrix.copy());
  for (const copy of copies) {
    kept.add(addressOf(copy.data as Float32Array));
    copy[Symbol.dispose]();
  }
  const again = Array.from({ length: 40 }, () => matrix.copy());
  const found = again.filter((copy) =>
    kept.has(addressOf(copy.data as Float32Array))
  );
  // The system's allocator may give a freed block again.
  assert(found.length >= 32, `${found.length}`);

  const before = Deno.memoryUsage().external;
  const large = Tensor.from(new Uint8Array(2 ** 20 + 1));
  for (let i = 1; i < 400; i++) {
    large.slice([i]).copy()[Symbol.dispose]();
  }
  const growth = Deno.memoryUsage().external - before;
  assert(growth < 200 * 2 ** 20, `${growth} bytes`);
});

Deno.test("dispose of a copy does not touch the memory of a library", () => {
  using t = importFixture(floats([2, 3]));
  const copy = t.copy();
  copy[Symbol.dispose]();
  assertEquals(t.toArray(), [[0, 1, 2], [3, 4, 5]]);
});

Deno.test("Memory that nobody uses for a second goes when the garbage collector comes", async () => {
  const large = Tensor.from(new Uint8Array(32 * 2 ** 20));
  const mebibytes = (): number =>
    Math.round(Deno.memoryUsage().external / 2 ** 20);
  await collectGarbage();
  await pause(1100);
  await collectGarbage();
  const before = mebibytes();
  large.copy()[Symbol.dispose]();
  await collectGarbage();
  assertEquals(mebibytes() - before, 32);
  large.copy()[Symbol.dispose]();
  assertEquals(mebibytes() - before, 32);
  await collectGarbage();
  await pause(1100);
  await collectGarbage();
  assertEquals(mebibytes() - before, 0);
});

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
