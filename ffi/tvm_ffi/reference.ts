/**
 * One strong reference to an object of TVM-FFI, given up once.
 *
 * @module
 */

import type { Cached, Caches } from "../caches.ts";
import type { LentObject } from "../loan.ts";
import { asDouble } from "./anys.ts";

/** The library that references are of, as far as they know it. */
export interface Home {
  /** Where it is. */
  readonly path: string;
  /** There is one more. */
  began(reference: Reference): void;
  /** One was given up. */
  ended(reference: Reference): void;
  /** Gives one up when what stands for the object is collected. */
  watch(target: object, reference: Reference): void;
}

/**
 * What a reference is to:
 *
 * - `"value"`: an object that came out of a call, whose code may be a module's
 * - `"module"`: a module, which stays open for as long as there are values
 * - `"ours"`: a function of a table, or an object that was made of a tensor of
 *   ours, whose code is no module's
 */
export type ReferenceKind = "value" | "module" | "ours";

const NOWHERE = new Uint8Array(0);

/** A strong reference. It must not know what in JavaScript stands for the object. */
export class Reference implements Cached, LentObject {
  readonly runtime: Home;
  readonly address: bigint;
  /** Which of `TVMFFITypeIndex` the object is. */
  readonly type: number;
  readonly kind: ReferenceKind;
  /** The lower half of the address. */
  readonly low: number;
  /** The upper half of the address. */
  readonly high: number;
  readonly bits: number;
  live: Uint8Array = NOWHERE;
  length = -1;
  /** Whether it was given up. */
  isOver = false;
  /** Where it is kept, if anywhere. */
  readonly #caches: Caches | null;

  /** Takes over a reference that somebody has. */
  constructor(
    runtime: Home,
    address: bigint,
    type: number,
    kind: ReferenceKind,
    caches: Caches | null = null,
  ) {
    this.runtime = runtime;
    this.address = address;
    this.type = type;
    this.kind = kind;
    this.low = Number(BigInt.asIntN(32, address));
    this.high = Number(address >> 32n);
    this.bits = asDouble(address);
    this.#caches = caches;
    caches?.add(this);
    runtime.began(this);
  }

  /**
   * Says that this is a tensor object of that memory of JavaScript, or of memory
   * of others: `null`.
   */
  isOf(memory: ArrayBufferView | null): void {
    // As a double, an address must not be one of the many that are no number.
    if (Number.isNaN(this.bits)) return;
    this.live = memory === null ? NOWHERE : new Uint8Array(memory.buffer);
    this.length = this.live.length;
  }

  /** Gives it up, when the calls that are under way are over: idempotent. */
  drop(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.live = NOWHERE;
    this.length = -1;
    this.#caches?.delete(this);
    this.runtime.ended(this);
  }
}
