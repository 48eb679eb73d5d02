// Where a Python package keeps the shared library it ships.

/** Names a shared library inside an installed Python package. */
export interface PackagedLibrary {
  /** The environment variable that overrides the search. */
  variable: string;
  /** The module that `import` knows the package by. */
  module: string;
  /** The library without prefix and suffix: `m` for `libm.so`. */
  name: string;
}

/** The path of the library, or null where the package is not installed. */
export function findLibrary(library: PackagedLibrary): string | null {
  const override = Deno.env.get(library.variable);
  if (override !== undefined) return override;
  const folders = askPython(
    "import importlib.util, sys; " +
      "spec = importlib.util.find_spec(sys.argv[1]); " +
      "print(*(spec.submodule_search_locations if spec else []), sep='\\n')",
    library.module,
  );
  for (const folder of folders?.split("\n") ?? []) {
    for (const subfolder of ["lib", "bin"]) {
      const path = `${folder}/${subfolder}/${fileName(library.name)}`;
      if (exists(path)) return path;
    }
  }
  return null;
}

/** What the program prints, run by the repository's Python or the system's. */
export function askPython(program: string, ...args: string[]): string | null {
  const local = new URL("../.venv/bin/python", import.meta.url);
  const python = new Deno.Command(exists(local) ? local : "python3", {
    args: ["-c", program, ...args],
    stderr: "null",
  });
  try {
    const { success, stdout } = python.outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

function fileName(name: string): string {
  switch (Deno.build.os) {
    case "windows":
      return `${name}.dll`;
    case "darwin":
      return `lib${name}.dylib`;
    default:
      return `lib${name}.so`;
  }
}

function exists(path: string | URL): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
