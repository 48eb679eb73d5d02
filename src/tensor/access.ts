import { isPlain, typeOfElements } from "../dtype/element.ts";
import type { DTypeInfo } from "../dtype/table.ts";
import { functionOf } from "../function_of.ts";
import type { Reader } from "./reader.ts";

/**
 * A subclass of Tensor for one class of typed arrays and one number of axes. Only
 * its `get` and `set` tell it from Tensor, once a tensor of that kind was
 * prepared: they are as fast as arrays'.
 *
 * V8 keeps what it learns of an access by the text it is in, and is fast where
 * that has seen one kind alone: so each is made from a text of its own.
 */
export interface Access {
  // deno-lint-ignore no-explicit-any
  readonly Class: new (...args: any[]) => any;
  /** Makes `get` and `set` of a tensor fast, once. */
  prepare(tensor: object, reader: Reader): void;
}

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

type Make = (prototype: object, stamp: typeof Stamp, slow: Slow) => Prepare;
type Prepare = Access["prepare"];

const MOST_AXES = 4;

/** By class of typed arrays and number of axes. */
const made = new Map<string, Access>();

/**
 * How elements are read and written fast, by number of axes.
 *
 * @param Base Tensor.
 * @param slow What `get` and `set` leave to it.
 * @returns Nothing for elements that are not what the typed array holds.
 */
export function accessOf(
  Base: Access["Class"],
  slow: Slow,
  info: DTypeInfo,
): readonly Access[] {
  if (!isPlain(info)) return [];
  return Array.from({ length: MOST_AXES + 1 }, (_, ndim) => {
    const key = `${info.array.name} ${ndim}`;
    let access = made.get(key);
    if (access === undefined) {
      access = make(Base, slow, key, typeOfElements(info), ndim);
      made.set(key, access);
    }
    return access;
  });
}

function make(
  Base: Access["Class"],
  slow: Slow,
  key: string,
  type: string,
  ndim: number,
): Access {
  const Class = class extends Base {};
  delete (Class.prototype as { constructor?: unknown }).constructor; // it is Base
  let fast: Prepare | null | undefined;
  return {
    Class,
    prepare(tensor, reader) {
      if (fast === undefined) {
        const axes = ["i", "j", "k", "l"].slice(0, ndim);
        const compiled = ndim === 0 ? null : functionOf<Make>(
          ["prototype", "Stamp", "slow"],
          textOf(key, type, axes),
        );
        fast = compiled?.(Class.prototype, Stamp, slow) ?? null;
      }
      fast?.(tensor, reader);
    },
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
        if (data.length === r.writableLength) {
          data[${at}] = value;
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
