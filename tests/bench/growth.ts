/**
 * What grows with a tensor, and what does not: imports by elements, axes and
 * tensors that are alive, copies by elements.
 *
 * usage: deno run -A tests/bench/growth.ts [--quick] [--json PATH]
 *
 * --quick stops at 10^6 elements and 10^4 live tensors.
 *
 * @module
 */

import { DlpackCapsule, fromDlpack, type Tensor } from "../../mod.ts";
import { type Contender, median, rangeOf, type Row } from "./harness.ts";
import { initProducer, producer } from "./producer.ts";
import {
  measureLoop,
  printRows,
  sectionOptions,
  writeRows,
} from "./section.ts";

function make(): Tensor {
  const pointer = producer.bench_make();
  return fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
}

function importAndRelease(count: number): void {
  for (let i = 0; i < count; i++) {
    using t = make();
    if (t.dtype !== "float32") throw new TypeError(`Not float32: ${t.dtype}`);
  }
}

/** One case of a series: its time in each round, and what goes before. */
interface Step {
  name: string;
  bytes: number;
  run: Contender;
}

/** Lets the steps take turns. */
async function takeTurns(
  group: string,
  steps: readonly Step[],
  rounds: number,
): Promise<Row[]> {
  const times: number[][] = steps.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, { run }] of steps.entries()) times[i]!.push(await run());
  }
  return steps.map(({ name, bytes }, i): Row => ({
    group,
    name,
    bytes,
    ours_ns: median(times[i]!),
    ours_range: rangeOf(times[i]!),
    peers: {},
    peers_range: {},
  }));
}

/** Of all tensors here, and the one to copy to: made once, as the collector would take long for them. */
let memory = new Float32Array(0);
let out = new Float32Array(0);

function importOf(shape: readonly number[], name: string, turn: number): Step {
  return {
    name,
    bytes: 4 * shape.reduce((a, b) => a * b, 1),
    run() {
      initProducer(1024, shape, memory);
      importAndRelease(2000);
      return measureLoop(importAndRelease, turn);
    },
  };
}

/** Imports beside so many tensors that stay alive. */
function importBeside(live: number, turn: number): Step {
  return {
    name: `${live} live`,
    bytes: 16,
    async run() {
      initProducer(live + 1024, [2, 2]);
      const kept = Array.from({ length: live }, make);
      await new Promise((resolve) => setTimeout(resolve)); // the turn ends
      importAndRelease(30_000); // the kept ones are among the old by then
      const ns = measureLoop(importAndRelease, turn);
      for (const t of kept) t[Symbol.dispose]();
      return ns;
    },
  };
}

/** Imports so many tensors, keeps them beyond the turn, and releases them. */
function keep(live: number): Step {
  return {
    name: `${live} live`,
    bytes: 16,
    async run() {
      const rounds = Math.ceil(100 / live);
      initProducer(live, [2, 2]);
      let elapsed = 0;
      for (let round = 0; round < rounds; round++) {
        let start = performance.now();
        const kept = Array.from({ length: live }, make);
        elapsed += performance.now() - start;
        await new Promise((resolve) => setTimeout(resolve));
        start = performance.now();
        for (const t of kept) t[Symbol.dispose]();
        elapsed += performance.now() - start;
      }
      return elapsed * 1e6 / (rounds * live);
    },
  };
}

function copyOf(size: number, turn: number): Step {
  return {
    name: elements(size),
    bytes: 4 * size,
    run() {
      initProducer(1, [size], memory);
      using t = make();
      return measureCopies(t, turn);
    },
  };
}

/** Copies of a transposed matrix. */
function transposeOf(size: number, turn: number): Step {
  const side = Math.round(Math.sqrt(size));
  return {
    name: elements(side * side),
    bytes: 4 * side * side,
    run() {
      initProducer(1, [side, side], memory);
      using t = make();
      return measureCopies(t.transpose(), turn);
    },
  };
}

function measureCopies(t: Tensor, turn: number): number {
  const into = out.subarray(0, t.size);
  const loop = (count: number): void => {
    for (let i = 0; i < count; i++) t.copy({ out: into });
  };
  const count = Math.ceil(100_000 / t.size);
  loop(count);
  return measureLoop(loop, turn, count);
}

function elements(size: number): string {
  return size === 1 ? "1 element" : `${size.toLocaleString("en")} elements`;
}

function powersOf10(to: number): number[] {
  return Array.from({ length: to + 1 }, (_, i) => 10 ** i);
}

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const { isQuick } = options;
  const [rounds, turn] = isQuick ? [7, 0.01] : [25, 0.015];
  const sizes = powersOf10(isQuick ? 6 : 8);
  const lives = powersOf10(isQuick ? 4 : 6);
  const axes = Array.from({ length: 8 }, (_, i) => i + 1);
  memory = new Float32Array(Math.max(...sizes)).fill(1);
  out = new Float32Array(memory.length).fill(0);
  initProducer(1024, [2], memory);
  importAndRelease(100_000); // V8 has compiled it by then
  const rows = [
    ...await takeTurns(
      "import by elements",
      sizes.map((size) => importOf([size], elements(size), turn)),
      rounds,
    ),
    ...await takeTurns(
      "import by axes",
      axes.map((ndim) =>
        importOf(
          Array(ndim).fill(2),
          `${ndim} ${ndim > 1 ? "axes" : "axis"}`,
          turn,
        )
      ),
      rounds,
    ),
    ...await takeTurns(
      "import beside live tensors",
      lives.map((live) => importBeside(live, turn)),
      isQuick ? 3 : 5,
    ),
    ...await takeTurns(
      "import, keep, release",
      lives.map(keep),
      isQuick ? 3 : 5,
    ),
    ...await takeTurns(
      "copy by elements",
      sizes.map((size) => copyOf(size, turn)),
      isQuick ? 3 : 5,
    ),
    ...await takeTurns(
      "transposed copy by elements",
      sizes.map((size) => transposeOf(size, turn)),
      isQuick ? 3 : 5,
    ),
  ];
  printRows(rows);
  await writeRows(rows, options);
}

if (import.meta.main) await main(Deno.args);
