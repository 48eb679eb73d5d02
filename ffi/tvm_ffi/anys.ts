/**
 * Rows of `TVMFFIAny`: arguments, results and elements, by their bits.
 *
 * @module
 */

import { addressOfArray, Scratch } from "../memory.ts";
import { ANY, TYPE } from "./abi.ts";

/** The steps of an array of each kind from one value to the next. */
const I32 = ANY.size / 4;
const F64 = ANY.size / 8;
/** Where in a value its parts are. */
const TYPE_AT = ANY.typeIndex / 4;
const LENGTH_AT = ANY.smallLength / 4;
const LOW_AT = ANY.value / 4;
const VALUE_AT = ANY.value / 8;

const word = new BigUint64Array(1);
const double = new Float64Array(word.buffer);

/** The double that has the bits of a word. */
export function asDouble(value: bigint): number {
  word[0] = value;
  return double[0]!;
}

/** What is before a value, as a double: its type, and the length 0. */
export function headOf(type: number): number {
  return asDouble(BigInt(type));
}

/** Values in memory of ours. */
export class Anys {
  /** The parts of 32 bits. */
  readonly i32: Int32Array<ArrayBuffer>;
  readonly #u64: BigUint64Array<ArrayBuffer>;
  readonly #i64: BigInt64Array<ArrayBuffer>;
  readonly #f64: Float64Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** Where the first value is. */
  readonly address: bigint;
  /** Where others are, once somebody has asked. */
  readonly #addresses: bigint[] = [];

  /** @param count How many values there is room for. */
  constructor(count: number) {
    // One at least: memory of no bytes has no address.
    const buffer = new ArrayBuffer(ANY.size * Math.max(count, 1));
    this.i32 = new Int32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
    this.#i64 = new BigInt64Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    this.address = addressOfArray(this.#bytes);
  }

  /** Where a value is. */
  addressOf(i: number): bigint {
    return this.#addresses[i] ??= this.address + BigInt(ANY.size * i);
  }

  /** Copies values out of memory of others. */
  read(from: bigint, count: number): this {
    if (count === 0) return this;
    const bytes = ANY.size * count;
    new Scratch(this.#bytes).readAddress(from, BigInt(bytes));
    return this;
  }

  /** Which of `TVMFFITypeIndex` a value is. */
  typeAt(i: number): number {
    return this.i32[I32 * i + TYPE_AT]!;
  }

  /** The value as a signed integer. */
  intAt(i: number): bigint {
    return this.#i64[F64 * i + VALUE_AT]!;
  }

  /** The value as an address. */
  wordAt(i: number): bigint {
    return this.#u64[F64 * i + VALUE_AT]!;
  }

  /** The value as a double. */
  floatAt(i: number): number {
    return this.#f64[F64 * i + VALUE_AT]!;
  }

  /** The first 32 bits of the value. */
  lowAt(i: number): number {
    return this.i32[I32 * i + LOW_AT]!;
  }

  /** The other 32 bits of the value. */
  highAt(i: number): number {
    return this.i32[I32 * i + LOW_AT + 1]!;
  }

  /** The bytes of a string or of bytes that lie in the value itself: a copy. */
  smallAt(i: number): Uint8Array<ArrayBuffer> {
    const start = ANY.size * i + ANY.value;
    return this.#bytes.slice(start, start + this.i32[I32 * i + LENGTH_AT]!);
  }

  /** Puts nothing. */
  setNone(i: number): void {
    this.setWord(i, TYPE.none, 0n);
  }

  /** Puts an integer, a truth value, or the bits of something. */
  setWord(i: number, type: number, value: bigint): void {
    this.i32[I32 * i + TYPE_AT] = type;
    this.i32[I32 * i + LENGTH_AT] = 0;
    this.#i64[F64 * i + VALUE_AT] = value;
  }

  /** The same, by the two halves of the value. */
  setHalves(i: number, type: number, low: number, high: number): void {
    const { i32 } = this;
    const at = I32 * i;
    i32[at + TYPE_AT] = type;
    i32[at + LENGTH_AT] = 0;
    i32[at + LOW_AT] = low;
    i32[at + LOW_AT + 1] = high;
  }

  /** The same by doubles of these bits: two are written faster than four halves. */
  setBits(i: number, head: number, bits: number): void {
    this.#f64[F64 * i] = head;
    this.#f64[F64 * i + VALUE_AT] = bits;
  }

  /** Puts a double. */
  setFloat(i: number, value: number): void {
    this.i32[I32 * i + TYPE_AT] = TYPE.float;
    this.i32[I32 * i + LENGTH_AT] = 0;
    this.#f64[F64 * i + VALUE_AT] = value;
  }
}
