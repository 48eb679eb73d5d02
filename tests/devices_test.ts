/** How fromDlpack() and the runtimes of devices meet. */

import {
  BufferError,
  type DeviceMemory,
  type DeviceName,
  type DeviceReader,
  type DeviceRuntime,
  DeviceType,
  DlpackCapsule,
  fromDlpack,
  registerDevice,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { runtimeOf } from "../ffi/devices/registry.ts";
import {
  assertBufferError,
  capsule,
  deletions,
  floats,
  importFixture,
} from "./helpers.ts";
import { HostDevice, withRuntime } from "./host_device.ts";
import { type FixtureSpec, make } from "./native/fixture.ts";

const { cuda, cudaManaged, extDev } = DeviceType;

Deno.test("registerDevice() refuses what is no device or no runtime", () => {
  const runtime = new HostDevice();
  const wrong: readonly [number, unknown, message: string][] = [
    [0, runtime, "device type 0: DLPack has no such device"],
    [5, runtime, "DeviceType.extDev"],
    [-1, runtime, "device type -1"],
    [99, null, "device type 99"],
    [1.5, runtime, "device type 1.5"],
    [DeviceType.cpu, runtime, "cpu is memory of the host"],
    [DeviceType.cudaHost, runtime, "cudaHost is memory of the host"],
    [DeviceType.rocmHost, null, "rocmHost is memory of the host"],
    [cudaManaged, runtime, "cudaManaged is memory of the host"],
    [extDev, undefined, "for extDev that has no open()"],
    [extDev, {}, "no open()"],
    [extDev, { open: true }, "no open()"],
    [extDev, "cuda", "no open()"],
  ];
  for (const [type, runtime, message] of wrong) {
    assertThrows(
      () => registerDevice(type, runtime as DeviceRuntime),
      TypeError,
      message,
    );
  }
  assertEquals(runtimeOf(extDev), undefined);
});

Deno.test("registerDevice() replaces a runtime, and null brings the old one back", async () => {
  const type = DeviceType.opencl;
  const builtIn = runtimeOf(type);
  const first = new HostDevice();
  const second = new HostDevice();
  await withRuntime(type, first, () => {
    assert(runtimeOf(type) === first);
    registerDevice(type, second);
    const spec = floats([2], { device: [type, 0] });
    assertEquals(importFixture(spec, { device: "cpu" }).toArray(), [0, 1]);
  });
  assertEquals([first.calls.length, second.count("open")], [0, 1]);
  assert(builtIn !== undefined && runtimeOf(type) === builtIn);
  registerDevice(type, null); // once more does no harm
  assert(runtimeOf(type) === builtIn);
});

/** What is said of devices that this module has no runtime for. */
const unreachable: Partial<Record<DeviceName, string>> = {
  vulkan: "VkDevice",
  vpi: "the library of its maker",
  extDev: "the library of its maker",
  webgpu: "the table of GPUBuffers",
  hexagon: "the RPC session",
  maia: "the library of its maker",
  trn: "the Neuron runtime",
  tpu: "the PJRT client",
  tpuHost: "the library of its maker",
};

Deno.test("fromDlpack() says what it takes where there is no runtime", async (t) => {
  for (const [name, need] of Object.entries(unreachable)) {
    await t.step(name, () => {
      const type = DeviceType[name as DeviceName];
      assertEquals(runtimeOf(type), undefined);
      const spec = floats([2], { device: [type, 3] });
      const deleted = deletions(() => {
        const { message } = assertBufferError(
          () => importFixture(spec, { device: "cpu" }),
          "device",
          need,
        );
        assert(message.includes(`a tensor on ${name}:3 to the host`), message);
        assert(message.includes(`registerDevice(DeviceType.${name}, runtime)`));
        assert(!message.endsWith("."), message);
      });
      assertEquals(deleted, 1);
    });
  }
});

/** A runtime that writes down what it is asked for, and reads only zeros. */
class Recorder implements DeviceRuntime {
  readonly name = "a recorder";
  readonly memories: DeviceMemory[] = [];
  readonly reads: (readonly [byteOffset: number, length: number])[] = [];
  isThere = true;

  isHere(): boolean {
    return this.isThere;
  }

  open(memory: DeviceMemory): DeviceReader {
    this.memories.push(memory);
    return {
      synchronize() {},
      read: (at, into) => void this.reads.push([at, into.length]),
      [Symbol.dispose]() {},
    };
  }
}

/** Imports a struct and gives what its runtime was told. */
async function memoryOf(
  spec: FixtureSpec,
  stream?: number | bigint,
): Promise<DeviceMemory> {
  const recorder = new Recorder();
  const options = stream === undefined ? {} : { stream };
  await withRuntime(extDev, recorder, () => {
    const pointer = make({ device: [extDev, 0], ...spec });
    const x = new DlpackCapsule(pointer, "dltensor_versioned", options);
    assertEquals(deletions(() => fromDlpack(x, { device: "cpu" })), 1);
  });
  assertEquals(recorder.memories.length, 1);
  const { byteLength } = recorder.memories[0]!;
  for (const [at, length] of recorder.reads) {
    assert(at >= 0 && at + length <= byteLength, `${at}, ${length}`);
  }
  return recorder.memories[0]!;
}

Deno.test("A runtime is told where the memory is", async (t) => {
  const handle = 2n ** 63n + 2n ** 53n + 1n;
  const cases: readonly [
    string,
    Partial<FixtureSpec>,
    Partial<DeviceMemory>,
  ][] = [
    ["a handle", { handle }, { byteOffset: 0, byteLength: 24 }],
    ["all bits", { handle: 2n ** 64n - 1n }, { data: 2n ** 64n - 1n }],
    ["a small handle", { handle: 1n }, { data: 1n }],
    ["a byte offset", { handle, byteOffset: 4096 }, { byteOffset: 4096 }],
    [
      "a large byte offset",
      { handle, byteOffset: 2 ** 40 },
      { byteOffset: 2 ** 40 },
    ],
    [
      "negative strides",
      { handle, byteOffset: 100, strides: [-3, -1] },
      { byteOffset: 80, byteLength: 24 },
    ],
    [
      "below the handle",
      { handle, strides: [-3, 1] },
      { byteOffset: -12, byteLength: 24 },
    ],
    [
      "gaps",
      { handle, strides: [-100, 2] },
      { byteOffset: -400, byteLength: 4 * (100 + 4 + 1) },
    ],
    ["an id", { handle, device: [extDev, 77] }, { id: 77 }],
    ["a negative id", { handle, device: [extDev, -1] }, { id: -1 }],
    [
      "packed, from within a byte",
      {
        handle,
        dtype: [0, 4, 1],
        shape: [3],
        strides: [-1],
        byteOffset: 10,
      },
      // Elements -2 to 0 of byte 10 on.
      { byteOffset: 9, byteLength: 2 },
    ],
    [
      "6 bits",
      { handle, dtype: [15, 6, 1], shape: [3], strides: [-1] },
      { byteOffset: -3, byteLength: 4 },
    ],
    [
      "lanes",
      { handle, dtype: [2, 32, 4], shape: [2], strides: [-1] },
      { byteOffset: -16, byteLength: 32 },
    ],
  ];
  for (const [what, changes, expected] of cases) {
    await t.step(what, async () => {
      const memory = await memoryOf({ ...floats([2, 3]), ...changes });
      assertEquals(memory, {
        type: "extDev",
        id: 0,
        data: handle,
        byteOffset: 0,
        byteLength: memory.byteLength,
        stream: null,
        access: "read",
        ...expected,
      });
    });
  }
});

Deno.test("fromDlpack() refuses a reach on a device that makes no sense", async () => {
  const recorder = new Recorder();
  await withRuntime(extDev, recorder, () => {
    for (
      const changes of [
        { byteOffset: 2 ** 50 },
        { byteOffset: 2n ** 64n - 1n },
        { strides: [2 ** 50, 1] },
        { strides: [-(2 ** 50), 1] },
      ]
    ) {
      const spec = floats([2, 3], { device: [extDev, 0], ...changes });
      const deleted = deletions(() =>
        assertBufferError(
          () => importFixture({ ...spec, handle: 5n }, { device: "cpu" }),
          "shape",
          "beyond the address space",
        )
      );
      assertEquals(deleted, 1);
    }
  });
  assertEquals(recorder.memories, []);
});

Deno.test("A capsule's stream reaches the runtime", async () => {
  assertEquals((await memoryOf(floats([2]))).stream, null);
  for (const stream of [-1, 0, 1, 2, 7n, 2n ** 64n - 1n, 2 ** 53 - 1]) {
    assertEquals((await memoryOf(floats([2]), stream)).stream, stream);
  }
});

Deno.test("A capsule refuses a stream that is none", () => {
  const kept = capsule(floats([2]));
  const wrong = [-2, -2n, 1.5, NaN, Infinity, 2 ** 53, 2n ** 64n, "1", null];
  for (const stream of wrong) {
    assertThrows(
      () =>
        new DlpackCapsule(kept.pointer, "dltensor_versioned", {
          stream: stream as number,
        }),
      TypeError,
      'The option "stream" must be an integer',
    );
  }
  // It is still its owner's alone.
  assertEquals(deletions(() => kept[Symbol.dispose]()), 1);
});

Deno.test("Managed memory is seen when CUDA has done with it", async () => {
  const managed = floats([2, 3], {
    device: [cudaManaged, 4],
    strides: [-3, 1],
    origin: 12,
  });
  for (const copy of [null, false, true]) {
    const device = new HostDevice();
    await withRuntime(cuda, device, () => {
      const deleted = deletions(() => {
        const x = capsule(managed);
        using t = fromDlpack(x, { copy });
        assertEquals(device.calls, ["open", "synchronize", "dispose"]);
        assertEquals(t.toArray(), [[3, 4, 5], [0, 1, 2]]);
        assertEquals(t.device.type, copy ? "cpu" : "cudaManaged");
      });
      assertEquals(deleted, 1);
    });
    const [memory] = device.memories;
    assertEquals([memory!.type, memory!.id], ["cudaManaged", 4]);
    assertEquals(memory!.byteLength, 24);
  }
});

Deno.test("Managed memory is seen at once where there is no CUDA", async () => {
  const recorder = new Recorder();
  recorder.isThere = false;
  await withRuntime(cuda, recorder, () => {
    const spec = floats([3], { device: [cudaManaged, 0] });
    using t = importFixture(spec);
    assertEquals(t.toArray(), [0, 1, 2]);
    recorder.isThere = true;
    // Nothing is written to what is empty.
    using empty = importFixture(floats([0], { device: [cudaManaged, 0] }));
    assertEquals(empty.size, 0);
    // Pinned memory is the host's alone.
    using pinned = importFixture(
      floats([1], { device: [DeviceType.cudaHost, 0] }),
    );
    assertEquals(pinned.toArray(), [0]);
  });
  assertEquals(recorder.memories, []);
});

Deno.test("A runtime that opens no complete reader is named, the deleter called", async () => {
  const reader = {
    synchronize() {},
    read() {},
    [Symbol.dispose]() {},
  };
  const cases: [unknown, string][] = [
    [undefined, "synchronize"],
    [{ ...reader, synchronize: undefined }, "synchronize"],
    [{ ...reader, read: 1 }, "read"],
    [{ ...reader, [Symbol.dispose]: undefined }, "Symbol(Symbol.dispose)"],
  ];
  for (const [opened, missing] of cases) {
    const runtime = { name: "my library", open: () => opened };
    await withRuntime(extDev, runtime as DeviceRuntime, () => {
      const deleted = deletions(() => {
        assertThrows(
          () =>
            importFixture(floats([2], { device: [extDev, 0] }), {
              device: "cpu",
            }),
          TypeError,
          "Cannot read a tensor on extDev:0 through my library: what its " +
            `open() returns has no ${missing}()`,
        );
      });
      assertEquals(deleted, 1);
    });
  }
});

Deno.test("What a runtime throws passes through, the deleter called", async (t) => {
  const errors = [
    new BufferError("device", "CUDA_ERROR_INVALID_VALUE (1)"),
    new TypeError("a mistake"),
    "a string",
  ];
  for (const name of ["open", "synchronize", "read", "dispose"]) {
    await t.step(name, async () => {
      for (const error of errors) {
        const device = new HostDevice({
          onCall(called) {
            if (called === name) throw error;
          },
        });
        await withRuntime(extDev, device, () => {
          const deleted = deletions(() => {
            let thrown: unknown;
            try {
              const spec = floats([2], { device: [extDev, 0] });
              importFixture(spec, { device: "cpu" });
            } catch (error) {
              thrown = error;
            }
            assert(thrown === error);
          });
          assertEquals(deleted, 1);
        });
        assertEquals(device.count("dispose"), name === "open" ? 0 : 1);
      }
    });
  }
  await t.step("managed memory", async () => {
    const device = new HostDevice({
      onCall(called) {
        if (called === "synchronize") throw errors[0];
      },
    });
    await withRuntime(cuda, device, () => {
      const spec = floats([2], { device: [cudaManaged, 0] });
      const deleted = deletions(() =>
        assertBufferError(() => importFixture(spec), "device", "(1)")
      );
      assertEquals(deleted, 1);
    });
    assertEquals(device.calls, ["open", "synchronize", "dispose"]);
  });
});
