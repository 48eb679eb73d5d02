// Copies against a naive one that moves single bits.

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  BufferError,
  type DType,
  fromDlpack,
  Tensor,
  type TypedArray,
} from "../mod.ts";
import { copyBytes, copyElements } from "../src/copy/elements.ts";
import { blockMover, MOST_BLOCK, tileOf } from "../src/copy/blocks.ts";
import type { Axis } from "../src/copy/kernels.ts";
import { type CopyPlan, planCopy } from "../src/copy/plan.ts";
import { entriesOf } from "../src/dtype/packing.ts";
import { dtypeByName, type DTypeInfo } from "../src/dtype/table.ts";
import {
  cStrides,
  extentOf,
  type Layout,
  type Range,
  sliceLayout,
  transposeLayout,
  walk,
} from "../src/layout.ts";
import { isAvailable } from "../src/wasm/stage.ts";
import { Random } from "./random.ts";

/** The index of every element, in C order: each axis refines the one before. */
function visited({ shape, strides, offset }: Layout): number[] {
  let indices = [offset];
  shape.forEach((length, axis) => {
    const finer: number[] = [];
    for (const index of indices) {
      for (let i = 0; i < length; i++) finer.push(index + i * strides[axis]!);
    }
    indices = finer;
  });
  return indices;
}

/** A layout of 1 to 6 axes, and how many elements its memory has. */
function randomLayout(random: Random): { layout: Layout; capacity: number } {
  const ndim = 1 + random.below(6);
  const lengths = ndim < 3 ? [0, 1, 2, 3, 5, 8, 70, 130] : [1, 1, 2, 2, 3, 4];
  const shape = Array.from({ length: ndim }, () => random.pick(lengths));
  // Compact in some order of the axes, then each axis perhaps spread, turned
  // around, or repeated.
  const strides = new Array<number>(ndim);
  let axes = shape.map((_, axis) => axis);
  if (random.below(2) === 0) {
    axes = random.shuffle(axes);
  }
  let step = 1;
  for (const axis of axes.reverse()) {
    const change = random.pick([1, 1, 1, 1, -1, -1, 2, -3, 0]);
    strides[axis] = step * change;
    step *= Math.max(shape[axis]! * Math.max(Math.abs(change), 1), 1);
  }
  const indices = visited({ shape, strides, offset: 0 });
  const lowest = indices.reduce((a, b) => Math.min(a, b), 0);
  const highest = indices.reduce((a, b) => Math.max(a, b), 0);
  const offset = random.below(4) - lowest;
  const capacity = offset + highest + 1 + random.below(4);
  return { layout: { shape, strides, offset }, capacity };
}

/** The bytes behind a typed array. */
function bytesOf(data: TypedArray): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = data;
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** Copies bit by bit into a copy of `into`. */
function naiveCopy(
  from: Uint8Array,
  indices: readonly number[],
  bits: number,
  into: Uint8Array,
): Uint8Array {
  const copy = into.slice();
  indices.forEach((index, at) => {
    for (let bit = 0; bit < bits; bit++) {
      const source = index * bits + bit;
      const target = at * bits + bit;
      const value = from[source >> 3]! >> (source & 7) & 1;
      copy[target >> 3] = copy[target >> 3]! & ~(1 << (target & 7)) |
        value << (target & 7);
    }
  });
  return copy;
}

function info(name: DType): DTypeInfo {
  return dtypeByName(name)!;
}

/** Random bytes as a dtype's typed array, a few entries into their buffer. */
function randomData(
  random: Random,
  { array }: DTypeInfo,
  entries: number,
): TypedArray {
  const before = random.below(4) * array.BYTES_PER_ELEMENT;
  const { buffer } = random.bytes(before + entries * array.BYTES_PER_ELEMENT);
  return new array(buffer, before, entries);
}

const units: [name: DType, isPacked: boolean][] = [
  ["int8", false],
  ["int4", false],
  ["float16", false],
  ["bfloat16", false],
  ["float32", false],
  ["complex32", false],
  ["float64", false],
  ["uint64", false],
  ["complex64", false],
  ["complex128", false],
  ["uint1", true],
  ["int2", true],
  ["int4", true],
  ["float6_e2m3fn", true],
];

Deno.test("copyElements moves the bits that a naive copy moves", async (t) => {
  const random = new Random();
  for (const [name, isPacked] of units) {
    await t.step(`${name}${isPacked ? ", packed" : ""}`, () => {
      const dtype = info(name);
      const bits = isPacked ? dtype.bits : Math.max(dtype.bits, 8);
      let elements = 0;
      for (let round = 0; round < 300; round++) {
        const { layout, capacity } = randomLayout(random);
        const indices = visited(layout);
        if (indices.length > 10_000) continue;
        elements += indices.length;
        const from = randomData(
          random,
          dtype,
          entriesOf(dtype, isPacked, capacity),
        );
        const into = randomData(
          random,
          dtype,
          entriesOf(dtype, isPacked, indices.length),
        );
        const expected = naiveCopy(
          bytesOf(from),
          indices,
          bits,
          bytesOf(into),
        );
        copyElements(dtype, isPacked, from, layout, into);
        const same = bytesOf(into).every((byte, i) => byte === expected[i]);
        assert(same, JSON.stringify({ round, layout }));
      }
      assert(elements > 10_000, `${elements} elements are too few`);
    });
  }
});

type Kernel = CopyPlan["kernel"];

function compact(...shape: number[]): Layout {
  return { shape, strides: cStrides(shape), offset: 0 };
}

function sliced(shape: number[], ...ranges: Range[]): Layout {
  return sliceLayout(compact(...shape), ranges);
}

function transposed(shape: number[], ...axes: number[]): Layout {
  return transposeLayout(compact(...shape), axes);
}

/** The layout from the other end of an axis. */
function turned({ shape, strides, offset }: Layout, axis: number): Layout {
  return {
    shape,
    strides: strides.with(axis, -strides[axis]!),
    offset: offset + (shape[axis]! - 1) * strides[axis]!,
  };
}

/** The layout with other strides. */
function strided(layout: Layout, ...strides: number[]): Layout {
  return { ...layout, strides };
}

/** What planCopy makes of some layouts, for elements of so many bytes. */
const planned: [what: string, Layout, bytes: number, Kernel][] = [
  ["scalar", compact(), 4, "runs"],
  ["contiguous", compact(3, 5, 7), 4, "runs"],
  ["long rows", sliced([3, 2000], null, [0, 1024]), 1, "runs"],
  ["rows of words", sliced([9, 100], null, [0, 50]), 4, "lines"],
  ["rows of odd bytes", sliced([9, 200], null, [0, 101]), 1, "runs"],
  ["rows of a word", sliced([90, 3], null, [0, 2]), 4, "lines"],
  ["rows of 3 words", sliced([90, 4], null, [0, 3]), 4, "lines"],
  ["rows of 3 bytes", sliced([20000, 4], null, [0, 3]), 1, "pick"],
  ["few rows of 3 bytes", sliced([80, 4], null, [0, 3]), 1, "lines"],
  ["rows of 3 bytes, far apart", sliced([90, 20], null, [0, 3]), 1, "lines"],
  ["repeated element", strided(compact(500), 0), 4, "fill"],
  ["repeated element of 16 bytes", strided(compact(500), 0), 16, "runs"],
  ["repeated few elements", strided(compact(9999, 7), 1, 0), 4, "pick"],
  ["repeated some elements", strided(compact(90, 17), 1, 0), 4, "lines"],
  ["repeated row", strided(compact(90, 50), 0, 1), 4, "lines"],
  ["repeated matrix", strided(compact(9, 20, 30), 0, 1, 20), 4, "blocks"],
  ["repeated columns", strided(compact(20, 90, 30), 1, 0, 20), 4, "lines"],
  ["repeated twice", strided(compact(9, 20, 300), 0, 1, 0), 2, "fill"],
  ["backwards", turned(compact(40_001), 0), 1, "reverse"],
  ["backwards", turned(compact(20_003), 0), 2, "reverse"],
  ["backwards", turned(compact(500), 0), 4, "reverse"],
  ["backwards", turned(compact(500), 0), 8, "lines"],
  ["backwards, few", turned(compact(60), 0), 4, "lines"],
  ["each row backwards", turned(compact(9, 500), 1), 2, "reverse"],
  ["last row first", turned(compact(9, 5000), 0), 2, "runs"],
  ["every other byte", sliced([9999], [1, null, 2]), 1, "pick"],
  ["every third byte", sliced([9999], [1, null, 3]), 1, "pick"],
  ["every ninth byte", sliced([9999], [1, null, 9]), 1, "pick"],
  ["every tenth byte", sliced([9999], [1, null, 10]), 1, "lines"],
  ["every other 2 bytes", sliced([9999], [1, null, 2]), 2, "pick"],
  ["every fourth 2 bytes", sliced([9999], [3, null, 4]), 2, "pick"],
  ["every fifth 2 bytes", sliced([9999], [3, null, 5]), 2, "lines"],
  ["every other 4 bytes", sliced([999], [1, null, 2]), 4, "lines"],
  ["other order of colours", turned(compact(200, 3), 1), 1, "pick"],
  ["other order of colours", turned(compact(200, 3), 1), 2, "pick"],
  ["other order of colours", turned(compact(200, 3), 1), 4, "pick"],
  ["other order of colours", turned(compact(200, 3), 1), 8, "lines"],
  [
    "other order of some colours",
    turned(sliced([200, 4], null, [0, 3]), 1),
    1,
    "pick",
  ],
  ["first and last colour", sliced([200, 3], null, [0, 3, 2]), 1, "pick"],
  ["each byte thrice", strided(compact(30000, 3), 1, 0), 1, "pick"],
  ...[1, 2, 4].flatMap((bytes): typeof planned => [
    ["2 channels first", transposed([300, 2]), bytes, "split"],
    ["3 channels first", transposed([9999, 3]), bytes, "split"],
    ["4 channels first", transposed([300, 4]), bytes, "split"],
    ["4 channels first, few", transposed([12, 4]), bytes, "lines"],
    [
      "channels first, backwards",
      turned(transposed([300, 3]), 0),
      bytes,
      "split",
    ],
    [
      "3 of 4 channels first",
      transposeLayout(sliced([300, 4], null, [1, 4]), []),
      bytes,
      "split",
    ],
    [
      "repeated, channels first, backwards",
      { shape: [9, 3, 900], strides: [0, -1, 3], offset: 2 },
      bytes,
      "split",
    ],
    ["3 channels last", transposed([3, 9999]), bytes, "join"],
    ["4 channels last", transposed([4, 300]), bytes, "join"],
    ["3 channels last, few", transposed([3, 20]), bytes, "lines"],
    [
      "channels last, backwards",
      turned(transposed([3, 300]), 1),
      bytes,
      "join",
    ],
  ]),
  ...[1, 2, 4, 8, 16].flatMap((bytes): typeof planned => [
    ["transposed", transposed([40, 70]), bytes, "blocks"],
    ["transposed, odd", transposed([37, 43]), bytes, "blocks"],
    ["transposed, few rows", transposed([16, 65]), bytes, "blocks"],
    ["transposed, few columns", transposed([70, 16]), bytes, "blocks"],
    ["transposed, some columns", transposed([70, 33]), bytes, "blocks"],
    ["transposed, few", transposed([4, 5]), bytes, "lines"],
    [
      "transposed, of short rows that lie apart",
      transposeLayout(sliced([90, 60], null, [0, 50]), []),
      bytes,
      "lines",
    ],
    [
      "transposed, of long rows that lie apart",
      transposeLayout(sliced([20, 120], null, [0, 100]), []),
      bytes,
      "blocks",
    ],
    ["rotated right", turned(transposed([61, 23]), 1), bytes, "blocks"],
    ["rotated left", turned(transposed([61, 23]), 0), bytes, "blocks"],
    [
      "repeated, rotated",
      { shape: [3, 50, 30], strides: [0, -1, 50], offset: 49 },
      bytes,
      "blocks",
    ],
    ["axes reversed", transposed([17, 4, 20]), bytes, "blocks"],
    [
      "axes permuted",
      transposed([2, 2, 17, 3, 20], 0, 3, 1, 4, 2),
      bytes,
      "blocks",
    ],
    [
      "axes permuted, turned",
      turned(turned(transposed([2, 2, 17, 3, 20], 0, 3, 1, 4, 2), 1), 2),
      bytes,
      "blocks",
    ],
    [
      "of every other plane, transposed",
      transposeLayout(sliced([3, 20, 30], [0, null, 2]), [2, 0, 1]),
      bytes,
      "blocks",
    ],
  ]),
  ...[8, 16].flatMap((bytes): typeof planned => [
    ["3 channels first", transposed([300, 3]), bytes, "blocks"],
    ["3 channels last", transposed([3, 300]), bytes, "lines"],
  ]),
  [
    "first of colours, from last to first row",
    turned(transposed([90, 3]), 1),
    1,
    "lines",
  ],
  ["transposed pixels", transposed([30, 20, 3], 1, 0, 2), 1, "lines"],
  [
    "transposed, of every other row and column",
    transposeLayout(sliced([90, 80], [0, null, 2], [0, null, 2]), []),
    4,
    "lines",
  ],
  [
    "transposed bytes, of every other row and column",
    transposeLayout(sliced([90, 80], [0, null, 2], [0, null, 2]), []),
    1,
    "lines",
  ],
];

/** Shuffles take WebAssembly; without it, loops do the same. */
const shuffles: readonly Kernel[] = [
  "split",
  "join",
  "pick",
  "reverse",
  "blocks",
];

Deno.test("planCopy takes the kernel that fits, and copyBytes moves all", () => {
  const random = new Random();
  for (const [what, layout, bytes, kernel] of planned) {
    const plan = planCopy(layout, bytes);
    if (isAvailable() || !shuffles.includes(kernel)) {
      assertEquals(plan.kernel, kernel, `${what}, ${bytes} bytes`);
    } else assert(!shuffles.includes(plan.kernel), what);
    assertCopied(random, layout, bytes, `${what}, ${bytes} bytes`);
  }
});

/** Copies random bytes, at any alignment, with wide and narrow windows. */
function assertCopied(
  random: Random,
  layout: Layout,
  bytes: number,
  what: string,
): void {
  const indices = visited(layout);
  const { highest } = extentOf(layout.shape, layout.strides);
  const length = (layout.offset + highest + 1) * bytes;
  for (const reach of [undefined, 2 ** 14, 80]) {
    for (const [before, after] of [[0, 0], [8, 1], [3, 5]] as const) {
      const memory = random.bytes(before + length);
      const from = memory.subarray(before);
      const into = random.bytes(before + indices.length * bytes + after);
      const expected = into.slice();
      indices.forEach((index, at) => {
        const element = from.subarray(index * bytes, (index + 1) * bytes);
        expected.set(element, before + at * bytes);
      });
      const target = into.subarray(before, into.length - after);
      copyBytes(from, planCopy(layout, bytes), target, reach);
      const at = into.findIndex((byte, i) => byte !== expected[i]);
      assertEquals(at, -1, `${what}, ${reach}, ${before}: byte ${at} differs`);
    }
  }
}

Deno.test("copyBytes transposes what does not fit into a block", () => {
  const random = new Random();
  for (
    const [rows, columns, bytes] of [
      [511, 1100, 1],
      [1530, 335, 2],
      [37, 9000, 4],
      [331, 500, 4],
      [313, 310, 8],
      [250, 237, 16],
    ] as const
  ) {
    assert(rows * columns * bytes > MOST_BLOCK);
    // Begins between two words.
    const source = random.bytes(1 + rows * columns * bytes).subarray(1);
    const into = new Uint8Array(rows * columns * bytes);
    const plan = planCopy(transposed([rows, columns]), bytes);
    if (isAvailable()) assertEquals(plan.kernel, "blocks");
    copyBytes(source, plan, into);
    let differences = 0;
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < rows; j++) {
        const [to, at] = [(i * rows + j) * bytes, (j * columns + i) * bytes];
        for (let byte = 0; byte < bytes; byte++) {
          if (into[to + byte] !== source[at + byte]) differences++;
        }
      }
    }
    assertEquals(differences, 0, `${rows} x ${columns} of ${bytes} bytes`);
  }
});

/** What there is to copy along axes, for elements of so many bytes. */
function naiveMove(
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  to: number,
  bytes: number,
  [axis, ...others]: readonly Axis[],
): void {
  if (axis === undefined) return into.set(from.subarray(at, at + bytes), to);
  for (let k = 0; k < axis.length; k++) {
    const [source, target] = [at + k * axis.from, to + k * axis.into];
    naiveMove(from, source, into, target, bytes, others);
  }
}

Deno.test("blockMover copies by blocks of any size, with gaps and backwards", () => {
  if (!isAvailable()) return;
  const random = new Random();
  const between = (low: number, high: number): number =>
    low + random.below(high - low + 1);
  for (let round = 0; round < 400; round++) {
    const run = random.pick([1, 2, 4, 8, 16] as const);
    const [rows, columns] = tileOf(run, random.pick([1, 40 / run, 999]));
    const lengths = [
      between(rows, rows + 20),
      between(columns, columns + 20),
      ...Array.from({ length: random.below(3) }, () => between(1, 4)),
    ];
    const block = lengths.map((length, axis) =>
      between([rows, columns][axis] ?? 1, length)
    );
    /** Steps in some order of the axes, the first one with no gap. */
    const steps = (order: number[]): number[] => {
      const steps: number[] = [];
      let step: number = run;
      for (const axis of order) {
        const gap = axis === order[0] || random.below(2) === 0 ? 0 : run;
        step += gap * random.below(3);
        steps[axis] = step;
        step *= lengths[axis]!;
      }
      return steps;
    };
    const others = lengths.map((_, axis) => axis).slice(2);
    const from = steps([0, ...random.shuffle([1, ...others])]);
    const into = steps([1, ...random.shuffle([0, ...others])]);
    let [at, to, length, size] = [3, 5, run + 8, run + 8];
    const axes = lengths.map((count, axis): Axis => {
      const signs = [random.pick([1, 1, -1]), random.pick([1, 1, -1])];
      if (axis === 0) signs[0] = 1;
      if (axis === 1) signs[1] = 1;
      const [reach, extent] = [from[axis]!, into[axis]!]
        .map((step) => (count - 1) * step) as [number, number];
      length += reach;
      size += extent;
      if (signs[0] === -1) at += reach;
      if (signs[1] === -1) to += extent;
      const repeats = axis > 1 && random.below(4) === 0;
      return {
        length: count,
        from: repeats ? 0 : signs[0]! * from[axis]!,
        into: signs[1]! * into[axis]!,
      };
    });
    const source = random.bytes(length);
    const copy = random.bytes(size);
    const expected = copy.slice();
    naiveMove(source, at, expected, to, run, axes);
    blockMover(run, axes, block)(source, at, copy, to);
    assertEquals(copy, expected, JSON.stringify({ run, axes, block }));
  }
});

Deno.test("copyBytes copies random layouts, whatever it can see at a time", () => {
  const random = new Random();
  const kernels = new Set<Kernel>();
  for (let round = 0; round < 2000; round++) {
    const { layout } = randomLayout(random);
    const size = layout.shape.reduce((a, b) => a * b, 1);
    if (size === 0 || size > 5000) continue;
    const bytes = random.pick([1, 2, 4, 8, 16]);
    kernels.add(planCopy(layout, bytes).kernel);
    assertCopied(random, layout, bytes, JSON.stringify({ layout, bytes }));
  }
  // The others are for longer rows.
  const usual = new Set<Kernel>(["fill", "lines", "runs"]);
  if (isAvailable()) usual.add("pick").add("blocks");
  assertEquals(usual.difference(kernels), new Set<Kernel>());
});

Deno.test("planCopy drops axes of length 1 and joins axes that step evenly", () => {
  const cases: [shape: number[], strides: number[], run: number, Axis[]][] = [
    [[], [], 4, []],
    [[1, 1], [7, 9], 4, []],
    [[2, 3, 4], [12, 4, 1], 96, []],
    [[2, 1, 4], [4, 99, 1], 32, []],
    [[2, 3, 4], [24, 8, 2], 4, [{ length: 24, from: 8, into: 4 }]],
    [[2, 3], [-3, -1], 4, [{ length: 6, from: -4, into: 4 }]],
    [[2, 3], [0, 0], 4, [{ length: 6, from: 0, into: 4 }]],
    [[2, 3, 4], [16, 4, 1], 48, [{ length: 2, from: 64, into: 48 }]],
    [[2, 3], [3, -1], 4, [
      { length: 2, from: 12, into: 12 },
      { length: 3, from: -4, into: 4 },
    ]],
  ];
  for (const [shape, strides, run, axes] of cases) {
    const plan = planCopy({ shape, strides, offset: 5 }, 4);
    assertEquals([plan.at, plan.to, plan.run], [20, 0, run]);
    const used = [...plan.outer, ...plan.inner];
    assertEquals(used.filter(({ length }) => length !== 1), axes);
  }
});

Deno.test("planCopy leaves its argument alone", () => {
  for (const [, layout, bytes] of planned) {
    const { shape, strides } = layout;
    Object.freeze(shape);
    Object.freeze(strides);
    planCopy(Object.freeze(layout), bytes);
  }
});

Deno.test("planCopy repeats what is inside of a long axis without steps", () => {
  const { kernel, outer, repeatable, inner } = planCopy(
    strided(compact(100, 20, 30), 0, 1, 20),
    4,
  );
  assertEquals(kernel, isAvailable() ? "blocks" : "lines");
  assertEquals(outer, [{ length: 100, from: 0, into: 2400 }]);
  assertEquals(repeatable, 1);
  assertEquals(inner.map(({ length }) => length), [20, 30]);
  // A short one is read again and again.
  assertEquals(planCopy(strided(compact(9, 2), 0, 5), 4).repeatable, 0);
});

/** A signalling NaN, by the bytes of its type. */
const signalling: [
  name: "float16" | "float32" | "float64",
  bits: Uint16Array | Uint32Array | BigUint64Array,
][] = [
  ["float16", new Uint16Array([0x7c01])],
  ["float32", new Uint32Array([0x7f800001])],
  ["float64", new BigUint64Array([0x7ff0000000000001n])],
];

Deno.test("copy keeps signalling NaNs in cold code and in compiled code", async (t) => {
  for (const [name, bits] of signalling) {
    await t.step(name, () => {
      const { array } = info(name);
      const bytes = bits.BYTES_PER_ELEMENT;
      const all = new Uint8Array(64 * 64 * bytes);
      const one = bytesOf(bits);
      for (let at = 0; at < all.length; at += bytes) all.set(one, at);
      const memory = new array(all.buffer);
      const square = Tensor.from(memory, [64, 64], { dtype: name });
      const line = Tensor.from(memory, [4096], { dtype: name });
      const views = [
        square,
        square.transpose(),
        square.slice(null, [null, null, -1]),
        square.slice(null, [0, 3]),
        line.slice([null, null, 2]),
        line.slice([null, null, -1]),
        Tensor.from(memory, [64, 64], { dtype: name, strides: [1, 0] }),
        Tensor.from(memory, [64, 64], { dtype: name, strides: [0, 1] }),
      ];
      // Often enough for V8 to compile the kernels.
      for (let round = 0; round < 300; round++) {
        for (const view of views) {
          const copy = bytesOf(view.copy().data);
          const differs = round % 100 === 0
            ? copy.some((byte, at) => byte !== all[at])
            : copy[0] !== all[0] || copy.at(-1) !== all.at(-1);
          assert(!differs, `round ${round}, strides ${view.strides}`);
        }
      }
      // In place, which takes a detour.
      square.transpose().copy({ out: square.data });
      assertEquals(bytesOf(memory).every((byte, at) => byte === all[at]), true);
    });
  }
});

Deno.test("walk visits every element once, in C order", () => {
  const random = new Random();
  for (let round = 0; round < 300; round++) {
    const { layout } = randomLayout(random);
    const indices: number[] = [];
    walk(layout, (at) => indices.push(at));
    assertEquals(indices, visited(layout));
  }
});

Deno.test("copy gives a compact, writable tensor of its own", () => {
  const source = new Float32Array([0, 1, 2, 3, 4, 5]);
  const t = Tensor.from(source, [2, 3], { readOnly: true });
  const copy = t.transpose().copy();
  assertEquals(copy.dtype, "float32");
  assertEquals(copy.shape, [3, 2]);
  assertEquals(copy.strides, [2, 1]);
  assertEquals(copy.offset, 0);
  assertEquals(copy.readOnly, false);
  assertEquals(copy.data, new Float32Array([0, 3, 1, 4, 2, 5]));
  copy.set(0, 0, 9);
  assertEquals(source[0], 0);
});

Deno.test("copy moves packed elements by bytes where rows are whole bytes", () => {
  const raw = new Random().bytes(64);
  const t = Tensor.from(raw, [8, 16], { dtype: "int4" });
  const cases: [Tensor, Uint8Array][] = [
    [t, raw],
    [t.slice([2, 5]), raw.subarray(16, 40)],
    [
      t.slice([null, null, -1], [0, 2]),
      raw.filter((_, i) => i % 8 === 0).reverse(),
    ],
    // Begins within a byte, and ends within one.
    [
      t.slice(0, [1, 4]),
      new Uint8Array([raw[0]! >> 4 | raw[1]! << 4, raw[1]! >> 4]),
    ],
    [t.slice(0, [0, 3]), new Uint8Array([raw[0]!, raw[1]! & 15])],
  ];
  for (const [view, expected] of cases) {
    assertEquals(view.copy().data as Uint8Array, expected);
  }
});

Deno.test("copy keeps padded elements padded", () => {
  const raw = new Uint8Array([1, 15, 7]);
  const t = Tensor.from(raw, [3], { dtype: "int4", padded: true });
  const copy = t.slice([null, null, -1]).copy();
  assertEquals(copy.itemsize, 1);
  assertEquals(copy.data, new Uint8Array([7, 15, 1]));
});

Deno.test("copy of an empty tensor and of one without axes", () => {
  const t = Tensor.from(new Int16Array([7, 8, 9]));
  const empty = t.slice([2, 1]).copy();
  assertEquals([empty.shape, empty.data.length], [[0], 0]);
  const scalar = t.slice(1).copy();
  assertEquals([scalar.shape, scalar.get()], [[], 8]);
});

Deno.test("copy fills out and makes a tensor over it", () => {
  const t = Tensor.from(new Int32Array([1, 2, 3, 4]), [2, 2]);
  const out = new Int32Array(4);
  const copy = t.transpose().copy({ out });
  assert(copy.data === out);
  assertEquals(out, new Int32Array([1, 3, 2, 4]));
  const part = new Int32Array(6).fill(-1);
  t.copy({ out: part.subarray(1, 5) });
  assertEquals(part, new Int32Array([-1, 1, 2, 3, 4, -1]));
});

Deno.test("copy refuses an out of another type or length", () => {
  const t = Tensor.from(new Float32Array(6), [2, 3]);
  for (const out of [new Float64Array(6), new Int32Array(6)]) {
    assertThrows(
      () => t.copy({ out }),
      TypeError,
      `${out.constructor.name}: pass a Float32Array, in which the elements lie`,
    );
  }
  for (const notArray of [new DataView(new ArrayBuffer(24)), [0, 0, 0], null]) {
    assertThrows(
      () => t.copy({ out: notArray as unknown as TypedArray }),
      TypeError,
      "pass a Float32Array",
    );
  }
  for (const length of [0, 5, 7]) {
    assertThrows(
      () => t.copy({ out: new Float32Array(length) }),
      RangeError,
      `Cannot copy into ${length} entries: the elements take 6`,
    );
  }
  const complex = Tensor.from(new Float32Array(6), [3], { dtype: "complex64" });
  assertThrows(() => complex.copy({ out: new Float32Array(3) }), RangeError);
  assertEquals(complex.copy({ out: new Float32Array(6) }).shape, [3]);
  const packed = Tensor.from(new Uint8Array(2), [3], { dtype: "int4" });
  assertThrows(() => packed.copy({ out: new Uint8Array(3) }), RangeError);
  assertEquals(packed.copy({ out: new Uint8Array(2) }).shape, [3]);
});

Deno.test("copy reads all before it writes when out overlaps the elements", () => {
  const count = (length: number) => Float64Array.from({ length }, (_, i) => i);
  const memory = count(12);
  const t = Tensor.from(memory, [3, 4]);
  t.transpose().copy({ out: memory });
  assertEquals([...memory], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);

  const reversed = Tensor.from(count(100));
  reversed.slice([null, null, -1]).copy({ out: reversed.data });
  assertEquals([...reversed.data], [...count(100)].reverse());

  for (const shift of [-1, 1]) {
    const shifted = count(100);
    const from = Tensor.from(shifted.subarray(1, 99));
    from.copy({ out: shifted.subarray(1 + shift, 99 + shift) });
    const expected = [...count(100)];
    expected.splice(1 + shift, 98, ...count(100).subarray(1, 99));
    assertEquals([...shifted], expected);
  }

  const nibbles = new Uint8Array([0x21, 0x43]);
  const packed = Tensor.from(nibbles, [4], { dtype: "uint4" });
  packed.slice([null, null, -1]).copy({ out: nibbles });
  assertEquals(packed.toArray(), [4, 3, 2, 1]);
});

Deno.test("copy notices the overlap of two imports of the same memory", () => {
  const shared = Tensor.from(Float32Array.from({ length: 6 }, (_, i) => i));
  using from = fromDlpack(shared);
  using into = fromDlpack(shared);
  assert(from.data.buffer !== into.data.buffer);
  from.reshape([2, 3]).transpose().copy({ out: into.data });
  assertEquals(shared.toArray(), [0, 3, 1, 4, 2, 5]);
  // Nothing to copy, into nothing.
  const detached = new Float32Array(6);
  detached.buffer.transfer();
  assertEquals(from.slice([0, 0]).copy({ out: detached }).size, 0);
  // An out in JavaScript's memory that an import shares.
  from.slice([null, null, -1]).copy({ out: shared.data });
  assertEquals(shared.toArray(), [5, 2, 4, 1, 3, 0]);
});

Deno.test("copy says how much memory there is not", () => {
  const huge = Tensor.from(new Uint8Array(1), [2 ** 50], { strides: [0] });
  const error = assertThrows(
    () => huge.copy(),
    BufferError,
    "Cannot make a tensor of 1125899906842624 uint8 elements: there is no " +
      "memory for 1125899906842624 bytes",
  );
  assertEquals(error.code, "copy");
});
