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

import { BufferError, describe } from "../src/errors.ts";
import { FIRST_ADDRESS, LAST_ADDRESS, STRUCT_ALIGNMENT } from "./abi.ts";
import { Caches } from "./caches.ts";
import {
  type Header,
  type ManagedName,
  readDeleter,
  readHeader,
} from "./header.ts";
import { isPermitted, libc } from "./libc.ts";
import {
  addressOf,
  addressOfArray,
  type Block,
  bufferAt,
  lowWordOf,
  pointerTo,
} from "./memory.ts";
import * as pressure from "./pressure.ts";

/** A library that stays open while it has tensors out: their deleters are its code. */
export interface KeptOpen {
  /** One tensor more. */
  retain(): void;
  /** One tensor less. Never throws. */
  release(): void;
}

/** What a deleter must be called within: the lock of an interpreter. */
export interface Gate {
  /** Before the deleter; `false`: it must not be called any more. */
  enter(): boolean;
  /** After it, even if it threw. */
  leave(): void;
  /** The struct was given away: whoever has it calls the deleter. */
  moved(): void;
}

/** A deleter that is JavaScript of ours: called without the way through C. */
export interface DeleterHere {
  /**
   * Gives the memory back, once.
   *
   * @param place Where the struct is.
   */
  run(place: Place): void;
  /**
   * The struct was given to a consumer outside of this module, who will call the
   * deleter.
   *
   * @param kept What must not be collected until then.
   */
  moved(kept: unknown): void;
}

/** Where a struct is: a pointer, or an address. */
export type Place = Deno.PointerObject | bigint;

/** Where a managed tensor is in its life. */
type State = "unconsumed" | "consumed" | "released" | "moved";

/** What is known of a few managed tensors. */
interface Rare {
  /** Whether the struct lies in memory of ours. */
  isOurs: boolean;
  /** What the deleter must be called within, if anything. */
  gate: Gate | null;
  /** What is to be done when the deleter has run. */
  after: (() => void) | null;
  /** The library that the deleter is in, if this module opened it. */
  library: KeptOpen | null;
}

/** One struct of a producer. It must not know its owner: it would outlive it. */
interface Managed {
  /** Where it is: of a struct of ours the address, until somebody asks for the pointer. */
  place: Place;
  readonly name: ManagedName;
  /** The lower half of the pointer, once somebody claimed it. */
  low: number;
  state: State;
  /** Of the memory behind `data`: known once the tensor is imported. */
  bytes: number;
  /** When it was imported: the number of a turn of the event loop. */
  turn: number;
  /** Known once the header was read; the struct is not read again after. */
  deleter: bigint | undefined;
  /** The deleter, if it is JavaScript of ours. */
  deleteHere: DeleterHere | null;
  /** Who still uses the memory: exports, native calls, and holds of the script. */
  holds: number;
  /** Given up by its owner while the memory was still used. */
  waiting: boolean;
  /** What most have not. */
  rare: Rare | null;
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
  pressure.find(managed.bytes, managed.turn);
  guarded(() => letGo(managed));
});

/** Owners that are new, or have a new ArrayBuffer, since this turn began. */
const unsettled: Owner[] = [];
let settlesSoon = false;

let listensForExit = false;
/** What is to be done at exit before tensors are released, and after. */
const exitActions: (() => void)[] = [];
const lastActions: (() => void)[] = [];

/** Does something at exit before tensors are released. */
export function beforeExit(action: () => void): void {
  exitActions.push(action);
  listenForExit();
}

/** Does something at exit when tensors were released. */
export function afterExit(action: () => void): void {
  lastActions.push(action);
  listenForExit();
}

function listenForExit(): void {
  if (listensForExit) return;
  listensForExit = true;
  addEventListener("unload", releaseAll);
}

/** Those that nobody has released or moved, and the bytes of those imported. */
export function ownersLive(): { count: number; bytes: number } {
  return { count, bytes: pressure.heldBytes() };
}

/** The key under which an ArrayBuffer holds the owner of its memory. */
const OWNER: unique symbol = Symbol("@dlpack/deno owner");

/** The owner of the memory behind an ArrayBuffer, if it is an import's. */
export function ownerOf(buffer: ArrayBufferLike): Owner | undefined {
  return (buffer as { [OWNER]?: Owner })[OWNER];
}

/**
 * Whether two typed arrays may have bytes in common: by their addresses, as
 * every import of the same memory has an ArrayBuffer of its own, and so has
 * what a script makes over native memory by itself.
 */
export function sharesMemory(a: ArrayBufferView, b: ArrayBufferView): boolean {
  if (a.byteLength === 0 || b.byteLength === 0) return false;
  if (a.buffer === b.buffer) {
    return a.byteOffset < b.byteOffset + b.byteLength &&
      b.byteOffset < a.byteOffset + a.byteLength;
  }
  if (!isPermitted()) {
    // Nobody can have seen native memory; a SharedArrayBuffer that was posted
    // is another object over the same memory.
    return a.buffer instanceof SharedArrayBuffer &&
      b.buffer instanceof SharedArrayBuffer;
  }
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

/**
 * Which structs were seen to be owned, by the lower halves of their addresses: as
 * many as a look takes no time. A map of all would cost a third of an import.
 */
const CLAIMS = 1024;
const claims = new Int32Array(CLAIMS);

/**
 * Takes a struct that a library is said to have handed over.
 *
 * @throws {TypeError} When there can be no struct: a status was taken for a
 * pointer, or the pointer of something else.
 * @throws {BufferError} `"consumed"` when somebody is seen to own it already.
 */
export function claim(pointer: Deno.PointerObject, name: ManagedName): Owner {
  const low = checkPlace(pointer);
  if (claims[slotOf(low)] === low && isOwned(pointer, low)) {
    throw new BufferError(
      "consumed",
      `Cannot wrap 0x${addressOf(pointer).toString(16)}: a capsule or tensor ` +
        "owns the struct already, and would call its deleter a second time; " +
        "pass that one on, or ask the library for another struct",
    );
  }
  const owner = new Owner(pointer, name);
  noteAt(managedOf(owner), low);
  return owner;
}

/** Whether somebody owns the struct: what was noted may be of another one, 4 GiB away. */
function isOwned(pointer: Deno.PointerObject, low: number): boolean {
  const address = addressOf(pointer);
  const isIt = (managed: Managed): boolean =>
    managed.low === low && addressOf(pointerOf(managed)) === address;
  return live.some(isIt) || unsettled.map(managedOf).some(isIt);
}

/**
 * Checks that a struct can be where a pointer points to.
 *
 * @returns The lower half of the address.
 * @throws {TypeError} When a status was taken for a pointer, or the pointer of
 * something else.
 */
export function checkPlace(pointer: Deno.PointerObject): number {
  let low: number;
  try {
    low = lowWordOf(pointer);
  } catch {
    throw notAPointer(pointer);
  }
  // Most addresses are seen to be possible by their lower half.
  if (
    (low & STRUCT_ALIGNMENT - 1) === 0 &&
    (low >= FIRST_ADDRESS || low < -FIRST_ADDRESS)
  ) return low;
  const address = addressOf(pointer);
  if (
    address % BigInt(STRUCT_ALIGNMENT) === 0n && address >= FIRST_ADDRESS &&
    address < LAST_ADDRESS
  ) return low;
  throw new TypeError(
    `Cannot wrap 0x${
      address.toString(16)
    }: no struct can be there; is it the ` +
      "pointer, not a status, that the function returned?",
  );
}

/** For what was passed as a pointer, and is none. */
export function notAPointer(value: unknown): TypeError {
  return new TypeError(
    `Cannot wrap ${describe(value)}: pass the Deno.PointerObject, or the ` +
      "address as a bigint, of a managed tensor",
  );
}

/** Notes who owns a struct, for whoever claims it again. */
export function note(owner: Owner): void {
  noteAt(managedOf(owner), lowWordOf(owner.pointer));
}

function noteAt(managed: Managed, low: number): void {
  managed.low = low;
  claims[slotOf(low)] = low;
}

/** Where the owner of a struct is noted. */
function slotOf(low: number): number {
  return low >>> 4 & CLAIMS - 1;
}

/** What was kept for structs that were given away, whose deleters are C. */
const keptForGood: unknown[] = [];

/** What the script holds: the garbage collector must not take these. */
const pinned = new Set<Owner>();

let settle: (owner: Owner) => void;
let managedOf: (owner: Owner) => Managed;

/** Holds one managed tensor, until it is released or given away. */
export class Owner {
  readonly #managed: Managed;
  #buffer: ArrayBuffer | null = null;
  #active = true;
  /** Holds of the script, to whose end the ArrayBuffer stays as it is. */
  #pins = 0;
  #kept: unknown;
  #caches: Caches | null = null;
  /** Its place in `unsettled`; -1 when it is not there. */
  #place = -1;

  static {
    settle = (owner) => owner.#settle();
    managedOf = (owner) => owner.#managed;
  }

  /**
   * Takes a struct that nobody else owns.
   *
   * @param place Its pointer; or its address, of which a pointer is made when
   * it is first needed: that takes as long as a third of an export.
   */
  constructor(place: Place, name: ManagedName) {
    if (!listensForExit) listenForExit();
    this.#managed = {
      place,
      name,
      low: 0,
      state: "unconsumed",
      bytes: 0,
      turn: 0,
      deleter: undefined,
      deleteHere: null,
      holds: 0,
      waiting: false,
      rare: null,
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
    return pointerOf(this.#managed);
  }

  /** What is made of the memory for others, and goes with it. */
  get caches(): Caches {
    return this.#caches ??= new Caches();
  }

  /** The library that stays open for this tensor, if any. */
  get library(): KeptOpen | null {
    return this.#managed.rare?.library ?? null;
  }

  /** Says that the deleter is JavaScript of ours: it takes 2 us less so. */
  deleteHere(deleter: DeleterHere): void {
    this.#managed.deleteHere = deleter;
  }

  /** Says what the deleter must be called within. */
  deleteWithin(gate: Gate): void {
    rareOf(this.#managed).gate = gate;
  }

  /**
   * Keeps something from being collected for as long as the memory is used. It
   * may refer to this owner.
   */
  keepAlive(kept: unknown): void {
    this.#kept = kept;
  }

  /** Says that the struct lies in memory of ours, freed after its deleter has run. */
  liesIn(block: Block): void {
    rareOf(this.#managed).isOurs = true;
    this.afterDelete(() => block.free());
  }

  /** Whether the struct lies in memory of ours, which must not be given away. */
  get liesInOurs(): boolean {
    return this.#managed.rare?.isOurs ?? false;
  }

  /** Does something when the deleter has run. */
  afterDelete(action: () => void): void {
    const rare = rareOf(this.#managed);
    const before = rare.after;
    rare.after = before === null ? action : () => {
      before();
      action();
    };
  }

  /** Keeps a library open until the deleter has run. */
  keepOpen(library: KeptOpen): void {
    library.retain();
    rareOf(this.#managed).library = library;
  }

  /**
   * Reads the header, and leaves everything as it was.
   *
   * @throws {BufferError} `"version"` when the struct cannot be what it was said
   * to be.
   */
  peek(): Header {
    const { name } = this.#managed;
    const header = readHeader(this.pointer, name);
    if (header === null) throw impossible(name);
    return header;
  }

  /**
   * Reads the header.
   *
   * @throws {BufferError} `"version"` when the struct cannot be what it was
   * said to be: then it is let go, and nothing in it is called.
   */
  header(): Header {
    const { name, low } = this.#managed;
    const header = readHeader(this.pointer, name, low);
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
    this.#managed.turn = pressure.hold(bytes);
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
    this.#caches?.dropAll();
    if (this.#end()) keep(this.#managed);
    else letGo(this.#managed);
  }

  /** Releases after a failure: a deleter that throws must not hide it. */
  releaseAfterFailure(): void {
    guarded(() => this.release());
  }

  /**
   * Checks that nobody uses the memory, so that the struct can be given away.
   *
   * @throws {BufferError} `"consumed"` while somebody does.
   */
  checkUnused(): void {
    this.#caches?.dropAll();
    const { holds } = this.#managed;
    if (holds === 0) return;
    const users = holds === 1
      ? "1 export, call or hold uses"
      : `${holds} exports, calls or holds use`;
    throw new BufferError(
      "consumed",
      `Cannot give away a tensor while ${users} its memory: wait for the end ` +
        "of that",
    );
  }

  /**
   * Gives the struct away, its deleter not run. Views become empty. The library
   * that the deleter is in stays open: nobody tells when it was called.
   *
   * @throws {BufferError} `"consumed"` while the memory is used.
   */
  moveAway(): Deno.PointerObject {
    const managed = this.#managed;
    this.checkUnused();
    this.#end();
    end(managed, "moved");
    if (managed.deleteHere !== null) managed.deleteHere.moved(this.#kept);
    // Nobody tells when another's deleter was called.
    else if (this.#kept !== undefined) keptForGood.push(this.#kept);
    managed.rare?.gate?.moved();
    return pointerOf(managed);
  }

  /**
   * Keeps the memory for a consumer, also when this owner is released meanwhile,
   * until {@linkcode unhold}. Whoever holds it refers to this owner.
   */
  hold(): void {
    this.#managed.holds++;
  }

  /** The same, unless the memory is gone for whoever holds this owner. */
  holdIfActive(): boolean {
    const managed = this.#managed;
    if (!this.#active || managed.state === "released") return false;
    managed.holds++;
    return true;
  }

  /** Ends one {@linkcode hold}. Never throws. */
  unhold(): void {
    const managed = this.#managed;
    managed.holds--;
    if (managed.waiting) guarded(() => letGo(managed));
  }

  /**
   * Keeps the memory, and the ArrayBuffer over it, for the script: over release
   * and garbage collection, until {@linkcode unpin}.
   */
  pin(): void {
    if (this.#pins++ === 0) pinned.add(this);
    this.hold();
  }

  /** Ends one {@linkcode pin}. Never throws. */
  unpin(): void {
    if (--this.#pins === 0) {
      pinned.delete(this);
      if (!this.#active && this.#detach()) keep(this.#managed);
    }
    this.unhold();
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

  /** Says whether somebody transferred the ArrayBuffer before. */
  #end(): boolean {
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
    return this.#pins === 0 ? this.#detach() : this.#buffer?.detached === true;
  }

  /** Empties all views. Says whether somebody transferred the ArrayBuffer before. */
  #detach(): boolean {
    const buffer = this.#buffer;
    if (buffer === null) return false;
    this.#buffer = null;
    if (buffer.detached) return true;
    buffer.transfer(0);
    return false;
  }
}

function rareOf(managed: Managed): Rare {
  return managed.rare ??= {
    isOurs: false,
    gate: null,
    after: null,
    library: null,
  };
}

function pointerOf(managed: Managed): Deno.PointerObject {
  const { place } = managed;
  if (typeof place !== "bigint") return place;
  const pointer = managed.place = pointerTo(place)!;
  // From here on somebody may wrap it again.
  noteAt(managed, lowWordOf(pointer));
  return pointer;
}

function settleAll(): void {
  settlesSoon = false;
  // One by one: a warning may run anything, which may release some of the rest.
  while (unsettled.length > 0) settle(unsettled.pop()!);
}

/** A struct cannot be what it was said to be. */
export function impossible(name: ManagedName): BufferError {
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

/** Releases a managed tensor as soon as nobody uses it. */
function letGo(managed: Managed): void {
  if (managed.holds === 0) return release(managed);
  managed.waiting = true;
  if (managed.index === -1) managed.index = live.push(managed) - 1;
}

/** The one place that calls a deleter. */
function release(managed: Managed): void {
  if (isOver(managed)) return;
  const { deleteHere, rare } = managed;
  const deleter = deleteHere !== null ? 0n : deleterOf(managed);
  // Before the deleter, which may call back, or throw.
  end(managed, "released");
  try {
    if (deleteHere !== null) deleteHere.run(managed.place);
    else if (rare?.gate) deleteWithin(rare.gate, managed, deleter);
    else if (deleter !== 0n) callDeleter(pointerOf(managed), deleter);
  } finally {
    rare?.library?.release();
    rare?.after?.();
  }
}

/** The address of the deleter in the struct: 0 for none, or where it cannot be one. */
function deleterOf(managed: Managed): bigint {
  const { deleter, name } = managed;
  if (deleter !== undefined) return deleter;
  const isOdd = readHeader(pointerOf(managed), name, managed.low) === null;
  return isOdd ? 0n : readDeleter(name);
}

function deleteWithin(gate: Gate, managed: Managed, deleter: bigint): void {
  if (deleter === 0n) gate.moved(); // there is nothing to call
  else if (gate.enter()) {
    try {
      callDeleter(pointerOf(managed), deleter);
    } finally {
      gate.leave();
    }
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
  const slot = slotOf(managed.low);
  if (claims[slot] === managed.low) claims[slot] = 0;
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
  for (const action of exitActions) guarded(action);
  for (const managed of [...live]) {
    // What a consumer outside still uses is the consumer's to give back, and
    // what the script holds may be read to the very end.
    if (managed.holds > 0) continue;
    const buffer = managed.buffer instanceof WeakRef
      ? managed.buffer.deref()
      : managed.buffer;
    if (buffer?.detached) continue; // transferred: somebody may still use it
    buffer?.transfer(0);
    guarded(() => release(managed));
  }
  for (const action of lastActions) guarded(action);
}

/** Where nobody can catch: a deleter that throws must not stop the rest. */
function guarded(action: () => void): void {
  try {
    action();
  } catch (error) {
    console.error("The deleter of a tensor threw:", error);
  }
}
