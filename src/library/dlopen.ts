/**
 * Opens native libraries whose functions speak DLPack.
 *
 * @module
 */

import { requirePermission } from "../../ffi/libc.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import { describe } from "../errors.ts";
import { bind, type Callable, type Callee, type Signature } from "./call.ts";
import {
  nativeType,
  parseParameters,
  parseResult,
  parseVariable,
} from "./parameters.ts";
import type {
  Checked,
  LooseFunction,
  TensorLibrary,
  TensorLibraryInterface,
} from "./types.ts";

/**
 * Opens a native library whose functions take and return tensors:
 * `Deno.dlopen`, with DLPack's types in the symbol table beside Deno's.
 *
 * | in C | in the table | argument or result |
 * | --- | --- | --- |
 * | returns `DLManagedTensor*`, the caller's from then on | result `"DLManagedTensor*"` | {@linkcode DlpackCapsule}, `null` for NULL |
 * | returns `DLTensor*`, the library's own | result `"DLTensor*"` | `DlpackCapsule`, which keeps the library open |
 * | `DLTensor *x`: looked at, or written to, during the call | `"DLTensor*"`, `"const DLTensor*"` | {@linkcode Tensor} or `DlpackCapsule`, on any device |
 * | `float *x`: bare memory | `"data*"`; `"contiguous data*"` refuses what is not in C order | the same: the address of element [0, …, 0] |
 * | `DLTensor **xs`, `int n` | `"DLTensor**"` | an array of the same; an empty one is NULL |
 * | `DLManagedTensor *x` that stays the caller's | `"borrowed DLManagedTensor*"` | the same |
 * | `DLManagedTensor *x` that the callee takes over | `"taken DLManagedTensor*"` | `Tensor` (an export of it) or `DlpackCapsule` (used up) |
 * | `DLManagedTensor **out` | `"DLManagedTensor**"` | {@linkcode OutCapsule}, or an array of them |
 * | `DLManagedTensor *out`: the caller's struct, filled in place | `"out DLManagedTensor*"` | `OutCapsule` |
 *
 * Each row with `DLManagedTensor` is there with `DLManagedTensorVersioned`, too.
 * A `?` behind a parameter, `"DLTensor*?"`, allows `null` for NULL.
 *
 * **Borrowed.** The callee sees the memory itself, wherever the tensor's device
 * is, through a struct of this module's, and must not change that. A `DLTensor`
 * cannot say that it is read-only: pass a read-only tensor only to functions that
 * do not write to it. A callee that keeps what it was lent, or works on after it
 * returned, needs {@linkcode Tensor.hold} until it is done.
 *
 * **Taken over.** A capsule is used up even if the function then fails. Of a
 * tensor the callee gets an export, which shares the memory; the tensor stays
 * usable. Where an argument is refused, nothing is taken. Some libraries leave
 * a struct with the caller when they fail: read the capsule's `pointer` before
 * the call, and wrap it in a new capsule when the status says so.
 *
 * **Writable.** What comes in a legacy struct, or in a `DLTensor`, is read-only,
 * as these cannot say. If you know better, say `writable: true` for the symbol.
 *
 * **Nonblocking** functions give promises. What is lent to one stays alive
 * until its promise settles, even if it is disposed meanwhile, and so does what
 * was given as `"buffer"`. Do not transfer the ArrayBuffer of a tensor meanwhile.
 *
 * @param path Where the library is: a path or a `file:` URL as it is, or a bare
 * name to look for where the system looks, also as the platform spells it:
 * `"foo"` and `"libfoo"` find `libfoo.so` or `libfoo.dylib`, and `"foo"` finds
 * `foo.dll`.
 * @param symbols What to use of it.
 * @returns The open library. Best declared with `using`: it closes at the end,
 * when the last of its tensors is gone.
 * @throws {Error} When it cannot be opened: the message lists what was tried.
 * @throws {TypeError} When a type is misspelt, or an argument is of another kind
 * than the table says.
 * @throws {Deno.errors.NotCapable} Without full `--allow-ffi`.
 *
 * @example A library that returns tensors
 * ```ts
 * import { dlopen, fromDlpack } from "@dlpack/deno";
 *
 * using lib = dlopen("./build/field.so", {
 *   field_new: { parameters: ["i32", "i32"], result: "pointer" },
 *   field_tensor: {
 *     parameters: ["pointer"],
 *     result: "DLManagedTensorVersioned*",
 *   },
 *   field_free: { parameters: ["pointer"], result: "void" },
 * });
 * const field = lib.symbols.field_new(4, 6);
 * const capsule = lib.symbols.field_tensor(field);
 * if (capsule === null) throw new Error("No memory");
 * using tensor = fromDlpack(capsule);
 * tensor.set(0, 0, 100);
 * lib.symbols.field_free(field); // the tensor keeps the memory
 * ```
 *
 * @category Basics
 */
export function dlopen<const S extends TensorLibraryInterface>(
  path: string | URL,
  symbols: S & Checked<S>,
): TensorLibrary<S> {
  if (typeof path !== "string" && !(path instanceof URL)) {
    throw new TypeError(
      `Cannot open the library ${describe(path)}: pass a path or a file: URL`,
    );
  }
  if (typeof symbols !== "object" || symbols === null) {
    throw new TypeError(
      `The symbols of a library must be an object, not ${describe(symbols)}`,
    );
  }
  requirePermission();
  const definitions: Deno.ForeignLibraryInterface = {};
  const signatures = new Map<string, Signature>();
  for (const [name, definition] of Object.entries(symbols)) {
    if (
      typeof definition !== "object" || definition === null ||
      !("parameters" in definition || "type" in definition)
    ) {
      throw new TypeError(
        `The symbol "${name}" must be { parameters, result } or { type }, not ` +
          describe(definition),
      );
    }
    if (!("parameters" in definition)) {
      definitions[name] = variableOf(name, definition as LooseVariable);
      continue;
    }
    const signature = signatureOf(name, definition as LooseFunction);
    signatures.set(name, signature);
    definitions[name] = nativeDefinition(
      definition as LooseFunction,
      signature,
    );
  }
  const native = openLibrary(path, definitions);
  const library = new Library(String(path), native);
  for (const name of Object.keys(symbols)) {
    const symbol = native.symbols[name];
    const signature = signatures.get(name);
    library.symbols[name] = typeof symbol === "function" && signature
      ? bind(signature, symbol as Callable, library)
      : symbol;
  }
  return library as unknown as TensorLibrary<S>;
}

/** A variable whose type is not checked yet. */
type LooseVariable = { readonly [K in keyof Deno.ForeignStatic]: unknown };

function variableOf(
  symbol: string,
  { name, optional, type }: LooseVariable,
): Deno.ForeignStatic {
  checkName(symbol, name);
  checkFlag(symbol, "optional", optional);
  return {
    ...name === undefined ? {} : { name: name as string },
    ...optional === undefined ? {} : { optional: optional as boolean },
    type: parseVariable(symbol, type),
  };
}

function checkName(symbol: string, name: unknown): void {
  if (name === undefined || typeof name === "string") return;
  throw new TypeError(
    `The name of "${symbol}" must be a string, not ${describe(name)}`,
  );
}

function checkFlag(symbol: string, option: string, flag: unknown): void {
  if (flag === undefined || typeof flag === "boolean") return;
  throw new TypeError(
    `The option "${option}" of "${symbol}" must be true or false, not ` +
      describe(flag),
  );
}

function signatureOf(symbol: string, definition: LooseFunction): Signature {
  const { name, optional, parameters, result, nonblocking, writable } =
    definition;
  checkName(symbol, name);
  checkFlag(symbol, "optional", optional);
  checkFlag(symbol, "nonblocking", nonblocking);
  checkFlag(symbol, "writable", writable);
  return {
    symbol,
    parameters: parseParameters(symbol, parameters),
    result: parseResult(symbol, result),
    nonblocking: nonblocking === true,
    writable: writable === true,
  };
}

/** A function's definition as Deno knows it. */
function nativeDefinition(
  { name, optional, nonblocking, result: type }: LooseFunction,
  { parameters, result }: Signature,
): Deno.ForeignFunction {
  return {
    ...name === undefined ? {} : { name },
    ...optional === undefined ? {} : { optional },
    ...nonblocking === undefined ? {} : { nonblocking },
    parameters: parameters.map(nativeType),
    result: result.kind === "native"
      ? type as Deno.NativeResultType
      : "pointer",
  };
}

/** Closed when that was asked for and nothing of it is in use any more. */
class Library implements Callee {
  readonly symbols: Record<string, unknown> = {};
  readonly #path: string;
  readonly #native: { close(): void };
  /** Tensors that came out of it, and calls under way. */
  #uses = 0;
  #isClosed = false;
  readonly #whenOver: (() => void)[] = [];

  constructor(path: string, native: { close(): void }) {
    this.#path = path;
    this.#native = native;
  }

  enter(symbol: string): void {
    if (this.#isClosed) throw this.#closed(symbol);
    this.#uses++;
  }

  retain(): void {
    this.#uses++;
  }

  release(): void {
    if (--this.#uses === 0 && this.#isClosed) this.#end();
  }

  whenOver(action: () => void): void {
    this.#whenOver.push(action);
  }

  #end(): void {
    this.#native.close();
    for (const action of this.#whenOver.splice(0)) action();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const [name, symbol] of Object.entries(this.symbols)) {
      if (typeof symbol !== "function") continue;
      this.symbols[name] = () => {
        throw this.#closed(name);
      };
    }
    if (this.#uses === 0) this.#end();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #closed(symbol: string): Error {
    return new Deno.errors.BadResource(
      `Cannot call "${symbol}" of ${this.#path}: the library was closed`,
    );
  }
}
