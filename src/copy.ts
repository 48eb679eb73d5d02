/**
 * Copies strided elements into C order, bit for bit.
 *
 * @module
 */

import type { DTypeInfo, TypedArray } from "./dtype.ts";
import { readBits, writeBits } from "./element.ts";
import { BufferError } from "./errors.ts";
import { type Layout, sizeOf } from "./layout.ts";

/** Entries of the typed array that so many elements take. */
export function entriesOf(
  info: DTypeInfo,
  isPacked: boolean,
  size: number,
): number {
  if (isPacked) return Math.ceil(size * info.bits / 8);
  return info.kind === "complex" ? 2 * size : size;
}

/**
 * A typed array for so many elements.
 *
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function allocate(
  info: DTypeInfo,
  isPacked: boolean,
  size: number,
): TypedArray {
  const entries = entriesOf(info, isPacked, size);
  try {
    return new info.array(entries);
  } catch (cause) {
    const bytes = entries * info.array.BYTES_PER_ELEMENT;
    throw new BufferError(
      "copy",
      `Cannot copy a tensor of ${size} ${info.name} elements: there is no ` +
        `memory for ${bytes} bytes`,
      { cause },
    );
  }
}

/**
 * Copies the elements of a strided view to the start of `into`, in C order.
 *
 * @param info The dtype of both.
 * @param isPacked Whether both pack elements of fewer than 8 bits.
 * @param from The typed array that the layout is about.
 * @param layout Which elements, in which order.
 * @param into Where to; it must not overlap `from`.
 */
export function copyElements(
  info: DTypeInfo,
  isPacked: boolean,
  from: TypedArray,
  layout: Layout,
  into: TypedArray,
): void {
  if (isPacked) {
    let index = 0;
    walk(layout, (at) => {
      const raw = readBits(from as Uint8Array, at, info.bits);
      writeBits(into as Uint8Array, index++, info.bits, raw);
    });
    return;
  }
  const bytes = info.kind === "complex"
    ? 2 * info.array.BYTES_PER_ELEMENT
    : info.array.BYTES_PER_ELEMENT;
  const unit = unitFor(bytes, from.byteOffset | into.byteOffset);
  copyUnits(
    rawView(from, unit),
    planCopy(layout, bytes / unit),
    rawView(into, unit),
  );
}

/** The widest integer to move elements by: a typed array must be aligned. */
function unitFor(bytes: number, byteOffset: number): number {
  let unit = Math.min(bytes, 8);
  while (byteOffset % unit !== 0) unit /= 2;
  return unit;
}

/** The bits as they are: floats would turn signalling NaNs into quiet ones. */
function rawView(data: TypedArray, unit: number): Uint8Array {
  const View = unit === 8
    ? BigUint64Array
    : unit === 4
    ? Uint32Array
    : unit === 2
    ? Uint16Array
    : Uint8Array;
  // All four do the same here: one type stands for them.
  return new View(
    data.buffer as ArrayBuffer,
    data.byteOffset,
    data.byteLength / unit,
  ) as Uint8Array;
}

/**
 * The same elements in the same order, in units of which an element has
 * `units`, by as few axes as possible: axes of length 1 are gone and axes that
 * step evenly are one.
 */
export function planCopy(layout: Layout, units = 1): Layout {
  const shape: number[] = [];
  const strides: number[] = [];
  const add = (length: number, stride: number): void => {
    if (length === 1) return;
    const last = shape.length - 1;
    if (last >= 0 && strides[last] === length * stride) {
      shape[last] = shape[last]! * length;
      strides[last] = stride;
    } else {
      shape.push(length);
      strides.push(stride);
    }
  };
  layout.shape.forEach((length, axis) =>
    add(length, layout.strides[axis]! * units)
  );
  add(units, 1);
  return { shape, strides, offset: layout.offset * units };
}

/** Rows shorter than this are faster copied by a loop. */
const SHORT_ROW = 64;

function copyUnits(from: Uint8Array, plan: Layout, into: Uint8Array): void {
  const { shape, strides } = plan;
  if (sizeOf(shape) === 0) return;
  const ndim = shape.length;
  if (ndim === 0) {
    into[0] = from[plan.offset]!;
    return;
  }
  const length = shape[ndim - 1]!;
  const stride = strides[ndim - 1]!;
  let index = 0;
  const rows = {
    shape: shape.slice(0, -1),
    strides: strides.slice(0, -1),
    offset: plan.offset,
  };
  walk(rows, (at) => {
    if (stride === 1 && length >= SHORT_ROW) {
      into.set(from.subarray(at, at + length), index);
      index += length;
    } else if (stride === 0) {
      into.fill(from[at]!, index, index += length);
    } else {
      for (let i = 0; i < length; i++, at += stride) into[index++] = from[at]!;
    }
  });
}

/** Visits the index of every element of a layout, in C order. */
export function walk(layout: Layout, visit: (at: number) => void): void {
  const { shape, strides } = layout;
  const ndim = shape.length;
  if (sizeOf(shape) === 0) return;
  const counter = new Array<number>(ndim).fill(0);
  let at = layout.offset;
  while (true) {
    visit(at);
    let axis = ndim - 1;
    for (; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++counter[axis]! < shape[axis]!) break;
      at -= shape[axis]! * strides[axis]!;
      counter[axis] = 0;
    }
    if (axis < 0) return;
  }
}
