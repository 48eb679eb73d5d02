/**
 * Work in steps, so that the same code can run at once, or piece by piece with
 * turns of the event loop between.
 *
 * @module
 */

import { describe } from "../errors.ts";

/** A part of the work; it must be done before the next is asked for. */
export interface Step {
  /** Does it. */
  run(): void;
  /** Does it without blocking the thread, where that is possible. */
  runAsync?: (() => Promise<void>) | undefined;
  /** How much of all the work is done then, from 0 to 1. */
  readonly done: number;
}

/** Work in steps, and what comes of it. */
export type Steps<T> = Generator<Step, T, void>;

/** Does it all at once. */
export function runSteps<T>(steps: Steps<T>): T {
  try {
    while (true) {
      const next = steps.next();
      if (next.done) return next.value;
      next.value.run();
    }
  } catch (error) {
    throw closeAfter(error, steps);
  }
}

/** The bytes of a step between which the event loop turns, about. */
export const STEP_BYTES = 32 * 1024 * 1024;

/** For how long the event loop may stand still, about, in milliseconds. */
const STILL = 10;

/**
 * Does it step by step, with turns of the event loop between.
 *
 * @param steps The work.
 * @param signal Stops it between two steps.
 * @param onStep Is told how much is done.
 * @throws {unknown} The signal's reason.
 */
export async function runStepsAsync<T>(
  steps: Steps<T>,
  signal: AbortSignal | null,
  onStep: (done: number) => void,
): Promise<T> {
  let turned = performance.now();
  try {
    while (true) {
      signal?.throwIfAborted();
      const next = steps.next();
      if (next.done) return next.value;
      const step = next.value;
      if (step.runAsync !== undefined) {
        await step.runAsync();
        turned = performance.now();
      } else step.run();
      onStep(step.done);
      // A turn takes 1 to 2 ms, longer than many a step.
      if (performance.now() - turned < STILL) continue;
      await new Promise((resolve) => setTimeout(resolve));
      turned = performance.now();
    }
  } catch (error) {
    throw closeAfter(error, steps);
  }
}

/**
 * Closes what the steps have opened.
 *
 * @returns The error that came first: a failure to close must not hide it.
 */
function closeAfter(error: unknown, steps: Steps<unknown>): unknown {
  try {
    steps.return(undefined);
  } catch (second) {
    return firstOf(error, second);
  }
  // The steps threw themselves, and then so did closing.
  if (error instanceof SuppressedError) {
    return firstOf(error.suppressed, error.error);
  }
  return error;
}

function firstOf(first: unknown, second: unknown): unknown {
  console.error("After a copy failed, closing the device threw:", second);
  return first;
}

/** Steps of which all together are a part of the work. */
export function* partOf<T>(
  from: number,
  to: number,
  steps: Steps<T>,
): Steps<T> {
  while (true) {
    const next = steps.next();
    if (next.done) return next.value;
    yield { ...next.value, done: from + (to - from) * next.value.done };
  }
}

/**
 * Steps before each of which something is checked: what a script may take away
 * between two of them.
 *
 * @param check Throws when it is gone.
 */
export function* checked<T>(check: () => void, steps: Steps<T>): Steps<T> {
  try {
    while (true) {
      check();
      const next = steps.next();
      if (next.done) return next.value;
      yield next.value;
    }
  } catch (error) {
    throw closeAfter(error, steps);
  } finally {
    steps.return(undefined as never);
  }
}

/**
 * Checks the options by which work is stopped and watched.
 *
 * @throws {TypeError} When one is of the wrong kind.
 */
export function checkWatch(signal: unknown, onProgress: unknown): void {
  if (signal !== null && !(signal instanceof AbortSignal)) {
    throw new TypeError(
      `The option "signal" must be an AbortSignal, not ${describe(signal)}`,
    );
  }
  if (onProgress !== null && typeof onProgress !== "function") {
    throw new TypeError(
      `The option "onProgress" must be a function, not ${describe(onProgress)}`,
    );
  }
}
