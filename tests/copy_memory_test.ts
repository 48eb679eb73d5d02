// The memory of copies: used again when nobody has seen it.

import {
  addressOf,
  type DlpackCapsule,
  fromDlpack,
  Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { allocate } from "../src/copy/memory.ts";
import { dtypeByName } from "../src/dtype/table.ts";
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

/** All ways to a copy, each of 200 x 300 float32. */
const ways: Record<string, () => Tensor<"float32">> = {
  "copy()": () => matrix.transpose().copy() as Tensor<"float32">,
  "copy() of what lies in order": () => matrix.copy() as Tensor<"float32">,
  "astype()": () => matrix.transpose().astype("float32"),
  "fromDlpack() with copy: true": () =>
    fromDlpack(matrix, { copy: true }) as Tensor<"float32">,
  "fromDlpack() of native memory": () =>
    fromDlpack(matrix.__dlpack__(), { copy: true }) as Tensor<"float32">,
};

/** What the next copy of that length would be written over: zeros, if it is new. */
function nextMemory(): Float32Array {
  const float32 = dtypeByName("float32")!;
  return allocate(float32, false, 60_000) as Float32Array;
}

/** Takes all memory that waits for the next copy. */
function drain(): void {
  while (isUsed(nextMemory()));
}

function isUsed(memory: Float32Array): boolean {
  return memory.some((value) => value !== 0);
}

/** Each shows the memory of a copy to somebody: that may look at it at any time. */
const shows: Record<string, (copy: Tensor<"float32">) => unknown> = {
  "data": (copy) => copy.data,
  "data of a view": (copy) => copy.transpose().data,
  "bytes": (copy) => copy.bytes,
  "an export": (copy) => copy.__dlpack__({ maxVersion: [1, 3] }).take(),
  "hold()": (copy) => copy.hold(),
};

for (const [name, make] of Object.entries(ways)) {
  Deno.test(`The memory of a disposed copy that nobody saw is used again: ${name}`, () => {
    const copy = make();
    drain(); // of what was needed on the way
    const view = copy.transpose();
    const expected = (copy.toArray() as number[][]).flat();
    assertEquals([...copy].length, copy.shape[0]);
    copy[Symbol.dispose]();
    copy[Symbol.dispose]();
    assertBufferError(() => copy.get(0, 0), "released", "given back");
    assertBufferError(() => copy.data, "released", "given back");
    assertBufferError(() => view.get(0, 0), "released", "given back");

    assertEquals([...nextMemory()], expected);
    assert(!isUsed(nextMemory()));
  });

  for (const [how, show] of Object.entries(shows)) {
    Deno.test(`A disposed copy stays with who was shown it: ${name}, ${how}`, () => {
      const copy = make();
      const kept = show(copy);
      drain();
      copy[Symbol.dispose]();
      assertBufferError(() => copy.get(0, 0), "released", "given back");
      assert(!isUsed(nextMemory()));
      assert(kept);
    });
  }
}

Deno.test("A file gets a copy that is disposed while it is being written", async () => {
  // A pipe, of which the reader is slow: the write goes on for long.
  const cat = new Deno.Command("cat", { stdin: "piped", stdout: "piped" })
    .spawn();
  const writer = cat.stdin.getWriter();
  const size = 2 ** 22;
  const of = (value: number): Tensor<"uint8"> =>
    Tensor.from(new Uint8Array(size).fill(value));
  const [a, b] = [of(1), of(2)];
  const write = (): Promise<void> => {
    using copy = a.copy();
    return writer.write(copy.data);
  };
  const written = write();
  using _other = b.copy();
  const output = new Response(cat.stdout).bytes();
  await written;
  await writer.close();
  assertEquals((await output).findIndex((byte) => byte !== 1), -1);
  await cat.status;
});

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
  const copy = matrix.copy();
  const capsule = copy.__dlpack__({ maxVersion: [1, 3] });
  copy[Symbol.dispose]();
  using consumer = fromDlpack(capsule);
  assertEquals(consumer.toArray(), matrix.toArray());
  matrix.transpose().copy()[Symbol.dispose]();
  assertEquals(consumer.get(199, 299), 59_999);
});

Deno.test("dispose of a copy whose ArrayBuffer was transferred does nothing", () => {
  const copy = matrix.copy();
  const moved = structuredClone(copy.data, { transfer: [copy.data.buffer] });
  copy[Symbol.dispose]();
  assertEquals(moved.length, 60_000);
  assertBufferError(() => copy.get(0, 0), "released", "given back");
});

Deno.test("An exported copy leaves what its elements were put in order in", () => {
  const turned = matrix.transpose();
  const inOrder = turned.copy().data;
  drain();
  const capsule: DlpackCapsule = turned.__dlpack__({
    maxVersion: [1, 3],
    copy: true,
  });
  using consumer = fromDlpack(capsule);
  assertEquals(consumer.get(299, 199), 59_999);
  assertEquals(nextMemory(), inOrder);
});

Deno.test("An exported copy of what is in order takes no other memory", () => {
  drain();
  const capsule = matrix.__dlpack__({ maxVersion: [1, 3], copy: true });
  using consumer = fromDlpack(capsule);
  assertEquals(consumer.data, matrix.data);
  assertEquals(isUsed(nextMemory()), false);
});

Deno.test("Memory of copies that nobody uses is bounded", () => {
  drain();
  const copies = Array.from({ length: 40 }, () => matrix.copy());
  for (const copy of copies) copy[Symbol.dispose]();
  const again = Array.from({ length: 40 }, nextMemory);
  assertEquals(again.filter(isUsed).length, 32);

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

Deno.test({
  name: "Large copies are in huge pages, where Linux gives them when asked",
  ignore: Deno.build.os !== "linux",
  fn() {
    const large = Tensor.zeros([1 << 24], "float32");
    for (const copy of [large.copy(), large.slice([null, null, -1]).copy()]) {
      // The first page may hold more than the copy.
      const address = addressOf(copy) + 4096n;
      // Its mapping, from "7f00…-7f00… rw-p …" to "VmFlags: rd wr … hg …".
      const mappings = Deno.readTextFileSync("/proc/self/smaps")
        .matchAll(/^([0-9a-f]+)-([0-9a-f]+) [^]*?^VmFlags: (.*)$/gm);
      const mapping = mappings.find(([, start, end]) =>
        BigInt(`0x${start}`) <= address && address < BigInt(`0x${end}`)
      );
      const flags = mapping?.[3] ?? "no mapping";
      assert(flags.split(" ").includes("hg"), flags);
    }
  },
});
