/**
 * ROCm, by HIP's runtime.
 *
 * @module
 */

import { deviceError, type DriverPlace, openDriver } from "./driver.ts";
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
  name: "ROCm's HIP runtime",
  variable: "DLPACK_ROCM_LIBRARY",
  sonames: {
    linux: [
      "libamdhip64.so",
      "libamdhip64.so.7",
      "libamdhip64.so.6",
      "libamdhip64.so.5",
    ],
    windows: ["amdhip64_7.dll", "amdhip64_6.dll", "amdhip64.dll"],
  },
};

const symbols = {
  hipInit: {
    parameters: [
      "u32", // unsigned int flags
    ],
    result: "i32",
  },
  hipGetErrorName: {
    parameters: [
      "i32", // hipError_t hip_error
    ],
    result: "pointer",
  },
  hipGetLastError: {
    parameters: [],
    result: "i32",
  },
  hipGetDevice: {
    parameters: [
      "buffer", // int *deviceId
    ],
    result: "i32",
  },
  hipSetDevice: {
    parameters: [
      "i32", // int deviceId
    ],
    result: "i32",
  },
  hipDeviceSynchronize: {
    parameters: [],
    result: "i32",
  },
  hipPointerGetAttribute: {
    parameters: [
      "buffer", // void *data
      "u32", // hipPointer_attribute attribute
      "u64", // hipDeviceptr_t ptr
    ],
    result: "i32",
  },
  hipMemGetAddressRange: {
    parameters: [
      "buffer", // hipDeviceptr_t *pbase
      "buffer", // size_t *psize
      "u64", // hipDeviceptr_t dptr
    ],
    result: "i32",
  },
  hipMemcpyDtoH: {
    parameters: [
      "buffer", // void *dst
      "u64", // hipDeviceptr_t src
      "usize", // size_t sizeBytes
    ],
    result: "i32",
  },
  hipMemcpyDtoHAsync: {
    parameters: [
      "u64", // void *dst
      "u64", // hipDeviceptr_t src
      "usize", // size_t sizeBytes
      "u64", // hipStream_t stream
    ],
    result: "i32",
  },
  hipMemcpy2D: {
    parameters: [
      "buffer", // void *dst
      "usize", // size_t dpitch
      "u64", // const void *src
      "usize", // size_t spitch
      "usize", // size_t width
      "usize", // size_t height
      "i32", // hipMemcpyKind kind
    ],
    result: "i32",
  },
  hipMemcpy2DAsync: {
    parameters: [
      "u64", // void *dst
      "usize", // size_t dpitch
      "u64", // const void *src
      "usize", // size_t spitch
      "usize", // size_t width
      "usize", // size_t height
      "i32", // hipMemcpyKind kind
      "u64", // hipStream_t stream
    ],
    result: "i32",
  },
  hipHostMalloc: {
    parameters: [
      "buffer", // void **ptr
      "usize", // size_t size
      "u32", // unsigned int flags
    ],
    result: "i32",
  },
  hipHostFree: {
    parameters: [
      "u64", // void *ptr
    ],
    result: "i32",
  },
  hipStreamCreateWithFlags: {
    parameters: [
      "buffer", // hipStream_t *stream
      "u32", // unsigned int flags
    ],
    result: "i32",
  },
  hipStreamDestroy: {
    parameters: [
      "u64", // hipStream_t stream
    ],
    result: "i32",
  },
  hipStreamSynchronize: {
    parameters: [
      "u64", // hipStream_t stream
    ],
    result: "i32",
  },
  hipEventCreateWithFlags: {
    parameters: [
      "buffer", // hipEvent_t *event
      "u32", // unsigned int flags
    ],
    result: "i32",
  },
  hipEventDestroy: {
    parameters: [
      "u64", // hipEvent_t event
    ],
    result: "i32",
  },
  hipEventRecord: {
    parameters: [
      "u64", // hipEvent_t event
      "u64", // hipStream_t stream
    ],
    result: "i32",
  },
  hipEventQuery: {
    parameters: [
      "u64", // hipEvent_t event
    ],
    result: "i32",
  },
  hipEventSynchronize: {
    parameters: [
      "u64", // hipEvent_t event
    ],
    result: "i32",
    nonblocking: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

type Hip = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** `hipError_t`, beside those that CUDA has as well. */
const NOT_FOUND = 500;

/** What to do about some errors. */
const hints: Readonly<Record<number, string>> = {
  2: "free memory of the host or the device",
  35: "update the driver",
  100: "check that rocminfo lists a GPU",
  101: "check that rocminfo lists the GPU",
  400: "ROCm knows no such stream",
  700: "a kernel of the library that made the tensor went wrong before",
  709: "ROCm knows no such stream, or its device was reset",
};

/** `hipMemcpyKind`. */
const DEVICE_TO_HOST = 2;

const DEFAULT_STREAM = 0n;

/** Copies the memory of AMD's GPUs to the host. */
export const rocm: DeviceRuntime = {
  name: place.name,
  open: openMemory,
};

function openMemory(memory: DeviceMemory): DeviceReader {
  const wait = waitFor(memory);
  const driver = new HipDriver(openDriver(place, symbols, memory), memory);
  driver.open();
  return new GpuReader(driver, memory, wait, DEFAULT_STREAM);
}

/** Streams are numbered as the array API says. */
function waitFor(memory: DeviceMemory): Wait {
  const { stream } = memory;
  if (stream === null) return "everything";
  if (BigInt(stream) === -1n) return "nothing";
  if (BigInt(stream) === 1n || BigInt(stream) === 2n) {
    throw deviceError(
      memory,
      `ROCm has no stream ${stream}; pass 0 for the default stream, or a ` +
        "stream's handle",
    );
  }
  return BigInt(stream);
}

class HipDriver implements GpuDriver {
  readonly #hip: Hip;
  readonly #memory: DeviceMemory;
  readonly #calls: GpuCalls;
  #device: number;

  constructor(hip: Hip, memory: DeviceMemory) {
    this.#hip = hip;
    this.#memory = memory;
    this.#device = memory.id;
    this.#calls = new GpuCalls(memory, {
      who: "runtime",
      hints,
      nameOf: (status) => nameOf(hip, status),
      forget: () => forgetError(hip),
    });
  }

  get library(): object {
    return this.#hip;
  }

  get place(): bigint {
    return BigInt(this.#device);
  }

  /** Finds the memory's device, and checks that it is memory. */
  open(): void {
    const { data, byteOffset } = this.#memory;
    const { hipPointerGetAttribute } = this.#hip;
    const address = data + BigInt(byteOffset);
    this.#calls.check("hipInit", this.#hip.hipInit(0));
    // What the runtime says of the memory counts, not what the struct says.
    const ordinal = new Int32Array(2);
    const status = hipPointerGetAttribute(ordinal, DEVICE_ORDINAL, address);
    const call = "hipPointerGetAttribute";
    if (status === INVALID_VALUE) throw this.#calls.unknown(call, address);
    this.#calls.check(call, status);
    this.#device = ordinal[0]!;
    this.within(() => this.#calls.checkRange(address, (at) => this.#endAt(at)));
  }

  /** The end of the allocation at an address, where the runtime knows one. */
  #endAt(address: bigint): bigint | null {
    const { hipMemGetAddressRange } = this.#hip;
    const [base, size] = [new BigUint64Array(1), new BigUint64Array(1)];
    const status = hipMemGetAddressRange(base, size, address);
    if (status === NOT_FOUND || status === INVALID_VALUE) {
      forgetError(this.#hip);
      return null;
    }
    this.#calls.check("hipMemGetAddressRange", status);
    return base[0]! + size[0]!;
  }

  within<T>(calls: () => T): T {
    const { hipGetDevice, hipSetDevice } = this.#hip;
    const before = new Int32Array(1);
    this.#calls.check("hipGetDevice", hipGetDevice(before));
    this.#calls.check("hipSetDevice", hipSetDevice(this.#device));
    let status = SUCCESS;
    let result: T;
    try {
      result = calls();
    } finally {
      status = hipSetDevice(before[0]!);
      if (status !== SUCCESS) forgetError(this.#hip);
    }
    this.#calls.check("hipSetDevice", status);
    return result;
  }

  synchronize(): void {
    this.#calls.check("hipDeviceSynchronize", this.#hip.hipDeviceSynchronize());
  }

  synchronizeStream(stream: bigint): void {
    const status = this.#hip.hipStreamSynchronize(stream);
    this.#calls.check("hipStreamSynchronize", status);
  }

  copy(into: Uint8Array<ArrayBuffer>, from: bigint): void {
    const length = BigInt(into.length);
    const status = this.#hip.hipMemcpyDtoH(into, from, length);
    this.#calls.check("hipMemcpyDtoH", status);
  }

  copyRows(
    into: Uint8Array<ArrayBuffer>,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
  ): void {
    const status = this.#hip.hipMemcpy2D(
      into,
      BigInt(rowBytes),
      from,
      BigInt(pitch),
      BigInt(rowBytes),
      BigInt(count),
      DEVICE_TO_HOST,
    );
    this.#calls.check("hipMemcpy2D", status);
  }

  copyLater(
    into: bigint,
    from: bigint,
    length: number,
    stream: bigint,
  ): void {
    const { hipMemcpyDtoHAsync } = this.#hip;
    const status = hipMemcpyDtoHAsync(into, from, BigInt(length), stream);
    this.#calls.check("hipMemcpyDtoHAsync", status);
  }

  copyRowsLater(
    into: bigint,
    from: bigint,
    pitch: number,
    rowBytes: number,
    count: number,
    stream: bigint,
  ): void {
    const status = this.#hip.hipMemcpy2DAsync(
      into,
      BigInt(rowBytes),
      from,
      BigInt(pitch),
      BigInt(rowBytes),
      BigInt(count),
      DEVICE_TO_HOST,
      stream,
    );
    this.#calls.check("hipMemcpy2DAsync", status);
  }

  isPinned(address: bigint): boolean {
    const ordinal = new Int32Array(2);
    const { hipPointerGetAttribute } = this.#hip;
    if (
      hipPointerGetAttribute(ordinal, DEVICE_ORDINAL, address) === SUCCESS
    ) return true;
    forgetError(this.#hip);
    return false;
  }

  allocatePinned(length: number): bigint {
    const { hipHostMalloc } = this.#hip;
    return this.#calls.made(
      "hipHostMalloc",
      (made) => hipHostMalloc(made, BigInt(length), 0),
    );
  }

  freePinned(address: bigint): void {
    this.#calls.check("hipHostFree", this.#hip.hipHostFree(address));
  }

  createStream(): bigint {
    const { hipStreamCreateWithFlags } = this.#hip;
    return this.#calls.made(
      "hipStreamCreateWithFlags",
      (made) => hipStreamCreateWithFlags(made, NON_BLOCKING),
    );
  }

  destroyStream(stream: bigint): void {
    const status = this.#hip.hipStreamDestroy(stream);
    this.#calls.check("hipStreamDestroy", status);
  }

  createEvent(): bigint {
    const { hipEventCreateWithFlags } = this.#hip;
    return this.#calls.made(
      "hipEventCreateWithFlags",
      (made) => hipEventCreateWithFlags(made, BLOCKING_SYNC | DISABLE_TIMING),
    );
  }

  destroyEvent(event: bigint): void {
    this.#calls.check("hipEventDestroy", this.#hip.hipEventDestroy(event));
  }

  record(event: bigint, stream: bigint): void {
    this.#calls.check(
      "hipEventRecord",
      this.#hip.hipEventRecord(event, stream),
    );
  }

  isDone(event: bigint): boolean {
    return this.#calls.isReady("hipEventQuery", this.#hip.hipEventQuery(event));
  }

  async waitLater(event: bigint): Promise<boolean> {
    const status = await this.#hip.hipEventSynchronize(event);
    this.#calls.check("hipEventSynchronize", status);
    return true;
  }

  close(): void {}
}

function nameOf(hip: Hip, status: number): string | null {
  const name = hip.hipGetErrorName(status);
  return name && Deno.UnsafePointerView.getCString(name);
}

/**
 * HIP keeps the last error of each thread until somebody asks for it. Other
 * libraries do so after their own calls, and would take this one for theirs.
 */
function forgetError(hip: Hip): void {
  hip.hipGetLastError();
}
