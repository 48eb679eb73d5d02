/** The C consumer (consumer.c) opened: takes what an exporter hands out. */

import type { DlpackCapsule } from "@dlpack/deno";
import { compile } from "./cc.ts";

const symbols = {
  consumer_describe: {
    parameters: ["pointer", "bool", "buffer"],
    result: "void",
  }, // void (const void *managed, bool versioned, uint64_t *out)
  consumer_axes: { parameters: ["pointer", "bool", "buffer"], result: "void" }, // void (const void *managed, bool versioned, int64_t *out)
  consumer_read: { parameters: ["pointer", "bool", "buffer"], result: "void" }, // void (const void *managed, bool versioned, uint8_t *into)
  consumer_write: { parameters: ["pointer", "bool", "buffer"], result: "void" }, // void (const void *managed, bool versioned, uint8_t *from)
  consumer_move: { parameters: ["pointer", "bool"], result: "pointer" }, // void *(void *managed, bool versioned)
  consumer_free: { parameters: ["pointer"], result: "void" }, // void (void *copy)
  consumer_delete: { parameters: ["pointer", "bool"], result: "void" }, // void (void *managed, bool versioned)
  consumer_delete_stranger: {
    parameters: ["pointer", "bool", "u64"],
    result: "void",
  }, // void (const void *managed, bool versioned, uint64_t manager_ctx)
  deleteFromThread: {
    name: "consumer_delete_from_thread",
    parameters: ["pointer", "bool"],
    result: "void",
  }, // void (void *managed, bool versioned)
  deleteFromThreadAsync: {
    name: "consumer_delete_from_thread",
    parameters: ["pointer", "bool"],
    result: "void",
    nonblocking: true,
  }, // the same
  consumer_delete_later: {
    parameters: ["pointer", "bool", "i32"],
    result: "void",
  }, // void (void *managed, bool versioned, int32_t delay_ms)
} as const;

const consumer = Deno.dlopen(
  compile(new URL("./consumer.c", import.meta.url), "consumer"),
  symbols,
).symbols;

/** What C finds in a struct; addresses as bigints, 0n for NULL. */
export interface Struct {
  /** major and minor; null in the legacy struct. */
  version: readonly [major: number, minor: number] | null;
  flags: number;
  managerCtx: bigint;
  deleter: bigint;
  data: bigint;
  device: readonly [type: number, id: number];
  dtype: readonly [code: number, bits: number, lanes: number];
  byteOffset: number;
  /** null for a NULL pointer. */
  shape: readonly number[] | null;
  /** In elements; null for a NULL pointer. */
  strides: readonly number[] | null;
}

/** A consumer that has taken a capsule's struct and owes its deleter a call. */
export class Consumer {
  #struct: Deno.PointerObject;
  readonly #versioned: boolean;

  constructor(capsule: DlpackCapsule) {
    this.#versioned = capsule.name === "dltensor_versioned";
    this.#struct = capsule.take();
  }

  /** Every field of the struct. */
  get struct(): Struct {
    const out = new BigUint64Array(15);
    consumer.consumer_describe(this.#struct, this.#versioned, out);
    const at = (i: number): number => Number(out[i]);
    const ndim = at(8);
    const axes = new BigInt64Array(2 * ndim);
    if (ndim > 0) {
      consumer.consumer_axes(this.#struct, this.#versioned, axes);
    }
    const numbers = [...axes].map(Number);
    return {
      version: this.#versioned ? [at(0), at(1)] : null,
      flags: at(2),
      managerCtx: out[3]!,
      deleter: out[4]!,
      data: out[5]!,
      device: [at(6), at(7)],
      dtype: [at(9), at(10), at(11)],
      byteOffset: at(14),
      shape: out[12] === 0n ? null : numbers.slice(0, ndim),
      strides: out[13] === 0n ? null : numbers.slice(ndim),
    };
  }

  /** The elements in C order, in a typed array in which each has whole bytes. */
  read<A extends ArrayBufferView>(into: A): A {
    consumer.consumer_read(this.#struct, this.#versioned, bytesOf(into));
    return into;
  }

  /** Writes the elements in C order, each from whole bytes. */
  write(from: ArrayBufferView): void {
    consumer.consumer_write(this.#struct, this.#versioned, bytesOf(from));
  }

  /**
   * Keeps a copy of the struct at another address from here on, and overwrites
   * the original.
   */
  move(): void {
    this.#struct = consumer.consumer_move(this.#struct, this.#versioned)!;
  }

  /** Frees the copy that {@linkcode move} made. */
  freeCopy(): void {
    consumer.consumer_free(this.#struct);
  }

  /** Calls the deleter. */
  delete(): void {
    consumer.consumer_delete(this.#struct, this.#versioned);
  }

  /** Calls the deleter with a copy of the struct that has another manager_ctx. */
  deleteStranger(managerCtx: bigint): void {
    consumer.consumer_delete_stranger(
      this.#struct,
      this.#versioned,
      managerCtx,
    );
  }

  /** Calls the deleter on another thread, and blocks until that has ended. */
  deleteFromThread(): void {
    consumer.deleteFromThread(this.#struct, this.#versioned);
  }

  /** Calls the deleter on another thread; resolves when that has ended. */
  deleteFromThreadAsync(): Promise<void> {
    return consumer.deleteFromThreadAsync(this.#struct, this.#versioned);
  }

  /** Calls the deleter on another thread after a while. */
  deleteLater(milliseconds: number): void {
    consumer.consumer_delete_later(
      this.#struct,
      this.#versioned,
      milliseconds,
    );
  }
}

function bytesOf(array: ArrayBufferView): Uint8Array<ArrayBuffer> {
  return new Uint8Array(
    array.buffer as ArrayBuffer,
    array.byteOffset,
    array.byteLength,
  );
}
