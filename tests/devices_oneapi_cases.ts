// USM of oneAPI, for real: by SYCL on Intel's OpenCL device for the CPU. Run by
// devices_oneapi_test.ts in a process of its own, with what SYCL needs in its
// environment.

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
import { cString } from "../examples/python.ts";
import { addressOfArray } from "../ffi/memory.ts";
import { usePortablePath } from "../ffi/libc.ts";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  runScript,
} from "./helpers.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";
import {
  openSycl,
  type Sycl,
  type UsmKind,
  usmKinds,
} from "./native/oneapi.ts";
import { openPython } from "./libpython.ts";
import { skipped } from "./skipped.ts";

const library = Deno.env.get("DLPACK_ONEAPI_LIBRARY")!;
const found = openSycl(library);
const advice = "pip install dpnp intel-opencl-rt (2.9 GB)";
if (typeof found === "string") skipped(`oneAPI (${found})`, advice);
else warmUp(found);

/** Opens what the module needs: a test that opened it would seem to leak it. */
function warmUp(sycl: Sycl): void {
  const at = sycl.allocate(new Uint8Array(4));
  fromDlpack(capsule(placed(floats([1]), at)), { device: "cpu" });
  sycl.free(at);
}

/** Registers a test that needs SYCL. */
function test(name: string, run: (sycl: Sycl) => void | Promise<void>): void {
  Deno.test({
    name,
    ignore: typeof found === "string",
    fn: () => run(found as Sycl),
  });
}

/** A struct whose data is an address of USM. */
function placed(spec: FixtureSpec, handle: bigint): FixtureSpec {
  return { ...spec, handle, device: spec.device ?? [DeviceType.oneapi, 0] };
}

/**
 * Imports a fixture whose bytes are in USM; checks that the deleter is called
 * once.
 */
function importUsm(
  sycl: Sycl,
  spec: FixtureSpec,
  lead = 0,
  kind: UsmKind = "device",
): Tensor {
  const bytes = new Uint8Array(lead + spec.nbytes);
  bytes.set(spec.data!, lead);
  const at = sycl.allocate(bytes, kind);
  let t: Tensor;
  assertEquals(
    deletions(() => {
      t = importFixture(placed(spec, at), { device: "cpu" });
    }),
    1,
  );
  sycl.free(at);
  return t!;
}

/** What an import of an address throws, the deleter called once. */
function refused(
  spec: FixtureSpec,
  handle: bigint,
  message: string,
  options?: { stream: number | bigint },
): void {
  const deleted = deletions(() => {
    const run = () =>
      fromDlpack(capsule(placed(spec, handle), options), { device: "cpu" });
    assertBufferError(run, "device", message);
  });
  assertEquals(deleted, 1);
}

test("USM of every kind is copied to the host, whatever its strides", (sycl) => {
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
    [{ shape: [2], device: [DeviceType.oneapi, 7] }, [0, 1]],
    [{ shape: [] }, 0],
    [{ shape: [0, 3] }, []],
  ];
  for (const kind of usmKinds) {
    for (const [changes, expected] of cases) {
      const t = importUsm(sycl, { ...spec, ...changes }, 0, kind);
      assertEquals(t.toArray(), expected, kind);
      assertEquals(t.device, { type: "cpu", id: 0 });
      assert(t.isContiguous && !t.readOnly);
    }
  }
});

test("USM of every dtype keeps every bit", (sycl) => {
  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name as DType)!;
    const size = 24;
    const nbytes = Math.ceil(size * bits / 8);
    const data = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
    const t = importUsm(sycl, {
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

test("Imports from USM leave nothing behind", async (sycl) => {
  const at = sycl.allocate(new Uint8Array(4));
  const options = { stream: sycl.queue };
  const spec = placed(floats([1]), at);
  const rounds = async (): Promise<void> => {
    for (let i = 0; i < 2000; i++) {
      fromDlpack(capsule(spec, options), { device: "cpu" });
    }
    await collectGarbage();
  };
  await rounds();
  const before = Deno.memoryUsage().rss;
  await rounds();
  // A queue for each would be 11 KB.
  const grown = (Deno.memoryUsage().rss - before) / 2000;
  assert(grown < 4000, `${grown} bytes for each import`);
  sycl.free(at);
});

test("A crop of a large image in USM is the crop", (sycl) => {
  const [height, width] = [600, 2000];
  const image = Uint8Array.from({ length: height * width }, (_, i) => i * i);
  const t = importUsm(sycl, {
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

test("Shared and host USM is no memory of the host's, to which a view would be", (sycl) => {
  for (const kind of usmKinds) {
    const at = sycl.allocate(new Uint8Array(4), kind);
    const spec = placed(floats([1]), at);
    using x = capsule(spec);
    assertBufferError(
      () => fromDlpack(x),
      "device",
      'Cannot view a tensor on oneapi:0 from JavaScript: pass { device: "cpu" }',
    );
    assertBufferError(
      () => fromDlpack(x, { device: "cpu", copy: false }),
      "copy",
    );
    assertEquals(deletions(() => fromDlpack(x, { device: "cpu" })), 1);
    sycl.free(at);
  }
});

test("What USM does not have is not read", (sycl) => {
  for (const kind of usmKinds) {
    const at = sycl.allocate(new Uint8Array(100), kind);
    // Another one near by: kinds of pointers could not tell the gap.
    const other = sycl.allocate(new Uint8Array(100), kind);
    const spec = { dtype: [1, 8, 1], nbytes: 8 } as const;
    const end = (at + 100n).toString(16);
    const cases: [Partial<FixtureSpec>, string][] = [
      [
        { shape: [101] },
        `beyond the USM that SYCL knows there, which ends at 0x${end}`,
      ],
      [{ shape: [1], byteOffset: 100 }, "SYCL knows no USM at 0x"],
      [{ shape: [2], strides: [-1] }, "SYCL knows no USM at 0x"],
      [
        { shape: [2, 2], strides: [99, 1] },
        "check the shape, strides and byte",
      ],
    ];
    for (const [changes, message] of cases) {
      refused({ ...spec, ...changes }, at, message);
    }
    const gap = Number(other - at);
    if (gap > 0) {
      refused({ ...spec, shape: [2], strides: [gap] }, at, `ends at 0x${end}`);
    }
    sycl.free(at);
    sycl.free(other);
  }
});

test("Memory that is no USM, or was freed, is not read", (sycl) => {
  const at = sycl.allocate(new Uint8Array(4096));
  sycl.free(at);
  const host = make({ ...floats([4]), deleter: "null" });
  const hint = "was it freed, allocated in a context of its own";
  for (
    const address of [
      at,
      fixture.fx_data_address(host),
      8n,
      0xdead_beef_0000_0000n,
      2n ** 64n - 4096n,
      sycl.queue,
    ]
  ) {
    refused(
      floats([1]),
      address,
      `SYCL knows no USM at 0x${address.toString(16)}`,
    );
    refused(floats([1]), address, hint);
  }
  fixture.fx_free(host);
});

test("Memory of a context of its own is not read", (sycl) => {
  const queue = sycl.queueOfOtherContext();
  const at = sycl.allocate(new Uint8Array(64), "device", queue);
  refused(floats([4]), at, "instead of the platform's default");
  sycl.free(at, queue);
  sycl.deleteQueue(queue);
});

test("The queue that a capsule names as its stream is waited for", async (sycl) => {
  const size = 1 << 26;
  const large = sycl.allocate(new Uint8Array(size));
  const at = sycl.allocate(new Uint8Array(8));
  const queue = sycl.newQueue();
  const spec = placed({ dtype: [1, 8, 1], shape: [8], nbytes: 8 }, at);
  const device = "cpu";
  const fill = (value: number): void => {
    // Behind commands that take a while.
    for (let i = 0; i < 16; i++) sycl.fillLater(queue, large, i, size);
    sycl.fillLater(queue, at, value, 8);
  };
  const read = (options?: { stream: number | bigint }): number =>
    fromDlpack(capsule(spec, options), { device }).get(7) as number;
  // Nothing is waited for where the capsule says so, or nobody says anything.
  // Under load the commands may be faster.
  for (const options of [{ stream: -1 }, undefined]) {
    let isBehind = false;
    for (let value = 1; value <= 20 && !isBehind; value++) {
      fill(value);
      isBehind = read(options) !== value;
      assertEquals(read({ stream: queue }), value);
    }
    assert(isBehind, "the commands never took longer than a copy");
  }
  fill(9);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const later = await fromDlpackAsync(capsule(spec, { stream: queue }), {
    device,
  });
  clearInterval(timer);
  assertEquals(later.toArray(), Array(8).fill(9));
  assert(turns > 3, `the event loop turned ${turns} times`);
  // Idle, as an integer of the other kind.
  const stream = Number(queue);
  assertEquals(read({ stream }), 9);
  sycl.deleteQueue(queue);
  sycl.free(at);
  sycl.free(large);
});

test("A stream that is no queue of the memory's context is refused", (sycl) => {
  const at = sycl.allocate(new Uint8Array(4));
  const other = sycl.queueOfOtherContext();
  const context = sycl.contextOf(sycl.queue);
  const zeros = make({
    ...floats([16]),
    data: new Uint8Array(64),
    deleter: "null",
  });
  const streams = [
    0,
    1,
    at,
    context,
    other,
    sycl.queue + 1n,
    sycl.queue + 8n,
    2n ** 64n - 1n,
    fixture.fx_data_address(zeros),
  ];
  for (const stream of streams) {
    refused(
      floats([1]),
      at,
      `stream ${stream} is no sycl::queue of the memory's context; pass the ` +
        "address of the one that writes it",
      { stream },
    );
  }
  fixture.fx_free(zeros);
  sycl.deleteContext(context);
  sycl.deleteQueue(other);
  sycl.free(at);
});

test("Where memory cannot be read cautiously USM is read as well", (sycl) => {
  const at = sycl.allocate(bytesOf(Float32Array.of(1, 2)));
  usePortablePath(true);
  try {
    const spec = placed(floats([2]), at);
    const { queue } = sycl;
    for (const options of [undefined, { stream: queue }]) {
      const t = fromDlpack(capsule(spec, options), { device: "cpu" });
      assertEquals(t.toArray(), [1, 2]);
    }
    refused(floats([2]), at, "no sycl::queue", { stream: 1 });
  } finally {
    usePortablePath(false);
  }
  sycl.free(at);
});

test("fromDlpackAsync() reads USM beside other things", async (sycl) => {
  const data = bytesOf(
    Uint32Array.from({ length: 20 << 20 }, (_, i) => i * 2654435761),
  );
  const at = sycl.allocate(data);
  const spec = placed({ dtype: [1, 32, 1], shape: [20 << 20], nbytes: 4 }, at);
  const progress: number[] = [];
  const t = await fromDlpackAsync(capsule(spec), {
    device: "cpu",
    onProgress: (done, total) => progress.push(done / total),
  });
  assertEquals(progress, [0.4, 0.8, 1]);
  const bytes = bytesOf(t.data);
  // Not by assertEquals, which takes long.
  assertEquals(bytes.findIndex((value, i) => value !== data[i]), -1);

  const before = counts();
  const controller = new AbortController();
  await assertRejects(
    () =>
      fromDlpackAsync(capsule(spec), {
        device: "cpu",
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      }),
    RangeError,
    "Enough",
  );
  assertEquals(counts().deleted - before.deleted, 1);
  sycl.free(at);
});

test("uploadTo() fills USM of every kind, whatever the strides, and no more", async (sycl) => {
  const source = Tensor.from(Float32Array.from({ length: 6 }, (_, i) => i + 1));
  const cases: [Partial<FixtureSpec>, readonly number[]][] = [
    [{ shape: [2, 3] }, [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0]],
    [{ shape: [2, 3], byteOffset: 8 }, [0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0]],
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
    ]],
  ];
  for (const kind of usmKinds) {
    for (const [changes, expected] of cases) {
      const at = sycl.allocate(new Uint8Array(52), kind);
      const spec = placed({ ...floats([6]), ...changes }, at);
      const x = capsule(spec, { stream: sycl.queue });
      await uploadTo(x, source.reshape(x.shape));
      const all = sycl.read(at, 52);
      assertEquals([...new Float32Array(all.buffer)], expected, kind);
      assertEquals(deletions(() => x[Symbol.dispose]()), 1);
      sycl.free(at);
    }
  }
});

test("uploadTo() keeps every bit of every dtype in USM", async (sycl) => {
  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name as DType)!;
    // An odd number of elements: with packed ones others share the last byte.
    const nbytes = Math.ceil(21 * bits / 8);
    const data = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
    const spec = { dtype: [code, bits, 1], shape: [21], nbytes, data } as const;
    const at = sycl.allocate(new Uint8Array(nbytes + 3).fill(0xff));
    using x = capsule(placed({ ...spec, byteOffset: 3 }, at));
    using source = importFixture(spec);
    await uploadTo(x, source);
    const last = 21 * bits % 8;
    const expected = data.slice();
    if (last > 0) expected[nbytes - 1]! |= 0xff << last;
    assertEquals(
      sycl.read(at, nbytes + 3),
      Uint8Array.of(255, 255, 255, ...expected),
      name,
    );
    sycl.free(at);
  }
});

test("uploadTo() fills much USM beside other things, and stops", async (sycl) => {
  const words = new Uint32Array(20 << 20).map((_, i) => i * 2654435761);
  const source = Tensor.from(words);
  const at = sycl.allocate(new Uint8Array(words.byteLength));
  const spec = placed({ dtype: [1, 32, 1], shape: [20 << 20], nbytes: 4 }, at);
  const progress: number[] = [];
  const x = capsule(spec);
  await uploadTo(x, source, {
    onProgress: (done, total) => progress.push(done / total),
  });
  assertEquals(progress, [0.4, 0.8, 1]);
  const t = fromDlpack(x, { device: "cpu" });
  assert(t.is("uint32"));
  assertEquals(t.data.findIndex((word, i) => word !== words[i]), -1);
  using y = capsule(spec);
  const controller = new AbortController();
  await assertRejects(
    () =>
      uploadTo(y, source, {
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      }),
    RangeError,
    "Enough",
  );
  sycl.free(at);
});

test("uploadTo() refuses what is no USM, or too little, and waits for no queue that is none", async (sycl) => {
  const source = Tensor.from(Float32Array.of(1, 2));
  const at = sycl.allocate(new Uint8Array(8));
  const freed = sycl.allocate(new Uint8Array(8192));
  sycl.free(freed);
  const cases: [Partial<FixtureSpec>, bigint, string, { stream: bigint }?][] = [
    [{}, freed, "SYCL knows no USM at 0x"],
    [{ byteOffset: 4 }, at, "beyond the USM that SYCL knows there"],
    [{ strides: [2] }, at, "beyond the USM that SYCL knows there"],
    [{}, at, "is no sycl::queue", { stream: at }],
  ];
  for (const [changes, handle, message, options] of cases) {
    const x = capsule(placed({ ...floats([2]), ...changes }, handle), options);
    const error = await uploadTo(x, source).catch((error) => error);
    assertBufferError(
      () => {
        throw error;
      },
      "device",
      message,
    );
    assert(error.message.startsWith("Cannot upload to a tensor on oneapi:0: "));
    assertEquals(deletions(() => x[Symbol.dispose]()), 1);
  }
  assertEquals(sycl.read(at, 8), new Uint8Array(8));
  sycl.free(at);
});

test("uploadTo() waits for the queue that the capsule names", async (sycl) => {
  const size = 1 << 26;
  const large = sycl.allocate(new Uint8Array(size));
  const at = sycl.allocate(new Uint8Array(8));
  const queue = sycl.newQueue();
  const spec = placed({ dtype: [1, 8, 1], shape: [8], nbytes: 8 }, at);
  using x = capsule(spec, { stream: queue });
  for (let i = 0; i < 16; i++) sycl.fillLater(queue, large, i, size);
  sycl.fillLater(queue, at, 7, 8);
  await uploadTo(x, Tensor.from(new Uint8Array(8).fill(9)));
  sycl.fillLater(queue, at + 4n, 1, 1); // behind all that the queue had
  using y = capsule(spec, { stream: queue });
  const t = fromDlpack(y, { device: "cpu" });
  assertEquals(t.toArray(), [9, 9, 9, 9, 1, 9, 9, 9]);
  sycl.deleteQueue(queue);
  sycl.free(at);
  sycl.free(large);
});

test("Where OpenCL does not tell ranges kinds of pointers do", async () => {
  const { out, err } = await runScript(`
    import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
    import { make } from "#fixture";
    import { openSycl } from "${import.meta.resolve("./native/oneapi.ts")}";
    const sycl = openSycl(Deno.env.get("DLPACK_ONEAPI_LIBRARY"));
    Deno.env.set("DLPACK_OPENCL_LIBRARY", "/none/libOpenCL.so");
    const handle = sycl.allocate(new Uint8Array(64).fill(7));
    for (const shape of [[64], [65]]) {
      const pointer = make({
        dtype: [1, 8, 1], shape, nbytes: 4, device: [14, 0], handle,
      });
      try {
        const x = new DlpackCapsule(pointer, "dltensor_versioned");
        console.log(fromDlpack(x, { device: "cpu" }).get(63));
      } catch (error) {
        console.log(error.code, error.message.includes("beyond the USM"));
      }
    }
    sycl.free(handle);
  `);
  assertEquals([out, err], [["7", "device true"], ""]);
});

test("Without a device that has USM the error says so", async () => {
  const { out } = await runScript(importScript, [
    "-A",
  ], { OCL_ICD_FILENAMES: "/none/cl.so", OCL_ICD_VENDORS: "/none/" });
  assertEquals(out.slice(0, 2), ["device", "1"]);
  assert(
    out[2]!.includes(
      "SYCL lists 0 devices, none of them with USM; check that sycl-ls",
    ),
    out[2],
  );
});

Deno.test("Without dpctl the error says how to get it", async () => {
  const { out } = await runScript(importScript, ["-A"], {
    DLPACK_ONEAPI_LIBRARY: "/none/dpctl.so",
  });
  assertEquals(out.slice(0, 2), ["device", "1"]);
  assert(
    out[2]!.startsWith(
      "Cannot copy a tensor on oneapi:0 to the host: dpctl's C interface to " +
        "SYCL is not here (/none/dpctl.so cannot be opened); install it",
    ),
    out[2],
  );
});

/** Imports from oneAPI in a process of its own: code, deleter calls, message. */
const importScript = `
  import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
  import { counts, make } from "#fixture";
  const pointer = make({
    dtype: [2, 32, 1], shape: [1], nbytes: 4, device: [14, 0],
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
`;

/** dpnp, in the Python of this process. */
class Dpnp {
  readonly #python: { PyRun_SimpleString(code: BufferSource): number };

  private constructor() {
    this.#python = openPython({
      PyRun_SimpleString: { parameters: ["buffer"], result: "i32" },
    });
    this.run(`
import ctypes, sys, dpnp
def take(x):
    "The struct of an array, out of its capsule."
    capsule = x.__dlpack__(max_version=(1, 3))
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    name = ctypes.c_char_p(b"dltensor_versioned")
    pointer = api.PyCapsule_GetPointer(ctypes.py_object(capsule), name)
    global used
    used = ctypes.c_char_p(b"used_dltensor_versioned")
    api.PyCapsule_SetName(ctypes.py_object(capsule), used)
    return pointer
`);
  }

  /** dpnp, or why it is not there. */
  static open(): Dpnp | string {
    try {
      return new Dpnp();
    } catch (error) {
      return (error as Error).message.split("\n")[0]!;
    }
  }

  /** Runs statements of Python. */
  run(code: string): void {
    if (this.#python.PyRun_SimpleString(cString(code)) === 0) return;
    throw new Error("Python raised the error printed above");
  }

  /** What an expression of Python is: an int. */
  evaluate(expression: string): bigint {
    const value = new BigInt64Array(1);
    const address = addressOfArray(value);
    this.run(`ctypes.c_int64.from_address(${address}).value = ${expression}`);
    return value[0]!;
  }

  /** The struct of an array, and its queue. */
  capsule(array: string): DlpackCapsule {
    const stream = this.evaluate(`(${array}).sycl_queue.addressof_ref()`);
    const pointer = this.evaluate(`take(${array})`);
    return new DlpackCapsule(pointer, "dltensor_versioned", { stream });
  }
}

const dpnp = typeof found === "string" ? found : Dpnp.open();
if (dpnp !== found && typeof dpnp === "string") {
  skipped(`dpnp (${dpnp})`, advice);
}

/** Registers a test that needs dpnp. */
function dpnpTest(
  name: string,
  run: (dpnp: Dpnp) => void | Promise<void>,
): void {
  Deno.test({
    name,
    ignore: typeof dpnp === "string",
    fn: () => run(dpnp as Dpnp),
  });
}

dpnpTest("dpnp's arrays come over, of all kinds and layouts", async (dpnp) => {
  for (const kind of usmKinds) {
    dpnp.run(`
a = dpnp.arange(24, dtype="float32", usm_type="${kind}").reshape(4, 6)
before = sys.getrefcount(a)`);
    const views: [string, (i: number, j: number) => number, number[]][] = [
      ["a", (i, j) => 6 * i + j, [4, 6]],
      ["a.T", (i, j) => 6 * j + i, [6, 4]],
      ["a[1:3, 2:5]", (i, j) => 6 * (i + 1) + j + 2, [2, 3]],
      ["a[::-1, ::-2]", (i, j) => 6 * (3 - i) + 5 - 2 * j, [4, 3]],
      ["a[:, :0]", () => 0, [4, 0]],
    ];
    for (const [view, value, shape] of views) {
      const expected = Array.from(
        { length: shape[0]! },
        (_, i) => Array.from({ length: shape[1]! }, (_, j) => value(i, j)),
      );
      const x = dpnp.capsule(view);
      assertEquals([x.dtype, x.device.type], ["float32", "oneapi"]);
      assertEquals(fromDlpack(x, { device: "cpu" }).toArray(), expected, view);
      const y = dpnp.capsule(view);
      const t = await fromDlpackAsync(y, { device: "cpu" });
      assertEquals(t.toArray(), expected, view);
    }
    // Every deleter has run.
    assertEquals(dpnp.evaluate("sys.getrefcount(a) - before"), 0n);
  }
});

dpnpTest("dpnp's dtypes keep their values", (dpnp) => {
  const dtypes = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32"]
    .concat("int64", "uint64", "float16", "float32", "float64")
    .concat("complex64", "complex128");
  for (const dtype of dtypes) {
    dpnp.run(`
try: a = dpnp.asarray([0, 1, 1, 0], dtype="${dtype}")
except ValueError: a = None # the device has no such dtype`);
    if (dpnp.evaluate("a is None")) continue;
    const t = fromDlpack(dpnp.capsule("a"), { device: "cpu" });
    assertEquals(t.dtype, dtype);
    assertEquals(t.astype("float64").toArray(), [0, 1, 1, 0]);
  }
});

dpnpTest(
  "dpnp's arrays are filled, and dpnp computes with that",
  async (dpnp) => {
    for (const kind of usmKinds) {
      dpnp.run(`a = dpnp.zeros((4, 6), dtype="float32", usm_type="${kind}")`);
      using x = dpnp.capsule("a[1:3, ::-2]");
      const source = Tensor.from(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
      await uploadTo(x, source);
      dpnp.run("b = a * 10.0");
      const b = fromDlpack(dpnp.capsule("b"), { device: "cpu" });
      assertEquals(b.toArray(), [
        [0, 0, 0, 0, 0, 0],
        [0, 30, 0, 20, 0, 10],
        [0, 60, 0, 50, 0, 40],
        [0, 0, 0, 0, 0, 0],
      ]);
    }
  },
);

dpnpTest("dpnp's queue is waited for", async (dpnp) => {
  for (const importIt of [fromDlpack, fromDlpackAsync]) {
    dpnp.run(`
a = dpnp.ones(8 << 20, dtype="float32")
for _ in range(30): a = a * 1.0 + 1.0`);
    const t = await importIt(dpnp.capsule("a"), { device: "cpu" });
    const { data } = t.is("float32") ? t : { data: null };
    assertEquals([t.size, data!.findIndex((x) => x !== 31)], [8 << 20, -1]);
  }
});
