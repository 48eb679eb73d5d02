/** Asks scripts in Python, which are right by what they are written in. */

import { pythonPath } from "../../examples/python.ts";

/** Exit status of a script that has not got what it needs. */
const NO_ORACLE = 77;

/**
 * Runs a script of this folder.
 *
 * @param script Its file's name.
 * @param input What it reads, as JSON.
 * @param args Its arguments.
 * @returns What it prints, as JSON; `null` where there is no Python, or not what
 * the script needs.
 */
export async function askOracle<T>(
  script: string,
  input: unknown,
  args: readonly string[] = [],
): Promise<T | null> {
  const path = await Deno.realPath(new URL(script, import.meta.url));
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(pythonPath(), {
      args: [path, ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  // Python may end before it has read all of it, when something is missing.
  const [{ code, success, stdout, stderr }] = await Promise.all([
    child.output(),
    new Blob([JSON.stringify(input)]).stream().pipeTo(child.stdin)
      .catch(() => {}),
  ]);
  const text = new TextDecoder();
  if (success) return JSON.parse(text.decode(stdout));
  if (code === NO_ORACLE) return null;
  throw new Error(`${script} failed:\n${text.decode(stderr)}`);
}
