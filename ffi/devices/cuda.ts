/**
 * CUDA, by its driver: no toolkit is needed.
 *
 * @module
 */

import { MEMCPY2D } from "../abi.ts";
import { addressOfArray } from "../memory.ts";
import {
  deviceError,
  type DriverPlace,
  hasDriver,
  openDriver,
} from "./driver.ts";
import { type GpuDriver, GpuReader, type Wait } from "./gpu.ts";
import {
  BLOCKING_SYNC,
  DEVICE_ORDINAL,
  DISABLE_TIMING,
  GpuCalls,
  INVALID_VALUE,
  NON_BLOCKING,
  SUCCESS,
} from "./gpu_calls.ts";
import type { DeviceMemory, DeviceReader, DeviceRuntime } from "./runtime.ts";

const place: DriverPlace = {
  name: "the CUDA driver",
  variable: "DLPACK_CUDA_LIBRARY",
  sonames: {
    linux: ["libcuda.so.1", "libcuda.so"],
    windows: ["nvcuda.dll"],
  },
};

// The names that end with _v2 are those of 64 bits; the plain ones are older.
const symbols = {
  cuInit: {
    parameters: [
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  cuGetErrorName: {
    parameters: [
      "i32", // CUresult error
      "buffer", // const char **pStr
    ],
    result: "i32",
  },
  cuDeviceGet: {
    parameters: [
      "buffer", // CUdevice *device
      "i32", // int ordinal
    ],
    result: "i32",
  },
  cuDevicePrimaryCtxRetain: {
    parameters: [
      "buffer", // CUcontext *pctx
      "i32", // CUdevice dev
    ],
    result: "i32",
  },
  cuDevicePrimaryCtxRelease_v2: {
    parameters: [
      "i32", // CUdevice dev
    ],
    result: "i32",
  },
  cuCtxPushCurrent_v2: {
    parameters: [
      "u64", // CUcontext ctx
    ],
    result: "i32",
  },
  cuCtxPopCurrent_v2: {
    parameters: [
      "buffer", // CUcontext *pctx
    ],
    result: "i32",
  },
  cuCtxSynchronize: {
    parameters: [],
    result: "i32",
  },
  cuPointerGetAttribute: {
    parameters: [
      "buffer", // void *data
      "u32", // CUpointer_attribute attribute
      "u64", // CUdeviceptr ptr
    ],
    result: "i32",
  },
  cuMemcpyDtoH_v2: {
    parameters: [
      "buffer", // void *dstHost
      "u64", // CUdeviceptr srcDevice
      "usize", // size_t ByteCount
    ],
    result: "i32",
  },
  cuMemcpyDtoHAsync_v2: {
    parameters: [
      "u64", // void *dstHost
      "u64", // CUdeviceptr srcDevice
      "usize", // size_t ByteCount
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  cuMemcpy2D_v2: {
    parameters: [
      "buffer", // const CUDA_MEMCPY2D *pCopy
    ],
    result: "i32",
  },
  cuMemcpy2DAsync_v2: {
    parameters: [
      "buffer", // const CUDA_MEMCPY2D *pCopy
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  cuMemHostAlloc: {
    parameters: [
      "buffer", // void **pp
      "usize", // size_t bytesize
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  cuMemFreeHost: {
    parameters: [
      "u64", // void *p
    ],
    result: "i32",
  },
  cuStreamCreate: {
    parameters: [
      "buffer", // CUstream *phStream
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  cuStreamDestroy_v2: {
    parameters: [
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  cuStreamSynchronize: {
    parameters: [
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  cuEventCreate: {
    parameters: [
      "buffer", // CUevent *phEvent
      "u32", // unsigned int Flags
    ],
    result: "i32",
  },
  cuEventDestroy_v2: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
  },
  cuEventRecord: {
    parameters: [
      "u64", // CUevent hEvent
      "u64", // CUstream hStream
    ],
    result: "i32",
  },
  cuEventQuery: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
  },
  cuEventSynchronize: {
    parameters: [
      "u64", // CUevent hEvent
    ],
    result: "i32",
    nonblocking: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

type Cuda = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** `CUresult`, beside those that HIP has as well. */
const INVALID_CONTEXT = 201;

/** What to do about some errors. */
const hints: Readonly<Record<number, string>> = {
  2: "free memory of the host or the device",
  34: "this library is only for linking; name the driver's own in " +
    place.variable,
  35: "update the driver",
  100: "check that nvidia-smi lists a GPU",
  101: "check that nvidia-smi lists that GPU",
  400: "CUDA knows no such stream",
  700: "a kernel of the library that made the tensor went wrong before",
  803: "driver and kernel module differ; restart the machine",
  999: "check that nvidia-smi works",
};

/** `CUpointer_attribute`, beside those that HIP has as well. */
const CONTEXT = 1;
const MEMORY_TYPE = 2;
const RANGE_START_ADDR = 11;
const RANGE_SIZE = 12;

/** `CUmemorytype`. */
const HOST = 1n;
const DEVICE = 2n;
const ARRAY = 3n;

/** The legacy default stream: what is in it waits for all blocking streams. */
const LEGACY_STREAM = 1n;

/** The longest pitch of a copy of rows. */
const MAX_PITCH = 2 ** 31 - 1;

/** Copies the memory of NVIDIA's GPUs to the host. */
export const cuda: DeviceRuntime = {
  name: place.name,
  isHere: () => hasDriver(place, symbols),
  open: openMemory,
};

function openMemory(memory: DeviceMemory): DeviceReader {
  const wait = waitFor(memory);
  const driver = new CudaDriver(openDriver(place, symbols, memory), memory);
  try {
    driver.open();
  } catch (error) {
    driver.close();
    throw error;
  }
  return new GpuReader(driver, memory, wait, LEGACY_STREAM);
}

/** Streams are numbered as the array API says. */
function waitFor(memory: DeviceMemory): Wait {
  const { stream } = memory;
  if (stream === null) return "everything";
  if (BigInt(stream) === -1n) return "nothing";
  if (BigInt(stream) === 0n) {
    throw deviceError(
      memory,
      "stream 0 can be two of CUDA's; pass 1 for the legacy default stream, 2 " +
        "for the per-thread one",
    );
  }
  // 1 and 2 are the driver's own handles of those two.
  return BigInt(stream);
}

class CudaDriver implements GpuDriver {
  readonly #cuda: Cuda;
  readonly #memory: DeviceMemory;
  readonly #calls: GpuCalls;
  /** The memory's context; 0 until it is known. */
  #context = 0n;
  /** Whose primary contexts are to be released. */
  readonly #retained: number[] = [];

  constructor(cuda: Cuda, memory: DeviceMemory) {
    this.#cuda = cuda;
    this.#memory = memory;
    this.#calls = new GpuCalls(memory, {
      who: "driver",
      hints,
      nameOf: (status) => nameOf(cuda, status),
      forget() {}, // a status is all there is of an error
    });
  }

  get library(): object {
    return this.#cuda;
  }

  get place(): bigint {
    return this.#context;
  }

  /** Finds the memory's context, and checks that it is memory. */
  open(): void {
    const { data, byteOffset, id } = this.#memory;
    const address = data + BigInt(byteOffset);
    this.#calls.check("cuInit", this.#cuda.cuInit(0));
    let { status, value } = this.#ask(DEVICE_ORDINAL, address);
    if (status === INVALID_CONTEXT) {
      this.#context = this.#retain(id);
      ({ status, value } = this.within(() =>
        this.#ask(DEVICE_ORDINAL, address)
      ));
    }
    const call = "cuPointerGetAttribute";
    if (status === INVALID_VALUE) throw this.#calls.unknown(call, address);
    this.#calls.check(call, status);
    // What the driver says of the memory counts, not what the struct says.
    const ordinal = Number(value);
    const ask = (): bigint => this.#ask(CONTEXT, address).value;
    const context = this.#context === 0n ? ask() : this.within(ask);
    this.#context = context !== 0n ? context : this.#retain(ordinal);
    this.within(() => this.#checkMemory(address));
  }

  #checkMemory(address: bigint): void {
    if (this.#ask(MEMORY_TYPE, address).value === ARRAY) {
      throw deviceError(
        this.#memory,
        "it is a CUDA array; have the library copy it to linear memory",
      );
    }
    const end = this.#endAt(address);
    // Drivers before 11.0 cannot tell.
    if (end === null) return;
    this.#calls.checkRange(
      address,
      (at) => at === address ? end : this.#endAt(at),
    );
  }

  /** The end of the allocation at an address, where the driver knows one. */
  #endAt(address: bigint): bigint | null {
    const start = this.#ask(RANGE_START_ADDR, address);
    const size = this.#ask(RANGE_SIZE, address);
    const isKnown = start.status === SUCCESS && size.status === SUCCESS;
    return isKnown ? start.value + size.value : null;
  }

  within<T>(calls: () => T): T {
    const { cuCtxPushCurrent_v2, cuCtxPopCurrent_v2 } = this.#cuda;
    this.#calls.check(
      "cuCtxPushCurrent_v2",
      cuCtxPushCurrent_v2(this.#context),
    );
    let status = SUCCESS;
    let result: T;
    try {
      result = calls();
    } finally {
      status = cuCtxPopCurrent_v2(answer);
    }
    this.#calls.check("cuCtxPopCurrent_v2", status);
    return result;
  }

  synchronize(): void {
    this.#calls.check("cuCtxSynchronize", this.#cuda.cuCtxSynchronize());
  }

  synchronizeStream(stream: bigint): void {
    const status = this.#cuda.cuStreamSynchronize(stream);
    this.#calls.check("cuStreamSynchronize", status);
  }

  copy(into: Uint8Array<ArrayBuffer>, from: bigint): void {
    const length = BigInt(into.length);
    const status = this.#cuda.cuMemcpyDtoH_v2(into, from, length);
    this.#calls.check("cuMemcpyDtoH_v2", status);
  }

  copyRows(
    into: Uint8Array<ArrayBuffer>,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
  ): void {
    if (pitch > MAX_PITCH) {
      for (let row = 0; row < count; row++) {
        const part = into.subarray(row * rowBytes, (row + 1) * rowBytes);
        this.copy(part, from + BigInt(row) * BigInt(pitch));
      }
      return;
    }
    const copy = rowsTo(addressOfArray(into), from, pitch, rowBytes, count);
    this.#calls.check("cuMemcpy2D_v2", this.#cuda.cuMemcpy2D_v2(copy));
  }

  copyLater(
    into: bigint,
    from: bigint,
    length: number,
    stream: bigint,
  ): void {
    const { cuMemcpyDtoHAsync_v2 } = this.#cuda;
    const status = cuMemcpyDtoHAsync_v2(into, from, BigInt(length), stream);
    this.#calls.check("cuMemcpyDtoHAsync_v2", status);
  }

  copyRowsLater(
    into: bigint,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
    stream: bigint,
  ): void {
    if (pitch > MAX_PITCH) {
      for (let row = 0; row < count; row++) {
        const to = into + BigInt(row * rowBytes);
        const start = from + BigInt(row) * BigInt(pitch);
        this.copyLater(to, start, rowBytes, stream);
      }
      return;
    }
    const copy = rowsTo(into, from, pitch, rowBytes, count);
    const status = this.#cuda.cuMemcpy2DAsync_v2(copy, stream);
    this.#calls.check("cuMemcpy2DAsync_v2", status);
  }

  isPinned(address: bigint): boolean {
    return this.#ask(MEMORY_TYPE, address).value === HOST;
  }

  allocatePinned(length: number): bigint {
    const { cuMemHostAlloc } = this.#cuda;
    return this.#calls.made(
      "cuMemHostAlloc",
      (made) => cuMemHostAlloc(made, BigInt(length), 0),
    );
  }

  freePinned(address: bigint): void {
    this.#calls.check("cuMemFreeHost", this.#cuda.cuMemFreeHost(address));
  }

  createStream(): bigint {
    const { cuStreamCreate } = this.#cuda;
    return this.#calls.made(
      "cuStreamCreate",
      (made) => cuStreamCreate(made, NON_BLOCKING),
    );
  }

  destroyStream(stream: bigint): void {
    const status = this.#cuda.cuStreamDestroy_v2(stream);
    this.#calls.check("cuStreamDestroy_v2", status);
  }

  createEvent(): bigint {
    const { cuEventCreate } = this.#cuda;
    return this.#calls.made(
      "cuEventCreate",
      (made) => cuEventCreate(made, BLOCKING_SYNC | DISABLE_TIMING),
    );
  }

  destroyEvent(event: bigint): void {
    const status = this.#cuda.cuEventDestroy_v2(event);
    this.#calls.check("cuEventDestroy_v2", status);
  }

  record(event: bigint, stream: bigint): void {
    this.#calls.check("cuEventRecord", this.#cuda.cuEventRecord(event, stream));
  }

  isDone(event: bigint): boolean {
    return this.#calls.isReady("cuEventQuery", this.#cuda.cuEventQuery(event));
  }

  async waitLater(event: bigint): Promise<boolean> {
    const status = await this.#cuda.cuEventSynchronize(event);
    // No thread but this one has the context.
    if (status === INVALID_CONTEXT) return false;
    this.#calls.check("cuEventSynchronize", status);
    return true;
  }

  close(): void {
    for (const device of this.#retained.splice(0)) {
      this.#cuda.cuDevicePrimaryCtxRelease_v2(device);
    }
  }

  /** The primary context of a device: the one that CUDA's runtime API uses. */
  #retain(ordinal: number): bigint {
    const { cuDeviceGet, cuDevicePrimaryCtxRetain } = this.#cuda;
    const device = new Int32Array(1);
    this.#calls.check("cuDeviceGet", cuDeviceGet(device, ordinal));
    const context = this.#calls.made(
      "cuDevicePrimaryCtxRetain",
      (made) => cuDevicePrimaryCtxRetain(made, device[0]!),
    );
    this.#retained.push(device[0]!);
    return context;
  }

  /** Asks what memory is at an address. */
  #ask(
    attribute: number,
    address: bigint,
  ): { status: number; value: bigint } {
    // 32 bits of it where that is all there is to an answer.
    answer[0] = 0n;
    const { cuPointerGetAttribute } = this.#cuda;
    const status = cuPointerGetAttribute(answer, attribute, address);
    return { status, value: status === SUCCESS ? answer[0]! : 0n };
  }
}

/** What the driver writes to; read at once. */
const answer = new BigUint64Array(1);

/** A `CUDA_MEMCPY2D` of rows that come to lie side by side in the host's memory. */
function rowsTo(
  into: bigint,
  from: bigint,
  pitch: number,
  rowBytes: number,
  count: number,
): BigUint64Array<ArrayBuffer> {
  const copy = new BigUint64Array(MEMCPY2D.size / 8);
  copy[MEMCPY2D.srcMemoryType / 8] = DEVICE;
  copy[MEMCPY2D.srcDevice / 8] = from;
  copy[MEMCPY2D.srcPitch / 8] = BigInt(pitch);
  copy[MEMCPY2D.dstMemoryType / 8] = HOST;
  copy[MEMCPY2D.dstHost / 8] = into;
  copy[MEMCPY2D.dstPitch / 8] = BigInt(rowBytes);
  copy[MEMCPY2D.widthInBytes / 8] = BigInt(rowBytes);
  copy[MEMCPY2D.height / 8] = BigInt(count);
  return copy;
}

function nameOf(cuda: Cuda, status: number): string | null {
  const name = new BigUint64Array(1);
  if (cuda.cuGetErrorName(status, name) !== SUCCESS) return null;
  const pointer = Deno.UnsafePointer.create(name[0]!);
  return pointer && Deno.UnsafePointerView.getCString(pointer);
}
