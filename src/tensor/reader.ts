import {
  type ElementAccess,
  elementAccess,
  typeOfElements,
} from "../dtype/element.ts";
import type { Layout } from "../layout.ts";
import type { Storage } from "./storage.ts";

/**
 * What reading and writing an element takes, worked out once for a view.
 *
 * It is good for the common case alone: up to four axes, numbers as indices,
 * memory that is there. All else is left to the tensor, and what is to be said of
 * it, too.
 */
export class Reader {
  // `declare`, else each would be set twice, and be no constant to V8.

  /** How often it was used, until that was often. */
  declare uses: number;
  /** The number of axes; -1 where there are too many. */
  declare readonly ndim: number;
  declare readonly storage: Storage;
  /** The length of `data`. */
  declare readonly length: number;
  declare readonly get: ElementAccess["get"];
  declare readonly set: ElementAccess["set"];
  /** What `typeof` says of elements that may be written; `null`: none. */
  declare readonly writable: string | null;
  declare readonly offset: number;
  // Lengths and strides, each a field of its own: that saves two loads.
  declare readonly n0: number;
  declare readonly n1: number;
  declare readonly n2: number;
  declare readonly n3: number;
  declare readonly s0: number;
  declare readonly s1: number;
  declare readonly s2: number;
  declare readonly s3: number;

  constructor(storage: Storage, { shape, strides, offset }: Layout) {
    const { info, isPacked, readOnly } = storage;
    const { get, set } = elementAccess(info, isPacked);
    const type = typeOfElements(info);
    this.uses = 0;
    this.ndim = shape.length <= 4 ? shape.length : -1;
    this.storage = storage;
    this.length = storage.length;
    this.get = get;
    this.set = set;
    this.writable = readOnly || type === "object" ? null : type;
    this.offset = offset;
    [this.n0 = 0, this.n1 = 0, this.n2 = 0, this.n3 = 0] = shape;
    [this.s0 = 0, this.s1 = 0, this.s2 = 0, this.s3 = 0] = strides;
  }
}

/**
 * Where the element at some indices is in `data`; -1 if one of them is out of
 * range, or no plain number. There must be as many as axes, at most four.
 */
export function placeOf(
  reader: Reader,
  i: unknown,
  j: unknown,
  k: unknown,
  l: unknown,
): number {
  const { ndim } = reader;
  let at = reader.offset;
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  if (ndim > 0) {
    a = resolveSimply(i, reader.n0);
    at += a * reader.s0;
    if (ndim > 1) {
      b = resolveSimply(j, reader.n1);
      at += b * reader.s1;
      if (ndim > 2) {
        c = resolveSimply(k, reader.n2);
        at += c * reader.s2;
        if (ndim > 3) {
          d = resolveSimply(l, reader.n3);
          at += d * reader.s3;
        }
      }
    }
  }
  return (a | b | c | d) >= 0 ? at : -1;
}

/** An index, negative ones counted from the end; -1 if it is not so simple. */
export function resolveSimply(index: unknown, length: number): number {
  if (typeof index !== "number") return -1;
  const from0 = index < 0 ? index + length : index;
  // The index itself: to add the length may round it to an integer.
  return (index | 0) === index && from0 < length ? from0 : -1;
}
