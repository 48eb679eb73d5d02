// Uploads to a device whose memory is the host's in truth, against naive ones.

import {
  type BufferErrorCode,
  DeviceType,
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  registerDevice,
  Tensor,
  type UploadOptions,
  uploadTo,
} from "@dlpack/deno";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ownerIn } from "../src/capsule.ts";
import { packingOf } from "../src/dtype/packing.ts";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import { extentOf, type Layout, mayOverlap, walk } from "../src/layout.ts";
import { checkStruct } from "../src/struct/check.ts";
import { memoryOf } from "../src/struct/memory.ts";
import { elementsOf } from "../src/tensor/class.ts";
import { runStepsAsync } from "../src/transfer/steps.ts";
import { copyToDevice } from "../src/transfer/to_device.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  deletions,
  floats,
  importFixture,
  rejection,
} from "./helpers.ts";
import { HostDevice, withRuntime } from "./host_device.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";
import { Random } from "./random.ts";

const { extDev } = DeviceType;

/** What is done while a device that can be written is there. */
function withDevice(
  device: HostDevice,
  run: () => Promise<void>,
): Promise<void> {
  return withRuntime(extDev, device, run);
}

/** A struct on the device, of which the fixture shows the bytes. */
function target(
  spec: FixtureSpec,
): { x: DlpackCapsule; bytes: () => Uint8Array } {
  const pointer = make({ device: [extDev, 0], ...spec });
  const name = spec.versioned ?? true ? "dltensor_versioned" : "dltensor";
  return {
    x: new DlpackCapsule(pointer, name),
    bytes: () =>
      Uint8Array.from(
        { length: spec.nbytes },
        (_, i) => fixture.fx_peek(pointer, BigInt(i)),
      ),
  };
}

/** Axes none of which reaches into another, some backwards, padded, in any order. */
function randomTarget(random: Random): Omit<Layout, "offset"> {
  const ndim = random.below(5);
  const lengths = ndim < 3 ? [1, 2, 3, 7, 16, 33] : [1, 2, 2, 3, 4, 5];
  const shape = Array.from({ length: ndim }, () => random.pick(lengths));
  const strides = new Array<number>(ndim);
  let step = random.pick([1, 1, 1, 2, 5]);
  for (const axis of random.shuffle([...shape.keys()])) {
    strides[axis] = random.pick([1, 1, 1, -1]) * step;
    step *= shape[axis]!;
    step += random.pick([0, 0, 0, 1, 8, 100]);
    if (shape[axis] === 1 && random.below(2)) strides[axis] = 987654;
  }
  return { shape, strides };
}

/** A tensor of random bits, with strides of its own. */
function randomSource(
  random: Random,
  dtype: DType,
  shape: readonly number[],
  isPadded: boolean,
): Tensor {
  const { code, bits } = dtypeByName(dtype)!;
  const order = random.shuffle([...shape.keys()]);
  const lies = order.map((axis) => shape[axis]! + random.below(2));
  const strides = new Array<number>(shape.length);
  let size = 1;
  for (const [i, axis] of [...order.entries()].reverse()) {
    strides[axis] = size;
    size *= lies[i]!;
  }
  const nbytes = Math.ceil(size * (isPadded ? 8 : bits) / 8);
  // Padded elements must be such as their bits can say.
  const most = isPadded ? 2 ** bits : 256;
  const data = Uint8Array.from({ length: nbytes }, () => random.below(most));
  return importFixture({
    dtype: [code, bits, 1],
    flags: isPadded ? 4 : 0,
    shape,
    strides,
    nbytes,
    data,
  });
}

/** The same in small pieces, through the functions inside. */
async function uploadInPieces(
  x: DlpackCapsule,
  source: Tensor,
  device: HostDevice,
  pieceBytes: number,
): Promise<void> {
  if (source.size === 0) return;
  const owner = ownerIn(x);
  const struct = checkStruct(owner.peek(), owner.name);
  const memory = memoryOf(struct, null, "write");
  const from = elementsOf(source);
  const steps = copyToDevice(device, memory, struct, from, pieceBytes);
  const done: number[] = [];
  await runStepsAsync(steps, null, (step) => done.push(step));
  assert(done.every((step, i) => step >= (done[i - 1] ?? 0)), `${done}`);
  assertEquals(done.at(-1), 1);
}

/** The bits of an element. */
function bitsAt(bytes: Uint8Array, at: number, bits: number): string {
  let text = "";
  for (let bit = at * bits; bit < (at + 1) * bits; bit++) {
    text += bytes[bit >> 3]! >> (bit & 7) & 1;
  }
  return text;
}

Deno.test("uploadTo() writes what a naive loop would, and nothing else", async (t) => {
  const random = new Random();
  for (const dtype of dtypeNames) {
    await t.step(dtype, async () => {
      for (let round = 0; round < 20; round++) {
        const info = dtypeByName(dtype as DType)!;
        const { code, bits } = info;
        const isPadded = bits < 8 && round % 3 === 0;
        const layout = randomTarget(random);
        const { shape, strides } = layout;
        const { lowest, highest } = extentOf(shape, strides);
        const each = packingOf(info, bits < 8 && !isPadded).bits;
        const isPacked = each < 8;
        // The struct's data begins on a byte, and at that an element.
        const lead = isPacked
          ? 8 * Math.ceil((random.below(9) - lowest) / 8)
          : -lowest;
        const size = lead + highest + 1 + random.below(9);
        const nbytes = Math.ceil(size * each / 8);
        const before = Uint8Array.from(
          { length: nbytes },
          () => random.below(256),
        );
        const { x, bytes } = target({
          dtype: [code, bits, 1],
          flags: isPadded ? 4 : 0,
          shape,
          strides,
          byteOffset: lead * each / 8,
          nbytes,
          data: before,
        });
        const source = randomSource(random, dtype as DType, shape, isPadded);
        const device = new HostDevice({
          isWritable: true,
          hasRows: random.below(2) === 1,
          isAsync: random.below(2) === 1,
        });
        await withDevice(
          device,
          () =>
            round % 2 === 0
              ? uploadTo(x, source)
              : uploadInPieces(x, source, device, random.pick([1, 16, 100])),
        );
        const after = bytes();
        const expected = [...before.keys()].flatMap((
          i,
        ) => [...bitsAt(before, i, 8)]);
        const packed = source.copy();
        let i = 0;
        walk({ shape, strides, offset: lead }, (at) => {
          const element = bitsAt(bytesOf(packed.data), i++, each);
          for (let bit = 0; bit < each; bit++) {
            expected[at * each + bit] = element[bit]!;
          }
        });
        const found = [...after.keys()].map((i) => bitsAt(after, i, 8)).join(
          "",
        );
        assertEquals(
          found,
          expected.join(""),
          `${dtype} ${shape} ${strides} ${isPadded} ${round}`,
        );
        assertEquals(x.name, "dltensor_versioned");
        x[Symbol.dispose]();
        source[Symbol.dispose]();
        if (!isPacked) assertEquals(device.count("open"), 0, "it was read");
      }
    });
  }
});

Deno.test("mayOverlap() is right of layouts that are tried", () => {
  const random = new Random();
  let overlapping = 0;
  for (let round = 0; round < 2000; round++) {
    const ndim = random.below(4);
    const pick = (of: number[]) =>
      Array.from({ length: ndim }, () => random.pick(of));
    const shape = pick([0, 1, 2, 3, 4]);
    const strides = pick([-7, -3, -1, 0, 1, 2, 3, 4, 6, 12]);
    const places: number[] = [];
    walk({ shape, strides, offset: 0 }, (at) => places.push(at));
    const isOverlapping = new Set(places).size < places.length;
    if (isOverlapping) {
      overlapping++;
      assert(mayOverlap(shape, strides), `${shape} ${strides}`);
    }
    const { shape: s, strides: t } = randomTarget(random);
    assert(!mayOverlap(s, t), `${s} ${t}`);
  }
  assert(overlapping > 100);
});

Deno.test("uploadTo() refuses what cannot be, and leaves the target as it is", async () => {
  const source = Tensor.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
  const spec = { ...floats([2, 2]), device: [extDev, 0] } as const;
  const cases: readonly [
    Partial<FixtureSpec>,
    Tensor,
    BufferErrorCode,
    string,
  ][] = [
    [
      { flags: 1 },
      source,
      "readonly",
      "Cannot upload to a read-only tensor: have",
    ],
    [{ versioned: false }, source, "readonly", "with({ writable: true })"],
    [
      {},
      source.astype("float64"),
      "dtype",
      'Cannot upload float64 elements to float32 ones: convert them first, with astype("float32")',
    ],
    [
      {},
      source.reshape([4]),
      "shape",
      "Cannot upload elements of shape [4] to a tensor of shape [2, 2]",
    ],
    [{}, source.slice([0, 1]), "shape", "[1, 2]"],
    [
      { dtype: [2, 16, 2], shape: [2] },
      source,
      "dtype",
      "float32 elements to float16 ones",
    ],
    [{ strides: [0, 1] }, source, "layout", "lie at the same place"],
    [{ strides: [1, 1] }, source, "layout", "strides [1, 1]"],
    [{ device: [1, 0] }, source, "device", "cpu:0: it is in the host's memory"],
    [
      { device: [DeviceType.cudaManaged, 0] },
      source,
      "device",
      "assign() to that",
    ],
    [
      { device: [DeviceType.vulkan, 0] },
      source,
      "device",
      "Cannot upload to a tensor on vulkan:0: that takes its VkDevice",
    ],
    [
      { device: [DeviceType.metal, 0] },
      source,
      "device",
      "only reads (it has no openForWriting())",
    ],
    [{ device: [55, 0] }, source, "device", "DLPack has no such device"],
    [{ ndim: 99 }, source, "shape", "99 axes"],
  ];
  const device = new HostDevice({ isWritable: true });
  await withDevice(device, async () => {
    for (const [changes, source, code, message] of cases) {
      const before = counts();
      const x = capsule({ ...spec, ...changes });
      const error = await rejection(uploadTo(x, source));
      assertBufferError(
        () => {
          throw error;
        },
        code,
        message,
      );
      assert(!(error as Error).message.endsWith("."));
      assertEquals(counts(), { ...before, live: before.live + 1 });
      assert(!x.name.startsWith("used_"));
      assertEquals(deletions(() => x[Symbol.dispose]()), 1);
      assertBufferError(
        (await rejection(uploadTo(x, source)).then((error) => () => {
          throw error;
        })) as () => never,
        "consumed",
        "Cannot upload to a capsule that was used before",
      );
    }
  });
  assertEquals(device.calls, []);
});

Deno.test("uploadTo() refuses arguments of the wrong kind", async () => {
  const source = Tensor.from(Float32Array.of(1));
  using x = capsule({ ...floats([1]), device: [extDev, 0] });
  const wrong: readonly [unknown, unknown, unknown, string][] = [
    [null, source, {}, "Cannot upload to null: pass a DlpackCapsule"],
    [
      source,
      source,
      {},
      "Cannot upload to a Tensor, which is in the host's memory: assign() to it",
    ],
    [x.pointer, source, {}, "Cannot upload to a pointer"],
    [
      { __dlpack__: () => x, __dlpack_device__: () => [12, 0] },
      source,
      {},
      "pass the DlpackCapsule that its __dlpack__() returns",
    ],
    [
      x,
      new Float32Array(1),
      {},
      "Cannot upload a Float32Array: make a tensor of it with Tensor.from()",
    ],
    [
      x,
      x,
      {},
      "Cannot upload a DlpackCapsule: make a tensor of it with fromDlpack()",
    ],
    [x, 1, {}, "Cannot upload 1"],
    [x, source, null, "The options of uploadTo() must be an object, not null"],
    [
      x,
      source,
      { signal: 1 },
      'The option "signal" must be an AbortSignal, not 1',
    ],
    [
      x,
      source,
      { onProgress: true },
      'The option "onProgress" must be a function',
    ],
  ];
  for (const [target, source, options, message] of wrong) {
    await assertRejects(
      () =>
        uploadTo(
          target as DlpackCapsule,
          source as Tensor,
          options as UploadOptions,
        ),
      TypeError,
      message,
    );
  }
  const given = Tensor.from(Float32Array.of(1));
  given[Symbol.dispose]();
  const error = await rejection(uploadTo(x, given));
  assertBufferError(() => {
    throw error;
  }, "released");
});

Deno.test("uploadTo() to a legacy struct that may be written, and with lanes", async () => {
  const device = new HostDevice({ isWritable: true });
  await withDevice(device, async () => {
    const legacy = target({ ...floats([2]), versioned: false });
    legacy.x.with({ writable: true, stream: 7n });
    await uploadTo(legacy.x, Tensor.from(Float32Array.of(5, 6)));
    assertEquals([...new Float32Array(legacy.bytes().buffer)], [5, 6]);
    assertEquals(device.memories[0]!.stream, 7n);
    legacy.x[Symbol.dispose]();

    const lanes = target({ dtype: [2, 32, 2], shape: [2], nbytes: 16 });
    const source = Tensor.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
    await uploadTo(lanes.x, source.transpose());
    assertEquals([...new Float32Array(lanes.bytes().buffer)], [1, 3, 2, 4]);
    // And back.
    const t = fromDlpack(lanes.x, { device: "cpu" });
    assertEquals(t.toArray(), [[1, 3], [2, 4]]);
  });
});

Deno.test("uploadTo() of padded elements to packed ones is refused", async () => {
  const device = new HostDevice({ isWritable: true });
  await withDevice(device, async () => {
    const source = importFixture({
      dtype: [0, 4, 1],
      flags: 4,
      shape: [4],
      nbytes: 4,
    });
    using x = capsule({
      dtype: [0, 4, 1],
      shape: [4],
      nbytes: 2,
      device: [extDev, 0],
    });
    const error = await rejection(uploadTo(x, source));
    assertBufferError(
      () => {
        throw error;
      },
      "dtype",
      "Cannot upload padded int4 elements to packed ones: assign() them",
    );
    source[Symbol.dispose]();
  });
});

Deno.test("uploadTo() of nothing asks no runtime", async () => {
  using x = capsule({ ...floats([0, 3]), device: [extDev, 0] });
  await uploadTo(x, Tensor.zeros([0, 3], "float32"), {
    onProgress() {
      throw new Error("There is nothing to be done");
    },
  });
});

Deno.test("uploadTo() goes on in pieces, tells how far it is, and stops", async () => {
  for (const isAsync of [false, true]) {
    const MB = 2 ** 20;
    const device = new HostDevice({ isWritable: true, isAsync });
    await withDevice(device, async () => {
      const { x } = target({
        dtype: [1, 32, 1],
        shape: [20 * MB],
        nbytes: 80 * MB,
        place: "heap",
      });
      const words = new Uint32Array(20 * MB).map((_, i) => i * 2654435761);
      const source = Tensor.from(words);
      const progress: number[] = [];
      let turns = 0;
      const timer = setInterval(() => turns++);
      await uploadTo(x, source, {
        onProgress: (done, total) => progress.push(done / total),
      });
      clearInterval(timer);
      assertEquals(progress, [0.4, 0.8, 1]);
      assert(turns > 0);
      // The source, or a copy of a piece of it, which nobody can take away.
      assertEquals(device.peakBytes, (isAsync ? 32 : 80) * MB);
      const controller = new AbortController();
      const stopped = uploadTo(x, source, {
        signal: controller.signal,
        onProgress: () => controller.abort(new RangeError("Enough")),
      });
      await assertRejects(() => stopped, RangeError, "Enough");
      const late = uploadTo(x, source, { signal: controller.signal });
      await assertRejects(() => late, RangeError, "Enough");
      const back = fromDlpack(x, { device: "cpu" });
      assert(back.is("uint32"));
      assertEquals(back.data.findIndex((word, i) => word !== words[i]), -1);
    });
  }
});

Deno.test("uploadTo() notices a source that is taken away between two steps", async () => {
  const MB = 2 ** 20;
  for (const isAsync of [false, true]) {
    const device = new HostDevice({ isWritable: true, isAsync });
    await withDevice(device, async () => {
      for (const act of ["transfer", "resize"] as const) {
        const { x } = target({
          dtype: [1, 8, 1],
          shape: [96 * MB],
          nbytes: 96 * MB,
          place: "heap",
        });
        const buffer = new ArrayBuffer(96 * MB, { maxByteLength: 96 * MB });
        const error = await rejection(
          uploadTo(x, Tensor.from(new Uint8Array(buffer)), {
            onProgress: () => buffer[act](0),
          }),
        );
        assertBufferError(
          () => {
            throw error;
          },
          "released",
          "transferred or resized",
        );
        x[Symbol.dispose]();
      }
    });
  }
});

Deno.test("Elements that start inside a byte can be uploaded", async () => {
  const device = new HostDevice({ isWritable: true });
  await withDevice(device, async () => {
    const { x, bytes } = target({ dtype: [1, 2, 1], shape: [3], nbytes: 1 });
    const source = Tensor.from(new Uint8Array([0b11_10_01_00]), [4], {
      dtype: "uint2",
    });
    await uploadTo(x, source.slice([1, 4]) as Tensor);
    assertEquals(bytes()[0]! & 0b111111, 0b11_10_01);
  });
});

Deno.test("Dispose and consumers wait for an upload to end", async () => {
  const device = new HostDevice({ isWritable: true, isAsync: true });
  await withDevice(device, async () => {
    const live = liveTensors();
    const before = counts();
    const source = importFixture(floats([4]));
    const { x } = target(floats([4]));
    const upload = uploadTo(x, source);
    source[Symbol.dispose]();
    x[Symbol.dispose]();
    assertEquals(counts().deleted, before.deleted);
    await upload;
    assertEquals(counts().deleted, before.deleted + 2);
    assertEquals(liveTensors(), live);
  });
});

Deno.test("What a runtime throws passes through, and all is given back", async (t) => {
  for (
    const name of ["openForWriting", "synchronize", "write", "dispose"] as const
  ) {
    await t.step(name, async () => {
      const error = new RangeError(name);
      const device = new HostDevice({
        isWritable: true,
        onCall(called) {
          if (called === name) throw error;
        },
      });
      await withDevice(device, async () => {
        const { x } = target(floats([4]));
        const source = importFixture(floats([4]));
        const thrown = await rejection(uploadTo(x, source));
        assert(thrown === error);
        const disposed = name === "openForWriting" ? 0 : 1;
        assertEquals(device.count("dispose"), disposed);
        const deleted = deletions(() => {
          x[Symbol.dispose]();
          source[Symbol.dispose]();
        });
        assertEquals(deleted, 2);
      });
    });
  }
  await t.step("an incomplete writer", async () => {
    const open = () => ({ read() {}, synchronize() {}, [Symbol.dispose]() {} });
    registerDevice(extDev, {
      name: "my library",
      open,
      openForWriting: open as never,
    });
    using x = capsule({ ...floats([1]), device: [extDev, 3] });
    await assertRejects(
      () => uploadTo(x, Tensor.from(Float32Array.of(1))),
      TypeError,
      "Cannot write a tensor on extDev:3 through my library: what its " +
        "openForWriting() returns has no write()",
    );
    registerDevice(extDev, null);
  });
});
