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
 */
export class BufferError extends Error {
  /** Always `"BufferError"`. */
  override readonly name = "BufferError";
  /** What went wrong, for programs. */
  readonly code: BufferErrorCode;

  /**
   * Makes the error.
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
