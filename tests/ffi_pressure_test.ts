/** That native memory stays bounded, in loops of every kind. */

import { assert, assertEquals } from "@std/assert";

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
  assertEquals(seen.left, { count: 0, bytes: 0 });
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

for (const kind of ["synchronous", "microtasks"] as const) {
  Deno.test(`A loop without using warns once: ${kind}`, async () => {
    const seen = await loop(kind, "none", 2500);
    assertEquals(seen.peakCount, 2500, "nothing can be collected meanwhile");
    assertEquals(seen.warnings.length, 1);
    const [warning] = seen.warnings;
    assert(/^10\d\d MiB /.test(warning!), warning);
    assert(warning!.includes('"using"'), warning);
  });
}
