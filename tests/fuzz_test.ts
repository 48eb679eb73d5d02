import { assert, assertEquals } from "@std/assert";
import { fuzz } from "./fuzz.ts";

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

Deno.test("Hostile structs are refused or do what they say", async () => {
  // Found a crash? `deno task fuzz --seed 20260 --runs 12000 --guarded 10`
  // says in which struct.
  const options = { runs: 12_000, seed: 20260, guarded: 10 };
  const seen = await fuzz(options);
  assertEquals(Object.keys(seen).sort(), Object.keys(shares).sort());
  for (const [outcome, least] of Object.entries(shares)) {
    const percent = 100 * seen[outcome]! / options.runs;
    assert(percent >= least, `${outcome}: only ${percent} %`);
  }
});
