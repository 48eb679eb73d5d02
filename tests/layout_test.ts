// Shapes and strides against naive models: lists of the indices they visit.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { BufferError } from "../src/errors.ts";
import {
  cStrides,
  describeShape,
  extentOf,
  isContiguous,
  type Layout,
  type Range,
  reshapeLayout,
  resolveAxis,
  sizeOf,
  sliceLayout,
  transposeLayout,
} from "../src/layout.ts";

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

/** What Python's `list(range(length))[start:stop:step]` is. */
function pythonSlice(
  length: number,
  start: number | null,
  stop: number | null,
  by: number | null,
): number[] {
  const step = by ?? 1;
  const fromZero = (bound: number) => bound < 0 ? bound + length : bound;
  const picked: number[] = [];
  if (step > 0) {
    const end = stop === null ? length : Math.min(fromZero(stop), length);
    const first = start === null ? 0 : Math.max(fromZero(start), 0);
    for (let i = first; i < end; i += step) picked.push(i);
  } else {
    const end = stop === null ? -1 : Math.max(fromZero(stop), -1);
    const last = length - 1;
    const first = start === null ? last : Math.min(fromZero(start), last);
    for (let i = first; i > end; i += step) picked.push(i);
  }
  return picked;
}

/** Every list that takes one of the values at each of `count` places. */
function lists<T>(values: readonly T[], count: number): T[][] {
  if (count === 0) return [[]];
  return values.flatMap((value) =>
    lists(values, count - 1).map((rest) => [value, ...rest])
  );
}

const compact = (shape: number[]): Layout => ({
  shape,
  strides: cStrides(shape),
  offset: 0,
});

Deno.test("sizeOf multiplies the lengths", () => {
  assertEquals(sizeOf([]), 1);
  assertEquals(sizeOf([5]), 5);
  assertEquals(sizeOf([2, 3, 4]), 24);
  assertEquals(sizeOf([2, 0, 4]), 0);
});

Deno.test("cStrides steps by the product of the later lengths", () => {
  assertEquals(cStrides([]), []);
  assertEquals(cStrides([7]), [1]);
  assertEquals(cStrides([2, 3, 4]), [12, 4, 1]);
  assertEquals(cStrides([1, 1]), [1, 1]);
  // NumPy's np.empty((2, 0, 3)) has these strides, too.
  assertEquals(cStrides([2, 0, 3]), [3, 3, 1]);
  for (const shape of lists([1, 2, 3], 3)) {
    const order = Array.from({ length: sizeOf(shape) }, (_, i) => i);
    assertEquals(visited(compact(shape)), order);
  }
});

Deno.test("isContiguous is true exactly when the indices count up by one", () => {
  for (const shape of lists([1, 2, 3], 3)) {
    for (const strides of lists([-1, 0, 1, 2, 3, 6, 9], 3)) {
      const order = visited({ shape, strides, offset: 0 });
      assertEquals(
        isContiguous(shape, strides),
        order.every((index, i) => index === i),
        `${shape} by ${strides}`,
      );
    }
  }
  assert(isContiguous([], []));
  assert(isContiguous([0, 3], [-7, 5]), "an empty one always is");
  assert(isContiguous([3, 0], [-7, 5]), "an empty one always is");
});

Deno.test("extentOf finds the lowest and the highest index", () => {
  for (const shape of lists([1, 2, 3], 3)) {
    for (const strides of lists([-5, -1, 0, 2, 7], 3)) {
      const order = visited({ shape, strides, offset: 0 });
      assertEquals(
        extentOf(shape, strides),
        { lowest: Math.min(...order), highest: Math.max(...order) },
        `${shape} by ${strides}`,
      );
    }
  }
  assertEquals(extentOf([], []), { lowest: 0, highest: 0 });
  assertEquals(extentOf([4, 0], [9, 9]), { lowest: 0, highest: -1 });
});

Deno.test("describeShape writes a shape as a list", () => {
  assertEquals(describeShape([]), "[]");
  assertEquals(describeShape([2, 3]), "[2, 3]");
});

Deno.test("resolveAxis counts negative axes from the end", () => {
  assertEquals([-3, -2, -1, 0, 1, 2].map((axis) => resolveAxis(axis, 3)), [
    0,
    1,
    2,
    0,
    1,
    2,
  ]);
  for (const axis of [3, -4, 3n]) {
    assertThrows(
      () => resolveAxis(axis, 3),
      RangeError,
      `Axis ${axis} is out of range: the tensor has 3 axes`,
    );
  }
  for (const axis of [0.5, NaN]) {
    assertThrows(
      () => resolveAxis(axis, 3),
      RangeError,
      `An axis must be an integer, not ${axis}`,
    );
  }
  assertThrows(() => resolveAxis("0" as never, 3), TypeError, 'not "0"');
  assertEquals(resolveAxis(-1n, 3), 2);
});

Deno.test("slice gives what Python gives for examples typed by hand", () => {
  // Each from a Python prompt: list(range(5))[start:stop:step].
  const examples: [Range, number[]][] = [
    [[1, 3], [1, 2]],
    [[], [0, 1, 2, 3, 4]],
    [[null, null, 2], [0, 2, 4]],
    [[null, null, -1], [4, 3, 2, 1, 0]],
    [[3, 0, -2], [3, 1]],
    [[3, null, -2], [3, 1]],
    [[-2, null], [3, 4]],
    [[null, -2], [0, 1, 2]],
    [[-100, 100, 3], [0, 3]],
    [[100, -100, -3], [4, 1]],
    [[3, 1], []],
    [[1, 3, -1], []],
    [[9, 12], []],
    [[-1, 0, -1], [4, 3, 2, 1]],
    [[4, null, 100], [4]],
  ];
  for (const [range, picked] of examples) {
    assertEquals(visited(sliceLayout(compact([5]), [range])), picked);
  }
});

Deno.test("slice picks what Python picks for every start, stop and step", () => {
  const bounds = [null, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7];
  for (let length = 0; length <= 5; length++) {
    for (const stride of [2, -3]) {
      const from = { shape: [length], strides: [stride], offset: 20 };
      for (const start of bounds) {
        for (const stop of bounds) {
          for (const step of [null, -7, -3, -2, -1, 1, 2, 3, 7]) {
            const picked = pythonSlice(length, start, stop, step);
            const cut = sliceLayout(from, [[start, stop, step]]);
            assertEquals(
              [cut.shape, visited(cut)],
              [[picked.length], picked.map((i) => 20 + i * stride)],
              `[${start}:${stop}:${step}] of ${length}`,
            );
          }
        }
      }
    }
  }
});

Deno.test("slice combines indices, whole axes and ranges of several axes", () => {
  const shape = [3, 4, 2];
  const strides = [10, -2, 0];
  const offset = 50;
  const ranges: Range[] = [0, -1, null, [], [1, 3], [null, null, -1], [2, 0]];
  const pick = (range: Range, length: number): number[] => {
    if (range === null) return pythonSlice(length, null, null, 1);
    if (typeof range === "number") return [range < 0 ? range + length : range];
    const [start = null, stop = null, step = null] = range as readonly number[];
    return pythonSlice(length, start, stop, step);
  };
  for (let count = 0; count <= 3; count++) {
    for (const chosen of lists(ranges, count)) {
      const picked = shape.map((length, axis) =>
        pick(chosen[axis] ?? null, length)
      );
      const kept = picked.filter((_, axis) => typeof chosen[axis] !== "number");
      const [first, second, third] = picked as [number[], number[], number[]];
      const expected = first.flatMap((i) =>
        second.flatMap((j) => third.map(() => offset + 10 * i - 2 * j))
      );
      const cut = sliceLayout({ shape, strides, offset }, chosen);
      assertEquals(cut.shape, kept.map((indices) => indices.length));
      assertEquals(cut.strides.length, kept.length);
      assertEquals(visited(cut), expected, JSON.stringify(chosen));
    }
  }
});

Deno.test("slice leaves no -0 in the strides of a broadcast axis", () => {
  const broadcast = { shape: [3], strides: [0], offset: 0 };
  const [stride] = sliceLayout(broadcast, [[null, null, -1]]).strides;
  assert(Object.is(stride, 0), "-0 shows in console.log");
});

Deno.test("slice of an empty result stays within the memory", () => {
  const cut = sliceLayout(compact([4, 3]), [[4], [2]]);
  assertEquals(cut.shape, [0, 1]);
  assert(cut.offset >= 0 && cut.offset < 12, `offset ${cut.offset}`);
});

Deno.test("slice throws when it is asked for what there is not", () => {
  const from = compact([4, 3]);
  const cases: [Range[], typeof Error, string][] = [
    [[0, 0, 0], RangeError, "Cannot slice 3 axes: the tensor has 2"],
    [[4], RangeError, "Index 4 is out of range for axis 0 of length 4"],
    [[null, -4], RangeError, "Index -4 is out of range for axis 1 of length 3"],
    [[-5n], RangeError, "Index -5 is out of range for axis 0 of length 4"],
    [[1.5], RangeError, "The index for axis 0 must be an integer, not 1.5"],
    [[NaN], RangeError, "The index for axis 0 must be an integer, not NaN"],
    [[[0, 2, 0]], RangeError, "Cannot slice axis 0 by a step of 0"],
    [[null, [0.5]], TypeError, "Cannot slice axis 1 by 0.5"],
    [[[0, 1, 0.5]], TypeError, "Cannot slice axis 0 by 0.5"],
    [[[0, Infinity]], TypeError, "Cannot slice axis 0 by Infinity"],
    [["1:2" as unknown as Range], TypeError, `Cannot slice axis 0 by "1:2"`],
    [[{} as unknown as Range], TypeError, "pass an index, null, or [start"],
  ];
  for (const [ranges, type, message] of cases) {
    assertThrows(() => sliceLayout(from, ranges), type, message);
  }
});

Deno.test("transpose moves each axis with its stride", () => {
  const from = { shape: [2, 3, 4], strides: [100, -10, 1], offset: 30 };
  assertEquals(transposeLayout(from, []), {
    shape: [4, 3, 2],
    strides: [1, -10, 100],
    offset: 30,
  });
  for (const axes of lists([0, 1, 2], 3)) {
    if (new Set(axes).size < 3) continue;
    const expected = {
      shape: axes.map((axis) => from.shape[axis]!),
      strides: axes.map((axis) => from.strides[axis]!),
      offset: 30,
    };
    assertEquals(transposeLayout(from, axes), expected);
    const negative = axes.map((axis) => axis - 3);
    assertEquals(transposeLayout(from, negative), expected);
  }
  const scalar = { shape: [], strides: [], offset: 5 };
  assertEquals(transposeLayout(scalar, []), scalar);
});

Deno.test("transpose throws when the axes are not a permutation", () => {
  const from = compact([2, 3]);
  for (const axes of [[0], [0, 0], [0, 1, 0], [1, -1]]) {
    assertThrows(
      () => transposeLayout(from, axes),
      RangeError,
      "each of the 2 axes must be named once",
    );
  }
  assertThrows(() => transposeLayout(from, [0, 2]), RangeError, "Axis 2");
  assertThrows(() => transposeLayout(from, [0, 0.5]), RangeError, "not 0.5");
});

/** Every shape of up to three axes with so many elements. */
function shapesOf(size: number, axes = 3): number[][] {
  if (axes === 0) return size === 1 ? [[]] : [];
  const longer = Array.from({ length: size }, (_, i) => i + 1)
    .filter((length) => size % length === 0)
    .flatMap((length) =>
      shapesOf(size / length, axes - 1).map((rest) => [length, ...rest])
    );
  return size === 1 ? [[], ...longer] : longer;
}

/**
 * Whether some strides visit `order` under a shape: along each axis they must
 * be what lies between the first element and its neighbour.
 */
function canBeView(order: readonly number[], shape: readonly number[]) {
  const strides = cStrides(shape).map((step, axis) =>
    shape[axis] === 1 ? 0 : order[step]! - order[0]!
  );
  const indices = visited({ shape, strides, offset: order[0]! });
  return indices.every((index, i) => index === order[i]);
}

Deno.test("reshape gives a view exactly when some strides could", () => {
  const counts = { views: 0, refused: 0 };
  // With these strides axes merge with their neighbours, or do not.
  const layouts = [
    ...lists([1, 2, 4, 6], 2).flatMap((shape) =>
      lists([-4, -2, -1, 0, 1, 2, 3, 4, 6], 2).map((by) => [shape, by])
    ),
    ...lists([1, 2, 3], 3).flatMap((shape) =>
      lists([-2, -1, 0, 1, 2, 3, 6], 3).map((by) => [shape, by])
    ),
  ] as [number[], number[]][];
  const targets = new Map<number, number[][]>();
  for (const [shape, strides] of layouts) {
    const size = sizeOf(shape);
    if (!targets.has(size)) targets.set(size, shapesOf(size));
    const from = { shape, strides, offset: 40 };
    const order = visited(from);
    for (const to of targets.get(size)!) {
      let view: Layout | null = null;
      try {
        view = reshapeLayout(from, to);
      } catch (error) {
        assert(error instanceof BufferError && error.code === "layout");
      }
      const right = canBeView(order, to)
        ? view !== null && describeShape(view.shape) === describeShape(to) &&
          visited(view).every((index, i) => index === order[i])
        : view === null;
      assert(right, `${shape} by ${strides} to ${to}: ${view?.strides}`);
      if (view === null) counts.refused++;
      else counts.views++;
    }
  }
  assert(Math.min(counts.views, counts.refused) > 10_000, "both are tried");
});

Deno.test("reshape works the length of -1 out", () => {
  const from = compact([4, 6]);
  assertEquals(reshapeLayout(from, [-1]).shape, [24]);
  assertEquals(reshapeLayout(from, [2, -1, 3]).shape, [2, 4, 3]);
  assertEquals(reshapeLayout(from, [24, -1]).shape, [24, 1]);
  assertEquals(reshapeLayout(compact([0, 6]), [6, -1]).shape, [6, 0]);
  assertEquals(reshapeLayout(compact([]), [-1]).shape, [1]);
});

Deno.test("reshape of an empty tensor is always a view", () => {
  const from = { shape: [2, 0, 3], strides: [7, -1, 5], offset: 4 };
  for (const to of [[0], [0, 5], [5, 0, 2], [2, 0, 3]]) {
    const view = reshapeLayout(from, to);
    assertEquals(view.shape, to);
    assertEquals(visited(view), []);
    assertEquals(view.offset, 4);
  }
});

Deno.test("reshape throws when the number of elements differs", () => {
  const cases: [number[], number[]][] = [
    [[4, 6], [5, 5]],
    [[4, 6], []],
    [[4, 6], [5, -1]],
    [[4, 6], [-1, -1]],
    [[4, 6], [-2, -12]],
    [[4, 6], [0, -1]],
    [[0, 6], [0, -1]], // any length would do, as NumPy says
    [[0, 6], [1]],
  ];
  for (const [shape, to] of cases) {
    assertThrows(
      () => reshapeLayout(compact(shape), to),
      RangeError,
      `Cannot reshape ${sizeOf(shape)} elements to ${describeShape(to)}`,
    );
  }
  assertThrows(
    () => reshapeLayout(compact([4, 6]), [4.8, 5]),
    RangeError,
    "The shape at axis 0 must be an integer, not 4.8",
  );
  assertEquals(reshapeLayout(compact([4, 6]), [3n, -1n]).shape, [3, 8]);
});

Deno.test("reshape says to copy when only a copy could do it", () => {
  const transposed = transposeLayout(compact([2, 3]), []);
  assertThrows(
    () => reshapeLayout(transposed, [6]),
    BufferError,
    "Cannot reshape [3, 2] with strides [1, 3] to [6] without a copy: call " +
      "copy() first",
  );
});
