/** That native memory stays bounded, in loops of every kind. */

import type { Tensor } from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { collectGarbage, importFixture } from "./helpers.ts";

interface Seen {
  readonly peakCount: number;
  readonly peakMiB: number;
  /** Of the process, in MiB, ten times through the loop. */
  readonly rss: readonly number[];
  readonly warnings: readonly string[];
  /** Whether liveTensors() told the truth throughout. */
  readonly isTrue: boolean;
  readonly left: { readonly count: number; readonly bytes: number };
  readonly counts: { readonly deleted: number; readonly double: number };
}

async function loop(
  kind: "using" | "asynchronous" | "synchronous" | "microtasks",
  data: "data" | "none",
  loops: number,
): Promise<Seen> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--v8-flags=--expose-gc",
      new URL("./ffi_pressure_child.ts", import.meta.url).href,
      kind,
      data,
      String(loops),
    ],
  }).output();
  const text = new TextDecoder();
  assertEquals(code, 0, text.decode(stderr));
  const seen: Seen = JSON.parse(text.decode(stdout));
  assert(seen.isTrue, "liveTensors() told the truth");
  assertEquals([seen.left.count, seen.left.bytes], [0, 0]);
  assertEquals([seen.counts.deleted, seen.counts.double], [loops, 0]);
  return seen;
}

/** Growth of the process after the first tenth of the loop, in MiB. */
function growth({ rss }: Seen): number {
  return rss[rss.length - 1]! - rss[1]!;
}

for (const data of ["none", "data"] as const) {
  const asked = data === "data" ? ", data asked for" : "";

  Deno.test(`A synchronous loop with using stays flat${asked}`, async () => {
    const seen = await loop("using", data, 100_000);
    assertEquals(seen.peakCount, 1);
    assert(growth(seen) < 32, `RSS in MiB: ${seen.rss}`);
    assertEquals(seen.warnings, []);
  });

  Deno.test(`An asynchronous loop without using stays bounded${asked}`, async () => {
    const seen = await loop("asynchronous", data, 20_000);
    assert(seen.peakMiB < 1024, `${seen.peakMiB} MiB at the peak`);
    assertEquals(seen.warnings, []);
  });
}

Deno.test("What is disposed never warns, nor leaves a timer behind", async (t) => {
  const MiB = 2 ** 20;
  const { warn } = console;
  const warnings: unknown[] = [];
  console.warn = (message) => warnings.push(message);
  try {
    // As large as can be, of which no page is touched.
    const large = (mebibytes: number): Tensor => {
      const nbytes = mebibytes * MiB;
      const dtype = [1, 8, 1] as const;
      return importFixture({ dtype, shape: [nbytes], nbytes, place: "end" });
    };
    await t.step("of growing tensors", () => {
      for (const size of [300, 1100, 2048, 2048]) {
        using tensor = large(size);
        assertEquals(tensor.nbytes, size * MiB);
      }
    });
    await t.step("after many turns", async () => {
      for (let i = 0; i < 5; i++) {
        large(300)[Symbol.dispose]();
        await collectGarbage();
      }
    });
    await t.step(
      "but of many that are forgotten, turn after turn, neither",
      async () => {
        for (let i = 0; i < 5; i++) {
          (() => large(300))();
          await collectGarbage();
        }
      },
    );
    assertEquals(warnings, []);
  } finally {
    console.warn = warn;
  }
});

for (const kind of ["synchronous", "microtasks"] as const) {
  Deno.test(`A loop without using warns once: ${kind}`, async () => {
    const seen = await loop(kind, "none", 2500);
    assertEquals(seen.peakCount, 2500, "nothing can be collected meanwhile");
    assertEquals(seen.warnings.length, 1);
    const [warning] = seen.warnings;
    assert(/^More than 1024 MiB /.test(warning!), warning);
    assert(warning!.includes('"using"'), warning);
  });
}
