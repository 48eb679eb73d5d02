/**
 * Converts elements from one dtype to another.
 *
 * @module
 */

import type { Complex, DTypeInfo, ElementKind, TypedArray } from "./dtype.ts";
import { walk } from "./copy.ts";
import { elementAccess } from "./element.ts";
import { BufferError } from "./errors.ts";
import type { Layout } from "./layout.ts";

/** One side of a conversion: a dtype and how its elements lie. */
export interface Side {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** The elements. */
  readonly data: TypedArray;
}

/**
 * Converts the elements of a strided view to another dtype, in C order.
 *
 * Integers wrap around, floats are cut off towards zero on their way to
 * integers (NaN and infinities become 0) and rounded to the nearest value, ties
 * to even, on their way to narrower floats; a complex number loses its
 * imaginary part on its way to a real one; every non-zero value is `true`.
 *
 * @throws {BufferError} `"dtype"` to or from `handle`, which is no number.
 */
export function convertElements(from: Side, layout: Layout, into: Side): void {
  const read = elementAccess(from.info, from.isPacked);
  const write = elementAccess(into.info, into.isPacked);
  const convert = conversion(from.info, into.info);
  let index = 0;
  walk(layout, (at) => {
    write.set(into.data, index++, convert(read.get(from.data, at)));
  });
}

function conversion(
  from: DTypeInfo,
  to: DTypeInfo,
): (value: unknown) => unknown {
  if (from.kind === "complex") {
    if (to.kind === "complex") return (value) => value;
    if (to.kind === "bool") {
      return (value) =>
        (value as Complex).re !== 0 || (value as Complex).im !== 0;
    }
    const real = conversion({ ...from, kind: "float" }, to);
    return (value) => real((value as Complex).re);
  }
  if (from.kind === "handle" || to.kind === "handle") {
    if (from.kind === to.kind) return (value) => value;
    throw new BufferError(
      "dtype",
      `Cannot convert ${from.name} to ${to.name}: an opaque handle is no number`,
    );
  }
  if (from.kind === "bigint" && to.array !== Float64Array) {
    if (to.kind === "float") return (value) => toOdd(value as bigint);
    if (to.kind === "complex") {
      return (value) => toComplex(toOdd(value as bigint));
    }
  }
  return scalars[from.kind][to.kind];
}

/**
 * A 64-bit integer as a number that will be rounded to fewer bits: to the
 * nearest would round twice, so what does not fit sets the last bit instead.
 */
function toOdd(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  const top = value >> 11n;
  return Number((value & 2047n) === 0n ? top : top | 1n) * 2048;
}

type Real = "bool" | "int" | "bigint" | "float";

const same = (value: unknown): unknown => value;
const toNumber = (value: unknown): number => Number(value);
const toComplex = (value: unknown): Complex => ({ re: Number(value), im: 0 });
const notZero = (value: unknown): boolean => value !== 0;

const scalars: Record<
  Real,
  Record<Exclude<ElementKind, "handle">, (value: unknown) => unknown>
> = {
  bool: {
    bool: same,
    int: toNumber,
    bigint: (value) => value ? 1n : 0n,
    float: toNumber,
    complex: toComplex,
  },
  int: {
    bool: notZero,
    int: same,
    bigint: (value) => BigInt(value as number),
    float: same,
    complex: toComplex,
  },
  bigint: {
    bool: (value) => value !== 0n,
    // Wrapped before it is a number: a large bigint would be rounded.
    int: (value) => Number(BigInt.asIntN(32, value as bigint)),
    bigint: same,
    float: toNumber,
    complex: toComplex,
  },
  float: {
    bool: notZero,
    int: same,
    bigint: (value) =>
      Number.isFinite(value) ? BigInt(Math.trunc(value as number)) : 0n,
    float: same,
    complex: toComplex,
  },
};
