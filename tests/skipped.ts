/** Tests that cannot run here: what, and what to install. */

/**
 * Says that tests are skipped: now, and once more at the end of
 * `deno task test`.
 *
 * @param what Which ones.
 * @param advice What lets them run.
 */
export function skipped(what: string, advice: string): void {
  const line = `Skipped: ${what}; ${advice}`;
  console.log(line);
  const list = Deno.env.get("DLPACK_SKIPPED");
  if (list) Deno.writeTextFileSync(list, line + "\n", { append: true });
}
