// Copies out of a device, planned and made, against naive ones.

import { DeviceType, fromDlpack } from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { consume } from "../src/capsule.ts";

import type { Packing } from "../src/dtype/packing.ts";
import { type DType, dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import {
  cStrides,
  extentOf,
  type Layout,
  type Range,
  sizeOf,
  sliceLayout,
  transposeLayout,
  walk,
} from "../src/layout.ts";
import { checkStruct } from "../src/struct/check.ts";
import {
  elementsIn,
  type Piece,
  planTransfer,
  type TransferLimits,
  type TransferPlan,
} from "../src/transfer/plan.ts";
import { runSteps, runStepsAsync } from "../src/transfer/steps.ts";
import { copyFromDevice, putInOrder } from "../src/transfer/to_host.ts";
import { assertBufferError, bytesOf, capsule, deletions } from "./helpers.ts";
import { HostDevice, withRuntime } from "./host_device.ts";
import type { FixtureSpec } from "./native/fixture.ts";
import { Random } from "./random.ts";

/** Shape and strides of up to 5 axes, any of which may be odd. */
function randomLayout(random: Random): Omit<Layout, "offset"> {
  const ndim = random.below(6);
  const lengths = ndim < 3 ? [1, 2, 3, 7, 16, 33] : [1, 2, 2, 3, 4, 5];
  const shape = Array.from({ length: ndim }, () => random.pick(lengths));
  const strides = new Array<number>(ndim);
  let step = random.pick([1, 1, 1, 1, 2, 5]);
  const axes = random.below(2) ? [...shape.keys()] : random.shuffle([
    ...shape.keys(),
  ]);
  for (const axis of axes.reverse()) {
    const sign = random.pick([1, 1, 1, -1]);
    strides[axis] = random.pick([1, 1, 1, 1, 0]) * sign * step + 0;
    step *= random.pick([1, 1, 1, 1, 2, 0.5]) * shape[axis]!;
    // Padding, or an overlap with what is further out.
    step = Math.max(1, Math.floor(step) + random.pick([0, 0, 0, 1, 8, 100]));
    // A stride that is not used.
    if (shape[axis] === 1 && random.below(2)) strides[axis] = 987654;
  }
  return { shape, strides };
}

/** With an offset that makes the lowest element one of the first `group`. */
function placed(
  { shape, strides }: Omit<Layout, "offset">,
  lead: number,
): Layout {
  return { shape, strides, offset: lead - extentOf(shape, strides).lowest };
}

/** The index of every element, in C order. */
function indicesOf(layout: Layout): number[] {
  const indices: number[] = [];
  walk(layout, (index) => indices.push(index));
  return indices;
}

const elements: readonly Packing[] = [
  { bits: 8, group: 1 },
  { bits: 32, group: 1 },
  { bits: 128, group: 1 },
  { bits: 1, group: 8 },
  { bits: 2, group: 4 },
  { bits: 4, group: 2 },
  { bits: 6, group: 4 },
];

/** Checks all that a plan promises, and says which kinds of pieces it has. */
function checkPlan(
  layout: Layout,
  element: Packing,
  limits: TransferLimits,
): Set<Piece["kind"]> {
  const plan = planTransfer(layout, element, limits);
  const { lowest, highest } = extentOf(layout.shape, layout.strides);
  assert(layout.offset + lowest < element.group, "the test's own mistake");
  const end = layout.offset + highest + 1;
  const most = elementsIn(element, limits.pieceBytes);
  const mostOfSpan = Math.min(most, elementsIn(element, limits.spanBytes));
  const isWhole = (...counts: number[]): boolean =>
    counts.every((count) => count % element.group === 0);
  const kinds = new Set<Piece["kind"]>();
  /** Which element each of those side by side is. */
  const side: number[] = [];
  for (const piece of plan.pieces()) {
    const { kind, from, into, length } = piece;
    kinds.add(kind);
    assertEquals(into, side.length, "the first elements first, without gaps");
    assert(length > 0 && from >= 0 && isWhole(from));
    if (kind === "run") {
      assert(from + length <= end && length <= most && isWhole(into));
      for (let i = 0; i < length; i++) side.push(from + i);
    } else if (kind === "rows") {
      const { pitch, count } = piece;
      assert(limits.hasRows && count >= 2 && pitch >= length);
      assert(from + (count - 1) * pitch + length <= end);
      assert(length * count <= most && isWhole(into, length, pitch));
      for (let row = 0; row < count; row++) {
        for (let i = 0; i < length; i++) side.push(from + row * pitch + i);
      }
    } else {
      assert(from + length <= end, "a span beyond the end");
      assert(length <= mostOfSpan, "a span longer than its limit");
      const extent = extentOf(piece.layout.shape, piece.layout.strides);
      assert(piece.layout.offset + extent.lowest >= 0);
      assert(piece.layout.offset + extent.highest < length);
      walk(piece.layout, (index) => side.push(from + index));
    }
  }
  assertEquals(side.length, plan.size);
  assert(plan.size <= sizeOf(layout.shape));
  const expected = indicesOf(layout);
  const inSide = indicesOf(plan.layout);
  assertEquals(inSide.map((index) => side[index]), expected);
  const isInOrder = plan.size === expected.length &&
    inSide.every((index, at) => index === at);
  assertEquals(plan.isInOrder, isInOrder);
  return kinds;
}

Deno.test("planTransfer brings every element once, within its limits", () => {
  const random = new Random();
  const kinds = { run: 0, rows: 0, span: 0 };
  for (let round = 0; round < 3000; round++) {
    const element = random.pick(elements);
    const layout = placed(randomLayout(random), random.below(element.group));
    if (sizeOf(layout.shape) > 4000) continue;
    const limits = {
      hasRows: random.below(2) === 0,
      pieceBytes: random.pick([1, 7, 16, 100, 1000, Infinity]),
      spanBytes: random.pick([1, 10, 64, 500, 2 ** 24]),
    };
    try {
      for (const kind of checkPlan(layout, element, limits)) kinds[kind]++;
    } catch (error) {
      const what = JSON.stringify({ layout, element, limits });
      throw new Error(`Round ${round}: ${what}`, { cause: error });
    }
  }
  // The usual choice for such short ones is a span.
  assert(kinds.run > 500 && kinds.span > 500, JSON.stringify(kinds));
});

const MB = 2 ** 20;
const float32: Packing = { bits: 32, group: 1 };
const int4: Packing = { bits: 4, group: 2 };
const limits: TransferLimits = {
  hasRows: true,
  pieceBytes: Infinity,
  spanBytes: 16 * MB,
};
const noRows: TransferLimits = { ...limits, hasRows: false };

function compact(...shape: number[]): Layout {
  return { shape, strides: cStrides(shape), offset: 0 };
}

function sliced(shape: number[], ...ranges: Range[]): Layout {
  return { ...sliceLayout(compact(...shape), ranges), offset: 0 };
}

/** How many pieces of each kind there are, and the bytes they read. */
function tally(
  plan: TransferPlan,
  { bits }: Packing,
): { run: number; rows: number; span: number; bytes: number } {
  const sum = { run: 0, rows: 0, span: 0, bytes: 0 };
  for (const piece of plan.pieces()) {
    sum[piece.kind]++;
    const count = piece.kind === "rows" ? piece.count : 1;
    sum.bytes += piece.length * count * bits / 8;
  }
  return sum;
}

/** What comes of some layouts: pieces, bytes, and whether it is C order then. */
const planned: readonly [
  what: string,
  Layout,
  Packing,
  TransferLimits,
  pieces: Partial<Record<Piece["kind"], number>>,
  bytes: number,
  isInOrder: boolean,
][] = [
  ["scalar", compact(), float32, limits, { run: 1 }, 4, true],
  ["C order", compact(50, 60, 70), float32, limits, { run: 1 }, 840000, true],
  [
    "C order in pieces",
    compact(50, 60, 70),
    float32,
    { ...limits, pieceBytes: 100_001 },
    { run: 9 },
    840000,
    true,
  ],
  [
    "axes of length 1",
    { shape: [1, 5, 1, 6], strides: [-7, 6, 1e9, 1], offset: 0 },
    float32,
    limits,
    { run: 1 },
    120,
    true,
  ],
  [
    "Fortran order",
    transposeLayout(compact(30, 40, 50), []),
    float32,
    limits,
    { run: 1 },
    240000,
    false,
  ],
  [
    "backwards",
    { shape: [5000], strides: [-1], offset: 4999 },
    float32,
    limits,
    { run: 1 },
    20000,
    false,
  ],
  [
    "packed, an odd number",
    compact(2001),
    int4,
    limits,
    { run: 1 },
    1000.5,
    true,
  ],
  [
    "a row for every line",
    { shape: [4000, 50], strides: [0, 1], offset: 0 },
    float32,
    limits,
    { run: 1 },
    200,
    false,
  ],
  [
    "one element everywhere",
    { shape: [4000, 50], strides: [0, 0], offset: 0 },
    float32,
    limits,
    { run: 1 },
    4,
    false,
  ],
  [
    "a crop of an image",
    sliced([2160, 3840, 4], [0, 1000], [0, 1000]),
    { bits: 8, group: 1 },
    limits,
    { rows: 1 },
    4e6,
    true,
  ],
  [
    "a crop of an image in pieces",
    sliced([2160, 3840, 4], [0, 1000], [0, 1000]),
    { bits: 8, group: 1 },
    { ...limits, pieceBytes: MB },
    { rows: 4 },
    4e6,
    true,
  ],
  [
    "a crop of an image without rows",
    sliced([2160, 3840, 4], [0, 1000], [0, 1000]),
    { bits: 8, group: 1 },
    noRows,
    { span: 1 },
    999 * 15360 + 4000,
    true,
  ],
  [
    "padded rows",
    sliced([3000, 1024], null, [0, 900]),
    float32,
    limits,
    { rows: 1 },
    108e5,
    true,
  ],
  [
    "many short rows",
    sliced([100_000, 4], null, [0, 3]),
    float32,
    limits,
    { span: 1 },
    4 * 399_999,
    true,
  ],
  [
    "padded rows of int4",
    sliced([3000, 10240], null, [0, 1000]),
    int4,
    limits,
    { rows: 1 },
    15e5,
    true,
  ],
  [
    "a column of a huge matrix",
    sliced([100_000, 100_000], null, [0, 1]),
    float32,
    limits,
    { rows: 1 },
    400_000,
    true,
  ],
  [
    "a few columns of a huge matrix, without rows",
    sliced([1000, 100_000], null, [0, 4]),
    float32,
    noRows,
    { run: 1000 },
    16000,
    true,
  ],
  [
    "every other element",
    sliced([100_000], [0, null, 2]),
    float32,
    limits,
    { span: 1 },
    4 * 99_999,
    true,
  ],
  [
    "long rows far apart",
    sliced([20, 10 * MB], null, [0, MB]),
    float32,
    noRows,
    { run: 20 },
    80 * MB,
    true,
  ],
  [
    "crops of many images",
    sliced([8, 2000, 4000], null, [0, 900], [0, 900]),
    float32,
    limits,
    { rows: 8 },
    8 * 900 * 900 * 4,
    true,
  ],
  [
    "a window that slides",
    { shape: [10_000, 100], strides: [1, 1], offset: 0 },
    float32,
    limits,
    { span: 1 },
    4 * 10_099,
    true,
  ],
];

Deno.test("planTransfer chooses what costs least", async (t) => {
  for (const [what, layout, element, limits, pieces, bytes, order] of planned) {
    await t.step(what, () => {
      const plan = planTransfer(layout, element, limits);
      const none = { run: 0, rows: 0, span: 0 };
      assertEquals(tally(plan, element), { ...none, ...pieces, bytes });
      assertEquals(plan.isInOrder, order);
    });
  }
});

Deno.test("planTransfer leaves its arguments alone, and plans lazily", () => {
  const layout = sliced([2 ** 40, 1000], null, [0, 500]);
  Object.freeze(layout.shape);
  Object.freeze(layout.strides);
  const plan = planTransfer(Object.freeze(layout), float32, limits);
  const some = plan.pieces().take(1000).toArray();
  assertEquals(some.length, 1);
  const inPieces = planTransfer(layout, float32, { ...limits, pieceBytes: MB });
  assertEquals(inPieces.pieces().take(1000).toArray().length, 1000);
  // Each call begins anew.
  assertEquals(inPieces.pieces().next().value, inPieces.pieces().next().value);
});

/** A tensor of random bits on a device, and its elements in C order. */
interface Example {
  readonly spec: FixtureSpec;
  /** The shape, lanes included. */
  readonly shape: readonly number[];
  readonly expected: Uint8Array;
}

/** A tensor of a dtype with a layout, its memory exactly as long as it must be. */
function example(
  random: Random,
  name: DType,
  { shape, strides }: Omit<Layout, "offset">,
  { padded = false, lanes = 1, versioned = true } = {},
): Example {
  const info = dtypeByName(name)!;
  const isPacked = info.bits < 8 && !padded;
  const bits = isPacked ? info.bits : Math.max(info.bits, 8);
  const full = lanes > 1
    ? {
      shape: [...shape, lanes],
      strides: [...strides.map((stride) => stride * lanes), 1],
    }
    : { shape, strides };
  const { lowest, highest } = extentOf(full.shape, full.strides);
  // The first element may lie within a byte.
  const group = isPacked ? 8 / (bits & -bits) : 1;
  const lead = ((lowest % group) + group) % group;
  const nbytes = Math.ceil((highest - lowest + 1 + lead) * bits / 8);
  const data = random.bytes(nbytes);
  const indices = highest < lowest
    ? []
    : indicesOf({ ...full, offset: lead - lowest });
  const byteOffset = random.pick([0, 0, 3, 64]);
  return {
    spec: {
      versioned,
      device: [DeviceType.extDev, 3],
      flags: padded ? 4 : 0,
      dtype: [info.code, info.bits, lanes],
      shape,
      strides,
      byteOffset,
      origin: (lead - lowest) * bits / 8 - byteOffset,
      nbytes,
      place: random.pick(["end", "start"]),
      data,
    },
    shape: full.shape,
    expected: gathered(data, indices, bits),
  };
}

/** Elements side by side, moved bit by bit where they are no bytes. */
function gathered(
  data: Uint8Array,
  indices: readonly number[],
  bits: number,
): Uint8Array {
  const into = new Uint8Array(Math.ceil(indices.length * bits / 8));
  const bytes = bits / 8;
  indices.forEach((index, at) => {
    if (bits % 8 === 0) {
      const element = data.subarray(index * bytes, (index + 1) * bytes);
      return into.set(element, at * bytes);
    }
    for (let bit = 0; bit < bits; bit++) {
      const [from, to] = [index * bits + bit, at * bits + bit];
      into[to >> 3]! |= (data[from >> 3]! >> (from & 7) & 1) << (to & 7);
    }
  });
  return into;
}

/** Copies an example in small pieces, through the functions inside. */
async function copyInPieces(
  { spec }: Example,
  device: HostDevice,
  pieceBytes: number,
  isAsync: boolean,
): Promise<Uint8Array> {
  const owner = consume(capsule(spec));
  try {
    const struct = checkStruct(owner.header(), owner.name);
    const memory = {
      type: "extDev" as const,
      id: struct.deviceId,
      data: struct.data,
      byteOffset: struct.start,
      byteLength: struct.length * struct.info.array.BYTES_PER_ELEMENT,
      stream: null,
      access: "read" as const,
    };
    const steps = copyFromDevice(device, memory, struct, pieceBytes);
    const done: number[] = [];
    const data = isAsync
      ? await runStepsAsync(steps, null, (step) => done.push(step))
      : runSteps(steps);
    if (isAsync) {
      assert(done.every((step, i) => step >= (done[i - 1] ?? 0)), `${done}`);
      assertEquals(done.at(-1), 1);
    }
    return bytesOf(data);
  } finally {
    owner.release();
  }
}

/** Like assertEquals, which is slow for so many. */
function assertBytes(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(at, -1, `byte ${at} is ${actual[at]}, not ${expected[at]}`);
}

/** More is there at no time, bytes that are not whole aside. */
function assertTwice(device: HostDevice, result: Uint8Array): void {
  const most = 2 * result.length + 8;
  assert(device.peakBytes <= most, `${device.peakBytes} of ${most} at once`);
  const held = device.heldBytes(result.buffer as ArrayBuffer);
  assert(held <= most, `${held} of ${most} in the end`);
}

Deno.test("copyFromDevice moves the bits that a naive copy moves", async (t) => {
  const random = new Random();
  const kinds: readonly [DType, { padded?: boolean; lanes?: number }][] = [
    ...dtypeNames.map((name): [DType, Record<never, never>] => [name, {}]),
    ["int4", { padded: true }],
    ["float6_e2m3fn", { padded: true }],
    ["float32", { lanes: 4 }],
    ["uint8", { lanes: 3 }],
    ["int4", { lanes: 2 }],
    ["float6_e3m2fn", { lanes: 4 }],
    ["uint1", { lanes: 8 }],
  ];
  const calls = { read: 0, readAsync: 0, readRows: 0 };
  for (const [name, kind] of kinds) {
    await t.step(`${name} ${JSON.stringify(kind)}`, async () => {
      for (let round = 0; round < 60; round++) {
        const layout = randomLayout(random);
        if (sizeOf(layout.shape) > 1500) continue;
        // In a legacy struct uint1 is bool.
        const versioned = kind.padded || name === "uint1" ||
          random.below(2) === 0;
        const x = example(random, name, layout, { ...kind, versioned });
        const options = {
          hasRows: random.below(2) === 0,
          isAsync: random.below(10) === 0,
        };
        const sizes = options.isAsync
          ? [200, 1000]
          : [1, 10, 100, 1000, Infinity];
        const pieceBytes = random.pick(sizes);
        const device = new HostDevice(options);
        try {
          const result = await copyInPieces(
            x,
            device,
            pieceBytes,
            options.isAsync,
          );
          assertBytes(result, x.expected);
          assertTwice(device, result);
          assertEquals(device.count("open"), 1);
          assertEquals(device.calls.at(-1), "dispose");
        } catch (error) {
          const what = JSON.stringify({ layout, pieceBytes, options });
          throw new Error(`Round ${round}: ${what}`, { cause: error });
        }
        for (const call of Object.keys(calls) as (keyof typeof calls)[]) {
          calls[call] += device.count(call);
        }
      }
    });
  }
  assert(calls.read > 1000 && calls.readAsync > 100, JSON.stringify(calls));
});

/** Layouts of which rows, long runs, or parts of what repeats are copied. */
const large: readonly [what: string, Omit<Layout, "offset">][] = [
  ["a crop", sliced([70, 4096], null, [0, 24])],
  ["crops", sliced([3, 70, 4096], null, null, [0, 24])],
  ["a crop, upside down", {
    shape: [70, 24],
    strides: [-4096, 1],
  }],
  ["a crop, transposed and mirrored", {
    shape: [24, 70],
    strides: [-1, 4096],
  }],
  ["crops of crops", sliced([2, 40, 8, 2048], null, null, [0, 4], [0, 16])],
  ["a column", { shape: [300], strides: [1024] }],
  ["a column, repeated", { shape: [3, 300], strides: [0, 1024] }],
  ["far apart", { shape: [3, 8], strides: [2 ** 18, 1] }],
  ["far apart and odd", { shape: [3, 7], strides: [2 ** 18 + 1, 1] }],
  ["rows that overlap", { shape: [200, 64], strides: [24, 1] }],
];

Deno.test("copyFromDevice copies rows, and what is far apart", async (t) => {
  const random = new Random();
  const dtypes: readonly [DType, { lanes?: number }][] = [
    ["uint8", {}],
    ["float32", {}],
    ["complex128", {}],
    ["int4", {}],
    ["uint1", {}],
    ["float6_e2m3fn", {}],
    ["bfloat16", { lanes: 2 }],
  ];
  for (const [what, layout] of large) {
    await t.step(what, async () => {
      const rows = new Set<DType>();
      for (const [name, kind] of dtypes) {
        const x = example(random, name, layout, kind);
        for (const hasRows of [true, false]) {
          for (const pieceBytes of [10, 1000, Infinity]) {
            const device = new HostDevice({ hasRows });
            const result = await copyInPieces(x, device, pieceBytes, false);
            assertBytes(result, x.expected);
            assertTwice(device, result);
            if (!hasRows || pieceBytes !== Infinity) continue;
            if (device.count("readRows") > 0) rows.add(name);
            // Not all that lies between.
            if (what !== "rows that overlap" && name === "complex128") {
              assert(device.bytesRead <= result.length, "too much was read");
            }
          }
        }
      }
      assertEquals(rows.has("complex128"), what !== "rows that overlap");
    });
  }
});

Deno.test("fromDlpack() copies from a device through its runtime", async () => {
  const random = new Random();
  const device = new HostDevice({ hasRows: true });
  await withRuntime(DeviceType.extDev, device, () => {
    let copies = 0;
    const deleted = deletions(() => {
      for (let round = 0; round < 300; round++) {
        const layout = randomLayout(random);
        const { spec, shape, expected } = example(
          random,
          random.pick(dtypeNames),
          layout,
        );
        const copy = random.pick([null, true]);
        const t = fromDlpack(capsule(spec), { device: "cpu", copy });
        copies++;
        assertBytes(bytesOf(t.data), expected);
        assertEquals(t.shape, shape);
        assertEquals(t.strides, cStrides(shape));
        assertEquals([t.offset, t.readOnly, t.isContiguous], [0, false, true]);
        assertEquals(t.device, { type: "cpu", id: 0 });
      }
    });
    assertEquals(deleted, copies);
    assertEquals(device.count("open"), copies);
    assertEquals(device.count("synchronize"), copies);
    assertEquals(device.count("dispose"), copies);
  });
});

Deno.test("copyFromDevice gives an odd number of packed elements clean ends", async () => {
  // The upper half of the last byte is somebody else's.
  const data = new Uint8Array([0x21, 0xf3]);
  const spec: FixtureSpec = {
    device: [DeviceType.extDev, 0],
    dtype: [0, 4, 1],
    shape: [3],
    nbytes: 2,
    data,
  };
  const x = { spec, shape: [3], expected: new Uint8Array([0x21, 0x03]) };
  const result = await copyInPieces(x, new HostDevice(), Infinity, false);
  assertEquals(result, x.expected);
});

Deno.test("putInOrder goes step by step, from whole byte to whole byte", () => {
  const info = dtypeByName("int4")!;
  const from = new Random().bytes(33 * 101);
  const there = { info, isPacked: true, layout: compact(101, 66) };
  // Rows of 33 elements, which end within a byte.
  const layout = { ...there.layout, shape: [101, 33] };
  const into = new Uint8Array(Math.ceil(101 * 33 / 2));
  const ends: number[] = [];
  const copying = putInOrder({ ...there, layout }, from, into, 83);
  // There is room for 5 rows in a step; 4 of them are whole bytes.
  for (const step of copying) {
    step.run();
    ends.push(Math.round(step.done * 101 * 33));
  }
  assertBytes(into, gathered(from, indicesOf(layout), 4));
  assertEquals(ends.at(-1), 101 * 33);
  assert(ends.length > 10, `${ends.length} steps`);
  assert(ends.slice(0, -1).every((end) => end % 2 === 0), `${ends}`);
});

Deno.test("fromDlpack() needs no runtime for an empty tensor on a device", async () => {
  const spec: FixtureSpec = {
    device: [DeviceType.extDev, 0],
    dtype: [2, 32, 1],
    shape: [0, 3],
    nbytes: 0,
    nullData: true,
  };
  const check = (): void => {
    const t = fromDlpack(capsule(spec), { device: "cpu" });
    assertEquals([t.shape, t.data.length, t.toArray()], [[0, 3], 0, []]);
    assertEquals(t.device.type, "cpu");
  };
  assertEquals(deletions(check), 1);
  const device = new HostDevice();
  await withRuntime(DeviceType.extDev, device, () => {
    assertEquals(deletions(check), 1);
  });
  assertEquals(device.calls, []);
});

Deno.test("A copy from a device that cannot be made closes it, then deletes", async () => {
  // All of it overlaps, so that little memory makes a tensor of 4 PiB.
  const spec: FixtureSpec = {
    device: [DeviceType.extDev, 0],
    dtype: [1, 8, 1],
    shape: [2 ** 20, 2 ** 20, 2 ** 12],
    strides: [1, 1, 1],
    nbytes: 2 ** 21 + 2 ** 12 - 2,
  };
  const device = new HostDevice();
  await withRuntime(DeviceType.extDev, device, () => {
    const deleted = deletions(() => {
      assertBufferError(
        () => fromDlpack(capsule(spec), { device: "cpu" }),
        "copy",
        "no memory for 4503599627370496 bytes",
      );
    });
    assertEquals(deleted, 1);
  });
  assertEquals(device.calls, ["open", "dispose"]);
});
