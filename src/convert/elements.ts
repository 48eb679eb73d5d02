/**
 * Converts elements from one dtype to another.
 *
 * @module
 */

import { copyOf, elementsOf } from "../copy/elements.ts";
import { allocate, giveBack } from "../copy/memory.ts";
import { readBits, writeBits } from "../dtype/element.ts";
import type { DTypeInfo, TypedArray } from "../dtype/table.ts";
import { BufferError } from "../errors.ts";
import { isContiguous, type Layout, sizeOf, walk } from "../layout.ts";
import { isAvailable } from "../wasm/stage.ts";
import { CHUNK, packers, unpackers } from "./kernels.ts";
import { convertPlainly, type Side } from "./plain.ts";
import { encoded, stepsBetween } from "./plan.ts";

/**
 * Converts the elements of a strided view to another dtype, in C order.
 *
 * Integers wrap around, floats are cut off towards zero on their way to
 * integers (NaN and infinities become 0) and rounded to the nearest value, ties
 * to even, on their way to narrower floats; a complex number loses its
 * imaginary part on its way to a real one; every non-zero value is `true`.
 *
 * @param into Where to; elements of fewer than 8 bits will share bytes.
 * @throws {BufferError} `"dtype"` to or from `handle`, which is no number.
 */
export function convertElements(from: Side, layout: Layout, into: Side): void {
  checkNumbers(from.info, into.info);
  const size = sizeOf(layout.shape);
  if (size === 0) return;
  if (!isAvailable()) return convertPlainly(from, layout, into);
  const data = compactOf(from, layout, size);
  convertCompact(from.info, data, size, into);
  if (data.buffer !== from.data.buffer) giveBack(data);
}

/** Converts elements that lie side by side in whole bytes. */
function convertCompact(
  info: DTypeInfo,
  data: TypedArray,
  size: number,
  into: Side,
): void {
  const steps = stepsBetween(info, into.info);
  if (steps.length === 1 && into.info.bits >= 8) {
    return steps[0]!.kernel(data, into.data);
  }
  for (let start = 0; start < size; start += CHUNK) {
    const end = Math.min(start + CHUNK, size);
    let chunk = elementsOf(info, data, start, end);
    for (const { kernel, scratch } of steps) {
      const next = scratch?.subarray(0, end - start) ??
        elementsOf(into.info, into.data, start, end);
      kernel(chunk, next);
      chunk = next;
    }
    if (into.info.bits < 8) pack(into, start, end);
  }
}

function checkNumbers(from: DTypeInfo, to: DTypeInfo): void {
  if (from === to || from.kind !== "handle" && to.kind !== "handle") return;
  throw new BufferError(
    "dtype",
    `Cannot convert ${from.name} to ${to.name}: an opaque handle is no number`,
  );
}

/** The elements side by side in whole bytes: a part of the data, or a copy. */
function compactOf(
  { info, isPacked, data }: Side,
  layout: Layout,
  size: number,
): TypedArray {
  const { shape, strides, offset } = layout;
  if (!isPacked && isContiguous(shape, strides)) {
    return elementsOf(info, data, offset, offset + size);
  }
  if (!isPacked) return copyOf(info, false, data, layout);
  const copy = allocate(info, false, size);
  unpack(data as Uint8Array, info.bits, layout, copy);
  return copy;
}

/** Gives each element a byte of its own. */
function unpack(
  data: Uint8Array,
  bits: number,
  layout: Layout,
  into: TypedArray,
): void {
  const { shape, strides, offset } = layout;
  const unpacker = unpackers[bits];
  const at = offset * bits / 8;
  if (unpacker && isContiguous(shape, strides) && Number.isInteger(at)) {
    const bytes = Math.ceil(into.length * bits / 8);
    return unpacker(data.subarray(at, at + bytes), into);
  }
  let index = 0;
  walk(layout, (at) => into[index++] = readBits(data, at * bits, bits));
}

/** Lets the elements in `encoded` share bytes; `start` begins on a byte. */
function pack(
  { info: { bits }, data }: Side,
  start: number,
  end: number,
): void {
  const bytes = data as Uint8Array;
  const count = end - start;
  const packer = packers[bits];
  if (packer === undefined) {
    for (let i = 0; i < count; i++) {
      writeBits(bytes, (start + i) * bits, bits, encoded[i]!);
    }
    return;
  }
  const at = start * bits / 8;
  const whole = Math.ceil(count * bits / 8) * 8 / bits;
  encoded.fill(0, count, whole);
  packer(encoded.subarray(0, whole), bytes.subarray(at));
}
