/**
 * How elements lie in bytes.
 *
 * @module
 */

import type { DTypeInfo } from "./table.ts";

/** How elements lie in bytes. */
export interface Packing {
  /** Bits from one element to the next. */
  readonly bits: number;
  /** How many elements are a whole number of bytes: more than 1 if packed. */
  readonly group: number;
}

/**
 * How the elements of a dtype lie.
 *
 * @param isPacked Whether elements of fewer than 8 bits share bytes.
 */
export function packingOf({ bits }: DTypeInfo, isPacked: boolean): Packing {
  if (isPacked) return { bits, group: 8 / (bits & -bits) };
  return { bits: 8 * Math.ceil(bits / 8), group: 1 };
}

/** The bytes of that many elements; the last one may end within a byte. */
export function bytesOf({ bits }: Packing, size: number): number {
  return Math.ceil(size * bits / 8);
}

/** The entries of the typed array that a number of elements take. */
export function entriesOf(
  info: DTypeInfo,
  isPacked: boolean,
  size: number,
): number {
  if (isPacked) return Math.ceil(size * info.bits / 8);
  return info.kind === "complex" ? 2 * size : size;
}
