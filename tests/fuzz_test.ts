import { assert, assertEquals } from "@std/assert";
import { bufferAt, LONGEST_BUFFER } from "../ffi/memory.ts";
import { fuzz } from "./fuzz.ts";
import { assertBufferError } from "./helpers.ts";
import { skipped } from "./skipped.ts";

/** The least of a hundred structs that must come to each outcome. */
const shares: Record<string, number> = {
  "viewed": 30,
  "viewed, large": 1,
  "copied": 5,
  "kept over a turn": 1,
  "refused, other struct": 3,
  'refused, "version"': 1,
  'refused, "shape"': 10,
  'refused, "device"': 3,
  'refused, "dtype"': 4,
  'refused, "data"': 0.7,
  'refused, "copy"': 1.5,
};

// Its model knows nothing of the limit that ffi/memory.ts sets for older ones.
const isOld = LONGEST_BUFFER < 2 ** 48;
if (isOld) skipped("fuzzing, as V8 is older than 15", "update Deno");

Deno.test({
  name: "Hostile structs are refused or do what they say",
  ignore: isOld,
  fn: fuzzOnce,
});

Deno.test("An ArrayBuffer longer than V8 can bear is refused, not tried", () => {
  const bytes = LONGEST_BUFFER + 1;
  assertBufferError(() => bufferAt(4096, bytes), "data", "update Deno");
});

async function fuzzOnce(): Promise<void> {
  // Found a crash? `deno task fuzz --seed 20260 --runs 12000 --guarded 10`
  // says in which struct.
  const options = { runs: 12_000, seed: 20260, guarded: 10 };
  const seen = await fuzz(options);
  assertEquals(Object.keys(seen).sort(), Object.keys(shares).sort());
  for (const [outcome, least] of Object.entries(shares)) {
    const percent = 100 * seen[outcome]! / options.runs;
    assert(percent >= least, `${outcome}: only ${percent} %`);
  }
}
