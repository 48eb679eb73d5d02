/** SYCL's memory as a producer makes it, for tests: by dpctl's C interface. */

const symbols = {
  DPCTLDeviceMgr_GetDevices: { parameters: ["i32"], result: "u64" }, // DPCTLDeviceVectorRef (int device_identifier)
  DPCTLDeviceVector_Size: { parameters: ["u64"], result: "usize" }, // size_t (DPCTLDeviceVectorRef)
  DPCTLDeviceVector_GetAt: { parameters: ["u64", "usize"], result: "u64" }, // DPCTLSyclDeviceRef (DPCTLDeviceVectorRef, size_t index)
  DPCTLDevice_HasAspect: { parameters: ["u64", "i32"], result: "bool" }, // bool (DPCTLSyclDeviceRef, DPCTLSyclAspectType)
  DPCTLDevice_GetName: { parameters: ["u64"], result: "pointer" }, // const char *(DPCTLSyclDeviceRef)
  DPCTLContext_Create: {
    parameters: ["u64", "pointer", "i32"],
    result: "u64",
  }, // DPCTLSyclContextRef (DPCTLSyclDeviceRef, error_handler_callback *, int properties)
  DPCTLContext_Delete: { parameters: ["u64"], result: "void" }, // void (DPCTLSyclContextRef)
  DPCTLQueue_Create: {
    parameters: ["u64", "u64", "pointer", "i32"],
    result: "u64",
  }, // DPCTLSyclQueueRef (DPCTLSyclContextRef, DPCTLSyclDeviceRef, error_handler_callback *, int properties)
  DPCTLQueue_CreateForDevice: {
    parameters: ["u64", "pointer", "i32"],
    result: "u64",
  }, // DPCTLSyclQueueRef (DPCTLSyclDeviceRef, error_handler_callback *, int properties)
  DPCTLQueue_GetContext: { parameters: ["u64"], result: "u64" }, // DPCTLSyclContextRef (DPCTLSyclQueueRef)
  DPCTLQueue_Delete: { parameters: ["u64"], result: "void" }, // void (DPCTLSyclQueueRef)
  DPCTLQueue_Memcpy: {
    parameters: ["u64", "u64", "buffer", "usize"],
    result: "u64",
  }, // DPCTLSyclEventRef (DPCTLSyclQueueRef, void *dest, const void *src, size_t count)
  copyToHost: {
    name: "DPCTLQueue_Memcpy",
    parameters: ["u64", "buffer", "u64", "usize"],
    result: "u64",
  },
  DPCTLQueue_Memset: {
    parameters: ["u64", "u64", "u8", "usize"],
    result: "u64",
  }, // DPCTLSyclEventRef (DPCTLSyclQueueRef, void *, uint8_t value, size_t count)
  DPCTLEvent_Wait: { parameters: ["u64"], result: "void" }, // void (DPCTLSyclEventRef)
  DPCTLEvent_Delete: { parameters: ["u64"], result: "void" }, // void (DPCTLSyclEventRef)
  DPCTLmalloc_device: { parameters: ["usize", "u64"], result: "u64" }, // void *(size_t size, DPCTLSyclQueueRef)
  DPCTLmalloc_shared: { parameters: ["usize", "u64"], result: "u64" }, // void *(size_t size, DPCTLSyclQueueRef)
  DPCTLmalloc_host: { parameters: ["usize", "u64"], result: "u64" }, // void *(size_t size, DPCTLSyclQueueRef)
  DPCTLfree_with_queue: { parameters: ["u64", "u64"], result: "void" }, // void (void *, DPCTLSyclQueueRef)
} as const;

const ALL_DEVICES = 31 << 16 | 63;
const USM_DEVICE_ALLOCATIONS = 12;
const IN_ORDER = 1 << 1;

/** The kinds of USM. */
export type UsmKind = "device" | "shared" | "host";

/** All of them. */
export const usmKinds: readonly UsmKind[] = ["device", "shared", "host"];

/** Makes memory in the default context of one device. */
export class Sycl {
  readonly #sycl: Deno.DynamicLibrary<typeof symbols>["symbols"];
  readonly #device: bigint;
  /** A queue of the default context. */
  readonly queue: bigint;
  /** What the device is called. */
  readonly deviceName: string;

  constructor(
    sycl: Deno.DynamicLibrary<typeof symbols>["symbols"],
    device: bigint,
  ) {
    this.#sycl = sycl;
    this.#device = device;
    this.queue = this.newQueue();
    const name = sycl.DPCTLDevice_GetName(device)!;
    this.deviceName = Deno.UnsafePointerView.getCString(name);
  }

  /** A queue of the default context. */
  newQueue(): bigint {
    const { DPCTLQueue_CreateForDevice } = this.#sycl;
    return made(DPCTLQueue_CreateForDevice(this.#device, null, IN_ORDER));
  }

  /** The context of a queue, which is a new reference. */
  contextOf(queue: bigint): bigint {
    return made(this.#sycl.DPCTLQueue_GetContext(queue));
  }

  /** Ends that reference. */
  deleteContext(context: bigint): void {
    this.#sycl.DPCTLContext_Delete(context);
  }

  /** A queue of a context that is not the default one. */
  queueOfOtherContext(): bigint {
    const context = made(this.#sycl.DPCTLContext_Create(this.#device, null, 0));
    const { DPCTLQueue_Create } = this.#sycl;
    const queue = made(DPCTLQueue_Create(context, this.#device, null, 0));
    this.#sycl.DPCTLContext_Delete(context);
    return queue;
  }

  /** Gives a queue back. */
  deleteQueue(queue: bigint): void {
    this.#sycl.DPCTLQueue_Delete(queue);
  }

  /** Memory of a kind, with these bytes. */
  allocate(
    bytes: Uint8Array<ArrayBuffer>,
    kind: UsmKind = "device",
    queue: bigint = this.queue,
  ): bigint {
    const size = BigInt(bytes.length);
    const at = made(this.#sycl[`DPCTLmalloc_${kind}`](size, queue));
    this.#finish(this.#sycl.DPCTLQueue_Memcpy(queue, at, bytes, size));
    return at;
  }

  /** Gives memory back. */
  free(at: bigint, queue: bigint = this.queue): void {
    this.#sycl.DPCTLfree_with_queue(at, queue);
  }

  /** The bytes that are in memory. */
  read(at: bigint, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    const { queue } = this;
    this.#finish(this.#sycl.copyToHost(queue, bytes, at, BigInt(length)));
    return bytes;
  }

  /** Has a queue fill memory, and does not wait. */
  fillLater(queue: bigint, at: bigint, value: number, length: number): void {
    const { DPCTLQueue_Memset, DPCTLEvent_Delete } = this.#sycl;
    const event = DPCTLQueue_Memset(queue, at, value, BigInt(length));
    DPCTLEvent_Delete(made(event));
  }

  #finish(event: bigint): void {
    this.#sycl.DPCTLEvent_Wait(made(event));
    this.#sycl.DPCTLEvent_Delete(event);
  }
}

/** SYCL on the first device that has USM, or why there is none. */
export function openSycl(path: string): Sycl | string {
  try {
    const { symbols: sycl } = Deno.dlopen(path, symbols);
    const devices = made(sycl.DPCTLDeviceMgr_GetDevices(ALL_DEVICES));
    const count = sycl.DPCTLDeviceVector_Size(devices);
    for (let i = 0n; i < count; i++) {
      const device = sycl.DPCTLDeviceVector_GetAt(devices, i);
      if (sycl.DPCTLDevice_HasAspect(device, USM_DEVICE_ALLOCATIONS)) {
        return new Sycl(sycl, device);
      }
    }
    return `none of SYCL's ${count} devices has USM`;
  } catch (error) {
    return (error as Error).message.split("\n")[0]!;
  }
}

function made(ref: bigint): bigint {
  if (ref === 0n) throw new Error("dpctl returned NULL");
  return ref;
}
