// ROCm tensors by a stand-in for HIP's runtime (native/hip_driver.c), whose
// device memory the host cannot read, and whose calls fail on demand. What a GPU
// does beyond that is not tested.

import {
  BufferError,
  DeviceType,
  fromDlpack,
  fromDlpackAsync,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { freeAllPinned } from "../ffi/devices/pinned.ts";
import { testUploads } from "./devices_gpu_uploads.ts";
import { assertBufferError, bytesOf, capsule, floats } from "./helpers.ts";
import { compile } from "./native/cc.ts";
import { cString, stand } from "./native/cuda_driver.ts";
import { counts, type FixtureSpec } from "./native/fixture.ts";

const path = decodeURIComponent(
  compile(new URL("./native/hip_driver.c", import.meta.url), "hip_driver")
    .pathname,
);
const { symbols: driver } = Deno.dlopen(path, {
  ...stand,
  sim_current: { parameters: [], result: "i32" }, // int (void)
  sim_set_current: { parameters: ["i32"], result: "void" }, // void (int device)
  sim_last_error: { parameters: [], result: "i32" }, // int (void)
});

/** The memory of two devices. */
const [DEVICE_0, DEVICE_1] = [1n, 2n];

async function withDriver(run: () => void | Promise<void>): Promise<void> {
  Deno.env.set("DLPACK_ROCM_LIBRARY", path);
  driver.sim_reset();
  driver.sim_set_current(1);
  try {
    await run();
    freeAllPinned();
    assertEquals(driver.sim_held(), 0, "something was not given back");
    assertEquals(driver.sim_current(), 1, "another device is current");
  } finally {
    Deno.env.delete("DLPACK_ROCM_LIBRARY");
  }
}

function test(name: string, run: () => void | Promise<void>): void {
  Deno.test(name, () => withDriver(run));
}

// Once, outside of the tests, to which a library that they open seems a leak.
await withDriver(async () => {
  const handle = allocate(new Uint8Array(4));
  await importMemory(floats([1]), handle);
  driver.sim_free(handle);
});

function allocate(
  bytes: Uint8Array<ArrayBuffer>,
  context = DEVICE_0,
  neighbours = 1,
): bigint {
  const length = BigInt(bytes.length);
  return driver.sim_alloc(bytes, length, context!, 2, neighbours);
}

/**
 * Imports. With success and without, the deleter must be called once, and no
 * error be left for other code of the thread.
 */
async function importMemory(
  spec: FixtureSpec,
  handle: bigint,
  options: { stream?: number | bigint; isAsync?: boolean } = {},
): Promise<Tensor> {
  const { isAsync = false, ...rest } = options;
  const device = spec.device ?? [DeviceType.rocm, 0];
  const x = capsule({ ...spec, device, handle }, rest);
  const before = counts();
  try {
    return isAsync
      ? await fromDlpackAsync(x, { device: "cpu" })
      : fromDlpack(x, { device: "cpu" });
  } finally {
    assertEquals(counts().deleted - before.deleted, 1);
    assertEquals(counts().double, before.double);
    assertEquals(driver.sim_last_error(), 0);
  }
}

/** What an import throws. */
async function refused(
  spec: FixtureSpec,
  handle: bigint,
  message: string,
  options: { stream?: number | bigint } = {},
): Promise<void> {
  const error = await importMemory(spec, handle, options).catch((e) => e);
  assertBufferError(
    () => {
      throw error;
    },
    "device",
    message,
  );
}

const twelve = bytesOf(Float32Array.from({ length: 12 }, (_, i) => i));

test("ROCm memory is copied to the host, whatever its strides", async () => {
  // Neither the device that is current nor the one that the struct says.
  for (const context of [DEVICE_0, DEVICE_1]) {
    const handle = allocate(twelve, context);
    const cases: [Partial<FixtureSpec>, unknown][] = [
      [{ shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
      [{ shape: [3, 2], strides: [1, 3] }, [[0, 3], [1, 4], [2, 5]]],
      [{ shape: [4], strides: [-3], byteOffset: 36 }, [9, 6, 3, 0]],
      [{ shape: [2], device: [DeviceType.rocm, 7] }, [0, 1]],
    ];
    for (const [changes, expected] of cases) {
      for (const isAsync of [false, true]) {
        const spec = { ...floats([1]), ...changes };
        const t = await importMemory(spec, handle, { isAsync });
        assertEquals(t.toArray(), expected);
      }
    }
    driver.sim_free(handle);
  }
});

test("Memory that HIP's runtime does not have is not read", async () => {
  const handle = allocate(twelve);
  const end = handle + 48n;
  const known = `the runtime knows there at 0x${end.toString(16)}`;
  await refused(floats([13]), handle, known);
  await refused({ ...floats([12]), byteOffset: 1 }, handle, known);
  const before = { ...floats([2]), strides: [-1] };
  await refused(before, handle, "knows no memory");
  driver.sim_free(handle);
  await refused(
    floats([1]),
    handle,
    "was it freed? hipPointerGetAttribute failed with hipErrorInvalidValue (1)",
  );
});

test("Neighbouring allocations may hold one tensor of ROCm's", async () => {
  const handle = allocate(twelve, DEVICE_0, 3);
  const spec = { ...floats([3]), strides: [4] };
  const t = await importMemory(spec, handle);
  assertEquals(t.toArray(), [0, 4, 8]);
  const known = "the runtime knows there at 0x";
  await refused({ ...spec, shape: [4] }, handle, known);
  for (let i = 0n; i < 3n; i++) driver.sim_free(handle + 16n * i);
});

test("Work on ROCm's streams is waited for as the capsule says", async () => {
  const handle = allocate(new Uint8Array(8));
  const [mine, other] = [driver.sim_stream(), driver.sim_stream()];
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 };
  let value = 0;
  const sees = async (
    writer: bigint,
    options: { stream?: number | bigint },
    isSeen: boolean,
  ): Promise<void> => {
    for (const isAsync of [false, true]) {
      value++;
      driver.sim_fill_later(handle, value, 8n, writer);
      const t = await importMemory(spec, handle, { ...options, isAsync });
      assertEquals(t.get(7) === value, isSeen, `${writer} ${options.stream}`);
    }
  };
  await sees(mine, {}, true);
  await sees(mine, { stream: mine }, true);
  await sees(mine, { stream: other }, false);
  await sees(mine, { stream: -1 }, false);
  await sees(1n, { stream: 0 }, true);
  await refused(spec, handle, "ROCm has no stream 1", { stream: 1 });
  await refused(spec, handle, "ROCm has no stream 2", { stream: 2 });
  await refused(
    spec,
    handle,
    "hipStreamSynchronize failed with hipErrorContextIsDestroyed (709): ROCm ",
    { stream: 40 },
  );
  driver.sim_destroy_stream(mine);
  driver.sim_destroy_stream(other);
  driver.sim_free(handle);
});

const calls = [
  "hipInit",
  "hipGetDevice",
  "hipSetDevice",
  "hipDeviceSynchronize",
  "hipPointerGetAttribute",
  "hipMemGetAddressRange",
  "hipMemcpyDtoH",
  "hipMemcpyDtoHAsync",
  "hipMemcpy2D",
  "hipMemcpy2DAsync",
  "hipHostMalloc",
  "hipStreamCreateWithFlags",
  "hipStreamDestroy",
  "hipStreamSynchronize",
  "hipEventCreateWithFlags",
  "hipEventDestroy",
  "hipEventRecord",
  "hipEventQuery",
  "hipEventSynchronize",
];

test("Each call of HIP's runtime that fails is reported", async () => {
  const handle = allocate(new Uint8Array(12 << 20));
  const stream = driver.sim_stream();
  const rows: FixtureSpec = {
    dtype: [1, 8, 1],
    shape: [9, 700_000],
    strides: [1 << 20, 1],
    nbytes: 1,
  };
  const all: FixtureSpec = { ...rows, shape: [12 << 20], strides: null };
  const failed = new Set<string>();
  for (const [spec, options] of [[all, {}], [rows, { stream }]] as const) {
    for (const isAsync of [false, true]) {
      const run = (): Promise<Tensor> =>
        importMemory(spec, handle, { ...options, isAsync });
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
          const failure = await run().catch((error) => error);
          assert(failure instanceof BufferError, `${what}: ${failure}`);
          assertEquals(failure.code, "device");
          const text = `${call} failed with hipErrorIllegalAddress (700)`;
          assert(failure.message.includes(text), `${what}: ${failure}`);
          failed.add(call);
          // What the failing call itself was to do.
          driver.sim_set_current(1);
          freeAllPinned();
          const isGetOrSet = /^hip[GS]etDevice$/.test(call);
          if (isGetOrSet && isAsync) driver.sim_forget(stream);
          assertEquals(driver.sim_held(), 1, what); // the stream
        }
      }
    }
  }
  assertEquals([...failed].sort(), calls.toSorted());
  driver.sim_destroy_stream(stream);
  driver.sim_free(handle);
});

testUploads({
  device: ["rocm", DeviceType.rocm],
  driver,
  test,
  allocate,
  copies: [
    "hipMemcpyHtoD",
    "hipMemcpy2D",
    "hipMemcpyHtoDAsync",
    "hipMemcpy2DAsync",
  ],
  calls: calls.filter((call) => !call.includes("DtoH"))
    .concat("hipMemcpyHtoD", "hipMemcpyHtoDAsync"),
  around: /^hip[GS]etDevice$/,
  error700: "hipErrorIllegalAddress",
  repair: () => driver.sim_set_current(1),
});

test("Without an AMD GPU the error says so", async () => {
  driver.sim_devices(0);
  await refused(
    floats([1]),
    4096n,
    "hipInit failed with hipErrorNoDevice (100): check that rocminfo",
  );
});

Deno.test("Without HIP's runtime the error says how to get it", async () => {
  Deno.env.set("DLPACK_ROCM_LIBRARY", "/none/hip.so");
  try {
    await refused(
      floats([1]),
      4096n,
      "(/none/hip.so cannot be opened); install",
    );
  } finally {
    Deno.env.delete("DLPACK_ROCM_LIBRARY");
  }
});
