/** A million calls, of all kinds: what they leave. */

import { liveTensors, Tensor } from "@dlpack/deno";
import { TvmFfiError } from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals } from "@std/assert";
import { usePortablePath } from "../ffi/libc.ts";
import { countsOf } from "../src/tvm_ffi/binding.ts";
import { collectGarbage, floats, importFixture } from "./helpers.ts";
import { testModule } from "./native/tvm_ffi.ts";
import { ffi, k, kernels } from "./tvm_ffi.ts";

const types = testModule("tvm_types.cc");
if (types !== null) ffi!.openLibrary(types);

/** Calls of every kind: gives how many. */
function callAll(): () => number {
  const Counter = ffi!.type("deno.test.Counter")!;
  const x = Tensor.from(new Float32Array(8));
  const y = Tensor.zeros([8], "float32");
  const native = importFixture(floats([8]));
  const counter = new Counter(0, "kept");
  let sum = 0n;
  return () => {
    let calls = 0;
    for (; calls < 160; calls += 2) {
      k.add_one(x, y);
      k.add_one(native, x);
    }
    for (let i = 0; i < 10; i++, calls++) sum += k.type_of(i);
    sum += counter.add(1);
    k.identity("text that is longer than seven bytes");
    k.identity([1, "two", new Map([["three", new Uint8Array(9)]])]);
    k.call((v: bigint) => v + 1n, 1);
    {
      using t: Tensor = k.count_up(4);
      using same: Tensor = k.identity(t);
      k.add_one(same, x.slice([0, 4]));
    }
    {
      using f = k.closure(1);
      f();
      using made = new Counter(1, "made");
      k.identity([made])[0][Symbol.dispose]();
    }
    for (
      const fail of [() => k.add_one(1), () =>
        k.call(() => {
          throw 1;
        }, 0)]
    ) {
      try {
        fail();
      } catch (error) {
        if (!(error instanceof TvmFfiError)) throw error;
      }
    }
    return calls + 14;
  };
}

/** What there is: references, callbacks, tensors, objects of C++, and memory. */
async function look(): Promise<{ counts: string; rss: number }> {
  await collectGarbage();
  return {
    counts: JSON.stringify([
      countsOf(ffi!),
      liveTensors(),
      `${k.live_count()}`,
      `${ffi!.type("deno.test.Counter")!.live()}`,
    ]),
    rss: Deno.memoryUsage().rss,
  };
}

for (const portable of [false, true]) {
  const total = portable ? 20_000 : 1_000_000;
  Deno.test({
    name: `tvm-ffi: ${total} calls leave nothing` +
      (portable ? " (portable path)" : ""),
    ignore: kernels === null || types === null,
    async fn() {
      usePortablePath(portable);
      try {
        const run = callAll();
        for (let calls = 0; calls < total / 10;) {
          calls += run();
          // Finalizers run only between turns: those of views that nobody disposed.
          if (calls % 2000 < 184) {
            await new Promise((resolve) => setTimeout(resolve));
          }
        }
        const before = await look();
        for (let calls = 0; calls < total;) {
          calls += run();
          if (calls % 2000 < 184) {
            await new Promise((resolve) => setTimeout(resolve));
          }
        }
        const after = await look();
        run(); // what it uses must not be garbage before
        assertEquals(after.counts, before.counts);
        const grown = (after.rss - before.rss) / 2 ** 20;
        assert(grown < 32, `${grown} MiB more than after the first calls`);
      } finally {
        usePortablePath(false);
      }
    },
  });
}
