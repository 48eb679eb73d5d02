/**
 * The memory in which WebAssembly works, as it sees no other: what it is to read
 * is copied here, and its results from here, a chunk at a time, so that all of it
 * stays in the cache.
 *
 * @module
 */

import {
  assemble,
  type Block,
  type BlockFunction,
  ratioOf,
} from "./assembler.ts";

/** The bytes of a chunk, before and after, at most. */
export const CHUNK_BYTES = 16384;
/** Blocks are done whole, whatever lies before and behind the chunk. */
const BEYOND = 1024;
/** Room for what functions look up. */
const TABLE_BYTES = 65536;

const FROM_AT = BEYOND;
const INTO_AT = FROM_AT + CHUNK_BYTES + BEYOND;
/** Where the table is, for functions to look into. */
export const TABLE_AT: number = INTO_AT + CHUNK_BYTES + BEYOND;
const PAGE = 65536;

/** Whether there is WebAssembly: `--jitless` takes it away. */
export function isAvailable(): boolean {
  return typeof WebAssembly === "object";
}

let memory: WebAssembly.Memory | undefined;
let bytes: Uint8Array<ArrayBuffer>;

function start(): WebAssembly.Memory {
  const initial = Math.ceil((TABLE_AT + TABLE_BYTES) / PAGE);
  memory = new WebAssembly.Memory({ initial });
  bytes = new Uint8Array(memory.buffer as ArrayBuffer);
  return memory;
}

/** A function over a chunk. */
export interface Stage {
  /** The bytes from one block to the next. */
  readonly bytes: number;
  /** How many bytes come out for each that goes in. */
  readonly ratio: number;
  /** Puts bytes of the chunk where they are read, from byte `at` on. */
  put(part: Uint8Array, at?: number): void;
  /** Goes through blocks, the first of which begins at byte `at`. */
  run(count: number, at?: number): void;
  /** What was stored from byte `at` on: good until the next call of `run`. */
  get(length: number, at?: number): Uint8Array;
}

/** Compiles what a block becomes. */
export function stage(block: Block): Stage {
  const run: BlockFunction = assemble(block, memory ?? start());
  return {
    bytes: block.bytes,
    ratio: ratioOf(block),
    put: (part, at = 0) => bytes.set(part, FROM_AT + at),
    run: (count, at = 0) => run(FROM_AT + at, INTO_AT, count),
    get: (length, at = 0) =>
      bytes.subarray(INTO_AT + at, INTO_AT + at + length),
  };
}

let table: Uint8Array | undefined;

/** Puts a table where functions look things up, if it is not there. */
export function setTable(wanted: Uint8Array): void {
  if (memory === undefined) start();
  if (table !== wanted) bytes.set(table = wanted, TABLE_AT);
}
