/**
 * Opens libpython as Python's own extensions expect it.
 *
 * @module
 */

import { type PythonSymbols, symbols } from "./symbols.ts";

/** `RTLD_NOW | RTLD_GLOBAL`, by operating system. */
const globally: Record<string, { library: string; flags: number }> = {
  // The empty name is the program, which has the C library in it.
  linux: { library: "", flags: 0x102 },
  android: { library: "libdl.so", flags: 0x102 },
  darwin: { library: "/usr/lib/libSystem.B.dylib", flags: 0xa },
  freebsd: { library: "libc.so.7", flags: 0x102 },
};

const loader = {
  dlopen: {
    parameters: [
      "buffer", // const char *filename
      "i32", // int flags
    ],
    result: "pointer",
  },
} as const;

/**
 * Opens a shared library of Python, and makes its symbols global: extension
 * modules find them in the process, which Deno's `dlopen` alone does not let
 * them.
 *
 * @throws {Error} When it is no shared library, or that of a Python older than
 * 3.9.
 */
export function openLibpython(path: string): PythonSymbols {
  const system = globally[Deno.build.os];
  if (system !== undefined) {
    const { dlopen } = Deno.dlopen(system.library, loader).symbols;
    dlopen(cString(path), system.flags);
  }
  try {
    return Deno.dlopen(path, symbols).symbols;
  } catch (error) {
    if (!(error instanceof Error) || error.constructor !== Error) throw error;
    const missing = /Failed to register symbol (\w+)/.exec(error.message);
    throw new Error(
      missing === null
        ? `Cannot open ${path}: ${error.message}`
        : `Cannot use ${path}: it has no ${missing[1]}; is it the library of ` +
          "a Python from 3.9 on?",
      { cause: error },
    );
  }
}

/** Text as C has it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0");
}
