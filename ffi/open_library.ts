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
      return Object.values(definitions).some(needsCode) && !makesCode()
        ? openWithoutCode(place, definitions)
        : Deno.dlopen(place, definitions);
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

type Definition = Deno.ForeignLibraryInterface[string];

/**
 * Whether Deno makes code from a string for it: for a function that returns a
 * struct, and for nothing else.
 */
function needsCode(
  definition: Definition,
): definition is Deno.ForeignFunction {
  return "parameters" in definition && !definition.nonblocking &&
    typeof definition.result === "object";
}

/** Whether code may be made from strings. */
function makesCode(): boolean {
  try {
    return new Function("return true")();
  } catch {
    return false;
  }
}

/**
 * Opens a library where code must not be made from strings: of a function that
 * would take some, only the address is asked for, and called. Deno's `dlopen`
 * would throw, and leave the library open.
 */
function openWithoutCode(
  place: string | URL,
  definitions: Deno.ForeignLibraryInterface,
): Deno.DynamicLibrary<Deno.ForeignLibraryInterface> {
  const returnStructs = new Map<string, Deno.ForeignFunction>();
  const able: Record<string, Definition> = {};
  for (const [key, definition] of Object.entries(definitions)) {
    able[key] = definition;
    if (!needsCode(definition)) continue;
    returnStructs.set(key, definition);
    const { name = key, optional = false } = definition;
    able[key] = { name, optional, type: "pointer" };
  }
  const library = Deno.dlopen(place, able);
  const symbols: Record<string, unknown> = { ...library.symbols };
  let isClosed = false;
  for (const [key, definition] of returnStructs) {
    const address = symbols[key] as Deno.PointerObject | null;
    if (address === null) continue;
    const callee = new Deno.UnsafeFnPointer(address as never, definition);
    const call = callee.call.bind(callee) as (...args: unknown[]) => unknown;
    symbols[key] = (...args: unknown[]) => {
      if (isClosed) throw new Deno.errors.BadResource("Bad resource ID");
      return call(...args);
    };
  }
  const close = (): void => {
    isClosed = true;
    library.close();
  };
  return { symbols, close } as never;
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
