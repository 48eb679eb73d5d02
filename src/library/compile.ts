/**
 * Functions made from text, each for one use at a time.
 *
 * V8 keeps what it learns of a call by the text it is in, and keeps the text for
 * good. So each text is used for one native function at a time, and again when
 * the library of that one was closed: as many are made as libraries are open.
 *
 * @module
 */

import { functionOf } from "../function_of.ts";

// deno-lint-ignore no-explicit-any
type Made = (...values: any[]) => (...args: unknown[]) => unknown;

/** A function made from text. */
export interface Compiled {
  /** Makes the function, of what the text names. */
  readonly make: Made;
  /** Nobody uses the function any more. */
  readonly giveBack: () => void;
}

/** What is not in use, by text. */
const unused = new Map<string, Made[]>();
let count = 0;

/**
 * Makes a function from text.
 *
 * @param names What the text names, and `make` gets the values of.
 * @param text Statements that return the function.
 * @returns `null` where code must not be made from strings.
 */
export function compile(
  names: readonly string[],
  text: string,
): Compiled | null {
  const known = unused.get(text) ?? [];
  unused.set(text, known);
  const make = known.pop() ?? compileNew(names, text);
  if (make === null) return null;
  return { make, giveBack: () => known.push(make) };
}

function compileNew(names: readonly string[], text: string): Made | null {
  // No two texts are the same.
  return functionOf(names, `"use strict"; // ${++count}\n${text}`);
}
