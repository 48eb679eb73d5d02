/**
 * Decides how a strided copy is made: pure functions, no memory.
 *
 * @module
 */

import { type Layout, sizeOf } from "../layout.ts";
import { isAvailable } from "../wasm/stage.ts";
import { type Axis, type Width, wordOf } from "./kernels.ts";
import {
  type LaneWidth,
  LONG_PIECE,
  MOST_BLOCK,
  tileOf,
  USUAL_BLOCK,
  VECTOR,
} from "./blocks.ts";
import { MOST_MADE, MOST_PIXEL, MOST_PLANES } from "./shuffles.ts";

/** A strided view by as few axes as possible; all in bytes, or in bits. */
interface Joined {
  /** Where the first element is in the source. */
  readonly at: number;
  /** Where it goes to. */
  readonly to: number;
  /** Whether the copy has no gaps. */
  readonly isCompact: boolean;
  /** How much lies side by side on both sides. */
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
 * - blocks: axes [i, j, ...]; the source has elements side by side along i, the
 *   copy along j; `block` says how many of each axis make a block
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
    | "blocks"
    | "lines";
  /** Where the first byte is in the source. */
  readonly at: number;
  /** Where it goes to in the copy. */
  readonly to: number;
  /** Where the copy begins: the same, unless the kernel goes from its end. */
  readonly start: number;
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
  /** How much of them it does at once. */
  readonly block: readonly number[];
}

// Sizes in bytes from which another way is taken, estimated from what a call of
// a typed array's method costs: 50 to 100 ns on the x86-64 machine at hand.

/** Runs are moved one by one, not by lines across them. */
const WIDE_RUN = 64;
/** Runs are moved by one call, not word by word. */
const LONG_RUN = 1024;
/** Rows are filled, reversed or shuffled by one call, not word by word. */
const LONG_ROW = 256;
/** Blocks are turned by vectors, not word by word. */
const LARGE_BLOCK = 1024;
/** So many elements side by side are copied by a call in less time than by words. */
const LEAST_PIECE = 96;
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
 * Decides how to copy a strided view into another: a pure function.
 *
 * @param from Which elements are read; there is at least one.
 * @param into Which are written, of the same shape.
 * @param bytes The bytes of an element.
 * @returns The plan.
 */
export function planMove(from: Layout, into: Layout, bytes: number): CopyPlan {
  return chooseKernel(splitRuns(joinBoth(from, into, bytes)));
}

/** A copy of bits: runs of them, one by one. */
export interface BitPlan extends Joined {
  /** Tells it from a plan in bytes. */
  readonly kernel: "bits";
}

/**
 * Decides how to copy packed elements: by whole bytes where all begins and ends
 * with one.
 *
 * @param layout Which elements.
 * @param bits The bits of an element.
 * @param into Where to: the element of C order that the copy begins with, or
 * which elements are written.
 */
export function planPacked(
  layout: Layout,
  bits: number,
  into: number | Layout,
): CopyPlan | BitPlan {
  const joined = typeof into === "number"
    ? { ...joinAxes(layout, bits), to: into * bits }
    : joinBoth(layout, into, bits);
  const { at, to, isCompact, run, axes } = joined;
  const steps = axes.flatMap(({ from, into }) => [from, into]);
  if ([at, to, run, ...steps].some((position) => position % 8 !== 0)) {
    return { kernel: "bits", ...joined };
  }
  return chooseKernel(splitRuns({
    at: at / 8,
    to: to / 8,
    isCompact,
    run: run / 8,
    axes: axes.map(({ length, from, into }) => ({
      length,
      from: from / 8,
      into: into / 8,
    })),
  }));
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
  return { at: offset * size, to: 0, isCompact: true, run, axes };
}

/** The same for a copy with strides of its own: it is gone through as it lies. */
function joinBoth(from: Layout, into: Layout, size: number): Joined {
  let at = from.offset * size;
  let to = into.offset * size;
  const axes: Axis[] = [];
  into.shape.forEach((length, axis) => {
    if (length === 1) return;
    const step = from.strides[axis]! * size;
    const gap = into.strides[axis]! * size;
    if (gap > 0) return axes.push({ length, from: step, into: gap });
    // From its end; of what goes to one place, the last in C order stays.
    at += (length - 1) * step;
    to += (length - 1) * gap;
    if (gap < 0) axes.push({ length, from: -step, into: -gap });
  });
  axes.sort((a, b) => b.into - a.into);
  axes.push({ length: size, from: 1, into: 1 });
  const joined: Axis[] = [];
  for (const axis of axes) {
    const outer = joined.at(-1);
    const { length } = axis;
    if (
      outer?.from === length * axis.from && outer.into === length * axis.into
    ) {
      joined[joined.length - 1] = { ...axis, length: outer.length * length };
    } else joined.push(axis);
  }
  const run = joined.at(-1)!.from === 1 && joined.at(-1)!.into === 1
    ? joined.pop()!.length
    : 1;
  let bytes = run;
  let isCompact = true;
  for (const { length, into } of joined.toReversed()) {
    if (into !== bytes) isCompact = false;
    bytes *= length;
  }
  return { at, to, isCompact, run, axes: joined };
}

function chooseKernel({ at, to, isCompact, run, axes }: Joined): CopyPlan {
  // What has gaps does not repeat itself with them.
  const repeatable = !isCompact ? 0 : 1 +
    axes.findLastIndex(({ length, from, into }) =>
      from === 0 && length * into >= LONG_REPEAT
    );
  const plan = (kernel: CopyPlan["kernel"], ...inner: Axis[]): CopyPlan => {
    const outer = axes.filter((axis) => !inner.includes(axis));
    const block = inner.map(({ length }) => length);
    return { kernel, at, to, start: to, run, outer, repeatable, inner, block };
  };
  const j = axes.at(-1);
  if (j === undefined) return plan("runs", ONE);
  // Elements that lie apart in the copy are written one by one.
  const isDense = j.into === run;
  const canShuffle = isDense && isAvailable();
  const isLong = isDense && run * j.length >= LONG_ROW;
  if (isLong && j.from === 0 && isWidth(run)) return plan("fill", j);
  // What repeats itself is copied once before: no kernel goes along it.
  const body = axes.slice(repeatable);
  if (body.length === 0) return plan("runs", ONE);
  if (run >= WIDE_RUN) return plan("runs", j);
  if (canShuffle && isShort(run) && isLong && j.from === -run) {
    return plan("reverse", j);
  }

  const i = nearestAxis(body, j);
  if (i !== undefined) {
    if (canShuffle && isSplit(run, i, j)) return turned(plan("split", i, j));
    if (canShuffle && isJoin(run, i, j)) return plan("join", i, j);
    const isLarge = bytesOf(run, body) >= LARGE_BLOCK;
    if (canShuffle && isLarge && fitsBlocks(run, i, j) && isNested(run, body)) {
      const others = body.filter((axis) => axis !== i && axis !== j);
      const axes = [i, j, ...others];
      const block = blockOf(run, axes);
      if (block !== undefined) return inBlocks(plan, axes, block);
    }
    return plan("lines", i, j);
  }
  if (canShuffle && isPick(run, j, ONE)) return plan("pick", j, ONE);
  const around = body.at(-2) ?? ONE;
  const canPick = canShuffle && isPick(run, around, j);
  return plan(canPick ? "pick" : "lines", around, j);
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
function splitRuns(joined: Joined): Joined {
  const { run, axes } = joined;
  const word = run % 8 === 0 ? 8 : 4;
  if (
    axes.length === 0 || run < WIDE_RUN || run >= LONG_RUN || run % word !== 0
  ) return joined;
  const words = { length: run / word, from: word, into: word };
  return { ...joined, run: word, axes: [...axes, words] };
}

/** For kernels that go along more axes than there are. */
export const ONE: Axis = { length: 1, from: 0, into: 0 };

/** Runs that are worth shuffles: wider ones are as fast along lines. */
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

function bytesOf(run: number, axes: readonly Axis[]): number {
  return axes.reduce((bytes, { length }) => bytes * length, run);
}

/** Whether there is a tile at least. */
function fitsBlocks(run: number, i: Axis, j: Axis): run is LaneWidth {
  if (!isWidth(run) && run !== VECTOR) return false;
  const [rows, columns] = tileOf(run as LaneWidth, i.length);
  return Math.abs(i.from) === run && i.length >= rows && j.length >= columns;
}

/** Whether no two elements go to one place. */
function isNested(run: number, axes: readonly Axis[]): boolean {
  return axes.every(({ into }, k) => {
    const inner = axes[k + 1] ?? { length: 1, into: run };
    return into >= inner.length * inner.into;
  });
}

/** The axes along which a side has no gaps, from the innermost on. */
function denseAxes(
  run: number,
  axes: readonly Axis[],
  side: "from" | "into",
): number[] {
  const order = axes.map((_, axis) => axis)
    .sort((a, b) => Math.abs(axes[a]![side]) - Math.abs(axes[b]![side]));
  const dense: number[] = [];
  let bytes = run;
  for (const axis of order) {
    const step = Math.abs(axes[axis]![side]);
    if (step === bytes) {
      dense.push(axis);
      bytes *= axes[axis]!.length;
    } else if (step > 0) break;
  }
  return dense;
}

/**
 * How much of each axis is a block: of both sides, what lies side by side is to
 * be long. `undefined` if it is too short to be moved by calls.
 */
function blockOf(
  run: LaneWidth,
  axes: readonly Axis[],
): readonly number[] | undefined {
  const least = tileOf(run, axes[0]!.length);
  const isWhole = bytesOf(run, axes) <= USUAL_BLOCK;
  let block = axes.map(({ length }, axis) =>
    isWhole ? length : least[axis] ?? 1
  );
  const length = (axis: number): number => axes[axis]!.length;
  const chains = [denseAxes(run, axes, "from"), denseAxes(run, axes, "into")];
  /** What lies side by side, and the first axis of which there is more. */
  const pieceOf = (chain: number[]): { bytes: number; axis?: number } => {
    let bytes: number = run;
    for (const axis of chain) {
      bytes *= block[axis]!;
      if (block[axis]! < length(axis)) return { bytes, axis };
    }
    return { bytes };
  };
  const grow = (): boolean => {
    const pieces = chains.map(pieceOf).sort((a, b) => a.bytes - b.bytes);
    const all = block.reduce((a, b) => a * b, run);
    for (const { axis, bytes } of pieces) {
      if (axis === undefined) continue;
      const more = Math.min(2 * block[axis]!, length(axis));
      const most = bytes < LONG_PIECE ? MOST_BLOCK : USUAL_BLOCK;
      if (all / block[axis]! * more > most) continue;
      block[axis] = more;
      return true;
    }
    return false;
  };
  while (grow());
  // Blocks of one size.
  block = block.map((most, axis) => {
    const even = Math.ceil(length(axis) / Math.ceil(length(axis) / most));
    return Math.max(even, least[axis] ?? 1);
  });
  const shortest = Math.min(...chains.map((chain) => pieceOf(chain).bytes));
  return shortest >= LEAST_PIECE * run ? block : undefined;
}

/** The kernel does not go along axes of which a block has one. */
function inBlocks(
  plan: (kernel: "blocks", ...inner: Axis[]) => CopyPlan,
  axes: readonly Axis[],
  block: readonly number[],
): CopyPlan {
  const isIn = (axis: number): boolean => axis < 2 || block[axis]! > 1;
  const inner = axes.filter((_, axis) => isIn(axis));
  return {
    ...turned(plan("blocks", ...inner)),
    block: block.filter((_, axis) => isIn(axis)),
  };
}

/** Goes along the first axis of the kernel from its end, if it steps back. */
function turned(plan: CopyPlan): CopyPlan {
  const [{ length, from, into }, ...others] = plan.inner as [Axis, Axis];
  if (from >= 0) return plan;
  return {
    ...plan,
    at: plan.at + (length - 1) * from,
    to: plan.to + (length - 1) * into,
    inner: [{ length, from: -from, into: -into }, ...others],
  };
}
