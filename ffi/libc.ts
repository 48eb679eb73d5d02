/**
 * The C library: a few of its functions make the paths that matter fast.
 *
 * Everything here has a portable fallback at its place of use, made of Deno's
 * own pointer API, for systems whose C library is not where it is looked for.
 *
 * @module
 */

const symbols = {
  /** Out of native memory, by pointer. A destination by address is twice as fast. */
  copyFromPointer: {
    name: "memcpy",
    parameters: [
      "u64", // void *dest
      "pointer", // const void *src
      "usize", // size_t n
    ],
    result: "void",
  },
  /** Out of native memory, by address. */
  copyFromAddress: {
    name: "memcpy",
    parameters: [
      "u64", // void *dest
      "u64", // const void *src
      "usize", // size_t n
    ],
    result: "void",
  },
  /** The same, on a thread of Deno's. */
  copyLater: {
    name: "memcpy",
    parameters: [
      "u64", // void *dest
      "u64", // const void *src
      "usize", // size_t n
    ],
    result: "void",
    nonblocking: true,
  },
  /** Into native memory. */
  copyToAddress: {
    name: "memcpy",
    parameters: [
      "u64", // void *dest
      "buffer", // const void *src
      "usize", // size_t n
    ],
    result: "void",
  },
  /**
   * Calls a function by its address, `compar(key, base)`, which Deno's own
   * `UnsafeFnPointer` does a hundred times more slowly. With one member every
   * C library calls it exactly once, whatever it returns; a deleter takes only
   * the first argument and returns nothing, which no 64-bit calling
   * convention minds.
   */
  callDeleter: {
    name: "bsearch",
    parameters: [
      "pointer", // const void *key
      "pointer", // const void *base
      "usize", // size_t nmemb
      "usize", // size_t size
      "u64", // int (*compar)(const void *, const void *)
    ],
    result: "void",
  },
  /**
   * The same of a function of two arguments, `compar(key, base)`: `base` where it
   * returned 0, else NULL.
   */
  callAccessor: {
    name: "bsearch",
    parameters: [
      "u64", // const void *key
      "u64", // const void *base
      "usize", // size_t nmemb
      "usize", // size_t size
      "u64", // int (*compar)(const void *, const void *)
    ],
    result: "u64",
  },
  /** The lower half of a pointer: sets no bytes, and returns what it is given. */
  lowWord: {
    name: "memset",
    parameters: [
      "pointer", // void *s
      "i32", // int c
      "usize", // size_t n
    ],
    result: "i32",
  },
  /** Not everywhere, and numbered alike only on Linux. */
  madvise: {
    parameters: [
      "u64", // void *addr
      "usize", // size_t length
      "i32", // int advice
    ],
    result: "i32",
    optional: true,
  },
  malloc: {
    parameters: [
      "usize", // size_t size
    ],
    result: "u64",
  },
  free: {
    parameters: [
      "u64", // void *ptr
    ],
    result: "void",
  },
  /** The address of `free`: the deleter of a block that frees itself. */
  freePointer: { name: "free", type: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of the C library. */
export type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

const candidates: Record<string, readonly string[]> = {
  linux: ["libc.so.6", "libc.so"],
  android: ["libc.so"],
  darwin: ["/usr/lib/libSystem.B.dylib"],
  freebsd: ["libc.so.7"],
  windows: ["ucrtbase.dll"],
};

/** What is used: `undefined` until it is first asked for. */
let opened: Libc | null | undefined;
/** What there is, also while tests do without. */
let available: Libc | null | undefined;

/**
 * The C library, opened on first use, or `null` where the portable path must
 * do.
 *
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function libc(): Libc | null {
  return opened === undefined ? open() : opened;
}

/**
 * Checks the one permission that this module needs, before the first use of
 * Deno's pointer API.
 *
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function requirePermission(): void {
  if (opened === undefined) open();
}

/** Whether native memory can be reached, without asking for the permission. */
export function isPermitted(): boolean {
  return opened !== undefined || hasPermission();
}

function open(): Libc | null {
  checkPermission();
  available = null;
  for (const path of candidates[Deno.build.os] ?? []) {
    try {
      available = Deno.dlopen(path, symbols).symbols;
      break;
    } catch {
      // Not there, or without one of the symbols: the next one, or portable.
    }
  }
  return opened = available;
}

/**
 * Takes the portable path from here on, or the fast one again: a switch for
 * tests, which run both.
 */
export function usePortablePath(on: boolean): void {
  requirePermission();
  opened = on ? null : available;
}

function checkPermission(): void {
  if (hasPermission()) return;
  if (Deno.permissions.requestSync({ name: "ffi" }).state === "granted") return;
  throw new Deno.errors.NotCapable(
    "Cannot reach native memory without full FFI permission: run with " +
      "--allow-ffi (a path, as in --allow-ffi=lib.so, lets Deno open that " +
      "library but not read memory through pointers)",
  );
}

/** Whether the permission is there without asking for it. */
export function hasPermission(): boolean {
  return Deno.permissions.querySync({ name: "ffi" }).state === "granted";
}

// With the permission at hand, at once: a library that is opened in the middle
// of somebody's Deno.test would look like a leak of theirs.
if (hasPermission()) open();
