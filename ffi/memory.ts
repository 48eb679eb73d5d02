/**
 * Native memory: read, write, allocate, and seen as an ArrayBuffer.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
import { isPermitted, libc, requirePermission } from "./libc.ts";

/** A buffer of ours to read native memory into, again and again. */
export class Scratch {
  /** The bytes that were read last. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  #address: bigint | null = null;

  /** @param memory How many bytes, or the ones to use. */
  constructor(memory: number | Uint8Array<ArrayBuffer>) {
    this.bytes = typeof memory === "number"
      // A buffer of its own, outside of V8's heap: it stays where it is.
      ? new Uint8Array(new ArrayBuffer(memory))
      : memory;
  }

  /** The same memory, from byte `at` on. */
  from(at: number): Scratch {
    return new Scratch(this.bytes.subarray(at));
  }

  /** Copies `length` bytes from a pointer to the start. */
  readPointer(from: Deno.PointerObject, length: bigint): void {
    const c = libc();
    if (c === null) this.#copy(from, length);
    else c.copyFromPointer(this.#address ?? this.#locate(), from, length);
  }

  /** Copies `length` bytes from an address to the start. */
  readAddress(from: bigint, length: bigint): void {
    const c = libc();
    if (c === null) this.#copy(Deno.UnsafePointer.create(from)!, length);
    else c.copyFromAddress(this.#address ?? this.#locate(), from, length);
  }

  #locate(): bigint {
    return this.#address = addressOfArray(this.bytes);
  }

  #copy(from: Deno.PointerObject, length: bigint): void {
    const into = this.bytes.subarray(0, Number(length));
    Deno.UnsafePointerView.copyInto(from, into);
  }
}

const peeked = new Scratch(16);

/**
 * Copies one element into a buffer that is used again and again: it takes a tenth
 * of the time that an ArrayBuffer over the memory would.
 *
 * @param bytes Of the element: 16 at most.
 */
export function peek(address: number, bytes: number): ArrayBuffer {
  peeked.readAddress(BigInt(address), BigInt(bytes));
  return peeked.bytes.buffer;
}

/** Copies the first `length` bytes of an array to an address. */
export function writeAddress(
  to: bigint,
  from: Uint8Array<ArrayBuffer>,
  length: bigint,
): void {
  const c = libc();
  if (c !== null) return c.copyToAddress(to, from, length);
  const bytes = from.subarray(0, Number(length));
  new Uint8Array(bufferAt(Number(to), bytes.length)).set(bytes);
}

/**
 * The longest ArrayBuffer over native memory, in bytes: V8 before version 15
 * ends the process somewhere between this and four times as much.
 */
export const LONGEST_BUFFER: number = Number.parseInt(Deno.version.v8) < 15
  ? 2 ** 34
  : 2 ** 48;

/**
 * Copies from an address on another thread, where there is a C library.
 *
 * @param into Where to; its length is how much.
 */
export async function copyLater(
  into: Uint8Array<ArrayBuffer>,
  from: bigint,
): Promise<void> {
  const c = libc();
  if (c === null) {
    return Deno.UnsafePointerView.copyInto(pointerTo(from)!, into);
  }
  await c.copyLater(addressOfArray(into), from, BigInt(into.length))
    .then(() => into); // which must not be collected before
}

/**
 * Copies to an address on another thread, where there is a C library.
 *
 * @param to Where to.
 * @param from Its length is how much.
 */
export async function writeLater(
  to: bigint,
  from: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const length = BigInt(from.length);
  const c = libc();
  if (c === null) return writeAddress(to, from, length);
  await c.copyLater(to, addressOfArray(from), length)
    .then(() => from); // which must not be collected before
}

/** How much memory gains by huge pages, in bytes: NumPy's threshold. */
const HUGE = 4 * 1024 * 1024;
const PAGE = 4096n;
/** `MADV_HUGEPAGE` of Linux. */
const HUGE_PAGES = 14;

/**
 * Asks Linux for huge pages under memory that is still to be written, where it
 * gives them only when it is asked: to fill it then takes half the time.
 */
export function useHugePages(data: ArrayBufferView): void {
  if (data.byteLength < HUGE || Deno.build.os !== "linux") return;
  const advise = isPermitted() ? libc()?.madvise : null;
  if (!advise) return;
  const start = addressOfArray(data);
  const end = start + BigInt(data.byteLength);
  const first = start + (PAGE - start % PAGE) % PAGE;
  // When it says no, all is as before.
  advise(first, end - end % PAGE - first, HUGE_PAGES);
}

/** Where addresses are counted from: making a pointer for each takes longer. */
let first: Deno.PointerObject | undefined;

/**
 * The memory at an address as an ArrayBuffer, not copied and owned by nobody:
 * whoever asks must keep the memory alive, and detach the buffer before it
 * goes.
 *
 * @throws {BufferError} `"data"` when it is longer than V8 can bear.
 */
export function bufferAt(address: number, bytes: number): ArrayBuffer {
  if (bytes > LONGEST_BUFFER) {
    throw new BufferError(
      "data",
      `Cannot view ${bytes} bytes as one ArrayBuffer: Deno ` +
        `${Deno.version.deno} takes ${LONGEST_BUFFER} at most; update Deno`,
    );
  }
  first ??= Deno.UnsafePointer.create(1n)!;
  return Deno.UnsafePointerView.getArrayBuffer(first, bytes, address - 1);
}

/** The address that a pointer holds. */
export function addressOf(pointer: Deno.PointerObject): bigint {
  return Deno.UnsafePointer.value(pointer);
}

/**
 * The lower 32 bits of a pointer, as a signed number, which V8 handles best. They
 * are a tenth of the time to get that all of it takes.
 */
export function lowWordOf(pointer: Deno.PointerObject): number {
  const c = libc();
  return c === null
    ? Number(BigInt.asIntN(32, addressOf(pointer)))
    : c.lowWord(pointer, 0, 0n);
}

/** Whether a value is one of Deno's pointers. */
export function isPointer(value: unknown): value is Deno.PointerObject {
  try {
    Deno.UnsafePointer.value(value as Deno.PointerObject);
    return value !== null;
  } catch {
    return false;
  }
}

/** An address as a pointer: `null` for 0. */
export function pointerTo(address: bigint): Deno.PointerObject | null {
  requirePermission();
  return Deno.UnsafePointer.create(address);
}

/** Native memory of ours, all zeros at first. */
export class Block {
  readonly #bytes: number;
  #memory: bigint | Uint8Array<ArrayBuffer> | null;
  /** Where it begins: a multiple of 16. */
  readonly address: bigint;

  /** @param bytes How many. */
  constructor(bytes: number) {
    requirePermission();
    this.#bytes = bytes;
    const address = libc()?.malloc(BigInt(bytes)) ?? 0n;
    // Without a C library, JavaScript's, kept for as long as this object is.
    this.#memory = address === 0n ? new Uint8Array(bytes + 16) : address;
    if (typeof this.#memory === "bigint") {
      this.address = address;
      writeAddress(address, new Uint8Array(bytes), BigInt(bytes));
    } else {
      const start = addressOfArray(this.#memory);
      this.address = start + (16n - start % 16n) % 16n;
    }
  }

  /** Whether all bytes are still 0. */
  get isEmpty(): boolean {
    const scratch = new Scratch(this.#bytes);
    scratch.readAddress(this.address, BigInt(this.#bytes));
    return scratch.bytes.every((byte) => byte === 0);
  }

  /** Gives it back: idempotent. */
  free(): void {
    if (typeof this.#memory === "bigint") libc()?.free(this.#memory);
    this.#memory = null;
  }
}

/** The address of the first byte of a typed array in JavaScript's memory. */
export function addressOfArray(data: ArrayBufferView): bigint {
  requirePermission();
  // A small typed array lives in V8's moving heap until its buffer is asked
  // for; an empty one has no memory at all.
  if (data.buffer.byteLength === 0) return 0n;
  const pointer = Deno.UnsafePointer.of(
    data as ArrayBufferView<ArrayBuffer>,
  );
  return Deno.UnsafePointer.value(pointer);
}
