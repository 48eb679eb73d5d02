/** How fast copies to the host are, beside the driver's and PyTorch's. */

import {
  DeviceType,
  DlpackCapsule,
  fromDlpack,
  fromDlpackAsync,
  type Tensor,
} from "@dlpack/deno";
import type { DeviceMemory } from "../../ffi/devices/runtime.ts";
import { runtimeOf } from "../../ffi/devices/registry.ts";
import { addressOfArray } from "../../ffi/memory.ts";
import { check, cuda, made } from "./cuda.ts";
import type { Python } from "./python.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const cpu = { device: "cpu" } as const;

/** Gives back what was made, outside of the time. */
type Cleanup = () => void;
type Work = () => Cleanup | void | Promise<Cleanup | void>;

/** The least of some alternating rounds, in milliseconds. */
async function times(
  rounds: number,
  works: readonly Work[],
): Promise<number[]> {
  const least = works.map(() => Infinity);
  for (let round = 0; round < rounds; round++) {
    for (const [i, work] of works.entries()) {
      const start = performance.now();
      const running = work();
      const clean = running instanceof Promise ? await running : running;
      least[i] = Math.min(least[i]!, performance.now() - start);
      clean?.();
    }
  }
  return least;
}

function roundsFor(size: number): number {
  return size <= 4 * MiB ? 200 : size <= 64 * MiB ? 15 : size <= GiB ? 5 : 2;
}

/** Frees a copy whose memory must not be used again: the next shall be new. */
function drop(t: Tensor): void {
  t.data.buffer.transfer(0);
}

function line(...cells: (string | number)[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}

function table(title: string, ...columns: string[]): void {
  console.log(`\n${title}\n`);
  line(...columns);
  line(...columns.map(() => "---:"));
}

function named(size: number): string {
  return size >= GiB
    ? `${size / GiB} GiB`
    : size >= MiB
    ? `${size / MiB} MiB`
    : `${size / KiB} KiB`;
}

const rate = (size: number, ms: number): string =>
  ms === Infinity ? "" : (size / ms / 1e6).toFixed(2);
const ratio = (theirs: number, ours: number): string =>
  (theirs / ours).toFixed(2);

function tensorAt(
  data: bigint,
  shape: readonly number[],
  strides: readonly number[],
): DlpackCapsule {
  const device = { type: "cuda", id: 0 } as const;
  return DlpackCapsule.from(data, { dtype: "float32", shape, strides, device });
}

/** Prints the tables. */
export async function measureAll(
  largest: number,
  py: Python | null,
): Promise<void> {
  const sizes = [
    KiB,
    16 * KiB,
    256 * KiB,
    MiB,
    4 * MiB,
    16 * MiB,
    64 * MiB,
    256 * MiB,
    GiB,
    8 * GiB,
  ].filter((size) => size <= largest);

  table(
    "Into memory that is there, GB/s, and ratios of times: the driver's to ours",
    "bytes",
    "cuMemcpyDtoH",
    "blocking",
    "ratio",
    "asynchronous",
    "to the driver's",
    "to the blocking one",
    "cuMemcpyDtoH, pinned",
  );
  for (const size of sizes) {
    const n = BigInt(size);
    const data = made((into) => cuda.cuMemAlloc_v2(into, n));
    const there = new Uint8Array(size).fill(1);
    const address = addressOfArray(there);
    const memory: DeviceMemory = {
      type: "cuda",
      id: 0,
      data,
      byteOffset: 0,
      byteLength: size,
      stream: null,
      access: "read",
    };
    using reader = runtimeOf(DeviceType.cuda)!.open(memory);
    const pinned = size <= GiB
      ? made((into) => cuda.cuMemHostAlloc(into, n, 0))
      : 0n;
    const [theirs, ours, later, fast] = await times(roundsFor(size), [
      () => check(cuda.cuMemcpyDtoH_v2(address, data, n)),
      () => reader.read(0, there),
      () => reader.readAsync!(0, there),
      ...pinned ? [() => check(cuda.cuMemcpyDtoH_v2(pinned, data, n))] : [],
    ]) as [number, number, number, number];
    line(
      named(size),
      rate(size, theirs),
      rate(size, ours),
      ratio(theirs, ours),
      rate(size, later),
      ratio(theirs, later),
      ratio(ours, later),
      fast === undefined ? "" : rate(size, fast),
    );
    there.buffer.transfer(0);
    if (pinned) check(cuda.cuMemFreeHost(pinned));
    check(cuda.cuMemFree_v2(data));
  }

  table(
    "Into fresh memory, whole calls, GB/s, and ratios of times",
    "bytes",
    "new Uint8Array, cuMemcpyDtoH",
    "fromDlpack",
    "ratio",
    "fromDlpackAsync",
    "ratio",
    "torch.Tensor.cpu()",
    "fromDlpack's ratio to it",
  );
  const torch = py?.has("torch") ?? false;
  for (const size of sizes) {
    const n = BigInt(size);
    const data = made((into) => cuda.cuMemAlloc_v2(into, n));
    const make = (): DlpackCapsule => tensorAt(data, [size / 4], [1]);
    const [theirs, ours, later] = await times(roundsFor(size), [
      () => {
        const fresh = new Uint8Array(size);
        check(cuda.cuMemcpyDtoH_v2(addressOfArray(fresh), data, n));
        return () => fresh.buffer.transfer(0);
      },
      () => drop.bind(null, fromDlpack(make(), cpu)),
      async () => drop.bind(null, await fromDlpackAsync(make(), cpu)),
    ]) as [number, number, number];
    check(cuda.cuMemFree_v2(data));
    const best = torch ? ofTorch(py!, `(${size},)`, "t", size) : Infinity;
    line(
      named(size),
      rate(size, theirs),
      rate(size, ours),
      ratio(theirs, ours),
      rate(size, later),
      ratio(theirs, later),
      rate(size, best),
      torch ? ratio(best, ours) : "",
    );
  }

  table(
    "Rows at twice their length, GB/s of what is copied, and torch's time to ours",
    "bytes of a row",
    "of all",
    "torch.Tensor.cpu()",
    "fromDlpack, fresh memory",
    "ratio",
    "memory of a disposed copy",
    "ratio",
    "fromDlpackAsync, the same",
    "ratio",
  );
  for (const size of [8 * MiB, 64 * MiB, GiB]) {
    for (const width of [4, 64, KiB, 64 * KiB]) {
      if (2 * size > largest) continue;
      const count = size / width;
      const data = made((into) => cuda.cuMemAlloc_v2(into, BigInt(2 * size)));
      const make = () => tensorAt(data, [count, width / 4], [width / 2, 1]);
      const rounds = roundsFor(size);
      const [fresh] = await times(rounds, [
        () => drop.bind(null, fromDlpack(make(), cpu)),
      ]) as [number];
      const [again, later] = await times(rounds, [
        () => fromDlpack(make(), cpu)[Symbol.dispose](),
        async () => (await fromDlpackAsync(make(), cpu))[Symbol.dispose](),
      ]) as [number, number];
      drop(fromDlpack(make(), cpu)); // what was kept
      check(cuda.cuMemFree_v2(data));
      const shape = `(${count}, ${2 * width})`;
      const best = torch
        ? ofTorch(py!, shape, `t[:, :${width}]`, size)
        : Infinity;
      const cells = [fresh, again, later].flatMap((ours) => [
        rate(size, ours),
        torch ? ratio(best, ours) : "",
      ]);
      line(width, named(size), rate(size, best), ...cells);
    }
  }
  await measureTurns(Math.min(GiB, largest));
}

/** `torch.Tensor.cpu()` of a view of bytes, in milliseconds. */
function ofTorch(
  py: Python,
  shape: string,
  view: string,
  size: number,
): number {
  py.run(`t = torch.zeros(${shape}, dtype=torch.uint8, device="cuda")`);
  const best = py.ask(
    `best(${roundsFor(size)}, lambda: ${view}.cpu(), torch.cuda.synchronize)`,
  );
  py.run("del t; torch.cuda.empty_cache()");
  return Number(best);
}

/** How the event loop turns meanwhile. */
async function measureTurns(size: number): Promise<void> {
  const data = made((into) => cuda.cuMemAlloc_v2(into, BigInt(size)));
  let [turns, longest, last] = [0, 0, performance.now()];
  const timer = setInterval(() => {
    turns++;
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  });
  const start = performance.now();
  drop(await fromDlpackAsync(tensorAt(data, [size / 4], [1]), cpu));
  const whole = performance.now() - start;
  clearInterval(timer);
  check(cuda.cuMemFree_v2(data));
  console.log(
    `\nWhile ${named(size)} were copied in ${whole.toFixed(0)} ms, the event ` +
      `loop turned ${turns} times, and stood still for ${longest.toFixed(0)} ` +
      "ms at most",
  );
}
