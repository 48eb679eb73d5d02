/**
 * ROCm, by HIP's runtime.
 *
 * @module
 */

import { addressOfArray } from "../memory.ts";
import { hasDriver, openDriver } from "./driver.ts";
import { GpuMemory, waitFor } from "./gpu.ts";
import { DEVICE_ORDINAL, INVALID_VALUE, SUCCESS } from "./gpu_calls.ts";
import {
  GpuDriver,
  type GpuPlace,
  type GpuRows,
  gpuSymbols,
} from "./gpu_driver.ts";
import type { DeviceMemory, DeviceRuntime } from "./runtime.ts";

const place = {
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
  names: {
    synchronize: "hipDeviceSynchronize",
    copyToHost: "hipMemcpyDtoH",
    copyToDevice: "hipMemcpyHtoD",
    copyToHostLater: "hipMemcpyDtoHAsync",
    copyToDeviceLater: "hipMemcpyHtoDAsync",
    allocatePinned: "hipHostMalloc",
    freePinned: "hipHostFree",
    createStream: "hipStreamCreateWithFlags",
    destroyStream: "hipStreamDestroy",
    synchronizeStream: "hipStreamSynchronize",
    createEvent: "hipEventCreateWithFlags",
    destroyEvent: "hipEventDestroy",
    recordEvent: "hipEventRecord",
    queryEvent: "hipEventQuery",
    waitForEvent: "hipEventSynchronize",
  },
  defaultStream: 0n,
} as const satisfies GpuPlace;

const symbols = {
  ...gpuSymbols(place.names),
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
  hipMemcpy2D: {
    parameters: [
      "u64", // void *dst
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
const HOST_TO_DEVICE = 1;
const DEVICE_TO_HOST = 2;

/** Copies the memory of AMD's GPUs to the host, and to it. */
export const rocm: DeviceRuntime = {
  name: place.name,
  isHere: () => hasDriver(place, symbols),
  open: openMemory,
  openForWriting: openMemory,
};

function openMemory(memory: DeviceMemory): GpuMemory {
  const wait = waitFor(memory, refuseStream);
  const library = openDriver(place, symbols, memory);
  return new GpuMemory(new HipDriver(library, memory), wait);
}

function refuseStream(stream: bigint): string | null {
  if (stream !== 1n && stream !== 2n) return null;
  return `ROCm has no stream ${stream}; pass 0 for the default stream, or a ` +
    "stream's handle";
}

class HipDriver extends GpuDriver {
  readonly #hip: Hip;
  #device: number;

  constructor(hip: Hip, memory: DeviceMemory) {
    super(memory, hip, place, {
      who: "runtime",
      hints,
      nameOf: (status) => nameOf(hip, status),
      forget: () => forgetError(hip),
    });
    this.#hip = hip;
    this.#device = memory.id;
  }

  override get place(): bigint {
    return BigInt(this.#device);
  }

  override open(): void {
    const { data, byteOffset } = this.memory;
    const { hipPointerGetAttribute } = this.#hip;
    const address = data + BigInt(byteOffset);
    this.calls.check("hipInit", this.#hip.hipInit(0));
    // What the runtime says of the memory counts, not what the struct says.
    const ordinal = new Int32Array(2);
    const status = hipPointerGetAttribute(ordinal, DEVICE_ORDINAL, address);
    const call = "hipPointerGetAttribute";
    if (status === INVALID_VALUE) throw this.calls.unknown(call, address);
    this.calls.check(call, status);
    this.#device = ordinal[0]!;
    this.within(() => this.calls.checkRange(address, (at) => this.#endAt(at)));
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
    this.calls.check("hipMemGetAddressRange", status);
    return base[0]! + size[0]!;
  }

  override within<T>(calls: () => T): T {
    const { hipGetDevice, hipSetDevice } = this.#hip;
    const before = new Int32Array(1);
    this.calls.check("hipGetDevice", hipGetDevice(before));
    this.calls.check("hipSetDevice", hipSetDevice(this.#device));
    let status = SUCCESS;
    let result: T;
    try {
      result = calls();
    } finally {
      status = hipSetDevice(before[0]!);
      if (status !== SUCCESS) forgetError(this.#hip);
    }
    this.calls.check("hipSetDevice", status);
    return result;
  }

  override copyRows(
    host: Uint8Array<ArrayBuffer>,
    device: bigint,
    rows: GpuRows,
  ): void {
    const address = addressOfArray(host);
    const status = this.#hip.hipMemcpy2D(...this.#rows(address, device, rows));
    this.calls.check("hipMemcpy2D", status);
  }

  override copyRowsLater(
    host: bigint,
    device: bigint,
    rows: GpuRows,
    stream: bigint,
  ): void {
    const { hipMemcpy2DAsync } = this.#hip;
    const status = hipMemcpy2DAsync(...this.#rows(host, device, rows), stream);
    this.calls.check("hipMemcpy2DAsync", status);
  }

  /** The arguments for rows that lie side by side in the host's memory. */
  #rows(
    host: bigint,
    device: bigint,
    { pitch, rowBytes, count }: GpuRows,
  ): Parameters<Hip["hipMemcpy2D"]> {
    const row = BigInt(rowBytes);
    const [there, here] = [[device, BigInt(pitch)], [host, row]] as const;
    return this.memory.access === "write"
      ? [...there, ...here, row, BigInt(count), HOST_TO_DEVICE]
      : [...here, ...there, row, BigInt(count), DEVICE_TO_HOST];
  }

  override isPinned(address: bigint): boolean {
    const ordinal = new Int32Array(2);
    const { hipPointerGetAttribute } = this.#hip;
    if (
      hipPointerGetAttribute(ordinal, DEVICE_ORDINAL, address) === SUCCESS
    ) return true;
    forgetError(this.#hip);
    return false;
  }

  override close(): void {}
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
