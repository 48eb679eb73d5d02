/**
 * What went wrong with a tensor that cannot be exchanged:
 *
 * - `"version"`: the struct is of another DLPack major version, or is not the
 *   struct it was said to be
 * - `"device"`: the memory is where it cannot be reached
 * - `"dtype"`: the data type is not one of {@linkcode DType}
 * - `"shape"`: the number of axes, a length or a stride makes no sense
 * - `"data"`: the data pointer makes no sense
 * - `"copy"`: a copy is needed but was forbidden, or cannot be made
 * - `"readonly"`: a read-only tensor was to be written to
 * - `"consumed"`: the capsule was used before
 * - `"released"`: the memory was given back, or away
 * - `"layout"`: the strides allow it only by a copy
 *
 * @category Basics
 */
export type BufferErrorCode =
  | "version"
  | "device"
  | "dtype"
  | "shape"
  | "data"
  | "copy"
  | "readonly"
  | "consumed"
  | "released"
  | "layout";

/**
 * Thrown for a tensor that cannot be exchanged, like Python's `BufferError`.
 * The message says what was asked, what was found and the way out; the
 * {@linkcode BufferError.code | code} is for programs.
 *
 * @example Catch what cannot be shared
 * ```ts
 * import { BufferError, Tensor } from "@dlpack/deno";
 * import { assert } from "@std/assert";
 *
 * const t = Tensor.from(new Float32Array(4), [4], { readOnly: true });
 * try {
 *   t.set(0, 1);
 * } catch (error) {
 *   assert(error instanceof BufferError && error.code === "readonly");
 * }
 * ```
 *
 * @category Basics
 */
export class BufferError extends Error {
  /** Always `"BufferError"`. */
  override readonly name = "BufferError";
  /** What went wrong, for programs. */
  readonly code: BufferErrorCode;

  /**
   * An error about a tensor.
   *
   * @param code What went wrong, for programs.
   * @param message What was asked, what was found, and the way out.
   * @param options The `cause`, as for any `Error`.
   */
  constructor(code: BufferErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What tensors and capsules are known by to every copy of this module. */
export const MODULE = Symbol.for("@dlpack/deno");

/** The classes of this copy: all others that have the symbol are of another. */
export const ourClasses = new WeakSet<object>();

/** A value as messages show it: `"text"`, `3`, `an array`, `a Float32Array`. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(
        value.length > 40 ? `${value.slice(0, 40)}…` : value,
      );
    case "function":
      return "a function";
    case "bigint":
      return `${value}n`;
    case "object":
      return value === null ? "null" : describeObject(value);
    default:
      return String(value);
  }
}

function describeObject(value: object): string {
  if (Array.isArray(value)) return "an array";
  // Deno's pointers are objects without a prototype.
  if (Object.getPrototypeOf(value) === null) return "a pointer";
  const made = value.constructor;
  const name: unknown = made?.name;
  if (typeof name !== "string" || name === "" || name === "Object") {
    return "an object";
  }
  return MODULE in value && !ourClasses.has(made)
    ? `${withArticle(name)} of another copy of @dlpack/deno`
    : withArticle(name);
}

/** A noun with "a" or "an" before it. */
export function withArticle(noun: string): string {
  // "a uint8" and "a float32", but "an int8" and "an f32".
  return `${/^([aeio]|f\d)/i.test(noun) ? "an" : "a"} ${noun}`;
}

/**
 * Checks an option that is true or false.
 *
 * @throws {TypeError} When it is neither.
 */
export function checkFlag(name: string, flag: unknown): boolean | undefined {
  if (flag === undefined || typeof flag === "boolean") return flag;
  throw new TypeError(
    `The option "${name}" must be true or false, not ${describe(flag)}`,
  );
}

/**
 * Checks the last argument of a function.
 *
 * @throws {TypeError} When it is no object.
 */
export function checkOptions(of: string, options: unknown): void {
  if (
    typeof options === "object" && options !== null &&
    !Array.isArray(options) && !ArrayBuffer.isView(options) &&
    !(MODULE in options)
  ) return;
  throw new TypeError(
    `The options of ${of} must be an object, not ${describe(options)}`,
  );
}
