// Where a Python package keeps the shared library it ships.

import { askPython } from "./python.ts";

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
  for (const folder of foldersOf(library.module)) {
    for (const subfolder of ["lib", "bin", "."]) {
      const path = `${folder}/${subfolder}/${fileName(library.name)}`;
      if (exists(path)) return path;
    }
  }
  return null;
}

/** Where a Python package is installed: nowhere, where it is not. */
export function foldersOf(module: string): string[] {
  try {
    const folders = askPython(
      "import importlib.util, json, sys; " +
        "spec = importlib.util.find_spec(sys.argv[1]); " +
        "print(json.dumps(list(spec.submodule_search_locations or []) if spec else []))",
      module,
    );
    return JSON.parse(folders);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return []; // no Python
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
