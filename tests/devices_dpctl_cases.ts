// oneAPI by a stand-in for dpctl (native/dpctl.c), for what SYCL on a CPU does
// not show: memory that the host cannot read, several devices, a backend that
// tells no ranges, and calls that fail.

import {
  BufferError,
  DeviceType,
  fromDlpack,
  fromDlpackAsync,
  Tensor,
  uploadTo,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { assertBufferError, bytesOf, capsule, floats } from "./helpers.ts";
import { compile } from "./native/cc.ts";
import { cString } from "./native/cuda_driver.ts";
import { counts, type FixtureSpec } from "./native/fixture.ts";

const path = decodeURIComponent(
  compile(new URL("./native/dpctl.c", import.meta.url), "dpctl").pathname,
);
const { symbols: dpctl } = Deno.dlopen(path, {
  sim_reset: { parameters: [], result: "void" }, // void (void)
  sim_fail: { parameters: ["buffer", "i32"], result: "void" }, // void (const char *name, int at)
  sim_count: { parameters: ["buffer"], result: "i32" }, // int (const char *name)
  sim_status: { parameters: ["i32"], result: "void" }, // void (int with)
  sim_held: { parameters: [], result: "i32" }, // int (void)
  sim_alloc: { parameters: ["buffer", "usize", "i32"], result: "u64" }, // uint64_t (const uint8_t *bytes, size_t size, int device)
  sim_free: { parameters: ["u64"], result: "void" }, // void (uint64_t at)
  sim_peek: { parameters: ["u64", "buffer", "usize"], result: "void" }, // void (uint64_t at, uint8_t *into, size_t size)
  sim_queue: { parameters: ["i32"], result: "u64" }, // Queue *(int device)
  sim_not_a_queue: { parameters: ["u64"], result: "void" }, // void (Queue *)
  sim_delete_queue: { parameters: ["u64"], result: "void" }, // void (Queue *)
  sim_fill_later: {
    parameters: ["u64", "u64", "u8", "usize"],
    result: "void",
  }, // void (Queue *, uint64_t at, uint8_t value, size_t size)
});

/** The devices with USM, as the stand-in numbers them. */
const [FIRST, SECOND] = [1, 2];

/** What is held for good: two contexts, and for each a device and its queue. */
const KEPT = 2 + 2 * 2;

async function withDpctl(run: () => void | Promise<void>): Promise<void> {
  Deno.env.set("DLPACK_ONEAPI_LIBRARY", path);
  dpctl.sim_reset();
  try {
    await run();
  } finally {
    Deno.env.delete("DLPACK_ONEAPI_LIBRARY");
  }
}

function test(name: string, run: () => void | Promise<void>): void {
  Deno.test(name, () =>
    withDpctl(async () => {
      await run();
      assertEquals(dpctl.sim_held(), KEPT, "something was not given back");
    }));
}

function allocate(bytes: Uint8Array<ArrayBuffer>, device = FIRST): bigint {
  return dpctl.sim_alloc(bytes, BigInt(bytes.length), device!);
}

/** Imports, both ways; the deleter must be called once. */
async function importUsm(
  spec: FixtureSpec,
  handle: bigint,
  { isAsync = false, ...options }: {
    stream?: number | bigint;
    isAsync?: boolean;
  } = {},
): Promise<Tensor> {
  const device = spec.device ?? [DeviceType.oneapi, FIRST!] as const;
  const x = capsule({ ...spec, device, handle }, options);
  const before = counts();
  try {
    return isAsync
      ? await fromDlpackAsync(x, { device: "cpu" })
      : fromDlpack(x, { device: "cpu" });
  } finally {
    assertEquals(counts().deleted - before.deleted, 1);
    assertEquals(counts().double, before.double);
  }
}

/** What an import throws. */
async function refused(
  spec: FixtureSpec,
  handle: bigint,
  message: string,
  options: { stream?: number | bigint } = {},
): Promise<void> {
  const error = await importUsm(spec, handle, options).catch((error) => error);
  assertBufferError(
    () => {
      throw error;
    },
    "device",
    message,
  );
}

await withDpctl(async () => {
  // The first tensor of all: what fails now is tried again by the next.
  const handle = allocate(new Uint8Array(4));
  dpctl.sim_fail(cString("DPCTLDeviceMgr_GetDevices"), 1);
  await refused(floats([1]), handle, "SYCL lists 0 devices, none of them with");
  dpctl.sim_fail(cString("DPCTLQueue_Create"), 1);
  await refused(
    floats([1]),
    handle,
    "DPCTLQueue_Create failed and returned NULL (0)",
  );
  await importUsm(floats([1]), handle);
  const other = allocate(new Uint8Array(4), SECOND);
  await importUsm(floats([1]), other);
  dpctl.sim_free(handle);
  dpctl.sim_free(other);
});

const twelve = bytesOf(Float32Array.from({ length: 12 }, (_, i) => i));

test("USM that the host cannot read is copied, of any device and id", async () => {
  for (const device of [FIRST, SECOND]) {
    const handle = allocate(twelve, device);
    const cases: [Partial<FixtureSpec>, unknown][] = [
      [{ shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
      [{ shape: [3, 2], strides: [1, 3] }, [[0, 3], [1, 4], [2, 5]]],
      [{ shape: [4], strides: [-3], byteOffset: 36 }, [9, 6, 3, 0]],
      [{ shape: [2], device: [DeviceType.oneapi, 0] }, [0, 1]],
      [{ shape: [2], device: [DeviceType.oneapi, 2] }, [0, 1]],
      [{ shape: [2], device: [DeviceType.oneapi, -1] }, [0, 1]],
    ];
    for (const [changes, expected] of cases) {
      for (const isAsync of [false, true]) {
        const spec = { ...floats([1]), ...changes };
        const t = await importUsm(spec, handle, { isAsync });
        assertEquals(t.toArray(), expected);
      }
    }
    dpctl.sim_free(handle);
  }
});

test("Where a backend tells no ranges, places between the ends are looked at", async () => {
  const handle = allocate(twelve);
  const spec = floats([1]);
  await refused(
    { ...spec, shape: [13] },
    handle,
    "beyond the USM that SYCL knows",
  );
  await refused(
    { ...spec, shape: [2], strides: [1000] },
    handle,
    "beyond the USM",
  );
  // Both ends are memory, but not what is between.
  const far = allocate(new Uint8Array(4096));
  const [low, high] = handle < far ? [handle, far] : [far, handle];
  const gap = Number(high - low) / 4;
  if (gap > 4096) {
    await refused(
      { ...spec, shape: [2], strides: [gap] },
      low,
      "beyond the USM",
    );
  }
  dpctl.sim_free(far);
  dpctl.sim_free(handle);
  await refused(spec, handle, "SYCL knows no USM at 0x");
});

test("SYCL's queues are told from what is none, and waited for", async () => {
  const handle = allocate(new Uint8Array(8));
  const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 };
  const mine = dpctl.sim_queue(FIRST!);
  let value = 0;
  for (const isAsync of [false, true]) {
    for (const [stream, isSeen] of [[mine, true], [-1, false]] as const) {
      value++;
      dpctl.sim_fill_later(mine, handle, value, 8n);
      const t = await importUsm(spec, handle, { stream, isAsync });
      assertEquals(t.get(0) === value, isSeen);
      await importUsm(spec, handle, { stream: mine });
    }
  }
  const others = dpctl.sim_queue(SECOND!);
  await refused(spec, handle, `stream ${others} is no sycl::queue`, {
    stream: others,
  });
  dpctl.sim_not_a_queue(mine);
  await refused(spec, handle, `stream ${mine} is no sycl::queue`, {
    stream: mine,
  });
  dpctl.sim_delete_queue(mine);
  dpctl.sim_delete_queue(others);
  dpctl.sim_free(handle);
});

test("uploadTo() fills USM that the host cannot write, and waits for it", async () => {
  const handle = allocate(new Uint8Array(64));
  const spec: FixtureSpec = {
    dtype: [1, 8, 1],
    shape: [3, 2],
    strides: [20, 3],
    byteOffset: 1,
    nbytes: 1,
    device: [DeviceType.oneapi, 1],
    handle,
  };
  using x = capsule(spec);
  const source = Tensor.from(Uint8Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
  await uploadTo(x, source);
  const expected = new Uint8Array(64);
  for (
    const [at, value] of [[1, 1], [4, 2], [21, 3], [24, 4], [41, 5], [44, 6]]
  ) {
    expected[at!] = value!;
  }
  const found = new Uint8Array(64);
  dpctl.sim_peek(handle, found, 64n);
  assertEquals(found, expected);
  dpctl.sim_free(handle);
});

test("Each call of dpctl that fails is reported, and all is given back", async () => {
  const handle = allocate(new Uint8Array(2 << 20));
  const stream = dpctl.sim_queue(FIRST!);
  const all: FixtureSpec = { dtype: [1, 8, 1], shape: [2 << 20], nbytes: 1 };
  const rows: FixtureSpec = { ...all, shape: [5, 10], strides: [100_000, 1] };
  const upload = async (spec: FixtureSpec): Promise<void> => {
    const device = [DeviceType.oneapi, FIRST!] as const;
    using x = capsule({ ...spec, device, handle }, { stream });
    await uploadTo(x, Tensor.zeros(spec.shape as number[], "uint8"));
    assertEquals(x.name, "dltensor_versioned");
  };
  const runs: (() => Promise<unknown>)[] = [
    () => importUsm(all, handle, { stream }),
    () => importUsm(all, handle, { stream, isAsync: true }),
    () => importUsm(rows, handle, { stream }),
    () => upload(all),
    () => upload(rows),
  ];
  const calls = ["DPCTLUSM_GetPointerDevice", "DPCTLQueue_Memcpy"];
  let failures = 0;
  for (const run of runs) {
    dpctl.sim_reset();
    await run();
    const made = calls.map((call) => dpctl.sim_count(cString(call)));
    for (const [i, call] of calls.entries()) {
      for (let at = 1; at <= made[i]!; at++) {
        dpctl.sim_reset();
        dpctl.sim_fail(cString(call), at);
        const error = await run().catch((error) => error);
        assert(error instanceof BufferError, `${call} ${at}: ${error}`);
        assertEquals(error.code, "device");
        assert(error.message.includes(`${call} failed and returned NULL (0)`));
        assertEquals(dpctl.sim_held(), KEPT, `${call} ${at} of ${made[i]}`);
        failures++;
      }
    }
    // A context that SYCL cannot tell is none of the memory's.
    dpctl.sim_reset();
    dpctl.sim_fail(cString("DPCTLQueue_GetContext"), 1);
    const none = await run().catch((error) => error) as Error;
    assert(none.message.includes("is no sycl::queue"), `${none}`);
    dpctl.sim_reset();
    dpctl.sim_status(2);
    const late = await run().catch((error) => error) as Error;
    assert(
      late.message.includes(
        "the copy of DPCTLQueue_Memcpy ended with status 2, not 3 (DPCTL_COMPLETE)",
      ),
      `${late}`,
    );
    assertEquals(dpctl.sim_held(), KEPT);
  }
  assert(failures > 10, `only ${failures}`);
  dpctl.sim_reset();
  dpctl.sim_delete_queue(stream);
  dpctl.sim_free(handle);
});
