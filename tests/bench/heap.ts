/**
 * Bytes of V8's heap for an import that is held, an export, and a view: here,
 * and in another checkout.
 *
 * usage: deno run -A --v8-flags=--expose-gc tests/bench/heap.ts [CHECKOUT]
 *
 * @module
 */

import { initProducer, producer } from "./producer.ts";

const COUNT = 20_000;
const { gc } = globalThis as unknown as { gc: () => void };

/** What one of many takes, the array that holds them aside. */
async function bytesOf(make: () => unknown): Promise<number> {
  const kept = new Array<unknown>(COUNT).fill(null);
  for (let i = 0; i < 100; i++) make(); // compiled before it counts
  const used = await heap();
  for (let i = 0; i < COUNT; i++) kept[i] = make();
  const bytes = (await heap() - used) / COUNT;
  if (kept.includes(null)) throw new Error("made too few");
  return Math.round(bytes);
}

async function heap(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve));
    gc();
  }
  return Deno.memoryUsage().heapUsed;
}

async function measure(checkout: string): Promise<Record<string, number>> {
  const { DlpackCapsule, fromDlpack, Tensor } = await import(
    new URL("mod.ts", checkout).href
  ) as typeof import("../../mod.ts");
  const version = { maxVersion: [1, 3] } as const;
  const imported = () =>
    fromDlpack(
      new DlpackCapsule(producer.bench_make(), "dltensor_versioned"),
    );
  const t = Tensor.from(new Float32Array(64), [8, 8]);
  return {
    "an import": await bytesOf(imported),
    "an import, an element of data": await bytesOf(() => {
      const t = imported();
      t.data.at(0);
      return t;
    }),
    "an import, an element by get()": await bytesOf(() => {
      const t = imported();
      t.get(0, 0);
      return t;
    }),
    "an export": await bytesOf(() => t.__dlpack__(version)),
    "a view": await bytesOf(() => t.transpose()),
    "a tensor of JavaScript's": await bytesOf(() =>
      Tensor.from(new Float32Array(0), [0, 4])
    ),
  };
}

initProducer(COUNT * 4, [4, 4]);
const here = await measure(new URL("../../", import.meta.url).href);
const other = Deno.args[0] === undefined
  ? null
  : await measure(new URL(`${Deno.args[0]}/`, `file://${Deno.cwd()}/`).href);
console.log("| bytes of V8's heap | here | there |\n| --- | ---: | ---: |");
for (const [what, bytes] of Object.entries(here)) {
  console.log(`| ${what} | ${bytes} | ${other?.[what] ?? ""} |`);
}
