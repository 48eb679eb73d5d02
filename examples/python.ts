// The Python whose packages the examples use: asked in a process of its own, or
// running in this one.

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

/**
 * Starts that Python in this process.
 *
 * @param symbols The functions of Python's C API that are needed.
 * @returns The functions, with the interpreter running.
 * @throws {Deno.errors.NotFound} When there is no Python.
 * @throws {Error} When it cannot be started: with what Python said.
 */
export function openPython<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] {
  const { executable, libraries } = JSON.parse(askPython(`
import json, os, sys
from sysconfig import get_config_var as get
names = [get("INSTSONAME"), get("LDLIBRARY")]
folders = [get("LIBDIR"), get("LIBPL")]
paths = [os.path.join(f, n) for f in folders if f for n in names if n]
print(json.dumps({"executable": sys.executable, "libraries": paths}))
`)) as { executable: string; libraries: string[] };
  const path = libraries.find(isSharedLibrary);
  if (path === undefined) {
    throw new Error(
      `${executable} has no shared library: install a Python that has (Debian: ` +
        "python3 with libpython3; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)",
    );
  }
  // Python's own extensions expect to find its symbols in the process:
  // RTLD_NOW | RTLD_GLOBAL, which Deno.dlopen does not set.
  if (Deno.build.os === "linux") {
    const { dlopen } = Deno.dlopen("", {
      dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
    }).symbols;
    dlopen(cString(path), 0x102);
  }
  const python = Deno.dlopen(path, {
    Py_DecodeLocale: { parameters: ["buffer", "pointer"], result: "pointer" },
    Py_SetProgramName: { parameters: ["pointer"], result: "void" },
    Py_InitializeEx: { parameters: ["i32"], result: "void" },
  }).symbols;
  // Which program it is tells Python where its own files are, and those of its
  // virtual environment. Untold, it takes the first python3 on PATH for it.
  python.Py_SetProgramName(python.Py_DecodeLocale(cString(executable), null));
  python.Py_InitializeEx(0);
  return Deno.dlopen(path, symbols).symbols;
}

function isSharedLibrary(path: string): boolean {
  try {
    return !path.endsWith(".a") && Deno.statSync(path).isFile;
  } catch {
    return false;
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
