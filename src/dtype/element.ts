import { describe, withArticle } from "../errors.ts";
import type { Complex, DTypeInfo, TypedArray } from "./table.ts";

/** Reads and writes single elements of a dtype in its typed array. */
export interface ElementAccess {
  /** The element at an index, counted in elements. */
  get(data: TypedArray, index: number): unknown;
  /** Writes one; the value has been checked. */
  set(data: TypedArray, index: number, value: unknown): void;
}

type Numbers = { [index: number]: number };
type Values = { [index: number]: unknown };

const plain: ElementAccess = {
  get: (data, index) => data[index],
  set: (data, index, value) => (data as unknown as Values)[index] = value,
};

const bool: ElementAccess = {
  get: (data, index) => data[index] !== 0,
  set: (data, index, value) => (data as Numbers)[index] = value ? 1 : 0,
};

const complex: ElementAccess = {
  get(data, index): Complex {
    const numbers = data as Numbers;
    return { re: numbers[2 * index]!, im: numbers[2 * index + 1]! };
  },
  set(data, index, value) {
    const numbers = data as Numbers;
    numbers[2 * index] = (value as Complex).re;
    numbers[2 * index + 1] = (value as Complex).im;
  },
};

function coded(
  decode: (bits: number) => number,
  encode: (value: number) => number,
  mask: number,
): ElementAccess {
  return {
    get: (data, index) => decode((data as Numbers)[index]! & mask),
    set: (data, index, value) =>
      (data as Numbers)[index] = encode(value as number),
  };
}

function packed(
  decode: (bits: number) => number,
  encode: (value: number) => number,
  bits: number,
): ElementAccess {
  return {
    get: (data, index) =>
      decode(readBits(data as Uint8Array, index * bits, bits)),
    set: (data, index, value) =>
      writeBits(
        data as Uint8Array,
        index * bits,
        bits,
        encode(value as number),
      ),
  };
}

/**
 * Up to 8 bits, which may lie in two bytes, the first ones in the lowest bits.
 *
 * @param at Where the first one is, counted in bits.
 */
export function readBits(data: Uint8Array, at: number, count: number): number {
  const shift = at % 8;
  const byte = (at - shift) / 8;
  let bits = data[byte]! >>> shift;
  if (shift + count > 8) bits |= data[byte + 1]! << 8 - shift;
  return bits & (1 << count) - 1;
}

/**
 * Writes up to 8 bits, and leaves their neighbours alone.
 *
 * @param at Where the first one goes to, counted in bits.
 */
export function writeBits(
  data: Uint8Array,
  at: number,
  count: number,
  bits: number,
): void {
  const shift = at % 8;
  const byte = (at - shift) / 8;
  const mask = (1 << count) - 1;
  data[byte] = data[byte]! & ~(mask << shift) | bits << shift;
  if (shift + count > 8) {
    const above = 8 - shift;
    data[byte + 1] = data[byte + 1]! & ~(mask >>> above) | bits >>> above;
  }
}

const cache = new Map<DTypeInfo, ElementAccess>();
const packedCache = new Map<DTypeInfo, ElementAccess>();

/**
 * How to read and write the elements of a dtype.
 *
 * @param info The dtype.
 * @param isPacked Whether elements of fewer than 8 bits share bytes.
 */
export function elementAccess(
  info: DTypeInfo,
  isPacked: boolean,
): ElementAccess {
  const known = isPacked ? packedCache : cache;
  let access = known.get(info);
  if (access === undefined) known.set(info, access = make(info, isPacked));
  return access;
}

function make(info: DTypeInfo, isPacked: boolean): ElementAccess {
  const { kind, decode, encode, bits } = info;
  if (decode !== undefined && encode !== undefined) {
    return isPacked
      ? packed(decode, encode, bits)
      : coded(decode, encode, (1 << bits) - 1);
  }
  return kind === "bool" ? bool : kind === "complex" ? complex : plain;
}

/**
 * Checks that a value can be an element.
 *
 * @throws {TypeError} When it is of another kind.
 */
export function checkElement(info: DTypeInfo, value: unknown): void {
  const { kind, name } = info;
  const found = typeof value;
  const wanted = kind === "int" || kind === "float"
    ? "number"
    : kind === "bool"
    ? "boolean"
    : "bigint";
  if (kind === "complex") {
    const { re, im } = (value ?? {}) as Partial<Complex>;
    if (typeof re === "number" && typeof im === "number") return;
  } else if (found === wanted) return;
  const isPlain = ["number", "bigint", "boolean", "string"].includes(found);
  throw new TypeError(
    `Cannot set an element of ${withArticle(name)} tensor to ` +
      `${isPlain ? withArticle(found) : describe(value)}: pass ` +
      (kind === "complex" ? "{ re, im } with two numbers" : `a ${wanted}`),
  );
}
