/**
 * The threads of the process that Python runs in.
 *
 * @module
 */

/**
 * Whether this is the main thread of the process, which the program ends with.
 * Workers have threads of their own, and so has each file of `deno test`.
 */
export function isMainThread(): boolean {
  switch (Deno.build.os) {
    case "linux":
    case "android": {
      const { gettid } = Deno.dlopen("", {
        gettid: { parameters: [], result: "i32", optional: true },
      }).symbols;
      return gettid === null || gettid() === Deno.pid;
    }
    case "darwin": {
      const { pthread_main_np: isMain } = Deno.dlopen(
        "/usr/lib/libSystem.B.dylib",
        { pthread_main_np: { parameters: [], result: "i32" } },
      ).symbols;
      return isMain() !== 0;
    }
    default:
      return true;
  }
}

/**
 * Does something that no other thread of Deno's is to do at the same time: each
 * has its own JavaScript, but all have one C library, whose lock of `stdin` stands
 * for it.
 */
export function alone<T>(action: () => T): T {
  const system = streams[Deno.build.os];
  if (system === undefined) return action();
  const library = Deno.dlopen(system.library, {
    flockfile: {
      parameters: [
        "pointer", // FILE *filehandle
      ],
      result: "void",
    },
    funlockfile: {
      parameters: [
        "pointer", // FILE *filehandle
      ],
      result: "void",
    },
    stdin: { name: system.stdin, type: "pointer" }, // FILE *stdin, by address
  });
  const { symbols } = library;
  const stream = new Deno.UnsafePointerView(symbols.stdin!).getPointer();
  symbols.flockfile(stream);
  try {
    return action();
  } finally {
    symbols.funlockfile(stream);
    library.close();
  }
}

const streams: Record<string, { library: string; stdin: string }> = {
  linux: { library: "", stdin: "stdin" },
  darwin: { library: "/usr/lib/libSystem.B.dylib", stdin: "__stdinp" },
};
