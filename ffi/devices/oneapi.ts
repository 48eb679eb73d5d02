/**
 * oneAPI: SYCL's unified shared memory (USM), by dpctl's C interface to SYCL.
 *
 * SYCL is C++, and what it throws would end the process here. DLPack's memory of
 * oneAPI belongs to the default context of a platform, which only SYCL has: the
 * C interfaces below it (Unified Runtime, Level Zero, OpenCL) ask for a context
 * and list none. dpctl's library is C, has that context, copies on every
 * backend, and is there wherever dpctl or dpnp made the memory. It tells the
 * kind of a pointer, but not how long the memory is: that says OpenCL's USM
 * extension, of the context that SYCL's has below, where OpenCL is the backend.
 *
 * Memory of kind shared and host is copied like that of kind device: a struct
 * does not tell the kinds apart, and the host may look at shared memory only
 * while no command writes to it, which a view cannot promise.
 *
 * @module
 */

import { SHARED_POINTER } from "../abi.ts";
import { readCautiously } from "./cautious.ts";
import {
  deviceError,
  type DriverPlace,
  findDriver,
  openDriver,
} from "./driver.ts";
import type {
  DeviceMemory,
  DeviceReader,
  DeviceRows,
  DeviceRuntime,
  DeviceWriter,
} from "./runtime.ts";

const place: DriverPlace = {
  name: "dpctl's C interface to SYCL",
  variable: "DLPACK_ONEAPI_LIBRARY",
  // Where Python has loaded it, these names find it wherever it lies.
  sonames: {
    linux: ["libDPCTLSyclInterface.so", "libDPCTLSyclInterface.so.0"],
    windows: ["DPCTLSyclInterface.dll"],
  },
};

/** How an event is waited for, blocking this thread or another. */
const wait = {
  name: "DPCTLEvent_Wait",
  parameters: [
    "u64", // DPCTLSyclEventRef ERef
  ],
  result: "void",
} as const;

/** How a queue is waited for, blocking this thread or another. */
const waitForQueue = {
  name: "DPCTLQueue_Wait",
  parameters: [
    "u64", // const DPCTLSyclQueueRef QRef
  ],
  result: "void",
} as const;

const symbols = {
  DPCTLDeviceMgr_GetDevices: {
    parameters: [
      "i32", // int device_identifier
    ],
    result: "u64", // DPCTLDeviceVectorRef
  },
  DPCTLDeviceVector_Size: {
    parameters: [
      "u64", // DPCTLDeviceVectorRef Ref
    ],
    result: "usize",
  },
  DPCTLDeviceVector_GetAt: {
    parameters: [
      "u64", // DPCTLDeviceVectorRef Ref
      "usize", // size_t index
    ],
    result: "u64", // DPCTLSyclDeviceRef
  },
  DPCTLDeviceVector_Delete: {
    parameters: [
      "u64", // DPCTLDeviceVectorRef Ref
    ],
    result: "void",
  },
  DPCTLDevice_HasAspect: {
    parameters: [
      "u64", // const DPCTLSyclDeviceRef DRef
      "i32", // DPCTLSyclAspectType AT
    ],
    result: "bool",
  },
  DPCTLDevice_AreEq: {
    parameters: [
      "u64", // const DPCTLSyclDeviceRef DRef1
      "u64", // const DPCTLSyclDeviceRef DRef2
    ],
    result: "bool",
  },
  DPCTLDevice_Delete: {
    parameters: [
      "u64", // DPCTLSyclDeviceRef DRef
    ],
    result: "void",
  },
  DPCTLDeviceMgr_GetCachedContext: {
    parameters: [
      "u64", // const DPCTLSyclDeviceRef DRef
    ],
    result: "u64", // DPCTLSyclContextRef
  },
  DPCTLContext_GetBackend: {
    parameters: [
      "u64", // const DPCTLSyclContextRef CtxRef
    ],
    result: "i32", // DPCTLSyclBackendType
  },
  DPCTLContext_AreEq: {
    parameters: [
      "u64", // const DPCTLSyclContextRef CtxRef1
      "u64", // const DPCTLSyclContextRef CtxRef2
    ],
    result: "bool",
  },
  DPCTLContext_Delete: {
    parameters: [
      "u64", // DPCTLSyclContextRef CtxRef
    ],
    result: "void",
  },
  DPCTLUSM_GetPointerType: {
    parameters: [
      "u64", // const DPCTLSyclUSMRef MRef
      "u64", // const DPCTLSyclContextRef CRef
    ],
    result: "i32", // DPCTLSyclUSMType
  },
  DPCTLUSM_GetPointerDevice: {
    parameters: [
      "u64", // const DPCTLSyclUSMRef MRef
      "u64", // const DPCTLSyclContextRef CRef
    ],
    result: "u64", // DPCTLSyclDeviceRef
  },
  DPCTLQueue_Create: {
    parameters: [
      "u64", // const DPCTLSyclContextRef CRef
      "u64", // const DPCTLSyclDeviceRef DRef
      "pointer", // error_handler_callback *handler
      "i32", // int properties
    ],
    result: "u64", // DPCTLSyclQueueRef
  },
  DPCTLQueue_GetContext: {
    parameters: [
      "u64", // const DPCTLSyclQueueRef QRef
    ],
    result: "u64", // DPCTLSyclContextRef
  },
  copyToHost: {
    name: "DPCTLQueue_Memcpy",
    parameters: [
      "u64", // const DPCTLSyclQueueRef QRef
      "buffer", // void *Dest
      "u64", // const void *Src
      "usize", // size_t Count
    ],
    result: "u64", // DPCTLSyclEventRef
  },
  copyFromHost: {
    name: "DPCTLQueue_Memcpy",
    parameters: [
      "u64", // const DPCTLSyclQueueRef QRef
      "u64", // void *Dest
      "buffer", // const void *Src
      "usize", // size_t Count
    ],
    result: "u64", // DPCTLSyclEventRef
  },
  DPCTLEvent_GetCommandExecutionStatus: {
    parameters: [
      "u64", // DPCTLSyclEventRef ERef
    ],
    result: "i32", // DPCTLSyclEventStatusType
  },
  DPCTLEvent_Delete: {
    parameters: [
      "u64", // DPCTLSyclEventRef ERef
    ],
    result: "void",
  },
  wait,
  waitAsync: { ...wait, nonblocking: true },
  waitForQueue,
  waitForQueueAsync: { ...waitForQueue, nonblocking: true },
  // sycl::context::getNative() of libsycl, which the library above needs: the
  // cl_context, with one reference more.
  nativeContext: {
    name: "_ZNK4sycl3_V17context9getNativeEv",
    parameters: [
      "u64", // const sycl::context *this
    ],
    result: "u64", // ur_native_handle_t
    optional: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

type Sycl = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** `DPCTLSyclBackendType` and `DPCTLSyclDeviceType`: all of both. */
const ALL_DEVICES = 31 << 16 | 63;
const BACKEND_OPENCL = 1 << 18;

/** `DPCTLSyclAspectType`: USM of kind device, host and shared. */
const USM_ASPECTS = [12, 13, 14];

/** `DPCTLSyclUSMType`, from the first kind to the last; 0 is none. */
const DEVICE = 1;
const HOST = 3;

/** `DPCTLQueuePropertyType`. */
const IN_ORDER = 1 << 1;

/** `DPCTLSyclEventStatusType`. */
const COMPLETE = 3;

/**
 * What takes no longer than to hand it to another thread, about, in bytes: it is
 * copied at once, also asynchronously.
 */
const AT_ONCE = 1024 * 1024;

/** The OpenCL that SYCL itself has open. */
const openclPlace: DriverPlace = {
  name: "the OpenCL loader",
  variable: "DLPACK_OPENCL_LIBRARY",
  sonames: { linux: ["libOpenCL.so.1"], windows: ["OpenCL.dll"] },
};

const openclSymbols = {
  clGetContextInfo: {
    parameters: [
      "u64", // cl_context context
      "u32", // cl_context_info param_name
      "usize", // size_t param_value_size
      "buffer", // void *param_value
      "buffer", // size_t *param_value_size_ret
    ],
    result: "i32",
  },
  clReleaseContext: {
    parameters: [
      "u64", // cl_context context
    ],
    result: "i32",
  },
  clGetDeviceInfo: {
    parameters: [
      "u64", // cl_device_id device
      "u32", // cl_device_info param_name
      "usize", // size_t param_value_size
      "buffer", // void *param_value
      "buffer", // size_t *param_value_size_ret
    ],
    result: "i32",
  },
  clGetExtensionFunctionAddressForPlatform: {
    parameters: [
      "u64", // cl_platform_id platform
      "buffer", // const char *func_name
    ],
    result: "pointer",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** `clGetMemAllocInfoINTEL`, of cl_intel_unified_shared_memory. */
const allocInfo = {
  parameters: [
    "u64", // cl_context context
    "u64", // const void *ptr
    "u32", // cl_mem_info_intel param_name
    "usize", // size_t param_value_size
    "buffer", // void *param_value
    "buffer", // size_t *param_value_size_ret
  ],
  result: "i32",
} as const satisfies Deno.ForeignFunction;

const CL_DEVICE_PLATFORM = 0x1031;
const CL_CONTEXT_DEVICES = 0x1081;
const CL_MEM_ALLOC_BASE_PTR_INTEL = 0x419b;
const CL_MEM_ALLOC_SIZE_INTEL = 0x419c;

/** A context in which memory can be, for as long as the process lives. */
interface Home {
  /** Of which device, by the order in which SYCL lists all. */
  readonly id: number;
  /** The default context of that device's platform. */
  readonly context: bigint;
  /**
   * A queue of ours for each device that had memory. They are not made anew for
   * every tensor: of one that was used and deleted 11 KB stay behind (measured
   * with libsycl 9 and Intel's OpenCL 2026.2).
   */
  readonly queues: Map<bigint, bigint>;
  /** The end of an allocation, where its backend tells. */
  readonly endAt: ((address: bigint) => bigint | null) | null;
}

/** Copies USM to the host, and to it. */
export const oneapi: DeviceRuntime = {
  name: place.name,
  open: (memory) => new Usm(memory),
  openForWriting: (memory) => new Usm(memory),
};

class Usm implements DeviceReader, DeviceWriter {
  readonly #sycl: Sycl;
  readonly #memory: DeviceMemory;
  /** Of the lowest element. */
  readonly #address: bigint;
  /** The producer's queue, if it is known. */
  readonly #producer: bigint | null;
  readonly #queue: bigint;

  constructor(memory: DeviceMemory) {
    this.#memory = memory;
    this.#address = memory.data + BigInt(memory.byteOffset);
    this.#sycl = openDriver(place, symbols, memory);
    const home = this.#home();
    this.#checkRange(home);
    this.#queue = this.#queueOf(home);
    this.#producer = this.#checkStream(home);
  }

  /**
   * Waits for the producer's queue, where the capsule names it as its stream.
   * Without that there is nothing to wait on: SYCL does not list the queues of
   * a context. Whoever hands memory over must have finished the commands that
   * use it.
   */
  synchronize(): void {
    if (this.#producer !== null) this.#sycl.waitForQueue(this.#producer);
  }

  async synchronizeAsync(): Promise<void> {
    if (this.#producer === null) return;
    await this.#sycl.waitForQueueAsync(this.#producer);
  }

  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void {
    this.#finish(this.#startReading(byteOffset, into));
  }

  async readAsync(
    byteOffset: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (into.length <= AT_ONCE) return this.read(byteOffset, into);
    await this.#finishLater(this.#startReading(byteOffset, into), into);
  }

  write(byteOffset: number, from: Uint8Array<ArrayBuffer>): void {
    this.#finish(this.#startWriting(byteOffset, from));
  }

  async writeAsync(
    byteOffset: number,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    if (from.length <= AT_ONCE) return this.write(byteOffset, from);
    await this.#finishLater(this.#startWriting(byteOffset, from), from);
  }

  writeRows(rows: DeviceRows, from: Uint8Array<ArrayBuffer>): void {
    this.#finish(this.#startWritingRows(rows, from));
  }

  async writeRowsAsync(
    rows: DeviceRows,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    await this.#finishLater(this.#startWritingRows(rows, from), from);
  }

  /** The queue stays, for the next one. */
  [Symbol.dispose](): void {}

  #startReading(byteOffset: number, into: Uint8Array<ArrayBuffer>): bigint {
    const at = this.#address + BigInt(byteOffset);
    const length = BigInt(into.length);
    const event = this.#sycl.copyToHost(this.#queue, into, at, length);
    return this.#made("DPCTLQueue_Memcpy", event);
  }

  #startWriting(byteOffset: number, from: Uint8Array<ArrayBuffer>): bigint {
    const at = this.#address + BigInt(byteOffset);
    const length = BigInt(from.length);
    const event = this.#sycl.copyFromHost(this.#queue, at, from, length);
    return this.#made("DPCTLQueue_Memcpy", event);
  }

  /**
   * One command for each row, which follow each other in the queue: SYCL's copy
   * of rectangles is not in the C interface.
   *
   * @returns The event of the last one.
   */
  #startWritingRows(
    { byteOffset, pitch, rowBytes, count }: DeviceRows,
    from: Uint8Array<ArrayBuffer>,
  ): bigint {
    let last = 0n;
    try {
      for (let row = 0; row < count; row++) {
        const part = from.subarray(row * rowBytes, (row + 1) * rowBytes);
        const event = this.#startWriting(byteOffset + row * pitch, part);
        if (last !== 0n) this.#sycl.DPCTLEvent_Delete(last);
        last = event;
      }
    } catch (error) {
      if (last !== 0n) this.#finish(last);
      throw error;
    }
    return last;
  }

  #finish(event: bigint): void {
    this.#sycl.wait(event);
    this.#checkEnd(event);
  }

  /** SYCL may be called from any thread. */
  async #finishLater(
    event: bigint,
    host: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    await this.#sycl.waitAsync(event)
      .then(() => host); // which must not be collected before
    this.#checkEnd(event);
  }

  /** Checks how the command of an event ended, and gives the event back. */
  #checkEnd(event: bigint): void {
    const status = this.#sycl.DPCTLEvent_GetCommandExecutionStatus(event);
    this.#sycl.DPCTLEvent_Delete(event);
    if (status === COMPLETE) return;
    throw deviceError(
      this.#memory,
      `the copy of DPCTLQueue_Memcpy ended with status ${status}, not ` +
        `${COMPLETE} (DPCTL_COMPLETE); a kernel that ran before went wrong, or ` +
        "the device is lost",
    );
  }

  /** What a function made; NULL, when SYCL has thrown. */
  #made(call: string, ref: bigint): bigint {
    if (ref !== 0n) return ref;
    throw deviceError(
      this.#memory,
      `${call} failed and returned NULL (0); what SYCL has thrown is not told ` +
        "by this interface: free memory of the device and the host, or have " +
        "the library that made the tensor copy it",
    );
  }

  /** The context that has the memory: of the device that the struct names, first. */
  #home(): Home {
    const { id } = this.#memory;
    const homes = homesOf(this.#sycl, this.#memory);
    const first = homes.filter((home) => home.id === id);
    for (const home of [...first, ...homes]) {
      if (this.#isUsm(this.#address, home)) return home;
    }
    throw deviceError(
      this.#memory,
      `SYCL knows no USM at 0x${this.#address.toString(16)}: was it freed, ` +
        "allocated in a context of its own instead of the platform's default, " +
        "or by another libsycl than dpctl's?",
    );
  }

  /** Whether there is USM at an address, which may be any number. */
  #isUsm(address: bigint, { context }: Home): boolean {
    const in64 = BigInt.asUintN(64, address);
    const kind = this.#sycl.DPCTLUSM_GetPointerType(in64, context);
    return kind >= DEVICE && kind <= HOST;
  }

  #checkRange(home: Home): void {
    const start = this.#address;
    const end = start + BigInt(this.#memory.byteLength);
    const known = home.endAt?.(start) ?? this.#endByKinds(home, end);
    if (end <= known) return;
    throw deviceError(
      this.#memory,
      `it ends at 0x${end.toString(16)}, beyond the USM that SYCL knows ` +
        `there, which ends at 0x${
          known.toString(16)
        } or before; check the shape, ` +
        "strides and byte offset that the library gives",
    );
  }

  /**
   * Where the memory ends, as far as kinds of pointers tell: looked at in some
   * places between its ends.
   */
  #endByKinds(home: Home, end: bigint): bigint {
    const last = end - 1n - this.#address;
    for (let i = 1n; i <= PROBES; i++) {
      const at = this.#address + last * i / PROBES;
      if (!this.#isUsm(at, home)) return at;
    }
    return end;
  }

  /** The queue that is ours on the device of the memory. */
  #queueOf({ context, queues }: Home): bigint {
    const sycl = this.#sycl;
    const device = this.#made(
      "DPCTLUSM_GetPointerDevice",
      sycl.DPCTLUSM_GetPointerDevice(this.#address, context),
    );
    for (const [other, queue] of queues) {
      if (!sycl.DPCTLDevice_AreEq(device, other)) continue;
      sycl.DPCTLDevice_Delete(device);
      return queue;
    }
    const queue = sycl.DPCTLQueue_Create(context, device, null, IN_ORDER);
    if (queue === 0n) sycl.DPCTLDevice_Delete(device);
    else queues.set(device, queue);
    return this.#made("DPCTLQueue_Create", queue);
  }

  /** The queue that the capsule names; it must be one of the same context. */
  #checkStream(home: Home): bigint | null {
    const { stream } = this.#memory;
    if (stream === null || BigInt(stream) === -1n) return null;
    const queue = BigInt(stream);
    if (this.#isQueue(queue) && this.#isOfContext(queue, home)) return queue;
    throw deviceError(
      this.#memory,
      `stream ${stream} is no sycl::queue of the memory's context; pass the ` +
        "address of the one that writes it (of Python's: " +
        "queue.addressof_ref()), or -1 when it has finished",
    );
  }

  /**
   * Whether an address can be that of a `sycl::queue`.
   *
   * SYCL follows any without looking, and crashes. A queue is a shared pointer,
   * whose counter is of one class for all queues, as the first word of it says:
   * that is compared with a queue of ours. Of one that was freed nothing is
   * certain.
   */
  #isQueue(address: bigint): boolean {
    const ours = classOfCounter(this.#queue);
    return address % 8n === 0n && ours !== 0n &&
      classOfCounter(address) === ours;
  }

  #isOfContext(queue: bigint, home: Home): boolean {
    const sycl = this.#sycl;
    const context = sycl.DPCTLQueue_GetContext(queue);
    if (context === 0n) return false;
    const isSame = sycl.DPCTLContext_AreEq(context, home.context);
    sycl.DPCTLContext_Delete(context);
    return isSame;
  }
}

/** How many places in memory are looked at, where no range is known. */
const PROBES = 64n;

const known = new WeakMap<Sycl, readonly Home[]>();

/** The contexts of all devices that have USM. */
function homesOf(sycl: Sycl, memory: DeviceMemory): readonly Home[] {
  let homes = known.get(sycl);
  if (homes !== undefined) return homes;
  const devices = sycl.DPCTLDeviceMgr_GetDevices(ALL_DEVICES);
  const count = devices === 0n
    ? 0
    : Number(sycl.DPCTLDeviceVector_Size(devices));
  homes = Array.from({ length: count }, (_, id) => {
    const device = sycl.DPCTLDeviceVector_GetAt(devices, BigInt(id));
    const home = homeOf(sycl, id, device);
    sycl.DPCTLDevice_Delete(device);
    return home;
  }).filter((home) => home !== null);
  if (devices !== 0n) sycl.DPCTLDeviceVector_Delete(devices);
  if (homes.length === 0) {
    throw deviceError(
      memory,
      `SYCL lists ${count} devices, none of them with USM; check that sycl-ls ` +
        "lists one (of pip's intel-opencl-rt: name its libintelocl.so in the " +
        "environment variable OCL_ICD_FILENAMES)",
    );
  }
  known.set(sycl, homes);
  return homes;
}

/**
 * The context of a device, if it has USM: else SYCL throws when asked about
 * pointers, which the library does not catch.
 */
function homeOf(sycl: Sycl, id: number, device: bigint): Home | null {
  if (
    !USM_ASPECTS.some((aspect) => sycl.DPCTLDevice_HasAspect(device, aspect))
  ) {
    return null;
  }
  const context = sycl.DPCTLDeviceMgr_GetCachedContext(device);
  if (context === 0n) return null;
  const isOpenCL = sycl.DPCTLContext_GetBackend(context) === BACKEND_OPENCL;
  const endAt = isOpenCL ? rangesOf(sycl, context) : null;
  return { id, context, queues: new Map(), endAt };
}

/** What OpenCL tells of allocations in the context below one of SYCL's. */
function rangesOf(
  sycl: Sycl,
  context: bigint,
): ((address: bigint) => bigint | null) | null {
  const opencl = findDriver(openclPlace, openclSymbols);
  const native = sycl.nativeContext?.(context) ?? 0n;
  if (opencl === null || native === 0n) return null;
  const value = new BigUint64Array(1);
  const word = (status: number): bigint => status === 0 ? value[0]! : 0n;
  const devices = new BigUint64Array(64);
  const status = opencl.clGetContextInfo(
    native,
    CL_CONTEXT_DEVICES,
    BigInt(devices.byteLength),
    devices,
    null,
  );
  // The context lives as long as that of SYCL, and that as long as the process.
  opencl.clReleaseContext(native);
  if (status !== 0) return null;
  const platform = word(
    opencl.clGetDeviceInfo(devices[0]!, CL_DEVICE_PLATFORM, 8n, value, null),
  );
  const name = new TextEncoder().encode("clGetMemAllocInfoINTEL\0");
  const address = opencl.clGetExtensionFunctionAddressForPlatform(
    platform,
    name,
  );
  if (address === null) return null;
  const ask = new Deno.UnsafeFnPointer(
    address as Deno.PointerObject<typeof allocInfo>,
    allocInfo,
  );
  const info = (at: bigint, what: number): bigint =>
    word(ask.call(native, at, what, 8n, value, null));
  return (at) => {
    const base = info(at, CL_MEM_ALLOC_BASE_PTR_INTEL);
    const size = info(at, CL_MEM_ALLOC_SIZE_INTEL);
    return base === 0n || size === 0n ? null : base + size;
  };
}

/** What the counter of a shared pointer is, in a word; 0 where there is none. */
function classOfCounter(address: bigint): bigint {
  const counter = wordAt(address + BigInt(SHARED_POINTER.counter));
  return counter % 8n === 0n ? wordAt(counter) : 0n;
}

/** The word that an address points to; 0 where nothing can be read. */
function wordAt(address: bigint): bigint {
  return readCautiously(address, 8)?.getBigUint64(0, true) ?? 0n;
}
