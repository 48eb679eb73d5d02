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

import { bufferAt, LONGEST_BUFFER } from "./memory.ts";

const MiB = 2 ** 20;

/** How far the sum may move before V8 is told, in bytes. */
const STEP = 16 * MiB;
/** More than this, imported in one turn of the event loop, is worth a look. */
const WATCH = 256 * MiB;
/** And more than this a warning. */
const WARN = 1024 * MiB;

/** Bytes of native memory that are held. */
let held = 0;
/** Those of them that V8 sees, as an ArrayBuffer was made over them. */
let seen = 0;
/** The length of the ballast: what V8 was told of the rest. */
let told = 0;
/** What was held when this turn began, or earlier. */
let turnStart = 0;
/** Outside of these two there is something to do. */
let low = -Infinity;
let high = STEP;

/** The native memory that is held, in bytes. */
export function heldBytes(): number {
  return held;
}

/** A tensor is held. */
export function hold(bytes: number): void {
  held += bytes;
  if (held > high) look();
}

/**
 * A tensor is not held any more.
 *
 * @param wasSeen Whether an ArrayBuffer was made over it.
 */
export function letGo(bytes: number, wasSeen: boolean): void {
  held -= bytes;
  if (wasSeen) seen -= bytes;
  if (held < low) look();
}

/** An ArrayBuffer was made over a held tensor: V8 sees it now. */
export function show(bytes: number): void {
  seen += bytes;
}

function look(): void {
  if (held < turnStart) turnStart = held;
  if (Math.abs(held - seen - told) > STEP) tellSoon();
  if (held - turnStart > WATCH) watch();
  low = held - STEP;
  high = held + STEP;
}

let ballast: ArrayBuffer | null = null;
let tellsSoon = false;

/** At the end of this turn: much may have come and gone by then. */
function tellSoon(): void {
  if (tellsSoon) return;
  tellsSoon = true;
  queueMicrotask(() => {
    tellsSoon = false;
    ballast?.transfer(0);
    ballast = null;
    told = Math.min(held - seen, LONGEST_BUFFER);
    // The address is never read: it only must not be NULL.
    if (told > STEP) ballast = bufferAt(8, told);
    else told = 0;
  });
}

let watches = false;
let warned = false;

/**
 * Finalizers run only between turns of the event loop: what a loop that never
 * waits imports and forgets is not given back before it ends.
 */
function watch(): void {
  if (!watches) {
    watches = true;
    Deno.unrefTimer(setTimeout(() => {
      watches = false;
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
