/**
 * Native memory: read, write, allocate, and seen as an ArrayBuffer.
 *
 * @module
 */

import { libc, requirePermission } from "./libc.ts";

/** Copies `bytes` from a pointer into the start of `into`. */
export function readPointer(
  into: Uint8Array<ArrayBuffer>,
  from: Deno.PointerObject,
  bytes: bigint,
): void {
  const c = libc();
  if (c !== null) c.copyFromPointer(into, from, bytes);
  else copyOut(into, from, bytes);
}

/** Copies `bytes` from an address into the start of `into`. */
export function readAddress(
  into: Uint8Array<ArrayBuffer>,
  from: bigint,
  bytes: bigint,
): void {
  const c = libc();
  if (c !== null) c.copyFromAddress(into, from, bytes);
  else copyOut(into, Deno.UnsafePointer.create(from)!, bytes);
}

function copyOut(
  into: Uint8Array<ArrayBuffer>,
  from: Deno.PointerObject,
  bytes: bigint,
): void {
  Deno.UnsafePointerView.copyInto(from, into.subarray(0, Number(bytes)));
}

/** Copies a whole array to an address. */
export function writeAddress(
  to: bigint,
  from: Uint8Array<ArrayBuffer>,
): void {
  const c = libc();
  if (c !== null) c.copyToAddress(to, from, BigInt(from.byteLength));
  else new Uint8Array(bufferAt(to, from.byteLength)).set(from);
}

/**
 * The memory at an address as an ArrayBuffer, not copied and owned by nobody:
 * whoever asks must keep the memory alive, and detach the buffer before it
 * goes.
 */
export function bufferAt(address: bigint, bytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(address);
  return Deno.UnsafePointerView.getArrayBuffer(pointer!, bytes);
}

/** The address that a pointer holds. */
export function addressOf(pointer: Deno.PointerObject): bigint {
  return Deno.UnsafePointer.value(pointer);
}

/** An address as a pointer: `null` for 0. */
export function pointerTo(address: bigint): Deno.PointerObject | null {
  requirePermission();
  return Deno.UnsafePointer.create(address);
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
