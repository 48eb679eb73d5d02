/**
 * Reads the memory of a GPU: what is the same for CUDA and ROCm.
 *
 * @module
 */

import { copyLater } from "../memory.ts";
import {
  givePinned,
  type Pinned,
  PINNED_BYTES,
  PINNED_COUNT,
  type PinnedDriver,
  takePinned,
} from "./pinned.ts";
import type { DeviceMemory, DeviceReader, DeviceRows } from "./runtime.ts";

/**
 * The calls of a GPU's runtime. All but `within` and `close` are made inside of
 * `within`, and throw a `BufferError` when the runtime reports one.
 */
export interface GpuDriver extends PinnedDriver {
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
  /** Copies rows to pinned memory, later. */
  copyRowsLater(
    into: bigint,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
    stream: bigint,
  ): void;
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
  /**
   * Waits for the work before a mark, on another thread, so outside of
   * `within`.
   *
   * @returns Whether it is done; not where the runtime cannot wait without a
   * context.
   */
  waitLater(event: bigint): Promise<boolean>;
  /** Gives back what opening took. Never throws. */
  close(): void;
}

/** What to wait for: a stream's work, all work, or nothing. */
export type Wait = bigint | "everything" | "nothing";

/** A part of what is read, no longer than pinned memory. */
interface Part {
  readonly from: bigint;
  /** Bytes into where it goes. */
  readonly at: number;
  readonly rowBytes: number;
  readonly pitch: number;
  readonly count: number;
}

/**
 * What takes no longer than a turn of the event loop, in bytes: it is copied at
 * once, also asynchronously.
 */
const AT_ONCE = 4 * 1024 * 1024;

/** Reads memory by the calls of a driver. */
export class GpuReader implements DeviceReader {
  readonly #driver: GpuDriver;
  /** Of the lowest element. */
  readonly #address: bigint;
  readonly #wait: Wait;
  /** The default stream, in which a mark is behind the work of most others. */
  readonly #defaultStream: bigint;
  /** Of asynchronous copies, made by the first of them. */
  #stream: bigint | null = null;
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
    const event = driver.within(() => this.#createEvent());
    await this.#mark(event, wait === "everything" ? this.#defaultStream : wait);
    // Only streams that the default one does not wait for are left.
    if (wait === "everything") this.synchronize();
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

  async readAsync(
    byteOffset: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (into.length <= AT_ONCE) return this.read(byteOffset, into);
    const from = this.#address + BigInt(byteOffset);
    await this.#readParts(runOf(from, 0, into.length), into);
  }

  async readRowsAsync(
    rows: DeviceRows,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (into.length <= AT_ONCE) return this.readRows(rows, into);
    const from = this.#address + BigInt(rows.byteOffset);
    await this.#readParts(rowsOf(from, rows), into);
  }

  /**
   * Through pinned memory: copies to any other block the thread. The GPU fills
   * some of it while threads of Deno's empty the rest, several at a time, as
   * memory that is new costs a thread more than the GPU needs.
   */
  async #readParts(
    parts: Generator<Part>,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const driver = this.#driver;
    const failures: unknown[] = [];
    const slots: Pinned[] = [];
    const readSome = async (): Promise<void> => {
      let slot: Pinned | undefined;
      let event = 0n;
      for (const part of parts) {
        driver.within(() => {
          this.#stream ??= driver.createStream();
          if (slot === undefined) {
            event = this.#createEvent();
            slot = takePinned(driver);
            slots.push(slot);
          }
          const { from, pitch, rowBytes, count } = part;
          const [to, stream] = [slot.address, this.#stream];
          if (count === 1) driver.copyLater(to, from, rowBytes, stream);
          else driver.copyRowsLater(to, from, pitch, rowBytes, count, stream);
        });
        await this.#mark(event, this.#stream!);
        const { at, rowBytes, count } = part;
        await copyLater(
          into.subarray(at, at + rowBytes * count),
          slot!.address,
        );
      }
    };
    const readers = Array.from(
      { length: PINNED_COUNT },
      () => readSome().catch((error) => void failures.push(error)),
    );
    await Promise.all(readers);
    if (failures.length === 0) return slots.forEach(givePinned);
    driver.within(() => {
      const stream = this.#stream;
      // Copies may still be on their way to it.
      if (stream !== null) {
        attempt(failures, () => driver.synchronizeStream(stream));
      }
      for (const { address } of slots) {
        attempt(failures, () => driver.freePinned(address));
      }
    });
    throw failures[0];
  }

  /** Puts a mark into a stream, and waits for it without blocking the thread. */
  async #mark(event: bigint, stream: bigint): Promise<void> {
    const driver = this.#driver;
    const isDone = driver.within(() => {
      driver.record(event, stream);
      return driver.isDone(event);
    });
    if (isDone || await driver.waitLater(event)) return;
    while (!driver.within(() => driver.isDone(event))) {
      await new Promise((resolve) => setTimeout(resolve));
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

  /** All that can be freed is, whatever fails; the first failure is thrown. */
  #free(): void {
    const driver = this.#driver;
    const stream = this.#stream;
    const failures: unknown[] = [];
    for (const event of this.#events.splice(0)) {
      attempt(failures, () => driver.destroyEvent(event));
    }
    if (stream !== null) {
      attempt(failures, () => driver.destroyStream(stream));
    }
    if (failures.length > 0) throw failures[0];
  }
}

function attempt(failures: unknown[], action: () => void): void {
  try {
    action();
  } catch (error) {
    failures.push(error);
  }
}

/** Bytes side by side, in parts. */
function* runOf(from: bigint, at: number, length: number): Generator<Part> {
  for (let done = 0; done < length; done += PINNED_BYTES) {
    const rowBytes = Math.min(PINNED_BYTES, length - done);
    const start = { from: from + BigInt(done), at: at + done };
    yield { ...start, rowBytes, pitch: rowBytes, count: 1 };
  }
}

/** Rows, in parts. */
function* rowsOf(
  from: bigint,
  { pitch, rowBytes, count }: DeviceRows,
): Generator<Part> {
  const atOnce = Math.floor(PINNED_BYTES / rowBytes);
  for (let row = 0; row < count; row += Math.max(1, atOnce)) {
    const start = from + BigInt(row) * BigInt(pitch);
    const at = row * rowBytes;
    if (atOnce === 0) yield* runOf(start, at, rowBytes);
    else {
      const rows = Math.min(atOnce, count - row);
      yield { from: start, at, rowBytes, pitch, count: rows };
    }
  }
}
