/**
 * Values of JavaScript as values of TVM-FFI, and back; and calls with them.
 *
 * @module
 */

import { VERSION } from "../../ffi/abi.ts";
import { addressOf, isPointer, pointerTo } from "../../ffi/memory.ts";
import type { Owner } from "../../ffi/owner.ts";
import { TYPE } from "../../ffi/tvm_ffi/abi.ts";
import { type Anys, headOf } from "../../ffi/tvm_ffi/anys.ts";
import { Callbacks, dlTensorAt } from "../../ffi/tvm_ffi/callbacks.ts";
import {
  isObject,
  readBigInt,
  readElements,
  readError,
  readShape,
  readString,
} from "../../ffi/tvm_ffi/read.ts";
import { Reference } from "../../ffi/tvm_ffi/reference.ts";
import type { Frame, Runtime } from "../../ffi/tvm_ffi/runtime.ts";
import { showBytes, showText } from "../../ffi/tvm_ffi/text.ts";
import {
  makeTensorObject,
  takeTensor,
  tensorObjectOf,
} from "../../ffi/tvm_ffi/tensors.ts";
import {
  adopt,
  capsuleOf,
  consume,
  DlpackCapsule,
  exportOf,
  isOfOtherCopy,
  loanOfCapsule,
} from "../capsule.ts";
import { type Device, deviceName, DeviceType, isHost } from "../device.ts";
import { describe } from "../errors.ts";
import { fromDlpack } from "../from_dlpack.ts";
import {
  keepObject,
  lentObjectOf,
  loanOf,
  type Tensor,
} from "../tensor/class.ts";
import { errorOf, failureOf } from "./error.ts";
import {
  dtypeOf,
  isShape,
  shape,
  TvmFfiDType,
  TvmFfiFloat,
} from "./literals.ts";
import { referenceOf, referenceOfFunction } from "./object.ts";

/** Makes what stands for objects: which classes there are is known elsewhere. */
export interface Makers {
  /** What stands for a function. */
  function(reference: Reference, name: string): unknown;
  /** What stands for an object of a type. */
  object(reference: Reference): unknown;
}

/** A value that cannot be passed: what is said of it, once it is known where. */
class Refusal {
  constructor(
    readonly what: string,
    readonly advice: string,
    readonly Class: typeof TypeError | typeof RangeError = TypeError,
    readonly where = "",
  ) {}

  /** The same, one level further out. */
  within(where: string, advice = this.advice): Refusal {
    const inside = this.where === "" ? where : `${this.where} of ${where}`;
    return new Refusal(this.what, advice, this.Class, inside);
  }

  toError(): Error {
    const { what, where, advice } = this;
    return new this.Class(`Cannot pass ${what} as ${where}: ${advice}`);
  }
}

const TENSOR_HEAD = headOf(TYPE.tensor);
const NONE_HEAD = headOf(TYPE.none);

/** What to do about a Promise that is an argument. */
const AWAIT = "await it before";

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const all = new WeakMap<object, Values>();

/** The values of a runtime. */
export function valuesOf(runtime: object): Values {
  return all.get(runtime)!;
}

/** Values of one runtime. */
export class Values {
  readonly runtime: Runtime;
  readonly #makers: Makers;
  readonly #callbacks: Callbacks;

  /** @param makers Make what stands for objects. */
  constructor(runtime: Runtime, makers: Makers) {
    this.runtime = runtime;
    this.#makers = makers;
    this.#callbacks = new Callbacks(runtime, failureOf);
    all.set(runtime, this);
  }

  /** How many functions of JavaScript native code has. */
  get callbackCount(): number {
    return this.#callbacks.count;
  }

  // --- calls -------------------------------------------------------------------

  /** What is called in the place of a function. */
  caller(
    reference: Reference,
    name: string,
  ): (...args: unknown[]) => unknown {
    const { runtime } = this;
    const { library } = runtime;
    const { address } = reference;
    const take = (frame: Frame): unknown => this.take(frame, frame.resultAt);
    const callMany = (args: readonly unknown[]): unknown => {
      if (reference.isOver) throw disposed(`call "${name}"`, "function");
      return this.call(address, name, args);
    };
    const passTo = (frame: Frame, i: number, value: unknown): void =>
      this.passTo(frame, i, value, name);
    const pass = (frame: Frame, i: number, value: unknown): void => {
      const object = lentObjectOf(value);
      if (
        object?.runtime === runtime &&
        object.live.length === object.length
      ) {
        frame.setBits(i, TENSOR_HEAD, object.bits);
      } else passTo(frame, i, value);
    };
    // To have the parameters by name costs nothing; an array of all would.
    return function (a?: unknown, b?: unknown, c?: unknown, d?: unknown) {
      const count = arguments.length;
      if (count > 4 || reference.isOver) {
        const args: unknown[] = [];
        for (let i = 0; i < count; i++) args.push(arguments[i]);
        return callMany(args);
      }
      const frame = runtime.enter(count);
      try {
        if (count > 0) pass(frame, 0, a);
        if (count > 1) pass(frame, 1, b);
        if (count > 2) pass(frame, 2, c);
        if (count > 3) pass(frame, 3, d);
        frame.setBits(frame.resultAt, NONE_HEAD, 0);
        const status = library.call(
          address,
          frame.address,
          count,
          frame.result,
        );
        if (status !== 0) runtime.check(status);
        if (frame.typeAt(frame.resultAt) === TYPE.none) return null;
        return take(frame);
      } finally {
        runtime.leave(frame);
      }
    };
  }

  /** Calls the function object at an address. */
  call(address: bigint, name: string, args: readonly unknown[]): unknown {
    const { runtime } = this;
    const frame = runtime.enter(args.length);
    try {
      args.forEach((value, i) => this.passTo(frame, i, value, name));
      runtime.call(address, frame, args.length);
      return this.take(frame, frame.resultAt);
    } finally {
      runtime.leave(frame);
    }
  }

  /** The same of a function that gives an object: a new reference to it. */
  construct(address: bigint, name: string, args: readonly unknown[]): bigint {
    const { runtime } = this;
    const frame = runtime.enter(args.length);
    try {
      args.forEach((value, i) => this.passTo(frame, i, value, name));
      runtime.call(address, frame, args.length);
      if (isObject(frame.typeAt(frame.resultAt))) {
        return frame.wordAt(frame.resultAt);
      }
      throw new TypeError(`"${name}" gave no object`);
    } finally {
      runtime.leave(frame);
    }
  }

  /**
   * Puts an argument into a frame.
   *
   * @param name That of the function.
   * @throws {TypeError} When there is no such value in TVM-FFI.
   * @throws {RangeError} When an integer does not fit.
   */
  passTo(frame: Frame, i: number, value: unknown, name: string): void {
    try {
      this.pass(frame, i, value, frame.temporary);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const callee = name === "" ? "a function" : `"${name}"`;
      throw error.within(`argument ${i} of ${callee}`).toError();
    }
  }

  // --- in ----------------------------------------------------------------------

  /**
   * Puts a value in a place, borrowed from what is in `temporary`.
   *
   * @throws {Refusal} When it cannot be passed.
   */
  pass(into: Anys, i: number, value: unknown, temporary: bigint[]): void {
    switch (typeof value) {
      case "number":
        if (value === (value | 0)) {
          into.setHalves(i, TYPE.int, value, value >> 31);
        } else if (Number.isInteger(value)) {
          passInt(into, i, BigInt(value), value);
        } else into.setFloat(i, value);
        return;
      case "bigint":
        return passInt(into, i, value, value);
      case "boolean":
        return into.setHalves(i, TYPE.bool, value ? 1 : 0, 0);
      case "string":
        return this.#passString(into, i, value, temporary);
      case "function":
        return this.#passFunction(into, i, value, temporary);
      case "object":
        if (value === null) into.setNone(i);
        else this.#passObject(into, i, value, temporary);
        return;
    }
    throw new Refusal(describe(value), "for nothing pass null");
  }

  #passString(
    into: Anys,
    i: number,
    text: string,
    temporary: bigint[],
  ): void {
    if (!text.isWellFormed()) {
      throw new Refusal(
        "a string with half of a surrogate pair",
        "it has no UTF-8; pass a Uint8Array",
      );
    }
    const { runtime } = this;
    const struct = showText(text);
    runtime.check(runtime.library.makeString(struct, into.addressOf(i)));
    if (isObject(into.typeAt(i))) temporary.push(into.wordAt(i));
  }

  #passBytes(
    into: Anys,
    i: number,
    bytes: Uint8Array,
    temporary: bigint[],
  ): void {
    const { runtime } = this;
    const struct = showBytes(bytes);
    runtime.check(runtime.library.makeBytes(struct, into.addressOf(i)));
    if (isObject(into.typeAt(i))) temporary.push(into.wordAt(i));
  }

  #passFunction(
    into: Anys,
    i: number,
    value: object,
    temporary: bigint[],
  ): void {
    const reference = referenceOfFunction(value);
    if (reference !== null) {
      return this.#passReference(into, i, reference, TYPE.function, "function");
    }
    const address = this.#callbacks.make((args, count, frame) => {
      this.#run(value as (...args: unknown[]) => unknown, args, count, frame);
    });
    temporary.push(address);
    into.setWord(i, TYPE.function, address);
  }

  #passReference(
    into: Anys,
    i: number,
    reference: Reference,
    type: number,
    what: string,
  ): void {
    if (reference.isOver) {
      throw new Refusal(`a disposed ${what}`, "its reference was given up");
    }
    if (reference.runtime !== this.runtime) {
      throw new Refusal(
        `${
          what === "object" ? "an" : "a"
        } ${what} of ${reference.runtime.path}`,
        `this is ${this.runtime.path}; open one of them only`,
      );
    }
    into.setHalves(i, type, reference.low, reference.high);
  }

  #passObject(
    into: Anys,
    i: number,
    value: object,
    temporary: bigint[],
  ): void {
    const loan = loanOf(value);
    if (loan !== null) {
      const request = { maxVersion: VERSION };
      const owner = () => consume((value as Tensor).__dlpack__(request));
      const object = tensorObjectOf(this.runtime, loan, owner)!;
      keepObject(value as Tensor, object);
      return into.setHalves(i, TYPE.tensor, object.low, object.high);
    }
    if (value instanceof DlpackCapsule) {
      const owner = () => exportOf(value);
      const object = tensorObjectOf(
        this.runtime,
        loanOfCapsule(value),
        owner,
      )!;
      return into.setHalves(i, TYPE.tensor, object.low, object.high);
    }
    const reference = referenceOf(value);
    if (reference !== null) {
      const { type } = reference;
      return this.#passReference(into, i, reference, type, "object");
    }
    if (Array.isArray(value)) {
      return this.#passArray(into, i, value, temporary);
    }
    if (value instanceof Map) return this.#passMap(into, i, value, temporary);
    if (value instanceof Uint8Array) {
      return this.#passBytes(into, i, value, temporary);
    }
    if (value instanceof TvmFfiFloat) return into.setFloat(i, value.value);
    if (value instanceof TvmFfiDType) {
      const { code, bits, lanes } = value;
      const word = code | bits << 8 | lanes << 16;
      return into.setHalves(i, TYPE.dataType, word, 0);
    }
    if (isPointer(value)) {
      const address = addressOf(value);
      return into.setWord(i, TYPE.opaquePointer, address);
    }
    if (isDevice(value)) {
      const { type, id } = value;
      return into.setHalves(i, TYPE.device, DeviceType[type], id);
    }
    const owner = exportedBy(value);
    if (owner !== null) {
      const address = makeTensorObject(this.runtime, owner);
      temporary.push(address);
      return into.setWord(i, TYPE.tensor, address);
    }
    throw new Refusal(describe(value), adviceFor(value));
  }

  #passArray(
    into: Anys,
    i: number,
    values: readonly unknown[],
    temporary: bigint[],
  ): void {
    const isLengths = isShape(values);
    const make = isLengths ? "ffi.Shape" : "ffi.Array";
    const address = this.#make(make, values.length, (elements, made) => {
      for (let k = 0; k < values.length; k++) {
        this.#passInside(elements, k, values[k], made, () => `element ${k}`);
      }
    });
    temporary.push(address);
    into.setWord(i, isLengths ? TYPE.shape : TYPE.array, address);
  }

  #passMap(
    into: Anys,
    i: number,
    map: ReadonlyMap<unknown, unknown>,
    temporary: bigint[],
  ): void {
    const address = this.#make("ffi.Map", 2 * map.size, (elements, made) => {
      let k = 0;
      for (const [key, value] of map) {
        const name = typeof key === "string"
          ? JSON.stringify(key)
          : String(key);
        this.#passInside(elements, k++, key, made, () => `the key ${name}`);
        this.#passInside(
          elements,
          k++,
          value,
          made,
          () => `the value of ${name}`,
        );
      }
    });
    temporary.push(address);
    into.setWord(i, TYPE.map, address);
  }

  #passInside(
    into: Anys,
    i: number,
    value: unknown,
    temporary: bigint[],
    where: () => string,
  ): void {
    try {
      this.pass(into, i, value, temporary);
    } catch (error) {
      throw error instanceof Refusal ? error.within(where()) : error;
    }
  }

  /** Makes a container of elements: a new reference to it. */
  #make(
    name: string,
    count: number,
    fill: (elements: Frame, temporary: bigint[]) => void,
  ): bigint {
    const { runtime } = this;
    const frame = runtime.enter(count);
    try {
      fill(frame, frame.temporary);
      runtime.call(runtime.globalAddress(name), frame, count);
      return frame.wordAt(frame.resultAt);
    } finally {
      runtime.leave(frame);
    }
  }

  /** A function of JavaScript is called by native code. */
  #run(
    run: (...args: unknown[]) => unknown,
    args: Anys,
    count: number,
    frame: Frame,
  ): void {
    const lent: Disposable[] = [];
    let result: unknown;
    try {
      result = run(...this.#takeAll(args, count, lent));
    } finally {
      // The memory of a DLTensor* is the caller's again.
      for (const one of lent) one[Symbol.dispose]();
    }
    try {
      // Most functions that are called back return nothing at all.
      this.pass(frame, 0, result ?? null, frame.temporary);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      dropRejections(result);
      const name = run.name === "" ? "a function" : `"${run.name}"`;
      const advice = error.advice === AWAIT
        ? "native code takes the result at once, so pass it a function that " +
          "is not async"
        : error.advice;
      throw error.within(`the result of ${name}`, advice).toError();
    }
  }

  // --- out ---------------------------------------------------------------------

  /** What a value of native code is here; the reference that it has is taken over. */
  take(from: Anys, i: number): unknown {
    const type = from.typeAt(i);
    if (!isObject(type)) return this.#takePlain(from, i, type);
    const address = from.wordAt(i);
    const { runtime } = this;
    switch (type) {
      case TYPE.tensor:
        return tensorOf(takeTensor(runtime, address));
      case TYPE.function:
        return this.#makers.function(this.#refer(address, type), "");
      case TYPE.string:
      case TYPE.bytes:
      case TYPE.shape:
      case TYPE.bigInt:
      case TYPE.error:
      case TYPE.array:
      case TYPE.map:
        try {
          return this.#copy(address, type);
        } finally {
          runtime.library.decRef(address);
        }
      default:
        return this.#makers.object(this.#refer(address, type));
    }
  }

  #refer(address: bigint, type: number): Reference {
    const kind = type === TYPE.module ? "module" : "value";
    return new Reference(this.runtime, address, type, kind);
  }

  #takePlain(from: Anys, i: number, type: number): unknown {
    switch (type) {
      case TYPE.none:
        return null;
      case TYPE.int:
        return from.intAt(i);
      case TYPE.bool:
        return from.lowAt(i) !== 0;
      case TYPE.float:
        return from.floatAt(i);
      case TYPE.smallString:
        return textOf(from.smallAt(i));
      case TYPE.smallBytes:
        return from.smallAt(i);
      case TYPE.opaquePointer:
        return pointerTo(from.wordAt(i));
      case TYPE.dataType: {
        const word = from.lowAt(i);
        return dtypeOf(word & 255, word >>> 8 & 255, word >>> 16);
      }
      case TYPE.device:
        return deviceOf(from.lowAt(i), from.highAt(i));
    }
    throw new TypeError(
      `Cannot receive a value of the type ${type} of TVM-FFI: it is valid ` +
        "only inside of the library",
    );
  }

  /** What becomes a value of JavaScript's own. */
  #copy(address: bigint, type: number): unknown {
    switch (type) {
      case TYPE.string:
        return textOf(readString(address));
      case TYPE.bytes:
        return readString(address);
      case TYPE.shape:
        return shape(readShape(address));
      case TYPE.bigInt:
        return readBigInt(address);
      case TYPE.error:
        return errorOf({ ...readError(address), cause: undefined });
      case TYPE.array:
        return this.elements(address);
      default:
        return new Map(this.entries(address, "ffi.MapForwardIterFunctor"));
    }
  }

  /** The elements of an array or list that somebody has, or so many of them. */
  elements(address: bigint, most = Infinity): unknown[] {
    const { length, elements } = readElements(address, most);
    for (let i = 0; i < length; i++) {
      if (isObject(elements.typeAt(i))) {
        this.runtime.library.incRef(elements.wordAt(i));
      }
    }
    return this.#takeAll(elements, length, null);
  }

  /** How many keys a dict has that somebody has. */
  dictSize(address: bigint): number {
    const { runtime } = this;
    const frame = runtime.enter(1);
    try {
      frame.setWord(0, TYPE.dict, address);
      runtime.call(runtime.globalAddress("ffi.DictSize"), frame, 1);
      return Number(frame.intAt(frame.resultAt));
    } finally {
      runtime.leave(frame);
    }
  }

  /** The keys and values of a map or dict that somebody has, or so many of them. */
  entries(
    address: bigint,
    iterate: string,
    most = Infinity,
  ): [unknown, unknown][] {
    const { runtime } = this;
    const isMap = iterate.startsWith("ffi.Map");
    const all: [unknown, unknown][] = [];
    const frame = runtime.enter(1);
    try {
      const ask = (callee: bigint, type: number, value: bigint): unknown => {
        frame.setWord(0, type, value);
        runtime.call(callee, frame, 1);
        return frame.typeAt(frame.resultAt);
      };
      const type = isMap ? TYPE.map : TYPE.dict;
      const size = isMap ? "ffi.MapSize" : "ffi.DictSize";
      ask(runtime.globalAddress(size), type, address);
      if (frame.intAt(frame.resultAt) === 0n) return all;
      ask(runtime.globalAddress(iterate), type, address);
      const functor = frame.wordAt(frame.resultAt);
      frame.temporary.push(functor);
      try {
        do {
          ask(functor, TYPE.int, 0n);
          const key = this.take(frame, frame.resultAt);
          ask(functor, TYPE.int, 1n);
          all.push([key, this.take(frame, frame.resultAt)]);
          ask(functor, TYPE.int, 2n);
        } while (all.length < most && frame.lowAt(frame.resultAt) !== 0);
      } catch (error) {
        disposeAll(all.flat());
        throw error;
      }
      return all;
    } finally {
      runtime.leave(frame);
    }
  }

  /**
   * Takes values over, all of them or none.
   *
   * @param lent What is to be disposed when it is not valid any more.
   */
  #takeAll(from: Anys, count: number, lent: Disposable[] | null): unknown[] {
    const taken: unknown[] = [];
    try {
      while (taken.length < count) {
        const i = taken.length;
        const pointer = lent === null ? null : dlTensorAt(from, i);
        taken.push(
          pointer === null ? this.take(from, i) : borrow(pointer, lent!),
        );
      }
      return taken;
    } catch (error) {
      disposeAll(taken);
      // What failed has been given up; the rest was not looked at.
      for (let i = taken.length + 1; i < count; i++) {
        if (isObject(from.typeAt(i))) {
          this.runtime.library.decRef(from.wordAt(i));
        }
      }
      throw error;
    }
  }
}

function passInt(
  into: Anys,
  i: number,
  value: bigint,
  said: number | bigint,
): void {
  if (BigInt.asIntN(64, value) === value) {
    return into.setWord(i, TYPE.int, value);
  }
  throw new Refusal(
    String(said) + (typeof said === "bigint" ? "n" : ""),
    "an int has 64 bits" +
      (typeof said === "number" ? "; for a float pass float(x)" : ""),
    RangeError,
  );
}

function isDevice(value: object): value is Device {
  const { type, id, ...rest } = value as Partial<Device>;
  return typeof type === "string" && Object.hasOwn(DeviceType, type) &&
    (id! | 0) === id && Object.keys(rest).length === 0;
}

function deviceOf(type: number, id: number): Device {
  const name = deviceName(type);
  if (name !== undefined) return { type: name, id };
  throw new TypeError(
    `Cannot receive a device of type ${type}: DLPack has none by that number`,
  );
}

function textOf(bytes: Uint8Array<ArrayBuffer>): string {
  try {
    return strict.decode(bytes);
  } catch {
    throw new TypeError(
      "Cannot receive a string that is not UTF-8: have the function return " +
        "bytes",
    );
  }
}

/** A tensor of host memory, or a capsule. */
function tensorOf(owner: Owner): Tensor | DlpackCapsule {
  const capsule = capsuleOf(owner);
  const [type] = capsule.__dlpack_device__();
  return isHost(type) ? fromDlpack(capsule) : capsule;
}

/** A tensor that is valid until a function of ours returns. */
function borrow(
  pointer: Deno.PointerObject,
  lent: Disposable[],
): Tensor | DlpackCapsule {
  const capsule = DlpackCapsule.borrow(pointer, { writable: true });
  const [type] = capsule.__dlpack_device__();
  const made = isHost(type) ? fromDlpack(capsule) : capsule;
  lent.push(made);
  return made;
}

/** What anything with the array API's protocol exports. */
function exportedBy(value: object): Owner | null {
  const exporter = value as { __dlpack__?: unknown };
  if (typeof exporter.__dlpack__ !== "function") return null;
  if (isOfOtherCopy(value, "capsule")) return null; // it would be used up
  const capsule: unknown = exporter.__dlpack__({ maxVersion: VERSION });
  const ours = isOfOtherCopy(capsule, "capsule")
    ? capsule instanceof DlpackCapsule ? capsule : adopt(capsule)
    : null;
  if (ours === null) return null;
  if (ours.name === "dltensor_versioned") return consume(ours);
  using tensor = fromDlpack(ours);
  return consume(tensor.__dlpack__({ maxVersion: VERSION }));
}

function adviceFor(value: object): string {
  if (ArrayBuffer.isView(value)) {
    return "pass Tensor.from() of it, or a Uint8Array for bytes";
  }
  if (value instanceof ArrayBuffer) return "pass a Uint8Array of it";
  if (value instanceof Promise) return AWAIT;
  if (Object.getPrototypeOf(value) === Object.prototype) {
    return "pass new Map(Object.entries(x)), or an array";
  }
  return "there is no such value in TVM-FFI";
}

/**
 * A result that was refused may be a Promise, or an array of them: nobody has it
 * any more, so nobody could keep its rejection from ending the program.
 */
function dropRejections(result: unknown): void {
  for (const one of Array.isArray(result) ? result : [result]) {
    if (one instanceof Promise) {
      Promise.prototype.then.call(one, undefined, () => {});
    }
  }
}

/** For other files of this folder: gives up what was made of values. */
export function disposeAll(values: readonly unknown[]): void {
  for (const value of values) {
    if (Array.isArray(value)) disposeAll(value);
    else if (value instanceof Map) disposeAll([...value].flat());
    else if (isDisposable(value)) value[Symbol.dispose]();
  }
}

function isDisposable(value: unknown): value is Disposable {
  return (typeof value === "object" || typeof value === "function") &&
    value !== null && Symbol.dispose in value;
}

/** For other files of this folder: something was given up before. */
export function disposed(action: string, what: string): Error {
  return new TypeError(
    `Cannot ${action}: the ${what} was disposed; ask for it again`,
  );
}
