import type { Reader } from "./reader.ts";

/**
 * Goes over the first axis of a tensor.
 *
 * These are classes, as V8 makes their `next` part of a loop, which it does not
 * do with a generator's.
 */
abstract class AxisIterator {
  protected index = 0;

  constructor(protected length: number) {}

  /** What a loop calls that is left early. */
  return(): IteratorResult<never, undefined> {
    this.length = 0;
    return { value: undefined, done: true };
  }
}

// Not `extends`, with which each iterator would take the constructor's time, too.
Object.setPrototypeOf(AxisIterator.prototype, Iterator.prototype);

/** The elements of a tensor with one axis. */
export class ElementIterator extends AxisIterator {
  /**
   * @param get Reads one of them.
   * @param reader How it is read faster; `null`: not at all.
   */
  constructor(
    length: number,
    private readonly get: (index: number) => unknown,
    private readonly reader: Reader | null,
  ) {
    super(length);
  }

  next(): IteratorResult<unknown, undefined> {
    if (this.index >= this.length) return { value: undefined, done: true };
    const index = this.index++;
    const { reader } = this;
    if (reader === null) return { value: this.get(index), done: false };
    const { storage, offset, s0, length } = reader;
    const at = offset + index * s0;
    const value = reader.get(storage.live, at, length, storage);
    return { value, done: false };
  }
}

/** The rows of a tensor with more axes. */
export class RowIterator extends AxisIterator {
  /** @param get Makes one of them. */
  constructor(
    length: number,
    private readonly get: (index: number) => unknown,
  ) {
    super(length);
  }

  next(): IteratorResult<unknown, undefined> {
    return this.index < this.length
      ? { value: this.get(this.index++), done: false }
      : { value: undefined, done: true };
  }
}
