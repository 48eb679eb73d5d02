/**
 * What is made of a tensor's memory and kept for the next use: it must go with
 * the memory.
 *
 * @module
 */

/** Something that was kept. */
export interface Cached {
  /** Lets go of it: idempotent. */
  drop(): void;
}

/** All that was kept of some memory. It must not know whose memory that is. */
export class Caches {
  readonly #all = new Set<Cached>();

  /** Keeps something more. */
  add(cached: Cached): void {
    this.#all.add(cached);
  }

  /** Something is gone already. */
  delete(cached: Cached): void {
    this.#all.delete(cached);
  }

  /** The memory is given back, or away. */
  dropAll(): void {
    for (const cached of this.#all) cached.drop();
    this.#all.clear();
  }
}
