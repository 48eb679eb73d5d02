/**
 * OpenCL: buffers (`cl_mem`) by the command queues of their own context.
 *
 * @module
 */

import { TVM_BUFFER } from "../abi.ts";
import { readCautiously } from "./cautious.ts";
import { deviceError, type DriverPlace, openDriver } from "./driver.ts";
import type {
  DeviceMemory,
  DeviceReader,
  DeviceRows,
  DeviceRuntime,
  DeviceWriter,
} from "./runtime.ts";

const place: DriverPlace = {
  name: "the OpenCL loader",
  variable: "DLPACK_OPENCL_LIBRARY",
  sonames: {
    linux: ["libOpenCL.so.1", "libOpenCL.so"],
    windows: ["OpenCL.dll"],
    darwin: ["/System/Library/Frameworks/OpenCL.framework/OpenCL"],
    freebsd: ["libOpenCL.so.1", "libOpenCL.so"],
  },
};

/** How a queue is waited for, blocking this thread or another. */
const finish = {
  name: "clFinish",
  parameters: [
    "u64", // cl_command_queue command_queue
  ],
  result: "i32",
} as const;

/** How a buffer is read, blocking this thread or another. */
const readBuffer = {
  name: "clEnqueueReadBuffer",
  parameters: [
    "u64", // cl_command_queue command_queue
    "u64", // cl_mem buffer
    "u32", // cl_bool blocking_read
    "usize", // size_t offset
    "usize", // size_t size
    "buffer", // void *ptr
    "u32", // cl_uint num_events_in_wait_list
    "pointer", // const cl_event *event_wait_list
    "pointer", // cl_event *event
  ],
  result: "i32",
} as const;

/** How a buffer is written, blocking this thread or another. */
const writeBuffer = {
  name: "clEnqueueWriteBuffer",
  parameters: [
    "u64", // cl_command_queue command_queue
    "u64", // cl_mem buffer
    "u32", // cl_bool blocking_write
    "usize", // size_t offset
    "usize", // size_t size
    "buffer", // const void *ptr
    "u32", // cl_uint num_events_in_wait_list
    "pointer", // const cl_event *event_wait_list
    "pointer", // cl_event *event
  ],
  result: "i32",
} as const;

/** How rows are read or written. */
const bufferRect = {
  parameters: [
    "u64", // cl_command_queue command_queue
    "u64", // cl_mem buffer
    "u32", // cl_bool blocking
    "buffer", // const size_t *buffer_origin
    "buffer", // const size_t *host_origin
    "buffer", // const size_t *region
    "usize", // size_t buffer_row_pitch
    "usize", // size_t buffer_slice_pitch
    "usize", // size_t host_row_pitch
    "usize", // size_t host_slice_pitch
    "buffer", // void *ptr
    "u32", // cl_uint num_events_in_wait_list
    "pointer", // const cl_event *event_wait_list
    "pointer", // cl_event *event
  ],
  result: "i32",
} as const;

const symbols = {
  clGetPlatformIDs: {
    parameters: [
      "u32", // cl_uint num_entries
      "buffer", // cl_platform_id *platforms
      "buffer", // cl_uint *num_platforms
    ],
    result: "i32",
  },
  clGetMemObjectInfo: {
    parameters: [
      "u64", // cl_mem memobj
      "u32", // cl_mem_info param_name
      "usize", // size_t param_value_size
      "buffer", // void *param_value
      "buffer", // size_t *param_value_size_ret
    ],
    result: "i32",
  },
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
  clRetainMemObject: {
    parameters: [
      "u64", // cl_mem memobj
    ],
    result: "i32",
  },
  clReleaseMemObject: {
    parameters: [
      "u64", // cl_mem memobj
    ],
    result: "i32",
  },
  // The name that every version has; clCreateCommandQueueWithProperties, which
  // replaces it, does no more for a queue without properties.
  clCreateCommandQueue: {
    parameters: [
      "u64", // cl_context context
      "u64", // cl_device_id device
      "u64", // cl_command_queue_properties properties
      "buffer", // cl_int *errcode_ret
    ],
    result: "u64",
  },
  clReleaseCommandQueue: {
    parameters: [
      "u64", // cl_command_queue command_queue
    ],
    result: "i32",
  },
  clGetCommandQueueInfo: {
    parameters: [
      "u64", // cl_command_queue command_queue
      "u32", // cl_command_queue_info param_name
      "usize", // size_t param_value_size
      "buffer", // void *param_value
      "buffer", // size_t *param_value_size_ret
    ],
    result: "i32",
  },
  finish,
  finishAsync: { ...finish, nonblocking: true },
  readBuffer,
  readBufferAsync: { ...readBuffer, nonblocking: true },
  writeBuffer,
  writeBufferAsync: { ...writeBuffer, nonblocking: true },
  clEnqueueReadBufferRect: bufferRect,
  clEnqueueWriteBufferRect: bufferRect,
} as const satisfies Deno.ForeignLibraryInterface;

type OpenCL = Deno.DynamicLibrary<typeof symbols>["symbols"];

const CL_TRUE = 1;
const CL_CONTEXT_DEVICES = 0x1081;
const CL_QUEUE_CONTEXT = 0x1090;
const CL_QUEUE_DEVICE = 0x1091;
const CL_MEM_TYPE = 0x1100;
const CL_MEM_SIZE = 0x1102;
const CL_MEM_CONTEXT = 0x1106;

/** `cl_mem_object_type`, from 0x10f0 on. */
const CL_MEM_OBJECT_BUFFER = 0x10f0;
const memoryKinds = [
  "a buffer",
  "a 2-D image",
  "a 3-D image",
  "an array of 2-D images",
  "a 1-D image",
  "an array of 1-D images",
  "a 1-D image in a buffer",
  "a pipe",
];

/** `cl_int` of the calls above. */
const errors: Readonly<Record<number, string>> = {
  [-1]: "CL_DEVICE_NOT_FOUND",
  [-2]: "CL_DEVICE_NOT_AVAILABLE",
  [-4]: "CL_MEM_OBJECT_ALLOCATION_FAILURE",
  [-5]: "CL_OUT_OF_RESOURCES",
  [-6]: "CL_OUT_OF_HOST_MEMORY",
  [-13]: "CL_MISALIGNED_SUB_BUFFER_OFFSET",
  [-14]: "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
  [-30]: "CL_INVALID_VALUE",
  [-33]: "CL_INVALID_DEVICE",
  [-34]: "CL_INVALID_CONTEXT",
  [-35]: "CL_INVALID_QUEUE_PROPERTIES",
  [-36]: "CL_INVALID_COMMAND_QUEUE",
  [-38]: "CL_INVALID_MEM_OBJECT",
  [-58]: "CL_INVALID_EVENT",
  [-59]: "CL_INVALID_OPERATION",
  [-1001]: "CL_PLATFORM_NOT_FOUND_KHR",
};

/** What to do about some of them. */
const hints: Readonly<Record<number, string>> = {
  [-2]: "another program may have the device for itself",
  [-4]: "free memory of the device",
  [-5]: "free memory of the device, or a kernel that ran before went wrong",
  [-6]: "free memory of the host",
  [-13]: "the sub-buffer begins where this device cannot; have the library " +
    "export the whole buffer and a byte offset",
  [-59]: "the buffer was made to be out of the host's reach " +
    "(CL_MEM_HOST_NO_ACCESS, or only the other one of CL_MEM_HOST_READ_ONLY " +
    "and CL_MEM_HOST_WRITE_ONLY); have the library copy it to or from one that " +
    "is not",
  [-1001]: "there is no driver behind the loader; install the one of the " +
    "device (of the CPU: PoCL)",
};

/** Copies OpenCL buffers to the host, and to them. */
export const opencl: DeviceRuntime = {
  name: place.name,
  open: (memory) => new OpenCLBuffer(memory),
  openForWriting: (memory) => new OpenCLBuffer(memory),
};

class OpenCLBuffer implements DeviceReader, DeviceWriter {
  readonly #cl: OpenCL;
  readonly #memory: DeviceMemory;
  readonly #buffer: bigint;
  /** The producer's queue, if it is known. */
  readonly #producer: bigint | null;
  readonly #queue: bigint;

  constructor(memory: DeviceMemory) {
    this.#memory = memory;
    this.#cl = openDriver(place, symbols, memory);
    this.#buffer = bufferOf(this.#cl, memory);
    this.#checkKind();
    this.#checkRange();
    const context = this.#memInfo(CL_MEM_CONTEXT);
    const devices = this.#devices(context);
    this.#producer = this.#checkStream(context, devices);
    this.#check("clRetainMemObject", this.#cl.clRetainMemObject(this.#buffer));
    const device = devices[memory.id] ?? devices[0]!;
    const status = new Int32Array(1);
    this.#queue = this.#cl.clCreateCommandQueue(context, device, 0n, status);
    if (status[0] === 0) return;
    this.#cl.clReleaseMemObject(this.#buffer);
    this.#check("clCreateCommandQueue", status[0]!);
  }

  /**
   * Waits for the producer's queue, where the capsule names it as its stream.
   * Without that there is nothing to wait on: the queues of a context cannot
   * be listed, and this one's own does not wait for others. Whoever hands a
   * buffer over must have finished the commands that use it.
   */
  synchronize(): void {
    if (this.#producer === null) return;
    this.#check("clFinish", this.#cl.finish(this.#producer));
  }

  async synchronizeAsync(): Promise<void> {
    if (this.#producer === null) return;
    this.#check("clFinish", await this.#cl.finishAsync(this.#producer));
  }

  read(byteOffset: number, into: Uint8Array<ArrayBuffer>): void {
    const status = this.#cl.readBuffer(...this.#arguments(byteOffset, into));
    this.#check("clEnqueueReadBuffer", status);
  }

  async readAsync(
    byteOffset: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    // OpenCL may be called from any thread.
    const status = await this.#cl.readBufferAsync(
      ...this.#arguments(byteOffset, into),
    );
    this.#check("clEnqueueReadBuffer", status);
  }

  readRows(rows: DeviceRows, into: Uint8Array<ArrayBuffer>): void {
    const { clEnqueueReadBufferRect } = this.#cl;
    const status = clEnqueueReadBufferRect(...this.#rectangle(rows, into));
    this.#check("clEnqueueReadBufferRect", status);
  }

  write(byteOffset: number, from: Uint8Array<ArrayBuffer>): void {
    const status = this.#cl.writeBuffer(...this.#arguments(byteOffset, from));
    this.#check("clEnqueueWriteBuffer", status);
  }

  async writeAsync(
    byteOffset: number,
    from: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const status = await this.#cl.writeBufferAsync(
      ...this.#arguments(byteOffset, from),
    );
    this.#check("clEnqueueWriteBuffer", status);
  }

  writeRows(rows: DeviceRows, from: Uint8Array<ArrayBuffer>): void {
    const { clEnqueueWriteBufferRect } = this.#cl;
    const status = clEnqueueWriteBufferRect(...this.#rectangle(rows, from));
    this.#check("clEnqueueWriteBufferRect", status);
  }

  [Symbol.dispose](): void {
    this.#cl.clReleaseCommandQueue(this.#queue);
    this.#cl.clReleaseMemObject(this.#buffer);
  }

  #arguments(
    byteOffset: number,
    host: Uint8Array<ArrayBuffer>,
  ): Parameters<OpenCL["readBuffer"]> {
    return [
      this.#queue,
      this.#buffer,
      CL_TRUE,
      BigInt(this.#memory.byteOffset + byteOffset),
      BigInt(host.length),
      host,
      0,
      null,
      null,
    ];
  }

  #rectangle(
    { byteOffset, pitch, rowBytes, count }: DeviceRows,
    host: Uint8Array<ArrayBuffer>,
  ): Parameters<OpenCL["clEnqueueReadBufferRect"]> {
    // The origin's first number may be any; it is not bound to the pitch.
    const start = BigInt(this.#memory.byteOffset + byteOffset);
    return [
      this.#queue,
      this.#buffer,
      CL_TRUE,
      new BigUint64Array([start, 0n, 0n]),
      new BigUint64Array([0n, 0n, 0n]),
      new BigUint64Array([BigInt(rowBytes), BigInt(count), 1n]),
      BigInt(pitch),
      0n,
      BigInt(rowBytes),
      0n,
      host,
      0,
      null,
      null,
    ];
  }

  #checkKind(): void {
    const kind = Number(this.#memInfo(CL_MEM_TYPE, 4)) - CL_MEM_OBJECT_BUFFER;
    if (kind === 0) return;
    const name = memoryKinds[kind];
    throw name === undefined ? noBuffer(this.#memory) : deviceError(
      this.#memory,
      `its cl_mem is ${name}; have the library copy it to a buffer`,
    );
  }

  #checkRange(): void {
    const { byteOffset, byteLength } = this.#memory;
    const size = Number(this.#memInfo(CL_MEM_SIZE));
    if (byteOffset >= 0 && byteOffset + byteLength <= size) return;
    throw deviceError(
      this.#memory,
      `it spans the bytes ${byteOffset} to ${byteOffset + byteLength} of a ` +
        `cl_mem of ${size} bytes; check the shape, strides and byte offset ` +
        "that the library gives",
    );
  }

  /** The queue that the capsule names; it must be one of the same context. */
  #checkStream(context: bigint, devices: BigUint64Array): bigint | null {
    const { stream } = this.#memory;
    if (stream === null || BigInt(stream) === -1n) return null;
    const queue = BigInt(stream);
    if (
      isHandle(this.#cl, this.#memory, queue) &&
      this.#queueInfo(queue, CL_QUEUE_CONTEXT) === context &&
      devices.includes(this.#queueInfo(queue, CL_QUEUE_DEVICE))
    ) return queue;
    throw deviceError(
      this.#memory,
      `stream ${stream} is no cl_command_queue of the buffer's context; pass ` +
        "the one that writes it, or -1 when it has finished",
    );
  }

  #devices(context: bigint): BigUint64Array {
    const { clGetContextInfo } = this.#cl;
    const size = new BigUint64Array(1);
    this.#check(
      "clGetContextInfo",
      clGetContextInfo(context, CL_CONTEXT_DEVICES, 0n, null, size),
    );
    const devices = new BigUint64Array(Number(size[0]! / 8n));
    this.#check(
      "clGetContextInfo",
      clGetContextInfo(context, CL_CONTEXT_DEVICES, size[0]!, devices, null),
    );
    return devices;
  }

  #memInfo(what: number, bytes = 8): bigint {
    const { clGetMemObjectInfo } = this.#cl;
    const value = new BigUint64Array(1);
    this.#check(
      "clGetMemObjectInfo",
      clGetMemObjectInfo(this.#buffer, what, BigInt(bytes), value, null),
    );
    return value[0]!;
  }

  #queueInfo(queue: bigint, what: number): bigint {
    const { clGetCommandQueueInfo } = this.#cl;
    const value = new BigUint64Array(1);
    this.#check(
      "clGetCommandQueueInfo",
      clGetCommandQueueInfo(queue, what, 8n, value, null),
    );
    return value[0]!;
  }

  #check(call: string, status: number): void {
    if (status !== 0) throw failure(this.#memory, call, status);
  }
}

function failure(memory: DeviceMemory, call: string, status: number): Error {
  const hint = hints[status];
  return deviceError(
    memory,
    `${call} failed with ${errors[status] ?? "an error"} (${status})` +
      (hint === undefined ? "" : `: ${hint}`),
  );
}

function noBuffer(memory: DeviceMemory): Error {
  return deviceError(
    memory,
    `its data, 0x${memory.data.toString(16)}, is no cl_mem of an OpenCL ` +
      "driver here; was it released, or is it an address?",
  );
}

/** The `cl_mem` that `data` is, or that TVM's descriptor begins with. */
function bufferOf(cl: OpenCL, memory: DeviceMemory): bigint {
  const { data } = memory;
  if (isHandle(cl, memory, data)) return data;
  const first = wordAt(data + BigInt(TVM_BUFFER.buffer));
  if (!isHandle(cl, memory, first)) throw noBuffer(memory);
  const layout = readCautiously(data, TVM_BUFFER.size)
    ?.getInt32(TVM_BUFFER.layout, true);
  if (layout === 0) return first;
  throw deviceError(
    memory,
    "it is an image of TVM's; have TVM copy it to a buffer",
  );
}

/**
 * Whether a number can be the handle of an object.
 *
 * OpenCL follows any handle without looking, and crashes. Where handles are
 * made for a loader of several drivers their first word is the table of the
 * driver's functions, which the platforms have as well: that is what is looked
 * for. Of a handle that was released nothing is certain.
 */
function isHandle(cl: OpenCL, memory: DeviceMemory, handle: bigint): boolean {
  // Apple's framework has one driver, and no such tables.
  if (Deno.build.os === "darwin") return handle >= 4096n;
  return handle % 8n === 0n && tablesOf(cl, memory).has(wordAt(handle));
}

const known = new WeakMap<OpenCL, ReadonlySet<bigint>>();

/** The tables of functions of all drivers. */
function tablesOf(cl: OpenCL, memory: DeviceMemory): ReadonlySet<bigint> {
  let tables = known.get(cl);
  if (tables !== undefined) return tables;
  const count = new Uint32Array(1);
  let status = cl.clGetPlatformIDs(0, null, count);
  const platforms = new BigUint64Array(Math.max(1, count[0]!));
  if (status === 0) status = cl.clGetPlatformIDs(count[0]!, platforms, null);
  if (status !== 0) throw failure(memory, "clGetPlatformIDs", status);
  tables = new Set([...platforms].map(wordAt).filter((table) => table !== 0n));
  known.set(cl, tables);
  return tables;
}

/** The word that an address points to; 0 where nothing can be read. */
function wordAt(address: bigint): bigint {
  return readCautiously(address, 8)?.getBigUint64(0, true) ?? 0n;
}
