/**
 * ROCm, by HIP's runtime.
 *
 * @module
 */

import { deviceError, type DriverPlace, openDriver } from "./driver.ts";
import { type GpuDriver, GpuReader, type Wait } from "./gpu.ts";
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
  hipStreamQuery: {
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
} as const satisfies Deno.ForeignLibraryInterface;

type Hip = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** `hipError_t`. */
const SUCCESS = 0;
const INVALID_VALUE = 1;
const NOT_FOUND = 500;
const NOT_READY = 600;

/** What to do about some of the others. */
const hints: Readonly<Record<number, string>> = {
  2: "free memory of the host or the device",
  35: "update the driver",
  100: "check that rocminfo lists a GPU",
  101: "check that rocminfo lists the GPU",
  400: "the stream is none of ROCm's",
  700: "a kernel of the library that made the tensor went wrong before",
  709: "the stream is none of ROCm's, or its device was reset",
};

/** `hipPointer_attribute`. */
const DEVICE_ORDINAL = 9;

/** `hipMemcpyKind`. */
const DEVICE_TO_HOST = 2;

const DEFAULT_STREAM = 0n;
const NON_BLOCKING = 1;
const DISABLE_TIMING = 2;

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
  #device: number;

  constructor(hip: Hip, memory: DeviceMemory) {
    this.#hip = hip;
    this.#memory = memory;
    this.#device = memory.id;
  }

  /** Finds the memory's device, and checks that it is memory. */
  open(): void {
    const { data, byteOffset } = this.#memory;
    const { hipPointerGetAttribute } = this.#hip;
    const address = data + BigInt(byteOffset);
    this.#check("hipInit", this.#hip.hipInit(0));
    // What the runtime says of the memory counts, not what the struct says.
    const ordinal = new Int32Array(2);
    const status = hipPointerGetAttribute(ordinal, DEVICE_ORDINAL, address);
    if (status === INVALID_VALUE) throw this.#unknown(address);
    this.#check("hipPointerGetAttribute", status);
    this.#device = ordinal[0]!;
    this.within(() => this.#checkRange(address));
  }

  /** The tensor must lie in one allocation, or in neighbours that touch. */
  #checkRange(address: bigint): void {
    const { hipMemGetAddressRange } = this.#hip;
    const end = address + BigInt(this.#memory.byteLength);
    const [base, size] = [new BigUint64Array(1), new BigUint64Array(1)];
    for (let at = address; at < end;) {
      const status = hipMemGetAddressRange(base, size, at);
      const isUnknown = status === NOT_FOUND || status === INVALID_VALUE;
      if (isUnknown) this.#forgetError();
      else this.#check("hipMemGetAddressRange", status);
      const next = isUnknown ? at : base[0]! + size[0]!;
      if (next <= at) {
        throw deviceError(
          this.#memory,
          `it ends at 0x${end.toString(16)}, the memory that the runtime ` +
            `knows there at 0x${at.toString(16)}`,
        );
      }
      at = next;
    }
  }

  within<T>(calls: () => T): T {
    const { hipGetDevice, hipSetDevice } = this.#hip;
    const before = new Int32Array(1);
    this.#check("hipGetDevice", hipGetDevice(before));
    this.#check("hipSetDevice", hipSetDevice(this.#device));
    let status = SUCCESS;
    let result: T;
    try {
      result = calls();
    } finally {
      status = hipSetDevice(before[0]!);
    }
    this.#check("hipSetDevice", status);
    return result;
  }

  synchronize(): void {
    this.#check("hipDeviceSynchronize", this.#hip.hipDeviceSynchronize());
  }

  synchronizeStream(stream: bigint): void {
    const status = this.#hip.hipStreamSynchronize(stream);
    this.#check("hipStreamSynchronize", status);
  }

  isIdle(stream: bigint): boolean {
    return this.#isReady("hipStreamQuery", this.#hip.hipStreamQuery(stream));
  }

  copy(into: Uint8Array<ArrayBuffer>, from: bigint): void {
    const length = BigInt(into.length);
    const status = this.#hip.hipMemcpyDtoH(into, from, length);
    this.#check("hipMemcpyDtoH", status);
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
    this.#check("hipMemcpy2D", status);
  }

  copyLater(
    into: bigint,
    from: bigint,
    length: number,
    stream: bigint,
  ): void {
    const { hipMemcpyDtoHAsync } = this.#hip;
    const status = hipMemcpyDtoHAsync(into, from, BigInt(length), stream);
    this.#check("hipMemcpyDtoHAsync", status);
  }

  allocatePinned(length: number): bigint {
    const { hipHostMalloc } = this.#hip;
    return this.#made(
      "hipHostMalloc",
      (made) => hipHostMalloc(made, BigInt(length), 0),
    );
  }

  freePinned(address: bigint): void {
    this.#check("hipHostFree", this.#hip.hipHostFree(address));
  }

  createStream(): bigint {
    const { hipStreamCreateWithFlags } = this.#hip;
    return this.#made(
      "hipStreamCreateWithFlags",
      (made) => hipStreamCreateWithFlags(made, NON_BLOCKING),
    );
  }

  destroyStream(stream: bigint): void {
    const status = this.#hip.hipStreamDestroy(stream);
    this.#check("hipStreamDestroy", status);
  }

  createEvent(): bigint {
    const { hipEventCreateWithFlags } = this.#hip;
    return this.#made(
      "hipEventCreateWithFlags",
      (made) => hipEventCreateWithFlags(made, DISABLE_TIMING),
    );
  }

  destroyEvent(event: bigint): void {
    this.#check("hipEventDestroy", this.#hip.hipEventDestroy(event));
  }

  record(event: bigint, stream: bigint): void {
    this.#check("hipEventRecord", this.#hip.hipEventRecord(event, stream));
  }

  isDone(event: bigint): boolean {
    return this.#isReady("hipEventQuery", this.#hip.hipEventQuery(event));
  }

  close(): void {}

  #made(
    call: string,
    make: (made: BigUint64Array<ArrayBuffer>) => number,
  ): bigint {
    const made = new BigUint64Array(1);
    this.#check(call, make(made));
    return made[0]!;
  }

  #isReady(call: string, status: number): boolean {
    if (status !== NOT_READY) {
      this.#check(call, status);
      return true;
    }
    this.#forgetError();
    return false;
  }

  #check(call: string, status: number): void {
    if (status === SUCCESS) return;
    this.#forgetError();
    const hint = hints[status];
    throw deviceError(
      this.#memory,
      `${call} failed with ${this.#nameOf(status)} (${status})` +
        (hint === undefined ? "" : `: ${hint}`),
    );
  }

  /**
   * HIP keeps the last error of each thread until somebody asks for it. Other
   * libraries do so after their own calls, and would take this one for theirs.
   */
  #forgetError(): void {
    this.#hip.hipGetLastError();
  }

  #nameOf(status: number): string {
    const name = this.#hip.hipGetErrorName(status);
    return name === null ? "an error" : Deno.UnsafePointerView.getCString(name);
  }

  #unknown(address: bigint): Error {
    this.#forgetError();
    return deviceError(
      this.#memory,
      `the runtime knows no memory at 0x${address.toString(16)}: was it ` +
        "freed? hipPointerGetAttribute failed with " +
        `${this.#nameOf(INVALID_VALUE)} (${INVALID_VALUE})`,
    );
  }
}
