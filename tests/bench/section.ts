/**
 * What the sections of the benchmark share beside the harness: their options,
 * loops of operations of some nanoseconds, tensors of many kinds, tables.
 *
 * @module
 */

import { type DType, Tensor } from "../../mod.ts";
import type { Row } from "./harness.ts";

/** What a section was asked for. */
export interface SectionOptions {
  /** A fast run, for a first look. */
  isQuick: boolean;
  /** Where the rows go, if anywhere. */
  json: string | undefined;
}

/** Reads `[--quick] [--json PATH]`. */
export function sectionOptions(args: readonly string[]): SectionOptions {
  const at = args.indexOf("--json");
  return {
    isQuick: args.includes("--quick"),
    json: at === -1 ? undefined : args[at + 1],
  };
}

/** Writes the rows where they are wanted. */
export async function writeRows(
  rows: readonly Row[],
  { json }: SectionOptions,
): Promise<void> {
  if (json === undefined) return;
  await Deno.writeTextFile(json, JSON.stringify(rows, null, 2) + "\n");
}

/** Does an operation so many times. */
export type Loop = (count: number) => void;

/**
 * Runs a loop for about so long, and gives the nanoseconds of one operation.
 *
 * @param count How many operations to do between two looks at the clock: so
 * many that the look costs nothing.
 */
export function measureLoop(loop: Loop, seconds: number, count = 1000): number {
  const start = performance.now();
  for (let done = count;; done += count) {
    loop(count);
    const elapsed = performance.now() - start;
    if (elapsed >= seconds * 1e3) return elapsed * 1e6 / done;
  }
}

const manyDTypes: readonly DType[] = [
  "int8",
  "uint8",
  "int32",
  "int64",
  "float64",
  "bfloat16",
  "bool",
  "complex64",
];

/** What a large program has: tensors of 8 dtypes, of one axis to four. */
export function manyKinds(): Tensor[] {
  return manyDTypes.flatMap((dtype) => {
    const one: Tensor = Tensor.from(new Float32Array([1])).astype(dtype);
    return [[1], [1, 1], [1, 1, 1], [1, 1, 1, 1]]
      .map((shape) => one.reshape(shape));
  });
}

/** A time in the unit that suits it. */
export function showTime(ns: number): string {
  const [value, unit] = ns >= 1e6
    ? [ns / 1e6, "ms"]
    : ns >= 1e4
    ? [ns / 1e3, "us"]
    : [ns, "ns"];
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

/** Prints the rows of each group: our time, then how many times it the others took. */
export function printRows(rows: readonly Row[]): void {
  let group = "";
  for (const row of rows) {
    if (row.group !== group) console.log(`\n${group = row.group}`);
    const [least, most] = row.ours_range;
    const peers = Object.entries(row.peers).map(([name, ns]) => {
      const ratio = (ns / row.ours_ns).toPrecision(3);
      return `${name.replace("_ns", "")} ${showTime(ns)} (${ratio}x)`;
    });
    console.log(
      `  ${row.name}`.padEnd(38) +
        showTime(row.ours_ns).padStart(9) +
        ` (${showTime(least)}..${showTime(most)})`.padEnd(26) +
        peers.join(", "),
    );
  }
}
