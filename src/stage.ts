/**
 * The memory in which WebAssembly works, as it sees no other: what it is to read
 * is copied here, and its results from here, a chunk at a time, so that all of it
 * stays in the cache.
 *
 * @module
 */

import { assemble, type Block, type BlockFunction, ratioOf } from "./wasm.ts";

/** The bytes of a chunk on either side, at most. */
export const CHUNK_BYTES = 32768;
/** The last block is done whole, whatever lies behind the chunk. */
const BEYOND = 1024;
/** Room for what functions look up. */
const TABLE_BYTES = 65536;

const FROM_AT = 0;
const INTO_AT = CHUNK_BYTES + BEYOND;
/** Where the table is, for functions to look into. */
export const TABLE_AT: number = 2 * INTO_AT;
const PAGE = 65536;

let memory: WebAssembly.Memory | undefined;
let bytes: Uint8Array<ArrayBuffer>;

function start(): WebAssembly.Memory {
  const initial = Math.ceil((TABLE_AT + TABLE_BYTES) / PAGE);
  memory = new WebAssembly.Memory({ initial });
  bytes = new Uint8Array(memory.buffer as ArrayBuffer);
  return memory;
}

/** A function over the chunk that was put here. */
export interface Staged {
  /** How many bytes come out for each that goes in. */
  readonly ratio: number;
  /**
   * Turns bytes into others.
   *
   * @param from At most {@linkcode CHUNK_BYTES}, and so that as many come out.
   * @param length How many to give; fewer, if the last block is none of them.
   * @returns The result: good until the next call of any such function.
   */
  run(from: Uint8Array, length: number): Uint8Array;
}

/** Compiles what a block of bytes becomes. */
export function stage(block: Block): Staged {
  const run: BlockFunction = assemble(block, memory ?? start());
  return {
    ratio: ratioOf(block),
    run(from, length) {
      bytes.set(from, FROM_AT);
      run(FROM_AT, INTO_AT, Math.ceil(from.length / block.bytes));
      return bytes.subarray(INTO_AT, INTO_AT + length);
    },
  };
}

let table: Uint8Array | undefined;

/** Puts a table where functions look things up, if it is not there. */
export function setTable(wanted: Uint8Array): void {
  if (memory === undefined) start();
  if (table !== wanted) bytes.set(table = wanted, TABLE_AT);
}
