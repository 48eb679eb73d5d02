/**
 * The loops that move bytes: along lines, and again and again.
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
  const { buffer, byteOffset } = from;
  for (let k = 0; k < axis.length; k++) {
    // It takes less time than subarray().
    into.set(new Uint8Array(buffer, byteOffset + at, length), to);
    at += axis.from;
    to += axis.into;
  }
}

/**
 * Moves the runs along two axes, the first of which begins at `at`: line by line
 * along the axis that is longer, and in blocks.
 */
export function moveLines(
  { run, from, into }: Memory,
  at: number,
  to: number,
  i: Axis,
  j: Axis,
): void {
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
