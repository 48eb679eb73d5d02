/**
 * Values that JavaScript has no way of its own to write.
 *
 * @module
 */

import {
  describeDataType,
  type DType,
  dtypeByCode,
  dtypeByName,
  dtypeNames,
} from "../dtype/table.ts";
import { describe } from "../errors.ts";

/** A number that is passed as a float, whatever it is: made by {@linkcode float}. */
export class TvmFfiFloat {
  /** The number. */
  readonly value: number;

  /** For {@linkcode float}. */
  constructor(value: number) {
    this.value = value;
  }
}

/**
 * A number as a float, also where it is an integer, which would be passed as an
 * int.
 *
 * @param value The number.
 * @returns What to pass in its place.
 * @throws {TypeError} When it is no number.
 */
export function float(value: number): TvmFfiFloat {
  if (typeof value === "number") return new TvmFfiFloat(value);
  throw new TypeError(
    `Cannot make a float of ${describe(value)}: pass a number`,
  );
}

/** A data type as a value, a `DLDataType`: there is one object for each. */
export class TvmFfiDType {
  /** `DLDataType.code`. */
  readonly code: number;
  /** The bits of one lane. */
  readonly bits: number;
  /** The number of lanes. */
  readonly lanes: number;

  /** For {@linkcode dtype}. */
  constructor(code: number, bits: number, lanes: number) {
    this.code = code;
    this.bits = bits;
    this.lanes = lanes;
    Object.freeze(this);
  }

  /** The name of a tensor of it, `"float32"`: `undefined` where there is none. */
  get name(): DType | undefined {
    return dtypeByCode(this.code, this.bits)?.name;
  }

  /** The name with the lanes: `"float32x4"`. */
  toString(): string {
    const { code, bits, lanes } = this;
    return this.name === undefined
      ? describeDataType(code, bits, lanes)
      : lanes === 1
      ? this.name
      : `${this.name}x${lanes}`;
  }

  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    return `TvmFfiDType ${this}`;
  }
}

const dtypes = new Map<number, TvmFfiDType>();

/** For other files of this folder: the data type of these numbers. */
export function dtypeOf(
  code: number,
  bits: number,
  lanes: number,
): TvmFfiDType {
  const key = (lanes * 256 + bits) * 256 + code;
  let found = dtypes.get(key);
  if (found === undefined) {
    dtypes.set(key, found = new TvmFfiDType(code, bits, lanes));
  }
  return found;
}

/**
 * A data type as a value, for functions that take any: a name is a string to
 * them.
 *
 * @param name That of a tensor's dtype, with the number of lanes behind it if
 * these are more than one: `"float32"`, `"int8x4"`.
 * @returns The same object for the same name.
 * @throws {TypeError} When there is no such data type.
 */
export function dtype(name: string): TvmFfiDType {
  const [, base = "", lanes = "1"] = /^(.+?)(?:x(\d+))?$/.exec(String(name)) ??
    [];
  const info = typeof name === "string" ? dtypeByName(base) : undefined;
  if (info !== undefined && +lanes >= 1 && +lanes < 65536) {
    return dtypeOf(info.code, info.bits, +lanes);
  }
  throw new TypeError(
    `There is no dtype ${describe(name)}: it is one of ` +
      `${dtypeNames.join(", ")}, and "x4" behind it means 4 lanes`,
  );
}

const shapes = new WeakSet<readonly unknown[]>();

/**
 * An array of lengths that is passed as a `Shape`, for functions that take any:
 * those that take a shape take any array of integers, too.
 *
 * @param lengths The lengths.
 * @returns A frozen array of them.
 * @throws {TypeError} When one is no integer.
 */
export function shape(
  lengths: readonly (number | bigint)[],
): readonly bigint[] {
  if (!Array.isArray(lengths)) {
    throw new TypeError(
      `Cannot make a shape of ${describe(lengths)}: pass an array of integers`,
    );
  }
  const made = lengths.map((length: unknown) => {
    if (typeof length === "bigint") return length;
    if (Number.isSafeInteger(length)) return BigInt(length as number);
    throw new TypeError(
      `Cannot make a shape of ${describe(length)}: lengths are integers`,
    );
  });
  shapes.add(made);
  return Object.freeze(made);
}

/** For other files of this folder: whether it is passed as a shape. */
export function isShape(value: readonly unknown[]): boolean {
  return shapes.has(value);
}
