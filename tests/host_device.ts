/** A device of which the memory is the host's in truth: what tests read from. */

import {
  type DeviceMemory,
  type DeviceReader,
  type DeviceRows,
  type DeviceRuntime,
  type DeviceWriter,
  registerDevice,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { bufferAt } from "../ffi/memory.ts";

/** How the device behaves. */
export interface HostDeviceOptions {
  /** Whether it can be written. */
  isWritable?: boolean;
  /** Whether it copies rows. */
  hasRows?: boolean;
  /** Whether it reads without blocking the thread. */
  isAsync?: boolean;
  /** Is called at the begin of every call, with its name and its number. */
  onCall?: (name: string, index: number) => void;
}

/**
 * A runtime that checks how it is used, and writes down every call: `"open"`,
 * `"synchronize"`, `"read"`, `"readRows"`, `"dispose"`, those that are `Async`,
 * and the same with `write`.
 */
export class HostDevice implements DeviceRuntime {
  readonly name = "a test's device";
  /** The calls so far. */
  readonly calls: string[] = [];
  /** What was opened. */
  readonly memories: DeviceMemory[] = [];
  /** The bytes that were read. */
  bytesRead = 0;
  /** The most bytes there were at once in the buffers that were read into. */
  peakBytes = 0;
  /** Every buffer that was read into. */
  readonly #buffers = new Set<ArrayBuffer>();
  readonly #options: HostDeviceOptions;

  constructor(options: HostDeviceOptions = {}) {
    this.#options = options;
    if (options.isWritable) this.openForWriting = this.#openForWriting;
  }

  /** How often something was called. */
  count(name: string): number {
    return this.calls.filter((call) => call === name).length;
  }

  /** The bytes that are in the buffers now, and in one more. */
  heldBytes(more?: ArrayBuffer): number {
    const buffers = new Set(this.#buffers);
    if (more !== undefined) buffers.add(more);
    // What was transferred has none.
    return [...buffers].reduce((sum, buffer) => sum + buffer.byteLength, 0);
  }

  /** As of a runtime; not there where the device cannot be written. */
  readonly openForWriting?: (memory: DeviceMemory) => DeviceWriter;

  open(memory: DeviceMemory): DeviceReader {
    this.#call("open");
    assertEquals(memory.access, "read");
    const { copy, copyRows, copyLater, ...rest } = this.#opened(memory);
    const { hasRows, isAsync } = this.#options;
    return {
      ...rest,
      read: (at, into) => copy("read", at, into),
      ...isAsync && {
        readAsync: (at: number, into: Uint8Array<ArrayBuffer>) =>
          copyLater("readAsync", at, into),
      },
      ...hasRows && {
        readRows: (rows: DeviceRows, into: Uint8Array<ArrayBuffer>) =>
          copyRows("readRows", rows, into),
      },
    };
  }

  #openForWriting(memory: DeviceMemory): DeviceWriter {
    this.#call("openForWriting");
    assertEquals(memory.access, "write");
    const { copy, copyRows, copyLater, ...rest } = this.#opened(memory);
    const { hasRows, isAsync } = this.#options;
    return {
      ...rest,
      write: (at, from) => copy("write", at, from),
      ...isAsync && {
        writeAsync: (at: number, from: Uint8Array<ArrayBuffer>) =>
          copyLater("writeAsync", at, from),
      },
      ...hasRows && {
        writeRows: (rows: DeviceRows, from: Uint8Array<ArrayBuffer>) =>
          copyRows("writeRows", rows, from),
      },
    };
  }

  #opened(memory: DeviceMemory) {
    this.memories.push(memory);
    let state: "open" | "ready" | "busy" | "disposed" = "open";
    const synchronize = (name: string): void => {
      assertEquals(state, "open", "synchronized once, before all else");
      this.#call(name);
      state = "ready";
    };
    const begin = (name: string, host: Uint8Array<ArrayBuffer>): void => {
      assertEquals(state, "ready");
      this.#buffers.add(host.buffer);
      this.bytesRead += host.length;
      this.peakBytes = Math.max(this.peakBytes, this.heldBytes());
      this.#call(name);
    };
    const move = (at: number, host: Uint8Array<ArrayBuffer>): void => {
      assert(Number.isSafeInteger(at) && at >= 0, `byte ${at}`);
      assert(host.length > 0, "nothing to be copied");
      assert(at + host.length <= memory.byteLength, "beyond the memory");
      const address = Number(memory.data) + memory.byteOffset + at;
      const there = bufferAt(address, host.length);
      const device = new Uint8Array(there);
      if (memory.access === "read") host.set(device);
      else device.set(host);
      there.transfer(0);
    };
    const { isAsync } = this.#options;
    return {
      synchronize: () => synchronize("synchronize"),
      ...isAsync && {
        // deno-lint-ignore require-await
        synchronizeAsync: async () => synchronize("synchronizeAsync"),
      },
      copy(name: string, at: number, host: Uint8Array<ArrayBuffer>): void {
        begin(name, host);
        move(at, host);
      },
      async copyLater(
        name: string,
        at: number,
        host: Uint8Array<ArrayBuffer>,
      ): Promise<void> {
        begin(name, host);
        state = "busy";
        await new Promise((resolve) => setTimeout(resolve));
        assertEquals(state, "busy", "disposed before the copy has ended");
        state = "ready";
        move(at, host);
      },
      copyRows(
        name: string,
        { byteOffset, pitch, rowBytes, count }: DeviceRows,
        host: Uint8Array<ArrayBuffer>,
      ): void {
        begin(name, host);
        assert(Number.isSafeInteger(pitch) && pitch >= rowBytes);
        assert(Number.isSafeInteger(rowBytes) && rowBytes > 0);
        assert(Number.isSafeInteger(count) && count >= 2);
        assertEquals(host.length, count * rowBytes);
        for (let row = 0; row < count; row++) {
          const part = host.subarray(row * rowBytes, (row + 1) * rowBytes);
          move(byteOffset + row * pitch, part);
        }
      },
      [Symbol.dispose]: () => {
        assert(state !== "disposed" && state !== "busy", `it is ${state}`);
        state = "disposed";
        this.#call("dispose");
      },
    };
  }

  #call(name: string): void {
    this.calls.push(name);
    this.#options.onCall?.(name, this.count(name) - 1);
  }
}

/** Runs something while a runtime is registered for a device type. */
export async function withRuntime<T>(
  type: number,
  runtime: DeviceRuntime,
  run: () => T | Promise<T>,
): Promise<T> {
  registerDevice(type, runtime);
  try {
    return await run();
  } finally {
    registerDevice(type, null);
  }
}
