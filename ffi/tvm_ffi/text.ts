/**
 * Shows text and bytes to functions of TVM-FFI, which copy them.
 *
 * @module
 */

import { addressOfArray } from "../memory.ts";
import { BYTE_ARRAY } from "./abi.ts";

const encoder = new TextEncoder();

/** Text of so many bytes, or fewer, is written to memory that is there already. */
const ROOM = 4096;

/** A `TVMFFIByteArray`, and the bytes that it shows. */
class Shown {
  /** Where the struct is. */
  readonly address: bigint;
  readonly #struct: BigUint64Array<ArrayBuffer>;
  readonly #halves: Uint32Array<ArrayBuffer>;
  readonly #room: Uint8Array<ArrayBuffer>;
  readonly #start: bigint;
  /** What is shown, if that is other memory: it must not be collected. */
  #other: Uint8Array | null = null;

  constructor() {
    this.#struct = new BigUint64Array(new ArrayBuffer(BYTE_ARRAY.size));
    this.#halves = new Uint32Array(this.#struct.buffer);
    this.#room = new Uint8Array(new ArrayBuffer(ROOM));
    this.address = addressOfArray(this.#struct);
    this.#start = addressOfArray(this.#room);
  }

  showText(text: string): void {
    // A UTF-16 unit has at most 3 bytes.
    if (3 * text.length > ROOM) return this.showBytes(encoder.encode(text));
    this.#set(this.#start, encoder.encodeInto(text, this.#room).written);
  }

  showBytes(bytes: Uint8Array): void {
    this.#other = bytes;
    // Of no bytes the address must be no NULL, either.
    const start = bytes.length === 0 ? this.#start : addressOfArray(bytes);
    this.#set(start, bytes.length);
  }

  #set(start: bigint, length: number): void {
    this.#struct[BYTE_ARRAY.data / 8] = start;
    this.#halves[BYTE_ARRAY.length / 4] = length;
    this.#halves[BYTE_ARRAY.length / 4 + 1] = length / 2 ** 32;
  }
}

const shown: Shown[] = [];

/** Several calls take more than one: each has a place of its own. */
function placeOf(place: number): Shown {
  return shown[place] ??= new Shown();
}

/**
 * Shows text until the next time.
 *
 * @param place Which of several, for one call.
 * @returns The address of a `TVMFFIByteArray`.
 */
export function showText(text: string, place = 0): bigint {
  const shown = placeOf(place);
  shown.showText(text);
  return shown.address;
}

/** Shows bytes until the next time. */
export function showBytes(bytes: Uint8Array): bigint {
  const shown = placeOf(0);
  shown.showBytes(bytes);
  return shown.address;
}
