/**
 * Converts elements one by one: the slower way, for where there is no
 * WebAssembly (`--jitless`). The kernels' results are its results.
 *
 * @module
 */

import { copyElements } from "../copy/elements.ts";
import { elementAccess, present } from "../dtype/element.ts";
import type { Complex, DTypeInfo, TypedArray } from "../dtype/table.ts";
import { type Layout, walk } from "../layout.ts";

/** One side of a conversion: a dtype and how its elements lie. */
export interface Side {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** The elements. */
  readonly data: TypedArray;
}

type Element = number | bigint | boolean | Complex;

/**
 * Converts the elements of a strided view to another dtype, in C order.
 *
 * @param into Where to.
 */
export function convertPlainly(from: Side, layout: Layout, into: Side): void {
  if (from.info === into.info && from.isPacked === into.isPacked) {
    return copyElements(from.info, from.isPacked, from.data, layout, into.data);
  }
  let index = 0;
  if (from.info.name === "bfloat16" && into.info.name === "float32") {
    // By its bits, as numbers do not keep those of NaN.
    const { buffer, byteOffset, length } = into.data;
    const bits = new Uint32Array(buffer, byteOffset, length);
    const halves = from.data as Uint16Array;
    return walk(layout, (at) => bits[index++] = halves[at]! << 16);
  }
  const read = elementAccess(from.info, from.isPacked);
  const write = elementAccess(into.info, into.isPacked);
  walk(layout, (at) => {
    const element = read.get(
      from.data,
      at,
      from.data.length,
      present,
    ) as Element;
    const converted = convert(element, into.info);
    write.set(into.data, index++, into.data.length, present, converted);
  });
}

/** What can be written as an element: writing wraps integers, and rounds floats. */
function convert(element: Element, to: DTypeInfo): Element {
  if (typeof element === "object") {
    const { re, im } = element;
    if (to.kind === "complex") return element;
    return to.kind === "bool" ? re !== 0 || im !== 0 : convert(re, to);
  }
  switch (to.kind) {
    case "bool":
      return Boolean(element) || Number.isNaN(element);
    case "complex":
      return { re: toFloat(element, to), im: 0 };
    case "float":
      return toFloat(element, to);
    case "int":
      return typeof element === "bigint"
        ? Number(BigInt.asIntN(32, element))
        : Number(element);
    default:
      return toBigInt(element);
  }
}

function toFloat(element: number | bigint | boolean, to: DTypeInfo): number {
  if (typeof element !== "bigint") return Number(element);
  const bits = to.kind === "complex" ? to.bits / 2 : to.bits;
  return bits === 64 ? Number(element) : toOdd(element);
}

/**
 * A 64-bit integer as a number that is to be rounded once more, to a float of 32
 * bits or fewer: what is cut off sets the last bit, so that both roundings
 * together give what one would have.
 */
function toOdd(value: bigint): number {
  if (value < 0n) return -toOdd(-value);
  const cut = 11n;
  if (value < 1n << 53n) return Number(value);
  const isCut = (value & (1n << cut) - 1n) !== 0n;
  return Number(value >> cut | (isCut ? 1n : 0n)) * 2 ** Number(cut);
}

function toBigInt(element: number | bigint | boolean): bigint {
  if (typeof element === "bigint") return element;
  const number = Number(element);
  return Number.isFinite(number) ? BigInt(Math.trunc(number)) : 0n;
}
