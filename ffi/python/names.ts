/**
 * Text that Python keeps a pointer to, as capsules do to their names.
 *
 * @module
 */

import { Block, writeAddress } from "../memory.ts";
import { cString } from "./library.ts";

/** The names of capsules that hold a tensor, or held one. */
export type CapsuleName = `${"" | "used_"}dltensor${"" | "_versioned"}`;

const kept = new Map<string, Block>();

/** Text that stays where it is to the end of the process: its address. */
export function permanentText(text: string): bigint {
  let block = kept.get(text);
  if (block === undefined) {
    const bytes = cString(text);
    block = new Block(bytes.length);
    writeAddress(block.address, bytes, BigInt(bytes.length));
    kept.set(text, block);
  }
  return block.address;
}

/** The address of a capsule's name. */
export function capsuleName(name: CapsuleName): bigint {
  return permanentText(name);
}
