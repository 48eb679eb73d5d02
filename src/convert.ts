/**
 * Converts elements from one dtype to another.
 *
 * @module
 */

import type { Complex, DTypeInfo, ElementKind, TypedArray } from "./dtype.ts";
import { allocate, copyElements, walk } from "./copy.ts";
import { elementAccess } from "./element.ts";
import { BufferError } from "./errors.ts";
import { isContiguous, type Layout, sizeOf } from "./layout.ts";

/** One side of a conversion: a dtype and how its elements lie. */
export interface Side {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** The elements. */
  readonly data: TypedArray;
}

/**
 * Converts the elements of a strided view to another dtype, in C order.
 *
 * Integers wrap around, floats are cut off towards zero on their way to
 * integers (NaN and infinities become 0) and rounded to the nearest value, ties
 * to even, on their way to narrower floats; a complex number loses its
 * imaginary part on its way to a real one; every non-zero value is `true`.
 *
 * @throws {BufferError} `"dtype"` to or from `handle`, which is no number.
 */
export function convertElements(from: Side, layout: Layout, into: Side): void {
  const size = sizeOf(layout.shape);
  const read = from.isPacked ? undefined : readerOf(from.info, into.info);
  const write = into.isPacked ? undefined : writerOf(into.info);
  if (read === undefined || write === undefined || size === 0) {
    convertOneByOne(from, layout, into);
    return;
  }
  const data = compactOf(from, layout, size);
  if (
    isPlain(from.info) && isPlain(into.info) ||
    from.info.kind === "bigint" && into.info.kind === "bigint"
  ) {
    // A typed array converts another's elements by the same rules.
    into.data.set(data as Float64Array as never);
  } else if (from.info.name === "bfloat16" && into.info.name === "float32") {
    widen(data as Uint16Array, into.data as Float32Array);
  } else if (from.info.name === "float32" && into.info.name === "bfloat16") {
    narrow(data as Float32Array, into.data as Uint16Array);
  } else if (into.info.name === "float64") {
    read(data, into.data as Float64Array);
  } else {
    for (let at = 0; at < size; at += CHUNK) {
      const end = Math.min(at + CHUNK, size);
      const numbers = chunk.subarray(0, end - at);
      read(data.subarray(at, end), numbers);
      write(numbers, into.data.subarray(at, end));
    }
  }
}

/** The elements side by side: a part of the data, or a copy. */
function compactOf(
  { info, data }: Side,
  layout: Layout,
  size: number,
): TypedArray {
  const { shape, strides, offset } = layout;
  if (isContiguous(shape, strides)) return data.subarray(offset, offset + size);
  const copy = allocate(info, false, size);
  copyElements(info, false, data, layout, copy);
  return copy;
}

/** Where there is no faster way: packed elements, complex numbers, handles. */
function convertOneByOne(from: Side, layout: Layout, into: Side): void {
  const read = elementAccess(from.info, from.isPacked);
  const write = elementAccess(into.info, into.isPacked);
  const convert = conversion(from.info, into.info);
  let index = 0;
  walk(layout, (at) => {
    write.set(into.data, index++, convert(read.get(from.data, at)));
  });
}

/** Numbers on their way between two dtypes: so few that they stay in a cache. */
const CHUNK = 1024;
const chunk = new Float64Array(CHUNK);
/** The same as float32, and their bits. */
const singles = new Float32Array(CHUNK);
const singleBits = new Uint32Array(singles.buffer);

/** Gives the numbers that elements are. */
type Read = (from: TypedArray, numbers: Float64Array) => void;

/** Makes elements of numbers. */
type Write = (numbers: Float64Array, into: TypedArray) => void;

/** Whether the typed array itself makes numbers of elements. */
function isPlain({ kind, decode }: DTypeInfo): boolean {
  return decode === undefined && (kind === "int" || kind === "float");
}

/** How to read a dtype that will be `to`; `undefined`: one by one. */
function readerOf(info: DTypeInfo, to: DTypeInfo): Read | undefined {
  const { kind, name, decode } = info;
  if (isPlain(info)) {
    return (from, numbers) => numbers.set(from as Float64Array);
  }
  if (kind === "bool") return (from, numbers) => readBools(from, numbers);
  if (name === "bfloat16") {
    return (from, numbers) => {
      for (let at = 0; at < numbers.length; at += CHUNK) {
        const part = (from as Uint16Array).subarray(at, at + CHUNK);
        widen(part, singles);
        numbers.set(singles.subarray(0, part.length), at);
      }
    };
  }
  if (decode !== undefined) {
    const values = decodeTable(info);
    return (from, numbers) => readTable(from, values, numbers);
  }
  if (kind !== "bigint") return undefined;
  const isSigned = name === "int64";
  if (to.kind === "int") {
    return (from, numbers) => readLowHalves(halvesOf(from), numbers);
  }
  const read = to.kind === "float" && to.bits < 64 ? readOdd : readHalves;
  return (from, numbers) => read(halvesOf(from), isSigned, numbers);
}

/** How to write a dtype; `undefined`: one by one. */
function writerOf(info: DTypeInfo): Write | undefined {
  const { kind, name, encode } = info;
  if (isPlain(info)) return (numbers, into) => into.set(numbers as never);
  if (kind === "bool") return writeBools;
  if (name === "bfloat16") return writeBfloat16;
  if (kind === "bigint") {
    return (numbers, into) => writeHalves(numbers, halvesOf(into));
  }
  if (encode === undefined) return undefined;
  if (kind === "int") {
    return (numbers, into) => writeCoded(numbers, encode, into);
  }
  const patterns = encodeTable(info);
  return (numbers, into) => writeTable(numbers, patterns, into);
}

function readBools(from: TypedArray, numbers: Float64Array): void {
  const bytes = from as Uint8Array;
  for (let i = 0; i < numbers.length; i++) numbers[i] = bytes[i] === 0 ? 0 : 1;
}

function writeBools(numbers: Float64Array, into: TypedArray): void {
  const bytes = into as Uint8Array;
  // NaN is true.
  for (let i = 0; i < numbers.length; i++) bytes[i] = numbers[i] === 0 ? 0 : 1;
}

/** bfloat16 is the upper half of float32. */
function widen(from: Uint16Array, into: Float32Array): void {
  const bits = new Uint32Array(into.buffer, into.byteOffset, from.length);
  for (let i = 0; i < bits.length; i++) bits[i] = from[i]! << 16;
}

/** To the nearest, ties to even; all of NaN is one pattern. */
function narrow(from: Float32Array, into: Uint16Array): void {
  const { buffer, byteOffset, length } = from;
  const bits = new Uint32Array(buffer, byteOffset, length);
  for (let i = 0; i < length; i++) {
    const pattern = bits[i]!;
    into[i] = (pattern & 0x7fffffff) > 0x7f800000
      ? 0x7fc0
      : pattern + 0x7fff + (pattern >>> 16 & 1) >>> 16;
  }
}

const decodeTables = new Map<DTypeInfo, Float64Array>();

/** The value of every byte. */
function decodeTable(info: DTypeInfo): Float64Array {
  let values = decodeTables.get(info);
  if (values === undefined) {
    const mask = (1 << info.bits) - 1;
    values = Float64Array.from(
      { length: 256 },
      (_, byte) => info.decode!(byte & mask),
    );
    decodeTables.set(info, values);
  }
  return values;
}

function readTable(
  from: TypedArray,
  values: Float64Array,
  numbers: Float64Array,
): void {
  const bytes = from as Uint8Array;
  for (let i = 0; i < numbers.length; i++) numbers[i] = values[bytes[i]!]!;
}

function writeCoded(
  numbers: Float64Array,
  encode: (value: number) => number,
  into: TypedArray,
): void {
  const bytes = into as Uint8Array;
  for (let i = 0; i < numbers.length; i++) bytes[i] = encode(numbers[i]!);
}

/**
 * Rounds numbers to float32 in a way that another rounding, to two bits fewer
 * or less, gives what one rounding would have: towards zero, and what is cut
 * off sets the last bit.
 */
function roundToOdd(numbers: Float64Array): void {
  singles.set(numbers);
  for (let i = 0; i < numbers.length; i++) {
    const number = numbers[i]!;
    const single = singles[i]!;
    if (single === number || single !== single) continue;
    const bits = singleBits[i]!;
    singleBits[i] = (Math.abs(single) > Math.abs(number) ? bits - 1 : bits) | 1;
  }
}

function writeBfloat16(numbers: Float64Array, into: TypedArray): void {
  roundToOdd(numbers);
  narrow(singles.subarray(0, numbers.length), into as Uint16Array);
}

const encodeTables = new Map<DTypeInfo, Uint8Array>();

/** The pattern for every upper half of a float32. */
function encodeTable(info: DTypeInfo): Uint8Array {
  let patterns = encodeTables.get(info);
  if (patterns === undefined) {
    const halves = Uint16Array.from({ length: 65536 }, (_, half) => half);
    const values = new Float32Array(halves.length);
    widen(halves, values);
    patterns = Uint8Array.from(values, info.encode!);
    encodeTables.set(info, patterns);
  }
  return patterns;
}

/** Floats of 8 bits or fewer: half a float32 that is rounded to odd has enough. */
function writeTable(
  numbers: Float64Array,
  patterns: Uint8Array,
  into: TypedArray,
): void {
  roundToOdd(numbers);
  const bytes = into as Uint8Array;
  for (let i = 0; i < numbers.length; i++) {
    const bits = singleBits[i]!;
    const odd = (bits & 0xffff) === 0 ? 0 : 1;
    bytes[i] = patterns[bits >>> 16 | odd]!;
  }
}

/** 64-bit integers as pairs of 32 bits, the lower one first. */
function halvesOf({ buffer, byteOffset, length }: TypedArray): Uint32Array {
  return new Uint32Array(buffer as ArrayBuffer, byteOffset, 2 * length);
}

/** Integers as the nearest float64. */
function readHalves(
  halves: Uint32Array,
  isSigned: boolean,
  numbers: Float64Array,
): void {
  for (let i = 0; i < numbers.length; i++) {
    const high = halves[2 * i + 1]!;
    numbers[i] = (isSigned ? high | 0 : high) * 2 ** 32 + halves[2 * i]!;
  }
}

/** Integers to be rounded to fewer bits than float64 has: see {@linkcode toOdd}. */
function readOdd(
  halves: Uint32Array,
  isSigned: boolean,
  numbers: Float64Array,
): void {
  for (let i = 0; i < numbers.length; i++) {
    const low = halves[2 * i]!;
    const high = isSigned ? halves[2 * i + 1]! | 0 : halves[2 * i + 1]!;
    const number = high * 2 ** 32 + low;
    if (Number.isSafeInteger(number)) numbers[i] = number;
    else {
      const odd = (low & 2047) === 0 ? 0 : 2048;
      numbers[i] = high * 2 ** 32 + ((low & ~2047 | odd) >>> 0);
    }
  }
}

/** The lower 32 bits, of which integers take what they need. */
function readLowHalves(halves: Uint32Array, numbers: Float64Array): void {
  for (let i = 0; i < numbers.length; i++) numbers[i] = halves[2 * i]!;
}

/** Integers of 64 bits, which wrap around. */
function writeHalves(numbers: Float64Array, halves: Uint32Array): void {
  for (let i = 0; i < numbers.length; i++) {
    const number = numbers[i]!;
    if (Math.abs(number) < 2 ** 31) {
      const small = number | 0;
      halves[2 * i] = small;
      halves[2 * i + 1] = small >> 31;
    } else {
      // Of NaN and infinities nothing is left, which becomes 0.
      const whole = Math.trunc(number);
      const high = Math.floor(whole / 2 ** 32);
      halves[2 * i] = whole - high * 2 ** 32;
      halves[2 * i + 1] = high;
    }
  }
}

function conversion(
  from: DTypeInfo,
  to: DTypeInfo,
): (value: unknown) => unknown {
  if (from.kind === "complex") {
    if (to.kind === "complex") return (value) => value;
    if (to.kind === "bool") {
      return (value) =>
        (value as Complex).re !== 0 || (value as Complex).im !== 0;
    }
    const real = conversion({ ...from, kind: "float" }, to);
    return (value) => real((value as Complex).re);
  }
  if (from.kind === "handle" || to.kind === "handle") {
    if (from.kind === to.kind) return (value) => value;
    throw new BufferError(
      "dtype",
      `Cannot convert ${from.name} to ${to.name}: an opaque handle is no number`,
    );
  }
  if (from.kind === "bigint" && to.array !== Float64Array) {
    if (to.kind === "float") return (value) => toOdd(value as bigint);
    if (to.kind === "complex") {
      return (value) => toComplex(toOdd(value as bigint));
    }
  }
  return scalars[from.kind][to.kind];
}

/**
 * A 64-bit integer as a number that will be rounded to fewer bits: to the
 * nearest would round twice, so what does not fit sets the last bit instead.
 */
function toOdd(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  const top = value >> 11n;
  return Number((value & 2047n) === 0n ? top : top | 1n) * 2048;
}

type Real = "bool" | "int" | "bigint" | "float";

const same = (value: unknown): unknown => value;
const toNumber = (value: unknown): number => Number(value);
const toComplex = (value: unknown): Complex => ({ re: Number(value), im: 0 });
const notZero = (value: unknown): boolean => value !== 0;

const scalars: Record<
  Real,
  Record<Exclude<ElementKind, "handle">, (value: unknown) => unknown>
> = {
  bool: {
    bool: same,
    int: toNumber,
    bigint: (value) => value ? 1n : 0n,
    float: toNumber,
    complex: toComplex,
  },
  int: {
    bool: notZero,
    int: same,
    bigint: (value) => BigInt(value as number),
    float: same,
    complex: toComplex,
  },
  bigint: {
    bool: (value) => value !== 0n,
    // Wrapped before it is a number: a large bigint would be rounded.
    int: (value) => Number(BigInt.asIntN(32, value as bigint)),
    bigint: same,
    float: toNumber,
    complex: toComplex,
  },
  float: {
    bool: notZero,
    int: same,
    bigint: (value) =>
      Number.isFinite(value) ? BigInt(Math.trunc(value as number)) : 0n,
    float: same,
    complex: toComplex,
  },
};
