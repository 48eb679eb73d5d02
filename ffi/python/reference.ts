/**
 * References to Python's objects, and who lets go of them.
 *
 * @module
 */

import { BufferError } from "../../src/errors.ts";
import { addressOf, isPointer, pointerTo } from "../memory.ts";
import { checkPlace, notAPointer } from "../owner.ts";
import type { Interpreter } from "./interpreter.ts";
import type { Exchange } from "./exchange.ts";

/** What is to be let go. It must not know its {@linkcode Reference}. */
interface Held {
  readonly interpreter: Interpreter;
  pointer: Deno.PointerObject | null;
}

/** All that were not let go: for the end of Python. */
const held = new Set<Held>();

let listensForEnd = false;

const registry = new FinalizationRegistry<Held>(letGo);

/** Owns one reference to an object, until it is released or garbage. */
export class Reference {
  readonly interpreter: Interpreter;
  /** The table of C functions that its type has, once somebody has asked. */
  exchange: Exchange | null | undefined;
  readonly #held: Held;
  #address: bigint | undefined;

  /**
   * @param interpreter Whose object it is.
   * @param pointer The object: the reference is taken over.
   */
  constructor(interpreter: Interpreter, pointer: Deno.PointerObject) {
    if (!listensForEnd) {
      listensForEnd = true;
      interpreter.beforeEnd(letGoOfAll);
    }
    this.interpreter = interpreter;
    this.#held = { interpreter, pointer };
    held.add(this.#held);
    registry.register(this, this.#held, this);
  }

  /** Whether it was not released. */
  get isThere(): boolean {
    return this.#held.pointer !== null;
  }

  /**
   * The object.
   *
   * @throws {BufferError} `"released"` when it was released.
   */
  get pointer(): Deno.PointerObject {
    const { pointer } = this.#held;
    if (pointer !== null) return pointer;
    throw new BufferError(
      "released",
      "Cannot use a Python object that was disposed: evaluate it again",
    );
  }

  /**
   * Where the object is.
   *
   * @throws {BufferError} `"released"` when it was released.
   */
  get address(): bigint {
    const { pointer } = this;
    return this.#address ??= addressOf(pointer);
  }

  /** Lets go of the object: idempotent. */
  release(): void {
    if (this.#held.pointer === null) return;
    registry.unregister(this);
    letGo(this.#held);
  }
}

/**
 * A reference of our own to an object that somebody else has.
 *
 * @throws {TypeError} When it is no pointer of an object.
 */
export function referenceTo(
  interpreter: Interpreter,
  handle: Deno.PointerValue | bigint,
): Reference {
  const pointer = typeof handle === "bigint" ? pointerTo(handle) : handle;
  if (pointer === null) {
    throw new TypeError("Cannot take NULL for an object of Python");
  }
  if (!isPointer(pointer)) throw notAPointer(pointer);
  checkPlace(pointer);
  interpreter.within(() => interpreter.py.Py_IncRef(pointer));
  return new Reference(interpreter, pointer);
}

function letGo(one: Held): void {
  const { interpreter, pointer } = one;
  if (pointer === null) return;
  one.pointer = null;
  held.delete(one);
  if (!interpreter.enter()) return;
  interpreter.py.Py_DecRef(pointer);
  interpreter.leave();
  interpreter.afterwards?.("release");
}

function letGoOfAll(): void {
  for (const one of held) letGo(one);
}
