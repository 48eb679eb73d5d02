/**
 * Copies that turn axes around, block by block: what a block reads is copied to
 * WebAssembly's memory in pieces that are as long as they can be, transposed
 * there by vectors, and copied from there in long pieces, too. Long pieces are
 * what memory is fast at, and a block stays in the cache.
 *
 * @module
 */

import {
  apart,
  i32,
  i8x16,
  load,
  pitch,
  type Value,
} from "../wasm/assembler.ts";
import { get, put, type Stage, stage } from "../wasm/stage.ts";
import type { Axis } from "./kernels.ts";

/** The bytes of a vector. */
export const VECTOR = 16;
/** The bytes of a block, at most, for both sides of it to stay in the cache. */
export const USUAL_BLOCK = 2 ** 18;
/** The same where else less than {@linkcode LONG_PIECE} would lie side by side. */
export const MOST_BLOCK = 2 ** 19;
/** The bytes from which pieces are long: to copy them costs more than to begin. */
export const LONG_PIECE = 1024;

/** The bytes of an element that a vector has whole ones of. */
export type LaneWidth = 1 | 2 | 4 | 8 | 16;

/** The elements of two vectors in turn, from the start or from the middle. */
function zip(a: Value, b: Value, width: number, half: 0 | 1): Value {
  const lanes = Array.from({ length: VECTOR }, (_, byte) => {
    const element = Math.floor(byte / width);
    const of = element % 2 * VECTOR;
    return of + half * VECTOR / 2 + (element >> 1) * width + byte % width;
  });
  return i8x16.shuffle(a, b, lanes);
}

/** As many vectors as a vector has elements, transposed. */
function transposed(rows: readonly Value[], width: number): readonly Value[] {
  let turned = rows;
  for (let step = 1; step < rows.length; step *= 2) {
    const half = rows.length / 2;
    turned = turned.slice(0, half).flatMap((row, i) => [
      zip(row, turned[half + i]!, width, 0),
      zip(row, turned[half + i]!, width, 1),
    ]);
  }
  return turned;
}

/** How many elements are turned at once: along the first axis and the second. */
export type Tile = readonly [rows: number, columns: number];

/**
 * The tile for an axis of the source of so many elements: a line of the cache
 * where that takes few instructions.
 */
export function tileOf(width: LaneWidth, length: number): Tile {
  const side = VECTOR / width;
  const strips = side <= 4 && length >= 4 * side ? 4 : 1;
  return [strips * side, Math.max(side, 4)];
}

const stages = new Map<string, Stage>();

/** Turns tiles. */
function stageOf(width: LaneWidth, [height, columns]: Tile): Stage {
  const name = `${width} ${height}`;
  let known = stages.get(name);
  if (known === undefined) {
    const times = (distance: Value, count: number): Value =>
      i32.shl(distance, i32.const(Math.log2(count)));
    const side = VECTOR / width;
    const strips = height / side;
    const vectors = load.rows(pitch, columns, strips);
    /** A square whose rows are vectors. */
    const turn = (strip: number, start: number): readonly Value[] =>
      transposed(
        vectors.slice(start, start + side).map((row) => row[strip]!),
        width,
      );
    const group = columns / side;
    const values = Array.from({ length: strips }, (_, strip) => {
      const squares = Array.from(
        { length: group },
        (_, k) => turn(strip, k * side),
      );
      return Array.from(
        { length: side },
        (_, row) => squares.map((square) => square[row]!),
      );
    }).flat(2);
    known = stage({
      bytes: times(pitch, columns),
      values,
      apart,
      group,
      rows: { from: i32.const(strips * VECTOR), into: times(apart, height) },
    });
    stages.set(name, known);
  }
  return known;
}

/** How a block lies in memory, and how in the stage: as there, without gaps. */
interface Side {
  /** The lowest byte there, counted from the first element. */
  readonly low: number;
  /** Where the first element is in the stage. */
  readonly start: number;
  /** The steps in the stage, axis by axis. */
  readonly steps: readonly number[];
  /** How many bytes lie side by side in both. */
  readonly piece: number;
  /** From piece to piece: `from` there, `into` in the stage. */
  readonly pieces: readonly Axis[];
}

/** Rows that lie a power of two apart have few places in the cache. */
function spread(bytes: number): number {
  if (bytes < 512) return bytes;
  const lines = Math.ceil(bytes / 64);
  return 64 * (lines + 1 - lines % 2);
}

/**
 * @param lengths Of the block, axis by axis.
 * @param steps In memory.
 */
function sideOf(
  run: number,
  lengths: readonly number[],
  steps: readonly number[],
): Side {
  const staged = steps.map(() => 0);
  const pieces: Axis[] = [];
  let [low, start, piece, size] = [0, 0, run, run];
  const order = steps.map((_, axis) => axis)
    .filter((axis) => steps[axis] !== 0 && lengths[axis]! > 1)
    .sort((a, b) => Math.abs(steps[a]!) - Math.abs(steps[b]!));
  for (const axis of order) {
    const [length, from] = [lengths[axis]!, Math.abs(steps[axis]!)];
    if (pieces.length === 0 && from === piece) piece *= length;
    else {
      if (pieces.length === 0) size = spread(size);
      pieces.unshift({ length, from, into: size });
    }
    staged[axis] = size;
    if (steps[axis]! < 0) {
      low -= (length - 1) * from;
      start += (length - 1) * size;
      staged[axis] = -size;
    }
    size *= length;
  }
  return { low, start, steps: staged, piece, pieces };
}

/** Calls for every position on some axes. */
function visit(
  axes: readonly Axis[],
  call: (from: number, into: number) => void,
  from = 0,
  into = 0,
  depth = 0,
): void {
  const axis = axes[depth];
  if (axis === undefined) return call(from, into);
  for (let k = 0; k < axis.length; k++) {
    visit(axes, call, from, into, depth + 1);
    from += axis.from;
    into += axis.into;
  }
}

/** Where blocks begin that cover an axis: the last ones may share something. */
function startsOf(length: number, block: number): number[] {
  const count = Math.ceil(length / block);
  return Array.from(
    { length: count },
    (_, k) => Math.min(k * block, length - block),
  );
}

/** Copies all that is along some axes, from and to their first elements. */
type Mover = (
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  to: number,
) => void;

/** Those of late: what they keep takes as long to make as half a copy of 1 MiB. */
const movers = new Map<string, Mover>();
const MOST_MOVERS = 8;

/**
 * A function that copies all that is along some axes.
 *
 * @param run The bytes of an element.
 * @param axes The first one steps by an element in the source, the second one
 * in the copy; the others as they like.
 * @param block How many elements of each axis are a block: of the first two as
 * many as a vector has, at least.
 */
export function blockMover(
  run: LaneWidth,
  axes: readonly Axis[],
  block: readonly number[],
): Mover {
  const key = axes.reduce(
    (key, { length, from, into }, axis) =>
      `${key} ${length} ${from} ${into} ${block[axis]}`,
    `${run}`,
  );
  let mover = movers.get(key);
  if (mover === undefined) {
    if (movers.size === MOST_MOVERS) movers.clear();
    movers.set(key, mover = makeMover(run, axes, block));
  }
  return mover;
}

function makeMover(
  run: LaneWidth,
  axes: readonly Axis[],
  block: readonly number[],
): Mover {
  const source = sideOf(run, block, axes.map(({ from }) => from));
  const target = sideOf(run, block, axes.map(({ into }) => into));
  const others = axes.map((_, axis): Axis => ({
    length: block[axis]!,
    from: source.steps[axis]!,
    into: target.steps[axis]!,
  })).slice(2);
  const [rows, columns] = block as [number, number];
  const tile = tileOf(run, rows);
  const [height, width] = tile;
  const [pitch, apart] = [source.steps[1]!, target.steps[0]!];
  const { run: turn } = stageOf(run, tile);
  /** Turns tiles from some row and column on. */
  const turnTiles = (
    at: number,
    to: number,
    row: number,
    rows: number,
    column: number,
    columns: number,
  ): void => {
    const source = at + row * run + column * pitch;
    const target = to + row * apart + column * run;
    turn(columns / width, source, target, rows / height, pitch, apart);
  };
  const [wholeRows, wholeColumns] = [
    rows - rows % height,
    columns - columns % width,
  ];
  const [lastRow, lastColumn] = [rows - height, columns - width];
  const turnPair = (at: number, to: number): void => {
    turnTiles(at, to, 0, wholeRows, 0, wholeColumns);
    // The last tiles may share something with those before.
    const isRest = wholeRows < rows;
    if (isRest) turnTiles(at, to, lastRow, height, 0, wholeColumns);
    if (wholeColumns === columns) return;
    turnTiles(at, to, 0, wholeRows, lastColumn, width);
    if (isRest) turnTiles(at, to, lastRow, height, lastColumn, width);
  };
  const results: { there: number; piece: Uint8Array }[] = [];
  visit(target.pieces, (there, here) => {
    const piece = get(target.piece, here);
    results.push({ there: target.low + there, piece });
  });
  /** Where blocks begin. */
  const grid = axes.map(({ length }, axis) => startsOf(length, block[axis]!));

  return (from, at, into, to) => {
    const { buffer, byteOffset } = from;
    const go = (depth: number, at: number, to: number): void => {
      const axis = axes[depth];
      if (axis !== undefined) {
        for (const start of grid[depth]!) {
          go(depth + 1, at + start * axis.from, to + start * axis.into);
        }
        return;
      }
      const first = byteOffset + at + source.low;
      visit(source.pieces, (there, here) => {
        put(new Uint8Array(buffer, first + there, source.piece), here);
      });
      visit(others, turnPair, source.start, target.start);
      for (const { there, piece } of results) into.set(piece, to + there);
    };
    go(0, at, to);
  };
}
