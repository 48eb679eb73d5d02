import type { Failure } from "../../ffi/tvm_ffi/runtime.ts";

/**
 * Thrown for an error that a function of TVM-FFI raised.
 *
 * What a JavaScript function threw that the native one had called comes back as
 * one, too: its `cause` is what was thrown.
 *
 * @example Ask for what is not there
 * ```ts ignore
 * import { TvmFfi, TvmFfiError } from "@dlpack/deno/tvm_ffi";
 *
 * using ffi = TvmFfi.open();
 * try {
 *   ffi.globalFunction("ffi.ArrayGetItem")!([1n, 2n], 5n);
 * } catch (error) {
 *   if (!(error instanceof TvmFfiError)) throw error;
 *   console.log(error.kind, error.message); // IndexError …
 * }
 * ```
 */
export class TvmFfiError extends Error {
  /** Always `"TvmFfiError"`. */
  override readonly name = "TvmFfiError";
  /** What kind it is, by the name of Python's class: `"ValueError"`, for example. */
  readonly kind: string;
  /** The frames of native code, the most recent one last, as far as it said. */
  readonly traceback: string;

  /**
   * An error for native code, to be thrown in a function that it calls.
   *
   * @param kind What kind it is, by the name of Python's class.
   * @param message What happened.
   * @param options The `cause`, as for any `Error`, and the frames of native code.
   */
  constructor(
    kind: string,
    message: string,
    options: ErrorOptions & { traceback?: string } = {},
  ) {
    super(message, options.cause === undefined ? undefined : options);
    this.kind = kind;
    this.traceback = options.traceback ?? "";
  }
}

/** For other files of this folder: what native code raised, as it is thrown. */
export function errorOf(
  { kind, message, backtrace, cause }: Failure,
): TvmFfiError {
  const traceback = reverseLines(backtrace);
  return new TvmFfiError(kind, message, { traceback, cause });
}

/** The library has the most recent frame first. */
function reverseLines(text: string): string {
  return text.split("\n").filter((line) => line !== "").reverse().join("\n");
}

/** The classes of Python that JavaScript has by the same name, or nearly so. */
const kinds: Readonly<Record<string, string>> = {
  TypeError: "TypeError",
  RangeError: "ValueError",
  BufferError: "BufferError",
  AssertionError: "AssertionError",
  SyntaxError: "SyntaxError",
};

/** For other files of this folder: what is raised for something that was thrown. */
export function failureOf(thrown: unknown): Failure {
  if (thrown instanceof TvmFfiError) {
    const { kind, message, traceback } = thrown;
    const backtrace = reverseLines(traceback);
    return { kind, message, backtrace, cause: thrown };
  }
  if (thrown instanceof Error) {
    return {
      kind: kinds[thrown.name] ?? "RuntimeError",
      message: textOf(() => thrown.message),
      backtrace: "",
      cause: thrown,
    };
  }
  const message = textOf(() => thrown);
  return { kind: "RuntimeError", message, backtrace: "", cause: thrown };
}

/** What is thrown while an error is described would be lost in native code. */
function textOf(value: () => unknown): string {
  try {
    return String(value());
  } catch {
    return "What was thrown has no text";
  }
}
