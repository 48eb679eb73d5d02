/**
 * Lengths and strides of tensors: few differ, and equal ones are one array.
 *
 * What a script sees is a frozen copy, of which V8 reads a number as slowly as
 * five of others. So this module itself uses arrays that are not frozen, and
 * never changes them.
 *
 * @module
 */

/** As many are known as a look takes no time: a power of 2. */
const SLOTS = 256;

/** Arrays of numbers, each of which is there once. */
class AxesTable {
  readonly #known: (readonly number[])[] = [];
  /** Their frozen copies, once a script has asked. */
  readonly #frozen: (readonly number[] | null)[] = [];

  constructor() {
    for (let slot = 0; slot < SLOTS; slot++) {
      this.#known.push([]);
      this.#frozen.push(null);
    }
  }

  /**
   * The one array of these numbers.
   *
   * @param values Nobody may change them any more.
   */
  shared(values: readonly number[]): readonly number[] {
    const slot = slotOf(values);
    const found = this.#known[slot]!;
    if (areEqual(found, values)) return found;
    this.#keep(values, slot);
    return values;
  }

  /**
   * The one array of 64-bit integers. Those beyond the safe ones come as the
   * nearest unsafe number.
   *
   * @param words Their lower and upper halves.
   * @param at Where the first one begins.
   * @param ndim How many.
   */
  of(words: Int32Array, at: number, ndim: number): readonly number[] {
    let hash = ndim;
    for (let i = at; i < at + 2 * ndim; i += 2) hash = mix(hash, words[i]!);
    const slot = hash & SLOTS - 1;
    const found = this.#known[slot]!;
    if (found.length === ndim) {
      let axis = 0;
      while (axis < ndim && found[axis] === integerAt(words, at + 2 * axis)) {
        axis++;
      }
      if (axis === ndim) return found;
    }
    const values = new Array<number>(ndim);
    for (let axis = 0; axis < ndim; axis++) {
      values[axis] = integerAt(words, at + 2 * axis);
    }
    this.#keep(values, slot);
    return values;
  }

  /** The same numbers for a script to see, frozen. */
  shown(axes: readonly number[]): readonly number[] {
    const slot = slotOf(axes);
    if (!areEqual(this.#known[slot]!, axes)) this.#keep(axes, slot);
    return this.#frozen[slot] ??= Object.freeze([...axes]);
  }

  #keep(values: readonly number[], slot: number): void {
    this.#known[slot] = values;
    this.#frozen[slot] = null;
  }
}

// Two, as a tensor's lengths and strides must not take each other's place.

/** Lengths. */
export const shapeTable: AxesTable = new AxesTable();
/** Strides. */
export const stridesTable: AxesTable = new AxesTable();

function slotOf(values: readonly number[]): number {
  let hash = values.length;
  for (let axis = 0; axis < values.length; axis++) {
    hash = mix(hash, values[axis]!);
  }
  return hash & SLOTS - 1;
}

/** Of a number the lower 32 bits count, as of an integer's lower half. */
function mix(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x9e3779b1) >>> 15 ^ hash << 3;
}

function areEqual(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) {
    if (a[axis] !== b[axis]) return false;
  }
  return true;
}

function integerAt(words: Int32Array, at: number): number {
  const low = words[at]!;
  const high = words[at + 1]!;
  // Small ones stay small integers, which V8 handles best.
  return high === low >> 31 ? low : high * 2 ** 32 + (low >>> 0);
}
