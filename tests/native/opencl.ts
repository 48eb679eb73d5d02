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
  clReleaseMemObject: { parameters: ["u64"], result: "i32" }, // cl_int (cl_mem)
} as const;

const CL_DEVICE_TYPE_ALL = 0xffffffffn;
const CL_CONTEXT_REFERENCE_COUNT = 0x1080;
const CL_MEM_COPY_HOST_PTR = 1n << 5n;
const CL_MEM_REFERENCE_COUNT = 0x1105;
const CL_BUFFER_CREATE_TYPE_REGION = 0x1220;

/** Makes buffers in one context. */
export class OpenCL {
  readonly #cl: Deno.DynamicLibrary<typeof symbols>["symbols"];
  /** The context. */
  readonly context: bigint;

  constructor(
    cl: Deno.DynamicLibrary<typeof symbols>["symbols"],
    context: bigint,
  ) {
    this.#cl = cl;
    this.context = context;
  }

  /** A buffer with these bytes. */
  buffer(bytes: Uint8Array<ArrayBuffer>): bigint {
    const status = new Int32Array(1);
    const size = BigInt(bytes.length);
    const buffer = this.#cl.clCreateBuffer(
      this.context,
      CL_MEM_COPY_HOST_PTR,
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
    const status = new Int32Array(1);
    const context = cl.clCreateContext(null, 1, devices, null, null, status);
    check("clCreateContext", status[0]!);
    return new OpenCL(cl, context);
  } catch (error) {
    return (error as Error).message.split("\n")[0]!;
  }
}

function check(call: string, status: number): void {
  if (status !== 0) throw new Error(`${call}: ${status}`);
}
