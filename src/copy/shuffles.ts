/**
 * Copies that shuffle short runs of bytes: the colours of pixels apart and
 * together, some of them only, and backwards. WebAssembly moves 16 bytes at a
 * time where a loop would move a byte.
 *
 * @module
 */

import { i8x16, load, v128, type Value } from "../wasm/assembler.ts";
import { CHUNK_BYTES, get, put, type Stage, stage } from "../wasm/stage.ts";

/** The bytes of a vector. */
const VECTOR = 16;

/** The longest pixel that is taken apart, in bytes. */
export const MOST_PIXEL = 16;
/** The longest pixel that is made, in bytes. */
export const MOST_MADE = 64;
/** The most planes that a pixel is made of. */
export const MOST_PLANES = 4;

/**
 * How often a loop does what makes so many vectors before it begins again, which
 * costs as much as a vector.
 */
function timesFor(values: number): number {
  return Math.ceil(4 / values);
}

/** The numbers from 0 on. */
function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A vector of bytes of others, by their numbers, counted through all of them. */
function gather(vectors: readonly Value[], numbers: readonly number[]): Value {
  const parts = vectors.flatMap((vector, v) => {
    const places = numbers.map((n) => n - v * VECTOR);
    const isIn = (place: number): boolean => place >= 0 && place < VECTOR;
    if (!places.some(isIn)) return [];
    const lanes = places.map((place) => isIn(place) ? place : 255);
    return [i8x16.swizzle(vector, v128.const(lanes))];
  });
  return parts.reduce((a, b) => v128.or(a, b));
}

/** Vectors at a distance, from byte `at` on. */
function vectorsOf(count: number, distance = VECTOR, at = 0): Value[] {
  return upTo(count).map((i) => load.v128(at + i * distance));
}

/** How far apart in a chunk the planes are. */
function planeBytes(planes: number): number {
  return Math.floor(CHUNK_BYTES / planes / VECTOR) * VECTOR;
}

const stages = new Map<string, Stage>();

function stageOf(name: string, make: () => Stage): Stage {
  let known = stages.get(name);
  if (known === undefined) stages.set(name, known = make());
  return known;
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}

/** Takes pixels apart: each run of them goes to a plane. */
function splitter(pixel: number, run: number, planes: number): Stage {
  const count = pixel / run;
  const times = timesFor(planes);
  const bytes = count * VECTOR;
  const groups = upTo(times).map((k) => vectorsOf(count, VECTOR, k * bytes));
  const values = upTo(planes).flatMap((plane) =>
    groups.map((vectors) =>
      gather(
        vectors,
        upTo(VECTOR).map((byte) =>
          Math.floor(byte / run) * pixel + plane * run + byte % run
        ),
      )
    )
  );
  const apart = planeBytes(planes);
  return stage({ bytes: times * bytes, values, apart, group: times });
}

/** Takes some bytes of each pixel, in the order given. */
function picker(pixel: number, order: readonly number[]): Stage {
  const { length } = order;
  const unit = greatestDivisor(greatestDivisor(pixel, length), VECTOR);
  const bytes = pixel / unit * VECTOR;
  const values = upTo(timesFor(length / unit)).flatMap((k) => {
    const vectors = vectorsOf(pixel / unit, VECTOR, k * bytes);
    return upTo(length / unit).map((v) =>
      gather(
        vectors,
        upTo(VECTOR).map((i) => {
          const byte = v * VECTOR + i;
          return Math.floor(byte / length) * pixel + order[byte % length]!;
        }),
      )
    );
  });
  return stage({ bytes: timesFor(length / unit) * bytes, values });
}

/** Puts pixels together: a run of each plane beside the others. */
function joiner(run: number, planes: number): Stage {
  const times = timesFor(planes);
  const values = upTo(times).flatMap((k) => {
    const vectors = vectorsOf(planes, planeBytes(planes), k * VECTOR);
    return vectors.map((_, v) =>
      gather(
        vectors,
        upTo(VECTOR).map((i) => {
          const part = Math.floor((v * VECTOR + i) / run);
          const byte = Math.floor(part / planes) * run + i % run;
          return part % planes * VECTOR + byte;
        }),
      )
    );
  });
  return stage({ bytes: times * VECTOR, values });
}

/** How many bytes are turned around at once. */
const TURNED = timesFor(1) * VECTOR;

/** Turns the order of runs around. */
function reverser(run: number): Stage {
  const numbers = upTo(VECTOR).map((i) => VECTOR - run - i + 2 * (i % run));
  const values = vectorsOf(timesFor(1)).toReversed()
    .map((vector) => gather([vector], numbers));
  return stage({ bytes: -TURNED, values });
}

/**
 * Takes pixels apart.
 *
 * @param at Where the first run of the first pixel is.
 * @param pixel From one pixel to the next: {@linkcode MOST_PIXEL} at most, and a
 * multiple of a run.
 * @param run The bytes of a run: 1, 2, 4 or 8.
 * @param to Where the first plane is; pixels lie side by side in it.
 * @param plane From one plane to the next.
 * @param planes How many of the runs that lie side by side are taken.
 * @param count How many pixels there are.
 */
export function splitPixels(
  from: Uint8Array,
  at: number,
  pixel: number,
  run: number,
  into: Uint8Array,
  to: number,
  plane: number,
  planes: number,
  count: number,
): void {
  const { stored, run: go } = stageOf(
    `split ${pixel} ${run} ${planes}`,
    () => splitter(pixel, run, planes),
  );
  const apart = planeBytes(planes);
  // What is stored beyond the last run must not reach the next plane.
  const room = apart - stored / planes;
  const most = Math.floor(Math.min(CHUNK_BYTES / pixel, room / run));
  for (let done = 0; done < count; done += most) {
    const some = Math.min(most, count - done);
    const start = at + done * pixel;
    // The memory may end behind the last run.
    put(from.subarray(start, start + (some - 1) * pixel + planes * run));
    go(Math.ceil(some * run * planes / stored));
    for (let p = 0; p < planes; p++) {
      into.set(get(some * run, p * apart), to + p * plane + done * run);
    }
  }
}

/**
 * Copies some runs of each pixel, side by side.
 *
 * @param at Where the first run of the first pixel is.
 * @param pixel From one pixel to the next: {@linkcode MOST_PIXEL} at most.
 * @param run The bytes of a run.
 * @param step From one run of a pixel to the next; negative is possible.
 * @param runs How many of them there are.
 * @param count How many pixels there are.
 */
export function pickRuns(
  from: Uint8Array,
  at: number,
  pixel: number,
  run: number,
  step: number,
  runs: number,
  into: Uint8Array,
  to: number,
  count: number,
): void {
  const back = Math.min(0, (runs - 1) * step);
  const { stored, run: go } = stageOf(
    `pick ${pixel} ${run} ${step} ${runs}`,
    () => {
      const order = Array.from(
        { length: runs * run },
        (_, byte) => Math.floor(byte / run) * step - back + byte % run,
      );
      return picker(pixel, order);
    },
  );
  const bytes = runs * run;
  const span = (runs - 1) * Math.abs(step) + run;
  const most = Math.floor(CHUNK_BYTES / Math.max(pixel, bytes));
  for (let done = 0; done < count; done += most) {
    const some = Math.min(most, count - done);
    const start = at + back + done * pixel;
    // The memory may end behind the last run.
    put(from.subarray(start, start + (some - 1) * pixel + span));
    go(Math.ceil(some * bytes / stored));
    into.set(get(some * bytes), to + done * bytes);
  }
}

/**
 * Puts pixels together.
 *
 * @param at Where the first plane is; pixels lie side by side in it.
 * @param plane From one plane to the next.
 * @param run The bytes of a run: 1, 2, 4 or 8.
 * @param to Where the first pixel is; all of them lie side by side.
 * @param planes How many planes there are.
 * @param count How many pixels there are.
 */
export function joinPixels(
  from: Uint8Array,
  at: number,
  plane: number,
  run: number,
  into: Uint8Array,
  to: number,
  planes: number,
  count: number,
): void {
  const { stored, run: go } = stageOf(
    `join ${run} ${planes}`,
    () => joiner(run, planes),
  );
  const apart = planeBytes(planes);
  const most = apart / run | 0;
  for (let done = 0; done < count; done += most) {
    const some = Math.min(most, count - done);
    for (let p = 0; p < planes; p++) {
      const start = at + p * plane + done * run;
      put(from.subarray(start, start + some * run), p * apart);
    }
    go(Math.ceil(some * run * planes / stored));
    into.set(get(some * run * planes), to + done * run * planes);
  }
}

/**
 * Copies runs backwards.
 *
 * @param at Where the last run is, which comes first.
 * @param run The bytes of a run: 1, 2, 4 or 8.
 * @param count How many there are.
 */
export function reverseRuns(
  from: Uint8Array,
  at: number,
  run: number,
  into: Uint8Array,
  to: number,
  count: number,
): void {
  const { run: go } = stageOf(
    `reverse ${run}`,
    () => reverser(run),
  );
  const most = CHUNK_BYTES / run;
  for (let done = 0; done < count; done += most) {
    const bytes = Math.min(most, count - done) * run;
    const end = at + run - done * run;
    put(from.subarray(end - bytes, end));
    go(Math.ceil(bytes / TURNED), bytes - TURNED);
    into.set(get(bytes), to + done * run);
  }
}
