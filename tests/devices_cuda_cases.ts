// CUDA tensors by a stand-in for the driver (native/cuda_driver.c), whose device
// memory the host cannot read, and whose calls fail on demand. What a GPU does
// beyond that is not tested.

import {
  BufferError,
  DeviceType,
  DlpackCapsule,
  fromDlpack,
  fromDlpackAsync,
  type FromDlpackAsyncOptions,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { freeAllPinned } from "../ffi/devices/pinned.ts";
import { testUploads } from "./devices_gpu_uploads.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  deletions,
  floats,
} from "./helpers.ts";
import { cString, driver, driverPath } from "./native/cuda_driver.ts";
import { counts, type FixtureSpec, make } from "./native/fixture.ts";

/** Where memory is: the primary contexts of two devices, and another one. */
const [PRIMARY_0, PRIMARY_1, OTHER] = [1n, 2n, 3n];
const DEVICE_MEMORY = 2;
const UNIFIED_MEMORY = 4;

/** What is done with the stand-in in place of the driver. */
async function withDriver(run: () => void | Promise<void>): Promise<void> {
  Deno.env.set("DLPACK_CUDA_LIBRARY", driverPath);
  driver.sim_reset();
  try {
    await run();
    freeAllPinned();
    assertEquals(driver.sim_held(), 0, "something was not given back");
  } finally {
    Deno.env.delete("DLPACK_CUDA_LIBRARY");
  }
}

function test(name: string, run: () => void | Promise<void>): void {
  Deno.test(name, () => withDriver(run));
}

// Once, outside of the tests, to which a library that they open seems a leak.
await withDriver(() => {
  const handle = allocate(new Uint8Array(4));
  importMemory(floats([1]), handle);
  driver.sim_free(handle);
});

function allocate(
  bytes: Uint8Array<ArrayBuffer>,
  context = PRIMARY_0,
  type = DEVICE_MEMORY,
  neighbours = 1,
): bigint {
  const length = BigInt(bytes.length);
  return driver.sim_alloc(bytes, length, context!, type, neighbours);
}

function on(spec: FixtureSpec, handle: bigint): FixtureSpec {
  return { ...spec, device: spec.device ?? [DeviceType.cuda, 0], handle };
}

/** Imports; the deleter must be called once, with success and without. */
function importMemory(
  spec: FixtureSpec,
  handle: bigint,
  options: { stream?: number | bigint } = {},
): Tensor {
  let t: Tensor | undefined;
  let failure: unknown;
  const deleted = deletions(() => {
    try {
      t = fromDlpack(capsule(on(spec, handle), options), { device: "cpu" });
    } catch (error) {
      failure = error;
    }
  });
  assertEquals(deleted, 1);
  if (t === undefined) throw failure;
  return t;
}

async function importLater(
  spec: FixtureSpec,
  handle: bigint,
  options: FromDlpackAsyncOptions & { stream?: number | bigint } = {},
): Promise<Tensor> {
  const before = counts();
  const { stream, ...rest } = options;
  try {
    const x = capsule(on(spec, handle), stream === undefined ? {} : { stream });
    return await fromDlpackAsync(x, { device: "cpu", ...rest });
  } finally {
    assertEquals(counts().deleted - before.deleted, 1);
    assertEquals(counts().double, before.double);
  }
}

const twelve = bytesOf(Float32Array.from({ length: 12 }, (_, i) => i));

test("CUDA memory is copied to the host, whatever its strides", async () => {
  const handle = allocate(twelve);
  const cases: [Partial<FixtureSpec>, unknown][] = [
    [{ shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
    [{ shape: [2, 3], byteOffset: 24 }, [[6, 7, 8], [9, 10, 11]]],
    [{ shape: [3, 2], strides: [1, 3] }, [[0, 3], [1, 4], [2, 5]]],
    [{ shape: [4], strides: [-3], byteOffset: 36 }, [9, 6, 3, 0]],
    [{ shape: [2, 2], strides: [0, 1] }, [[0, 1], [0, 1]]],
    [{ shape: [] }, 0],
    [{ shape: [0] }, []],
  ];
  for (const [changes, expected] of cases) {
    const spec = { ...floats([1]), ...changes };
    assertEquals(importMemory(spec, handle).toArray(), expected);
    assertEquals((await importLater(spec, handle)).toArray(), expected);
  }
  driver.sim_free(handle);
});

test("Rows of CUDA memory are copied as rows", () => {
  const [rows, pitch] = [40, 8192];
  const image = Uint8Array.from({ length: rows * pitch }, (_, i) => i >> 5);
  const handle = allocate(image);
  const spec: FixtureSpec = {
    dtype: [1, 8, 1],
    shape: [rows, 100],
    strides: [pitch, 1],
    byteOffset: 64,
    nbytes: 1,
  };
  const t = importMemory(spec, handle);
  for (let row = 0; row < rows; row++) {
    const start = row * pitch + 64;
    assertEquals(
      bytesOf(t.slice(row).copy().data),
      image.slice(start, start + 100),
    );
  }
  assertEquals(driver.sim_count(cString("cuMemcpy2D_v2")), 1);
  driver.sim_free(handle);
});

test("What the driver says of a pointer counts, not the device's id", () => {
  for (const context of [PRIMARY_1, OTHER]) {
    const handle = allocate(twelve, context);
    for (const id of [0, 1, 7]) {
      const spec = { ...floats([3]), device: [2, id] as const };
      assertEquals(importMemory(spec, handle).toArray(), [0, 1, 2]);
    }
    driver.sim_free(handle);
  }
});

test("A driver that wants a context to be asked gets the struct's", () => {
  driver.sim_ask_in_context(1);
  const handle = allocate(twelve, PRIMARY_1);
  assertEquals(importMemory(floats([2]), handle).toArray(), [0, 1]);
  assertBufferError(
    () => importMemory({ ...floats([2]), device: [2, 7] }, handle),
    "device",
    "cuda:7 to the host: cuDeviceGet failed with CUDA_ERROR_INVALID_DEVICE (101)",
  );
  driver.sim_free(handle);
});

test("Memory that the driver does not have is not read", () => {
  const handle = allocate(twelve);
  const beyond = (spec: Partial<FixtureSpec>): void => {
    assertBufferError(
      () => importMemory({ ...floats([1]), ...spec }, handle),
      "device",
    );
  };
  beyond({ shape: [13] });
  beyond({ shape: [12], byteOffset: 1 });
  beyond({ shape: [1], byteOffset: 48 });
  beyond({ shape: [2], strides: [-1] });
  driver.sim_free(handle);
  assertBufferError(
    () => importMemory(floats([1]), handle),
    "device",
    "was it freed? cuPointerGetAttribute failed with " +
      "CUDA_ERROR_INVALID_VALUE (1)",
  );
});

test("Neighbouring allocations may hold one tensor", () => {
  const handle = allocate(twelve, PRIMARY_0, DEVICE_MEMORY, 3);
  const spec = { ...floats([3]), strides: [4] };
  assertEquals(importMemory(spec, handle).toArray(), [0, 4, 8]);
  assertBufferError(
    () => importMemory({ ...spec, shape: [4] }, handle),
    "device",
    "the memory that the driver knows there at",
  );
  for (let i = 0n; i < 3n; i++) driver.sim_free(handle + 16n * i);
});

test("A driver that tells no ranges is believed", () => {
  driver.sim_ranges_unknown(1);
  const handle = allocate(twelve);
  assertEquals(importMemory(floats([2]), handle).toArray(), [0, 1]);
  driver.sim_free(handle);
});

test("Work on streams is waited for as the capsule says", async (): Promise<void> => {
  const handle = allocate(new Uint8Array(8));
  const [mine, other] = [driver.sim_stream(), driver.sim_stream()];
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 };
  let value = 0;
  const sees = async (
    writer: bigint,
    options: { stream?: number | bigint },
    isSeen: boolean,
  ): Promise<void> => {
    for (const importIt of [importMemory, importLater]) {
      value++;
      driver.sim_fill_later(handle, value, 8n, writer);
      const t = await importIt(spec, handle, options);
      assertEquals(t.get(7) === value, isSeen, `${writer} ${options.stream}`);
    }
  };
  await sees(mine, {}, true);
  await sees(mine, { stream: mine }, true);
  await sees(mine, { stream: Number(mine) }, true);
  await sees(mine, { stream: other }, false);
  await sees(mine, { stream: -1 }, false);
  await sees(1n, { stream: 1 }, true);
  await sees(2n, { stream: 2 }, true);
  for (
    const [stream, message] of [
      [0, "stream 0 can be two of CUDA's"],
      [40, "cuStreamSynchronize failed with CUDA_ERROR_INVALID_HANDLE (400)"],
    ] as const
  ) {
    assertBufferError(
      () => importMemory(spec, handle, { stream }),
      "device",
      message,
    );
  }
  driver.sim_destroy_stream(mine);
  driver.sim_destroy_stream(other);
  driver.sim_free(handle);
});

test("Managed memory is viewed when the GPU is done with it", () => {
  const handle = allocate(new Uint8Array(8), PRIMARY_0, UNIFIED_MEMORY);
  const stream = driver.sim_stream();
  driver.sim_fill_later(handle, 7, 8n, stream);
  const spec: FixtureSpec = {
    dtype: [1, 8, 1],
    shape: [8],
    nbytes: 8,
    device: [DeviceType.cudaManaged, 0],
  };
  const deleted = deletions(() => {
    using t = fromDlpack(capsule(on(spec, handle)));
    assertEquals(t.device.type, "cudaManaged");
    assertEquals(t.toArray(), Array(8).fill(7));
  });
  assertEquals(deleted, 1);
  driver.sim_destroy_stream(stream);
  driver.sim_free(handle);
  assertBufferError(
    () => importMemory(spec, handle),
    "device",
    "Cannot view a tensor on cudaManaged:0: the driver knows no memory at",
  );
});

test("A large tensor comes through pinned memory, and can be stopped", async () => {
  const bytes = new Uint8Array(40 << 20);
  const words = new Uint32Array(bytes.buffer);
  for (let i = 0; i < words.length; i++) words[i] = i * 2654435761;
  const handle = allocate(bytes);
  const spec: FixtureSpec = {
    dtype: [1, 8, 1],
    shape: [(40 << 20) - 3],
    byteOffset: 3,
    nbytes: 1,
  };
  const progress: number[] = [];
  const t = await importLater(spec, handle, {
    onProgress: (done) => progress.push(done),
  });
  assertEquals(progress, [32 << 20, (40 << 20) - 3]);
  // Not by assertEquals, which takes minutes.
  assertEquals(
    (t as Tensor<"uint8">).data.findIndex((value, i) => value !== bytes[i + 3]),
    -1,
  );
  const controller = new AbortController();
  setTimeout(() => controller.abort(new RangeError("Enough")));
  const { signal } = controller;
  await assertRejects(
    () => importLater(spec, handle, { signal }),
    RangeError,
    "Enough",
  );
  driver.sim_free(handle);
});

test("Rows come through pinned memory, too", async () => {
  const pitch = 3 << 20;
  const image = Uint8Array.from({ length: 4 * pitch }, (_, i) => i >> 5);
  const handle = allocate(image);
  // Several rows to a piece of pinned memory, and several pieces to a row.
  for (const [rows, step, length] of [[8000, 1500, 700], [4, pitch, 5 << 19]]) {
    const spec: FixtureSpec = {
      dtype: [1, 8, 1],
      shape: [rows!, length!],
      strides: [step!, 1],
      byteOffset: 7,
      nbytes: 1,
    };
    const bytes = bytesOf((await importLater(spec, handle)).data);
    for (let row = 0; row < rows!; row++) {
      const start = row * step! + 7;
      const expected = image.subarray(start, start + length!);
      const found = bytes.subarray(row * length!, (row + 1) * length!);
      assert(found.every((byte, i) => byte === expected[i]), `row ${row}`);
    }
  }
  assert(driver.sim_count(cString("cuMemcpy2DAsync_v2")) > 0);
  assertEquals(driver.sim_count(cString("cuMemcpy2D_v2")), 0);
  driver.sim_free(handle);
});

test("Pinned memory is used again, but not after a reset", async () => {
  const bytes = new Uint8Array(12 << 20);
  const handle = allocate(bytes);
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [12 << 20], nbytes: 1 };
  const made: number[] = [];
  for (let round = 0; round < 3; round++) {
    if (round === 2) driver.sim_reset_devices();
    const t = await importLater(spec, handle);
    assertEquals(bytesOf(t.data).findIndex((byte, i) => byte !== bytes[i]), -1);
    made.push(driver.sim_count(cString("cuMemHostAlloc")));
  }
  assertEquals(made, [6, 6, 12]);
  driver.sim_free(handle);
});

test("Pinned memory that cannot be given back is told of", async () => {
  const handle = allocate(new Uint8Array(5 << 20));
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [5 << 20], nbytes: 1 };
  await importLater(spec, handle);
  driver.sim_fail(cString("cuMemFreeHost"), 1, 700);
  const { error } = console;
  const told: string[] = [];
  console.error = (...args) => told.push(args.join(" "));
  try {
    freeAllPinned();
  } finally {
    console.error = error;
  }
  assertEquals(told.length, 1);
  assert(told[0]!.includes("cuMemFreeHost failed with"), told[0]);
  driver.sim_free(handle);
});

test("A driver that waits only within a context is asked again and again", async () => {
  driver.sim_wait_in_context(1);
  const bytes = Uint8Array.from({ length: 5 << 20 }, (_, i) => i >> 5);
  const handle = allocate(bytes);
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [5 << 20], nbytes: 1 };
  const t = await importLater(spec, handle);
  assertEquals(bytesOf(t.data).findIndex((byte, i) => byte !== bytes[i]), -1);
  assert(driver.sim_count(cString("cuEventQuery")) > 3);
  driver.sim_free(handle);
});

// What these tell is not needed, or cannot be thrown.
const forgiven = new Set(["cuDevicePrimaryCtxRelease_v2"]);

const calls = [
  "cuInit",
  "cuDeviceGet",
  "cuDevicePrimaryCtxRetain",
  "cuDevicePrimaryCtxRelease_v2",
  "cuCtxPushCurrent_v2",
  "cuCtxPopCurrent_v2",
  "cuCtxSynchronize",
  "cuPointerGetAttribute",
  "cuMemcpyDtoH_v2",
  "cuMemcpy2D_v2",
  "cuMemHostAlloc",
  "cuStreamCreate",
  "cuStreamDestroy_v2",
  "cuStreamSynchronize",
  "cuEventCreate",
  "cuEventDestroy_v2",
  "cuEventRecord",
  "cuEventQuery",
  "cuEventSynchronize",
  "cuMemcpyDtoHAsync_v2",
  "cuMemcpy2DAsync_v2",
];

for (const isAsync of [false, true]) {
  const how = isAsync ? "fromDlpackAsync()" : "fromDlpack()";
  test(`${how} reports each call of CUDA's driver that fails`, async () => {
    const handle = allocate(new Uint8Array(12 << 20));
    const rows: FixtureSpec = {
      dtype: [1, 8, 1],
      shape: [9, 700_000],
      strides: [1 << 20, 1],
      nbytes: 1,
    };
    const all: FixtureSpec = { ...rows, shape: [12 << 20], strides: null };
    const stream = driver.sim_stream();
    let failures = 0;
    for (const [spec, options] of [[all, {}], [rows, { stream }]] as const) {
      const run = async (): Promise<void> => {
        await (isAsync ? importLater : importMemory)(spec, handle, options);
      };
      driver.sim_reset();
      await run();
      const made = calls.map((call) => driver.sim_count(cString(call)));
      freeAllPinned();
      for (const [i, call] of calls.entries()) {
        // The first calls tell, and the last ones; not each of many polls.
        for (let at = 1; at <= made[i]!; at++) {
          if (at > 3 && at <= made[i]! - 3) continue;
          driver.sim_reset();
          driver.sim_fail(cString(call), at, 700);
          const what = `${call}, call ${at} of ${made[i]}`;
          let failure: unknown;
          try {
            await run();
          } catch (error) {
            failure = error;
          }
          if (forgiven.has(call)) assertEquals(failure, undefined, what);
          else if (call !== "cuPointerGetAttribute" || at === 1) {
            assert(failure instanceof BufferError, `${what}: ${failure}`);
            assertEquals(failure.code, "device");
            const text = `${call} failed with CUDA_ERROR_ILLEGAL_ADDRESS (700)`;
            assert(failure.message.includes(text), `${what}: ${failure}`);
            failures++;
          }
          // Without its context nothing of it can be given back: the last push.
          if (call === "cuCtxPushCurrent_v2" && at === made[i]!) {
            driver.sim_forget(stream);
          }
          freeAllPinned();
          assertEquals(driver.sim_held(), 1, what); // the stream
        }
      }
    }
    assert(failures > 20, `only ${failures}`);
    driver.sim_reset();
    driver.sim_destroy_stream(stream);
    driver.sim_free(handle);
  });
}

testUploads({
  device: ["cuda", DeviceType.cuda],
  driver,
  test,
  allocate,
  copies: [
    "cuMemcpyHtoD_v2",
    "cuMemcpy2D_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpy2DAsync_v2",
  ],
  calls: calls.filter((call) => !/DtoH|CtxRelease/.test(call))
    .concat("cuMemcpyHtoD_v2", "cuMemcpyHtoDAsync_v2"),
  around: /^cuCtxPushCurrent_v2$/,
  error700: "CUDA_ERROR_ILLEGAL_ADDRESS",
  repair() {},
});

test("Without a GPU the error says so", () => {
  driver.sim_devices(0);
  assertBufferError(
    () => importMemory(floats([1]), 4096n),
    "device",
    "cuInit failed with CUDA_ERROR_NO_DEVICE (100): check that nvidia-smi",
  );
});

Deno.test("Without CUDA's driver the error says how to get it", () => {
  Deno.env.set("DLPACK_CUDA_LIBRARY", "/none/libcuda.so");
  try {
    assertBufferError(
      () => importMemory(floats([1]), 4096n),
      "device",
      "the CUDA driver is not here (/none/libcuda.so cannot be opened)",
    );
    // Managed memory is the host's then.
    const managed = { ...floats([2]), device: [13, 0] as const };
    const pointer = make(managed);
    using t = fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
    assertEquals(t.toArray(), [0, 1]);
  } finally {
    Deno.env.delete("DLPACK_CUDA_LIBRARY");
  }
});
