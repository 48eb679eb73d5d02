import type { Reference } from "../../ffi/tvm_ffi/reference.ts";

/** Only this folder makes objects. */
export const KEY: unique symbol = Symbol("TvmFfiObject");

/** What `structuredClone` and `postMessage` stumble over, and then show. */
const UNCLONEABLE = Symbol(
  "A TvmFfiObject, whose reference is of this thread,",
);

let refer: (value: unknown) => Reference | null;

/**
 * An object of a library of TVM-FFI: has the fields and methods that its type
 * was registered with, those of the types it is derived from included.
 *
 * The library counts references to it. This one is given up by `dispose`, the end
 * of `using`, or when it is garbage; the object lives for as long as anybody else
 * has one.
 *
 * Methods keep the names that they have in the library. Arguments and results
 * are those of {@linkcode TvmFfiFunction}.
 */
export class TvmFfiObject implements Disposable {
  // An own field, as the structured clone looks at nothing else.
  private readonly uncloneable = UNCLONEABLE;
  readonly #reference: Reference;

  static {
    refer = (value) =>
      typeof value === "object" && value !== null && #reference in value
        ? value.#reference
        : null;
  }

  /** What its type has: fields are read and set, methods called. */
  // deno-lint-ignore no-explicit-any
  [member: string]: any;

  /** For {@linkcode TvmFfi.type}. */
  constructor(key: unknown, reference: unknown) {
    if (key !== KEY) {
      throw new TypeError(
        "Cannot construct a TvmFfiObject by itself: ask for its class with " +
          "type(), which says whether it can be constructed",
      );
    }
    this.#reference = reference as Reference;
    this.#reference.runtime.watch(this, this.#reference);
  }

  /** Gives the reference up. Idempotent. */
  [Symbol.dispose](): void {
    this.#reference.drop();
  }
}

/** For other files of this folder: the reference that an object has. */
export function referenceOf(value: unknown): Reference | null {
  return refer(value);
}

/** The references that functions have. */
const ofFunctions = new WeakMap<object, Reference>();

/** For other files of this folder: a function has a reference from here on. */
export function referByFunction(callee: object, reference: Reference): void {
  ofFunctions.set(callee, reference);
  reference.runtime.watch(callee, reference);
}

/** For other files of this folder: the reference that a function has. */
export function referenceOfFunction(callee: object): Reference | null {
  return ofFunctions.get(callee) ?? null;
}
