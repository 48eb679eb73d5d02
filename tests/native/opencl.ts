/** OpenCL as a producer uses it, for tests: PoCL is a device on any CPU. */

const symbols = {
  clGetPlatformIDs: {
    parameters: ["u32", "buffer", "buffer"],
    result: "i32",
  }, // cl_int (cl_uint num_entries, cl_platform_id *platforms, cl_uint *num_platforms)
  clGetDeviceIDs: {
    parameters: ["u64", "u64", "u32", "buffer", "buffer"],
    result: "i32",
  }, // cl_int (cl_platform_id, cl_device_type, cl_uint num_entries, cl_device_id *devices, cl_uint *num_devices)
  clCreateContext: {
    parameters: ["pointer", "u32", "buffer", "pointer", "pointer", "buffer"],
    result: "u64",
  }, // cl_context (const cl_context_properties *, cl_uint num_devices, const cl_device_id *devices, callback, void *, cl_int *errcode)
  clGetContextInfo: {
    parameters: ["u64", "u32", "usize", "buffer", "pointer"],
    result: "i32",
  }, // cl_int (cl_context, cl_context_info, size_t size, void *value, size_t *size_ret)
  clGetMemObjectInfo: {
    parameters: ["u64", "u32", "usize", "buffer", "pointer"],
    result: "i32",
  }, // cl_int (cl_mem, cl_mem_info, size_t size, void *value, size_t *size_ret)
  clCreateBuffer: {
    parameters: ["u64", "u64", "usize", "buffer", "buffer"],
    result: "u64",
  }, // cl_mem (cl_context, cl_mem_flags, size_t size, void *host_ptr, cl_int *errcode)
  clCreateSubBuffer: {
    parameters: ["u64", "u64", "u32", "buffer", "buffer"],
    result: "u64",
  }, // cl_mem (cl_mem, cl_mem_flags, cl_buffer_create_type, const void *info, cl_int *errcode)
  clCreateImage: {
    parameters: ["u64", "u64", "buffer", "buffer", "pointer", "buffer"],
    result: "u64",
  }, // cl_mem (cl_context, cl_mem_flags, const cl_image_format *, const cl_image_desc *, void *host_ptr, cl_int *errcode)
  clCreateCommandQueue: {
    parameters: ["u64", "u64", "u64", "buffer"],
    result: "u64",
  }, // cl_command_queue (cl_context, cl_device_id, cl_command_queue_properties, cl_int *errcode)
  clCreateUserEvent: { parameters: ["u64", "buffer"], result: "u64" }, // cl_event (cl_context, cl_int *errcode)
  clSetUserEventStatus: { parameters: ["u64", "i32"], result: "i32" }, // cl_int (cl_event, cl_int status)
  clEnqueueFillBuffer: {
    parameters: [
      "u64",
      "u64",
      "buffer",
      "usize",
      "usize",
      "usize",
      "u32",
      "buffer",
      "pointer",
    ],
    result: "i32",
  }, // cl_int (cl_command_queue, cl_mem, const void *pattern, size_t pattern_size, size_t offset, size_t size, cl_uint num_events, const cl_event *events, cl_event *event)
  clFlush: { parameters: ["u64"], result: "i32" }, // cl_int (cl_command_queue)
  clReleaseEvent: { parameters: ["u64"], result: "i32" }, // cl_int (cl_event)
  clReleaseCommandQueue: { parameters: ["u64"], result: "i32" }, // cl_int (cl_command_queue)
  clReleaseContext: { parameters: ["u64"], result: "i32" }, // cl_int (cl_context)
  clReleaseMemObject: { parameters: ["u64"], result: "i32" }, // cl_int (cl_mem)
} as const;

const CL_DEVICE_TYPE_ALL = 0xffffffffn;
const CL_CONTEXT_REFERENCE_COUNT = 0x1080;
const CL_MEM_COPY_HOST_PTR = 1n << 5n;
const CL_MEM_HOST_READ_ONLY = 1n << 8n;
const CL_MEM_HOST_NO_ACCESS = 1n << 9n;
const CL_MEM_OBJECT_IMAGE2D = 0x10f1;
const CL_MEM_REFERENCE_COUNT = 0x1105;
const CL_BUFFER_CREATE_TYPE_REGION = 0x1220;
const CL_RGBA = 0x10b5;
const CL_UNSIGNED_INT8 = 0x10da;

/** Makes buffers in one context. */
export class OpenCL {
  readonly #cl: Deno.DynamicLibrary<typeof symbols>["symbols"];
  readonly #device: bigint;
  /** The context. */
  readonly context: bigint;

  constructor(
    cl: Deno.DynamicLibrary<typeof symbols>["symbols"],
    device: bigint,
  ) {
    const devices = new BigUint64Array([device]);
    const status = new Int32Array(1);
    this.context = cl.clCreateContext(null, 1, devices, null, null, status);
    check("clCreateContext", status[0]!);
    this.#cl = cl;
    this.#device = device;
  }

  /** The same in another context of the same device. */
  another(): OpenCL {
    return new OpenCL(this.#cl, this.#device);
  }

  /** Gives the context back. */
  close(): void {
    check("clReleaseContext", this.#cl.clReleaseContext(this.context));
  }

  /** A buffer with these bytes, which the host may be barred from, or only read. */
  buffer(
    bytes: Uint8Array<ArrayBuffer>,
    isBarred: boolean | "only read" = false,
  ): bigint {
    const status = new Int32Array(1);
    const size = BigInt(bytes.length);
    const buffer = this.#cl.clCreateBuffer(
      this.context,
      CL_MEM_COPY_HOST_PTR | (
        isBarred === "only read"
          ? CL_MEM_HOST_READ_ONLY
          : isBarred
          ? CL_MEM_HOST_NO_ACCESS
          : 0n
      ),
      size,
      bytes,
      status,
    );
    check("clCreateBuffer", status[0]!);
    return buffer;
  }

  /** A part of a buffer. */
  subBuffer(buffer: bigint, origin: number, size: number): bigint {
    const status = new Int32Array(1);
    const region = new BigUint64Array([BigInt(origin), BigInt(size)]);
    const part = this.#cl.clCreateSubBuffer(
      buffer,
      0n,
      CL_BUFFER_CREATE_TYPE_REGION,
      region,
      status,
    );
    check("clCreateSubBuffer", status[0]!);
    return part;
  }

  /** An image of RGBA bytes. */
  image(width: number, height: number): bigint {
    const status = new Int32Array(1);
    const format = new Uint32Array([CL_RGBA, CL_UNSIGNED_INT8]);
    // image_type, width, height, and zeros for what a 2-D image has not.
    const description = new BigUint64Array(9);
    description.set([CL_MEM_OBJECT_IMAGE2D, width, height].map(BigInt));
    const image = this.#cl.clCreateImage(
      this.context,
      0n,
      format,
      description,
      null,
      status,
    );
    check("clCreateImage", status[0]!);
    return image;
  }

  /** A command queue. */
  queue(): bigint {
    const status = new Int32Array(1);
    const queue = this.#cl.clCreateCommandQueue(
      this.context,
      this.#device,
      0n,
      status,
    );
    check("clCreateCommandQueue", status[0]!);
    return queue;
  }

  /** Gives a command queue back. */
  releaseQueue(queue: bigint): void {
    check("clReleaseCommandQueue", this.#cl.clReleaseCommandQueue(queue));
  }

  /**
   * Fills the first bytes of a buffer by a command that waits for what is
   * returned to be called.
   */
  fillLater(
    queue: bigint,
    buffer: bigint,
    value: number,
    length: number,
  ): () => void {
    const status = new Int32Array(1);
    const event = this.#cl.clCreateUserEvent(this.context, status);
    check("clCreateUserEvent", status[0]!);
    check(
      "clEnqueueFillBuffer",
      this.#cl.clEnqueueFillBuffer(
        queue,
        buffer,
        new Uint8Array([value]),
        1n,
        0n,
        BigInt(length),
        1,
        new BigUint64Array([event]),
        null,
      ),
    );
    check("clFlush", this.#cl.clFlush(queue));
    return () => {
      check("clSetUserEventStatus", this.#cl.clSetUserEventStatus(event, 0));
      check("clReleaseEvent", this.#cl.clReleaseEvent(event));
    };
  }

  /** One reference less. */
  release(buffer: bigint): void {
    check("clReleaseMemObject", this.#cl.clReleaseMemObject(buffer));
  }

  /** The references to a buffer. */
  references(buffer: bigint): number {
    const count = new Uint32Array(1);
    const { clGetMemObjectInfo } = this.#cl;
    check(
      "clGetMemObjectInfo",
      clGetMemObjectInfo(buffer, CL_MEM_REFERENCE_COUNT, 4n, count, null),
    );
    return count[0]!;
  }

  /** The references to the context: buffers and queues hold one each. */
  contextReferences(): number {
    const count = new Uint32Array(1);
    const { clGetContextInfo } = this.#cl;
    check(
      "clGetContextInfo",
      clGetContextInfo(
        this.context,
        CL_CONTEXT_REFERENCE_COUNT,
        4n,
        count,
        null,
      ),
    );
    return count[0]!;
  }
}

/** OpenCL, or why there is none. */
export function openOpenCL(): OpenCL | string {
  try {
    const { symbols: cl } = Deno.dlopen("libOpenCL.so.1", symbols);
    const platforms = new BigUint64Array(1);
    check("clGetPlatformIDs", cl.clGetPlatformIDs(1, platforms, null));
    const devices = new BigUint64Array(1);
    check(
      "clGetDeviceIDs",
      cl.clGetDeviceIDs(platforms[0]!, CL_DEVICE_TYPE_ALL, 1, devices, null),
    );
    return new OpenCL(cl, devices[0]!);
  } catch (error) {
    return (error as Error).message.split("\n")[0]!;
  }
}

function check(call: string, status: number): void {
  if (status !== 0) throw new Error(`${call}: ${status}`);
}
