/**
 * The runtime of a GPU: what CUDA's driver and ROCm's HIP have alike, under
 * other names.
 *
 * @module
 */

import type { DriverPlace } from "./driver.ts";
import {
  BLOCKING_SYNC,
  DISABLE_TIMING,
  type ErrorReport,
  GpuCalls,
  INVALID_CONTEXT,
  NON_BLOCKING,
} from "./gpu_calls.ts";
import type { PinnedDriver } from "./pinned.ts";
import type { DeviceMemory, DeviceRows } from "./runtime.ts";

/** The functions that are the same; types are CUDA's, where HIP's are like them. */
const alike = {
  /** Waits for all work of the current context or device. */
  synchronize: { parameters: [], result: "i32" },
  /** Copies, and waits. */
  copyToHost: {
    parameters: [
      "buffer", // void *dstHost
      "u64", // CUdeviceptr srcDevice
      "usize", // size_t ByteCount
    ],
    result: "i32",
  },
  copyToDevice: {
    parameters: [
      "u64", // CUdeviceptr dstDevice
      "buffer", // const void *srcHost
      "usize", // size_t ByteCount
    ],
    result: "i32",
  },
  /** Copies from or to pinned memory, when the stream comes to it. */
  copyToHostLater: {
    parameters: [
      "u64", // void *dstHost
      "u64", // CUdeviceptr srcDevice
      "usize", // size_t ByteCount
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  copyToDeviceLater: {
    parameters: [
      "u64", // CUdeviceptr dstDevice
      "u64", // const void *srcHost
      "usize", // size_t ByteCount
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  allocatePinned: {
    parameters: [
      "buffer", // void **pp
      "usize", // size_t bytesize
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  freePinned: {
    parameters: [
      "u64", // void *p
    ],
    result: "i32",
  },
  createStream: {
    parameters: [
      "buffer", // CUstream *phStream
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  destroyStream: {
    parameters: [
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  synchronizeStream: {
    parameters: [
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  createEvent: {
    parameters: [
      "buffer", // CUevent *phEvent
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  destroyEvent: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
  },
  recordEvent: {
    parameters: [
      "u64", // CUevent hEvent
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  queryEvent: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
  },
  waitForEvent: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
    nonblocking: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** What a runtime calls them. */
export type GpuNames = Readonly<Record<keyof typeof alike, string>>;

type Named = {
  readonly [K in keyof typeof alike]: typeof alike[K] & {
    readonly name: string;
  };
};

/** Those functions, of a library that is open. */
export type GpuLibrary = Deno.DynamicLibrary<Named>["symbols"];

/** A runtime's table of those functions. */
export function gpuSymbols(names: GpuNames): Named {
  const named = Object.entries(alike).map(([key, symbol]) => [
    key,
    { ...symbol, name: names[key as keyof GpuNames] },
  ]);
  return Object.fromEntries(named);
}

/** What to wait for: a stream's work, all work, or nothing. */
export type Wait = bigint | "everything" | "nothing";

/** A GPU's runtime, as such. */
export interface GpuPlace extends DriverPlace {
  /** What it calls the functions that are alike. */
  readonly names: GpuNames;
  /** The default stream, in which a mark is behind the work of most others. */
  readonly defaultStream: bigint;
}

/** Rows that lie side by side on the host, and on the device at `pitch`. */
export type GpuRows = Pick<DeviceRows, "pitch" | "rowBytes" | "count">;

/**
 * The calls of a GPU's runtime for one tensor. Copies go where the memory's
 * `access` says: to the host, or from it. All but `open`, `within`, `waitLater`
 * and `close` are made inside of `within`, and throw a `BufferError` when the
 * runtime reports an error.
 */
export abstract class GpuDriver implements PinnedDriver {
  /** The tensor's memory. */
  readonly memory: DeviceMemory;
  /** The runtime's library. */
  readonly library: GpuLibrary;
  /** The default stream. */
  readonly defaultStream: bigint;
  /** Looks at what calls return. */
  protected readonly calls: GpuCalls;
  readonly #names: GpuNames;
  readonly #isWriting: boolean;

  constructor(
    memory: DeviceMemory,
    library: GpuLibrary,
    { names, defaultStream }: GpuPlace,
    report: ErrorReport,
  ) {
    this.memory = memory;
    this.library = library;
    this.defaultStream = defaultStream;
    this.calls = new GpuCalls(memory, report);
    this.#names = names;
    this.#isWriting = memory.access === "write";
  }

  /** The context or device of the memory. */
  abstract get place(): bigint;

  /** Finds the memory's context or device, and checks that it is memory. */
  abstract open(): void;

  /** Gives back what opening took. Never throws. */
  abstract close(): void;

  /**
   * Runs calls while the memory's context or device is the current one of this
   * thread; afterwards it is what it was before. Nothing may wait inside: other
   * code of the thread would find the wrong one.
   */
  abstract within<T>(calls: () => T): T;

  /** Copies rows, which lie side by side on the host, and waits. */
  abstract copyRows(
    host: Uint8Array<ArrayBuffer>,
    device: bigint,
    rows: GpuRows,
  ): void;

  /** The same with pinned memory, later. */
  abstract copyRowsLater(
    host: bigint,
    device: bigint,
    rows: GpuRows,
    stream: bigint,
  ): void;

  /** Whether pinned memory is still there. */
  abstract isPinned(address: bigint): boolean;

  /** Waits for all work of the context or device. */
  synchronize(): void {
    this.#check("synchronize", this.library.synchronize());
  }

  /** Waits for the work of a stream. */
  synchronizeStream(stream: bigint): void {
    this.#check("synchronizeStream", this.library.synchronizeStream(stream));
  }

  /** Copies, and waits. */
  copy(host: Uint8Array<ArrayBuffer>, device: bigint): void {
    const { copyToHost, copyToDevice } = this.library;
    const length = BigInt(host.length);
    if (this.#isWriting) {
      this.#check("copyToDevice", copyToDevice(device, host, length));
    } else this.#check("copyToHost", copyToHost(host, device, length));
  }

  /** Copies to or from pinned memory, later. */
  copyLater(
    host: bigint,
    device: bigint,
    length: number,
    stream: bigint,
  ): void {
    const { copyToHostLater, copyToDeviceLater } = this.library;
    const bytes = BigInt(length);
    if (this.#isWriting) {
      const status = copyToDeviceLater(device, host, bytes, stream);
      this.#check("copyToDeviceLater", status);
    } else {
      const status = copyToHostLater(host, device, bytes, stream);
      this.#check("copyToHostLater", status);
    }
  }

  /** Pinned memory of the host. */
  allocatePinned(length: number): bigint {
    return this.#made(
      "allocatePinned",
      (made) => this.library.allocatePinned(made, BigInt(length), 0),
    );
  }

  /** Gives it back. */
  freePinned(address: bigint): void {
    this.#check("freePinned", this.library.freePinned(address));
  }

  /** A stream that no other waits for. */
  createStream(): bigint {
    return this.#made(
      "createStream",
      (made) => this.library.createStream(made, NON_BLOCKING),
    );
  }

  /** Ends it. */
  destroyStream(stream: bigint): void {
    this.#check("destroyStream", this.library.destroyStream(stream));
  }

  /** A mark in a stream. */
  createEvent(): bigint {
    const flags = BLOCKING_SYNC | DISABLE_TIMING;
    return this.#made(
      "createEvent",
      (made) => this.library.createEvent(made, flags),
    );
  }

  /** Ends it. */
  destroyEvent(event: bigint): void {
    this.#check("destroyEvent", this.library.destroyEvent(event));
  }

  /** Puts a mark behind the work that a stream has. */
  record(event: bigint, stream: bigint): void {
    this.#check("recordEvent", this.library.recordEvent(event, stream));
  }

  /** Whether the work before a mark is done. */
  isDone(event: bigint): boolean {
    const status = this.library.queryEvent(event);
    return this.calls.isReady(this.#names.queryEvent, status);
  }

  /**
   * Waits for the work before a mark, on another thread, so outside of
   * `within`.
   *
   * @returns Whether it is done; not where the runtime cannot wait without a
   * context, which no thread but this one has.
   */
  async waitLater(event: bigint): Promise<boolean> {
    const status = await this.library.waitForEvent(event);
    if (status === INVALID_CONTEXT) return false;
    this.#check("waitForEvent", status);
    return true;
  }

  #check(call: keyof GpuNames, status: number): void {
    this.calls.check(this.#names[call], status);
  }

  #made(
    call: keyof GpuNames,
    make: (made: BigUint64Array<ArrayBuffer>) => number,
  ): bigint {
    return this.calls.made(this.#names[call], make);
  }
}
