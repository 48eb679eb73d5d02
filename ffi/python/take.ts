/**
 * Tensors out of Python: what `numpy.from_dlpack` does with `__dlpack__`, its
 * keywords and its capsule.
 *
 * @module
 */

import { BufferError, type BufferErrorCode } from "../../src/errors.ts";
import { addressOf, addressOfArray } from "../memory.ts";
import { type Gate, Owner } from "../owner.ts";
import type { PythonError } from "./error.ts";
import { exchangeOf, takeByExchange, type Taken } from "./exchange.ts";
import type { Interpreter } from "./interpreter.ts";
import { capsuleName } from "./names.ts";
import type { Reference } from "./reference.ts";

/** The keywords of `__dlpack__`. */
export interface Keywords {
  stream?: number | bigint | null;
  maxVersion?: readonly [major: number, minor: number] | null;
  dlDevice?: readonly [type: number, id: number] | null;
  copy?: boolean | null;
}

/** `PY_VECTORCALL_ARGUMENTS_OFFSET`, and the object itself. */
const CALL_FLAGS = 1n << 63n | 1n;

/**
 * The lock for the deleter of a tensor, and a reference to the object that it came
 * from: the struct of an older producer may not keep all that its memory is.
 */
class Keeper implements Gate {
  readonly #interpreter: Interpreter;
  readonly #object: Deno.PointerObject;

  /** The lock is held. */
  constructor(interpreter: Interpreter, object: Deno.PointerObject) {
    this.#interpreter = interpreter;
    this.#object = object;
    interpreter.py.Py_IncRef(object);
  }

  enter(): boolean {
    return this.#interpreter.enter();
  }

  leave(): void {
    this.#interpreter.py.Py_DecRef(this.#object);
    this.#interpreter.leave();
    // The array may have been over a tensor of ours.
    this.#interpreter.afterwards?.("release");
  }

  moved(): void {
    if (this.#interpreter.enter()) this.leave();
  }
}

/** What the protocol needs of one interpreter. */
class Taker {
  readonly #interpreter: Interpreter;
  readonly #method: Deno.PointerObject;
  readonly #deviceMethod: Deno.PointerObject;
  readonly #keywords: Deno.PointerObject;
  readonly #keywordsAndStream: Deno.PointerObject;
  readonly #none: bigint;
  /** The place before the arguments, the object, and the four keywords. */
  readonly #places = new BigUint64Array(6);
  readonly #arguments: bigint;
  /** Pairs of integers as tuples: addresses, by `"1,3"`. */
  readonly #pairs = new Map<string, bigint>();
  /** The pair that was asked for last. */
  readonly #last = { first: 0, second: 0, address: 0n };
  readonly #legacyName = capsuleName("dltensor");
  readonly #versionedName = capsuleName("dltensor_versioned");
  readonly #usedLegacyName = capsuleName("used_dltensor");
  readonly #usedVersionedName = capsuleName("used_dltensor_versioned");

  constructor(interpreter: Interpreter) {
    this.#interpreter = interpreter;
    this.#method = interpreter.name("__dlpack__");
    this.#deviceMethod = interpreter.name("__dlpack_device__");
    const names = ["max_version", "dl_device", "copy", "stream"];
    const tuple = (length: number): Deno.PointerObject =>
      interpreter.tuple(
        ...names.slice(0, length).map((name) => interpreter.name(name)),
      );
    this.#keywords = tuple(3);
    this.#keywordsAndStream = tuple(4);
    this.#none = addressOf(interpreter.none);
    this.#arguments = addressOfArray(this.#places) + 8n;
  }

  /** A tensor of what an object is. The lock is held. */
  take(object: Reference, keywords: Keywords): Taken {
    const { copy, dlDevice, maxVersion, stream } = keywords;
    const exchange = object.exchange === undefined
      ? object.exchange = exchangeOf(this.#interpreter, object.pointer)
      : object.exchange;
    if (
      exchange !== null && copy !== true && maxVersion?.[0] === 1 &&
      (dlDevice === undefined || dlDevice === null) &&
      (stream === undefined || stream === null)
    ) {
      const { pointer } = object;
      const taken = takeByExchange(this.#interpreter, exchange, pointer);
      taken.owner.deleteWithin(new Keeper(this.#interpreter, pointer));
      return taken;
    }
    const capsule = this.#call(object, keywords);
    try {
      const owner = this.#ownerIn(capsule);
      owner.deleteWithin(new Keeper(this.#interpreter, object.pointer));
      return { owner, stream: null };
    } finally {
      this.#interpreter.py.Py_DecRef(capsule);
    }
  }

  /** Where an object says that its memory is. The lock is held. */
  deviceOf(object: Reference): [type: number, id: number] {
    const { py } = this.#interpreter;
    this.#places[1] = object.address;
    const pair = py.PyObject_VectorcallMethod(
      this.#deviceMethod,
      this.#arguments,
      CALL_FLAGS,
      null,
    );
    if (pair === null) throw this.#refused(object);
    try {
      return this.#interpreter.pairOf(pair);
    } catch (cause) {
      throw new TypeError(
        "Cannot read the device of a Python object: __dlpack_device__() " +
          `returned ${this.#interpreter.textOf(pair)}, no pair of integers`,
        { cause },
      );
    } finally {
      py.Py_DecRef(pair);
    }
  }

  #call(object: Reference, keywords: Keywords): Deno.PointerObject {
    const { py } = this.#interpreter;
    const places = this.#places;
    const { stream, maxVersion, dlDevice, copy } = keywords;
    const hasStream = stream !== undefined && stream !== null;
    places[1] = object.address;
    places[2] = this.#addressOfPair(maxVersion);
    places[3] = this.#addressOfPair(dlDevice);
    places[4] = copy === undefined || copy === null ? this.#none : addressOf(
      copy ? this.#interpreter.isTrue : this.#interpreter.isFalse,
    );
    const ours = hasStream ? this.#interpreter.integer(stream) : null;
    if (ours !== null) places[5] = addressOf(ours);
    const names = hasStream ? this.#keywordsAndStream : this.#keywords;
    let capsule = this.#ask(names);
    if (capsule === null && copy === true) {
      // Some know the keyword, but cannot copy: the caller can.
      py.PyErr_Clear();
      places[4] = this.#none;
      capsule = this.#ask(names);
    }
    if (
      capsule === null && !hasStream &&
      py.PyErr_ExceptionMatches(this.#interpreter.typeError) !== 0
    ) {
      // An older producer knows no keywords; what they ask, the caller does.
      py.PyErr_Clear();
      capsule = this.#ask(null);
    }
    if (ours !== null) py.Py_DecRef(ours);
    if (capsule === null) throw this.#refused(object);
    return capsule;
  }

  #ask(names: Deno.PointerObject | null): Deno.PointerValue {
    return this.#interpreter.py.PyObject_VectorcallMethod(
      this.#method,
      this.#arguments,
      CALL_FLAGS,
      names,
    );
  }

  /** Takes the struct out of a capsule, and marks it as used. */
  #ownerIn(capsule: Deno.PointerObject): Owner {
    const { py } = this.#interpreter;
    let name: "dltensor" | "dltensor_versioned" = "dltensor_versioned";
    let struct = py.PyCapsule_GetPointer(capsule, this.#versionedName);
    if (struct === null) {
      py.PyErr_Clear();
      name = "dltensor";
      struct = py.PyCapsule_GetPointer(capsule, this.#legacyName);
      if (struct === null) {
        py.PyErr_Clear();
        throw this.#noCapsule(capsule);
      }
    }
    const usedName = name === "dltensor"
      ? this.#usedLegacyName
      : this.#usedVersionedName;
    if (py.PyCapsule_SetName(capsule, usedName) !== 0) {
      throw this.#interpreter.error();
    }
    return new Owner(struct, name);
  }

  #noCapsule(capsule: Deno.PointerObject): Error {
    const { py } = this.#interpreter;
    const names = [this.#usedLegacyName, this.#usedVersionedName];
    if (names.some((name) => py.PyCapsule_IsValid(capsule, name) !== 0)) {
      return new BufferError(
        "consumed",
        "Cannot import a capsule of Python that was used before: a managed " +
          "tensor has one consumer; ask the array for another",
      );
    }
    const kind = this.#interpreter.nameOf(capsule);
    return new TypeError(
      `Cannot import a Python object whose __dlpack__() returned ${kind}, not ` +
        "a capsule of a tensor",
    );
  }

  /** Why an object gave nothing. */
  #refused(object: Reference): Error {
    const { py } = this.#interpreter;
    const isBufferError =
      py.PyErr_ExceptionMatches(this.#interpreter.bufferError) !== 0;
    const error = this.#interpreter.error();
    if (isBufferError) return bufferErrorOf(error);
    if (py.PyObject_HasAttr(object.pointer, this.#method) !== 0) return error;
    const kind = this.#interpreter.nameOf(object.pointer);
    return new TypeError(
      `Cannot import a Python object of type ${kind}: it has no __dlpack__(); ` +
        "make an array of it first, as numpy.asarray() does",
      { cause: error },
    );
  }

  #addressOfPair(
    pair: readonly [number, number] | null | undefined,
  ): bigint {
    if (pair === null || pair === undefined) return this.#none;
    const [first, second] = pair;
    const last = this.#last;
    if (first === last.first && second === last.second && last.address !== 0n) {
      return last.address;
    }
    const key = `${first},${second}`;
    let address = this.#pairs.get(key);
    if (address === undefined) {
      const integers = pair.map((value) => this.#interpreter.integer(value));
      address = addressOf(this.#interpreter.tuple(...integers));
      this.#pairs.set(key, address);
    }
    last.first = first;
    last.second = second;
    return last.address = address;
  }
}

let taker: Taker | undefined;

/** Takes a tensor of what an object is. */
export function takeTensor(object: Reference, keywords: Keywords): Taken {
  const { interpreter } = object;
  const { pointer: _pointer } = object; // or it throws
  const state = interpreter.take();
  try {
    taker ??= new Taker(interpreter);
    return taker.take(object, keywords);
  } finally {
    interpreter.give(state);
  }
}

/** Where an object says that its memory is. */
export function deviceOfObject(object: Reference): [type: number, id: number] {
  const { interpreter } = object;
  return interpreter.within(() => {
    taker ??= new Taker(interpreter);
    return taker.deviceOf(object);
  });
}

/** What the words of Python's BufferErrors mean, the first that is there. */
const codes: readonly (readonly [RegExp, BufferErrorCode])[] = [
  [/read-?only|immutable|writ(e|able)/i, "readonly"],
  [/device/i, "device"],
  [/\bcop(y|ies|ied)/i, "copy"],
  [/stride|contiguous|layout/i, "layout"],
  [/dtype|data ?type|byte order|byte-?swapped|floating point/i, "dtype"],
  [/version/i, "version"],
  [/dimension|shape/i, "shape"],
];

/** Python says that an array cannot be exchanged: the code is read from its words. */
function bufferErrorOf(error: PythonError): BufferError {
  const reason = error.message.replace(/^BufferError(: )?/, "");
  const code = codes.find(([words]) => words.test(reason))?.[1] ?? "data";
  return new BufferError(
    code,
    `Cannot import from Python: ${reason || "it does not say why"}`,
    { cause: error },
  );
}
