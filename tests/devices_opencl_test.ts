// Tensors in OpenCL buffers, for real: PoCL's buffers are handles that the host
// cannot read through, although its device is the CPU.

import {
  DeviceType,
  DlpackCapsule,
  type DType,
  fromDlpack,
  fromDlpackAsync,
  Tensor,
  uploadTo,
} from "@dlpack/deno";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { runtimeOf } from "../ffi/devices/registry.ts";
import { usePortablePath } from "../ffi/libc.ts";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  deletions,
  floats,
  importFixture,
  runScript,
} from "./helpers.ts";
import { fixture, type FixtureSpec, make } from "./native/fixture.ts";
import { type OpenCL, openOpenCL } from "./native/opencl.ts";
import { skipped } from "./skipped.ts";

const found = openOpenCL();
if (typeof found === "string") {
  skipped(
    `OpenCL (${found})`,
    "apt-get install pocl-opencl-icd ocl-icd-libopencl1",
  );
} else warmUp(found);

/** Opens what the module needs: a test that opened it would seem to leak it. */
function warmUp(cl: OpenCL): void {
  const handle = cl.buffer(new Uint8Array(4));
  fromDlpack(capsule(placed(floats([1]), handle)), { device: "cpu" });
  cl.release(handle);
}

/** Registers a test that needs OpenCL. */
function test(name: string, run: (cl: OpenCL) => void | Promise<void>): void {
  Deno.test({
    name,
    ignore: typeof found === "string",
    fn: () => run(found as OpenCL),
  });
}

/** A struct whose data is a handle. */
function placed(spec: FixtureSpec, handle: bigint): FixtureSpec {
  return { ...spec, handle, device: spec.device ?? [DeviceType.opencl, 0] };
}

/**
 * Imports a fixture whose bytes are in a buffer; checks that the deleter is
 * called once, and that nobody refers to the buffer any more.
 */
function importBuffer(cl: OpenCL, spec: FixtureSpec, lead = 0): Tensor {
  const bytes = new Uint8Array(lead + spec.nbytes);
  bytes.set(spec.data!, lead);
  const handle = cl.buffer(bytes);
  let t: Tensor;
  assertEquals(
    deletions(() => {
      t = importFixture(placed(spec, handle), { device: "cpu" });
    }),
    1,
  );
  assertEquals(cl.references(handle), 1);
  cl.release(handle);
  return t!;
}

/** Bytes at an address that does not move. */
function memory(data: Uint8Array<ArrayBuffer>): Deno.PointerObject {
  const nbytes = data.length;
  return make({ dtype: [1, 8, 1], nbytes, data, deleter: "null" });
}

/** What an import of a handle throws, the deleter called once. */
function refused(spec: FixtureSpec, handle: bigint, message: string): void {
  const deleted = deletions(() => {
    const device = "cpu";
    const run = () => importFixture(placed(spec, handle), { device });
    assertBufferError(run, "device", message);
  });
  assertEquals(deleted, 1);
}

test("An OpenCL buffer is copied to the host, whatever its strides", (cl) => {
  const data = bytesOf(Float32Array.from({ length: 24 }, (_, i) => i));
  const spec = { ...floats([24]), nbytes: 96, data };
  const cases: [Partial<FixtureSpec>, unknown][] = [
    [{ shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
    [{ shape: [2, 3], byteOffset: 8 }, [[2, 3, 4], [5, 6, 7]]],
    [{ shape: [3, 2], strides: [1, 3] }, [[0, 3], [1, 4], [2, 5]]],
    [{ shape: [4], strides: [-2], byteOffset: 80 }, [20, 18, 16, 14]],
    [{ shape: [2, 2], strides: [12, 1] }, [[0, 1], [12, 13]]],
    [{ shape: [2, 2], strides: [0, 1] }, [[0, 1], [0, 1]]],
    [{ shape: [2], versioned: false, byteOffset: 4 }, [1, 2]],
    [{ shape: [2], device: [DeviceType.opencl, 7] }, [0, 1]],
    [{ shape: [] }, 0],
    [{ shape: [0, 3] }, []],
  ];
  for (const [changes, expected] of cases) {
    const t = importBuffer(cl, { ...spec, ...changes });
    assertEquals(t.toArray(), expected);
    assertEquals(t.device, { type: "cpu", id: 0 });
    assert(t.isContiguous && !t.readOnly);
  }
});

test("An OpenCL buffer of every dtype keeps every bit", (cl) => {
  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name as DType)!;
    const size = 24;
    const nbytes = Math.ceil(size * bits / 8);
    const data = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
    const t = importBuffer(cl, {
      dtype: [code, bits, 1],
      shape: [size],
      nbytes,
      data,
      byteOffset: 3,
    }, 3);
    assertEquals(t.dtype, name);
    assertEquals(bytesOf(t.data), data, name);
  }
});

test("Rows of an OpenCL buffer are read without what is between", (cl) => {
  const pitch = 1000;
  const bytes = Uint8Array.from({ length: 64 * pitch }, (_, i) => i * 7 >> 3);
  const handle = cl.buffer(bytes);
  using reader = runtimeOf(DeviceType.opencl)!.open({
    type: "opencl",
    id: 0,
    data: handle,
    byteOffset: 30,
    byteLength: 60 * pitch,
    stream: null,
    access: "read",
  });
  const rows = { byteOffset: 13, pitch, rowBytes: 101, count: 50 };
  const into = new Uint8Array(rows.count * rows.rowBytes);
  reader.readRows!(rows, into);
  for (let row = 0; row < rows.count; row++) {
    const start = 43 + row * pitch;
    assertEquals(
      into.subarray(row * 101, (row + 1) * 101),
      bytes.subarray(start, start + 101),
    );
  }
  cl.release(handle);
});

test("No import leaves a command queue behind", (cl) => {
  const handle = cl.buffer(new Uint8Array(4));
  const spec = placed(floats([1]), handle);
  const before = cl.contextReferences();
  for (let i = 0; i < 20; i++) importFixture(spec, { device: "cpu" });
  // PoCL keeps the queue of the last command until the next one.
  assert(cl.contextReferences() <= before + 1);
  assertEquals(cl.references(handle), 1);
  cl.release(handle);
});

test("A crop of a large OpenCL image is the crop", (cl) => {
  const [height, width] = [600, 2000];
  const image = Uint8Array.from({ length: height * width }, (_, i) => i * i);
  const t = importBuffer(cl, {
    dtype: [1, 8, 1],
    shape: [500, 700],
    strides: [width, 1],
    byteOffset: 50 * width + 60,
    nbytes: image.length,
    data: image,
  });
  for (const [y, x] of [[0, 0], [0, 699], [499, 0], [499, 699], [250, 350]]) {
    assertEquals(t.get(y!, x!), image[(50 + y!) * width + 60 + x!]);
  }
});

test("Part of an OpenCL buffer is a buffer as well", (cl) => {
  const bytes = Uint8Array.from({ length: 512 }, (_, i) => i);
  const whole = cl.buffer(bytes);
  const part = cl.subBuffer(whole, 256, 128);
  const spec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 } as const;
  const t = importFixture(placed({ ...spec, byteOffset: 120 }, part), {
    device: "cpu",
  });
  assertEquals(t.toArray(), [...bytes.subarray(376, 384)]);
  refused({ ...spec, byteOffset: 121 }, part, "the bytes 121 to 129 of a ");
  cl.release(part);
  cl.release(whole);
});

test("What an OpenCL buffer does not have is not read", (cl) => {
  const handle = cl.buffer(new Uint8Array(100));
  const spec = { dtype: [1, 8, 1], nbytes: 8 } as const;
  const cases: [Partial<FixtureSpec>, string][] = [
    [{ shape: [101] }, "the bytes 0 to 101 of a cl_mem of 100 bytes"],
    [{ shape: [1], byteOffset: 100 }, "100 to 101"],
    [{ shape: [2], strides: [-1] }, "the bytes -1 to 1"],
    [{ shape: [2, 2], strides: [99, 1] }, "the bytes 0 to 101"],
  ];
  for (const [changes, message] of cases) {
    refused({ ...spec, ...changes }, handle, message);
  }
  assertEquals(cl.references(handle), 1);
  cl.release(handle);
});

test("What is no cl_mem is not given to OpenCL", (cl) => {
  const word = cl.buffer(new Uint8Array(4));
  const table = new DataView(
    Deno.UnsafePointerView.getArrayBuffer(
      Deno.UnsafePointer.create(word)!,
      8,
    ),
  ).getBigUint64(0, true);
  const zeros = memory(new Uint8Array(64));
  const zerosAt = fixture.fx_data_address(zeros);
  refused(floats([1]), zerosAt, "is no cl_mem of an OpenCL driver here");
  refused(floats([1]), 0x1000n, "0x1000");
  refused(floats([1]), 0xdead_beef_0000_0008n, "0xdeadbeef00000008");
  refused(floats([1]), table, "is no cl_mem");
  refused(floats([1]), word + 1n, "is no cl_mem");
  // These have the driver's table, but are other objects.
  const queue = cl.queue();
  refused(floats([1]), cl.context, "is no cl_mem");
  refused(floats([1]), queue, "is no cl_mem");
  cl.releaseQueue(queue);
  fixture.fx_free(zeros);
  cl.release(word);
});

test("OpenCL memory that is no buffer, or barred, is refused", (cl) => {
  const image = cl.image(2, 2);
  refused(floats([1]), image, "its cl_mem is a 2-D image; have the library ");
  assertEquals(cl.references(image), 1);
  cl.release(image);

  const barred = cl.buffer(new Uint8Array(4), true);
  const before = cl.contextReferences();
  refused(
    floats([1]),
    barred,
    "clEnqueueReadBuffer failed with CL_INVALID_OPERATION (-59): the buffer " +
      "was made to be out of the host's reach",
  );
  assertEquals(cl.references(barred), 1);
  assert(cl.contextReferences() <= before);
  cl.release(barred);
});

test("TVM's descriptor of a buffer is understood, its images refused", (cl) => {
  const values = Float32Array.of(1, 2, 3, 4);
  const buffer = cl.buffer(bytesOf(values));
  // struct { cl_mem buffer; back_buffer; host_ptr; int layout; … }
  const describe = (layout: number): Deno.PointerObject => {
    const bytes = new Uint8Array(40);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, buffer, true);
    view.setInt32(24, layout, true);
    return memory(bytes);
  };
  const descriptor = describe(0);
  const image = describe(1);
  const t = importFixture(
    placed(floats([4]), fixture.fx_data_address(descriptor)),
    { device: "cpu" },
  );
  assertEquals(t.toArray(), [1, 2, 3, 4]);
  refused(floats([4]), fixture.fx_data_address(image), "an image of TVM's");
  assertEquals(cl.references(buffer), 1);
  fixture.fx_free(descriptor);
  fixture.fx_free(image);
  cl.release(buffer);
});

test("Where memory cannot be read cautiously OpenCL is read as well", (cl) => {
  const buffer = cl.buffer(bytesOf(Float32Array.of(1, 2)));
  const descriptor = new Uint8Array(40);
  new DataView(descriptor.buffer).setBigUint64(0, buffer, true);
  const described = memory(descriptor);
  const zeros = memory(new Uint8Array(64));
  usePortablePath(true);
  try {
    for (const handle of [buffer, fixture.fx_data_address(described)]) {
      const t = importFixture(placed(floats([2]), handle), { device: "cpu" });
      assertEquals(t.toArray(), [1, 2]);
    }
    refused(floats([1]), fixture.fx_data_address(zeros), "is no cl_mem");
    refused(floats([1]), 0xff8n, "is no cl_mem");
  } finally {
    usePortablePath(false);
  }
  assertEquals(cl.references(buffer), 1);
  fixture.fx_free(described);
  fixture.fx_free(zeros);
  cl.release(buffer);
});

test("The queue that a capsule names as its stream is waited for", async (cl) => {
  const buffer = cl.buffer(new Uint8Array(8));
  const queue = cl.queue();
  const spec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 } as const;
  const on = (stream: number | bigint): DlpackCapsule =>
    new DlpackCapsule(make(placed(spec, buffer)), "dltensor_versioned", {
      stream,
    });
  const device = "cpu";

  const write = cl.fillLater(queue, buffer, 7, 8);
  const written = fromDlpackAsync(on(queue), { device });
  let isDone = false;
  written.then(() => isDone = true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert(!isDone);
  // Nothing is waited for where the capsule says so.
  assertEquals(fromDlpack(on(-1), { device }).get(0), 0);
  write();
  assertEquals((await written).toArray(), Array(8).fill(7));

  // Behind a command that takes a while.
  const large = cl.buffer(new Uint8Array(1 << 26));
  const begin = cl.fillLater(queue, large, 1, 1 << 26);
  const rewrite = cl.fillLater(queue, buffer, 9, 8);
  rewrite();
  begin();
  const t = fromDlpack(on(queue), { device });
  assertEquals(t.toArray(), Array(8).fill(9));

  assertEquals(cl.references(buffer), 1);
  cl.releaseQueue(queue);
  cl.release(large);
  cl.release(buffer);
});

test("A stream that is no queue of the buffer's context is refused", (cl) => {
  const buffer = cl.buffer(new Uint8Array(4));
  const other = cl.another();
  const queue = other.queue();
  const spec = placed(floats([1]), buffer);
  for (const stream of [0, 1, cl.context, queue, buffer]) {
    const deleted = deletions(() => {
      assertBufferError(
        () =>
          fromDlpack(
            new DlpackCapsule(make(spec), "dltensor_versioned", { stream }),
            { device: "cpu" },
          ),
        "device",
        `stream ${stream} is no cl_command_queue of the buffer's context; ` +
          "pass the one that writes it, or -1 when it has finished",
      );
    });
    assertEquals(deleted, 1);
  }
  other.releaseQueue(queue);
  other.close();
  assertEquals(cl.references(buffer), 1);
  cl.release(buffer);
});

test("fromDlpackAsync() reads an OpenCL buffer beside other things", async (cl) => {
  const data = bytesOf(
    Uint32Array.from({ length: 20 << 20 }, (_, i) => i * 2654435761),
  );
  const handle = cl.buffer(data);
  const spec: FixtureSpec = {
    dtype: [1, 32, 1],
    shape: [20 << 20],
    nbytes: 4,
  };
  const progress: number[] = [];
  const t = await fromDlpackAsync(capsule(placed(spec, handle)), {
    device: "cpu",
    onProgress: (done, total) => progress.push(done / total),
  });
  assertEquals(progress, [0.4, 0.8, 1]);
  assertEquals(bytesOf(t.data), data);

  const controller = new AbortController();
  await assertRejects(
    () =>
      fromDlpackAsync(capsule(placed(spec, handle)), {
        device: "cpu",
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      }),
    RangeError,
    "Enough",
  );
  assertEquals(cl.references(handle), 1);
  cl.release(handle);
});

test("uploadTo() fills an OpenCL buffer, whatever the strides, and no more", async (cl) => {
  const source = Tensor.from(Float32Array.from({ length: 6 }, (_, i) => i + 1));
  const cases: [Partial<FixtureSpec>, number[]][] = [
    [{ shape: [2, 3] }, [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0]],
    [{ shape: [2, 3], byteOffset: 8 }, [
      0,
      0,
      1,
      2,
      3,
      4,
      5,
      6,
      0,
      0,
      0,
      0,
      0,
      0,
    ]],
    [{ shape: [3, 2], strides: [1, 3] }, [
      1,
      3,
      5,
      2,
      4,
      6,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
    ]],
    [{ shape: [6], strides: [-2], byteOffset: 44 }, [
      0,
      6,
      0,
      5,
      0,
      4,
      0,
      3,
      0,
      2,
      0,
      1,
      0,
      0,
    ]],
    [{ shape: [2, 3], strides: [5, 1] }, [
      1,
      2,
      3,
      0,
      0,
      4,
      5,
      6,
      0,
      0,
      0,
      0,
      0,
      0,
    ]],
    [{ shape: [3, 2], strides: [5, 2] }, [
      1,
      0,
      2,
      0,
      0,
      3,
      0,
      4,
      0,
      0,
      5,
      0,
      6,
      0,
    ]],
  ];
  for (const [changes, expected] of cases) {
    const handle = cl.buffer(new Uint8Array(56));
    const x = capsule(placed({ ...floats([6]), ...changes }, handle));
    const from = source.reshape(x.shape);
    await uploadTo(x, from);
    const all = capsule(placed(floats([14]), handle));
    assertEquals(fromDlpack(all, { device: "cpu" }).toArray(), expected);
    const back = fromDlpack(x, { device: "cpu" });
    assertEquals(back.toArray(), from.toArray());
    assertEquals(cl.references(handle), 1);
    cl.release(handle);
  }
});

test("uploadTo() keeps every bit of every dtype in an OpenCL buffer", async (cl) => {
  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name as DType)!;
    // An odd number of elements: with packed ones others share the last byte.
    const nbytes = Math.ceil(21 * bits / 8);
    const data = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
    const spec = { dtype: [code, bits, 1], shape: [21], nbytes, data } as const;
    const handle = cl.buffer(new Uint8Array(nbytes + 3).fill(0xff));
    const x = capsule(placed({ ...spec, byteOffset: 3 }, handle));
    using source = importFixture(spec);
    await uploadTo(x, source);
    const bytes = { dtype: [1, 8, 1], shape: [nbytes + 3], nbytes: 1 } as const;
    const all = fromDlpack(capsule(placed(bytes, handle)), { device: "cpu" });
    const last = 21 * bits % 8;
    const expected = data.slice();
    if (last > 0) expected[nbytes - 1]! |= 0xff << last;
    assertEquals(bytesOf(all.data), Uint8Array.of(255, 255, 255, ...expected));
    x[Symbol.dispose]();
    cl.release(handle);
  }
});

test("uploadTo() fills a large OpenCL buffer beside other things, and stops", async (cl) => {
  const words = new Uint32Array(20 << 20).map((_, i) => i * 2654435761);
  const source = Tensor.from(words, [2, 10 << 20]);
  const handle = cl.buffer(new Uint8Array(words.byteLength));
  const spec: FixtureSpec = {
    dtype: [1, 32, 1],
    shape: [2, 10 << 20],
    nbytes: 4,
  };
  const progress: number[] = [];
  const x = capsule(placed(spec, handle));
  await uploadTo(x, source, {
    onProgress: (done, total) => progress.push(done / total),
  });
  assertEquals(progress, [0.4, 0.8, 1]);
  const t = fromDlpack(x, { device: "cpu" });
  assert(t.is("uint32"));
  assertEquals(t.data.findIndex((word, i) => word !== words[i]), -1);
  // Out of Fortran order.
  const turned = { ...spec, shape: [10 << 20, 2], strides: [1, 10 << 20] };
  const y = capsule(placed(turned, handle));
  const controller = new AbortController();
  await assertRejects(
    () =>
      uploadTo(y, source.reshape([10 << 20, 2]), {
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      }),
    RangeError,
    "Enough",
  );
  assertEquals(deletions(() => y[Symbol.dispose]()), 1);
  assertEquals(cl.references(handle), 1);
  cl.release(handle);
});

test("uploadTo() refuses OpenCL memory that is not there, or barred", async (cl) => {
  const source = Tensor.from(Float32Array.of(1, 2));
  const refusedToUpload = async (
    spec: FixtureSpec,
    handle: bigint,
    message: string,
    options?: { stream: number | bigint },
  ): Promise<void> => {
    const x = capsule(placed(spec, handle), options);
    const error = await uploadTo(x, source).catch((error) => error);
    assertBufferError(
      () => {
        throw error;
      },
      "device",
      message,
    );
    assert(error.message.startsWith("Cannot upload to a tensor on opencl:0: "));
    assertEquals(x.name, "dltensor_versioned");
    assertEquals(deletions(() => x[Symbol.dispose]()), 1);
  };
  const handle = cl.buffer(new Uint8Array(8));
  const barred = cl.buffer(new Uint8Array(8), true);
  const image = cl.image(2, 2);
  await refusedToUpload(
    floats([2]),
    barred,
    "clEnqueueWriteBuffer failed with CL_INVALID_OPERATION (-59): the buffer ",
  );
  // Memory that is only to be read, as OpenCL itself says.
  const readOnly = cl.buffer(new Uint8Array(8), "only read");
  assertEquals(
    importFixture(placed(floats([2]), readOnly), { device: "cpu" }).toArray(),
    [0, 0],
  );
  await refusedToUpload(floats([2]), readOnly, "CL_INVALID_OPERATION (-59)");
  cl.release(readOnly);
  await refusedToUpload(
    { ...floats([2]), byteOffset: 4 },
    handle,
    "the bytes 4 to 12 of a ",
  );
  await refusedToUpload(
    { ...floats([2]), strides: [2] },
    handle,
    "the bytes 0 to 12 of a ",
  );
  await refusedToUpload(floats([2]), image, "its cl_mem is a 2-D image");
  await refusedToUpload(floats([2]), 0x1000n, "is no cl_mem");
  await refusedToUpload(floats([2]), handle, "is no cl_command_queue", {
    stream: 1,
  });
  for (const made of [handle, barred, image]) {
    assertEquals(cl.references(made), 1);
    cl.release(made);
  }
});

test("uploadTo() waits for the queue that the capsule names", async (cl) => {
  const buffer = cl.buffer(new Uint8Array(8));
  const queue = cl.queue();
  const spec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 } as const;
  const x = capsule(placed(spec, buffer), { stream: queue });
  const write = cl.fillLater(queue, buffer, 7, 8);
  let isDone = false;
  const upload = uploadTo(x, Tensor.from(new Uint8Array(8).fill(9)))
    .then(() => isDone = true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert(!isDone);
  write();
  await upload;
  assertEquals(fromDlpack(x, { device: "cpu" }).toArray(), Array(8).fill(9));
  cl.releaseQueue(queue);
  cl.release(buffer);
});

Deno.test("Without an OpenCL library the error says how to get one", async () => {
  const missing = await importIn({ DLPACK_OPENCL_LIBRARY: "/none/cl.so" });
  assertEquals(missing.slice(0, 2), ["device", "1"]);
  assert(missing[2]!.startsWith(
    "Cannot copy a tensor on opencl:0 to the host: the OpenCL loader is not " +
      "here (/none/cl.so cannot be opened); install it, or name the library ",
  ));
});

test("Without an OpenCL driver the error is the loader's own", async () => {
  const none = await importIn({ OCL_ICD_VENDORS: "/none/" });
  assertEquals(none.slice(0, 2), ["device", "1"]);
  assert(
    none[2]!.includes(
      "clGetPlatformIDs failed with CL_PLATFORM_NOT_FOUND_KHR (-1001): " +
        "there is no driver behind the loader",
    ),
    none[2],
  );
});

/** Imports from OpenCL in a process of its own: code, deleter calls, message. */
async function importIn(env: Record<string, string>): Promise<string[]> {
  for (const [name, value] of Object.entries(env)) Deno.env.set(name, value);
  try {
    const { out, err } = await runScript(`
      import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
      import { counts, make } from "#fixture";
      const pointer = make({
        dtype: [2, 32, 1], shape: [1], nbytes: 4, device: [4, 0],
      });
      try {
        fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"), {
          device: "cpu",
        });
      } catch (error) {
        console.log(error.code);
        console.log(counts().deleted);
        console.log(error.message);
      }
    `);
    assertEquals(err, "");
    return [...out];
  } finally {
    for (const name of Object.keys(env)) Deno.env.delete(name);
  }
}
