import { exportsOut } from "./export.ts";
import { ownersLive } from "./owner.ts";

/**
 * How many managed tensors there are, and their bytes.
 *
 * @category Basics
 */
export interface LiveTensors {
  /** Tensors that were imported, and capsules that nobody has consumed. */
  count: number;
  /** The bytes behind `data` of those that were imported. */
  bytes: number;
  /**
   * Exports that consumers outside of this module still hold, and the bytes of
   * their elements. A copied export is not counted: its deleter is the C
   * library's `free`, of which nobody tells.
   */
  exported: {
    /** How many. */
    count: number;
    /** The bytes of their elements. */
    bytes: number;
  };
}

/**
 * The native memory that is held through this module.
 *
 * A tensor counts until its deleter has run: at `dispose`, at the end of
 * `using`, when it was garbage collected, or at exit. If a number keeps growing,
 * something leaks.
 *
 * @returns How many managed tensors, and their bytes.
 *
 * @example Watch the memory come back
 * ```ts
 * import { fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const before = liveTensors().bytes;
 * {
 *   using t = fromDlpack(Tensor.from(new Float32Array(1000)));
 *   assertEquals(liveTensors().bytes - before, t.nbytes);
 * }
 * assertEquals(liveTensors().bytes, before);
 * ```
 *
 * @category Basics
 */
export function liveTensors(): LiveTensors {
  return { ...ownersLive(), exported: exportsOut() };
}
