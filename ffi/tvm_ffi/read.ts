/**
 * Reads what objects of TVM-FFI have in memory.
 *
 * @module
 */

import { Scratch } from "../memory.ts";
import {
  BIG_INT,
  BYTE_ARRAY,
  ERROR,
  OBJECT,
  SEQUENCE,
  SHAPE,
  TYPE,
} from "./abi.ts";
import { Anys } from "./anys.ts";

const scratch = new Scratch(ERROR.size);
const u64 = new BigUint64Array(scratch.bytes.buffer);
const i32 = new Int32Array(scratch.bytes.buffer);

function readCell(object: bigint, bytes: number): void {
  scratch.readAddress(object + BigInt(OBJECT.size), BigInt(bytes));
}

/** Copies bytes out of native memory. */
export function readBytes(
  address: bigint,
  length: bigint,
): Uint8Array<ArrayBuffer> {
  const into = new Scratch(Number(length));
  if (length > 0n) into.readAddress(address, length);
  return into.bytes;
}

/** The bytes that a `TVMFFIByteArray` shows, which is `at` a place of a struct that was read. */
function readByteArray(
  words: BigUint64Array,
  at: number,
): Uint8Array<ArrayBuffer> {
  const data = words[(at + BYTE_ARRAY.data) / 8]!;
  return readBytes(data, words[(at + BYTE_ARRAY.length) / 8]!);
}

const lossy = new TextDecoder("utf-8", { ignoreBOM: true });

/** The same as text, of names and messages: what is no UTF-8 shows as U+FFFD. */
export function readName(words: BigUint64Array, at: number): string {
  return lossy.decode(readByteArray(words, at));
}

/** How many strong references there are to an object. */
export function readCount(object: bigint): number {
  scratch.readAddress(object, BigInt(OBJECT.size));
  return i32[OBJECT.strongCount / 4]!;
}

/** The bytes of a string or bytes object: a copy. */
export function readString(object: bigint): Uint8Array<ArrayBuffer> {
  readCell(object, BYTE_ARRAY.size);
  return readByteArray(u64, 0);
}

/** The lengths of a shape. */
export function readShape(object: bigint): bigint[] {
  readCell(object, SHAPE.size);
  const count = u64[SHAPE.length / 8]!;
  const bytes = readBytes(u64[SHAPE.data / 8]!, count * 8n);
  return [...new BigInt64Array(bytes.buffer)];
}

/** How many elements an array or list has. */
export function readLength(object: bigint): number {
  readCell(object, SEQUENCE.size);
  return Number(u64[SEQUENCE.length / 8]!);
}

/**
 * The elements of an array or list, borrowed from it.
 *
 * @param most As many are read, from the first on.
 */
export function readElements(
  object: bigint,
  most = Infinity,
): { readonly length: number; readonly elements: Anys } {
  const length = Math.min(readLength(object), most);
  const elements = new Anys(length).read(u64[SEQUENCE.data / 8]!, length);
  return { length, elements };
}

/** An integer beyond 64 bits. */
export function readBigInt(object: bigint): bigint {
  readCell(object, BIG_INT.words);
  const count = u64[BIG_INT.length / 8]!;
  const words = object + BigInt(OBJECT.size + BIG_INT.words);
  const bytes = readBytes(words, count * 8n);
  let value = 0n;
  for (const word of new BigUint64Array(bytes.buffer).toReversed()) {
    value = value << 64n | word;
  }
  return BigInt.asIntN(Number(count) * 64, value);
}

/** What an error says. */
export interface ErrorText {
  /** What kind it is, by the name of Python's class. */
  readonly kind: string;
  /** What happened. */
  readonly message: string;
  /** The frames, the most recent one first. */
  readonly backtrace: string;
}

/** Reads an error object. */
export function readError(object: bigint): ErrorText {
  readCell(object, ERROR.size);
  return {
    kind: readName(u64, ERROR.kind),
    message: readName(u64, ERROR.message),
    backtrace: readName(u64, ERROR.backtrace),
  };
}

/** Whether values of a type are references to objects. */
export function isObject(type: number): boolean {
  return type >= TYPE.object;
}
