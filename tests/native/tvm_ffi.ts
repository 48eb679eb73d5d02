/**
 * TVM-FFI for the tests: the library of the Python package, and modules that are
 * compiled with its headers.
 */

import { findLibrary } from "../../examples/find_library.ts";
import { skipped } from "../skipped.ts";

/** The path of libtvm_ffi; `null` where the package is not installed. */
export const tvmFfiPath: string | null = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
if (tvmFfiPath === null) skipped("TVM-FFI", "pip install apache-tvm-ffi");

const build = new URL("../../build/", import.meta.url);

/**
 * Compiles a file of C or C++ into `build/<name>.so`, unless that is newer.
 *
 * @param source Where it is.
 * @param name Of the module.
 * @returns `null` where the package or a compiler is missing.
 */
export function compileModule(source: URL, name: string): string | null {
  if (tvmFfiPath === null) return null;
  const library = new URL(`${name}.so`, build);
  if (modified(library) > Math.max(modified(source), modified(tvmFfiPath))) {
    return library.pathname;
  }
  Deno.mkdirSync(build, { recursive: true });
  const lib = tvmFfiPath.replace(/[/\\][^/\\]*$/, "");
  const root = `${lib}/..`;
  const isCpp = source.pathname.endsWith(".cc");
  // Under a name of its own first: other test processes may compile it as well.
  const made = new URL(`${name}-${crypto.randomUUID()}.so`, build).pathname;
  const compiler = isCpp
    ? Deno.env.get("CXX") ?? "g++"
    : Deno.env.get("CC") ?? "cc";
  try {
    const { success, stderr } = new Deno.Command(compiler, {
      args: [
        ...isCpp ? ["-std=c++17"] : ["-std=c11"],
        ...["-O1", "-Wall", "-shared", "-fPIC", "-pthread"],
        `-I${root}/include`,
        `-I${root}/3rdparty/dlpack/include`,
        source.pathname,
        ...[`-L${lib}`, "-ltvm_ffi", "-o", made],
      ],
    }).outputSync();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    skipped(
      `TVM-FFI modules in ${isCpp ? "C++" : "C"}`,
      "apt-get install g++",
    );
    return null;
  }
  Deno.renameSync(made, library);
  return library.pathname;
}

/** When a file last changed, in ms since 1970; 0 when there is none. */
function modified(file: string | URL): number {
  try {
    return Deno.statSync(file).mtime?.getTime() ?? 0;
  } catch {
    return 0;
  }
}

/** Modules of the tests, by the names of their sources in this folder. */
export function testModule(file: string): string | null {
  return compileModule(
    new URL(file, import.meta.url),
    file.replace(/\.\w+$/, ""),
  );
}
