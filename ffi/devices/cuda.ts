/**
 * CUDA, by its driver: no toolkit is needed.
 *
 * @module
 */

import { MEMCPY2D } from "../abi.ts";
import { addressOfArray } from "../memory.ts";
import { deviceError, hasDriver, openDriver } from "./driver.ts";
import { GpuMemory, waitFor } from "./gpu.ts";
import {
  DEVICE_ORDINAL,
  INVALID_CONTEXT,
  INVALID_VALUE,
  SUCCESS,
} from "./gpu_calls.ts";
import {
  GpuDriver,
  type GpuPlace,
  type GpuRows,
  gpuSymbols,
} from "./gpu_driver.ts";
import type { DeviceMemory, DeviceRuntime } from "./runtime.ts";

const place = {
  name: "the CUDA driver",
  variable: "DLPACK_CUDA_LIBRARY",
  sonames: {
    linux: ["libcuda.so.1", "libcuda.so"],
    windows: ["nvcuda.dll"],
  },
  // Those that end with _v2 are of 64 bits; the plain ones are older.
  names: {
    synchronize: "cuCtxSynchronize",
    copyToHost: "cuMemcpyDtoH_v2",
    copyToDevice: "cuMemcpyHtoD_v2",
    copyToHostLater: "cuMemcpyDtoHAsync_v2",
    copyToDeviceLater: "cuMemcpyHtoDAsync_v2",
    allocatePinned: "cuMemHostAlloc",
    freePinned: "cuMemFreeHost",
    createStream: "cuStreamCreate",
    destroyStream: "cuStreamDestroy_v2",
    synchronizeStream: "cuStreamSynchronize",
    createEvent: "cuEventCreate",
    destroyEvent: "cuEventDestroy_v2",
    recordEvent: "cuEventRecord",
    queryEvent: "cuEventQuery",
    waitForEvent: "cuEventSynchronize",
  },
  // The legacy one: what is in it waits for all blocking streams.
  defaultStream: 1n,
} as const satisfies GpuPlace;

const symbols = {
  ...gpuSymbols(place.names),
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
  cuPointerGetAttribute: {
    parameters: [
      "buffer", // void *data
      "u32", // CUpointer_attribute attribute
      "u64", // CUdeviceptr ptr
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
} as const satisfies Deno.ForeignLibraryInterface;

type Cuda = Deno.DynamicLibrary<typeof symbols>["symbols"];

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

/** The longest pitch of a copy of rows. */
const MAX_PITCH = 2 ** 31 - 1;

/** Copies the memory of NVIDIA's GPUs to the host, and to it. */
export const cuda: DeviceRuntime = {
  name: place.name,
  isHere: () => hasDriver(place, symbols),
  open: openMemory,
  openForWriting: openMemory,
};

function openMemory(memory: DeviceMemory): GpuMemory {
  const wait = waitFor(memory, refuseStream);
  const library = openDriver(place, symbols, memory);
  return new GpuMemory(new CudaDriver(library, memory), wait);
}

/** 1 and 2 are the driver's own handles of the default streams. */
function refuseStream(stream: bigint): string | null {
  if (stream !== 0n) return null;
  return "stream 0 can be two of CUDA's; pass 1 for the legacy default " +
    "stream, 2 for the per-thread one";
}

class CudaDriver extends GpuDriver {
  readonly #cuda: Cuda;
  /** The memory's context; 0 until it is known. */
  #context = 0n;
  /** Whose primary contexts are to be released. */
  readonly #retained: number[] = [];

  constructor(cuda: Cuda, memory: DeviceMemory) {
    super(memory, cuda, place, {
      who: "driver",
      hints,
      nameOf: (status) => nameOf(cuda, status),
      forget() {}, // a status is all there is of an error
    });
    this.#cuda = cuda;
  }

  override get place(): bigint {
    return this.#context;
  }

  override open(): void {
    const { data, byteOffset, id } = this.memory;
    const address = data + BigInt(byteOffset);
    this.calls.check("cuInit", this.#cuda.cuInit(0));
    let { status, value } = this.#ask(DEVICE_ORDINAL, address);
    if (status === INVALID_CONTEXT) {
      this.#context = this.#retain(id);
      ({ status, value } = this.within(() =>
        this.#ask(DEVICE_ORDINAL, address)
      ));
    }
    const call = "cuPointerGetAttribute";
    if (status === INVALID_VALUE) throw this.calls.unknown(call, address);
    this.calls.check(call, status);
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
        this.memory,
        "it is a CUDA array; have the library copy it to linear memory",
      );
    }
    const end = this.#endAt(address);
    // Drivers before 11.0 cannot tell.
    if (end === null) return;
    this.calls.checkRange(
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

  override within<T>(calls: () => T): T {
    const { cuCtxPushCurrent_v2, cuCtxPopCurrent_v2 } = this.#cuda;
    this.calls.check(
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
    this.calls.check("cuCtxPopCurrent_v2", status);
    return result;
  }

  override copyRows(
    host: Uint8Array<ArrayBuffer>,
    device: bigint,
    rows: GpuRows,
  ): void {
    const { pitch, rowBytes, count } = rows;
    if (pitch > MAX_PITCH) {
      for (let row = 0; row < count; row++) {
        const part = host.subarray(row * rowBytes, (row + 1) * rowBytes);
        this.copy(part, device + BigInt(row) * BigInt(pitch));
      }
      return;
    }
    const address = addressOfArray(host);
    const copy = this.#rows(address, device, rows);
    this.calls.check("cuMemcpy2D_v2", this.#cuda.cuMemcpy2D_v2(copy));
  }

  override copyRowsLater(
    host: bigint,
    device: bigint,
    rows: GpuRows,
    stream: bigint,
  ): void {
    const { pitch, rowBytes, count } = rows;
    if (pitch > MAX_PITCH) {
      for (let row = 0; row < count; row++) {
        const part = host + BigInt(row * rowBytes);
        const at = device + BigInt(row) * BigInt(pitch);
        this.copyLater(part, at, rowBytes, stream);
      }
      return;
    }
    const copy = this.#rows(host, device, rows);
    const status = this.#cuda.cuMemcpy2DAsync_v2(copy, stream);
    this.calls.check("cuMemcpy2DAsync_v2", status);
  }

  /** A `CUDA_MEMCPY2D` of rows that lie side by side in the host's memory. */
  #rows(
    host: bigint,
    device: bigint,
    { pitch, rowBytes, count }: GpuRows,
  ): BigUint64Array<ArrayBuffer> {
    const copy = new BigUint64Array(MEMCPY2D.size / 8);
    if (this.memory.access === "write") {
      copy[MEMCPY2D.srcMemoryType / 8] = HOST;
      copy[MEMCPY2D.srcHost / 8] = host;
      copy[MEMCPY2D.srcPitch / 8] = BigInt(rowBytes);
      copy[MEMCPY2D.dstMemoryType / 8] = DEVICE;
      copy[MEMCPY2D.dstDevice / 8] = device;
      copy[MEMCPY2D.dstPitch / 8] = BigInt(pitch);
    } else {
      copy[MEMCPY2D.srcMemoryType / 8] = DEVICE;
      copy[MEMCPY2D.srcDevice / 8] = device;
      copy[MEMCPY2D.srcPitch / 8] = BigInt(pitch);
      copy[MEMCPY2D.dstMemoryType / 8] = HOST;
      copy[MEMCPY2D.dstHost / 8] = host;
      copy[MEMCPY2D.dstPitch / 8] = BigInt(rowBytes);
    }
    copy[MEMCPY2D.widthInBytes / 8] = BigInt(rowBytes);
    copy[MEMCPY2D.height / 8] = BigInt(count);
    return copy;
  }

  override isPinned(address: bigint): boolean {
    return this.#ask(MEMORY_TYPE, address).value === HOST;
  }

  override close(): void {
    for (const device of this.#retained.splice(0)) {
      this.#cuda.cuDevicePrimaryCtxRelease_v2(device);
    }
  }

  /** The primary context of a device: the one that CUDA's runtime API uses. */
  #retain(ordinal: number): bigint {
    const { cuDeviceGet, cuDevicePrimaryCtxRetain } = this.#cuda;
    const device = new Int32Array(1);
    this.calls.check("cuDeviceGet", cuDeviceGet(device, ordinal));
    const context = this.calls.made(
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

function nameOf(cuda: Cuda, status: number): string | null {
  const name = new BigUint64Array(1);
  if (cuda.cuGetErrorName(status, name) !== SUCCESS) return null;
  const pointer = Deno.UnsafePointer.create(name[0]!);
  return pointer && Deno.UnsafePointerView.getCString(pointer);
}
