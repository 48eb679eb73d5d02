/** Compiles C files into shared libraries, when they are out of date. */

const NO_COMPILER = "No C compiler found: " +
  "install one (Linux: apt-get install gcc; " +
  "macOS: xcode-select --install; Windows: winget install LLVM.LLVM) " +
  "or name it in the environment variable CC";

/**
 * Compiles a C file into `build/<name>.so` (`.dylib`, `.dll`) below the root of
 * the repository and returns the URL of that library. Does nothing but that
 * when the library is newer than the source and the headers beside it.
 */
export function compile(source: URL, name: string): URL {
  const suffix = Deno.build.os === "windows"
    ? "dll"
    : Deno.build.os === "darwin"
    ? "dylib"
    : "so";
  const build = new URL("../../build/", import.meta.url);
  const library = new URL(`${name}.${suffix}`, build);
  if (modified(library) > lastChange(source)) return library;

  Deno.mkdirSync(build, { recursive: true });
  // Under a name of its own first: other test processes may compile it as well.
  const made = new URL(`${name}-${crypto.randomUUID()}.${suffix}`, build);
  run(fromUrl(source), fromUrl(made));
  Deno.renameSync(made, library);
  return library;
}

/** Runs the first compiler there is. */
function run(source: string, output: string): void {
  const chosen = Deno.env.get("CC");
  const compilers = chosen
    ? [chosen]
    : Deno.build.os === "windows"
    ? ["gcc", "clang", "cl"]
    : ["cc"];
  for (const compiler of compilers) {
    let result: Deno.CommandOutput;
    try {
      result = new Deno.Command(compiler, {
        args: /(^|[\\/])cl(\.exe)?$/i.test(compiler)
          ? ["/nologo", "/std:c11", "/O1", "/LD", `/Fo${output}.obj`]
            .concat(`/Fe${output}`, source)
          : ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-shared"]
            .concat(Deno.build.os === "windows" ? [] : ["-fPIC", "-pthread"])
            .concat("-o", output, source),
        stdout: "piped",
        stderr: "piped",
      }).outputSync();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      throw error;
    }
    if (result.success) return;
    const text = new TextDecoder();
    throw new Error(
      `${compiler} could not compile ${source}:\n` +
        text.decode(result.stdout) + text.decode(result.stderr),
    );
  }
  throw new Error(
    chosen ? `No C compiler found at CC=${chosen}` : NO_COMPILER,
  );
}

/** When the source or a header beside it last changed, in ms since 1970. */
function lastChange(source: URL): number {
  const directory = new URL("./", source);
  const headers = [...Deno.readDirSync(directory)]
    .filter((entry) => entry.name.endsWith(".h"))
    .map((entry) => new URL(entry.name, directory));
  return Math.max(...[source, ...headers].map(modified));
}

/** When a file last changed, in ms since 1970; 0 when there is none. */
function modified(file: URL): number {
  try {
    return Deno.statSync(file).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

function fromUrl(url: URL): string {
  const path = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? path.slice(1) : path;
}
