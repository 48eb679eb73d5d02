/**
 * Opens native libraries whose functions speak DLPack.
 *
 * @module
 */

import { requirePermission } from "../../ffi/libc.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import { bind, type Callable, type Callee, nativeDefinition } from "./call.ts";
import type { TensorLibrary, TensorLibraryInterface } from "./types.ts";

/**
 * Opens a native library whose functions take and return tensors:
 * `Deno.dlopen`, with DLPack's types in the symbol table beside Deno's.
 *
 * - A result `"DLManagedTensor*"` or `"DLManagedTensorVersioned*"` is a
 *   {@linkcode DlpackCapsule}, or `null` for NULL.
 * - A parameter `"DLTensor*"` takes a {@linkcode Tensor}, borrowed for the call.
 * - A parameter `"DLManagedTensor*"` or `"DLManagedTensorVersioned*"` takes a
 *   {@linkcode Tensor} or a {@linkcode DlpackCapsule}, which the callee takes
 *   over.
 * - A parameter `"DLManagedTensor**"` or `"DLManagedTensorVersioned**"` takes an
 *   {@linkcode OutCapsule}, which the callee fills.
 *
 * **Borrowed.** The callee sees the memory itself, wherever the tensor's device
 * is, and must neither keep the pointer nor change the struct. A `DLTensor`
 * cannot say that it is read-only: pass a read-only tensor, as every one is
 * that came in a legacy struct, only to functions that do not write to it.
 *
 * **Taken over.** A capsule is used up, also when the function then fails. Of a
 * tensor the callee gets an export, which shares the memory; the tensor stays
 * usable. Where an argument is refused, nothing is taken. Some libraries leave
 * a struct with the caller when they fail: read the capsule's `pointer` before
 * the call, and wrap it in a new capsule when the status says so.
 *
 * **Nonblocking** functions give promises. What is lent to one stays alive
 * until its promise settles, also when it was disposed; do not transfer the
 * ArrayBuffer of a tensor meanwhile.
 *
 * @param path Where the library is: a path or a `file:` URL as it is, or a bare
 * name to look for where the system looks, also as the platform spells it:
 * `"foo"` finds `libfoo.so`, `libfoo.dylib` or `foo.dll`.
 * @param symbols What to use of it.
 * @returns The open library. Best declared with `using`: it closes at the end,
 * when the last of its tensors is gone.
 * @throws {Error} When it cannot be opened: names all that was tried.
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
 */
export function dlopen<const S extends TensorLibraryInterface>(
  path: string | URL,
  symbols: S,
): TensorLibrary<S> {
  requirePermission();
  const definitions: Deno.ForeignLibraryInterface = {};
  for (const [name, definition] of Object.entries(symbols)) {
    definitions[name] = "parameters" in definition
      ? nativeDefinition(definition)
      : definition;
  }
  const native = openLibrary(path, definitions);
  const library = new Library(String(path), native);
  for (const [name, definition] of Object.entries(symbols)) {
    const symbol = native.symbols[name];
    library.symbols[name] = typeof symbol === "function" &&
        "parameters" in definition
      ? bind(name, definition, symbol as Callable, library)
      : symbol;
  }
  return library as unknown as TensorLibrary<S>;
}

/** Closed when that was asked for and nothing of it is in use any more. */
class Library implements Callee {
  readonly symbols: Record<string, unknown> = {};
  readonly #path: string;
  readonly #native: { close(): void };
  /** Tensors that came out of it, and calls under way. */
  #uses = 0;
  #isClosed = false;

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
    if (--this.#uses === 0 && this.#isClosed) this.#native.close();
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
    if (this.#uses === 0) this.#native.close();
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
