/**
 * Tells when what is kept for later has not been used for a while.
 *
 * A timer would keep a program running, and look like a leak to its tests. So it
 * is the garbage collector that is waited for, which comes where memory is used.
 *
 * @module
 */

/** How long something is kept that nobody uses, at least, in milliseconds. */
const IDLE = 1000;

/** Frees what is kept when it has not been used for a second, or longer. */
export class IdleWatch {
  #isUsed = false;
  #lastUsed = 0;
  #isWatching = false;
  readonly #collections: FinalizationRegistry<undefined>;

  /** @param free What to do then. */
  constructor(free: () => void) {
    // The collector comes often, as new memory calls it, and then what is kept
    // shall be there for the next round.
    this.#collections = new FinalizationRegistry(() => {
      if (this.#isUsed) this.#lastUsed = Date.now();
      this.#isUsed = false;
      if (Date.now() - this.#lastUsed < IDLE) return this.#watch();
      this.#isWatching = false;
      free();
    });
  }

  /** Says that it is used now. */
  use(): void {
    this.#isUsed = true;
    if (!this.#isWatching) this.#watch();
  }

  #watch(): void {
    this.#isWatching = true;
    this.#collections.register({}, undefined);
  }
}
