/** Tensors that go to a Worker. */

import { DlpackCapsule, fromDlpack, liveTensors } from "@dlpack/deno";
import { assertEquals } from "@std/assert";
import {
  assertBufferError,
  floats,
  importFixture,
  runScript,
} from "./helpers.ts";
import { counts } from "./native/fixture.ts";

const workerUrl = new URL("./ffi_owner_worker_child.ts", import.meta.url).href;

/** Every struct that is released goes with its name. */
function handOver(versioned: boolean): { address: bigint; name: string } {
  const t = importFixture(floats([2, 3], { versioned }));
  const { data } = t;
  const capsule = t.release();
  const { name } = capsule;
  const address = BigInt(Deno.UnsafePointer.value(capsule.take()));
  assertEquals(data.length, 0);
  assertBufferError(() => t.get(0, 0), "released");
  return { address, name };
}

for (const versioned of [true, false]) {
  const kind = versioned ? "versioned" : "legacy";
  Deno.test(`A Worker imports what release() gave, and disposes it: ${kind}`, async () => {
    const before = counts();
    const live = liveTensors();
    const worker = new Worker(workerUrl, { type: "module" });
    const answer = Promise.withResolvers<MessageEvent>();
    worker.onmessage = answer.resolve;
    worker.onerror = (event) => answer.reject(event.error ?? event.message);
    worker.postMessage({ ...handOver(versioned), delay: 0 });
    assertEquals(liveTensors(), live, "it is not ours any more");
    const { data } = await answer.promise;
    assertEquals(data.values, [[0, 1, 2], [3, 4, 5]]);
    assertEquals([data.left.count, data.left.bytes], [0, 0]);
    assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
    worker.terminate();
  });
}

Deno.test("A Worker goes on with a tensor when the main thread is done", async () => {
  const { code, out, err } = await runScript(`
    import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
    import { counts, make } from "#fixture";
    const t = fromDlpack(new DlpackCapsule(make({
      dtype: [2, 32, 1], shape: [2], nbytes: 8,
      data: new Uint8Array(Float32Array.of(1, 2).buffer),
    }), "dltensor_versioned"));
    const capsule = t.release();
    const { name } = capsule;
    const address = BigInt(Deno.UnsafePointer.value(capsule.take()));
    const worker = new Worker("${workerUrl}", { type: "module" });
    worker.postMessage({ address, name, delay: 200 });
    addEventListener("unload", () => console.log("main", JSON.stringify(counts())));
    console.log("main is done");
  `);
  assertEquals([code, err], [0, ""]);
  assertEquals(out, [
    "main is done",
    "worker [1,2]",
    'main {"deleted":1,"double":0,"live":0}',
  ]);
});

Deno.test("A Worker that is terminated leaves what it was sent for others", async () => {
  const before = counts();
  const worker = new Worker(workerUrl, { type: "module" });
  const { address, name } = handOver(true);
  worker.postMessage({ address, name, delay: 10_000 });
  await new Promise((done) => setTimeout(done, 300));
  worker.terminate();
  assertEquals(counts(), { ...before, live: before.live + 1 });
  // Whoever knows the address can wrap it again.
  using t = fromDlpack(new DlpackCapsule(address, "dltensor_versioned"));
  assertEquals(t.toArray(), [[0, 1, 2], [3, 4, 5]]);
  t[Symbol.dispose]();
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
});
