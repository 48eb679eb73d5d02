/** The table of what is right. */

let failures = 0;

/** How many rows were not. */
export function failed(): number {
  return failures;
}

/** Its head. */
export function head(title: string): void {
  console.log(`\n| ${title.padEnd(56)} | result |\n| --- | --- |`);
}

/** A check that says what it found. */
export async function row(name: string, run: () => unknown): Promise<void> {
  let result = "ok";
  try {
    const said = await run();
    if (typeof said === "string") result = said;
  } catch (error) {
    failures++;
    result = `WRONG: ${error}`;
  }
  console.log(`| ${name.padEnd(56)} | ${result} |`);
}

/** A check during which deleters must be called a number of times. */
export async function rowWith(
  counts: () => number,
  name: string,
  deletions: number,
  run: () => unknown,
): Promise<void> {
  await row(name, async () => {
    const before = counts();
    const said = await run();
    const found = counts() - before;
    if (found !== deletions) {
      throw new Error(`${found} deleter calls, not ${deletions}`);
    }
    return said;
  });
}

/** Checks values. */
export function same(found: unknown, expected: unknown): void {
  const [a, b] = [found, expected].map((value) =>
    JSON.stringify(value, (_, v) => typeof v === "bigint" ? String(v) : v)
  );
  if (a !== b) throw new Error(`found ${a}, not ${b}`);
}

/** Checks bytes. */
export function sameBytes(found: Uint8Array, expected: Uint8Array): void {
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  if (at !== -1 || found.length !== expected.length) {
    throw new Error(`${found.length} bytes, the first wrong one at ${at}`);
  }
}
