/**
 * A loop over many tensors of 1 MiB, for ffi_pressure_test.ts in a process of its
 * own: prints what it saw as JSON.
 */

import { DlpackCapsule, fromDlpack, liveTensors } from "@dlpack/deno";
import { counts, fixture, make } from "./native/fixture.ts";

const MiB = 2 ** 20;
const [kind, data, loops] = Deno.args;
const total = Number(loops);

const warnings: string[] = [];
console.warn = (message: string) => warnings.push(message);

function load(): Disposable {
  const pointer = make({
    dtype: [1, 8, 1],
    shape: [MiB],
    nbytes: MiB,
    place: "heap",
  });
  const tensor = fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
  if (data === "data") tensor.data;
  return tensor;
}

let peakCount = 0;
let peakBytes = 0;
let isTrue = true;
function look(): void {
  const { count, bytes } = liveTensors();
  peakCount = Math.max(peakCount, count);
  peakBytes = Math.max(peakBytes, Number(fixture.fx_live_bytes()));
  isTrue &&= count === counts().live && bytes === count * MiB;
}

/** Lets the event loop turn. */
const turn = (): Promise<void> => new Promise((done) => setTimeout(done));

function useAndDispose(): void {
  using _tensor = load();
  look();
}

function forget(): void {
  load();
  look();
}

const rss: number[] = [];
for (let i = 0; i < total; i++) {
  if (kind === "using") useAndDispose();
  else forget();
  if (kind === "asynchronous" && i % 20 === 19) await turn();
  if (kind === "microtasks") await null;
  if (i % (total / 10) === 0) rss.push(Deno.memoryUsage().rss / MiB);
}
const { gc } = globalThis as { gc?: () => void };
for (let i = 0; i < 3; i++) {
  gc?.();
  await turn();
}
look();
console.log(JSON.stringify({
  peakCount,
  peakMiB: peakBytes / MiB,
  rss,
  warnings,
  isTrue,
  left: liveTensors(),
  counts: counts(),
}));
