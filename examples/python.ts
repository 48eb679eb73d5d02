// The Python whose packages the examples use, asked in a process of its own.

/** The repository's virtual environment, or else the first Python on PATH. */
export function pythonPath(): string {
  for (const path of ["bin/python", "Scripts/python.exe"]) {
    const local = new URL(`../.venv/${path}`, import.meta.url);
    try {
      Deno.statSync(local);
      return pathOf(local);
    } catch {
      // Not there.
    }
  }
  return Deno.build.os === "windows" ? "python" : "python3";
}

/**
 * What a program prints, run by that Python.
 *
 * @throws {Deno.errors.NotFound} When there is no Python.
 * @throws {Error} When the program fails: with what Python said.
 */
export function askPython(program: string, ...args: string[]): string {
  const path = pythonPath();
  const { success, stdout, stderr } = run(path, ["-c", program, ...args]);
  const text = new TextDecoder();
  if (success) return text.decode(stdout).trim();
  const said = text.decode(stderr).trim();
  // Of a Python that cannot even start, the last line is no error.
  const reason = said.match(/^(\w*(Error|Exception)\b|Fatal).*/gm)?.at(-1) ??
    said.split("\n").at(-1);
  const home = Deno.env.get("PYTHONHOME");
  const hint = home === undefined
    ? ""
    : `; PYTHONHOME is ${home}: unset it, or name the home of this Python`;
  throw new Error(`${path} says: ${reason}${hint}`);
}

function run(path: string, args: string[]): Deno.CommandOutput {
  try {
    return new Deno.Command(path, { args }).outputSync();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound(
      `There is no ${path}: install Python, then pip install the packages`,
    );
  }
}

/** Text as C has it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0");
}

function pathOf(url: URL): string {
  const path = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? path.slice(1) : path;
}
