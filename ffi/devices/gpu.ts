/**
 * Reads the memory of a GPU: what is the same for CUDA and ROCm.
 *
 * @module
 */

import { bufferAt } from "../memory.ts";
import type { DeviceMemory, DeviceReader, DeviceRows } from "./runtime.ts";

/**
 * The calls of a GPU's runtime. All but `within` and `close` are made inside of
 * `within`, and throw a `BufferError` when the runtime reports one.
 */
export interface GpuDriver {
  /**
   * Runs calls while the memory's context or device is the current one of this
   * thread; afterwards it is what it was before. Nothing may wait inside: other
   * code of the thread would find the wrong one.
   */
  within<T>(calls: () => T): T;
  /** Waits for all work of the context or device. */
  synchronize(): void;
  /** Waits for the work of a stream. */
  synchronizeStream(stream: bigint): void;
  /** Whether the work of a stream is done. */
  isIdle(stream: bigint): boolean;
  /** Copies to the host, and waits. */
  copy(into: Uint8Array<ArrayBuffer>, from: bigint): void;
  /** Copies rows to the host, and waits. */
  copyRows(
    into: Uint8Array<ArrayBuffer>,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
  ): void;
  /** Copies to pinned memory, later. */
  copyLater(
    into: bigint,
    from: bigint,
    length: number,
    stream: bigint,
  ): void;
  /** Pinned memory of the host. */
  allocatePinned(length: number): bigint;
  /** Gives it back. */
  freePinned(address: bigint): void;
  /** A stream that no other waits for. */
  createStream(): bigint;
  /** Ends it. */
  destroyStream(stream: bigint): void;
  /** A mark in a stream. */
  createEvent(): bigint;
  /** Ends it. */
  destroyEvent(event: bigint): void;
  /** Puts a mark behind the work that a stream has. */
  record(event: bigint, stream: bigint): void;
  /** Whether the work before a mark is done. */
  isDone(event: bigint): boolean;
  /** Gives back what opening took. Never throws. */
  close(): void;
}

/** What to wait for: a stream's work, all work, or nothing. */
export type Wait = bigint | "everything" | "nothing";

/** Pinned memory that is being filled, or empty. */
interface Slot {
  readonly address: bigint;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly event: bigint;
}

/** The largest piece of pinned memory, in bytes, and how many there are. */
const SLOT_BYTES = 8 * 1024 * 1024;
const SLOTS = 3;

/** Reads memory by the calls of a driver. */
export class GpuReader implements DeviceReader {
  readonly #driver: GpuDriver;
  /** Of the lowest element. */
  readonly #address: bigint;
  readonly #wait: Wait;
  /** The default stream, in which a mark is behind the work of most others. */
  readonly #defaultStream: bigint;
  /** What asynchronous copies need, made by the first of them. */
  #stream: bigint | null = null;
  readonly #slots: Slot[] = [];
  readonly #events: bigint[] = [];

  /** Takes over the driver, which it closes. */
  constructor(
    driver: GpuDriver,
    { data, byteOffset }: DeviceMemory,
    wait: Wait,
    defaultStream: bigint,
  ) {
    this.#driver = driver;
    this.#address = data + BigInt(byteOffset);
    this.#wait = wait;
    this.#defaultStream = defaultStream;
  }

  synchronize(): void {
    const wait = this.#wait;
    const driver = this.#driver;
    if (wait === "nothing") return;
    driver.within(() => {
      if (wait === "everything") driver.synchronize();
      else driver.synchronizeStream(wait);
    });
  }

  async synchronizeAsync(): Promise<void> {
    const wait = this.#wait;
    const driver = this.#driver;
    if (wait === "nothing") return;
    if (wait !== "everything") {
      return await until(() => driver.within(() => driver.isIdle(wait)));
    }
    const event = driver.within(() => {
      const event = this.#createEvent();
      driver.record(event, this.#defaultStream);
      return event;
    });
    await until(() => driver.within(() => driver.isDone(event)));
    // Only streams that the default one does not wait for are left.
    this.synchronize();
  }

  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void {
    const driver = this.#driver;
    const from = this.#address + BigInt(byteOffset);
    driver.within(() => driver.copy(into, from));
  }

  readRows(
    { byteOffset, pitch, rowBytes, count }: DeviceRows,
    into: Uint8Array<ArrayBuffer>,
  ): void {
    const driver = this.#driver;
    const from = this.#address + BigInt(byteOffset);
    driver.within(() => driver.copyRows(into, from, pitch, rowBytes, count));
  }

  /**
   * Through pinned memory: copies to any other block the thread. While the GPU
   * fills some slots, this thread empties one.
   */
  async readAsync(
    byteOffset: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const driver = this.#driver;
    const empty = driver.within(() => this.#prepare(into.length));
    const filling: { slot: Slot; length: number }[] = [];
    let asked = 0;
    for (let done = 0; done < into.length;) {
      driver.within(() => {
        while (asked < into.length && empty.length > 0) {
          const slot = empty.pop()!;
          const length = Math.min(slot.bytes.length, into.length - asked);
          const from = this.#address + BigInt(byteOffset + asked);
          driver.copyLater(slot.address, from, length, this.#stream!);
          driver.record(slot.event, this.#stream!);
          filling.push({ slot, length });
          asked += length;
        }
      });
      const { slot, length } = filling.shift()!;
      await until(() => driver.within(() => driver.isDone(slot.event)));
      into.set(slot.bytes.subarray(0, length), done);
      done += length;
      empty.push(slot);
    }
  }

  [Symbol.dispose](): void {
    const driver = this.#driver;
    try {
      driver.within(() => this.#free());
    } finally {
      driver.close();
    }
  }

  #createEvent(): bigint {
    const event = this.#driver.createEvent();
    this.#events.push(event);
    return event;
  }

  /** The slots for a read, all of them empty. */
  #prepare(length: number): Slot[] {
    const driver = this.#driver;
    this.#stream ??= driver.createStream();
    const size = Math.min(SLOT_BYTES, length);
    const count = Math.min(SLOTS, Math.ceil(length / size));
    const slots = this.#slots;
    if (slots.length >= count && slots[0]!.bytes.length >= size) {
      return slots.slice();
    }
    while (slots.length > 0) this.#freeSlot(slots.pop()!);
    while (slots.length < count) {
      const event = this.#createEvent();
      const address = driver.allocatePinned(size);
      const bytes = new Uint8Array(bufferAt(Number(address), size));
      slots.push({ address, bytes, event });
    }
    return slots.slice();
  }

  #freeSlot({ bytes, address }: Slot): void {
    bytes.buffer.transfer(0);
    this.#driver.freePinned(address);
  }

  /** All that can be freed is, whatever fails; the first failure is thrown. */
  #free(): void {
    const driver = this.#driver;
    const stream = this.#stream;
    const failures: unknown[] = [];
    const attempt = (action: () => void): void => {
      try {
        action();
      } catch (error) {
        failures.push(error);
      }
    };
    // After a failure copies may still be on their way to the slots.
    if (stream !== null) attempt(() => driver.synchronizeStream(stream));
    for (const slot of this.#slots.splice(0)) {
      attempt(() => this.#freeSlot(slot));
    }
    for (const event of this.#events.splice(0)) {
      attempt(() => driver.destroyEvent(event));
    }
    if (stream !== null) attempt(() => driver.destroyStream(stream));
    if (failures.length > 0) throw failures[0];
  }
}

/** Looks again at every turn of the event loop. */
async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise((resolve) => setTimeout(resolve));
}
