import type { ManagedName } from "../../ffi/header.ts";
import { pointerTo } from "../../ffi/memory.ts";
import { claim, type KeptOpen } from "../../ffi/owner.ts";
import { capsuleOf, type DlpackCapsule } from "../capsule.ts";
import { BufferError } from "../errors.ts";

let beginFilling: (out: OutCapsule) => Uint8Array<ArrayBuffer> | null;
let endFilling: (out: OutCapsule, name: ManagedName, from: KeptOpen) => void;

/**
 * Where a native function puts the managed tensor that it returns through a
 * parameter: `int f(…, DLManagedTensorVersioned **out)`.
 *
 * It can be used again: each call empties it first. What a call wrote and
 * nobody took is released by the next call, by `dispose`, or when the
 * OutCapsule is garbage. A function that fails must therefore leave the
 * pointer alone, as DLPack's own do, or set it to NULL; of one that leaves a
 * pointer there that is not ours, `take().take()` gets rid of it.
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
 */
export class OutCapsule implements Disposable {
  readonly #cell = new ArrayBuffer(8);
  #capsule: DlpackCapsule | null = null;
  #isLent = false;

  static {
    beginFilling = (out) => out.#begin();
    endFilling = (out, name, from) => out.#end(name, from);
  }

  /**
   * Takes what the last call wrote.
   *
   * @returns The capsule that owns it.
   * @throws {BufferError} `"data"` when the callee wrote nothing, or it was
   * taken before.
   */
  take(): DlpackCapsule {
    const capsule = this.#capsule;
    if (capsule === null) {
      throw new BufferError(
        "data",
        "Cannot take a tensor out of an empty OutCapsule: " +
          (this.#isLent
            ? "the call that is to fill it is not over, await it first"
            : "no call wrote one since the last take(); look at the status " +
              "that the function returned"),
      );
    }
    this.#capsule = null;
    return capsule;
  }

  /** Releases what a call wrote and nobody took. Idempotent. */
  [Symbol.dispose](): void {
    const capsule = this.#capsule;
    this.#capsule = null;
    capsule?.[Symbol.dispose]();
  }

  #begin(): Uint8Array<ArrayBuffer> | null {
    if (this.#isLent) return null;
    this[Symbol.dispose]();
    this.#isLent = true;
    return new Uint8Array(this.#cell).fill(0);
  }

  #end(name: ManagedName, from: KeptOpen): void {
    this.#isLent = false;
    const [pointer] = new BigUint64Array(this.#cell);
    if (pointer === 0n) return;
    const owner = claim(pointerTo(pointer!)!, name);
    owner.keepOpen(from);
    this.#capsule = capsuleOf(owner);
  }
}

/**
 * For other files of this module: the eight bytes for a callee to write to, or
 * `null` while another call is to fill them. What they held is released.
 */
export function lendOut(out: OutCapsule): Uint8Array<ArrayBuffer> | null {
  return beginFilling(out);
}

/**
 * For other files of this module: the call is over.
 *
 * @param from The library of the callee.
 */
export function takeBack(
  out: OutCapsule,
  name: ManagedName,
  from: KeptOpen,
): void {
  endFilling(out, name, from);
}
