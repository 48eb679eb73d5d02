/**
 * The memory in which WebAssembly works, as it sees no other: what it is to read
 * is copied here, and its results from here, a part at a time, so that all of it
 * stays in the cache.
 *
 * @module
 */

import {
  assemble,
  type Block,
  type BlockFunction,
  PAGE,
  storedBytes,
} from "./assembler.ts";

/** The bytes of a chunk, before and after, at most: what is gone through once. */
export const CHUNK_BYTES = 65536;
/** The bytes that there is room for, before and after. */
export const STAGE_BYTES = 10 * PAGE;
/** Blocks are done whole, whatever lies before and behind the chunk. */
const BEYOND = 1024;
/** Room for what functions look up. */
const TABLE_BYTES = 65536;

const FROM_AT = BEYOND;
/** At another place within pages, else what is stored delays what is loaded. */
const INTO_AT = FROM_AT + STAGE_BYTES + 3 * BEYOND;
/** Where the table is, for functions to look into. */
export const TABLE_AT: number = INTO_AT + STAGE_BYTES + BEYOND;

/** Whether there is WebAssembly: `--jitless` takes it away. */
export function isAvailable(): boolean {
  return typeof WebAssembly === "object";
}

let memory: WebAssembly.Memory | undefined;
let buffer: ArrayBuffer;
let bytes: Uint8Array<ArrayBuffer>;

function start(): WebAssembly.Memory {
  const initial = Math.ceil((TABLE_AT + TABLE_BYTES) / PAGE);
  memory = new WebAssembly.Memory({ initial, maximum: initial });
  buffer = memory.buffer as ArrayBuffer;
  bytes = new Uint8Array(buffer);
  return memory;
}

/** A function over what was put where it reads. */
export interface Stage {
  /** How many bytes of a block are stored. */
  readonly stored: number;
  /**
   * Goes through blocks, the first of which begins at byte `at`, and stores
   * from byte `to` on.
   */
  run(
    count: number,
    at?: number,
    to?: number,
    rows?: number,
    pitch?: number,
    apart?: number,
  ): void;
}

/** Puts bytes where they are read, from byte `at` on. */
export function put(part: Uint8Array, at = 0): void {
  bytes.set(part, FROM_AT + at);
}

/** What was stored from byte `at` on: good until the next call of `run`. */
export function get(length: number, at = 0): Uint8Array {
  // It takes less time than subarray().
  return new Uint8Array(buffer, INTO_AT + at, length);
}

/** Compiles what a block becomes. */
export function stage(block: Block): Stage {
  const run: BlockFunction = assemble(block, memory ?? start());
  return {
    stored: storedBytes(block),
    run: (count, at = 0, to = 0, rows = 1, pitch = 0, apart = 0) =>
      run(FROM_AT + at, INTO_AT + to, count, rows, pitch, apart),
  };
}

let table: Uint8Array | undefined;

/** Puts a table where functions look things up, if it is not there. */
export function setTable(wanted: Uint8Array): void {
  if (memory === undefined) start();
  if (table !== wanted) bytes.set(table = wanted, TABLE_AT);
}
