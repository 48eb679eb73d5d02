/**
 * Native functions that take and return tensors: pointers for tensors, and
 * capsules for pointers.
 *
 * @module
 */

import { VERSION } from "../../ffi/abi.ts";
import type { Loan } from "../../ffi/export.ts";
import type { ManagedName } from "../../ffi/header.ts";
import { isPointer } from "../../ffi/memory.ts";
import { claim, type KeptOpen } from "../../ffi/owner.ts";
import { capsuleOf, consume, DlpackCapsule } from "../capsule.ts";
import { BufferError } from "../errors.ts";
import { loanOf, Tensor } from "../tensor/class.ts";
import { lendOut, OutCapsule, takeBack } from "./out_capsule.ts";
import type { TensorFunction, TensorParameterType } from "./types.ts";

/** A native function, or what stands for it. */
export type Callable = (...args: unknown[]) => unknown;

/** The library that a function is in. */
export interface Callee extends KeptOpen {
  /**
   * Keeps it open for one call, until `release`.
   *
   * @throws {Deno.errors.BadResource} When it was closed.
   */
  enter(symbol: string): void;
}

/** The structs that change hands, by C's spelling of a pointer to them. */
const managed = new Map<unknown, ManagedName>([
  ["DLManagedTensor*", "dltensor"],
  ["DLManagedTensorVersioned*", "dltensor_versioned"],
]);

/** The same for parameters that the callee fills. */
const filled = new Map<unknown, ManagedName>([
  ["DLManagedTensor**", "dltensor"],
  ["DLManagedTensorVersioned**", "dltensor_versioned"],
]);

/** A function's definition as Deno knows it. */
export function nativeDefinition(
  definition: TensorFunction,
): Deno.ForeignFunction {
  const { parameters, result } = definition;
  return {
    ...definition,
    parameters: parameters.map((type) => {
      // An address as a bigint is what Deno passes fastest.
      if (type === "DLTensor*") return "u64";
      if (managed.has(type)) return "pointer";
      if (filled.has(type)) return "buffer";
      return type as Deno.NativeType;
    }),
    result: managed.has(result) ? "pointer" : result as Deno.NativeResultType,
  };
}

/**
 * What stands for a native function in `symbols`: the function itself where it
 * has none of DLPack's types, and nobody needs to know when it is over.
 */
export function bind(
  symbol: string,
  definition: TensorFunction,
  native: Callable,
  library: Callee,
): Callable {
  const { parameters, nonblocking } = definition;
  const name = managed.get(definition.result);
  const result = name === undefined
    ? null
    : (pointer: unknown) => own(pointer, name, library);
  if (nonblocking) {
    const begin = beginner(symbol, definition, library);
    return async (...args) => {
      using _call = begin(args);
      const value = await native(...args);
      return result === null ? value : result(value);
    };
  }
  if (parameters.some((type) => managed.has(type) || filled.has(type))) {
    const begin = beginner(symbol, definition, library);
    return (...args) => {
      using _call = begin(args);
      const value = native(...args);
      return result === null ? value : result(value);
    };
  }
  if (result === null && !parameters.includes("DLTensor*")) return native;
  return borrower(symbol, parameters, native, library, result);
}

/** A capsule for the tensor that a function returned. */
function own(
  pointer: unknown,
  name: ManagedName,
  library: Callee,
): DlpackCapsule | null {
  if (pointer === null) return null;
  const owner = claim(pointer as Deno.PointerObject, name);
  owner.keepOpen(library);
  return capsuleOf(owner);
}

let compiled = 0;

/**
 * Stands for a function that borrows tensors and takes over none.
 *
 * It is compiled from text of its own: V8 keeps what it learns of a call by
 * the text it is in, and makes a direct call only where it has seen but one
 * function. Of a closure that all symbols share, each call would cost what
 * Deno's slow path does, 75 ns. The text has no names in it, only numbers.
 */
function borrower(
  symbol: string,
  parameters: readonly TensorParameterType[],
  native: Callable,
  library: Callee,
  result: ((pointer: unknown) => unknown) | null,
): Callable {
  const wheres = places(symbol, parameters);
  const lend = (tensor: unknown, index: number): Loan =>
    beginLoan(tensor, wheres[index]!);
  const all = [...parameters.keys()];
  const lent = all.filter((i) => parameters[i] === "DLTensor*");
  const args = all.map((i) =>
    lent.includes(i) ? `loan${i}.address` : `arg${i}`
  );
  const call = `native(${args.join(", ")})`;
  const text = `"use strict";
    // ${++compiled}: no two texts are the same
    return (${all.map((i) => `arg${i}`).join(", ")}) => {
      library.enter(symbol);
      ${lent.map((i) => `let loan${i};`).join(" ")}
      try {
        ${lent.map((i) => `loan${i} = lend(arg${i}, ${i});`).join(" ")}
        return ${result === null ? call : `result(${call})`};
      } finally {
        ${lent.map((i) => `loan${i}?.end();`).join(" ")}
        library.release();
      }
    };`;
  return new Function("native", "library", "symbol", "lend", "result", text)(
    native,
    library,
    symbol,
    lend,
    result,
  );
}

/** Lends a tensor until the loan's `end`. */
function beginLoan(tensor: unknown, where: string): Loan {
  const loan = loanOf(tensor);
  if (loan === null) throw wrongArgument(tensor, where, "a Tensor");
  loan.begin();
  return loan;
}

/**
 * Gives the function that begins a call: it puts what C gets in the place of
 * tensors and capsules, or throws before any of them has changed hands. What
 * it gives is to be disposed when the call is over.
 */
function beginner(
  symbol: string,
  { parameters, nonblocking = false }: TensorFunction,
  library: Callee,
): (args: unknown[]) => Disposable {
  const wheres = places(symbol, parameters);
  const moves = parameters.some((type) => managed.has(type));
  return (args) => {
    using call = new DisposableStack();
    library.enter(symbol);
    call.defer(() => library.release());
    const moved = new Map<DlpackCapsule, number>();
    parameters.forEach((type, i) => {
      const value = args[i];
      const where = wheres[i]!;
      const moveAs = managed.get(type);
      const fillAs = filled.get(type);
      if (type === "DLTensor*") {
        const loan = beginLoan(value, where);
        call.defer(() => loan.end());
        args[i] = loan.address;
      } else if (moveAs !== undefined) {
        const capsule = toMove(value, moveAs, where);
        // Ours, and released here if it is not moved after all.
        if (capsule !== value) call.use(capsule);
        if (moved.has(capsule)) throw twice(where);
        moved.set(capsule, i);
      } else if (fillAs !== undefined) {
        if (!(value instanceof OutCapsule)) {
          throw wrongArgument(value, where, "an OutCapsule");
        }
        const cell = lendOut(value);
        if (cell === null) throw twice(where);
        call.defer(() => takeBack(value, fillAs, library));
        args[i] = cell;
      } else if (moves && !isNative(value, type, nonblocking)) {
        // Deno would find it when the tensors have been moved.
        throw wrongArgument(value, where, "what Deno's FFI takes for it");
      }
    });
    for (const [capsule, i] of moved) args[i] = moveTo(library, capsule);
    return call.move();
  };
}

/**
 * The capsule to move for an argument.
 *
 * @throws {BufferError} When it is used, or of the other struct, or the tensor
 * cannot be exported.
 */
function toMove(
  value: unknown,
  name: ManagedName,
  where: string,
): DlpackCapsule {
  if (value instanceof Tensor) {
    return value.__dlpack__(name === "dltensor" ? {} : { maxVersion: VERSION });
  }
  if (!(value instanceof DlpackCapsule)) {
    throw wrongArgument(value, where, "a Tensor or a DlpackCapsule");
  }
  const capsule = value.__dlpack__(); // throws when it was used before
  if (capsule.name === name) return capsule;
  throw new BufferError(
    "version",
    `Cannot pass a "${capsule.name}" capsule to ${where}: it takes a ` +
      `"${name}"; import it with fromDlpack() and pass the Tensor`,
  );
}

/** Moves a managed tensor into a library. */
function moveTo(library: Callee, capsule: DlpackCapsule): Deno.PointerObject {
  const owner = consume(capsule);
  const pointer = owner.moveAway();
  // Back where it came from: a library need not stay open for itself.
  if (owner.library === library) library.release();
  return pointer;
}

/**
 * Whether Deno converts a value to a native type; where in doubt, not. Of
 * integers it takes no other ones than 32 bits hold, also for narrower types.
 */
function isNative(
  value: unknown,
  type: TensorParameterType,
  nonblocking: boolean,
): boolean {
  if (typeof type === "object") return isMemory(value, nonblocking);
  switch (type) {
    case "bool":
      return typeof value === "boolean";
    case "f32":
    case "f64":
      return typeof value === "number";
    case "u8":
    case "u16":
    case "u32":
      return Object.is(value, Number(value) >>> 0);
    case "i8":
    case "i16":
    case "i32":
      return Object.is(value, Number(value) | 0);
    case "u64":
    case "i64":
    case "usize":
    case "isize":
      return typeof value === "bigint" || typeof value === "number";
    case "buffer":
      return value === null || isMemory(value, nonblocking);
    default:
      return value === null || isPointer(value);
  }
}

/** Of nonblocking calls, Deno refuses what may be resized meanwhile. */
function isMemory(value: unknown, nonblocking: boolean): boolean {
  const buffer = ArrayBuffer.isView(value) ? value.buffer : value;
  if (buffer instanceof SharedArrayBuffer) return buffer !== value;
  return buffer instanceof ArrayBuffer && !(nonblocking && buffer.resizable);
}

function wrongArgument(
  value: unknown,
  where: string,
  wanted: string,
): TypeError {
  return new TypeError(
    `Cannot pass ${describe(value)} to ${where}: it takes ${wanted}` +
      advice(value),
  );
}

function twice(where: string): BufferError {
  return new BufferError(
    "consumed",
    `Cannot pass a capsule to ${where}: this call, or one that is not over, ` +
      "has it already",
  );
}

/** The parameters, as messages name them. */
function places(
  symbol: string,
  parameters: readonly TensorParameterType[],
): string[] {
  return parameters.map((type, i) =>
    `parameter ${i + 1} of "${symbol}", a ${
      typeof type === "string" ? type : "struct"
    }`
  );
}

function describe(value: unknown): string {
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") {
    return typeof value === "string" ? `"${value}"` : String(value);
  }
  const name = value.constructor?.name ?? "pointer";
  return /^[AEIOU]/.test(name) ? `an ${name}` : `a ${name}`;
}

function advice(value: unknown): string {
  if (ArrayBuffer.isView(value)) return "; make one with Tensor.from()";
  if (value instanceof DlpackCapsule) return "; import it with fromDlpack()";
  return "";
}
