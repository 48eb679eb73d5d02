import { isPlain, typeOfElements } from "../dtype/element.ts";
import type { DTypeInfo } from "../dtype/table.ts";
import { functionOf } from "../function_of.ts";
import type { Reader } from "./reader.ts";

/**
 * Gives a tensor `get` and `set` that are as fast as arrays'.
 *
 * V8 keeps what it learns of an access by the text it is in, and is fast where
 * that has seen one kind alone: so there is a text, and a prototype with its
 * functions, for each class of typed arrays and number of axes.
 *
 * A tensor gets them when many of its elements were read or written: to change a
 * prototype takes as long as an import. And until then all tensors are alike,
 * which all else in this module is fast with.
 */
export type Access = (tensor: object, reader: Reader) => void;

/** What is not so simple, and all errors. */
export interface Slow {
  /** Reads an element: `count` indices were given, of which these are some. */
  get(tensor: object, count: number, ...index: unknown[]): unknown;
  /** Writes one: `count` arguments were given. */
  set(tensor: object, count: number, ...args: unknown[]): void;
}

/** Gives a tensor private fields, which are those of whatever `super` returns. */
class Stamp {
  constructor(tensor: object) {
    return tensor;
  }
}

type Make = (
  prototype: object,
  stamp: typeof Stamp,
  slow: Slow,
) => (tensor: object, reader: Reader) => void;

const MOST_AXES = 4;

/** By class of typed arrays and number of axes; `null`: there is none. */
const made = new Map<string, Access | null>();

/**
 * What makes the elements of a kind fast.
 *
 * @param prototype Tensor's.
 * @param slow What `get` and `set` leave to it.
 * @returns `null` for elements that are not what the typed array holds, for more
 * axes than most tensors have, and where code must not be made from strings.
 */
export function accessOf(
  prototype: object,
  slow: Slow,
  info: DTypeInfo,
  ndim: number,
): Access | null {
  if (!isPlain(info) || ndim === 0 || ndim > MOST_AXES) return null;
  const key = `${info.array.name} ${ndim}`;
  let access = made.get(key);
  if (access === undefined) {
    const axes = ["i", "j", "k", "l"].slice(0, ndim);
    access = make(prototype, slow, textOf(key, typeOfElements(info), axes));
    made.set(key, access);
  }
  return access;
}

function make(base: object, slow: Slow, text: string): Access | null {
  const compiled = functionOf<Make>(["prototype", "Stamp", "slow"], text);
  if (compiled === null) return null;
  const prototype = Object.create(base);
  const stamp = compiled(prototype, Stamp, slow);
  return (tensor, reader) => {
    // Not of one that a script has frozen, or given another prototype.
    if (Object.getPrototypeOf(tensor) !== base) return;
    if (Reflect.setPrototypeOf(tensor, prototype)) stamp(tensor, reader);
  };
}

/** The text, in which `i`, `j`, … are the indices. */
function textOf(key: string, type: string, axes: readonly string[]): string {
  const ndim = axes.length;
  const index = axes.join(", ");
  const each = (
    part: (i: string, axis: number) => string,
    between: string,
  ): string => axes.map(part).join(between);
  const areNumbers = each((i) => `typeof ${i} === "number"`, " && ");
  const from0 = each(
    (i, axis) => `const ${i}0 = ${i} < 0 ? ${i} + r.n${axis} : ${i};`,
    "\n      ",
  );
  const areInside = each(
    (i, axis) => `(${i} | 0) === ${i} && ${i}0 >= 0 && ${i}0 < r.n${axis}`,
    " &&\n          ",
  );
  const at = `r.offset + ${each((i, axis) => `${i}0 * r.s${axis}`, " + ")}`;
  // The field is set by its initializer alone: to V8 it is a constant then.
  return `"use strict"; // ${key}
let reader;
class Fast extends Stamp {
  #reader = reader;
  static prepare(tensor, its) {
    reader = its;
    new Fast(tensor);
    reader = undefined; // which would keep the memory
  }
  get(${index}) {
    if (#reader in this && arguments.length === ${ndim} && ${areNumbers}) {
      const r = this.#reader;
      ${from0}
      if (${areInside}) {
        const element = r.storage.live[${at}];
        // Else the memory is gone.
        if (element !== undefined) return element;
      }
    }
    return slow.get(this, arguments.length, ${index});
  }
  set(${index}, value) {
    if (#reader in this && arguments.length === ${ndim + 1} &&
        typeof value === "${type}" && ${areNumbers}) {
      const r = this.#reader;
      ${from0}
      if (${areInside}) {
        const data = r.storage.live;
        const at = ${at};
        // Whether it is there, its length would tell more slowly.
        if (r.writable !== null && data[at] !== undefined) {
          data[at] = value;
          return;
        }
      }
    }
    slow.set(this, arguments.length, ${index}, value);
  }
}
const { get, set } = Object.getOwnPropertyDescriptors(Fast.prototype);
Object.defineProperties(prototype, { get, set });
return Fast.prepare;`;
}
