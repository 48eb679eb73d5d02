/** What is right: streams, kinds of memory, consumers and errors, by the fixture. */

import {
  DeviceType,
  fromDlpack,
  fromDlpackAsync,
  type Tensor,
} from "@dlpack/deno";
import { bufferAt } from "../../ffi/memory.ts";
import { counts, type FixtureSpec } from "../native/fixture.ts";
import { allocate, capsule, check, cuda, made, refused } from "./cuda.ts";
import { head, rowWith, same } from "./table.ts";

const cpu = { device: "cpu" } as const;

/** A deleter that is called twice counts as three. */
function deletions(): number {
  const { deleted, double } = counts();
  return Number(deleted) + 2 * Number(double);
}

/** Every byte, or where the first wrong one is. */
function filled(t: Tensor, value: number): void {
  const at = (t.data as Uint8Array).findIndex((byte) => byte !== value);
  if (at !== -1) throw new Error(`came too early, at byte ${at}`);
}

/** Prints the table. */
export async function testRules(): Promise<void> {
  head("streams, kinds of memory, consumers, errors");
  const row = (name: string, times: number, run: () => unknown) =>
    rowWith(deletions, name, times, run);
  const floats = Float32Array.from({ length: 12 }, (_, i) => i);
  const twelve = allocate(new Uint8Array(floats.buffer));
  const base: FixtureSpec = { dtype: [2, 32, 1], nbytes: 1 };

  await row("another device's id in the struct", 1, () => {
    const spec = { ...base, shape: [1], device: [2, 99] as const };
    same(fromDlpack(capsule(spec, twelve), cpu).toArray(), [0]);
  });
  await row("two consumers of the same memory", 2, () => {
    const spec = { ...base, shape: [2] };
    same(fromDlpack(capsule(spec, twelve), cpu).toArray(), [0, 1]);
    same(fromDlpack(capsule(spec, twelve), cpu).toArray(), [0, 1]);
  });

  // Long enough for a copy that does not wait to come too early.
  const size = 16 << 20;
  const bytes: FixtureSpec = { dtype: [1, 8, 1], shape: [size], nbytes: 1 };
  const large = allocate(new Uint8Array(size));
  const stream = made((into) => cuda.cuStreamCreate(into, 1));
  let value = 0;
  for (const options of [{}, { stream }]) {
    for (const load of [fromDlpack, fromDlpackAsync]) {
      const how = "stream" in options ? "named" : "not named";
      await row(`a busy stream, ${how}: ${load.name}()`, 1, async () => {
        const fill = ++value;
        for (let i = 0; i < 50; i++) {
          const last = i === 49 ? fill : 0;
          check(cuda.cuMemsetD8Async(large, last, BigInt(size), stream));
        }
        filled(await load(capsule(bytes, large, options), cpu), fill);
      });
    }
  }
  const managed = made((into) => cuda.cuMemAllocManaged(into, BigInt(size), 1));
  await row("managed memory, viewed when the GPU is done", 1, () => {
    check(cuda.cuMemsetD8Async(managed, 9, BigInt(size), stream));
    const spec = { ...bytes, device: [DeviceType.cudaManaged, 0] as const };
    using t = fromDlpack(capsule(spec, managed));
    filled(t, 9);
  });
  const pinned = made((into) => cuda.cuMemHostAlloc(into, 48n, 0));
  new Float32Array(bufferAt(Number(pinned), 48)).set(floats);
  await row("pinned memory, viewed", 1, () => {
    const device = [DeviceType.cudaHost, 0] as const;
    using t = fromDlpack(capsule({ ...base, shape: [2], device }, pinned));
    same(t.toArray(), [0, 1]);
  });
  check(cuda.cuMemFreeHost(pinned));

  await row("large, asynchronously, the event loop turning", 1, async () => {
    check(cuda.cuMemsetD8Async(large, 5, BigInt(size), stream));
    let turns = 0;
    const timer = setInterval(() => turns++);
    try {
      filled(await fromDlpackAsync(capsule(bytes, large), cpu), 5);
    } finally {
      clearInterval(timer);
    }
    return `ok, ${turns} turns`;
  });
  await row("aborted before it began: the capsule stays", 1, async () => {
    const signal = AbortSignal.abort(new RangeError("Enough"));
    const kept = capsule({ ...base, shape: [2] }, twelve);
    const told = await fromDlpackAsync(kept, { ...cpu, signal }).catch(String);
    same([told, kept.shape], ["RangeError: Enough", [2]]);
    kept[Symbol.dispose]();
  });
  await row("aborted on the way", 1, async () => {
    const more = allocate(new Uint8Array(80 << 20));
    const controller = new AbortController();
    const told = await fromDlpackAsync(
      capsule({ ...bytes, shape: [80 << 20] }, more),
      {
        ...cpu,
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      },
    ).catch(String);
    check(cuda.cuMemFree_v2(more));
    same(told, "RangeError: Enough");
  });
  await row("without { device }: the capsule stays", 1, () => {
    const kept = capsule({ ...base, shape: [2] }, twelve);
    refused(() => fromDlpack(kept), 'pass { device: "cpu" }');
    same(kept.shape, [2]);
    kept[Symbol.dispose]();
  });
  await row("beyond the allocation", 1, () => {
    const spec = { ...bytes, shape: [1 << 30] };
    refused(() => fromDlpack(capsule(spec, large), cpu), "ends at");
  });
  for (const address of [managed, large, twelve]) {
    check(cuda.cuMemFree_v2(address));
  }
  await row("freed memory", 1, () => {
    const spec = { ...base, shape: [2] };
    refused(() => fromDlpack(capsule(spec, twelve), cpu), "INVALID_VALUE (1)");
  });
  check(cuda.cuStreamDestroy_v2(stream));
}
