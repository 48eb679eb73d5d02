/**
 * What is lent to native functions: structs of our own, good for any number of
 * calls.
 *
 * @module
 */

import { isContiguous, stridesToTell } from "../src/layout.ts";
import { MANAGED, VERSIONED } from "./abi.ts";
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
  readonly #owner: Owner | null;
  /** What must not be collected while C uses it. */
  readonly #kept: readonly (ArrayBufferView | null)[];
  #calls = 0;
  #onEnd: (() => void) | null = null;

  /**
   * Writes the structs.
   *
   * @param spec What they are to say; `null`: all addresses are 0, for NULL.
   * @param kept What gives the memory back, or is the memory.
   */
  constructor(
    spec: (TensorSpec & FlagSpec) | null,
    kept: Owner | ArrayBufferView | null,
  ) {
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
      this.#kept = [];
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
    this.#kept = [struct, ArrayBuffer.isView(kept) ? kept : null];
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
