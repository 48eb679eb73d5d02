/**
 * Finds libtvm_ffi.
 *
 * @module
 */

const FILE = Deno.build.os === "windows"
  ? "tvm_ffi.dll"
  : Deno.build.os === "darwin"
  ? "libtvm_ffi.dylib"
  : "libtvm_ffi.so";

/** The program that says where Python has the package. */
const ASK = "import importlib.util as u; s = u.find_spec('tvm_ffi'); " +
  "print(*(s.submodule_search_locations if s else []), sep='\\n')";

/**
 * Where libtvm_ffi is: what TVM_FFI_LIBRARY names, or what the Python package
 * apache-tvm-ffi has, of the virtual environment that is active, of `.venv` in
 * the working directory, or of the first Python on PATH.
 *
 * @throws {Error} When it is not found: the message lists what was tried.
 */
export function findTvmFfi(): string {
  const tried: string[] = [];
  const named = environment("TVM_FFI_LIBRARY", tried);
  if (named !== undefined) return named;
  for (const python of pythons(tried)) {
    const folders = ask(python, tried);
    for (const folder of folders) {
      for (const subfolder of ["lib", "bin"]) {
        const path = `${folder}/${subfolder}/${FILE}`;
        if (isFile(path)) return path;
      }
    }
    if (folders.length > 0) tried.push(`${folders} (has no ${FILE})`);
  }
  throw new Error(
    `Cannot find ${FILE}: tried ${tried.join(", ")}; pip install ` +
      "apache-tvm-ffi, or pass the library's path to TvmFfi.open()",
  );
}

function environment(name: string, tried: string[]): string | undefined {
  if (
    Deno.permissions.querySync({ name: "env", variable: name }).state !==
      "granted"
  ) {
    tried.push(`${name} (needs --allow-env=${name})`);
    return undefined;
  }
  const value = Deno.env.get(name);
  if (value === undefined || value === "") {
    tried.push(`${name} (is not set)`);
    return undefined;
  }
  return value;
}

function pythons(tried: string[]): string[] {
  const isWindows = Deno.build.os === "windows";
  const inside = isWindows ? "Scripts\\python.exe" : "bin/python";
  const active = environment("VIRTUAL_ENV", tried);
  return [
    ...active === undefined ? [] : [`${active}/${inside}`],
    ...isFile(`.venv/${inside}`) ? [`.venv/${inside}`] : [],
    ...isWindows ? ["python"] : ["python3", "python"],
  ];
}

/** The folders of the package, as a Python says: none, where it has none. */
function ask(python: string, tried: string[]): string[] {
  if (
    Deno.permissions.querySync({ name: "run", command: python }).state !==
      "granted"
  ) {
    tried.push(`the package of ${python} (needs --allow-run=${python})`);
    return [];
  }
  try {
    const { success, stdout, stderr } = new Deno.Command(python, {
      args: ["-c", ASK],
    }).outputSync();
    const text = new TextDecoder();
    const said = text.decode(success ? stdout : stderr).trim();
    if (success && said !== "") return said.split(/\r?\n/);
    const reason = success
      ? "has no package tvm_ffi"
      : `fails: ${said.split("\n").at(-1)}`;
    tried.push(`${python} (${reason})`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    tried.push(`${python} (is not there)`);
  }
  return [];
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
