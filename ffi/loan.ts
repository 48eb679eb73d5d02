/**
 * What is lent to native functions: structs of our own, good for any number of
 * calls.
 *
 * @module
 */

import { isContiguous, stridesToTell } from "../src/layout.ts";
import { MANAGED, VERSIONED } from "./abi.ts";
import type { Caches } from "./caches.ts";
import { addressOfArray } from "./memory.ts";
import type { Owner } from "./owner.ts";
import {
  axesBytes,
  type FlagSpec,
  type TensorSpec,
  writeAxes,
  writeLegacy,
  writeTensor,
  writeVersioned,
} from "./write.ts";

/** An object that another library made of a tensor, by whoever knows that library. */
export interface LentObject {
  /** Who knows it. */
  readonly runtime: object;
  /** Its address, as the double that has these bits. */
  readonly bits: number;
  /** The memory of JavaScript that it shows; else nothing. */
  readonly live: Uint8Array;
  /** The length of `live`; another one when that was transferred, or the object given up. */
  readonly length: number;
  /** Whether it was given up. */
  readonly isOver: boolean;
  /** The lower half of its address. */
  readonly low: number;
  /** The upper half of its address. */
  readonly high: number;
}

const NO_BYTES = new Uint8Array(0);

/**
 * The structs of a tensor, as native functions borrow them.
 *
 * One block of memory has them all: the versioned struct, whose `DLTensor` is
 * the bare one, too; the legacy struct; lengths and strides. Nothing in it
 * changes afterwards.
 */
export class Loan {
  /** The address of a `DLTensor`. Its strides are never NULL. */
  readonly tensor: bigint;
  /** The address of a `DLManagedTensorVersioned` without a deleter. */
  readonly versioned: bigint;
  /**
   * The address of a `DLManagedTensor` without a deleter. Its strides are NULL
   * where the order is C, which older libraries ask for.
   */
  readonly legacy: bigint;
  /** The address of element [0, …, 0]; 0 where there is none. */
  readonly data: bigint;
  /** From `data` to that element, where `data` is a handle, in bytes. */
  readonly byteOffset: bigint;
  /** Whether there is a `byteOffset`. */
  readonly isInside: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
  /** Whether the elements lie in C order without gaps. */
  readonly isContiguous: boolean;
  /** What goes with the memory; `null` when nothing can be kept of it. */
  readonly caches: Caches | null;
  /** The memory, if it is JavaScript's own. */
  readonly memory: ArrayBufferView | null;
  /** What another library has made of this, for the next call. */
  object: LentObject | null = null;
  /** The memory as JavaScript sees it, and its bytes: many classes of arrays are slow to ask. */
  #live: ArrayBufferView | null = null;
  #bytes: Uint8Array = NO_BYTES;
  #length = 0;
  readonly #owner: Owner | null;
  /** The structs: they must not be collected while C uses them. */
  readonly #kept: ArrayBufferView | null;
  #calls = 0;
  #onEnd: (() => void) | null = null;

  /**
   * Writes the structs.
   *
   * @param spec What they are to say; `null`: all addresses are 0, for NULL.
   * @param kept What gives the memory back, or is the memory.
   * @param caches What goes with the memory.
   */
  constructor(
    spec: (TensorSpec & FlagSpec) | null,
    kept: Owner | ArrayBufferView | null,
    caches: Caches | null = null,
  ) {
    this.caches = caches;
    this.memory = ArrayBuffer.isView(kept) ? kept : null;
    if (spec === null) {
      this.tensor =
        this.versioned =
        this.legacy =
        this.data =
          0n;
      this.byteOffset = 0n;
      this.isInside = false;
      this.isPadded = false;
      this.isContiguous = true;
      this.#owner = null;
      this.#kept = null;
      return;
    }
    const { shape, data } = spec;
    // A tensor without axes has an address for them, too: some libraries look.
    const axes = axesBytes(Math.max(shape.length, 1));
    const legacyAt = VERSIONED.size;
    const shapeAt = legacyAt + MANAGED.size;
    const struct = new Uint8Array(shapeAt + 2 * axes);
    const address = addressOfArray(struct);
    const view = new DataView(struct.buffer);
    const strides = stridesToTell(shape, spec.strides);
    writeAxes(view, shapeAt, shape);
    writeAxes(view, shapeAt + axes, strides);
    const toShape = address + BigInt(shapeAt);
    const toStrides = toShape + BigInt(axes);
    this.isContiguous = isContiguous(shape, strides);
    // No deleter: nobody has to be told when a call is over.
    writeVersioned(view, 0, spec, 0, 0n);
    writeTensor(view, VERSIONED.tensor, spec, data, toShape, toStrides);
    const toLegacy = this.isContiguous ? 0n : toStrides;
    writeTensor(view, legacyAt + MANAGED.tensor, spec, data, toShape, toLegacy);
    writeLegacy(view, legacyAt, 0, 0n);

    this.versioned = address;
    this.tensor = address + BigInt(VERSIONED.tensor);
    this.legacy = address + BigInt(legacyAt);
    this.data = data;
    this.byteOffset = spec.byteOffset;
    this.isInside = spec.byteOffset !== 0n;
    this.isPadded = spec.isPadded;
    this.#owner = kept !== null && !ArrayBuffer.isView(kept) ? kept : null;
    this.#kept = struct;
  }

  /**
   * Says what JavaScript sees of the memory: `live` of a tensor's storage. Where
   * that can be resized, each call begins without {@linkcode beginIfThere}.
   */
  see(live: ArrayBufferView): void {
    if (live === this.#live && this.#bytes.length === this.#length) return;
    const { buffer } = live;
    // `live` may grow, which its bytes would not show.
    const isFixed = buffer instanceof ArrayBuffer
      ? !buffer.resizable
      : !buffer.growable;
    if (!isFixed) return;
    this.#live = live;
    const length = this.#length = live.byteLength;
    // V8 makes no array of an ArrayBuffer that was transferred.
    this.#bytes = length === 0
      ? NO_BYTES
      : new Uint8Array(buffer as ArrayBuffer, live.byteOffset, length);
  }

  /**
   * Begins a call if the memory is surely there; if not, it may be for all that.
   * All in one, so that V8 makes it a part of the call of whatever is lent.
   *
   * @param live What JavaScript sees of it now.
   */
  beginIfThere(live: ArrayBufferView): boolean {
    if (live !== this.#live || this.#bytes.length !== this.#length) {
      return false;
    }
    const isThere = this.#owner === null
      ? this.#length !== 0
      : this.#owner.holdIfActive();
    if (isThere) this.#calls++;
    return isThere;
  }

  /**
   * A call begins: native memory stays until its end, even if a callback
   * disposes the tensor.
   */
  begin(): void {
    this.#calls++;
    this.#owner?.hold();
  }

  /** A call is over. The count makes V8 keep the loan, and what it keeps, until then. */
  end(): void {
    this.#calls--;
    this.#owner?.unhold();
    this.#onEnd?.();
  }

  /** Says what is to be done at the end of a loan for one call. */
  onEnd(action: () => void): void {
    this.#onEnd = action;
  }
}
