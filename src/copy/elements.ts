/**
 * Copies strided elements into C order, bit for bit.
 *
 * @module
 */

import { entriesOf } from "../dtype/packing.ts";
import type { DTypeInfo, TypedArray } from "../dtype/table.ts";
import { extentOf, isContiguous, type Layout, sizeOf } from "../layout.ts";
import { blockMover, type LaneWidth } from "./blocks.ts";
import {
  type Axis,
  fill,
  type Memory,
  moveBitLine,
  moveLines,
  moveRuns,
  repeat,
  type Width,
  wordsOf,
} from "./kernels.ts";
import { allocate, duplicate } from "./memory.ts";
import { type CopyPlan, ONE, planCopy, planMove, planPacked } from "./plan.ts";
import { joinPixels, pickRuns, reverseRuns, splitPixels } from "./shuffles.ts";

/** Elements of some memory. */
export interface Elements {
  /** Their dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** Which ones, counted from the start of the memory. */
  readonly layout: Layout;
}

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
 * The elements of a strided view in C order, for whoever only reads them: a
 * copy where they do not lie so.
 *
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function inOrder(
  info: DTypeInfo,
  isPacked: boolean,
  data: TypedArray,
  layout: Layout,
): { readonly elements: TypedArray; readonly isCopy: boolean } {
  const { shape, strides, offset } = layout;
  if (isPacked || !isContiguous(shape, strides)) {
    return { elements: copyOf(info, isPacked, data, layout), isCopy: true };
  }
  const end = offset + sizeOf(shape);
  const isAll = offset === 0 && entriesOf(info, false, end) === data.length;
  const elements = isAll ? data : elementsOf(info, data, offset, end);
  return { elements, isCopy: false };
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

/** Whole bytes where all begins and ends with them, else runs of bits. */
function copyPacked(
  from: Uint8Array,
  layout: Layout,
  bits: number,
  into: Uint8Array,
  to: number | Layout,
): void {
  const plan = planPacked(layout, bits, to);
  if (plan.kernel !== "bits") return copyBytes(from, plan, into);
  const { run, axes } = plan;
  const last = axes.at(-1) ?? ONE;
  const visit = (depth: number, at: number, to: number): void => {
    if (depth >= axes.length - 1) {
      return moveBitLine(from, at, into, to, run, last);
    }
    const axis = axes[depth]!;
    for (let k = 0; k < axis.length; k++) {
      visit(depth + 1, at + k * axis.from, to + k * axis.into);
    }
  };
  visit(0, plan.at, plan.to);
}

/**
 * Copies the elements of a strided view into those of another.
 *
 * @param info The dtype of both.
 * @param isPacked Whether both pack elements of fewer than 8 bits.
 * @param from The typed array that the first layout is about.
 * @param layout Which elements are read.
 * @param into The typed array that the second layout is about; what is written
 * must not overlap what is read.
 * @param target Which elements are written, of the same shape.
 */
export function moveElements(
  info: DTypeInfo,
  isPacked: boolean,
  from: ArrayBufferView,
  layout: Layout,
  into: ArrayBufferView,
  target: Layout,
): void {
  if (sizeOf(target.shape) === 0) return;
  const source = bytesOf(from);
  const copy = bytesOf(into);
  if (isPacked) return copyPacked(source, layout, info.bits, copy, target);
  const bytes = entriesOf(info, false, 1) * info.array.BYTES_PER_ELEMENT;
  copyBytes(source, planMove(layout, target, bytes), copy);
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
      return repeat(into, to - plan.to + plan.start, axis.into, axis.length);
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
    case "blocks": {
      const move = blockMover(run as LaneWidth, inner, plan.block);
      return (at, to) => move(from, at, into, to);
    }
    case "fill": {
      const places = [
        into.byteOffset,
        plan.to,
        ...plan.outer.map((o) => o.into),
      ];
      if (places.some((place) => place % run !== 0)) {
        // It writes words that are aligned.
        const pair = { kernel: "lines" as const, inner: [ONE, i] };
        return moveOf(from, { ...plan, ...pair }, into, reach);
      }
      const words = wordsOf(into, run as Width);
      const view = viewOf(from);
      return (at, to) =>
        fill(view, at, run as Width, words, to / run, i.length);
    }
    case "lines": {
      const memory = { run, from: viewOf(from), into: viewOf(into) };
      if (Math.max(from.length, into.length) < reach) {
        return (at, to) => moveLines(memory, at, to, i, j);
      }
      return (at, to) => moveParts(memory, at, to, i, j, reach);
    }
  }
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

/** Moves parts that are small enough one by one, and sees no more of them. */
function moveParts(
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
    return moveLines(part, -source.lowest, -target.lowest, i, j);
  }
  const span = ({ length, from, into }: Axis): number =>
    (length - 1) * Math.max(Math.abs(from), Math.abs(into));
  const [axis, isFirst] = span(i) > span(j) ? [i, true] : [j, false];
  const half = Math.ceil(axis.length / 2);
  for (const [start, length] of [[0, half], [half, axis.length - half]]) {
    const part = { ...axis, length: length! };
    moveParts(
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
