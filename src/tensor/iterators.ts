import { isPlain } from "../dtype/element.ts";
import { functionOf } from "../function_of.ts";
import type { Reader } from "./reader.ts";

/**
 * Goes over the first axis of a tensor.
 *
 * These are classes, as V8 makes their `next` part of a loop, which it does not
 * do with a generator's.
 */
class AxisIterator {
  protected index = 0;

  /** @param get Reads an element, or makes a row. */
  constructor(
    protected length: number,
    protected readonly get: (index: number) => unknown,
    _reader?: Reader,
  ) {}

  next(): IteratorResult<unknown, undefined> {
    return this.index < this.length
      ? { value: this.get(this.index++), done: false }
      : { value: undefined, done: true };
  }

  /** What a loop calls that is left early. */
  return(): IteratorResult<never, undefined> {
    this.length = 0;
    return { value: undefined, done: true };
  }
}

// Not `extends`, with which each iterator would take the constructor's time, too.
Object.setPrototypeOf(AxisIterator.prototype, Iterator.prototype);

/** Its class for the elements of each class of typed arrays. */
const classes = new Map<string, typeof AxisIterator>();

/**
 * The rows of a tensor, or its elements.
 *
 * @param length How many.
 * @param get Reads an element, or makes a row.
 * @param reader How elements are read faster, if at all.
 */
export function iterate(
  length: number,
  get: (index: number) => unknown,
  reader: Reader | null = null,
): Iterator<unknown, undefined> {
  if (reader === null || !isPlain(reader.storage.info)) {
    return new AxisIterator(length, get);
  }
  const { name } = reader.storage.info.array;
  let Class = classes.get(name);
  if (Class === undefined) classes.set(name, Class = classFor(name));
  return new Class(length, get, reader);
}

/** V8 is fast where a text has seen one class alone: so each has its own. */
function classFor(name: string): typeof AxisIterator {
  const make = functionOf<(Base: unknown) => typeof AxisIterator>(
    ["AxisIterator"],
    `"use strict"; // ${name}
return class extends AxisIterator {
  constructor(length, get, { storage, offset, s0 }) {
    super(length, get);
    this.storage = storage;
    this.at = offset;
    this.step = s0;
  }
  next() {
    if (this.index >= this.length) return { value: undefined, done: true };
    const element = this.storage.live[this.at];
    const index = this.index++;
    this.at += this.step;
    // undefined: the memory is gone, which is an error of get().
    const value = element === undefined ? this.get(index) : element;
    return { value, done: false };
  }
};`,
  );
  return make === null ? AxisIterator : make(AxisIterator);
}
