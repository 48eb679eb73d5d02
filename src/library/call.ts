/**
 * Native functions that take and return tensors: pointers for tensors, and
 * capsules for pointers.
 *
 * @module
 */

import { MANAGED, VERSION, VERSIONED } from "../../ffi/abi.ts";
import type { ManagedName } from "../../ffi/header.ts";
import { Loan } from "../../ffi/loan.ts";
import { Block, isPointer, pointerTo } from "../../ffi/memory.ts";
import { claim, type KeptOpen, Owner, ownerOf } from "../../ffi/owner.ts";
import {
  adopt,
  capsuleOf,
  DlpackCapsule,
  type DlpackRequest,
  isOfOtherCopy,
  loanOfCapsule,
  loanOfOther,
  moveAway,
  type OtherCapsule,
  ownerIn,
} from "../capsule.ts";
import { BufferError, describe } from "../errors.ts";
import { begunLoanOf, Tensor } from "../tensor/class.ts";
import { compile } from "./compile.ts";
import { beginOut, endOut, isFilling, OutCapsule } from "./out_capsule.ts";
import type { Parameter, Result } from "./parameters.ts";

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
  /** Does something when it is closed and nothing of it is in use any more. */
  whenOver(action: () => void): void;
}

/** A function of a symbol table. */
export interface Signature {
  /** Its name in the table. */
  readonly symbol: string;
  /** What becomes of its arguments. */
  readonly parameters: readonly Parameter[];
  /** What becomes of its result. */
  readonly result: Result;
  /** Whether it runs on another thread. */
  readonly nonblocking: boolean;
  /** Whether what it returns or fills may be written to, where that cannot say. */
  readonly writable: boolean;
}

/**
 * What stands for a native function in `symbols`: it names wrong arguments, and
 * keeps the library open while it runs.
 */
export function bind(
  signature: Signature,
  native: Callable,
  library: Callee,
): Callable {
  const { parameters, result, nonblocking } = signature;
  const isNative = result.kind === "native";
  const give = isNative ? null : giver(signature, library);
  if (nonblocking) {
    const begin = beginner(signature, library);
    return async (...args) => {
      using _call = begin(args);
      let value: unknown;
      try {
        value = await native(...args);
      } catch (error) {
        throw explained(error, args, signature);
      }
      return give === null ? value : give(value);
    };
  }
  const kinds = new Set(parameters.map(({ kind }) => kind));
  if (kinds.isSubsetOf(new Set(["native", "lent", "data"]))) {
    const borrower = compileBorrower(signature, native, library, give);
    if (borrower !== null) return borrower;
  }
  const begin = beginner(signature, library);
  return (...args) => {
    using _call = begin(args);
    const value = called(native, args, signature);
    return give === null ? value : give(value);
  };
}

/** Calls a function: an argument that Deno refuses is named. */
function called(
  native: Callable,
  args: readonly unknown[],
  signature: Signature,
): unknown {
  try {
    return native(...args);
  } catch (error) {
    throw explained(error, args, signature);
  }
}

/** Gives the function that makes capsules of what a function returned. */
function giver(
  { result, writable }: Signature,
  library: Callee,
): (pointer: unknown) => DlpackCapsule | null {
  return (pointer) => {
    if (pointer === null) return null;
    const there = pointer as Deno.PointerObject;
    if (result.kind === "owned") {
      const owner = claim(there, result.name);
      owner.keepOpen(library);
      return capsuleOf(owner, { writable });
    }
    const capsule = DlpackCapsule.borrow(there, { writable });
    ownerIn(capsule).keepOpen(library);
    return capsule;
  };
}

/**
 * Stands for a function that borrows tensors and takes over none.
 *
 * It is compiled from text of its own: V8 keeps what it learns of a call by
 * the text it is in, and makes a direct call only where it has seen but one
 * function. Of a closure that all symbols share, each call would cost what
 * Deno's slow path does, 75 ns. The text has no names in it, only numbers.
 *
 * @returns `null` where code must not be made from strings.
 */
function compileBorrower(
  signature: Signature,
  native: Callable,
  library: Callee,
  give: ((pointer: unknown) => unknown) | null,
): Callable | null {
  const { symbol, parameters } = signature;
  const other = (value: unknown, index: number): Loan =>
    beginOther(value, parameters[index]!);
  const check = (value: unknown, loan: Loan, index: number): void =>
    checkLoan(value, loan, parameters[index]!);
  const all = [...parameters.keys()];
  const lent = all.filter((i) => parameters[i]!.kind !== "native");
  const args = parameters.map((parameter, i) =>
    parameter.kind === "lent"
      ? `loan${i}.${parameter.as}`
      : parameter.kind === "data"
      ? `loan${i}.data`
      : `arg${i}`
  );
  // beginLoan, without calls where there is nothing to be said.
  const begin = (i: number): string => {
    const doubt = doubtOf(parameters[i]!, `loan${i}`);
    return `loan${i} = begunLoanOf(arg${i}) ?? other(arg${i}, ${i});
        ${doubt === "" ? "" : `if (${doubt}) check(arg${i}, loan${i}, ${i});`}`;
  };
  const names = all.map((i) => `arg${i}`).join(", ");
  const call = `native(${args.join(", ")})`;
  const text = `return (${names}) => {
      library.enter(symbol);
      ${lent.map((i) => `let loan${i};`).join(" ")}
      try {
        ${lent.map(begin).join("\n")}
        return ${give === null ? call : `give(${call})`};
      } catch (error) {
        throw explain(error, [${names}]);
      } finally {
        ${lent.map((i) => `loan${i}?.end();`).join(" ")}
        library.release();
      }
    };`;
  const compiled = compile(
    [...["native", "library", "symbol", "give", "explain"], ...lenders],
    text,
  );
  if (compiled === null) return null;
  library.whenOver(compiled.giveBack);
  const explain = (error: unknown, args: unknown[]): unknown =>
    explained(error, args, signature);
  const named = [native, library, symbol, give, explain];
  return compiled.make(...named, begunLoanOf, other, check);
}

/** Deno's word on an argument names neither the function nor the parameter. */
function explained(
  error: unknown,
  args: readonly unknown[],
  { parameters, nonblocking }: Signature,
): unknown {
  if (!(error instanceof TypeError)) return error;
  if (!/^(Invalid|Expected)\b.*\b(FFI|pointer|buffer)/i.test(error.message)) {
    return error;
  }
  const i = parameters.findIndex((parameter, i) =>
    parameter.kind === "native" &&
    !isNative(args[i], parameter.type, nonblocking)
  );
  const parameter = parameters[i];
  if (parameter?.kind !== "native") return error;
  return wrongNative(args[i], parameter, parameter.type);
}

/** What is lent where an argument is `null`. */
let nothing: Loan | undefined;

/** What the text of a borrower names to lend tensors. */
const lenders = ["begunLoanOf", "other", "check"];

/** When {@linkcode checkLoan} has something to say, in JavaScript. */
function doubtOf(parameter: Parameter, loan: string): string {
  if (parameter.kind === "data") {
    const inside = `${loan}.isInside`;
    return parameter.isInOrder ? `${inside} || !${loan}.isContiguous` : inside;
  }
  const saysPadding = parameter.kind === "lent" &&
    parameter.as === "versioned";
  return saysPadding ? "" : `${loan}.isPadded`;
}

/**
 * Lends a tensor until the loan's `end`.
 *
 * @throws {TypeError} When it is none, or not in order although that is asked.
 * @throws {BufferError} When the struct cannot say what it is.
 */
function beginLoan(value: unknown, parameter: Parameter): Loan {
  const loan = begunLoanOf(value) ?? beginOther(value, parameter);
  try {
    checkLoan(value, loan, parameter);
  } catch (error) {
    loan.end();
    throw error;
  }
  return loan;
}

function checkLoan(value: unknown, loan: Loan, parameter: Parameter): void {
  if (parameter.kind === "data") checkData(value, loan, parameter);
  else if (loan.isPadded) checkPadding(parameter);
}

/** A capsule's, NULL's, or that of what another copy of this module made. */
function beginOther(value: unknown, parameter: Parameter): Loan {
  const loan = value instanceof DlpackCapsule
    ? loanOfCapsule(value)
    : loanOfOthers(value, parameter);
  loan.begin();
  return loan;
}

/** NULL, or what another copy of this module made. */
function loanOfOthers(value: unknown, parameter: Parameter): Loan {
  if (value === null && parameter.isOptional) {
    return nothing ??= new Loan(null, null);
  }
  if (isOfOtherCopy(value, "capsule")) {
    const loan = loanOfOther(value);
    const held = value.hold();
    loan.onEnd(() => held[Symbol.dispose]());
    return loan;
  }
  const capsule = capsuleOfOther(value, VERSION);
  if (capsule === null) {
    throw wrongArgument(value, parameter, "a Tensor or a DlpackCapsule");
  }
  const loan = loanOfCapsule(capsule);
  loan.onEnd(() => capsule[Symbol.dispose]());
  return loan;
}

/** An export of another copy's tensor, or `null` for what is none. */
function capsuleOfOther(
  value: unknown,
  maxVersion: DlpackRequest["maxVersion"],
): DlpackCapsule | null {
  if (!isOfOtherCopy(value, "tensor")) return null;
  const exporter = value as unknown as {
    __dlpack__(request: DlpackRequest): unknown;
  };
  const capsule = exporter.__dlpack__({ maxVersion: maxVersion ?? null });
  return isOfOtherCopy(capsule, "capsule") ? adopt(capsule) : null;
}

function checkData(
  value: unknown,
  loan: Loan,
  { where, isInOrder }: Parameter & { kind: "data" },
): void {
  if (isInOrder && !loan.isContiguous && value !== null) {
    throw new TypeError(
      `Cannot pass a tensor that is not in C order to ${where}: pass copy() of ` +
        "it",
    );
  }
  if (loan.isInside) {
    throw new BufferError(
      "layout",
      `Cannot pass a tensor to ${where}: it begins ${loan.byteOffset} bytes ` +
        "into what its device has a handle for, and no address",
    );
  }
}

function checkPadding(parameter: Parameter): void {
  if (parameter.kind === "lent" && parameter.as === "versioned") return;
  const { where } = parameter;
  throw new BufferError(
    "dtype",
    `Cannot pass padded elements of fewer than 8 bits to ${where}: only a ` +
      'versioned struct can say so; pass astype("uint8") or "int8" of them',
  );
}

/** What nonblocking calls were given: it must not be collected before they are over. */
const pending = new Set<readonly unknown[]>();

/**
 * Gives the function that begins a call: it puts what C gets in the place of
 * tensors and capsules, or throws before any of them has changed hands. What
 * it gives is to be disposed when the call is over.
 */
function beginner(
  signature: Signature,
  library: Callee,
): (args: unknown[]) => Disposable {
  const { symbol, parameters, nonblocking } = signature;
  const changesHands = parameters.some(({ kind }) =>
    kind === "taken" || kind === "cells" || kind === "struct"
  );
  return (args) => {
    using call = new DisposableStack();
    library.enter(symbol);
    call.defer(() => library.release());
    const begun = new Begun(call, signature, library);
    parameters.forEach((parameter, i) => {
      const value = args[i];
      if (parameter.kind !== "native") {
        args[i] = begun.check(value, parameter, i);
      } else if (
        changesHands && !isNative(value, parameter.type, nonblocking)
      ) {
        // Deno would find it when the tensors have been moved.
        throw wrongNative(value, parameter, parameter.type);
      } else if (nonblocking) begun.holdMemory(value);
    });
    begun.changeHands(args);
    if (nonblocking) {
      pending.add(args);
      call.defer(() => pending.delete(args));
    }
    return call.move();
  };
}

/** A call that is being begun: first all is checked, then tensors change hands. */
class Begun {
  readonly #call: DisposableStack;
  readonly #signature: Signature;
  readonly #library: Callee;
  /** Capsules that are only looked at. */
  readonly #lent = new Set<unknown>();
  readonly #taken = new Map<DlpackCapsule, number>();
  /** Of another copy of this module. */
  readonly #others = new Set<OtherCapsule>();
  readonly #outs = new Set<OutCapsule>();
  /** What changes hands when all was checked. */
  readonly #later: ((args: unknown[]) => void)[] = [];

  constructor(call: DisposableStack, signature: Signature, library: Callee) {
    this.#call = call;
    this.#signature = signature;
    this.#library = library;
  }

  /** Checks an argument, and gives what C gets unless that comes later. */
  check(value: unknown, parameter: Parameter, i: number): unknown {
    switch (parameter.kind) {
      case "lent":
        return this.#lend(value, parameter)[parameter.as];
      case "data":
        return this.#lend(value, parameter).data;
      case "tensors":
        return this.#lendAll(value, parameter);
      case "taken":
        return this.#take(value, parameter.name, parameter, i);
      case "cells":
        return this.#fillCells(value, parameter.name, parameter, i);
      case "struct":
        return this.#fillStruct(value, parameter.name, parameter, i);
      default:
        return value;
    }
  }

  /** Keeps what a buffer is made of until the call is over. */
  holdMemory(value: unknown): void {
    const buffer = ArrayBuffer.isView(value) ? value.buffer : value;
    if (!(buffer instanceof ArrayBuffer)) return;
    const owner = ownerOf(buffer);
    if (owner === undefined) return;
    owner.hold();
    this.#call.defer(() => owner.unhold());
  }

  changeHands(args: unknown[]): void {
    for (const capsule of [...this.#taken.keys(), ...this.#others]) {
      if (this.#lent.has(capsule)) {
        throw new BufferError(
          "consumed",
          `Cannot pass one capsule to "${this.#signature.symbol}" twice: it ` +
            "would be taken over and borrowed in the same call",
        );
      }
      if (capsule instanceof DlpackCapsule) ownerIn(capsule).checkUnused();
    }
    for (const change of this.#later) change(args);
  }

  #lend(value: unknown, parameter: Parameter): Loan {
    const loan = beginLoan(value, parameter);
    this.#call.defer(() => loan.end());
    this.#lent.add(value);
    return loan;
  }

  #lendAll(
    value: unknown,
    parameter: Parameter,
  ): BigUint64Array<ArrayBuffer> | null {
    if (value === null && parameter.isOptional) return null;
    if (!Array.isArray(value)) {
      throw wrongArgument(value, parameter, "an array of tensors and capsules");
    }
    if (value.length === 0) return null;
    const addresses = Array.from(value, (element, k) => {
      const where = `element ${k} of ${parameter.where}`;
      const as = { kind: "lent", as: "tensor", where, isOptional: false };
      return this.#lend(element, as as Parameter).tensor;
    });
    return new BigUint64Array(addresses);
  }

  #take(
    value: unknown,
    name: ManagedName,
    parameter: Parameter,
    i: number,
  ): null {
    if (value === null && parameter.isOptional) return null;
    if (isOfOtherCopy(value, "capsule") && !(value instanceof DlpackCapsule)) {
      return this.#takeOther(value, name, parameter, i);
    }
    const capsule = toTake(value, name, parameter);
    // Ours, and released here if it is not moved after all.
    if (capsule !== value) this.#call.use(capsule);
    if (this.#taken.has(capsule)) throw twice(parameter);
    this.#taken.set(capsule, i);
    this.#later.push((args) => args[i] = moveAway(capsule, this.#library));
    return null;
  }

  /** Another copy's capsule is taken when all was checked: it cannot get it back. */
  #takeOther(
    capsule: OtherCapsule,
    name: ManagedName,
    parameter: Parameter,
    i: number,
  ): null {
    if (capsule.name.startsWith("used_")) capsule.take(); // throws
    checkName(capsule.name, name, parameter);
    if (this.#others.has(capsule)) throw twice(parameter);
    this.#others.add(capsule);
    this.#later.unshift((args) => {
      args[i] = this.#call.use(adopt(capsule));
    });
    this.#later.push((args) =>
      args[i] = moveAway(args[i] as DlpackCapsule, this.#library)
    );
    return null;
  }

  #fillCells(
    value: unknown,
    name: ManagedName,
    parameter: Parameter,
    i: number,
  ): null {
    if (value === null && parameter.isOptional) return null;
    const outs: unknown[] = Array.isArray(value) ? [...value] : [value];
    outs.forEach((out, k) => {
      const where = Array.isArray(value)
        ? `element ${k} of ${parameter.where}`
        : parameter.where;
      this.#checkOut(out, { ...parameter, where });
    });
    if (outs.length === 0) return null;
    const cells = new BigUint64Array(outs.length);
    this.#later.push((args) => {
      args[i] = cells;
      outs.forEach((out, k) =>
        this.#fill(out as OutCapsule, () => {
          const address = cells[k]!;
          return address === 0n ? null : claim(pointerTo(address)!, name);
        })
      );
    });
    return null;
  }

  #fillStruct(
    value: unknown,
    name: ManagedName,
    parameter: Parameter,
    i: number,
  ): bigint {
    if (value === null && parameter.isOptional) return 0n;
    this.#checkOut(value, parameter);
    this.#later.push((args) => {
      const { size } = name === "dltensor" ? MANAGED : VERSIONED;
      const block = new Block(size);
      args[i] = block.address;
      this.#fill(value as OutCapsule, () => {
        if (block.isEmpty) {
          block.free();
          return null;
        }
        const owner = new Owner(block.address, name);
        owner.liesIn(block);
        return owner;
      });
    });
    return 0n;
  }

  #checkOut(out: unknown, parameter: Parameter): asserts out is OutCapsule {
    if (!(out instanceof OutCapsule)) {
      throw wrongArgument(out, parameter, "an OutCapsule");
    }
    if (isFilling(out) || this.#outs.has(out)) throw twice(parameter);
    this.#outs.add(out);
  }

  /** The call fills an OutCapsule: when it is over, with what was found. */
  #fill(out: OutCapsule, find: () => Owner | null): void {
    beginOut(out);
    this.#call.defer(() => {
      let owner: Owner | null = null;
      let wrong: unknown = null;
      try {
        owner = find();
        owner?.keepOpen(this.#library);
      } catch (error) {
        // Thrown by take(), as the status that was returned comes first.
        wrong = error;
      }
      endOut(out, owner, this.#signature.writable, wrong);
    });
  }
}

/**
 * The capsule to move for an argument.
 *
 * @throws {BufferError} When it is used, or of the other struct, or the tensor
 * cannot be exported.
 */
function toTake(
  value: unknown,
  name: ManagedName,
  parameter: Parameter,
): DlpackCapsule {
  const maxVersion = name === "dltensor" ? null : VERSION;
  if (value instanceof Tensor) return value.__dlpack__({ maxVersion });
  if (value instanceof DlpackCapsule) {
    const capsule = value.__dlpack__(); // throws when it was used before
    checkName(capsule.name, name, parameter);
    return capsule;
  }
  const capsule = capsuleOfOther(value, maxVersion);
  if (capsule !== null) return capsule;
  throw wrongArgument(value, parameter, "a Tensor or a DlpackCapsule");
}

function checkName(name: string, wanted: string, { where }: Parameter): void {
  if (name === wanted) return;
  throw new BufferError(
    "version",
    `Cannot pass a "${name}" capsule to ${where}: it takes a "${wanted}"; ` +
      "import it with fromDlpack() and pass the Tensor",
  );
}

/**
 * Whether Deno converts a value to a native type; where in doubt, not. Of
 * integers it takes no other ones than 32 bits hold, also for narrower types.
 */
function isNative(
  value: unknown,
  type: Deno.NativeType,
  nonblocking: boolean,
): boolean {
  if (typeof type === "object") {
    return isMemory(value, nonblocking) &&
      (value as ArrayBufferView).byteLength > 0;
  }
  switch (type) {
    case "bool":
      return typeof value === "boolean";
    case "f32":
    case "f64":
      return typeof value === "number";
    case "u8":
    case "u16":
    case "u32":
      return typeof value === "number" && Object.is(value, value >>> 0);
    case "i8":
    case "i16":
    case "i32":
      return typeof value === "number" && Object.is(value, value | 0);
    case "u64":
    case "i64":
    case "usize":
    case "isize":
      return typeof value === "bigint" || Number.isInteger(value);
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

/** What Deno takes for a native type, in words. */
function wantedFor(type: Deno.NativeType): string {
  if (typeof type === "object") return "the struct's bytes in a typed array";
  switch (type) {
    case "bool":
      return "true or false";
    case "f32":
    case "f64":
      return "a number";
    case "u64":
    case "i64":
    case "usize":
    case "isize":
      return "a bigint, or an integer number";
    case "buffer":
      return "a typed array, an ArrayBuffer or null";
    case "pointer":
      return "a Deno.PointerObject or null";
    case "function":
      return "the pointer of a callback, or null";
    default:
      return `an integer that fits into ${type}`;
  }
}

function wrongNative(
  value: unknown,
  parameter: Parameter,
  type: Deno.NativeType,
): TypeError {
  return wrongArgument(value, parameter, wantedFor(type));
}

function wrongArgument(
  value: unknown,
  { where, ...parameter }: Parameter,
  wanted: string,
): TypeError {
  const isForNull = value === null && parameter.kind !== "native";
  return new TypeError(
    `Cannot pass ${describe(value)} to ${where}: it takes ${wanted}` +
      (isForNull
        ? `; for NULL, write "${/, an? (.*)$/.exec(where)![1]}?"`
        : "") +
      (parameter.kind === "native" ? "" : advice(value)),
  );
}

function twice({ where }: Parameter): BufferError {
  return new BufferError(
    "consumed",
    `Cannot pass a capsule to ${where}: this call, or one that is not over, ` +
      "has it already",
  );
}

function advice(value: unknown): string {
  if (ArrayBuffer.isView(value)) return "; make one with Tensor.from()";
  if (value instanceof DlpackCapsule) return "; import it with fromDlpack()";
  return "";
}
