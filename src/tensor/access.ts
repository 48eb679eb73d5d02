import { isPlain, typeOfElements } from "../dtype/element.ts";
import type { DTypeInfo } from "../dtype/table.ts";
import { functionOf } from "../function_of.ts";
import type { Layout } from "../layout.ts";
import type { Reader } from "./reader.ts";
import type { Storage } from "./storage.ts";

/**
 * A subclass of Tensor for one class of typed arrays and one number of axes. Only
 * its `get` and `set` tell it from Tensor, once a tensor of that kind was
 * prepared: they are as fast as arrays'.
 *
 * V8 keeps what it learns of an access by the text it is in, and is fast where
 * that has seen one kind alone: so each is made from a text of its own.
 */
export interface Access {
  /** Makes a tensor of the subclass. */
  readonly create: Create;
  /** Makes `get` and `set` of a tensor fast, once. */
  readonly prepare: (tensor: object, reader: Reader) => void;
}

// deno-lint-ignore no-explicit-any
type Create = (key: symbol, storage: Storage, layout: Layout) => any;
type TensorClass = new (...args: Parameters<Create>) => object;

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
 * How elements of a dtype are read and written fast in a tensor of so many axes.
 *
 * @param Base Tensor.
 * @param slow What `get` and `set` leave to it.
 * @returns `null` for elements that are not what the typed array holds, and for
 * more axes than most tensors have.
 */
export function accessOf(
  Base: TensorClass,
  slow: Slow,
  info: DTypeInfo,
  ndim: number,
): Access | null {
  if (!isPlain(info) || ndim > MOST_AXES) return null;
  const key = `${info.array.name} ${ndim}`;
  let access = made.get(key);
  if (access === undefined) {
    access = make(Base, slow, key, typeOfElements(info), ndim);
    made.set(key, access);
  }
  return access;
}

function make(
  Base: TensorClass,
  slow: Slow,
  key: string,
  type: string,
  ndim: number,
): Access {
  const Class = class extends Base {};
  delete (Class.prototype as { constructor?: unknown }).constructor; // it is Base
  // What V8 knows the class of, it makes in half the time.
  const create = functionOf<(Class: TensorClass) => Create>(
    ["Class"],
    `// ${key}
return (key, storage, layout) => new Class(key, storage, layout);`,
  );
  let fast: Prepare | null | undefined;
  return {
    create: create?.(Class) ?? ((...args) => new Class(...args)),
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
        const at = ${at};
        // Whether it is there, its length would tell more slowly.
        if (r.isWritable && data[at] !== undefined) {
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
