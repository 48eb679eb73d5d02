/**
 * Opens native libraries, wherever they are.
 *
 * @module
 */

/**
 * Opens a native library: tries each place where it may be.
 *
 * @throws {Error} When it cannot be opened, or lacks a symbol.
 * @throws {TypeError} When the path is no file's, or Deno has no such type.
 */
export function openLibrary(
  path: string | URL,
  definitions: Deno.ForeignLibraryInterface,
): Deno.DynamicLibrary<Deno.ForeignLibraryInterface> {
  const failures: { place: string; error: Error; reason: string }[] = [];
  for (const place of places(path)) {
    try {
      return Deno.dlopen(place, definitions);
    } catch (error) {
      // Anything but a plain Error is about the symbol table, or permission.
      if (!(error instanceof Error) || error.constructor !== Error) throw error;
      const missing = /^Failed to register symbol (.+?): /.exec(error.message);
      if (missing !== null) throw noSymbol(place, missing[1]!, error);
      const reason = reasonOf(error, place);
      failures.push({ place: String(place), error, reason });
    }
  }
  throw notOpened(path, failures);
}

/** What to try for a library, in this order. */
function places(path: string | URL): (string | URL)[] {
  const url = path instanceof URL
    ? path
    : /^[a-z][a-z+.-]+:\/\//i.test(path)
    ? new URL(path)
    : null;
  if (url !== null) {
    if (url.protocol === "file:") return [url];
    throw new TypeError(
      `Cannot open the library ${url}: it must be a file on this machine, ` +
        "download it first",
    );
  }
  const name = String(path);
  if (!isBareName(name)) return [name];
  if (Deno.build.os === "windows") return [`${name}.dll`, name];
  const suffix = Deno.build.os === "darwin" ? "dylib" : "so";
  const prefixed = [`lib${name}.${suffix}`, name];
  return name.startsWith("lib") ? [`${name}.${suffix}`, ...prefixed] : prefixed;
}

/** Whether it is neither a path nor a file's name. */
function isBareName(name: string): boolean {
  return name !== "" && !/[/\\]/.test(name) &&
    !/\.(so|dylib|dll)(\.[\d.]+)?$/i.test(name);
}

/** What the loader says, without the repetition before it. */
function reasonOf(error: Error, place: string | URL): string {
  const reason = error.message.replace(/^(Could not open library: )+/, "");
  const prefix = `${place}: `;
  return reason.startsWith(prefix) ? reason.slice(prefix.length) : reason;
}

function noSymbol(place: string | URL, symbol: string, cause: Error): Error {
  return new Error(
    `Cannot open the library ${place}: it has no symbol "${symbol}"; give ` +
      'the one it has by "name", or mark it "optional" and look for null',
    { cause },
  );
}

function notOpened(
  path: string | URL,
  failures: readonly { place: string; error: Error; reason: string }[],
): Error {
  const tried = failures.map(({ place, reason }) => `${place} (${reason})`);
  const advice = path instanceof URL || !isBareName(path)
    ? "A relative path counts from the working directory; for a file beside " +
      'the script pass new URL("./…", import.meta.url)'
    : "A bare name is looked for where the system looks; for a file " +
      "elsewhere pass its path or file: URL";
  return new Error(
    `Cannot open the library ${path}: tried ${tried.join(", ")}. ${advice}`,
    { cause: failures[0]!.error },
  );
}
