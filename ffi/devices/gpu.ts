/**
 * Reads and writes the memory of a GPU: what is the same for CUDA and ROCm.
 *
 * @module
 */

import { copyLater, writeLater } from "../memory.ts";
import { deviceError } from "./driver.ts";
import type { GpuDriver, Wait } from "./gpu_driver.ts";
import {
  givePinned,
  type Pinned,
  PINNED_BYTES,
  PINNED_COUNT,
  takePinned,
} from "./pinned.ts";
import type {
  DeviceMemory,
  DeviceReader,
  DeviceRows,
  DeviceWriter,
} from "./runtime.ts";

/**
 * What a memory's stream asks to be waited for: streams are numbered as the
 * array API says.
 *
 * @param refuse Why a number is no stream, if it is none.
 * @throws {BufferError} `"device"` when it is none.
 */
export function waitFor(
  memory: DeviceMemory,
  refuse: (stream: bigint) => string | null,
): Wait {
  if (memory.stream === null) return "everything";
  const stream = BigInt(memory.stream);
  if (stream === -1n) return "nothing";
  const reason = refuse(stream);
  if (reason !== null) throw deviceError(memory, reason);
  return stream;
}

/** A part of what is copied, no longer than pinned memory. */
interface Part {
  /** On the device. */
  readonly address: bigint;
  /** On the host, in bytes. */
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

/** Reads or writes memory by the calls of a driver. */
export class GpuMemory implements DeviceReader, DeviceWriter {
  readonly #driver: GpuDriver;
  /** Of the lowest element. */
  readonly #address: bigint;
  readonly #wait: Wait;
  readonly #isWriting: boolean;
  /** Of asynchronous copies, made by the first of them. */
  #stream: bigint | null = null;
  readonly #events: bigint[] = [];

  /** Takes over the driver, which it opens and closes. */
  constructor(driver: GpuDriver, wait: Wait) {
    const { data, byteOffset, access } = driver.memory;
    this.#driver = driver;
    this.#address = data + BigInt(byteOffset);
    this.#wait = wait;
    this.#isWriting = access === "write";
    try {
      driver.open();
    } catch (error) {
      driver.close();
      throw error;
    }
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
    await this.#mark(
      event,
      wait === "everything" ? driver.defaultStream : wait,
    );
    // Only streams that the default one does not wait for are left.
    if (wait === "everything") this.synchronize();
  }

  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void {
    this.#copy(byteOffset, into);
  }

  write(byteOffset: number, from: Uint8Array<ArrayBuffer>): void {
    this.#copy(byteOffset, from);
  }

  readRows(rows: DeviceRows, into: Uint8Array<ArrayBuffer>): void {
    this.#copyRows(rows, into);
  }

  writeRows(rows: DeviceRows, from: Uint8Array<ArrayBuffer>): void {
    this.#copyRows(rows, from);
  }

  readAsync(
    byteOffset: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    return this.#copyAsync(byteOffset, into);
  }

  writeAsync(
    byteOffset: number,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    return this.#copyAsync(byteOffset, from);
  }

  readRowsAsync(
    rows: DeviceRows,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    return this.#copyRowsAsync(rows, into);
  }

  writeRowsAsync(
    rows: DeviceRows,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    return this.#copyRowsAsync(rows, from);
  }

  #copy(byteOffset: number, host: Uint8Array<ArrayBuffer>): void {
    const driver = this.#driver;
    const address = this.#address + BigInt(byteOffset);
    driver.within(() => {
      driver.copy(host, address);
      this.#arrive();
    });
  }

  #copyRows(
    rows: DeviceRows,
    host: Uint8Array<ArrayBuffer>,
  ): void {
    const driver = this.#driver;
    const address = this.#address + BigInt(rows.byteOffset);
    driver.within(() => {
      driver.copyRows(host, address, rows);
      this.#arrive();
    });
  }

  /**
   * A call that copies to a device returns when it has read the host's memory:
   * then it may still be on its way, in the default stream.
   */
  #arrive(): void {
    if (!this.#isWriting) return;
    this.#driver.synchronizeStream(this.#driver.defaultStream);
  }

  async #copyAsync(
    byteOffset: number,
    host: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (host.length <= AT_ONCE) return this.#copy(byteOffset, host);
    const address = this.#address + BigInt(byteOffset);
    await this.#copyParts(runOf(address, 0, host.length), host);
  }

  async #copyRowsAsync(
    rows: DeviceRows,
    host: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (host.length <= AT_ONCE) return this.#copyRows(rows, host);
    const address = this.#address + BigInt(rows.byteOffset);
    await this.#copyParts(rowsOf(address, rows), host);
  }

  /**
   * Through pinned memory: copies to any other block the thread. The GPU works
   * on some of it while threads of Deno's work on the rest, several at a time,
   * as memory that is new costs a thread more than the GPU needs.
   */
  async #copyParts(
    parts: Generator<Part>,
    host: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const driver = this.#driver;
    const failures: unknown[] = [];
    const slots: Pinned[] = [];
    const copySome = async (): Promise<void> => {
      let slot: Pinned | undefined;
      let event = 0n;
      for (const part of parts) {
        if (slot === undefined) {
          driver.within(() => {
            this.#stream ??= driver.createStream();
            event = this.#createEvent();
            slot = takePinned(driver);
            slots.push(slot);
          });
        }
        const pinned = slot!.address;
        const { address, at, rowBytes, count } = part;
        const piece = host.subarray(at, at + rowBytes * count);
        if (this.#isWriting) await writeLater(pinned, piece);
        const stream = this.#stream!;
        driver.within(() => {
          if (count === 1) driver.copyLater(pinned, address, rowBytes, stream);
          else driver.copyRowsLater(pinned, address, part, stream);
        });
        await this.#mark(event, stream);
        if (!this.#isWriting) await copyLater(piece, pinned);
      }
    };
    const copiers = Array.from(
      { length: PINNED_COUNT },
      () => copySome().catch((error) => void failures.push(error)),
    );
    await Promise.all(copiers);
    if (failures.length === 0) return slots.forEach(givePinned);
    driver.within(() => {
      const stream = this.#stream;
      // Copies may still be on their way to or from it.
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
function* runOf(
  address: bigint,
  at: number,
  length: number,
): Generator<Part> {
  for (let done = 0; done < length; done += PINNED_BYTES) {
    const rowBytes = Math.min(PINNED_BYTES, length - done);
    const start = { address: address + BigInt(done), at: at + done };
    yield { ...start, rowBytes, pitch: rowBytes, count: 1 };
  }
}

/** Rows, in parts. */
function* rowsOf(
  address: bigint,
  { pitch, rowBytes, count }: DeviceRows,
): Generator<Part> {
  const atOnce = Math.floor(PINNED_BYTES / rowBytes);
  for (let row = 0; row < count; row += Math.max(1, atOnce)) {
    const start = address + BigInt(row) * BigInt(pitch);
    const at = row * rowBytes;
    if (atOnce === 0) yield* runOf(start, at, rowBytes);
    else {
      const rows = Math.min(atOnce, count - row);
      yield { address: start, at, rowBytes, pitch, count: rows };
    }
  }
}
