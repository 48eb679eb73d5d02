/** Tries the libraries that are installed, each in a process of its own. */

import { pythonPath } from "../../examples/python.ts";
import { compileNanobind } from "./nanobind.ts";
import type { Row } from "./one.ts";
import { type Producer, producers } from "./table.ts";

/** Another Python, as some libraries are for newer ones only. */
const newer = new URL("../../.venv-newer/bin/python", import.meta.url).pathname;

/** The Pythons in which libraries are looked for. */
export const pythons: readonly string[] = [pythonPath(), newer];

/** Which libraries a Python has: none, if there is no such Python. */
export function installedIn(python: string): Producer[] {
  const wanted = producers.map(({ module, needs }) => [module, needs ?? "1"]);
  const program = `
import importlib.util, json, sys
def has(module, needs):
    try:
        return importlib.util.find_spec(module) is not None and bool(eval(needs))
    except ImportError:
        return False
print(json.dumps([has(*one) for one in json.loads(sys.argv[1])]))
`;
  try {
    const { success, stdout } = new Deno.Command(python, {
      args: ["-c", program, JSON.stringify(wanted)],
    }).outputSync();
    if (!success) return [];
    const has = JSON.parse(new TextDecoder().decode(stdout)) as boolean[];
    return producers.filter((_, index) => has[index]);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** What a library does in a Python. */
export async function tryOut(
  { name, module }: Producer,
  python: string,
): Promise<Row> {
  const env: Record<string, string> = { NO_COLOR: "1" };
  if (module === "nanobind") env.NANOBIND_MODULE = compileNanobind(python);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      "--no-check",
      new URL("./one.ts", import.meta.url).href,
      name,
      python,
    ],
    env,
  }).output();
  const text = new TextDecoder();
  const last = text.decode(stdout).trim().split("\n").at(-1)!;
  if (code !== 0) {
    throw new Error(`${name} ended with ${code}:\n${text.decode(stderr)}`);
  }
  return JSON.parse(last);
}
