/** Writing: assign(), copy() and astype() into tensors, empty() and zeros(). */

import {
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { addressOfArray } from "../ffi/memory.ts";
import { moveElements } from "../src/copy/elements.ts";
import { planMove } from "../src/copy/plan.ts";
import { entriesOf, packingOf } from "../src/dtype/packing.ts";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import {
  cStrides,
  extentOf,
  type Layout,
  sizeOf,
  walk,
} from "../src/layout.ts";
import {
  assertBufferError,
  bytesOf,
  floats,
  importFixture,
} from "./helpers.ts";
import { Random } from "./random.ts";

/** Strides for a shape, in any order of axes, with gaps, backwards; none meet. */
function spread(random: Random, shape: readonly number[]): Layout {
  const order = [...shape.keys()].sort(() => random.pick([-1, 1]));
  const strides = new Array<number>(shape.length);
  let stride = random.pick([1, 1, 2, 3]);
  for (const axis of order) {
    strides[axis] = stride * random.pick([1, 1, -1]);
    stride = stride * shape[axis]! + random.pick([0, 0, 1, 5]);
  }
  const { lowest } = extentOf(shape, strides);
  return { shape, strides, offset: random.below(4) - lowest };
}

function randomShape(random: Random): number[] {
  const ndim = random.below(5);
  return Array.from(
    { length: ndim },
    () => random.pick([1, 2, 3, 4, 7, 16, 40]),
  );
}

function indicesOf(layout: Layout): number[] {
  const indices: number[] = [];
  walk(layout, (at) => indices.push(at));
  return indices;
}

function getBit(data: Uint8Array, at: number): number {
  return data[at >> 3]! >> (at & 7) & 1;
}

function setBit(data: Uint8Array, at: number, bit: number): void {
  data[at >> 3] = data[at >> 3]! & ~(1 << (at & 7)) | bit << (at & 7);
}

Deno.test("moveElements writes what a naive loop writes, and nothing else", async (t) => {
  const random = new Random();
  const kinds: readonly [DType, boolean][] = [
    ["uint8", false],
    ["uint16", false],
    ["float32", false],
    ["float64", false],
    ["complex128", false],
    ["uint1", true],
    ["int4", true],
    ["float6_e2m3fn", true],
  ];
  for (const [name, isPacked] of kinds) {
    await t.step(name, () => {
      const info = dtypeByName(name)!;
      const { bits } = packingOf(info, isPacked);
      for (let round = 0; round < 150; round++) {
        const shape = randomShape(random);
        if (sizeOf(shape) > 20_000) continue;
        const from = spread(random, shape);
        // Broadcast, now and then.
        const isRepeated = shape.length > 0 && random.below(4) === 0;
        const source = isRepeated
          ? { ...from, strides: (from.strides as number[]).with(0, 0) }
          : from;
        const into = spread(random, shape);
        const lengthOf = (layout: Layout): number => {
          const { highest } = extentOf(layout.shape, layout.strides);
          const elements = layout.offset + highest + 3;
          return Math.ceil(elements * bits / 8 / info.array.BYTES_PER_ELEMENT);
        };
        const bytes = info.array.BYTES_PER_ELEMENT;
        const a = random.bytes(lengthOf(from) * bytes);
        const b = random.bytes(lengthOf(into) * bytes);
        const expected = b.slice();
        const reads = indicesOf(isRepeated ? source : from);
        indicesOf(into).forEach((at, i) => {
          for (let bit = 0; bit < bits; bit++) {
            setBit(
              expected,
              at * bits + bit,
              getBit(a, reads[i]! * bits + bit),
            );
          }
        });
        const view = (data: Uint8Array<ArrayBuffer>): TypedArray =>
          new info.array(data.buffer);
        moveElements(info, isPacked, view(a), source, view(b), into);
        const at = b.findIndex((byte, i) => byte !== expected[i]);
        assertEquals(at, -1, JSON.stringify({ source, into }));
      }
    });
  }
});

Deno.test("planMove goes through what is written as it lies", () => {
  const shape = [1080, 1920, 4];
  const compact = { shape, strides: cStrides(shape), offset: 0 };
  const padded = { shape, strides: [8192, 4, 1], offset: 0 };
  const rows = planMove(compact, padded, 1);
  assertEquals([rows.kernel, rows.run], ["runs", 7680]);
  // Into a transpose: the same as a transpose into C order.
  const turned = planMove(
    { shape: [64, 48], strides: [48, 1], offset: 0 },
    { shape: [64, 48], strides: [1, 64], offset: 0 },
    4,
  );
  assertEquals(turned.kernel, "blocks");
  // What lies between rows is nobody's to repeat.
  const broadcast = planMove({ ...compact, strides: [0, 4, 1] }, padded, 1);
  assertEquals(broadcast.repeatable, 0);
});

// --- assign() -----------------------------------------------------------------

Deno.test("assign() fills with an element of every dtype, in any layout", async (t) => {
  for (const name of dtypeNames) {
    await t.step(name, () => {
      const info = dtypeByName(name)!;
      const element = {
        bool: true,
        int: 1,
        bigint: 3n,
        handle: 3n,
        float: 1,
        complex: { re: 1, im: -2 },
      }[info.kind] as never;
      const wanted = name === "int1" ? -1 : element;
      for (const padded of info.bits < 8 ? [false, true] : [false]) {
        const entries = entriesOf(info, info.bits < 8 && !padded, 24);
        const t = Tensor.from<TypedArray, DType>(
          new info.array(entries),
          [4, 6],
          { dtype: name, padded },
        );
        const part = t.slice([1, 3], [null, null, -2]);
        assert(part.assign(element) === part);
        assertEquals(part.toArray(), [
          [wanted, wanted, wanted],
          [wanted, wanted, wanted],
        ]);
        const zero = Tensor.zeros([], name).get();
        assertEquals(t.get(1, 0), zero);
        assertEquals(t.get(0, 1), zero);
        assertEquals(t.get(3, 5), zero);
        assertEquals(t.assign(element).copy().toArray(), t.toArray());
      }
    });
  }
});

Deno.test("assign() takes a typed array in C order", () => {
  const t = Tensor.zeros([2, 3], "int16").transpose();
  t.assign(new Int16Array([1, 2, 3, 4, 5, 6]));
  assertEquals(t.toArray(), [[1, 2], [3, 4], [5, 6]]);
  const complex = Tensor.zeros([2], "complex64");
  complex.assign(new Float32Array([1, 2, 3, 4]));
  assertEquals(complex.get(1), { re: 3, im: 4 });
  const nibbles = Tensor.zeros([4], "uint4");
  nibbles.assign(new Uint8Array([0x21, 0x43]));
  assertEquals(nibbles.toArray(), [1, 2, 3, 4]);
  // Packed elements that begin within a byte.
  nibbles.slice([1, 3]).assign(new Uint8Array([0xba]));
  assertEquals(nibbles.toArray(), [1, 10, 11, 4]);
});

Deno.test("assign() broadcasts a tensor as NumPy does", () => {
  const t = Tensor.zeros([2, 3], "float32");
  t.assign(Tensor.from(new Float32Array([1, 2, 3])));
  assertEquals(t.toArray(), [[1, 2, 3], [1, 2, 3]]);
  t.assign(Tensor.from(new Float32Array([4, 5]), [2, 1]));
  assertEquals(t.toArray(), [[4, 4, 4], [5, 5, 5]]);
  t.assign(Tensor.from(new Float32Array([6]), []));
  assertEquals(t.toArray(), [[6, 6, 6], [6, 6, 6]]);
  for (const shape of [[2], [3, 2], [1, 2, 3], [2, 2, 3], [0]]) {
    assertThrows(
      () => t.assign(Tensor.zeros(shape, "float32")),
      RangeError,
      `Cannot broadcast shape [${shape.join(", ")}] to [2, 3]`,
    );
  }
  const empty = Tensor.zeros([0, 3], "float32");
  assertEquals(empty.assign(5).assign(empty).toArray(), []);
});

Deno.test("assign() between packed and padded elements moves their values", () => {
  const packed = Tensor.from(new Uint8Array([0x21, 0xf3]), [4], {
    dtype: "int4",
  });
  const padded = Tensor.from(new Uint8Array(4), [4], {
    dtype: "int4",
    padded: true,
  });
  assertEquals(padded.assign(packed).toArray(), [1, 2, 3, -1]);
  padded.set(0, 7);
  assertEquals(packed.assign(padded).toArray(), [7, 2, 3, -1]);
});

Deno.test("assign() reads all before it writes where both overlap", () => {
  const data = Float64Array.from({ length: 12 }, (_, i) => i);
  const t = Tensor.from(data, [12]);
  t.assign(t.slice([null, null, -1]));
  assertEquals([...data], [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
  t.slice([1]).assign(t.slice([null, -1]));
  assertEquals([...data], [11, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  const square = Tensor.from(data.slice(0, 9), [3, 3]);
  const before = square.transpose().toArray();
  square.assign(square.transpose());
  assertEquals(square.toArray(), before);

  // Two imports of one memory, whose ArrayBuffers are not the same.
  using producer = importFixture(floats([4]));
  using other = fromDlpack(producer);
  producer.assign(other.slice([null, null, -1]));
  assertEquals(producer.toArray(), [3, 2, 1, 0]);
});

Deno.test("assign() of interleaved views of one memory needs no copy, and is right", () => {
  const data = Float32Array.from({ length: 8 }, (_, i) => i);
  const t = Tensor.from(data);
  t.slice([null, null, 2]).assign(t.slice([1, null, 2]));
  assertEquals([...data], [1, 1, 3, 3, 5, 5, 7, 7]);
});

Deno.test("assign() refuses what cannot be written, and writes nothing", () => {
  const data = new Float32Array([1, 2, 3, 4, 5, 6]);
  const t = Tensor.from(data, [2, 3]);
  const wrong: [unknown, typeof Error, string][] = [
    [Tensor.zeros([2, 3], "float64"), TypeError, 'astype("float32") converts'],
    [new Float64Array(6), TypeError, "pass a Float32Array, in which"],
    [new Float32Array(5), RangeError, "from 5 entries: the elements take 6"],
    [1n, TypeError, "float32 tensor to a bigint"],
    ["1", TypeError, "float32 tensor to a string"],
    [null, TypeError, "float32 tensor to null: pass a number"],
    [undefined, TypeError, "float32 tensor to undefined"],
    [[1, 2, 3], TypeError, "float32 tensor to an array"],
  ];
  for (const [source, type, message] of wrong) {
    assertThrows(() => t.assign(source as number), type, message);
  }
  assertEquals([...data], [1, 2, 3, 4, 5, 6]);
  const readOnly = Tensor.from(data, [6], { readOnly: true });
  assertBufferError(() => readOnly.assign(0), "readonly");
  assertBufferError(
    () => t.copy({ out: readOnly.reshape([2, 3]) }),
    "readonly",
  );
  const disposed = importFixture(floats([2, 3]));
  disposed[Symbol.dispose]();
  assertBufferError(() => disposed.assign(0 as never), "released");
  assertBufferError(() => t.assign(disposed as typeof t), "released");
});

// --- out ------------------------------------------------------------------------

Deno.test("copy() and astype() write into tensors in their own strides", () => {
  const t = Tensor.from(new Int32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
  const memory = new Int32Array(8).fill(-1);
  const padded = Tensor.from(memory, [2, 3], { strides: [4, 1] });
  assert(t.copy({ out: padded }) === padded);
  assertEquals([...memory], [1, 2, 3, -1, 4, 5, 6, -1]);

  const floats = Tensor.zeros([3, 2], "float64").transpose();
  assert(t.astype("float64", { out: floats }) === floats);
  assertEquals(floats.toArray(), [[1, 2, 3], [4, 5, 6]]);
  const nibbles = Tensor.zeros([2, 3], "uint4");
  assertEquals(t.astype("uint4", { out: nibbles }).toArray(), t.toArray());

  for (const shape of [[3, 2], [6], [1, 2, 3], []]) {
    const out = Tensor.zeros(shape, "int32");
    assertThrows(() => t.copy({ out }), RangeError, "assign() broadcasts");
    const other = Tensor.zeros(shape, "float32");
    assertThrows(
      () => t.astype("float32", { out: other }),
      RangeError,
      "Cannot copy shape [2, 3] into",
    );
  }
  assertThrows(
    () => t.copy({ out: Tensor.zeros([2, 3], "int64") as never }),
    TypeError,
    'astype("int64") converts',
  );
  assertThrows(
    () => t.astype("float32", { out: Tensor.zeros([2, 3], "int64") as never }),
    TypeError,
    "Cannot copy between int64 and float32",
  );
});

Deno.test("astype() writes into a typed array, also over what it reads", () => {
  const t = Tensor.from(new Uint16Array([0x3f80, 0x4000]), [2], {
    dtype: "bfloat16",
  });
  const out = new Float32Array(2);
  const made = t.astype("float32", { out });
  assert(made.data === out);
  assertEquals([...out], [1, 2]);
  const data = new Float32Array([1.5, -2.5, 3, 4]);
  const bits = new Int32Array(data.buffer);
  Tensor.from(data).astype("int32", { out: bits });
  assertEquals([...bits], [1, -2, 3, 4]);
  const shifted = new Float64Array([1, 2, 3, 4]);
  Tensor.from(shifted.subarray(0, 2)).astype("float32", {
    out: new Float32Array(shifted.buffer, 8, 2),
  });
  assertEquals([...new Float32Array(shifted.buffer, 8, 2)], [1, 2]);
  assertThrows(
    () => t.astype("float32", { out: new Float64Array(2) }),
    TypeError,
    "pass a Float32Array",
  );
  assertThrows(
    () => t.astype("float32", { out: new Float32Array(3) }),
    RangeError,
    "the elements take 2",
  );
});

// --- empty() and zeros() ----------------------------------------------------------

Deno.test("empty() and zeros() give aligned zeros of every dtype", () => {
  for (const name of dtypeNames) {
    for (const shape of [[], [3], [2, 0], [5, 7]]) {
      for (const make of [Tensor.empty, Tensor.zeros]) {
        const t = make(shape, name);
        assertEquals([t.dtype, t.shape], [name, shape]);
        assert(t.isContiguous && !t.readOnly);
        const { data } = t;
        assertEquals(bytesOf(data).every((byte) => byte === 0), true);
        if (t.size > 0) assertEquals(addressOfArray(data) % 64n, 0n);
      }
    }
  }
  const t = Tensor.zeros([2n, 3], "int32");
  assertEquals(t.shape, [2, 3]);
});

Deno.test("empty() refuses what is no shape or dtype", () => {
  assertThrows(
    () => Tensor.empty([2], "float" as DType),
    TypeError,
    "no dtype",
  );
  assertThrows(() => Tensor.empty(4 as never, "int8"), TypeError, "an array");
  assertThrows(() => Tensor.empty([-1], "int8"), RangeError, "negative");
  assertThrows(() => Tensor.empty([1.5], "int8"), RangeError, "not 1.5");
  assertBufferError(() => Tensor.empty([2 ** 50], "int8"), "copy", "no memory");
});

Deno.test("A tensor of empty() is exported from its aligned start", () => {
  const before = liveTensors();
  const t = Tensor.empty([4], "float32").assign(2);
  using again = fromDlpack(t);
  assertEquals(again.toArray(), [2, 2, 2, 2]);
  again[Symbol.dispose]();
  assertEquals(liveTensors(), before);
});

// --- the dtype that is expected ------------------------------------------------------

Deno.test("fromDlpack() refuses another dtype than the one expected", () => {
  const t = Tensor.from(new Float64Array([1, 2]));
  assertEquals(fromDlpack(t, { dtype: "float64" }).get(1), 2);
  for (const copy of [null, true]) {
    assertBufferError(
      () => fromDlpack(t, { dtype: "float32", copy }),
      "dtype",
      "Cannot import float64 elements as float32: leave the option out, and " +
        'convert with astype("float32")',
    );
  }
  using capsule = t.__dlpack__({ maxVersion: [1, 3] });
  assertBufferError(() => fromDlpack(capsule, { dtype: "int64" }), "dtype");
  assertEquals(capsule.name, "dltensor_versioned", "it can be tried again");
  assertEquals(fromDlpack(capsule, { dtype: "float64" }).toArray(), [1, 2]);
  assertThrows(
    () => fromDlpack(t, { dtype: "double" as DType }),
    TypeError,
    'There is no dtype "double"',
  );
});

/** Only has to type check. */
function narrowed(x: Tensor): void {
  const t: Tensor<"float32"> = fromDlpack(x, { dtype: "float32" });
  const element: number = t.get(0);
  // @ts-expect-error: any dtype
  const _any: Tensor<"float32"> = fromDlpack(x);
  // @ts-expect-error: of another dtype
  t.assign(Tensor.zeros([2], "float64"));
  // @ts-expect-error: a float32 does not lie in an Int32Array
  Tensor.from(new Int32Array(1), [1], { dtype: "float32" });
  t.assign(element);
}
assert(typeof narrowed === "function");
