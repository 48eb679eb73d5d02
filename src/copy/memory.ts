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

import { IdleWatch } from "../../ffi/idle.ts";
import { useHugePages } from "../../ffi/memory.ts";
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
    ? allocateNew(info, entries, size, bytes)
    : new info.array(buffer);
}

function allocateNew(
  info: DTypeInfo,
  entries: number,
  size: number,
  bytes: number,
): TypedArray {
  const data = orNoMemory(() => new info.array(entries), info, size, bytes);
  useHugePages(data);
  return data;
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
  if (buffer === undefined && bytes < LARGE) {
    // V8 does not fill this one with zeros before; the system large ones.
    return orNoMemory(() => new info.array(data), info, size, bytes);
  }
  const copy = buffer === undefined
    ? allocateNew(info, data.length, size, bytes)
    : new info.array(buffer);
  copy.set(data as never);
  return copy;
}

/** From where on V8 leaves it to the system to fill memory with zeros, in bytes. */
const LARGE = 32 * 1024 * 1024;

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
const idle = new IdleWatch(() => {
  while (kept.length > 0) freeOldest();
});

function takeKept(bytes: number): ArrayBuffer | undefined {
  const at = kept.findLastIndex(({ byteLength }) => byteLength === bytes);
  if (at === -1) return undefined;
  idle.use();
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
  idle.use();
}

/** Now, not when the garbage collector comes. */
function freeOldest(): void {
  const oldest = kept.shift()!;
  keptBytes -= oldest.byteLength;
  oldest.transfer(0);
}
