/**
 * Shapes and strides: pure arithmetic, in elements, no memory.
 *
 * @module
 */

import { shapeTable } from "./axes.ts";
import { BufferError, describe } from "./errors.ts";

/** Where a strided view starts and how it steps, in elements. */
export interface Layout {
  /** The length of each axis. */
  readonly shape: readonly number[];
  /** From one element to the next along each axis. */
  readonly strides: readonly number[];
  /** The index of element [0, …, 0]. */
  readonly offset: number;
}

/**
 * Where a view starts and how it steps, for a tensor to keep.
 *
 * @param shape Nobody may change it any more.
 * @param strides Likewise.
 */
export function layoutOf(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): Layout {
  return { shape: shapeTable.shared(shape), strides, offset };
}

/**
 * One axis of a slice: an index drops it, `null` keeps it whole.
 *
 * @category Basics
 */
export type Range =
  | number
  | bigint
  | null
  | readonly [
    start?: number | bigint | null,
    stop?: number | bigint | null,
    step?: number | bigint | null,
  ];

/**
 * An integer as a number: elements of int64 tensors, which are bigints, count
 * and index as numbers do.
 *
 * @param what What it is, for the message.
 * @throws {TypeError} When it is no number.
 * @throws {RangeError} When it is a number, but no integer.
 */
export function toInteger(value: unknown, what: string): number {
  const number = typeof value === "bigint" ? Number(value) : value;
  if (Number.isInteger(number)) return number as number + 0; // not -0
  const Class = typeof value === "number" ? RangeError : TypeError;
  throw new Class(`${what} must be an integer, not ${describe(value)}`);
}

/**
 * Integers as numbers.
 *
 * @param what What they are, for the message: `"shape"`.
 * @param example How they are passed.
 * @throws {TypeError} When they are no array of numbers.
 * @throws {RangeError} When one is no integer.
 */
export function toIntegers(
  values: unknown,
  what: string,
  example: string,
): number[] {
  if (!Array.isArray(values) && !ArrayBuffer.isView(values)) {
    throw new TypeError(
      `The ${what} must be an array, not ${describe(values)}: pass ${example}`,
    );
  }
  const { length = 0 } = values as ArrayLike<unknown>;
  return Array.from(
    { length },
    (_, axis) =>
      toInteger(
        (values as ArrayLike<unknown>)[axis],
        `The ${what} at axis ${axis}`,
      ),
  );
}

/** The number of elements of a shape: 1 for no axes. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (let axis = 0; axis < shape.length; axis++) size *= shape[axis]!;
  return size;
}

/** The strides of a C-ordered (row-major, compact) tensor. */
export function cStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= Math.max(shape[axis]!, 1);
  }
  return strides;
}

/**
 * The same strides, but those that no element takes as C order has them: what
 * libraries compare with it that look at axes of length 1, too.
 */
export function stridesToTell(
  shape: readonly number[],
  strides: readonly number[],
): readonly number[] {
  // Most tensors have no such axis.
  let isPlain = true;
  for (let axis = 0; axis < shape.length; axis++) {
    if (shape[axis]! <= 1) isPlain = false;
  }
  if (isPlain) return strides;
  const compact = cStrides(shape);
  return strides.map((stride, axis) =>
    shape[axis]! > 1 ? stride : compact[axis]!
  );
}

/** C order without gaps, from the first element on. */
export function compactLayout(shape: readonly number[]): Layout {
  return layoutOf(shape, cStrides(shape), 0);
}

/**
 * Whether the elements lie in C order without gaps. Strides of axes of length
 * 1 carry no meaning, and empty tensors are always contiguous, as in NumPy.
 */
export function isContiguous(
  shape: readonly number[],
  strides: readonly number[],
): boolean {
  let expected = 1;
  let contiguous = true;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const length = shape[axis]!;
    if (length === 0) return true;
    if (length !== 1 && strides[axis] !== expected) contiguous = false;
    expected *= length;
  }
  return contiguous;
}

/**
 * The lowest and highest index that a view touches, relative to element
 * [0, …, 0]; of an empty one, `lowest` 0 and `highest` -1.
 */
export function extentOf(
  shape: readonly number[],
  strides: readonly number[],
): { lowest: number; highest: number } {
  let lowest = 0;
  let highest = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    const length = shape[axis]!;
    if (length === 0) return { lowest: 0, highest: -1 };
    const reach = (length - 1) * strides[axis]!;
    if (reach < 0) lowest += reach;
    else highest += reach;
  }
  return { lowest, highest };
}

/**
 * Whether two elements may lie at the same place. Some odd layouts in which
 * none do count as well: those of axes that are threaded into each other.
 */
export function mayOverlap(
  shape: readonly number[],
  strides: readonly number[],
): boolean {
  const steps = [...shape.keys()]
    .filter((axis) => shape[axis]! > 1)
    .map((axis) => ({
      length: shape[axis]!,
      step: Math.abs(strides[axis]!),
    }))
    .sort((a, b) => a.step - b.step);
  let reach = 1;
  for (const { length, step } of steps) {
    if (step < reach) return true;
    reach += (length - 1) * step;
  }
  return false;
}

/** Visits the index of every element of a layout, in C order. */
export function walk(layout: Layout, visit: (at: number) => void): void {
  if (sizeOf(layout.shape) === 0) return;
  // An axis of length 1 is not gone along, and its stride may be anything.
  const axes = [...layout.shape.keys()].filter((i) => layout.shape[i] !== 1);
  const shape = axes.map((axis) => layout.shape[axis]!);
  const strides = axes.map((axis) => layout.strides[axis]!);
  const counter = new Array<number>(axes.length).fill(0);
  let at = layout.offset;
  while (true) {
    visit(at);
    let axis = axes.length - 1;
    for (; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++counter[axis]! < shape[axis]!) break;
      at -= shape[axis]! * strides[axis]!;
      counter[axis] = 0;
    }
    if (axis < 0) return;
  }
}

/**
 * The strides of a view that repeats another along new axes, and along those of
 * length 1: NumPy's broadcasting.
 *
 * @param to The shape that it is to have.
 * @throws {RangeError} When the shapes do not fit.
 */
export function broadcastLayout(from: Layout, to: readonly number[]): Layout {
  const added = to.length - from.shape.length;
  const strides = to.map((length, axis) => {
    const own = from.shape[axis - added];
    if (own === length) return from.strides[axis - added]!;
    if (own === undefined || own === 1) return 0;
    return NaN;
  });
  if (added < 0 || strides.some(Number.isNaN)) {
    throw new RangeError(
      `Cannot broadcast shape ${describeShape(from.shape)} to ` +
        describeShape(to),
    );
  }
  return layoutOf(to, strides, from.offset);
}

/** A shape as messages and `console.log` show it: `[2, 3]`. */
export function describeShape(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/**
 * An axis number, negative ones counted from the end.
 *
 * @throws {RangeError} When there is no such axis.
 * @throws {TypeError} When it is no integer.
 */
export function resolveAxis(axis: number | bigint, ndim: number): number {
  const number = toInteger(axis, "An axis");
  if (number < -ndim || number >= ndim) {
    throw new RangeError(
      `Axis ${axis} is out of range: the tensor has ${ndim} axes`,
    );
  }
  return number < 0 ? number + ndim : number;
}

/**
 * An index, negative ones counted from the end.
 *
 * @throws {RangeError} When it is outside of the axis.
 * @throws {TypeError} When it is no integer.
 */
export function resolveIndex(
  index: unknown,
  axis: number,
  length: number,
): number {
  const number = toInteger(index, `The index for axis ${axis}`);
  if (number < -length || number >= length) {
    throw new RangeError(
      `Index ${index} is out of range for axis ${axis} of length ${length}`,
    );
  }
  return number < 0 ? number + length : number;
}

/**
 * Cuts out a part, as NumPy's `x[1, ::2]` does.
 *
 * @throws {RangeError} When there are more ranges than axes, an index is
 * outside its axis, or a step is 0.
 * @throws {TypeError} When a range is none of those.
 */
export function sliceLayout(from: Layout, ranges: readonly Range[]): Layout {
  const { shape: lengths, strides: steps } = from;
  if (ranges.length > lengths.length) {
    throw new RangeError(
      `Cannot slice ${ranges.length} axes: the tensor has ${lengths.length}`,
    );
  }
  const shape: number[] = [];
  const strides: number[] = [];
  let offset = from.offset;
  for (let axis = 0; axis < lengths.length; axis++) {
    const range = ranges[axis] ?? null;
    const length = lengths[axis]!;
    const stride = steps[axis]!;
    if (typeof range === "number" || typeof range === "bigint") {
      offset += resolveIndex(range, axis, length) * stride;
    } else if (range === null) {
      shape.push(length);
      strides.push(stride);
    } else {
      const { start, step, count } = resolveRange(range, length, axis);
      shape.push(count);
      // A stride that no element takes may be too large to multiply.
      strides.push(count > 1 ? stride * step + 0 : stride); // not -0
      if (count > 0) offset += start * stride;
    }
  }
  return layoutOf(shape, strides, offset);
}

/** Python's `slice.indices`. */
function resolveRange(
  range: Exclude<Range, number | bigint | null>,
  length: number,
  axis: number,
): { start: number; step: number; count: number } {
  if (!Array.isArray(range)) {
    throw new TypeError(
      `Cannot slice axis ${axis} by ${describe(range)}: ` +
        "pass an index, null, or [start, stop, step]",
    );
  }
  if (range.length > 3) {
    throw new TypeError(
      `Cannot slice axis ${axis} by an array of ${range.length}: ` +
        "pass [start, stop, step]",
    );
  }
  const [from, to, step] = [range[0], range[1], range[2] ?? 1n].map((bound) => {
    if (bound === undefined || bound === null) return null;
    const number = typeof bound === "bigint" ? Number(bound) : bound;
    if (Number.isInteger(number)) return number;
    throw new TypeError(
      `Cannot slice axis ${axis} by ${describe(bound)}: it is not an integer`,
    );
  }) as [number | null, number | null, number];
  if (step === 0) {
    throw new RangeError(`Cannot slice axis ${axis} by a step of 0`);
  }
  const clamp = (bound: number, low: number, high: number): number =>
    Math.min(Math.max(bound < 0 ? bound + length : bound, low), high);
  if (step > 0) {
    const start = from === null ? 0 : clamp(from, 0, length);
    const stop = to === null ? length : clamp(to, 0, length);
    return {
      start,
      step,
      count: Math.max(0, Math.ceil((stop - start) / step)),
    };
  }
  const start = from === null ? length - 1 : clamp(from, -1, length - 1);
  const stop = to === null ? -1 : clamp(to, -1, length - 1);
  return { start, step, count: Math.max(0, Math.ceil((stop - start) / step)) };
}

/**
 * Reorders the axes; none given: all reversed, as NumPy's `x.T`.
 *
 * @throws {RangeError} When the axes are not a permutation.
 */
export function transposeLayout(
  from: Layout,
  axes: readonly (number | bigint)[],
): Layout {
  const ndim = from.shape.length;
  const order = axes.length === 0
    ? from.shape.map((_, axis) => ndim - 1 - axis)
    : axes.map((axis) => resolveAxis(axis, ndim));
  if (order.length !== ndim || new Set(order).size !== ndim) {
    throw new RangeError(
      `Cannot transpose to axes [${
        axes.join(", ")
      }]: each of the ${ndim} axes ` +
        "must be named once",
    );
  }
  return layoutOf(
    order.map((axis) => from.shape[axis]!),
    order.map((axis) => from.strides[axis]!),
    from.offset,
  );
}

/**
 * Gives the same elements, in C order, another shape. One length may be -1: it
 * is worked out.
 *
 * @throws {RangeError} When the number of elements differs.
 * @throws {TypeError} When it is no array of integers.
 * @throws {BufferError} `"layout"` when only a copy could do it.
 */
export function reshapeLayout(
  from: Layout,
  to: readonly (number | bigint)[],
): Layout {
  const shape = resolveShape(to, sizeOf(from.shape));
  const strides = reshapedStrides(from, shape);
  if (strides === null) {
    throw new BufferError(
      "layout",
      `Cannot reshape ${describeShape(from.shape)} with strides ` +
        `${describeShape(from.strides)} to ${describeShape(shape)} ` +
        "without a copy: call copy() first",
    );
  }
  return layoutOf(shape, strides, from.offset);
}

function resolveShape(
  to: readonly (number | bigint)[],
  size: number,
): number[] {
  const shape = toIntegers(to, "shape", "reshape([2, -1])");
  const fail = (): never => {
    throw new RangeError(
      `Cannot reshape ${size} elements to ${describeShape(shape)}`,
    );
  };
  let known = 1;
  let unknown = -1;
  for (const [axis, length] of shape.entries()) {
    if (length === -1 && unknown === -1) unknown = axis;
    else if (!Number.isSafeInteger(length) || length < 0) fail();
    else known *= length;
  }
  if (unknown !== -1) {
    if (known === 0 || size % known !== 0) fail();
    shape[unknown] = size / known;
  } else if (known !== size) fail();
  return shape;
}

/**
 * Strides that walk the same elements under a new shape, or `null` when there
 * are none: both shapes are cut into groups of axes with equal numbers of
 * elements, and the old axes of a group must step evenly.
 */
function reshapedStrides(
  from: Layout,
  to: readonly number[],
): number[] | null {
  if (sizeOf(to) === 0) return cStrides(to);
  const shape: number[] = [];
  const steps: number[] = [];
  from.shape.forEach((length, axis) => {
    if (length === 1) return;
    shape.push(length);
    steps.push(from.strides[axis]!);
  });
  const strides = new Array<number>(to.length).fill(1);
  let oldEnd = 0;
  let newEnd = 0;
  while (oldEnd < shape.length) {
    const oldStart = oldEnd;
    const newStart = newEnd;
    let oldSize = shape[oldEnd++]!;
    let newSize = to[newEnd++]!;
    while (oldSize !== newSize) {
      if (oldSize < newSize) oldSize *= shape[oldEnd++]!;
      else newSize *= to[newEnd++]!;
    }
    for (let axis = oldStart; axis < oldEnd - 1; axis++) {
      if (steps[axis] !== steps[axis + 1]! * shape[axis + 1]!) return null;
    }
    let stride = steps[oldEnd - 1]!;
    for (let axis = newEnd - 1; axis >= newStart; axis--) {
      strides[axis] = stride;
      stride *= to[axis]!;
    }
  }
  // What is left of the new axes has length 1, where any stride will do.
  return strides;
}
