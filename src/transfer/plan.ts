/**
 * Plans how strided elements come out of memory that only whole pieces can be
 * copied out of, such as a device's.
 *
 * They are put side by side first, in the order in which they lie there; C
 * order is then one more copy on the host, where it is not the same already.
 *
 * @module
 */

import type { Packing } from "../dtype/packing.ts";
import { isContiguous, type Layout } from "../layout.ts";

/** One piece to be copied out. All counts are elements. */
export type Piece =
  /** Elements side by side, on both sides. */
  | {
    readonly kind: "run";
    readonly from: number;
    readonly into: number;
    readonly length: number;
  }
  /** Rows of elements at equal distances, side by side after. */
  | {
    readonly kind: "rows";
    readonly from: number;
    readonly into: number;
    readonly length: number;
    readonly pitch: number;
    readonly count: number;
  }
  /** A piece of memory of which `layout` says what is wanted of it. */
  | {
    readonly kind: "span";
    readonly from: number;
    readonly into: number;
    readonly length: number;
    readonly layout: Layout;
  };

/** What is copied out, and what is to be done with it after. */
export interface TransferPlan {
  /** How many elements there are side by side after. */
  readonly size: number;
  /** The tensor as a view of those. */
  readonly layout: Layout;
  /** Whether that is C order, every element once. */
  readonly isInOrder: boolean;
  /** The pieces, the first elements first. */
  pieces(): Generator<Piece>;
}

/** What a plan may do. */
export interface TransferLimits {
  /** Whether rows can be copied. */
  readonly hasRows: boolean;
  /** The bytes that are copied out at once, about. */
  readonly pieceBytes: number;
  /** The bytes of memory for pieces of which not all is wanted. */
  readonly spanBytes: number;
  /**
   * Whether no piece may have in it what is not wanted, as when it is written;
   * but packed elements that share bytes with others must.
   */
  readonly isExact?: boolean;
}

/** An axis of the source. */
interface Step {
  readonly length: number;
  /** From one element to the next: positive. */
  readonly step: number;
}

/** What is read by one of the ways, once for every position on `outer`. */
interface Way {
  readonly outer: readonly Step[];
  readonly inner: readonly Step[];
  readonly asRows: boolean;
}

// Estimates, in bytes that could be copied in the same time. With PoCL a row
// costs about 20, on an H200 30 where it is long and 80 where it has 16 bytes.

/** A call of the runtime. */
const CALL = 128 * 1024;
/** A row. */
const ROW = 64;

/**
 * Plans a transfer: a pure function.
 *
 * @param layout The tensor; its offset counts from its lowest element, or from
 * the last whole byte before. There is at least one element.
 * @param element How elements lie in bytes.
 * @param limits What the plan may do.
 */
export function planTransfer(
  layout: Layout,
  element: Packing,
  limits: TransferLimits,
): TransferPlan {
  const { shape, strides } = layout;
  // Axes that repeat elements are for the host alone.
  const axes = [...shape.keys()]
    .filter((axis) => shape[axis]! > 1 && strides[axis] !== 0)
    .sort((a, b) => Math.abs(strides[b]!) - Math.abs(strides[a]!));
  let size = 1;
  const after = shape.map(() => 0);
  for (const axis of axes.toReversed()) {
    after[axis] = strides[axis]! < 0 ? -size : size;
    size *= shape[axis]!;
  }
  let lowest = layout.offset;
  let offset = 0;
  for (const axis of axes) {
    if (strides[axis]! > 0) continue;
    lowest += (shape[axis]! - 1) * strides[axis]!;
    offset -= (shape[axis]! - 1) * after[axis]!;
  }
  const side = { shape, strides: after, offset };
  const { run, steps } = join(
    axes.map((axis) => ({
      length: shape[axis]!,
      step: Math.abs(strides[axis]!),
    })),
  );
  const way = chooseWay(steps, run, element, limits);
  return {
    size,
    layout: side,
    isInOrder: offset === 0 && isContiguous(shape, after),
    pieces: () => piecesOf(way, run, lowest, element, limits),
  };
}

/** Joins axes that step evenly; the innermost with step 1 is the run. */
function join(axes: readonly Step[]): { run: number; steps: Step[] } {
  const steps: Step[] = [];
  for (const { length, step } of axes) {
    const outer = steps.at(-1);
    if (outer?.step === length * step) {
      steps[steps.length - 1] = { length: outer.length * length, step };
    } else steps.push({ length, step });
  }
  const run = steps.at(-1)?.step === 1 ? steps.pop()!.length : 1;
  return { run, steps };
}

/** From the first to the last element. */
function spanOf(steps: readonly Step[], run: number): number {
  return steps.reduce(
    (sum, { length, step }) => sum + (length - 1) * step,
    run,
  );
}

function count(steps: readonly Step[]): number {
  return steps.reduce((product, { length }) => product * length, 1);
}

/** The cheapest way, by the estimates above. */
function chooseWay(
  steps: readonly Step[],
  run: number,
  element: Packing,
  limits: TransferLimits,
): Way {
  const bytes = (elements: number): number => elements * element.bits / 8;
  let best: Way = { outer: [], inner: steps, asRows: false };
  let least = Infinity;
  for (let depth = 0; depth <= steps.length; depth++) {
    const way = { outer: steps.slice(0, depth), inner: steps.slice(depth) };
    const times = count(way.outer);
    const wanted = count(way.inner) * run;
    const span = spanOf(way.inner, run);
    // What is not all wanted is copied once more, on the host.
    const gathered = span === wanted ? 0 : wanted;
    const asSpan = times * (CALL + bytes(span + gathered));
    const isAllowed = gathered === 0 || !limits.isExact ||
      !isWhole(element, run, ...steps.map((s) => s.step));
    if (isAllowed && asSpan < least) {
      least = asSpan;
      best = { ...way, asRows: false };
    }
    const [rows, ...rest] = way.inner;
    if (
      !limits.hasRows || rows === undefined || rest.length > 0 ||
      rows.step < run || !isWhole(element, run, ...steps.map((s) => s.step))
    ) continue;
    const asRows = times * (CALL + rows.length * (ROW + bytes(run)));
    if (asRows < least) {
      least = asRows;
      best = { ...way, asRows: true };
    }
  }
  return best;
}

/** Whether all these are whole bytes. */
function isWhole({ group }: Packing, ...elements: number[]): boolean {
  return elements.every((n) => n % group === 0);
}

function* piecesOf(
  { outer, inner, asRows }: Way,
  run: number,
  lowest: number,
  element: Packing,
  limits: TransferLimits,
): Generator<Piece> {
  const size = count(inner) * run;
  let into = 0;
  for (const from of positions(outer, lowest)) {
    if (asRows && isWhole(element, from, into)) {
      yield* rowsOf(inner[0]!, run, from, into, element, limits);
    } else if (asRows && limits.isExact) {
      const [{ length, step }] = inner as [Step];
      for (let row = 0; row < length; row++) {
        const start = [from + row * step, into + row * run] as const;
        yield* spansOf([], run, ...start, element, limits);
      }
    } else yield* spansOf(inner, run, from, into, element, limits);
    into += size;
  }
}

/** Where the elements of some axes are, in order. */
function* positions(
  steps: readonly Step[],
  from: number,
): Generator<number> {
  const [first, ...rest] = steps;
  if (first === undefined) return yield from;
  for (let k = 0; k < first.length; k++) {
    yield* positions(rest, from + k * first.step);
  }
}

/** How many elements fit into a number of bytes; together they are whole bytes. */
export function elementsIn(
  { bits, group }: Packing,
  bytes: number,
): number {
  return Math.max(1, Math.floor(bytes * 8 / (bits * group))) * group;
}

function* rowsOf(
  { length, step }: Step,
  run: number,
  from: number,
  into: number,
  element: Packing,
  limits: TransferLimits,
): Generator<Piece> {
  const atOnce = Math.floor(elementsIn(element, limits.pieceBytes) / run);
  for (let row = 0; row < length;) {
    const rows = Math.min(length - row, Math.max(1, atOnce));
    const start = { from: from + row * step, into: into + row * run };
    if (rows === 1) {
      yield* runsOf(run, start.from, start.into, element, limits);
    } else {
      yield { kind: "rows", ...start, length: run, pitch: step, count: rows };
    }
    row += rows;
  }
}

function* runsOf(
  run: number,
  from: number,
  into: number,
  element: Packing,
  limits: TransferLimits,
): Generator<Piece> {
  const atOnce = elementsIn(element, limits.pieceBytes);
  for (let start = 0; start < run; start += atOnce) {
    const length = Math.min(run - start, atOnce);
    yield { kind: "run", from: from + start, into: into + start, length };
  }
}

function* spansOf(
  steps: readonly Step[],
  run: number,
  from: number,
  into: number,
  element: Packing,
  limits: TransferLimits,
): Generator<Piece> {
  const [first, ...rest] = steps;
  if (first === undefined && isWhole(element, from, into)) {
    return yield* runsOf(run, from, into, element, limits);
  }
  // A span begins with a whole byte, so the first elements of it may be others.
  const lead = from % element.group;
  const atOnce = elementsIn(
    element,
    Math.min(limits.spanBytes, limits.pieceBytes),
  );
  const span = lead + spanOf(steps, run);
  if (span <= atOnce) {
    const shape = [...steps.map((axis) => axis.length), run];
    const strides = [...steps.map((axis) => axis.step), 1];
    const layout = { shape, strides, offset: lead };
    return yield {
      kind: "span",
      from: from - lead,
      into,
      length: span,
      layout,
    };
  }
  // Packed elements that begin or end within a byte.
  const axis = first ?? { length: run, step: 1 };
  const innerRun = first === undefined ? 1 : run;
  const inner = spanOf(rest, innerRun);
  const most = Math.floor((atOnce - lead - inner) / axis.step) + 1;
  const part = Math.max(1, Math.min(axis.length, most));
  const size = count(rest) * innerRun;
  for (let k = 0; k < axis.length; k += part) {
    const length = Math.min(part, axis.length - k);
    const steps = length === 1 ? rest : [{ length, step: axis.step }, ...rest];
    yield* spansOf(
      steps,
      innerRun,
      from + k * axis.step,
      into + k * size,
      element,
      limits,
    );
  }
}
