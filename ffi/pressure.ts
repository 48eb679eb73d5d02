/**
 * Tells V8, and the user, of native memory that V8 cannot see.
 *
 * V8 collects garbage by what it allocates, and a tensor of any size is a few
 * small objects to it. An ArrayBuffer counts with its length, so one that
 * nobody reads, as long as all that is held out of V8's sight, makes it
 * collect in time; it is renewed when the sum has moved far enough.
 *
 * @module
 */

import { bufferAt } from "./memory.ts";

const MiB = 2 ** 20;

/** How far the sum may move before V8 is told, in bytes. */
const STEP = 16 * MiB;
/** More than any machine has, and less than V8 can count. */
const MOST = 2 ** 48;
/** More than this, imported in one turn of the event loop, is worth a look. */
const WATCH = 256 * MiB;
/** And more than this a warning. */
const WARN = 1024 * MiB;

/** Bytes that are held. */
let held = 0;
/** Those of them that V8 does not see: no ArrayBuffer was made over them. */
let unseen = 0;

/** A tensor is held. */
export function holdsMore(bytes: number): void {
  held += bytes;
  unseen += bytes;
  if (unseen - told() > STEP) tellSoon();
  if (held - turnStart > WATCH) watch();
}

/**
 * A tensor is not held any more.
 *
 * @param wasSeen Whether V8 saw it, by an ArrayBuffer of its own.
 */
export function holdsLess(bytes: number, wasSeen: boolean): void {
  held -= bytes;
  if (!wasSeen) unseen -= bytes;
  if (held < turnStart) turnStart = held;
  if (told() - unseen > STEP) tellSoon();
}

/** An ArrayBuffer was made over a held tensor. */
export function seen(bytes: number): void {
  unseen -= bytes;
}

let ballast: ArrayBuffer | null = null;
let isTelling = false;

function told(): number {
  return ballast === null ? 0 : ballast.byteLength;
}

/** At the end of this turn: much may have come and gone by then. */
function tellSoon(): void {
  if (isTelling) return;
  isTelling = true;
  queueMicrotask(() => {
    isTelling = false;
    ballast?.transfer(0);
    // The address is never read: it only must not be NULL.
    const bytes = Math.min(unseen, MOST);
    ballast = bytes > STEP ? bufferAt(8n, bytes) : null;
  });
}

/** What was held when this turn began, or earlier. */
let turnStart = 0;
let isWatching = false;
let warned = false;

/**
 * Finalizers run only between turns of the event loop: what a loop that never
 * waits imports and forgets is not given back before it ends.
 */
function watch(): void {
  if (!isWatching) {
    isWatching = true;
    Deno.unrefTimer(setTimeout(() => {
      isWatching = false;
      turnStart = held;
    }));
  } else if (!warned && held - turnStart > WARN) {
    warned = true;
    const mebibytes = Math.round((held - turnStart) / MiB);
    console.warn(
      `${mebibytes} MiB of native tensors were imported in one turn of the ` +
        "event loop and not given back: garbage is collected only between " +
        'turns, so declare a tensor with "using" in a loop that never waits',
    );
  }
}
