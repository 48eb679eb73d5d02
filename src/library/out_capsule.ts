import type { Owner } from "../../ffi/owner.ts";
import {
  type BorrowOptions,
  capsuleOf,
  type DlpackCapsule,
  holdOf,
} from "../capsule.ts";
import { BufferError, checkOptions } from "../errors.ts";

let isLent: (out: OutCapsule) => boolean;
let beginFilling: (out: OutCapsule) => void;
let endFilling: (
  out: OutCapsule,
  owner: Owner | null,
  writable: boolean,
  wrong: unknown,
) => void;

/** What `structuredClone` and `postMessage` stumble over, and then show. */
const UNCLONEABLE = Symbol(
  "An OutCapsule: send the address of take().take(), which",
);

/**
 * Where a native function puts the managed tensor that it returns through a
 * parameter: `int f(…, DLManagedTensorVersioned **out)`, or
 * `int f(…, DLManagedTensor *out)`, which fills a struct in place.
 *
 * It can be used again: each call empties it first. What a call wrote and
 * nobody took is released by the next call, by `dispose`, or when the
 * OutCapsule is garbage. So a function that fails must leave the pointer alone,
 * as DLPack's own do, or set it to NULL. If yours leaves another pointer there,
 * call `out.take().take()`: it gives that pointer up, and calls nothing.
 *
 * @example A library with status codes
 * ```ts
 * import { dlopen, fromDlpack, OutCapsule, Tensor } from "@dlpack/deno";
 *
 * using lib = dlopen("./build/filter.so", {
 *   filter_blur: {
 *     parameters: ["DLTensor*", "i32", "DLManagedTensorVersioned**"],
 *     result: "i32",
 *   },
 * });
 * const image = Tensor.from(new Float32Array(12), [3, 4]);
 * const out = new OutCapsule();
 * const status = lib.symbols.filter_blur(image, 1, out);
 * if (status !== 0) throw new Error(`filter_blur failed: ${status}`);
 * using blurred = fromDlpack(out.take());
 * console.log(blurred.shape); // [3, 4]
 * ```
 *
 * @category C functions
 */
export class OutCapsule implements Disposable {
  // An own field, as the structured clone looks at nothing else.
  private readonly uncloneable = UNCLONEABLE;
  #owner: Owner | null = null;
  #isWritable = false;
  #isLent = false;
  /** Why what a call wrote is no struct of ours to take. */
  #wrong: unknown = null;

  static {
    isLent = (out) => out.#isLent;
    beginFilling = (out) => out.#begin();
    endFilling = (out, owner, writable, wrong) =>
      out.#end(owner, writable, wrong);
  }

  /**
   * Takes what the last call wrote.
   *
   * @param options What must live for as long as the tensor, whether a legacy
   * struct may be written to, and the stream on which its memory is being
   * written.
   * @returns The capsule that owns it.
   * @throws {BufferError} `"data"` when the callee wrote nothing: NULL, or a
   * struct whose bytes are all still 0; or when it was taken before.
   * `"released"` when the memory of `keepAlive` is gone; `"consumed"` when it
   * wrote a struct that is owned already.
   * @throws {TypeError} When an option is of the wrong kind, or it wrote what
   * cannot be the address of a struct.
   */
  take(options: BorrowOptions = {}): DlpackCapsule {
    checkOptions("take()", options);
    const owner = this.#owner;
    if (this.#wrong !== null) throw this.#wrong;
    if (owner === null) {
      throw new BufferError(
        "data",
        "Cannot take a tensor out of an empty OutCapsule: " +
          (this.#isLent
            ? "the call that is to fill it is not over, await it first"
            : "no call wrote one since the last take(); look at the status " +
              "that the function returned"),
      );
    }
    const { keepAlive, ...rest } = options;
    const held = holdOf(keepAlive);
    let capsule: DlpackCapsule;
    try {
      capsule = capsuleOf(owner, { writable: this.#isWritable, ...rest });
    } catch (error) {
      held?.[Symbol.dispose]();
      throw error;
    }
    this.#owner = null;
    if (held !== null) owner.afterDelete(() => held[Symbol.dispose]());
    owner.keepAlive(keepAlive);
    return capsule;
  }

  /** Releases what a call wrote and nobody took. Idempotent. */
  [Symbol.dispose](): void {
    const owner = this.#owner;
    this.#owner = this.#wrong = null;
    owner?.release();
  }

  #begin(): void {
    const owner = this.#owner;
    this.#owner = this.#wrong = null;
    // What else the call takes has changed hands: a deleter must not stop it.
    owner?.releaseAfterFailure();
    this.#isLent = true;
  }

  #end(owner: Owner | null, writable: boolean, wrong: unknown): void {
    this.#isLent = false;
    this.#wrong = wrong;
    this.#owner = owner;
    this.#isWritable = writable;
  }
}

/** For other files of this module: whether a call is to fill it. */
export function isFilling(out: OutCapsule): boolean {
  return isLent(out);
}

/**
 * For other files of this module: a call is to fill it; what it held is
 * released.
 */
export function beginOut(out: OutCapsule): void {
  beginFilling(out);
}

/**
 * For other files of this module: the call is over.
 *
 * @param owner Of what it wrote, if anything.
 * @param writable Whether a legacy struct may be written to.
 * @param wrong Why what it wrote cannot be taken, else `null`.
 */
export function endOut(
  out: OutCapsule,
  owner: Owner | null,
  writable: boolean,
  wrong: unknown,
): void {
  endFilling(out, owner, writable, wrong);
}
