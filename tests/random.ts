/** Random numbers for tests. */

/** Random numbers that are the same in every run (Marsaglia's xorshift32). */
export class Random {
  #state = 2463534242;

  /** From 0 to `end` - 1; `end` is 2 ** 32 at most. */
  below(end: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % end;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.below(2 ** 32);
    return new Uint8Array(words.buffer, 0, length);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  shuffle<T>(values: readonly T[]): T[] {
    return values.map((value) => ({ value, key: this.below(2 ** 31) }))
      .sort((a, b) => a.key - b.key).map(({ value }) => value);
  }
}
