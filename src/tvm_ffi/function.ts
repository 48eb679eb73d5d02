import type { Reference } from "../../ffi/tvm_ffi/reference.ts";
import { referByFunction, referenceOfFunction } from "./object.ts";
import type { Values } from "./values.ts";

/**
 * A function of a library of TVM-FFI: called as any function of JavaScript.
 *
 * | in the library | as an argument | as a result |
 * | --- | --- | --- |
 * | nothing | `null` | `null` |
 * | bool | boolean | boolean |
 * | int | an integer number, or a bigint | bigint |
 * | float | another number, or `float(x)` | number |
 * | string | string | string |
 * | bytes | Uint8Array | Uint8Array, a copy |
 * | Tensor, and `DLTensor*` | `Tensor` or `DlpackCapsule`, not copied | `Tensor`; of a device `DlpackCapsule` |
 * | dtype | `dtype("float32")`, or a string | `TvmFfiDType` |
 * | device | `{ type: "cuda", id: 0 }`, or a string | the same |
 * | Array | array | array |
 * | Map | Map | Map |
 * | Shape | `shape([2, 3])`, or an array | the same |
 * | List, Dict | what a function returned | `TvmFfiObject` that can be iterated |
 * | Function | a function | `TvmFfiFunction` |
 * | another object | `TvmFfiObject` | `TvmFfiObject` |
 * | an address | `addressOf(t)`, a bigint; `Deno.PointerObject` | bigint; `Deno.PointerObject` |
 *
 * A function of JavaScript that is an argument must give its result at once: it
 * cannot be async. What it throws is thrown by the native call.
 */
export interface TvmFfiFunction extends Disposable {
  /**
   * Calls the function.
   *
   * @throws {TvmFfiError} When it raises an error, of a wrong number or kind of
   * arguments, for example.
   * @throws {TypeError} When there is no such value in TVM-FFI.
   * @throws {RangeError} When an integer does not fit into 64 bits.
   */
  // deno-lint-ignore no-explicit-any
  (...args: any[]): any;
  /** Its name, where that is known. */
  readonly name: string;
}

class Callee extends Function {
  /** Gives the reference up. Idempotent. */
  [Symbol.dispose](): void {
    referenceOfFunction(this)?.drop();
  }

  [Symbol.for("Deno.customInspect")](): string {
    return `TvmFfiFunction${this.name === "" ? "" : ` ${this.name}`}`;
  }
}

/** For other files of this folder: a function that owns a reference. */
export function makeFunction(
  values: Values,
  reference: Reference,
  name: string,
): TvmFfiFunction {
  const call = values.caller(reference, name);
  Object.defineProperty(call, "name", { value: name, configurable: true });
  Object.setPrototypeOf(call, Callee.prototype);
  referByFunction(call, reference);
  return call as unknown as TvmFfiFunction;
}
