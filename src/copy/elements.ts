/**
 * Copies strided elements into C order, bit for bit.
 *
 * @module
 */

import {
  type Axis,
  fill,
  type Memory,
  moveLines,
  type MovePair,
  moveRuns,
  moveTiles,
  repeat,
  type Width,
  wordOf,
  wordsOf,
} from "./kernels.ts";
import {
  joinPixels,
  MOST_MADE,
  MOST_PIXEL,
  MOST_PLANES,
  pickRuns,
  reverseRuns,
  splitPixels,
} from "./shuffles.ts";
import { allocate, duplicate } from "./memory.ts";
import type { DTypeInfo, TypedArray } from "../dtype/table.ts";
import { readBits, writeBits } from "../dtype/element.ts";
import { extentOf, isContiguous, type Layout, sizeOf } from "../layout.ts";
import { entriesOf } from "../dtype/packing.ts";

/** Elements `start` to `end`, which lie side by side in whole bytes. */
export function elementsOf(
  info: DTypeInfo,
  data: TypedArray,
  start: number,
  end: number,
): TypedArray {
  return data.subarray(
    entriesOf(info, false, start),
    entriesOf(info, false, end),
  );
}

/**
 * Copies the elements of a strided view, in C order, to memory of their own.
 *
 * @throws {BufferError} `"copy"` when there is none for them.
 */
export function copyOf(
  info: DTypeInfo,
  isPacked: boolean,
  from: TypedArray,
  layout: Layout,
): TypedArray {
  const { shape, strides, offset } = layout;
  const size = sizeOf(shape);
  if (!isPacked && isContiguous(shape, strides)) {
    return duplicate(info, elementsOf(info, from, offset, offset + size), size);
  }
  const copy = allocate(info, isPacked, size);
  copyElements(info, isPacked, from, layout, copy);
  return copy;
}

/**
 * Copies the elements of a strided view into `into`, in C order.
 *
 * @param info The dtype of both.
 * @param isPacked Whether both pack elements of fewer than 8 bits.
 * @param from The typed array that the layout is about.
 * @param layout Which elements, in which order.
 * @param into Where to; it must not overlap `from`.
 * @param start The element of `into` that is the first to be written.
 */
export function copyElements(
  info: DTypeInfo,
  isPacked: boolean,
  from: ArrayBufferView,
  layout: Layout,
  into: ArrayBufferView,
  start = 0,
): void {
  const size = sizeOf(layout.shape);
  if (size === 0) return;
  const source = bytesOf(from);
  const target = bytesOf(into);
  if (isPacked) return copyPacked(source, layout, info.bits, target, start);
  const bytes = entriesOf(info, false, 1) * info.array.BYTES_PER_ELEMENT;
  if (isContiguous(layout.shape, layout.strides)) {
    const at = layout.offset * bytes;
    target.set(source.subarray(at, at + size * bytes), start * bytes);
    return;
  }
  const part = start === 0 ? target : target.subarray(start * bytes);
  copyBytes(source, planCopy(layout, bytes), part);
}

function bytesOf(data: ArrayBufferView): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = data;
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** Whole bytes where all begins and ends with them, else element by element. */
function copyPacked(
  from: Uint8Array,
  layout: Layout,
  bits: number,
  into: Uint8Array,
  start: number,
): void {
  const to = start * bits / 8;
  const inBits = joinAxes(layout, bits);
  const inBytes = {
    at: inBits.at / 8,
    run: inBits.run / 8,
    axes: inBits.axes.map((axis) => ({
      length: axis.length,
      from: axis.from / 8,
      into: axis.into / 8,
    })),
  };
  const { at, run, axes } = inBytes;
  const steps = axes.flatMap((axis) => [axis.from, axis.into]);
  if ([at, to, run, ...steps].every(Number.isInteger)) {
    const part = into.subarray(to);
    copyBytes(from, chooseKernel(splitRuns(inBytes)), part);
    return;
  }
  const isWhole = Number.isInteger(at) && Number.isInteger(to);
  const whole = isWhole && axes.length === 0 ? Math.floor(run) : 0;
  if (whole > 0) into.set(from.subarray(at, at + whole), to);
  let index = start;
  walk(layout, (element) => {
    writeBits(into, index++, bits, readBits(from, element, bits));
  });
}

/** A strided view by as few axes as possible. */
interface Joined {
  /** Where the first byte is in the source. */
  readonly at: number;
  /** How many bytes lie side by side on both sides. */
  readonly run: number;
  /** From the outermost to the innermost of the copy. */
  readonly axes: readonly Axis[];
}

/**
 * How a copy is made. `inner` are the axes that the kernel goes along, and it
 * is called for all positions on the `outer` ones:
 *
 * - runs: one axis, of long runs
 * - fill: one axis that does not step in the source
 * - reverse: one axis that steps back by a run
 * - split: axes [planes, pixels]: the runs of a pixel go to planes
 * - join: axes [pixels, planes]: the runs of planes make a pixel
 * - pick: axes [pixels, runs]: some runs of each pixel, in any order
 * - tiles: axes [i, j]; the source steps less along i, the copy along j
 * - lines: any axes [i, j]
 */
export interface CopyPlan {
  /** The kernel. */
  readonly kernel:
    | "runs"
    | "fill"
    | "reverse"
    | "split"
    | "join"
    | "pick"
    | "tiles"
    | "lines";
  /** Where the first byte is in the source. */
  readonly at: number;
  /** Where it goes to in the copy. */
  readonly to: number;
  /** How many bytes lie side by side on both sides. */
  readonly run: number;
  /** The axes of which the kernel does not know. */
  readonly outer: readonly Axis[];
  /**
   * How many of them, counted from the outermost, contain all that is inside:
   * where such an axis has step 0 in the source, the copy repeats itself.
   */
  readonly repeatable: number;
  /** The axes that the kernel goes along. */
  readonly inner: readonly Axis[];
}

// Sizes in bytes from which another way is taken, estimated from what a call of
// a typed array's method costs: 50 to 100 ns on the x86-64 machine at hand.

/** Runs are moved one by one, not by lines across them. */
const WIDE_RUN = 64;
/** Runs are moved by one call, not word by word. */
const LONG_RUN = 1024;
/** Rows are filled, reversed or shuffled by one call, not word by word. */
const LONG_ROW = 256;
/** What repeats itself is copied from the copy. */
const LONG_REPEAT = 4096;

/**
 * Decides how to copy a strided view to C order: a pure function.
 *
 * @param layout Which elements; there is at least one.
 * @param bytes The bytes of an element.
 * @returns The plan.
 */
export function planCopy(layout: Layout, bytes: number): CopyPlan {
  return chooseKernel(splitRuns(joinAxes(layout, bytes)));
}

/**
 * Drops axes of length 1 and joins those that step evenly; the units are those
 * of `size`, the size of an element.
 */
function joinAxes({ shape, strides, offset }: Layout, size: number): Joined {
  const axes: Axis[] = [];
  let into = size * sizeOf(shape);
  const add = (length: number, from: number): void => {
    into /= length;
    if (length === 1) return;
    const outer = axes.at(-1);
    if (outer?.from === length * from) {
      axes[axes.length - 1] = { length: outer.length * length, from, into };
    } else axes.push({ length, from, into });
  };
  shape.forEach((length, axis) => add(length, strides[axis]! * size));
  add(size, 1);
  const run = axes.at(-1)?.from === 1 ? axes.pop()!.length : 1;
  return { at: offset * size, run, axes };
}

function chooseKernel({ at, run, axes }: Joined): CopyPlan {
  const repeatable = 1 +
    axes.findLastIndex(({ length, from, into }) =>
      from === 0 && length * into >= LONG_REPEAT
    );
  const plan = (kernel: CopyPlan["kernel"], ...inner: Axis[]): CopyPlan => {
    const outer = axes.filter((axis) => !inner.includes(axis));
    return { kernel, at, to: 0, run, outer, repeatable, inner };
  };
  const j = axes.at(-1);
  if (j === undefined) return plan("runs", ONE);
  const isLong = run * j.length >= LONG_ROW;
  if (isLong && j.from === 0 && isWidth(run)) return plan("fill", j);
  // What repeats itself is copied once before: no kernel goes along it.
  const body = axes.slice(repeatable);
  if (body.length === 0) return plan("runs", ONE);
  if (run >= WIDE_RUN) return plan("runs", j);
  if (isShort(run) && isLong && j.from === -run) {
    return plan("reverse", j);
  }

  const i = nearestAxis(body, j);
  if (i !== undefined) {
    if (isSplit(run, i, j)) return turned(plan("split", i, j));
    if (isJoin(run, i, j)) return plan("join", i, j);
    return fitsTiles(run, i, j)
      ? turned(plan("tiles", i, j))
      : plan("lines", i, j);
  }
  if (isPick(run, j, ONE)) return plan("pick", j, ONE);
  const around = body.at(-2) ?? ONE;
  return plan(isPick(run, around, j) ? "pick" : "lines", around, j);
}

/** Whether the source is pixels, a few runs of which are planes of the copy. */
function isSplit(run: number, i: Axis, j: Axis): boolean {
  return isShort(run) && i.length <= MOST_PLANES &&
    Math.abs(i.from) === run && j.from >= i.length * run &&
    j.from % run === 0 && j.from <= MOST_PIXEL && j.length * run >= LONG_ROW;
}

/** Whether the copy is pixels, the runs of which are planes of the source. */
function isJoin(run: number, i: Axis, j: Axis): boolean {
  return isShort(run) && j.length <= MOST_PLANES && i.from === run &&
    i.into === j.length * run && i.length * run >= LONG_ROW;
}

/**
 * Whether the copy has some runs of each pixel of the source, and that costs
 * less than to move them word by word: by what was measured, the bytes of both
 * count, or the words.
 */
function isPick(run: number, i: Axis, j: Axis): boolean {
  const bytes = j.length * run;
  const words = j.length * Math.ceil(run / wordOf(run));
  return i.into === bytes && i.length * bytes >= LONG_ROW &&
    i.from <= MOST_PIXEL && bytes <= MOST_MADE &&
    (j.length - 1) * Math.abs(j.from) + run <= i.from &&
    i.from + bytes < 11 * words;
}

/** Runs that are neither short nor long, as an axis of words. */
function splitRuns({ at, run, axes }: Joined): Joined {
  const word = run % 8 === 0 ? 8 : 4;
  if (
    axes.length === 0 || run < WIDE_RUN || run >= LONG_RUN || run % word !== 0
  ) return { at, run, axes };
  const words = { length: run / word, from: word, into: word };
  return { at, run: word, axes: [...axes, words] };
}

/** For kernels that go along more axes than there are. */
const ONE: Axis = { length: 1, from: 0, into: 0 };

/** Runs that are worth shuffles and tiles: wider ones are as fast along lines. */
function isShort(run: number): boolean {
  return run === 1 || run === 2 || run === 4;
}

function isWidth(run: number): run is Width {
  return run === 1 || run === 2 || run === 4 || run === 8;
}

/** The axis along which the source steps least, if less than along `j`. */
function nearestAxis(axes: readonly Axis[], j: Axis): Axis | undefined {
  let nearest = j;
  for (const axis of axes) {
    const step = Math.abs(axis.from);
    if (step > 0 && step < Math.abs(nearest.from)) nearest = axis;
  }
  return nearest === j ? undefined : nearest;
}

function fitsTiles(run: number, i: Axis, j: Axis): boolean {
  if (!isShort(run) || i.length < 4 || j.length < 4) return false;
  // Several of these are read at once: they must lie side by side.
  return run === 4 || Math.abs(i.from) === run;
}

/** Goes along the first axis of the kernel from its end, if it steps back. */
function turned(plan: CopyPlan): CopyPlan {
  const [{ length, from, into }, j] = plan.inner as [Axis, Axis];
  if (from >= 0) return plan;
  return {
    ...plan,
    at: plan.at + (length - 1) * from,
    to: plan.to + (length - 1) * into,
    inner: [{ length, from: -from, into: -into }, j],
  };
}

/** Kernels with two axes reckon in 32 bits. */
const REACH = 2 ** 31;

/**
 * Copies as planned.
 *
 * @param from The memory that the plan is about.
 * @param plan What goes where.
 * @param into The copy.
 * @param reach The bytes that a kernel with two axes can see; fewer in tests.
 */
export function copyBytes(
  from: Uint8Array,
  plan: CopyPlan,
  into: Uint8Array,
  reach: number = REACH,
): void {
  const { outer, repeatable } = plan;
  const move = moveOf(from, plan, into, reach);
  const visit = (depth: number, at: number, to: number): void => {
    if (depth === outer.length) return move(at, to);
    const axis = outer[depth]!;
    if (axis.from === 0 && depth < repeatable) {
      visit(depth + 1, at, to);
      // From its start, wherever the kernel begins.
      return repeat(into, to - plan.to, axis.into, axis.length);
    }
    for (let k = 0; k < axis.length; k++) {
      visit(depth + 1, at + k * axis.from, to + k * axis.into);
    }
  };
  visit(0, plan.at, plan.to);
}

/** The kernel of a plan: moves all that is along its axes. */
function moveOf(
  from: Uint8Array,
  plan: CopyPlan,
  into: Uint8Array,
  reach: number,
): (at: number, to: number) => void {
  const { kernel, run, inner } = plan;
  const [i, j] = inner as [Axis, Axis];
  switch (kernel) {
    case "runs":
      return (at, to) => moveRuns(from, at, into, to, run, i);
    case "reverse":
      return (at, to) => reverseRuns(from, at, run, into, to, i.length);
    case "split":
      return (at, to) =>
        splitPixels(
          from,
          at,
          j.from,
          run,
          into,
          to,
          i.into,
          i.length,
          j.length,
        );
    case "join":
      return (at, to) =>
        joinPixels(from, at, j.from, run, into, to, j.length, i.length);
    case "pick":
      return (at, to) =>
        pickRuns(from, at, i.from, run, j.from, j.length, into, to, i.length);
    case "fill": {
      if (into.byteOffset % run !== 0) {
        // It writes words that are aligned.
        const pair = { kernel: "lines" as const, inner: [ONE, i] };
        return moveOf(from, { ...plan, ...pair }, into, reach);
      }
      const words = wordsOf(into, run as Width);
      const view = viewOf(from);
      return (at, to) =>
        fill(view, at, run as Width, words, to / run, i.length);
    }
    case "tiles":
    case "lines": {
      const move = kernel === "tiles" ? moveTiles : moveLines;
      const memory = { run, from: viewOf(from), into: viewOf(into) };
      if (Math.max(from.length, into.length) < reach) {
        return (at, to) => move(memory, at, to, i, j);
      }
      return (at, to) => moveParts(move, memory, at, to, i, j, reach);
    }
  }
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

/** Calls a kernel for parts that are small enough, of which it sees no more. */
function moveParts(
  move: MovePair,
  memory: Memory,
  at: number,
  to: number,
  i: Axis,
  j: Axis,
  reach: number,
): void {
  const { run, from, into } = memory;
  const source = extentOf([i.length, j.length], [i.from, j.from]);
  const target = extentOf([i.length, j.length], [i.into, j.into]);
  const sourceSize = source.highest - source.lowest + run;
  const targetSize = target.highest - target.lowest + run;
  if (Math.max(sourceSize, targetSize) < reach) {
    const part = {
      run,
      from: windowOf(from, at + source.lowest, sourceSize),
      into: windowOf(into, to + target.lowest, targetSize),
    };
    return move(part, -source.lowest, -target.lowest, i, j);
  }
  const span = ({ length, from, into }: Axis): number =>
    (length - 1) * Math.max(Math.abs(from), Math.abs(into));
  const [axis, isFirst] = span(i) > span(j) ? [i, true] : [j, false];
  const half = Math.ceil(axis.length / 2);
  for (const [start, length] of [[0, half], [half, axis.length - half]]) {
    const part = { ...axis, length: length! };
    moveParts(
      move,
      memory,
      at + start! * axis.from,
      to + start! * axis.into,
      isFirst ? part : i,
      isFirst ? j : part,
      reach,
    );
  }
}

function windowOf(view: DataView, start: number, length: number): DataView {
  return new DataView(view.buffer, view.byteOffset + start, length);
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
