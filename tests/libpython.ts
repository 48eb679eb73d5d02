/**
 * Python in this process, started by hand, for SYCL's libraries: with
 * `@dlpack/deno/python`, which does not end Python under `deno test`, the process
 * crashed in Intel's OpenCL after all tests had passed; why is not known, and a
 * program of its own ends well. All other tests use that.
 */

import { askPython, cString } from "../examples/python.ts";

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
