/**
 * The loops that move bytes: along lines, through 4x4 tiles, and again and
 * again.
 *
 * All offsets and strides are in bytes. Words are moved as integers, never as
 * floats, which would turn signalling NaNs into quiet ones, and through
 * `DataView`: V8 compiles its getters to single loads, as fast as those of
 * typed arrays, at any alignment; and as all views have one hidden class, these
 * loops stay monomorphic whatever dtypes a program copies.
 *
 * Offsets are reckoned in 32 bits (`| 0`: else V8 checks each sum for
 * overflow): kernels that take two views must stay below 2 ** 31.
 *
 * @module
 */

import { readBits, writeBits } from "../dtype/element.ts";

/** The bytes that one load can move. */
export type Width = 1 | 2 | 4 | 8;

/** The bytes of a word that goes through tiles: wider ones gain nothing. */
type TileWidth = 1 | 2 | 4;

/** An axis of a copy: how far both sides step, in bytes. */
export interface Axis {
  /** How many steps there are. */
  readonly length: number;
  /** The step in the source; negative and 0 are possible. */
  readonly from: number;
  /** The step in the copy. */
  readonly into: number;
}

/** Both sides of a copy. */
export interface Memory {
  /** How many bytes lie side by side on both sides: an element, at least. */
  readonly run: number;
  /** The source. */
  readonly from: DataView;
  /** The copy. */
  readonly into: DataView;
}

/** Moves the runs along two axes, the first of which begins at `at`. */
export type MovePair = (
  memory: Memory,
  at: number,
  to: number,
  i: Axis,
  j: Axis,
) => void;

/**
 * Moves `count` words, which lie `fromStride` apart and will lie `intoStride`
 * apart.
 */
type MoveLine = (
  from: DataView,
  at: number,
  fromStride: number,
  into: DataView,
  to: number,
  intoStride: number,
  count: number,
) => void;

/**
 * Transposes a block: both `rows`, the words along i, and `columns`, those along
 * j, are multiples of 4. Tiles of 4x4 words are read line by line, turned in
 * registers and written line by line.
 */
type MoveBlock = (
  from: DataView,
  at: number,
  fromI: number,
  fromJ: number,
  into: DataView,
  to: number,
  intoI: number,
  intoJ: number,
  rows: number,
  columns: number,
) => void;

// Eight words a round, as the end of a round costs as much as two words. What
// is left goes elsewhere: a second loop here would make the first one slower.

const moveLine1: MoveLine = (from, at, fs, into, to, is, count) => {
  for (; count >= 8; count -= 8) {
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
    into.setInt8(to, from.getInt8(at));
    at = at + fs | 0, to = to + is | 0;
  }
  if (count > 0) moveFew(1, from, at, fs, into, to, is, count);
};

const moveLine2: MoveLine = (from, at, fs, into, to, is, count) => {
  for (; count >= 8; count -= 8) {
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt16(to, from.getInt16(at, true), true);
    at = at + fs | 0, to = to + is | 0;
  }
  if (count > 0) moveFew(2, from, at, fs, into, to, is, count);
};

const moveLine4: MoveLine = (from, at, fs, into, to, is, count) => {
  for (; count >= 8; count -= 8) {
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setInt32(to, from.getInt32(at, true), true);
    at = at + fs | 0, to = to + is | 0;
  }
  if (count > 0) moveFew(4, from, at, fs, into, to, is, count);
};

const moveLine8: MoveLine = (from, at, fs, into, to, is, count) => {
  for (; count >= 8; count -= 8) {
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
    into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fs | 0, to = to + is | 0;
  }
  if (count > 0) moveFew(8, from, at, fs, into, to, is, count);
};

function moveFew(
  width: Width,
  from: DataView,
  at: number,
  fromStride: number,
  into: DataView,
  to: number,
  intoStride: number,
  count: number,
): void {
  for (; count > 0; count--) {
    if (width === 1) into.setInt8(to, from.getInt8(at));
    else if (width === 2) into.setInt16(to, from.getInt16(at, true), true);
    else if (width === 4) into.setInt32(to, from.getInt32(at, true), true);
    else into.setBigInt64(to, from.getBigInt64(at, true), true);
    at = at + fromStride | 0;
    to = to + intoStride | 0;
  }
}

const moveLine: Readonly<Record<Width, MoveLine>> = {
  1: moveLine1,
  2: moveLine2,
  4: moveLine4,
  8: moveLine8,
};

/** Tiles of single bytes: `fromI` and `intoJ` must be 1. */
const moveBlock1: MoveBlock = (
  from,
  at,
  _fromI,
  fromJ,
  into,
  to,
  intoI,
  _intoJ,
  rows,
  columns,
) => {
  const [fromJ2, fromJ3] = [2 * fromJ | 0, 3 * fromJ | 0];
  const [intoI2, intoI3] = [2 * intoI | 0, 3 * intoI | 0];
  for (let i = 0; i < rows; i += 4) {
    let source = at + i | 0;
    let target = to + i * intoI | 0;
    for (let j = 0; j < columns; j += 4) {
      const a = from.getInt32(source, true);
      const b = from.getInt32(source + fromJ | 0, true);
      const c = from.getInt32(source + fromJ2 | 0, true);
      const d = from.getInt32(source + fromJ3 | 0, true);
      const ab02 = a & 0xff00ff | (b & 0xff00ff) << 8;
      const cd02 = c & 0xff00ff | (d & 0xff00ff) << 8;
      const ab13 = a >>> 8 & 0xff00ff | b & 0xff00ff00;
      const cd13 = c >>> 8 & 0xff00ff | d & 0xff00ff00;
      into.setInt32(target, ab02 & 0xffff | cd02 << 16, true);
      into.setInt32(target + intoI | 0, ab13 & 0xffff | cd13 << 16, true);
      into.setInt32(target + intoI2 | 0, ab02 >>> 16 | cd02 & ~0xffff, true);
      into.setInt32(target + intoI3 | 0, ab13 >>> 16 | cd13 & ~0xffff, true);
      source = source + 4 * fromJ | 0;
      target = target + 4 | 0;
    }
  }
};

/** Tiles of words of 2 bytes: `fromI` and `intoJ` must be 2. */
const moveBlock2: MoveBlock = (
  from,
  at,
  _fromI,
  fromJ,
  into,
  to,
  intoI,
  _intoJ,
  rows,
  columns,
) => {
  for (let i = 0; i < rows; i += 4) {
    let source = at + 2 * i | 0;
    let target = to + i * intoI | 0;
    for (let j = 0; j < columns; j += 4) {
      const a01 = from.getInt32(source, true);
      const a23 = from.getInt32(source + 4 | 0, true);
      source = source + fromJ | 0;
      const b01 = from.getInt32(source, true);
      const b23 = from.getInt32(source + 4 | 0, true);
      source = source + fromJ | 0;
      const c01 = from.getInt32(source, true);
      const c23 = from.getInt32(source + 4 | 0, true);
      source = source + fromJ | 0;
      const d01 = from.getInt32(source, true);
      const d23 = from.getInt32(source + 4 | 0, true);
      source = source + fromJ | 0;
      let row = target;
      into.setInt32(row, a01 & 0xffff | b01 << 16, true);
      into.setInt32(row + 4 | 0, c01 & 0xffff | d01 << 16, true);
      row = row + intoI | 0;
      into.setInt32(row, a01 >>> 16 | b01 & ~0xffff, true);
      into.setInt32(row + 4 | 0, c01 >>> 16 | d01 & ~0xffff, true);
      row = row + intoI | 0;
      into.setInt32(row, a23 & 0xffff | b23 << 16, true);
      into.setInt32(row + 4 | 0, c23 & 0xffff | d23 << 16, true);
      row = row + intoI | 0;
      into.setInt32(row, a23 >>> 16 | b23 & ~0xffff, true);
      into.setInt32(row + 4 | 0, c23 >>> 16 | d23 & ~0xffff, true);
      target = target + 8 | 0;
    }
  }
};

/** Tiles of words of 4 bytes, at any strides. */
const moveBlock4: MoveBlock = (
  from,
  at,
  fromI,
  fromJ,
  into,
  to,
  intoI,
  intoJ,
  rows,
  columns,
) => {
  const [fromI2, fromI3] = [2 * fromI | 0, 3 * fromI | 0];
  const [intoJ2, intoJ3] = [2 * intoJ | 0, 3 * intoJ | 0];
  for (let i = 0; i < rows; i += 4) {
    let source = at + i * fromI | 0;
    let target = to + i * intoI | 0;
    for (let j = 0; j < columns; j += 4) {
      const a0 = from.getInt32(source, true);
      const a1 = from.getInt32(source + fromI | 0, true);
      const a2 = from.getInt32(source + fromI2 | 0, true);
      const a3 = from.getInt32(source + fromI3 | 0, true);
      source = source + fromJ | 0;
      const b0 = from.getInt32(source, true);
      const b1 = from.getInt32(source + fromI | 0, true);
      const b2 = from.getInt32(source + fromI2 | 0, true);
      const b3 = from.getInt32(source + fromI3 | 0, true);
      source = source + fromJ | 0;
      const c0 = from.getInt32(source, true);
      const c1 = from.getInt32(source + fromI | 0, true);
      const c2 = from.getInt32(source + fromI2 | 0, true);
      const c3 = from.getInt32(source + fromI3 | 0, true);
      source = source + fromJ | 0;
      const d0 = from.getInt32(source, true);
      const d1 = from.getInt32(source + fromI | 0, true);
      const d2 = from.getInt32(source + fromI2 | 0, true);
      const d3 = from.getInt32(source + fromI3 | 0, true);
      source = source + fromJ | 0;
      let row = target;
      into.setInt32(row, a0, true);
      into.setInt32(row + intoJ | 0, b0, true);
      into.setInt32(row + intoJ2 | 0, c0, true);
      into.setInt32(row + intoJ3 | 0, d0, true);
      row = row + intoI | 0;
      into.setInt32(row, a1, true);
      into.setInt32(row + intoJ | 0, b1, true);
      into.setInt32(row + intoJ2 | 0, c1, true);
      into.setInt32(row + intoJ3 | 0, d1, true);
      row = row + intoI | 0;
      into.setInt32(row, a2, true);
      into.setInt32(row + intoJ | 0, b2, true);
      into.setInt32(row + intoJ2 | 0, c2, true);
      into.setInt32(row + intoJ3 | 0, d2, true);
      row = row + intoI | 0;
      into.setInt32(row, a3, true);
      into.setInt32(row + intoJ | 0, b3, true);
      into.setInt32(row + intoJ2 | 0, c3, true);
      into.setInt32(row + intoJ3 | 0, d3, true);
      target = target + 4 * intoJ | 0;
    }
  }
};

const moveBlock: Readonly<Record<TileWidth, MoveBlock>> = {
  1: moveBlock1,
  2: moveBlock2,
  4: moveBlock4,
};

/** The widest word that is not longer than a run. */
export function wordOf(run: number): Width {
  return run >= 8 ? 8 : run >= 4 ? 4 : run >= 2 ? 2 : 1;
}

/**
 * Moves long runs along an axis, one by one.
 *
 * @param length The bytes of a run.
 */
export function moveRuns(
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  to: number,
  length: number,
  axis: Axis,
): void {
  for (let k = 0; k < axis.length; k++) {
    into.set(from.subarray(at, at + length), to);
    at += axis.from;
    to += axis.into;
  }
}

/** Goes line by line along the axis that is longer, and in blocks. */
export const moveLines: MovePair = ({ run, from, into }, at, to, i, j) => {
  const [line, other] = j.length >= Math.min(i.length, 8) ? [j, i] : [i, j];
  // Lines are cut for what lies beside them to be still in the cache, and more
  // so where many of them lie side by side.
  const length = other.length === 1
    ? line.length
    : other.length <= 16
    ? 512
    : 64;
  const word = wordOf(run);
  const move = moveLine[word];
  for (let l = 0; l < line.length; l += length) {
    const count = Math.min(length, line.length - l);
    for (let o = 0; o < other.length; o++) {
      const source = at + l * line.from + o * other.from;
      const target = to + l * line.into + o * other.into;
      for (let start = 0; start < run; start += word) {
        // The last word of a run may begin within the one before.
        const byte = Math.min(start, run - word);
        move(
          from,
          source + byte,
          line.from,
          into,
          target + byte,
          line.into,
          count,
        );
      }
    }
  }
};

/** What has more bytes is out of the cache from one row to the next. */
export const CACHED_ALL = 2 ** 22;
/** What is copied there to be transposed: bytes of a row, and how many rows. */
const [STAGED_BYTES, STAGED_ROWS] = [1024, 512];
/** Rows begin at different places in the cache. */
const STAGED_PITCH = STAGED_BYTES + 64;
let stagedRows: Uint8Array<ArrayBuffer> | undefined;

/** Goes through tiles of 4x4 words, and along lines where there are fewer left. */
export const moveTiles: MovePair = (memory, at, to, i, j) => {
  const { run } = memory;
  const rows = i.length & ~3;
  const columns = j.length & ~3;
  const inner = shortened(i, rows);
  const outer = shortened(j, columns);
  const isStaged = rows * columns * run > CACHED_ALL && i.from === run;
  if (isStaged) moveStaged(memory, at, to, inner, outer);
  else moveBlocks(memory, at, to, inner, outer, 128);
  if (columns < j.length) {
    const rest = shortened(j, j.length - columns);
    moveLines(memory, at + columns * j.from, to + columns * j.into, i, rest);
  }
  if (rows < i.length) {
    const rest = shortened(i, i.length - rows);
    moveLines(memory, at + rows * i.from, to + rows * i.into, rest, outer);
  }
};

function shortened(axis: Axis, length: number): Axis {
  return length === axis.length ? axis : { ...axis, length };
}

/**
 * Copies rows of the source into the cache before: long ones there, and long
 * rows of the copy, are what memory is fast at.
 */
const moveStaged: MovePair = ({ run, from, into }, at, to, i, j) => {
  const bytes = new Uint8Array(from.buffer, from.byteOffset, from.byteLength);
  stagedRows ??= new Uint8Array(STAGED_PITCH * STAGED_ROWS);
  const rows = stagedRows;
  const stage = { run, from: new DataView(rows.buffer), into };
  const width = STAGED_BYTES / run;
  for (let y = 0; y < j.length; y += STAGED_ROWS) {
    const height = Math.min(STAGED_ROWS, j.length - y);
    for (let x = 0; x < i.length; x += width) {
      const length = Math.min(width, i.length - x);
      const start = at + x * run + y * j.from;
      for (let row = 0; row < height; row++) {
        const first = start + row * j.from;
        const part = bytes.subarray(first, first + length * run);
        rows.set(part, row * STAGED_PITCH);
      }
      moveBlocks(
        stage,
        0,
        to + x * i.into + y * j.into,
        { ...i, length },
        { length: height, from: STAGED_PITCH, into: j.into },
        STAGED_ROWS,
      );
    }
  }
};

/**
 * Goes through blocks within squares, for caches to keep lines and pages.
 *
 * @param width How many words along the second axis are done at once.
 */
function moveBlocks(
  { run, from, into }: Memory,
  at: number,
  to: number,
  i: Axis,
  j: Axis,
  width: number,
): void {
  const move = moveBlock[run as TileWidth];
  const square = Math.max(256, width);
  const height = 16;
  for (let left = 0; left < j.length; left += square) {
    const right = Math.min(left + square, j.length);
    for (let top = 0; top < i.length; top += square) {
      const bottom = Math.min(top + square, i.length);
      for (let y = left; y < right; y += width) {
        for (let x = top; x < bottom; x += height) {
          move(
            from,
            at + x * i.from + y * j.from,
            i.from,
            j.from,
            into,
            to + x * i.into + y * j.into,
            i.into,
            j.into,
            Math.min(height, bottom - x),
            Math.min(width, right - y),
          );
        }
      }
    }
  }
}

/** Bytes that stay in the first-level cache beside others. */
const CACHED = 8192;

/** Repeats the `length` bytes at `to` until there are `count` of them. */
export function repeat(
  into: Uint8Array,
  to: number,
  length: number,
  count: number,
): void {
  const end = to + length * count;
  // Doubled at first; then what is copied shall still be in the cache.
  const most = Math.max(length, CACHED - CACHED % length);
  for (let at = to + length; at < end;) {
    const next = Math.min(at - to, most, end - at);
    into.copyWithin(at, to, to + next);
    at += next;
  }
}

const wordArrays = {
  1: Uint8Array,
  2: Uint16Array,
  4: Uint32Array,
  8: BigUint64Array,
};

/** Aligned memory as words. */
export function wordsOf(bytes: Uint8Array, width: Width): Uint8Array {
  const { buffer, byteOffset, length } = bytes;
  const count = Math.floor(length / width);
  const memory = buffer as ArrayBuffer;
  // What is asked of them, all four classes do alike: one stands for them.
  return new wordArrays[width](memory, byteOffset, count) as Uint8Array;
}

/**
 * Writes one word again and again.
 *
 * @param into The copy as words.
 * @param to The index of the first.
 */
export function fill(
  from: DataView,
  at: number,
  width: Width,
  into: Uint8Array,
  to: number,
  count: number,
): void {
  const word = width === 1
    ? from.getUint8(at)
    : width === 2
    ? from.getUint16(at, true)
    : width === 4
    ? from.getUint32(at, true)
    : from.getBigUint64(at, true);
  into.fill(word as number, to, to + count);
}

/**
 * Moves runs of bits along an axis, the first bits in the lowest ones of a byte;
 * what else is in the bytes at their ends stays.
 *
 * @param at Where the first bit is in the source, counted in bits.
 * @param to Where it goes to.
 * @param run How many lie side by side.
 */
export function moveBitLine(
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  to: number,
  run: number,
  axis: Axis,
): void {
  for (let k = 0; k < axis.length; k++) {
    if (run > 8) moveBits(from, at, into, to, run);
    else writeBits(into, to, run, readBits(from, at, run));
    at += axis.from;
    to += axis.into;
  }
}

/**
 * Moves bits that lie side by side, the first ones in the lowest bits of a byte;
 * what else is in the first and the last byte stays.
 *
 * @param at Where the first bit is in the source, counted in bits.
 * @param to Where it goes to.
 * @param count How many there are.
 */
function moveBits(
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  to: number,
  count: number,
): void {
  // To where the next byte of the copy begins.
  const head = Math.min(count, (8 - to % 8) % 8);
  if (head > 0) writeBits(into, to, head, readBits(from, at, head));
  let left = count - head;
  let source = at + head;
  let target = (to + head) / 8;
  const shift = source % 8;
  const bytes = Math.floor(left / 8);
  const first = (source - shift) / 8;
  if (shift === 0) {
    into.set(from.subarray(first, first + bytes), target);
  } else moveShifted(from, first, shift, into, target, bytes);
  source += bytes * 8;
  target += bytes;
  left -= bytes * 8;
  if (left > 0) writeBits(into, target * 8, left, readBits(from, source, left));
}

/** Moves whole bytes of the copy, of which each lies in two of the source. */
function moveShifted(
  from: Uint8Array,
  at: number,
  shift: number,
  into: Uint8Array,
  to: number,
  count: number,
): void {
  const source = new DataView(from.buffer, from.byteOffset, from.byteLength);
  const target = new DataView(into.buffer, into.byteOffset, into.byteLength);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const word = source.getUint32(at + i, true) >>> shift |
      source.getUint8(at + i + 4) << 32 - shift;
    target.setInt32(to + i, word, true);
  }
  for (; i < count; i++) {
    into[to + i] = from[at + i]! >>> shift | from[at + i + 1]! << 8 - shift;
  }
}
