/**
 * What the calls of a GPU's runtime return: CUDA and HIP number alike what is
 * looked at here.
 *
 * @module
 */

import { deviceError } from "./driver.ts";
import type { DeviceMemory } from "./runtime.ts";

/** `CUresult` and `hipError_t`. */
export const SUCCESS = 0;
/** Of a pointer: there is no such memory. */
export const INVALID_VALUE = 1;
/** Of a call that needs one: no context is current. */
export const INVALID_CONTEXT = 201;
const NOT_READY = 600;

/** Attributes of a pointer, and flags of streams and events. */
export const DEVICE_ORDINAL = 9;
export const NON_BLOCKING = 1;
export const BLOCKING_SYNC = 1;
export const DISABLE_TIMING = 2;

/** How a runtime reports errors. */
export interface ErrorReport {
  /** What it is, in messages: `"driver"`. */
  readonly who: string;
  /** What to do about some errors. */
  readonly hints: Readonly<Record<number, string>>;
  /** The runtime's name of an error, if it has one. */
  nameOf(status: number): string | null;
  /** Makes the runtime forget an error of which it was the last. */
  forget(): void;
}

/** Looks at what calls return, for one tensor. */
export class GpuCalls {
  readonly #memory: DeviceMemory;
  readonly #report: ErrorReport;

  constructor(memory: DeviceMemory, report: ErrorReport) {
    this.#memory = memory;
    this.#report = report;
  }

  /**
   * Checks the status of a call.
   *
   * @throws {BufferError} `"device"` when it is an error.
   */
  check(call: string, status: number): void {
    if (status === SUCCESS) return;
    const hint = this.#report.hints[status];
    throw deviceError(
      this.#memory,
      this.#failure(call, status) + (hint === undefined ? "" : `: ${hint}`),
    );
  }

  /** What a call makes, and writes to where it is told. */
  made(
    call: string,
    make: (made: BigUint64Array<ArrayBuffer>) => number,
  ): bigint {
    const made = new BigUint64Array(1);
    this.check(call, make(made));
    return made[0]!;
  }

  /** Whether what a call asks for is done. */
  isReady(call: string, status: number): boolean {
    if (status !== NOT_READY) {
      this.check(call, status);
      return true;
    }
    this.#report.forget();
    return false;
  }

  /**
   * Checks that memory has the bytes that it should: in one allocation, or in
   * neighbours that touch.
   *
   * @param endAt The end of the allocation at an address, or `null`.
   * @throws {BufferError} `"device"` when it has fewer.
   */
  checkRange(address: bigint, endAt: (at: bigint) => bigint | null): void {
    const end = address + BigInt(this.#memory.byteLength);
    for (let at = address; at < end;) {
      const next = endAt(at);
      if (next === null || next <= at) {
        throw deviceError(
          this.#memory,
          `it ends at 0x${end.toString(16)}, the memory that the ` +
            `${this.#report.who} knows there at 0x${at.toString(16)}; check ` +
            "the shape, strides and byte offset that the library gives",
        );
      }
      at = next;
    }
  }

  /** There is no memory at an address, a call says. */
  unknown(call: string, address: bigint): Error {
    return deviceError(
      this.#memory,
      `the ${this.#report.who} knows no memory at 0x${address.toString(16)}: ` +
        `was it freed? ${this.#failure(call, INVALID_VALUE)}`,
    );
  }

  #failure(call: string, status: number): string {
    const { nameOf, forget } = this.#report;
    forget();
    return `${call} failed with ${nameOf(status) ?? "an error"} (${status})`;
  }
}
