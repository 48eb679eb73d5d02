/**
 * The loops that convert elements: from one typed array to another of as many
 * elements, a chunk of them at a time.
 *
 * Each loop has arrays of two classes only, for V8 to compile it to loads and
 * stores, whatever dtypes a program converts. 64-bit integers are read as pairs
 * of 32 bits, the lower one first: as BigInts they would take ten times as long.
 * But what is stored as `BigInt(integer)`, of 32 bits, V8 makes no BigInt of.
 *
 * @module
 */

import type { DTypeInfo, TypedArray } from "./dtype.ts";

/** Makes all elements of `into` from those of `from`. */
export type Kernel = (from: TypedArray, into: TypedArray) => void;

/** How many elements a kernel is given, at most: few enough for the cache. */
export const CHUNK = 4096;

function bytesOf({ buffer, byteOffset, byteLength }: TypedArray): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

function halvesOf({ buffer, byteOffset, byteLength }: TypedArray): Uint16Array {
  return new Uint16Array(buffer as ArrayBuffer, byteOffset, byteLength / 2);
}

function wordsOf({ buffer, byteOffset, byteLength }: TypedArray): Int32Array {
  return new Int32Array(buffer as ArrayBuffer, byteOffset, byteLength / 4);
}

function unsignedOf(
  { buffer, byteOffset, byteLength }: TypedArray,
): Uint32Array {
  return new Uint32Array(buffer as ArrayBuffer, byteOffset, byteLength / 4);
}

function pairsOf(
  { buffer, byteOffset, byteLength }: TypedArray,
): BigInt64Array {
  return new BigInt64Array(buffer as ArrayBuffer, byteOffset, byteLength / 8);
}

/** As typed arrays convert numbers: by a loop of V8's own. */
export const cast: Kernel = (from, into) => into.set(from as never);

/** float64 to float32, which V8's own loop takes longer for. */
export const narrow: Kernel = (from, into) => {
  const numbers = from as Float64Array;
  const singles = into as Float32Array;
  for (let i = 0; i < singles.length; i++) singles[i] = numbers[i]!;
};

/**
 * Rounds float64 to float32 in a way that another rounding, to two bits fewer
 * or less, gives what one rounding would have: towards zero, and what is cut
 * off sets the last bit.
 */
export const narrowToOdd: Kernel = (from, into) => {
  const numbers = from as Float64Array;
  const singles = into as Float32Array;
  const bits = wordsOf(into);
  for (let i = 0; i < singles.length; i++) {
    const number = numbers[i]!;
    singles[i] = number;
    const single = singles[i]!;
    if (single === number || single !== single) continue;
    const isAbove = Math.abs(single) > Math.abs(number);
    bits[i] = (isAbove ? bits[i]! - 1 : bits[i]!) | 1;
  }
};

/** float32 to int32 or uint32: cut off towards zero, and wrapped around. */
export const truncate32: Kernel = (from, into) => {
  const singles = from as Float32Array;
  const integers = wordsOf(into);
  for (let i = 0; i < integers.length; i++) integers[i] = singles[i]!;
};

/** float64 to int32 or uint32: cut off towards zero, and wrapped around. */
export const truncate64: Kernel = (from, into) => {
  const numbers = from as Float64Array;
  const integers = wordsOf(into);
  for (let i = 0; i < integers.length; i++) integers[i] = numbers[i]!;
};

/** Words that are shifted by two bytes, behind two bytes that stay 0. */
const shifted = new Uint8Array(4 * CHUNK + 4);
const unshifted = new Uint32Array(shifted.buffer, 4);

/** bfloat16 to float32, of which it is the upper half. */
export const widenBfloat16: Kernel = (from, into) => {
  // Two loops of V8's own are faster than one that shifts.
  unshifted.set(from as Uint16Array);
  bytesOf(into).set(shifted.subarray(2, 2 + into.byteLength));
};

/** float32 to bfloat16: to the nearest, ties to even; NaN is one pattern. */
export const roundToBfloat16: Kernel = (from, into) => {
  const words = wordsOf(from);
  const patterns = into as Uint16Array;
  for (let i = 0; i < patterns.length; i++) {
    const bits = words[i]!;
    const isNaN = (bits & 0x7fffffff) > 0x7f800000;
    if (isNaN) patterns[i] = 0x7fc0;
    else patterns[i] = (bits + (0x7fff + (bits >> 16 & 1) | 0) | 0) >> 16;
  }
};

let float16Values: Int32Array | undefined;

/** The float32 of every float16. */
function float16Table(): Int32Array {
  if (float16Values === undefined) {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = new Float32Array(new Float16Array(patterns.buffer));
    float16Values = wordsOf(values);
  }
  return float16Values;
}

/** float16 to float32. */
export const widenFloat16: Kernel = (from, into) => {
  const patterns = halvesOf(from);
  const values = float16Table();
  const words = wordsOf(into);
  for (let i = 0; i < words.length; i++) words[i] = values[patterns[i]!]!;
};

/** Elements in a byte each to numbers: integers to int32, floats to float32. */
export function decoder({ kind, bits, decode }: DTypeInfo): Kernel {
  const values = new (kind === "int" ? Int32Array : Float32Array)(256);
  const mask = (1 << bits) - 1;
  for (let byte = 0; byte < 256; byte++) values[byte] = decode!(byte & mask);
  const table = wordsOf(values);
  return (from, into) => decodeBytes(bytesOf(from), table, wordsOf(into));
}

/** @param table 32 bits for every byte. */
function decodeBytes(
  bytes: Uint8Array,
  table: Int32Array,
  words: Int32Array,
): void {
  for (let i = 0; i < words.length; i++) words[i] = table[bytes[i]!]!;
}

/** float32 to floats of 8 bits or fewer, in a byte each. */
export function encoder({ encode }: DTypeInfo): Kernel {
  const words = Int32Array.from({ length: 65536 }, (_, half) => half << 16);
  const table = Uint8Array.from(new Float32Array(words.buffer), encode!);
  return (from, into) => encodeWords(wordsOf(from), table, into as Uint8Array);
}

/**
 * @param table The pattern for every upper half of a float32 whose last bit is
 * set when anything is cut off: small floats need no more for one rounding.
 */
function encodeWords(
  words: Int32Array,
  table: Uint8Array,
  bytes: Uint8Array,
): void {
  for (let i = 0; i < bytes.length; i++) {
    const bits = words[i]!;
    const odd = (bits & 0xffff) === 0 ? 0 : 1;
    bytes[i] = table[bits >>> 16 | odd]!;
  }
}

/** int32 to integers of fewer than 8 bits, in a byte each. */
export function wrapper(bits: number): Kernel {
  const mask = (1 << bits) - 1;
  return (from, into) => keepBits(from as Int32Array, mask, into as Uint8Array);
}

function keepBits(integers: Int32Array, mask: number, bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = integers[i]! & mask;
}

/**
 * 64-bit integers to the int32 or uint32 in their low words; complex64 to
 * float32, by their bits.
 */
export const lowWords: Kernel = (from, into) => {
  const words = wordsOf(from);
  const integers = wordsOf(into);
  for (let i = 0; i < integers.length; i++) integers[i] = words[2 * i]!;
};

/** int32 to 64-bit integers. */
export const extendSigned: Kernel = (from, into) => {
  const integers = from as Int32Array;
  const pairs = pairsOf(into);
  for (let i = 0; i < integers.length; i++) pairs[i] = BigInt(integers[i]!);
};

/** uint32 to 64-bit integers; float32 to complex64, by their bits. */
export const extendUnsigned: Kernel = (from, into) => {
  const integers = unsignedOf(from);
  const pairs = pairsOf(into);
  for (let i = 0; i < integers.length; i++) pairs[i] = BigInt(integers[i]!);
};

/** float32 to 64-bit integers: cut off towards zero, and wrapped around. */
export const truncateToPairs32: Kernel = (from, into) => {
  const singles = from as Float32Array;
  const pairs = pairsOf(into);
  const words = wordsOf(into);
  for (let i = 0; i < singles.length; i++) {
    const number = singles[i]!;
    const low = number | 0;
    if (Math.abs(number) < 2 ** 31) pairs[i] = BigInt(low);
    else {
      words[2 * i] = low;
      // 0 for NaN and infinities.
      words[2 * i + 1] = Math.floor(Math.trunc(number) / 2 ** 32);
    }
  }
};

/** float64 to 64-bit integers: cut off towards zero, and wrapped around. */
export const truncateToPairs64: Kernel = (from, into) => {
  const numbers = from as Float64Array;
  const pairs = pairsOf(into);
  const words = wordsOf(into);
  for (let i = 0; i < numbers.length; i++) {
    const number = numbers[i]!;
    const low = number | 0;
    if (Math.abs(number) < 2 ** 31) pairs[i] = BigInt(low);
    else {
      words[2 * i] = low;
      // 0 for NaN and infinities.
      words[2 * i + 1] = Math.floor(Math.trunc(number) / 2 ** 32);
    }
  }
};

// What joins two words is written out in each loop: a call there, even if it is
// never reached, makes V8 keep nothing in registers.

/** 64-bit integers to the nearest float64. */
export function joinToFloat64(isSigned: boolean): Kernel {
  return (from, into) =>
    joinPairs(wordsOf(from), isSigned, into as Float64Array);
}

function joinPairs(
  words: Int32Array,
  isSigned: boolean,
  numbers: Float64Array,
): void {
  for (let i = 0, at = 0; i < numbers.length; i++, at = at + 2 | 0) {
    const low = words[at]!;
    const high = words[at + 1 | 0]!;
    if (high === low >> 31 && (isSigned || high === 0)) numbers[i] = low;
    else numbers[i] = (isSigned ? high : high >>> 0) * 2 ** 32 + (low >>> 0);
  }
}

/** 64-bit integers to the nearest float32. */
export function joinToFloat32(isSigned: boolean): Kernel {
  return (from, into) =>
    joinPairsToFloat32(wordsOf(from), isSigned, into as Float32Array);
}

function joinPairsToFloat32(
  words: Int32Array,
  isSigned: boolean,
  singles: Float32Array,
): void {
  for (let i = 0, at = 0; i < singles.length; i++, at = at + 2 | 0) {
    const low = words[at]!;
    const high = words[at + 1 | 0]!;
    if (high === low >> 31 && (isSigned || high === 0)) singles[i] = low;
    else {
      // What float64 has no bits for sets the last of them.
      const top = isSigned ? high : high >>> 0;
      const isExact = top >= -(2 ** 21) && top < 2 ** 21 || !(low & 2047);
      const odd = isExact ? low : low & ~2047 | 2048;
      singles[i] = top * 2 ** 32 + (odd >>> 0);
    }
  }
}

/** 64-bit integers to float64, for one more rounding: {@linkcode narrowToOdd}. */
export function joinToOddFloat64(isSigned: boolean): Kernel {
  return (from, into) =>
    joinPairsToOdd(wordsOf(from), isSigned, into as Float64Array);
}

function joinPairsToOdd(
  words: Int32Array,
  isSigned: boolean,
  numbers: Float64Array,
): void {
  for (let i = 0, at = 0; i < numbers.length; i++, at = at + 2 | 0) {
    const low = words[at]!;
    const high = words[at + 1 | 0]!;
    if (high === low >> 31 && (isSigned || high === 0)) numbers[i] = low;
    else {
      const top = isSigned ? high : high >>> 0;
      const isExact = top >= -(2 ** 21) && top < 2 ** 21 || !(low & 2047);
      const odd = isExact ? low : low & ~2047 | 2048;
      numbers[i] = top * 2 ** 32 + (odd >>> 0);
    }
  }
}

// To bool, all but 0 is true, NaN too: one at least of the bits that a mask
// has. Those of floats have none for the sign.

/** Elements of 1 byte to bool. */
export const testBytes: Kernel = (from, into) => {
  const bytes = bytesOf(from);
  const bools = into as Uint8Array;
  for (let i = 0; i < bools.length; i++) bools[i] = bytes[i] === 0 ? 0 : 1;
};

/** Elements of 2 bytes to bool. */
export function testHalves(mask: number): Kernel {
  return (from, into) => testEach(halvesOf(from), mask, into as Uint8Array);
}

function testEach(halves: Uint16Array, mask: number, bools: Uint8Array): void {
  for (let i = 0; i < bools.length; i++) {
    bools[i] = (halves[i]! & mask) === 0 ? 0 : 1;
  }
}

/** Elements of 4 bytes to bool. */
export function testWords(mask: number): Kernel {
  return (from, into) => testWord(wordsOf(from), mask, into as Uint8Array);
}

function testWord(words: Int32Array, mask: number, bools: Uint8Array): void {
  for (let i = 0; i < bools.length; i++) {
    bools[i] = (words[i]! & mask) === 0 ? 0 : 1;
  }
}

/** Elements of two words to bool, by a mask for the first and the second. */
export function testPairs(low: number, high: number): Kernel {
  return (from, into) => testPair(wordsOf(from), low, high, into as Uint8Array);
}

function testPair(
  words: Int32Array,
  low: number,
  high: number,
  bools: Uint8Array,
): void {
  for (let i = 0, at = 0; i < bools.length; i++, at = at + 2 | 0) {
    const bits = words[at]! & low | words[at + 1 | 0]! & high;
    bools[i] = bits === 0 ? 0 : 1;
  }
}

/** complex32 to bool; it may begin within a word. */
export const testComplex32: Kernel = (from, into) => {
  const parts = halvesOf(from);
  const bools = into as Uint8Array;
  for (let i = 0; i < bools.length; i++) {
    const bits = parts[2 * i]! | parts[2 * i + 1]!;
    bools[i] = (bits & 0x7fff) === 0 ? 0 : 1;
  }
};

/** complex128 to bool. */
export const testComplex128: Kernel = (from, into) => {
  const parts = from as Float64Array;
  const bools = into as Uint8Array;
  for (let i = 0; i < bools.length; i++) {
    bools[i] = parts[2 * i] === 0 && parts[2 * i + 1] === 0 ? 0 : 1;
  }
};

/** Real parts of complex32, as float16: moved as bits, which is fast. */
export const realParts16: Kernel = (from, into) => {
  const parts = halvesOf(from);
  const reals = halvesOf(into);
  for (let i = 0; i < reals.length; i++) reals[i] = parts[2 * i]!;
};

/** Real parts of complex128, as float64. */
export const realParts64: Kernel = (from, into) => {
  const parts = from as Float64Array;
  const reals = into as Float64Array;
  for (let i = 0; i < reals.length; i++) reals[i] = parts[2 * i]!;
};

/** float16 to complex32. */
export const addImaginary16: Kernel = (from, into) => {
  const reals = halvesOf(from);
  const parts = halvesOf(into);
  for (let i = 0; i < reals.length; i++) {
    parts[2 * i] = reals[i]!;
    parts[2 * i + 1] = 0;
  }
};

/** float64 to complex128. */
export const addImaginary64: Kernel = (from, into) => {
  const reals = from as Float64Array;
  const parts = into as Float64Array;
  for (let i = 0; i < reals.length; i++) {
    parts[2 * i] = reals[i]!;
    parts[2 * i + 1] = 0;
  }
};
