/** Uploads through the stand-ins for CUDA's driver and HIP's runtime: the same tests. */

import {
  BufferError,
  type DlpackCapsule,
  Tensor,
  type UploadOptions,
  uploadTo,
} from "@dlpack/deno";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { freeAllPinned } from "../ffi/devices/pinned.ts";
import { bytesOf, capsule, deletions, floats } from "./helpers.ts";
import { cString, type stand } from "./native/cuda_driver.ts";
import type { FixtureSpec } from "./native/fixture.ts";

/** What differs between the two. */
export interface GpuStand {
  /** The device's name, and its `DLDeviceType`. */
  readonly device: readonly [name: string, type: number];
  /** The stand-in. */
  readonly driver: Deno.DynamicLibrary<typeof stand>["symbols"];
  /** Registers a test that has it in place of the runtime. */
  readonly test: (name: string, run: () => void | Promise<void>) => void;
  /** Memory of the first device. */
  readonly allocate: (bytes: Uint8Array<ArrayBuffer>) => bigint;
  /** What the runtime calls its copies: at once and later, bytes and rows. */
  readonly copies: readonly [string, string, string, string];
  /** Every function that an upload calls, and whose failure it reports. */
  readonly calls: readonly string[];
  /** Those that make the context or device current, and the old one again. */
  readonly around: RegExp;
  /** What the runtime calls error 700. */
  readonly error700: string;
  /** Undoes what a failed call was to do. */
  readonly repair: () => void;
}

/** Registers the tests. */
export function testUploads(
  {
    device: [name, type],
    driver,
    test,
    allocate,
    copies,
    calls,
    around,
    error700,
    repair,
  }: GpuStand,
): void {
  const [copy, copyRows, copyLater, copyRowsLater] = copies;
  const count = (call: string): number => driver.sim_count(cString(call));

  /** What has landed in memory. */
  const peek = (at: bigint, length: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(length);
    driver.sim_peek(at, bytes, BigInt(length));
    return bytes;
  };

  /** Uploads; the target must stay unconsumed, and its deleter be called once. */
  const upload = async (
    spec: FixtureSpec,
    handle: bigint,
    source: Tensor,
    { stream, ...options }: UploadOptions & { stream?: number | bigint } = {},
  ): Promise<void> => {
    const x: DlpackCapsule = capsule(
      { ...spec, device: spec.device ?? [type, 0], handle },
      stream === undefined ? {} : { stream },
    );
    try {
      await uploadTo(x, source, options);
    } finally {
      assertEquals(x.name, "dltensor_versioned");
      assertEquals(deletions(() => x[Symbol.dispose]()), 1);
    }
  };

  /** What an upload throws. */
  const refused = async (
    spec: FixtureSpec,
    handle: bigint,
    source: Tensor,
    message: string,
    options: { stream?: number | bigint } = {},
  ): Promise<void> => {
    const error = await upload(spec, handle, source, options).catch((e) => e);
    assert(error instanceof BufferError, `${error}`);
    assertEquals(error.code, "device");
    const start = `Cannot upload to a tensor on ${name}:0: `;
    assert(error.message.startsWith(start), error.message);
    assert(error.message.includes(message), error.message);
  };

  const six = Tensor.from(Float32Array.of(1, 2, 3, 4, 5, 6));

  test(`uploadTo() fills ${name}'s memory, whatever the strides, and no more`, async () => {
    const cases: [Partial<FixtureSpec>, readonly number[]][] = [
      [{ shape: [2, 3] }, [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0]],
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
    for (const [changes, expected] of cases) {
      const handle = allocate(new Uint8Array(52));
      const spec = { ...floats([6]), ...changes };
      await upload(spec, handle, six.reshape(spec.shape as number[]));
      const bytes = peek(handle, 52);
      assertEquals([...new Float32Array(bytes.buffer)], expected);
      driver.sim_free(handle);
    }
  });

  test(`uploadTo() writes rows of ${name}'s memory as rows`, async () => {
    // At once, and through pinned memory.
    for (
      const [rows, width, pitch] of [[40, 100, 8192], [9, 700_000, 1 << 20]]
    ) {
      const size = rows! * pitch!;
      const handle = allocate(new Uint8Array(size).fill(7));
      const source = Tensor.from(
        Uint8Array.from({ length: rows! * width! }, (_, i) => i * 31 >> 3),
        [rows!, width!],
      );
      const spec: FixtureSpec = {
        dtype: [1, 8, 1],
        shape: [rows!, width!],
        strides: [pitch!, 1],
        byteOffset: 64,
        nbytes: 1,
      };
      driver.sim_reset();
      await upload(spec, handle, source);
      const [atOnce, later] = [count(copyRows), count(copyRowsLater)];
      assert(
        width === 100 ? atOnce === 1 && later === 0 : atOnce === 0 && later > 0,
      );
      // The last row may be a piece of its own.
      assert(count(copy) === 0 && count(copyLater) <= 1);
      const expected = new Uint8Array(size).fill(7);
      const { data } = source;
      for (let row = 0; row < rows!; row++) {
        const part = data.subarray(row * width!, (row + 1) * width!);
        expected.set(part as Uint8Array, row * pitch! + 64);
      }
      const found = peek(handle, size);
      assertEquals(found.findIndex((byte, i) => byte !== expected[i]), -1);
      driver.sim_free(handle);
    }
  });

  test(`uploadTo() sends much to ${name} through pinned memory, and stops`, async () => {
    const words = new Uint32Array(10 << 20).map((_, i) => i * 2654435761);
    const source = Tensor.from(words);
    const handle = allocate(new Uint8Array(40 << 20));
    const spec: FixtureSpec = {
      dtype: [1, 32, 1],
      shape: [10 << 20],
      nbytes: 1,
    };
    const progress: number[] = [];
    await upload(spec, handle, source, {
      onProgress: (done) => progress.push(done >> 20),
    });
    assertEquals(progress, [32, 40]);
    const found = peek(handle, 40 << 20);
    const bytes = bytesOf(words);
    assertEquals(found.findIndex((byte, i) => byte !== bytes[i]), -1);
    const controller = new AbortController();
    setTimeout(() => controller.abort(new RangeError("Enough")));
    const { signal } = controller;
    await assertRejects(
      () => upload(spec, handle, source, { signal }),
      RangeError,
      "Enough",
    );
    driver.sim_free(handle);
  });

  test(`uploadTo() waits for ${name}'s streams as the capsule says`, async () => {
    const handle = allocate(new Uint8Array(8));
    const mine = driver.sim_stream();
    const source = Tensor.from(new Uint8Array(8).fill(9));
    const spec: FixtureSpec = { dtype: [1, 8, 1], shape: [8], nbytes: 8 };
    for (
      const [options, expected] of [[{}, 9], [{ stream: mine }, 9], [{
        stream: -1,
      }, 5]] as const
    ) {
      driver.sim_fill_later(handle, 5, 8n, mine);
      await upload(spec, handle, source, options);
      // What was not waited for lands later.
      driver.sim_land(mine);
      assertEquals(peek(handle, 8), new Uint8Array(8).fill(expected));
    }
    driver.sim_destroy_stream(mine);
    driver.sim_free(handle);
  });

  test(`uploadTo() refuses what is no memory of ${name}'s, or too little`, async () => {
    const handle = allocate(new Uint8Array(24));
    const spec = floats([6]);
    await refused({ ...spec, byteOffset: 4 }, handle, six, "knows there at");
    await refused({ ...spec, strides: [2] }, handle, six, "knows there at");
    driver.sim_free(handle);
    await refused(spec, handle, six, "was it freed?");
    assertEquals(count(copy), 0);
  });

  test(`uploadTo() reports each call of ${name}'s runtime that fails`, async () => {
    const handle = allocate(new Uint8Array(12 << 20));
    const stream = driver.sim_stream();
    const spec = (changes: Partial<FixtureSpec>): FixtureSpec => ({
      dtype: [1, 8, 1],
      nbytes: 1,
      ...changes,
    });
    const strides = [1 << 20, 1];
    const failed = new Set<string>();
    for (
      const [shape, options] of [
        [[6], {}],
        [[9, 100], { stream }],
        [[12 << 20], {}],
        [[9, 700_000], { stream }],
      ] as const
    ) {
      const target = spec({
        shape,
        strides: shape.length === 2 ? strides : null,
      });
      const source = Tensor.zeros(shape, "uint8");
      const run = (): Promise<void> => upload(target, handle, source, options);
      driver.sim_reset();
      await run();
      const made = calls.map(count);
      freeAllPinned();
      for (const [i, call] of calls.entries()) {
        // The first calls tell, and the last ones; not each of many polls.
        for (let at = 1; at <= made[i]!; at++) {
          if (at > 3 && at <= made[i]! - 3) continue;
          if (call.endsWith("PointerGetAttribute") && at > 1) continue;
          driver.sim_reset();
          driver.sim_fail(cString(call), at, 700);
          const what = `${call}, call ${at} of ${made[i]}`;
          const failure = await run().catch((error) => error);
          assert(failure instanceof BufferError, `${what}: ${failure}`);
          assertEquals(failure.code, "device");
          const text = `${call} failed with ${error700} (700)`;
          assert(failure.message.includes(text), `${what}: ${failure}`);
          failed.add(call);
          repair();
          // Without its context nothing of it can be given back.
          if (around.test(call)) driver.sim_forget(stream);
          freeAllPinned();
          assertEquals(driver.sim_held(), 1, what); // the stream
        }
      }
    }
    assertEquals([...failed].sort(), calls.toSorted());
    driver.sim_reset();
    driver.sim_destroy_stream(stream);
    driver.sim_free(handle);
  });
}
