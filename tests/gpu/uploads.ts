/** Uploads: that they arrive, and how fast they are beside the driver's copy. */

import {
  DlpackCapsule,
  type DType,
  fromDlpack,
  Tensor,
  uploadTo,
} from "@dlpack/deno";
import { dtypeByName, dtypeNames } from "../../src/dtype/table.ts";
import { type FixtureSpec, make } from "../native/fixture.ts";
import { allocate, capsule, check, cuda, made } from "./cuda.ts";
import { head, row, same, sameBytes } from "./table.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const cpu = { device: "cpu" } as const;

/** What is in memory, by the driver. */
function read(at: bigint, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
  check(cuda.cuMemcpyDtoH_v2(address, at, BigInt(length)));
  return bytes;
}

/** Prints the table of what is right. */
export async function testUploads(): Promise<void> {
  head("uploads");
  await row("every dtype", async () => {
    for (const name of dtypeNames) {
      const { code, bits } = dtypeByName(name as DType)!;
      const nbytes = Math.ceil(21 * bits / 8);
      const data = Uint8Array.from({ length: nbytes }, (_, i) => 37 * i + 11);
      const last = 21 * bits % 8;
      if (last > 0) data[nbytes - 1]! &= 0xff >> 8 - last;
      const spec = { dtype: [code, bits, 1], shape: [21], nbytes } as const;
      const handle = allocate(new Uint8Array(nbytes));
      using x = capsule(spec, handle);
      const pointer = make({ ...spec, data });
      using source = fromDlpack(
        new DlpackCapsule(pointer, "dltensor_versioned"),
      );
      await uploadTo(x, source);
      sameBytes(read(handle, nbytes), data);
      check(cuda.cuMemFree_v2(handle));
    }
  });
  const layouts: [string, Partial<FixtureSpec>, number[]][] = [
    ["rows", { shape: [3, 2], strides: [5, 1] }, [0, 1, 5, 6, 10, 11]],
    ["every other", { shape: [3, 2], strides: [5, 2] }, [0, 2, 5, 7, 10, 12]],
    ["transposed", { shape: [3, 2], strides: [1, 3] }, [0, 3, 1, 4, 2, 5]],
    [
      "backwards",
      { shape: [6], strides: [-2], byteOffset: 44 },
      [11, 9, 7, 5, 3, 1],
    ],
  ];
  for (const [name, layout, places] of layouts) {
    await row(`${name}, and nothing between`, async () => {
      const handle = allocate(new Uint8Array(60).fill(255));
      using x = capsule({ dtype: [2, 32, 1], nbytes: 1, ...layout }, handle);
      const source = Tensor.from(Float32Array.of(1, 2, 3, 4, 5, 6));
      await uploadTo(x, source.reshape(x.shape));
      const expected = new Uint8Array(60).fill(255);
      const floats = new Float32Array(expected.buffer);
      places.forEach((at, i) => floats[at] = i + 1);
      sameBytes(read(handle, 60), expected);
      check(cuda.cuMemFree_v2(handle));
    });
  }
  const size = 64 * MiB;
  const large = allocate(new Uint8Array(size));
  const whole: FixtureSpec = { dtype: [1, 8, 1], shape: [size], nbytes: 1 };
  const bytes = Uint8Array.from({ length: size }, (_, i) => i * 31 >> 5);
  await row("64 MiB, through pinned memory", async () => {
    using x = capsule(whole, large);
    await uploadTo(x, Tensor.from(bytes));
    sameBytes(read(large, size), bytes);
  });
  await row("32 MiB of rows, through pinned memory", async () => {
    const rows = { ...whole, shape: [1 << 14, 2048], strides: [4096, 1] };
    check(cuda.cuMemsetD8Async(large, 7, BigInt(size), 1n));
    using x = capsule(rows, large);
    await uploadTo(x, Tensor.from(bytes.slice(0, size / 2), [1 << 14, 2048]));
    const expected = new Uint8Array(size).fill(7);
    for (let at = 0; at < 1 << 14; at++) {
      const part = bytes.subarray(at * 2048, (at + 1) * 2048);
      expected.set(part, at * 4096);
    }
    sameBytes(read(large, size), expected);
  });
  const stream = made((into) => cuda.cuStreamCreate(into, 1));
  for (const options of [{}, { stream }]) {
    const how = "stream" in options ? "named" : "not named";
    await row(`behind the work of a busy stream, ${how}`, async () => {
      for (let i = 0; i < 50; i++) {
        check(cuda.cuMemsetD8Async(large, i, BigInt(size), stream));
      }
      const small = { ...whole, shape: [8] };
      using x = capsule(small, large, options);
      await uploadTo(x, Tensor.from(new Uint8Array(8).fill(99)));
      const t = fromDlpack(capsule(small, large), cpu);
      same(t.toArray(), Array(8).fill(99));
    });
  }
  await row("a kernel's stream sees what was uploaded", async () => {
    const small = { ...whole, shape: [4 * MiB] };
    for (let round = 0; round < 20; round++) {
      using x = capsule(small, large);
      await uploadTo(x, Tensor.from(new Uint8Array(4 * MiB).fill(round)));
      // A stream that waits for no other.
      check(cuda.cuMemsetD8Async(large, 200, 1n, stream));
      using y = capsule(small, large, { stream });
      const t = fromDlpack(y, cpu);
      same([t.get(0), t.get(1), t.get(4 * MiB - 1)], [200, round, round]);
    }
  });
  check(cuda.cuStreamDestroy_v2(stream));
  check(cuda.cuMemFree_v2(large));
}

/** Prints the table of speed: the least of some alternating rounds. */
export async function measureUploads(largest: number): Promise<void> {
  console.log(
    "\nUploads, GB/s, and the ratio of times: the driver's to ours\n",
  );
  console.log("| bytes | cuMemcpyHtoD | uploadTo | ratio |");
  console.log("| ---: | ---: | ---: | ---: |");
  for (const size of [KiB, 256 * KiB, 4 * MiB, 64 * MiB, 1024 * MiB]) {
    if (size > largest) break;
    const n = BigInt(size);
    const handle = made((into) => cuda.cuMemAlloc_v2(into, n));
    const bytes = new Uint8Array(size).fill(1);
    const source = Tensor.from(bytes);
    using x = DlpackCapsule.from(handle, {
      dtype: "uint8",
      shape: [size],
      device: { type: "cuda", id: 0 },
    });
    const least = [Infinity, Infinity];
    const rounds = size <= 4 * MiB ? 100 : 5;
    for (let round = 0; round < rounds; round++) {
      const start = performance.now();
      check(cuda.cuMemcpyHtoD_v2(handle, bytes, n));
      const between = performance.now();
      await uploadTo(x, source);
      const end = performance.now();
      least[0] = Math.min(least[0]!, between - start);
      least[1] = Math.min(least[1]!, end - between);
    }
    const [theirs, ours] = least as [number, number];
    const rate = (ms: number): string => (size / ms / 1e6).toFixed(2);
    const name = size >= MiB ? `${size / MiB} MiB` : `${size / KiB} KiB`;
    console.log(
      `| ${name} | ${rate(theirs)} | ${rate(ours)} | ` +
        `${(theirs / ours).toFixed(2)} |`,
    );
    check(cuda.cuMemFree_v2(handle));
  }
}
