/**
 * JavaScript functions as functions of TVM-FFI, and the allocator of tensors that
 * native code makes.
 *
 * @module
 */

import { pointerTo } from "../memory.ts";
import { beforeExit } from "../owner.ts";
import { ANY, TYPE } from "./abi.ts";
import { Anys } from "./anys.ts";
import { isObject, readCount } from "./read.ts";
import type { Failure, Frame, Runtime } from "./runtime.ts";

/** `TVMFFISafeCallType`. */
const callType = {
  parameters: [
    "usize", // void *handle
    "u64", // const TVMFFIAny *args
    "i32", // int32_t num_args
    "u64", // TVMFFIAny *result
  ],
  result: "i32",
} as const;

/** Does what a function is to do: puts the result into the first place of a frame. */
export type Callback = (args: Anys, count: number, into: Frame) => void;

/** Says what is raised for something that was thrown. */
export type Describer = (thrown: unknown) => Failure;

/** A function that native code may have. */
interface Lent {
  readonly id: number;
  readonly run: Callback;
  /** The function object, to which there is a reference of ours. */
  readonly address: bigint;
}

/** As many as native code may keep before all are looked at again. */
const FEW = 16;

/**
 * The functions that native code has of one runtime.
 *
 * There is always a reference of ours to each, and when there is no other one,
 * it is given up. Nobody tells of that: a deleter that is JavaScript would have a
 * thread that lets go of the last one wait for the event loop, for ever, if that
 * waits for the thread.
 */
export class Callbacks {
  readonly #runtime: Runtime;
  readonly #describe: Describer;
  readonly #all = new Map<number, Lent>();
  #last = 0;
  /** Those that were made since native code was last left. */
  #new: Lent[] = [];
  /** With so many, all are looked at again. */
  #limit = FEW;
  readonly #call: Deno.UnsafeCallback<typeof callType>;

  /** @param describe Says what is raised for something that was thrown. */
  constructor(runtime: Runtime, describe: Describer) {
    this.#runtime = runtime;
    this.#describe = describe;
    // Never closed: C may call it late.
    this.#call = new Deno.UnsafeCallback(
      callType,
      (id, args, count, result) => this.#run(Number(id), args, count, result),
    );
    runtime.whenLeft = () => {
      if (this.#new.length > 0) this.#release(this.#new.splice(0));
    };
  }

  /** How many functions native code has. */
  get count(): number {
    this.#sweep();
    return this.#all.size;
  }

  /** Makes a function object: a new reference, beside ours. */
  make(run: Callback): bigint {
    if (this.#all.size > this.#limit) this.#sweep();
    const id = ++this.#last;
    const out = new BigUint64Array(1);
    const { library } = this.#runtime;
    const { pointer } = this.#call;
    this.#runtime.check(library.createFunction(BigInt(id), pointer, null, out));
    const address = out[0]!;
    library.incRef(address);
    const lent = { id, run, address };
    this.#all.set(id, lent);
    this.#new.push(lent);
    this.#runtime.needsWork();
    return address;
  }

  /** Gives up those that nobody else has. */
  #sweep(): void {
    this.#release(this.#all.values());
    this.#limit = Math.max(FEW, 2 * this.#all.size);
  }

  #release(some: Iterable<Lent>): void {
    for (const { id, address } of some) {
      if (!this.#all.has(id) || readCount(address) > 1) continue;
      this.#all.delete(id);
      this.#runtime.library.decRef(address);
    }
  }

  #run(id: number, args: bigint, count: number, result: bigint): number {
    const runtime = this.#runtime;
    // While this thread is in native code that this runtime called, no other can
    // have its calls run here: those wait for the event loop.
    const isOfThisThread = runtime.isCalling;
    const frame = runtime.enter(1);
    try {
      const { run } = this.#all.get(id)!;
      run(this.#own(args, count), count, frame);
      const status = runtime.library.toOwned(frame.address, result);
      if (status !== 0) runtime.check(status);
      return 0;
    } catch (error) {
      if (isOfThisThread) {
        runtime.raise(this.#describe(error));
        return -1;
      }
      // An error belongs to the thread that raises it, which is not this one.
      console.error(
        "A function of JavaScript that native code called from another thread " +
          "threw, and gives null there:",
        error,
      );
      return 0;
    } finally {
      runtime.leave(frame);
    }
  }

  /** Makes references of one's own of arguments. */
  #own(args: bigint, count: number): Anys {
    const { library } = this.#runtime;
    const owned = new Anys(count);
    for (let i = 0; i < count; i++) {
      const from = args + BigInt(ANY.size * i);
      if (library.toOwned(from, owned.addressOf(i)) === 0) continue;
      for (let k = 0; k < i; k++) {
        if (isObject(owned.typeAt(k))) library.decRef(owned.wordAt(k));
      }
      this.#runtime.check(-1);
    }
    return owned;
  }
}

/** `DLPackManagedTensorAllocator`. */
const allocatorType = {
  parameters: [
    "pointer", // DLTensor *prototype
    "pointer", // DLManagedTensorVersioned **out
    "pointer", // void *error_ctx
    "pointer", // void (*SetError)(void *error_ctx, const char *kind, const char *message)
  ],
  result: "i32",
} as const;

const setErrorType = {
  parameters: ["pointer", "buffer", "buffer"],
  result: "void",
} as const;

/** What native code has for good: the garbage collector must not take it. */
const allocators: unknown[] = [];

/** Makes a tensor of what a `DLTensor` says: gives the struct. */
export type Allocator = (prototype: Deno.PointerObject) => Deno.PointerObject;

/**
 * Lets native code that this thread calls allocate tensors by
 * `TVMFFIEnvTensorAlloc`, unless it has an allocator already.
 */
export function setAllocator(
  { library }: Runtime,
  allocate: Allocator,
  describe: Describer,
): void {
  if (library.getAllocator() !== 0n) return;
  const callback = new Deno.UnsafeCallback(
    allocatorType,
    (prototype, out, context, setError) => {
      try {
        const made = allocate(prototype as Deno.PointerObject);
        const cell = Deno.UnsafePointerView.getArrayBuffer(
          out as Deno.PointerObject,
          8,
        );
        new BigUint64Array(cell)[0] = Deno.UnsafePointer.value(made);
        return 0;
      } catch (error) {
        const { kind, message } = describe(error);
        const set = new Deno.UnsafeFnPointer(
          setError as Deno.PointerObject<typeof setErrorType>,
          setErrorType,
        );
        const text = new TextEncoder();
        set.call(
          context,
          text.encode(kind + "\0"),
          text.encode(message + "\0"),
        );
        return -1;
      }
    },
  );
  allocators.push(callback);
  // For this thread alone: another one would wait for this one's event loop.
  library.setAllocator(callback.pointer, 0, 0n);
  // The thread may live on without this program: deno test has one for all files.
  beforeExit(() => void library.setAllocator(null, 0, 0n));
}

/** An argument that is a `DLTensor*`: where it is. */
export function dlTensorAt(args: Anys, i: number): Deno.PointerObject | null {
  return args.typeAt(i) === TYPE.dlTensor ? pointerTo(args.wordAt(i)) : null;
}
