/**
 * Calls functions of TVM-FFI, and gives up references when nobody can be using
 * them any more.
 *
 * @module
 */

import { beforeExit, type KeptOpen } from "../owner.ts";
import { Anys } from "./anys.ts";
import type { Library, OpenLibrary } from "./library.ts";
import { type ErrorText, readError } from "./read.ts";
import type { Home, Reference } from "./reference.ts";
import { showText } from "./text.ts";

/** Calls of no more arguments use memory that is there already. */
const ROOM = 16;

/** The arguments of a call and its result. */
export class Frame extends Anys {
  /** Which value is the result. */
  readonly resultAt: number;
  /** Where the result is. */
  readonly result: bigint;
  /** What was made for this call: references to be given up after it. */
  readonly temporary: bigint[] = [];

  /** @param room How many arguments there can be. */
  constructor(readonly room: number) {
    super(room + 1);
    this.resultAt = room;
    this.result = this.addressOf(room);
  }
}

/** An error that JavaScript threw, on its way through native code. */
interface Raised {
  readonly address: bigint;
  readonly cause: unknown;
}

/** What native code raised. */
export interface Failure extends ErrorText {
  /** What a callback threw, if it was that. */
  readonly cause: unknown;
}

/** One libtvm_ffi. */
export class Runtime implements KeptOpen, Home {
  /** Where it was found. */
  readonly path: string;
  /** The version of its ABI. */
  readonly version: string;
  /** Its functions. */
  readonly library: Library;
  readonly #frames: Frame[] = [];
  /** How many calls are under way, each from a callback of the one before. */
  #depth = 0;
  #hasWork = false;
  readonly #raised: Raised[] = [];
  /** References that are given up, but may be in use by a call. */
  readonly #ending: Reference[] = [];
  readonly #live = new Set<Reference>();
  /** Values and tensors that are there, each of which may be a module's. */
  #values = 0;
  /** Modules that nobody uses any more, but values may. */
  readonly #closing: Reference[] = [];
  readonly #globals = new Map<string, bigint>();
  readonly #registry = new FinalizationRegistry<Reference>((reference) =>
    reference.drop()
  );

  constructor(path: string, { library, version }: OpenLibrary) {
    this.path = path;
    this.version = version;
    this.library = library;
    for (let depth = 0; depth < 4; depth++) this.#frames.push(new Frame(ROOM));
    beforeExit(() => this.#exit());
  }

  // --- calls -------------------------------------------------------------------

  /** Whether native code that this runtime called is under way. */
  get isCalling(): boolean {
    return this.#depth > 0;
  }

  /** Begins a call: gives memory for its arguments, until {@linkcode leave}. */
  enter(count: number): Frame {
    const depth = this.#depth++;
    if (count > ROOM) return new Frame(count);
    return this.#frames[depth] ??= new Frame(ROOM);
  }

  /** A call is over, and its result was taken. */
  leave(frame: Frame): void {
    if (frame.temporary.length > 0) this.#giveUp(frame.temporary);
    if (--this.#depth === 0 && this.#hasWork) this.#left();
  }

  /** Says that there is something to do when no call is under way any more. */
  needsWork(): void {
    this.#hasWork = true;
  }

  /** Does something then, if {@linkcode needsWork} was called. */
  whenLeft: () => void = () => {};

  #left(): void {
    this.#hasWork = false;
    this.#settle();
    this.whenLeft();
  }

  #giveUp(references: bigint[]): void {
    // What a deleter adds is given up, too.
    for (let address; (address = references.pop()) !== undefined;) {
      this.library.decRef(address);
    }
  }

  /** No call is under way: what waited for that can go. */
  #settle(): void {
    for (const { address } of this.#raised.splice(0)) {
      this.library.decRef(address);
    }
    for (let reference; (reference = this.#ending.pop()) !== undefined;) {
      this.#end(reference);
    }
  }

  /**
   * A function of the library's own table, which has it for good.
   *
   * @throws {Error} When there is none.
   */
  globalAddress(name: string): bigint {
    let address = this.#globals.get(name);
    if (address === undefined) {
      address = this.findGlobal(name);
      if (address === 0n) {
        throw new Error(
          `Cannot use ${this.path}: it has no function "${name}", which ` +
            "every libtvm_ffi has",
        );
      }
      this.#globals.set(name, address);
    }
    return address;
  }

  /** A new reference to a function of the table: 0 when there is none. */
  findGlobal(name: string): bigint {
    const out = new BigUint64Array(1);
    this.check(this.library.getGlobal(showText(name), out));
    return out[0]!;
  }

  /** Calls a function with what is in a frame; the result is put there, too. */
  call(address: bigint, frame: Frame, count: number): void {
    frame.setNone(frame.resultAt);
    this.check(this.library.call(address, frame.address, count, frame.result));
  }

  // --- errors ------------------------------------------------------------------

  /** How errors of native code are thrown: `src/` says, which has the class. */
  throws: (failure: Failure) => never = ({ kind, message }) => {
    throw new Error(`${kind}: ${message}`);
  };

  /** Throws what was raised, if a function said so. */
  check(status: number): void {
    if (status !== 0) this.throws(this.#takeRaised(status));
  }

  #takeRaised(status: number): Failure {
    const out = new BigUint64Array(1);
    this.library.takeError(out);
    const address = out[0]!;
    if (address === 0n) {
      return {
        kind: "RuntimeError",
        message: `A function failed with status ${status}, and left no error`,
        backtrace: "",
        cause: undefined,
      };
    }
    try {
      const raised = this.#raised.find((one) => one.address === address);
      return { ...readError(address), cause: raised?.cause };
    } finally {
      this.library.decRef(address);
    }
  }

  /** Raises an error in native code that called back. */
  raise({ kind, message, backtrace, cause }: Failure): void {
    const out = new BigUint64Array(1);
    const { library } = this;
    const status = library.createError(
      showText(kind, 0),
      showText(message, 1),
      showText(backtrace, 2),
      out,
    );
    if (status !== 0) return;
    const address = out[0]!;
    library.raise(address);
    // Kept, so that no other error is at this address when it comes back.
    this.#raised.push({ address, cause });
    this.#hasWork = true;
  }

  // --- references --------------------------------------------------------------

  watch(target: object, reference: Reference): void {
    this.#registry.register(target, reference, reference);
  }

  began(reference: Reference): void {
    this.#live.add(reference);
    if (reference.kind === "value") this.#values++;
  }

  ended(reference: Reference): void {
    this.#live.delete(reference);
    this.#registry.unregister(reference);
    if (this.#depth === 0) this.#end(reference);
    else {
      this.#ending.push(reference);
      this.#hasWork = true;
    }
  }

  #end(reference: Reference): void {
    const { kind, address } = reference;
    if (kind === "module") {
      this.#closing.push(reference);
      this.#closeModules();
      return;
    }
    this.library.decRef(address);
    if (kind === "value") this.release();
  }

  retain(): void {
    this.#values++;
  }

  release(): void {
    this.#values--;
    this.#closeModules();
  }

  /**
   * Closes modules that nobody uses. Of an object nobody can say whose code its
   * deleter is, nor that of what it refers to: so they stay open for as long as
   * there is any that came out of a call.
   */
  #closeModules(): void {
    if (this.#values > 0 || this.#closing.length === 0) return;
    if (this.#depth > 0) {
      this.#ending.push(...this.#closing.splice(0));
      this.#hasWork = true;
      return;
    }
    for (const { address } of this.#closing.splice(0)) {
      this.library.decRef(address);
    }
  }

  /** How many references there are. */
  get liveCount(): number {
    return this.#live.size;
  }

  #exit(): void {
    // In the middle of a call, what it uses must stay.
    if (this.#depth > 0) return;
    const all = [...this.#live];
    for (const reference of all) {
      if (reference.kind !== "module") reference.drop();
    }
    // Closed when tensors are released, too.
    for (const reference of all) reference.drop();
  }
}
