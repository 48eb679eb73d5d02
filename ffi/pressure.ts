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
/** More than this, imported since a turn of the event loop began, is worth a look. */
const WATCH = 256 * MiB;
/** More than this, of one turn and never disposed, is worth a warning. */
const WARN = 1024 * MiB;

/** Bytes of native memory that are held. */
let held = 0;
/** Those of them that V8 sees, as an ArrayBuffer was made over them. */
let seen = 0;
/** The length of the ballast: what V8 was told of the rest. */
let told = 0;
/** What was held when this turn began, or earlier. */
let turnStart = 0;
/** Which turn this is, as far as it was noticed that one was over. */
let turn = 0;
/** Outside of these two there is something to do. */
let low = -Infinity;
let high = STEP;

/** The native memory that is held, in bytes. */
export function heldBytes(): number {
  return held;
}

/**
 * A tensor is held.
 *
 * @returns The number of this turn of the event loop.
 */
export function hold(bytes: number): number {
  held += bytes;
  if (held > high) look();
  return turn;
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

/**
 * Notices when this turn of the event loop is over. Not by a timer, which a
 * test's sanitizer would take for a leak: this one keeps nothing alive.
 */
function watch(): void {
  if (watches) return;
  watches = true;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  // No longer than a hundredth of a millisecond, but not in this turn.
  const { value } = Atomics.waitAsync(cell, 0, 0, 0.01);
  Promise.resolve(value).then(() => {
    watches = false;
    turn++;
    turnStart = held;
  });
}

/** Of the turn that was found last: its number, and what was found of it. */
let foundTurn = -1;
let foundBytes = 0;
let warned = false;

/**
 * The garbage collector found a tensor that nobody had disposed. Finalizers run
 * only between turns of the event loop: what a loop that never waits imports
 * and forgets is not given back before it ends.
 *
 * @param importedIn The turn, as {@linkcode hold} said.
 */
export function find(bytes: number, importedIn: number): void {
  // Finalizers run in a turn of their own.
  if (importedIn === turn) turn++;
  if (importedIn !== foundTurn) {
    foundTurn = importedIn;
    foundBytes = 0;
  }
  foundBytes += bytes;
  if (warned || foundBytes <= WARN) return;
  warned = true;
  console.warn(
    `More than ${WARN / MiB} MiB of native tensors, imported in one turn of ` +
      "the event loop, were left to the garbage collector, which comes only " +
      'between turns: declare a tensor with "using" in a loop that never waits',
  );
}
