/**
 * Pinned memory, which a GPU writes at its full speed.
 *
 * To get and to give back some takes longer than to fill it ten times, so it is
 * kept for the next copy.
 *
 * @module
 */

import { IdleWatch } from "../idle.ts";

/** The length of a piece, in bytes: a GPU fills it while a thread starts. */
export const PINNED_BYTES = 2 * 1024 * 1024;

/**
 * How many a copy uses, at most: so many threads, where they find memory that is
 * warm, read nine tenths of what an H200 writes.
 */
export const PINNED_COUNT = 8;

/** What pinned memory needs of a GPU's runtime. */
export interface PinnedDriver {
  /** The runtime's library. */
  readonly library: object;
  /** The context or device that owns the memory. */
  readonly place: bigint;
  /** Makes that the current one; the rest is called inside of it. */
  within<T>(calls: () => T): T;
  /** Pinned memory of the host. */
  allocatePinned(length: number): bigint;
  /** Whether it is still there: a reset of the device takes it away. */
  isPinned(address: bigint): boolean;
  /** Gives it back. */
  freePinned(address: bigint): void;
}

/** A piece of pinned memory. */
export interface Pinned {
  readonly driver: PinnedDriver;
  readonly address: bigint;
}

const kept: Pinned[] = [];
const watch = new IdleWatch(freeAllPinned);

/** A piece that nobody uses, or a new one. */
export function takePinned(driver: PinnedDriver): Pinned {
  const { library, place } = driver;
  while (true) {
    const at = kept.findLastIndex(({ driver: other }) =>
      other.library === library && other.place === place
    );
    if (at === -1) break;
    const { address } = kept.splice(at, 1)[0]!;
    if (driver.isPinned(address)) return { driver, address };
  }
  return { driver, address: driver.allocatePinned(PINNED_BYTES) };
}

/** Takes a piece back that nothing is copied to or from any more. */
export function givePinned(pinned: Pinned): void {
  kept.push(pinned);
  watch.use();
}

/** Frees what is kept. */
export function freeAllPinned(): void {
  for (const { driver, address } of kept.splice(0)) {
    try {
      driver.within(() => {
        if (driver.isPinned(address)) driver.freePinned(address);
      });
    } catch (error) {
      console.error("Pinned memory could not be given back:", error);
    }
  }
}
