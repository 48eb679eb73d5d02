/**
 * Who owns a managed tensor, and the one place that calls a deleter.
 *
 * A {@linkcode Managed} is one struct of a producer, in one of four states:
 *
 * ```text
 *              import                dispose, end of `using`,
 * unconsumed ────────▶ consumed      garbage collection, exit
 *    │ │                 │ │
 *    │ └─────────────────┴─┼───▶ released    the deleter has run
 *    └─────────────────────┴───▶ moved       somebody else will run it
 *       take(), release()
 * ```
 *
 * An {@linkcode Owner} is what capsules, tensors and ArrayBuffers hold on to:
 * when the last of them is gone, the garbage collector takes the owner and
 * the managed tensor is released.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
import {
  type Header,
  type ManagedName,
  readDeleter,
  readHeader,
} from "./header.ts";
import { libc } from "./libc.ts";
import { addressOfArray, bufferAt } from "./memory.ts";
import * as pressure from "./pressure.ts";

/** A library that stays open while it has tensors out: their deleters are its code. */
export interface KeptOpen {
  /** One tensor more. */
  retain(): void;
  /** One tensor less. Never throws. */
  release(): void;
}

/** Where a managed tensor is in its life. */
type State = "unconsumed" | "consumed" | "released" | "moved";

/** One struct of a producer. It must not know its owner: it would outlive it. */
interface Managed {
  readonly pointer: Deno.PointerObject;
  readonly name: ManagedName;
  state: State;
  /** Of the memory behind `data`: known once the tensor is imported. */
  bytes: number;
  /** Known once the header was read; the struct is not read again after. */
  deleter: bigint | undefined;
  /** What the deleter does, if it is JavaScript of ours. */
  deleteHere: (() => void) | null;
  /** Exports that still use the memory. */
  holds: number;
  /** Given up by its owner while exports still used the memory. */
  waiting: boolean;
  /** The library that the deleter is in, if this module opened it. */
  library: KeptOpen | null;
  /**
   * The ArrayBuffer over the memory, if one was made, to be emptied at exit.
   * Weak, as it knows the owner; strong only in the turn that made it, to whose
   * end V8 keeps whatever a WeakRef is made of.
   */
  buffer: ArrayBuffer | WeakRef<ArrayBuffer> | null;
  /** Its place in `live`; -1 when it is not there. */
  index: number;
}

/** How many there are that nobody has released or moved. */
let count = 0;
/** Those of them that were still there when the turn that made them ended. */
const live: Managed[] = [];

/**
 * Releases what is garbage. Registering costs as much as the rest of an import,
 * so it waits until the end of the turn, and most owners are gone by then:
 * nothing is collected in the middle of a turn anyway. They are not in `live`
 * before, either: storing what is new in an old array costs V8 a note of it.
 */
const registry = new FinalizationRegistry<Managed>((managed) => {
  guarded(() => letGo(managed));
});

/** Owners that are new, or have a new ArrayBuffer, since this turn began. */
const unsettled: Owner[] = [];
let settlesSoon = false;

let listensForExit = false;

/**
 * The native memory that is held through this module: tensors that were
 * imported and capsules that nobody has consumed.
 *
 * A tensor counts until its deleter has run: at `dispose`, at the end of
 * `using`, when it was garbage collected, or at exit. A number that grows
 * names a leak. The bytes are those of `data`, counted from the import on.
 *
 * @returns How many managed tensors, and their bytes.
 *
 * @example Watch the memory come back
 * ```ts
 * import { fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const before = liveTensors().bytes;
 * {
 *   using t = fromDlpack(Tensor.from(new Float32Array(1000)));
 *   assertEquals(liveTensors().bytes - before, t.nbytes);
 * }
 * assertEquals(liveTensors().bytes, before);
 * ```
 */
export function liveTensors(): { count: number; bytes: number } {
  return { count, bytes: pressure.heldBytes() };
}

/** The key under which an ArrayBuffer holds the owner of its memory. */
const OWNER: unique symbol = Symbol("@dlpack/deno owner");

/** Whether two typed arrays may have bytes in common. */
export function sharesMemory(a: ArrayBufferView, b: ArrayBufferView): boolean {
  if (a.buffer === b.buffer) return true;
  // Every import of the same memory has an ArrayBuffer of its own.
  if (!(OWNER in a.buffer || OWNER in b.buffer)) return false;
  if (a.byteLength === 0 || b.byteLength === 0) return false;
  const startA = startOf(a);
  const startB = startOf(b);
  return startA < startB + BigInt(b.byteLength) &&
    startB < startA + BigInt(a.byteLength);
}

/**
 * Where ArrayBuffers are that were compared before: Deno makes an object for each
 * address, and the garbage collector has much to do with many of these.
 */
const starts = new WeakMap<ArrayBufferLike, bigint>();

function startOf({ buffer, byteOffset }: ArrayBufferView): bigint {
  let start = starts.get(buffer);
  if (start === undefined) {
    starts.set(buffer, start = addressOfArray(new Uint8Array(buffer)));
  }
  return start + BigInt(byteOffset);
}

let settle: (owner: Owner) => void;

/** Holds one managed tensor, until it is released or given away. */
export class Owner {
  readonly #managed: Managed;
  #buffer: ArrayBuffer | null = null;
  #active = true;
  /** Its place in `unsettled`; -1 when it is not there. */
  #place = -1;

  static {
    settle = (owner) => owner.#settle();
  }

  /** Takes a struct that nobody else owns. */
  constructor(pointer: Deno.PointerObject, name: ManagedName) {
    if (!listensForExit) {
      listensForExit = true;
      addEventListener("unload", releaseAll);
    }
    this.#managed = {
      pointer,
      name,
      state: "unconsumed",
      bytes: 0,
      deleter: undefined,
      deleteHere: null,
      holds: 0,
      waiting: false,
      library: null,
      buffer: null,
      index: -1,
    };
    count++;
    this.#settleSoon();
  }

  /** Whether the memory is still there for whoever holds this owner. */
  get active(): boolean {
    return this.#active && this.#managed.state !== "released";
  }

  /** Which struct it is. */
  get name(): ManagedName {
    return this.#managed.name;
  }

  /** Where the struct is. */
  get pointer(): Deno.PointerObject {
    return this.#managed.pointer;
  }

  /** The library that stays open for this tensor, if any. */
  get library(): KeptOpen | null {
    return this.#managed.library;
  }

  /** Says what the deleter does, if it is JavaScript of ours. */
  deleteHere(deleter: () => void): void {
    this.#managed.deleteHere = deleter;
  }

  /** Keeps a library open until the deleter has run. */
  keepOpen(library: KeptOpen): void {
    library.retain();
    this.#managed.library = library;
  }

  /**
   * Reads the header.
   *
   * @throws {BufferError} `"version"` when the struct cannot be what it was
   * said to be: then it is let go, and nothing in it is called.
   */
  header(): Header {
    const { pointer, name } = this.#managed;
    const header = readHeader(pointer, name);
    if (header === null) {
      this.moveAway();
      throw impossible(name);
    }
    this.#managed.deleter = readDeleter(name);
    return header;
  }

  /** Marks the struct as imported, with the bytes of memory that it holds. */
  consume(bytes: number): void {
    this.#managed.state = "consumed";
    this.#managed.bytes = bytes;
    pressure.hold(bytes);
  }

  /**
   * The memory as an ArrayBuffer: the same one every time, and it keeps this
   * owner alive.
   */
  buffer(address: number, bytes: number): ArrayBuffer {
    if (this.#buffer === null) {
      this.#buffer = bufferAt(address, bytes);
      // Not by defineProperty, which costs as much as all the rest.
      (this.#buffer as ArrayBuffer & { [OWNER]?: Owner })[OWNER] = this;
      pressure.show(this.#managed.bytes);
      this.#managed.buffer = this.#buffer;
      if (this.#place === -1) this.#settleSoon();
    }
    return this.#buffer;
  }

  /** Whether somebody transferred the ArrayBuffer, and the memory with it. */
  get transferred(): boolean {
    return this.#active && this.#buffer !== null && this.#buffer.detached;
  }

  /** Gives the memory back: idempotent. Views over it become empty. */
  release(): void {
    if (!this.active) return;
    const { transferred } = this;
    this.#end();
    if (transferred) keep(this.#managed);
    else letGo(this.#managed);
  }

  /** Releases after a failure: a deleter that throws must not hide it. */
  releaseAfterFailure(): void {
    guarded(() => this.release());
  }

  /**
   * Gives the struct away, its deleter not run. Views become empty. The library
   * that the deleter is in stays open: nobody tells when it was called.
   *
   * @throws {BufferError} `"consumed"` while exports use the memory.
   */
  moveAway(): Deno.PointerObject {
    const managed = this.#managed;
    if (managed.holds > 0) {
      const consumers = managed.holds === 1 ? "consumer uses" : "consumers use";
      throw new BufferError(
        "consumed",
        "Cannot give away a tensor that is exported: " +
          `${managed.holds} ${consumers} its memory`,
      );
    }
    this.#end();
    end(managed, "moved");
    return managed.pointer;
  }

  /**
   * Keeps the memory alive for a consumer, also when this owner is released
   * meanwhile, until {@linkcode unhold}.
   */
  hold(): void {
    this.#managed.holds++;
  }

  /** Ends one {@linkcode hold}. Never throws. */
  unhold(): void {
    const managed = this.#managed;
    managed.holds--;
    if (managed.waiting) guarded(() => letGo(managed));
  }

  #settleSoon(): void {
    this.#place = unsettled.push(this) - 1;
    if (settlesSoon) return;
    settlesSoon = true;
    queueMicrotask(settleAll);
  }

  #settle(): void {
    this.#place = -1;
    if (this.#managed.index === -1) {
      this.#managed.index = live.push(this.#managed) - 1;
      registry.register(this, this.#managed, this);
    }
    const buffer = this.#buffer;
    if (buffer === null) return;
    // The last time that a transfer is sure to be noticed when all is garbage.
    if (buffer.detached) keep(this.#managed);
    else this.#managed.buffer = new WeakRef(buffer);
  }

  #end(): void {
    this.#active = false;
    if (this.#managed.index !== -1) registry.unregister(this);
    if (this.#place !== -1) {
      const last = unsettled.pop()!;
      if (last !== this) {
        unsettled[this.#place] = last;
        last.#place = this.#place;
      }
      this.#place = -1;
    }
    if (this.#buffer === null) return;
    if (!this.#buffer.detached) this.#buffer.transfer(0);
    this.#buffer = null;
  }
}

function settleAll(): void {
  settlesSoon = false;
  for (const owner of unsettled.splice(0)) settle(owner);
}

function impossible(name: ManagedName): BufferError {
  const other = name === "dltensor" ? "dltensor_versioned" : "dltensor";
  const struct = name === "dltensor"
    ? "DLManagedTensor"
    : "DLManagedTensorVersioned";
  return new BufferError(
    "version",
    `Cannot import a struct that is no ${struct}: if the library returns the ` +
      `other struct of DLPack, wrap it as "${other}"; nothing in it was ` +
      "called, so its memory is not given back",
  );
}

/** Releases a managed tensor as soon as no export uses it. */
function letGo(managed: Managed): void {
  if (managed.holds > 0) managed.waiting = true;
  else release(managed);
}

/** The one place that calls a deleter. */
function release(managed: Managed): void {
  if (isOver(managed)) return;
  const { pointer, name, library, deleteHere } = managed;
  if (deleteHere !== null) {
    end(managed, "released");
    return deleteHere();
  }
  const deleter = managed.deleter ??
    (readHeader(pointer, name) === null ? 0n : readDeleter(name));
  // Before the deleter, which may call back, or throw.
  end(managed, "released");
  try {
    if (deleter !== 0n) callDeleter(pointer, deleter);
  } finally {
    library?.release();
  }
}

const deleterType = { parameters: ["pointer"], result: "void" } as const;

function callDeleter(pointer: Deno.PointerObject, deleter: bigint): void {
  const c = libc();
  if (c !== null) {
    c.callDeleter(pointer, pointer, 1n, 1n, deleter);
  } else {
    const address = Deno.UnsafePointer.create(deleter) as Deno.PointerObject<
      typeof deleterType
    >;
    new Deno.UnsafeFnPointer(address, deleterType).call(pointer);
  }
}

function isOver({ state }: Managed): boolean {
  return state === "released" || state === "moved";
}

/** A managed tensor is not held any more. */
function end(managed: Managed, state: "released" | "moved"): void {
  managed.state = state;
  pressure.letGo(managed.bytes, managed.buffer !== null);
  managed.buffer = null;
  count--;
  if (managed.index === -1) return;
  const last = live.pop()!;
  if (last !== managed) {
    live[managed.index] = last;
    last.index = managed.index;
  }
}

/**
 * The memory went with a transferred ArrayBuffer: it must never be freed, and
 * its library never be closed.
 */
function keep(managed: Managed): void {
  if (isOver(managed)) return;
  end(managed, "moved");
  console.warn(
    `A tensor of ${managed.bytes} bytes will never be freed: its ArrayBuffer ` +
      "was transferred (postMessage, structuredClone or transfer). To hand a " +
      "tensor to a Worker, send the address of release().take()",
  );
}

/** At exit: later listeners may still look at typed arrays, so empty them. */
function releaseAll(): void {
  settleAll();
  for (const managed of [...live]) {
    // What a consumer outside still uses is the consumer's to give back.
    if (managed.holds > 0) continue;
    const buffer = managed.buffer instanceof WeakRef
      ? managed.buffer.deref()
      : managed.buffer;
    if (buffer?.detached) continue; // transferred: somebody may still use it
    buffer?.transfer(0);
    guarded(() => release(managed));
  }
}

/** Where nobody can catch: a deleter that throws must not stop the rest. */
function guarded(action: () => void): void {
  try {
    action();
  } catch (error) {
    console.error("The deleter of a tensor threw:", error);
  }
}
