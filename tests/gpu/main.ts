/**
 * CUDA tensors on a real GPU, in one table: what is right, and how fast copies to
 * the host are beside the driver's own.
 *
 * usage: tests/gpu/run [--bytes N]
 *
 * `--bytes` is the largest copy, 8 GiB by default, or what the GPU has free.
 *
 * @module
 */

import {
  DeviceType,
  DlpackCapsule,
  fromDlpack,
  fromDlpackAsync,
  type Tensor,
} from "@dlpack/deno";
import { runtimeOf } from "../../ffi/devices/registry.ts";
import { bufferAt } from "../../ffi/memory.ts";
import { dtypeByName, dtypeNames } from "../../src/dtype/table.ts";
import { counts, type FixtureSpec, make } from "../native/fixture.ts";

const symbols = {
  cuInit: { parameters: ["u32"], result: "i32" },
  cuDeviceGetName: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cuDevicePrimaryCtxRetain: { parameters: ["buffer", "i32"], result: "i32" },
  cuCtxPushCurrent_v2: { parameters: ["u64"], result: "i32" },
  cuMemGetInfo_v2: { parameters: ["buffer", "buffer"], result: "i32" },
  cuMemAlloc_v2: { parameters: ["buffer", "usize"], result: "i32" },
  cuMemAllocManaged: {
    parameters: ["buffer", "usize", "u32"],
    result: "i32",
  },
  cuMemFree_v2: { parameters: ["u64"], result: "i32" },
  cuMemHostAlloc: { parameters: ["buffer", "usize", "u32"], result: "i32" },
  cuMemFreeHost: { parameters: ["u64"], result: "i32" },
  cuMemcpyHtoD_v2: { parameters: ["u64", "buffer", "usize"], result: "i32" },
  cuMemcpyDtoH_v2: { parameters: ["buffer", "u64", "usize"], result: "i32" },
  cuStreamCreate: { parameters: ["buffer", "u32"], result: "i32" },
  cuStreamDestroy_v2: { parameters: ["u64"], result: "i32" },
  cuMemsetD8Async: {
    parameters: ["u64", "u8", "usize", "u64"],
    result: "i32",
  },
} as const;

const path = Deno.env.get("DLPACK_CUDA_LIBRARY") ?? "libcuda.so.1";
const { symbols: cuda } = Deno.dlopen(path, symbols);

let failures = 0;

function check(status: number): void {
  if (status !== 0) throw new Error(`The driver reports error ${status}`);
}

function made(run: (into: BigUint64Array<ArrayBuffer>) => number): bigint {
  const into = new BigUint64Array(1);
  check(run(into));
  return into[0]!;
}

function allocate(bytes: Uint8Array<ArrayBuffer>): bigint {
  const size = BigInt(bytes.length);
  const address = made((into) => cuda.cuMemAlloc_v2(into, size));
  check(cuda.cuMemcpyHtoD_v2(address, bytes, size));
  return address;
}

/** Not the one of helpers.ts, which needs @std/assert: a GPU may be offline. */
function capsule(
  spec: FixtureSpec,
  handle: bigint,
  options: { stream?: number | bigint } = {},
): DlpackCapsule {
  const device = spec.device ?? [DeviceType.cuda, 0];
  const pointer = make({ ...spec, device, handle });
  return new DlpackCapsule(pointer, "dltensor_versioned", options);
}

/** One row of the table: the deleters must have been called as often as said. */
async function row(
  name: string,
  deleted: number,
  run: () => unknown,
): Promise<void> {
  const before = counts();
  let result = "ok";
  try {
    await run();
    const after = counts();
    if (after.deleted - before.deleted !== deleted) {
      result = `${after.deleted - before.deleted} deleter calls`;
    }
    if (after.double !== before.double) result = "deleted twice";
  } catch (error) {
    result = String(error);
  }
  if (result !== "ok") failures++;
  console.log(`| ${name.padEnd(52)} | ${result} |`);
}

function same(t: Tensor, expected: unknown): void {
  const found = JSON.stringify(t.toArray());
  if (found !== JSON.stringify(expected)) throw new Error(`found ${found}`);
}

function refused(run: () => unknown, text: string): void {
  try {
    run();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === "device" && message.includes(text)) return;
    throw error;
  }
  throw new Error("nothing was thrown");
}

async function testAll(): Promise<void> {
  console.log(`| ${"what".padEnd(52)} | result |\n| --- | --- |`);
  const cpu = { device: "cpu" } as const;
  const floats = Float32Array.from({ length: 12 }, (_, i) => i);
  const twelve = allocate(new Uint8Array(floats.buffer));
  const base: FixtureSpec = { dtype: [2, 32, 1], nbytes: 1 };

  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name)!;
    const nbytes = 24 * bits / 8;
    const bytes = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
    const handle = allocate(bytes);
    const spec: FixtureSpec = { dtype: [code, bits, 1], shape: [24], nbytes };
    await row(name, 1, () => {
      const { data } = fromDlpack(capsule(spec, handle), cpu);
      const found = new Uint8Array(data.buffer);
      if (found.some((byte, i) => byte !== bytes[i])) throw new Error("bits");
    });
    check(cuda.cuMemFree_v2(handle));
  }
  const layouts: [string, Partial<FixtureSpec>, unknown][] = [
    ["C order", { shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
    ["byte offset", { shape: [2], byteOffset: 40 }, [10, 11]],
    [
      "transposed",
      { shape: [3, 2], strides: [1, 3] },
      [[0, 3], [1, 4], [2, 5]],
    ],
    [
      "backwards",
      { shape: [4], strides: [-3], byteOffset: 36 },
      [9, 6, 3, 0],
    ],
    ["every other", { shape: [3], strides: [4] }, [0, 4, 8]],
    ["repeated", { shape: [2, 2], strides: [0, 1] }, [[0, 1], [0, 1]]],
    ["without axes", { shape: [] }, 0],
    ["empty", { shape: [0] }, []],
    ["another device's id", { shape: [1], device: [2, 99] }, [0]],
  ];
  for (const [name, changes, expected] of layouts) {
    const spec = { ...base, ...changes };
    await row(
      name,
      1,
      () => same(fromDlpack(capsule(spec, twelve), cpu), expected),
    );
    await row(
      `${name}, asynchronously`,
      1,
      async () =>
        same(await fromDlpackAsync(capsule(spec, twelve), cpu), expected),
    );
  }
  await row("two consumers of the same memory", 2, () => {
    const spec = { ...base, shape: [2] };
    same(fromDlpack(capsule(spec, twelve), cpu), [0, 1]);
    same(fromDlpack(capsule(spec, twelve), cpu), [0, 1]);
  });

  // Long enough for a copy that does not wait to come too early.
  const size = 16 << 20;
  const bytes: FixtureSpec = { dtype: [1, 8, 1], shape: [size], nbytes: 1 };
  const large = allocate(new Uint8Array(size));
  const stream = made((into) => cuda.cuStreamCreate(into, 1));
  let value = 0;
  for (const options of [{}, { stream }]) {
    const how = "stream" in options ? "named" : "not named";
    await row(`a stream that does not block, ${how}`, 1, () => {
      const fill = ++value;
      for (let i = 0; i < 50; i++) {
        const last = i === 49 ? fill : 0;
        check(cuda.cuMemsetD8Async(large, last, BigInt(size), stream));
      }
      const { data } = fromDlpack(capsule(bytes, large, options), cpu);
      if ((data as Uint8Array).some((byte) => byte !== fill)) {
        throw new Error("came too early");
      }
    });
  }
  const managed = made((into) => cuda.cuMemAllocManaged(into, BigInt(size), 1));
  await row("managed memory, viewed", 1, () => {
    check(cuda.cuMemsetD8Async(managed, 9, BigInt(size), stream));
    const spec = { ...bytes, device: [DeviceType.cudaManaged, 0] as const };
    using t = fromDlpack(capsule(spec, managed));
    if ((t.data as Uint8Array).some((byte) => byte !== 9)) {
      throw new Error("came too early");
    }
  });
  const pinned = made((into) => cuda.cuMemHostAlloc(into, 48n, 0));
  new Float32Array(bufferAt(Number(pinned), 48)).set(floats);
  await row("pinned memory, viewed", 1, () => {
    const device = [DeviceType.cudaHost, 0] as const;
    using t = fromDlpack(capsule({ ...base, shape: [2], device }, pinned));
    same(t, [0, 1]);
  });
  check(cuda.cuMemFreeHost(pinned));

  await row("beyond the allocation", 1, () => {
    const spec = { ...bytes, shape: [1 << 30] };
    refused(() => fromDlpack(capsule(spec, large), cpu), "ends at");
  });
  for (const address of [managed, large, twelve]) {
    check(cuda.cuMemFree_v2(address));
  }
  await row("freed memory", 1, () => {
    const spec = { ...base, shape: [2] };
    refused(() => fromDlpack(capsule(spec, twelve), cpu), "INVALID_VALUE (1)");
  });
  check(cuda.cuStreamDestroy_v2(stream));
}

/** The best of some rounds, in GB/s. */
async function speed(
  size: number,
  run: () => unknown,
): Promise<number> {
  let best = Infinity;
  const rounds = size > 2 ** 28 ? 3 : 20;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    await run();
    best = Math.min(best, performance.now() - start);
  }
  return size / best / 1e6;
}

async function measureAll(largest: number): Promise<void> {
  console.log(
    "\nCopies to the host, GB/s, and ratios to cuMemcpyDtoH of the same kind:" +
      " into memory that is there, into fresh memory\n",
  );
  console.log(
    "| bytes | cuMemcpyDtoH | ours | ratio | pinned | cuMemcpyDtoH, fresh | " +
      "fromDlpack | ratio | fromDlpackAsync | ratio |\n" +
      `${"| --- ".repeat(10)}|`,
  );
  for (let size = 1024; size <= largest; size *= 8) {
    const n = BigInt(size);
    const handle = made((into) => cuda.cuMemAlloc_v2(into, n));
    const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [size], nbytes: 1 };
    const there = new Uint8Array(size).fill(1);
    const memory = {
      type: "cuda",
      id: 0,
      data: handle,
      byteOffset: 0,
      byteLength: size,
      stream: null,
    } as const;
    using reader = runtimeOf(DeviceType.cuda)!.open(memory);
    const address = made((into) => cuda.cuMemHostAlloc(into, n, 0));
    const pinned = new Uint8Array(bufferAt(Number(address), size));
    const plain = (into: Uint8Array<ArrayBuffer>): void =>
      check(cuda.cuMemcpyDtoH_v2(into, handle, n));
    const cpu = { device: "cpu" } as const;
    const speeds = [
      await speed(size, () => plain(there)),
      await speed(size, () => reader.read(0, there)),
      await speed(size, () => plain(pinned)),
      await speed(size, () => plain(new Uint8Array(size))),
      await speed(size, () => fromDlpack(capsule(spec, handle), cpu)),
      await speed(size, () => fromDlpackAsync(capsule(spec, handle), cpu)),
    ];
    const [theirs, ours, fast, fresh, whole, later] = speeds as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const cells = [
      size,
      theirs.toFixed(2),
      ours.toFixed(2),
      (ours / theirs).toFixed(2),
      fast.toFixed(2),
      fresh.toFixed(2),
      whole.toFixed(2),
      (whole / fresh).toFixed(2),
      later.toFixed(2),
      (later / fresh).toFixed(2),
    ];
    console.log(`| ${cells.join(" | ")} |`);
    pinned.buffer.transfer(0);
    check(cuda.cuMemFreeHost(address));
    check(cuda.cuMemFree_v2(handle));
  }
}

/** `torch.Tensor.cpu()`, where python3 has PyTorch with CUDA. */
function measureTorch(largest: number): void {
  const code = `
import time, torch
n = 1024
while n <= ${largest}:
    t = torch.zeros(n, dtype=torch.uint8, device="cuda")
    best = 1e9
    for _ in range(3 if n > 2**28 else 20):
        torch.cuda.synchronize(); s = time.perf_counter(); t.cpu()
        best = min(best, time.perf_counter() - s)
    print(f"| {n} | {n / best / 1e9:.2f} |")
    n *= 8
`;
  let output: Deno.CommandOutput;
  try {
    output = new Deno.Command("python3", { args: ["-c", code] }).outputSync();
  } catch {
    return console.log("\nNo python3: PyTorch is not measured");
  }
  if (!output.success) return console.log("\nNo PyTorch with CUDA to measure");
  console.log("\n| bytes | torch.Tensor.cpu(), GB/s |\n| --- | --- |");
  console.log(new TextDecoder().decode(output.stdout).trim());
}

check(cuda.cuInit(0));
const context = made((into) => cuda.cuDevicePrimaryCtxRetain(into, 0));
check(cuda.cuCtxPushCurrent_v2(context));
const name = new Uint8Array(100);
check(cuda.cuDeviceGetName(name, 100, 0));
console.log(`On ${new TextDecoder().decode(name).replace(/\0.*/s, "")}\n`);
await testAll();

const available = made((into) =>
  cuda.cuMemGetInfo_v2(into, new BigUint64Array(1))
);
const at = Deno.args.indexOf("--bytes");
const wanted = at === -1 ? 2 ** 33 : Number(Deno.args[at + 1]);
const largest = Math.min(wanted, Number(available) / 2);
await measureAll(largest);
measureTorch(largest);
console.log(failures === 0 ? "\nAll is right" : `\n${failures} are wrong`);
Deno.exit(failures === 0 ? 0 : 1);
