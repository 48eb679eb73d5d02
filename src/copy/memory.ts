/**
 * JavaScript's memory for copies.
 *
 * A new ArrayBuffer is filled with zeros, and its pages are new to the process:
 * together that takes longer than most copies into it. So the memory of copies
 * that were disposed is kept for the next ones of the same length, until the
 * garbage collector comes and finds that nobody has used it for a second. Only
 * memory that nobody else has seen: an operation may read a typed array long
 * after its tensor was disposed.
 *
 * @module
 */

import { entriesOf } from "../dtype/packing.ts";
import type { DTypeInfo, TypedArray } from "../dtype/table.ts";
import { BufferError } from "../errors.ts";

/**
 * A typed array for a number of elements, each of which must be written: it may
 * hold what was copied before.
 *
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function allocate(
  info: DTypeInfo,
  isPacked: boolean,
  size: number,
): TypedArray {
  const entries = entriesOf(info, isPacked, size);
  const bytes = entries * info.array.BYTES_PER_ELEMENT;
  // The last byte of packed elements may not be written whole.
  const buffer = isPacked ? undefined : takeKept(bytes);
  return buffer === undefined
    ? orNoMemory(() => new info.array(entries), info, size, bytes)
    : new info.array(buffer);
}

/**
 * A copy of whole elements that lie side by side.
 *
 * @param data The elements.
 * @param size How many they are.
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function duplicate(
  info: DTypeInfo,
  data: TypedArray,
  size: number,
): TypedArray {
  const bytes = data.byteLength;
  const buffer = takeKept(bytes);
  if (buffer === undefined) {
    // V8 does not fill this one with zeros before.
    return orNoMemory(() => new info.array(data), info, size, bytes);
  }
  const copy = new info.array(buffer);
  copy.set(data as never);
  return copy;
}

/**
 * Makes memory for elements.
 *
 * @throws {BufferError} `"copy"` when there is none.
 */
export function orNoMemory<T>(
  make: () => T,
  info: DTypeInfo,
  size: number,
  bytes: number,
): T {
  try {
    return make();
  } catch (cause) {
    throw new BufferError(
      "copy",
      `Cannot make a tensor of ${size} ${info.name} elements: there is no ` +
        `memory for ${bytes} bytes`,
      { cause },
    );
  }
}

/** How much is kept, at most: two large tensors, in bytes. */
const MOST_BYTES = 128 * 1024 * 1024;
/** How many are kept, at most, as they are looked through one by one. */
const MOST_BUFFERS = 32;

/** Memory that nobody uses; what was used last comes last. */
const kept: ArrayBuffer[] = [];
let keptBytes = 0;

function takeKept(bytes: number): ArrayBuffer | undefined {
  const at = kept.findLastIndex(({ byteLength }) => byteLength === bytes);
  if (at === -1) return undefined;
  isUsed = true;
  keptBytes -= bytes;
  return kept.splice(at, 1)[0];
}

/**
 * Takes memory back that {@linkcode allocate} or {@linkcode duplicate} gave, and
 * that nobody else was shown: no script the typed array, and no library the
 * address.
 */
export function giveBack({ buffer }: TypedArray): void {
  if (buffer.byteLength === 0) return;
  kept.push(buffer as ArrayBuffer);
  keptBytes += buffer.byteLength;
  while (keptBytes > MOST_BYTES || kept.length > MOST_BUFFERS) freeOldest();
  isUsed = true;
  if (!isWatched) watch();
}

/** Now, not when the garbage collector comes. */
function freeOldest(): void {
  const oldest = kept.shift()!;
  keptBytes -= oldest.byteLength;
  oldest.transfer(0);
}

/** How long memory is kept that nobody uses, at least, in milliseconds. */
const IDLE = 1000;
/** Whether memory was taken or given since the garbage collector came last. */
let isUsed = false;
let lastUsed = 0;
let isWatched = false;

/**
 * Called when the garbage collector has been there: often, as new memory calls
 * it, and then what is kept shall be there for the next round.
 */
const collections = new FinalizationRegistry(() => {
  if (isUsed) lastUsed = Date.now();
  isUsed = false;
  if (Date.now() - lastUsed < IDLE) return watch();
  isWatched = false;
  while (kept.length > 0) freeOldest();
});

function watch(): void {
  isWatched = true;
  collections.register({}, undefined);
}
