import {
  BufferError,
  DeviceType,
  type DlpackExporter,
  fromDlpack,
  fromDlpackAsync,
  type FromDlpackAsyncOptions,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
  floats,
  rejection,
} from "./helpers.ts";
import { HostDevice, withRuntime } from "./host_device.ts";
import { counts, type FixtureSpec } from "./native/fixture.ts";

const { extDev } = DeviceType;
const MB = 2 ** 20;

/** How often deleters were called while something ran; none of them wrongly. */
async function deletionsOf(run: () => Promise<unknown>): Promise<number> {
  const before = counts();
  await run();
  const after = counts();
  assertEquals(after.double, before.double, "a deleter was called twice");
  return after.deleted - before.deleted;
}

/** Keeps the thread busy, longer than the event loop is let stand still. */
function dawdle(): void {
  const start = performance.now();
  while (performance.now() - start < 30);
}

/** A matrix of 80 MiB with the values 0, 1, 2, …, in Fortran order. */
function matrix(changes: Partial<FixtureSpec> = {}): FixtureSpec {
  const data = new Uint32Array(20 * MB);
  for (let i = 0; i < data.length; i++) data[i] = i;
  return {
    dtype: [1, 32, 1],
    shape: [5 * 1024, 4 * 1024],
    strides: [1, 5 * 1024],
    nbytes: data.byteLength,
    data: bytesOf(data),
    ...changes,
  };
}

/** Checks some elements of the matrix. */
function assertMatrix(t: Tensor): void {
  assert(t.is("uint32"));
  assertEquals([t.shape, t.strides], [[5120, 4096], [4096, 1]]);
  for (const [i, j] of [[0, 0], [0, 1], [1, 0], [77, 4095], [5119, 4095]]) {
    assertEquals(t.get(i!, j!), i! + 5120 * j!);
  }
}

Deno.test("fromDlpackAsync() gives a view at once for the host's memory", async () => {
  const deleted = await deletionsOf(async () => {
    let progress = 0;
    let turned = false;
    const timer = setTimeout(() => turned = true);
    const t = await fromDlpackAsync(capsule(floats([2, 3])), {
      onProgress: () => progress++,
    });
    clearTimeout(timer);
    assertEquals([progress, turned], [0, false]);
    assertEquals(t.device, { type: "cpu", id: 0 });
    assertEquals(t.toArray(), [[0, 1, 2], [3, 4, 5]]);
    t[Symbol.dispose]();
    t[Symbol.dispose]();
  });
  assertEquals(deleted, 1);
});

/** What came of an import, to be compared. */
interface Outcome {
  readonly values?: unknown;
  readonly place?: unknown;
  readonly readOnly?: boolean;
  readonly code?: string;
  readonly message?: string;
  readonly deleted: number;
}

async function outcomeOf(
  run: () => Tensor | Promise<Tensor>,
): Promise<Outcome> {
  const before = counts().deleted;
  try {
    using t = await run();
    const deleted = counts().deleted - before;
    const { device: place, readOnly } = t;
    return { values: t.toArray(), place, readOnly, deleted };
  } catch (error) {
    assert(error instanceof BufferError, `${error}`);
    const { code } = error;
    // Each tensor lies elsewhere.
    const message = error.message.replace(/0x[0-9a-f]+/, "an address");
    return { code, message, deleted: counts().deleted - before };
  }
}

Deno.test("fromDlpackAsync() follows the table of fromDlpack()", async () => {
  const outcomes = new Set<string>();
  const check = async (): Promise<void> => {
    for (const type of Object.values(DeviceType)) {
      for (const device of [null, "cpu"] as const) {
        for (const copy of [null, false, true]) {
          for (const flags of [0, 1, 2, 3]) {
            for (const shape of [[2, 2], [0, 2]]) {
              const spec = floats(shape, { device: [type, 7], flags });
              const options = { device, copy };
              using first = capsule(spec);
              const there = await outcomeOf(() =>
                fromDlpackAsync(first, options)
              );
              using second = capsule(spec);
              const here = await outcomeOf(() => fromDlpack(second, options));
              assertEquals(first.name, second.name);
              assertEquals(there, here);
              outcomes.add(here.code ?? (here.deleted ? "copied" : "view"));
            }
          }
        }
      }
    }
  };
  await check();
  await withRuntime(extDev, new HostDevice({ isAsync: true }), check);
  assertEquals([...outcomes].sort(), ["copied", "copy", "device", "view"]);
});

Deno.test("fromDlpackAsync() refuses what fromDlpack() refuses", async () => {
  const deleted = await deletionsOf(async () => {
    for (
      const changes of [
        { version: [2, 0] },
        { dtype: [200, 8, 1] },
        { shape: [-1] },
        { nullData: true },
      ] as const
    ) {
      const spec = floats([2], changes);
      const there = await rejection(fromDlpackAsync(capsule(spec)));
      const here = assertBufferError(
        () => fromDlpack(capsule(spec)),
        (there as BufferError).code,
      );
      assertEquals((there as BufferError).message, here.message);
    }
  });
  assertEquals(deleted, 8);
});

Deno.test("fromDlpackAsync() lets the event loop turn between the steps", async () => {
  const events: string[] = [];
  const deleted = await deletionsOf(async () => {
    const ticking = setInterval(() => events.push("tick"));
    const t = await fromDlpackAsync(capsule(matrix()), {
      copy: true,
      onProgress(done, total) {
        assertEquals(total, 80 * MB);
        events.push(`${done / MB}`);
        dawdle();
      },
    });
    clearInterval(ticking);
    assertMatrix(t);
    assertEquals(t.device.type, "cpu");
  });
  assertEquals(deleted, 1);
  const steps = events.filter((event) => event !== "tick").map(Number);
  assertEquals(steps.length, 3);
  assert(steps.every((step, i) => step > (steps[i - 1] ?? 0)), `${steps}`);
  assertEquals(steps.at(-1), 80);
  const first = events.indexOf(`${steps[0]}`);
  const last = events.indexOf("80");
  assert(events.slice(first, last).includes("tick"), events.join());
});

Deno.test("fromDlpackAsync() copies from a device in steps", async (t) => {
  for (const isAsync of [true, false]) {
    for (const strides of [null, [1, 5 * 1024], [4 * 1024 + 8, 1]]) {
      await t.step(`${isAsync ? "async" : "sync"}, ${strides}`, async () => {
        const device = new HostDevice({ isAsync, hasRows: true });
        const nbytes = strides?.[0] === 4104
          ? (5119 * 4104 + 4096) * 4
          : 80 * MB;
        const spec: FixtureSpec = {
          device: [extDev, 0],
          dtype: [1, 32, 1],
          shape: [5 * 1024, 4 * 1024],
          strides,
          nbytes,
        };
        const progress: number[] = [];
        const deleted = await deletionsOf(() =>
          withRuntime(extDev, device, async () => {
            const t = await fromDlpackAsync(capsule(spec), {
              device: "cpu",
              onProgress(done, total) {
                assertEquals(total, 80 * MB);
                progress.push(done);
              },
            });
            assertEquals(t.nbytes, 80 * MB);
            assert(t.isContiguous);
          })
        );
        assertEquals(deleted, 1);
        assert(progress.length >= 3);
        assert(progress.every((done, i) => done > (progress[i - 1] ?? 0)));
        assertEquals(progress.at(-1), 80 * MB);
        // No piece is longer than 32 MiB; little is read that is not wanted.
        const reads = device.count("read") + device.count("readAsync") +
          device.count("readRows");
        assert(reads >= 3 && device.bytesRead <= nbytes);
        const synchronize = isAsync ? "synchronizeAsync" : "synchronize";
        assertEquals(device.calls.slice(0, 2), ["open", synchronize]);
        assertEquals(device.count("read") > 0, !isAsync && strides?.[1] !== 1);
        assertEquals(device.count("dispose"), 1);
        assert(device.peakBytes <= 160 * MB);
      });
    }
  }
});

Deno.test("fromDlpackAsync() tells of progress in whole bytes, to the last", async () => {
  const cases: readonly [FixtureSpec, nbytes: number][] = [
    [floats([7]), 28],
    [floats([]), 4],
    [{ dtype: [0, 4, 1], shape: [5], nbytes: 3 }, 3],
    [{ dtype: [1, 8, 4], shape: [3], nbytes: 12 }, 12],
    [{ dtype: [2, 32, 1], shape: [3, 5], strides: [0, 1], nbytes: 20 }, 60],
    [floats([0, 4]), 0],
  ];
  await withRuntime(extDev, new HostDevice(), async () => {
    for (const type of [DeviceType.cpu, extDev]) {
      for (const [spec, nbytes] of cases) {
        const progress: number[][] = [];
        const t = await fromDlpackAsync(
          capsule({ ...spec, device: [type, 0] }),
          {
            device: "cpu",
            copy: true,
            onProgress: (...args) => progress.push(args),
          },
        );
        assertEquals(t.nbytes, nbytes);
        assertEquals(progress.at(-1), nbytes ? [nbytes, nbytes] : undefined);
        assert(progress.flat().every(Number.isInteger));
      }
    }
  });
});

Deno.test("fromDlpackAsync() checks its arguments before it asks the exporter", async () => {
  let asked = 0;
  const exporter: DlpackExporter = {
    __dlpack__() {
      asked++;
      return capsule(floats([2]));
    },
    __dlpack_device__: () => [1, 0],
  };
  const wrong: readonly [unknown, string][] = [
    [{ device: "gpu" }, '"gpu"'],
    [{ copy: 1 }, "null, not 1"],
    [{ signal: {} }, '"signal" must be an AbortSignal, not an object'],
    [{ signal: new AbortController() }, "not an AbortController"],
    [{ onProgress: 5 }, '"onProgress" must be a function, not 5'],
    [{ onProgress: "log" }, '"log"'],
  ];
  for (const [options, message] of wrong) {
    const error = await rejection(
      fromDlpackAsync(exporter, options as FromDlpackAsyncOptions),
    );
    assert(error instanceof TypeError && error.message.includes(message));
  }
  for (const x of [null, undefined, {}, 4096n]) {
    const error = await rejection(fromDlpackAsync(x as never));
    assert(error instanceof TypeError, `${error}`);
  }
  assertEquals(asked, 0);
  // Those that may be null are as good as absent.
  using t = await fromDlpackAsync(exporter, {
    device: null,
    copy: null,
    signal: null,
    onProgress: null,
  });
  assertEquals([t.toArray(), asked], [[0, 1], 1]);
});

Deno.test("fromDlpackAsync() does not ask the exporter when it was aborted before", async () => {
  const exporter: DlpackExporter = {
    __dlpack__(): never {
      throw new Error("asked");
    },
    __dlpack_device__: () => [1, 0],
  };
  const reason = { my: "reason" };
  const signal = AbortSignal.abort(reason);
  assert(await rejection(fromDlpackAsync(exporter, { signal })) === reason);
  const error = await rejection(
    fromDlpackAsync(exporter, { signal: AbortSignal.abort() }),
  );
  assert(error instanceof DOMException && error.name === "AbortError");
  // A capsule is still good then.
  const unused = capsule(floats([2]));
  await rejection(fromDlpackAsync(unused, { signal }));
  assertEquals(unused.name, "dltensor_versioned");
  unused[Symbol.dispose]();
});

Deno.test("fromDlpackAsync() stops between two steps of a copy on the host", async () => {
  for (const byTimer of [false, true]) {
    const controller = new AbortController();
    const reason = new Error("enough");
    let steps = 0;
    const deleted = await deletionsOf(async () => {
      const error = await rejection(fromDlpackAsync(capsule(matrix()), {
        copy: true,
        signal: controller.signal,
        onProgress() {
          steps++;
          if (!byTimer) return controller.abort(reason);
          setTimeout(() => controller.abort(reason));
          dawdle();
        },
      }));
      assert(error === reason);
    });
    assertEquals(deleted, 1);
    assert(steps < 3, "it went on");
  }
});

/** 80 MiB of zeros on a device, which are read in three pieces. */
const remote: FixtureSpec = {
  device: [extDev, 0],
  dtype: [1, 8, 1],
  shape: [80 * MB],
  nbytes: 80 * MB,
};

/** Imports it, and checks what is left after that failed. */
async function rejectedRemote(
  device: HostDevice,
  options: FromDlpackAsyncOptions = {},
): Promise<unknown> {
  const live = liveTensors();
  let error: unknown;
  const deleted = await deletionsOf(() =>
    withRuntime(extDev, device, async () => {
      const unused = capsule(remote);
      const promise = fromDlpackAsync(unused, { device: "cpu", ...options });
      assertEquals(unused.name, "used_dltensor_versioned");
      error = await rejection(promise);
      // Nobody can release it a second time.
      unused[Symbol.dispose]();
      assertBufferError(() => unused.take(), "consumed");
    })
  );
  assertEquals(deleted, 1);
  assertEquals(liveTensors(), live);
  return error;
}

Deno.test("fromDlpackAsync() waits for the read that runs when it is aborted", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const device = new HostDevice({
    isAsync: true,
    onCall(name, index) {
      if (name === "readAsync" && index === 1) controller.abort(reason);
    },
  });
  const { signal } = controller;
  assert(await rejectedRemote(device, { signal }) === reason);
  // The device itself checks that it is not disposed during a read.
  assertEquals(device.calls, [
    "open",
    "synchronizeAsync",
    "readAsync",
    "readAsync",
    "dispose",
  ]);
});

Deno.test("fromDlpackAsync() passes on what onProgress throws", async () => {
  const boom = new RangeError("boom");
  const onProgress = (): never => {
    throw boom;
  };
  for (const isAsync of [true, false]) {
    const device = new HostDevice({ isAsync });
    assert(await rejectedRemote(device, { onProgress }) === boom);
    assertEquals(device.count("dispose"), 1);
  }
  const deleted = await deletionsOf(async () => {
    const options = { copy: true, onProgress };
    const promise = fromDlpackAsync(capsule(floats([2])), options);
    assert(await rejection(promise) === boom);
  });
  assertEquals(deleted, 1);
});

Deno.test("fromDlpackAsync() passes on what a runtime throws, the deleter called", async (t) => {
  const places: readonly [name: string, index: number][] = [
    ["open", 0],
    ["synchronize", 0],
    ["synchronizeAsync", 0],
    ["read", 0],
    ["read", 2],
    ["readAsync", 0],
    ["readAsync", 2],
    ["dispose", 0],
  ];
  for (const [name, index] of places) {
    await t.step(`${name}, call ${index}`, async () => {
      const boom = new BufferError("device", "boom");
      let before = 0;
      let deletedAtDispose: number | undefined;
      const device = new HostDevice({
        isAsync: name.endsWith("Async"),
        onCall(called, at) {
          if (called === "open") before = counts().deleted;
          if (called === "dispose") {
            deletedAtDispose = counts().deleted - before;
          }
          if (called === name && at === index) throw boom;
        },
      });
      assert(await rejectedRemote(device) === boom);
      assertEquals(device.count("dispose"), name === "open" ? 0 : 1);
      assertEquals(deletedAtDispose, name === "open" ? undefined : 0);
      assertEquals(device.count(name), index + 1, "it went on");
    });
  }
});

/** What console.error is called with while something runs. */
async function complaints(run: () => Promise<void>): Promise<unknown[][]> {
  const calls: unknown[][] = [];
  const { error } = console;
  console.error = (...args) => void calls.push(args);
  try {
    await run();
  } finally {
    console.error = error;
  }
  return calls;
}

Deno.test("A reader that cannot be closed does not hide the first error", async (t) => {
  const second = new Error("second");
  const failing = (name: string, first: unknown, isAsync: boolean) =>
    new HostDevice({
      isAsync,
      onCall(called) {
        if (called === name) throw first;
        if (called === "dispose") throw second;
      },
    });
  for (const name of ["synchronize", "read", "readAsync"]) {
    await t.step(name, async () => {
      const first = new Error("first");
      const isAsync = name.endsWith("Async");
      const device = failing(name, first, isAsync);
      const told = await complaints(async () => {
        assert(await rejectedRemote(device) === first);
      });
      assertEquals(told.map((args) => args.at(-1)), [second]);
      if (isAsync) return;
      // At once it is the same.
      const again = await complaints(async () => {
        await withRuntime(extDev, failing(name, first, false), async () => {
          const promise = Promise.try(() =>
            fromDlpack(capsule(remote), { device: "cpu" })
          );
          assert(await rejection(promise) === first);
        });
      });
      assertEquals(again.map((args) => args.at(-1)), [second]);
    });
  }
  await t.step("no memory for the copy", async () => {
    const spec: FixtureSpec = {
      device: [extDev, 0],
      dtype: [1, 8, 1],
      shape: [2 ** 25, 2 ** 25],
      strides: [1, 1],
      nbytes: 2 ** 26 - 1,
    };
    const device = failing("never", null, false);
    const told = await complaints(() =>
      withRuntime(extDev, device, () => {
        assertBufferError(
          () => fromDlpack(capsule(spec), { device: "cpu" }),
          "copy",
          "no memory",
        );
      })
    );
    assertEquals(told.map((args) => args.at(-1)), [second]);
  });
});

Deno.test("Many fromDlpackAsync() at once do not get mixed up", async () => {
  const device = new HostDevice({ isAsync: true });
  const deleted = await deletionsOf(() =>
    withRuntime(extDev, device, async () => {
      const tensors = await Promise.all(
        Array.from({ length: 60 }, (_, i) => {
          const data = Float32Array.from({ length: 12 }, (_, k) => 100 * i + k);
          const spec = floats([3, 4], {
            device: [i % 3 === 0 ? DeviceType.cpu : extDev, 0],
            data: bytesOf(data),
            // Some in C order, some backwards.
            ...i % 2 && { strides: [-4, 1], origin: 32 },
          });
          return fromDlpackAsync(capsule(spec), { device: "cpu", copy: true });
        }),
      );
      tensors.forEach((t, i) => {
        const row = (k: number): number[] =>
          [0, 1, 2, 3].map((j) => 100 * i + 4 * k + j);
        const rows = [row(0), row(1), row(2)];
        assertEquals(t.toArray(), i % 2 ? rows.reverse() : rows);
      });
    })
  );
  assertEquals(deleted, 60);
  assertEquals(device.count("open"), 40);
  assertEquals(device.count("dispose"), 40);
});

Deno.test("One capsule cannot be imported twice at the same time", async () => {
  const device = new HostDevice({ isAsync: true });
  const deleted = await deletionsOf(() =>
    withRuntime(extDev, device, async () => {
      const x = capsule(floats([2], { device: [extDev, 0] }));
      const first = fromDlpackAsync(x, { device: "cpu" });
      const error = await rejection(fromDlpackAsync(x, { device: "cpu" }));
      assert(error instanceof BufferError && error.code === "consumed");
      assertEquals((await first).toArray(), [0, 1]);
    })
  );
  assertEquals(deleted, 1);
});

Deno.test("The garbage collector does not free memory that is being copied", async () => {
  await collectGarbage();
  const before = counts().deleted;
  const { gc } = globalThis as unknown as { gc: () => void };
  let collected = 0;
  const collect = (): void => {
    gc();
    collected++;
    assertEquals(counts().deleted, before);
  };
  const device = new HostDevice({
    isAsync: true,
    onCall: (name) => name === "readAsync" && collect(),
  });
  await withRuntime(extDev, device, async () => {
    const t = await fromDlpackAsync(
      capsule(matrix({ device: [extDev, 0], strides: [4096, 1] })),
      { device: "cpu" },
    );
    assert(t.is("uint32"));
    assertEquals([t.get(0, 1), t.get(5119, 4095)], [1, 20 * MB - 1]);
  });
  assertEquals([counts().deleted - before, collected], [1, 3]);
  // On the host, with turns of the event loop after each.
  const again = counts().deleted;
  const t = await fromDlpackAsync(capsule(matrix()), {
    copy: true,
    onProgress() {
      gc();
      dawdle();
      assertEquals(counts().deleted, again);
    },
  });
  assertMatrix(t);
  assertEquals(counts().deleted, again + 1);
});

Deno.test("fromDlpackAsync() copies a JavaScript tensor as fromDlpack() does", async () => {
  const source = Tensor.from(new Float64Array([1, 2, 3, 4]), [2, 2]);
  const t = await fromDlpackAsync(source.transpose(), { copy: true });
  assertEquals(t.toArray(), [[1, 3], [2, 4]]);
  source.set(0, 0, 9);
  assertEquals(t.toArray(), [[1, 3], [2, 4]]);
});

Deno.test("fromDlpackAsync() takes no longer steps for packed elements", async (t) => {
  // Rows that begin and end within a byte: each element is moved by its bits.
  for (const bits of [1, 2, 4]) {
    await t.step(`${bits} bits`, async () => {
      const [rows, columns] = [4096, 4095];
      const stride = columns + 2;
      const spec: FixtureSpec = {
        dtype: [1, bits, 1],
        shape: [rows, columns],
        strides: [stride, 1],
        nbytes: Math.ceil(rows * stride * bits / 8),
        flags: 0,
      };
      const total = Math.ceil(rows * columns * bits / 8);
      let before = 0;
      let longest = 0;
      const t = await fromDlpackAsync(capsule(spec), {
        copy: true,
        onProgress(done) {
          longest = Math.max(longest, done - before);
          before = done;
        },
      });
      assertEquals([t.size, before], [rows * columns, total]);
      // In elements: what takes time is their number, not their bytes.
      assert(longest * 8 / bits <= 2 ** 21 + stride, `${longest} bytes`);
    });
  }
});

Deno.test("fromDlpackAsync() has no producer copy what it can copy itself", async () => {
  const requests: unknown[] = [];
  const exporter = (type: number): DlpackExporter => ({
    __dlpack__(request) {
      requests.push([type, request?.dlDevice, request?.copy]);
      return capsule(floats([2]));
    },
    __dlpack_device__: () => [type, 0],
  });
  const none = DeviceType.vulkan; // for which there is no runtime
  for (const type of [DeviceType.cpu, none]) {
    for (
      const options of [{}, { copy: true }, { copy: false }, {
        device: "cpu",
      }] as const
    ) {
      const deleted = await deletionsOf(async () => {
        using t = await fromDlpackAsync(exporter(type), options);
        assertEquals(t.toArray(), [0, 1]);
      });
      assertEquals(deleted, 1);
    }
  }
  assertEquals(requests, [
    [DeviceType.cpu, null, null],
    [DeviceType.cpu, null, null],
    [DeviceType.cpu, null, false],
    [DeviceType.cpu, null, null],
    [none, null, null],
    [none, null, true],
    [none, null, false],
    [none, [1, 0], null],
  ]);
});

Deno.test("fromDlpackAsync() notices a buffer that is taken away between two steps", async () => {
  const take: Record<string, (buffer: ArrayBuffer) => void> = {
    "transferred": (buffer) => buffer.transfer(0),
    "shrunk": (buffer) => buffer.resize(4),
  };
  for (const [how, act] of Object.entries(take)) {
    for (const range of [[null, null, 1], [null, null, -1]] as const) {
      const buffer = new ArrayBuffer(96 * MB, { maxByteLength: 96 * MB });
      const t = Tensor.from(new Uint32Array(buffer)).slice([...range]);
      let isTaken = false;
      const error = await rejection(fromDlpackAsync(t, {
        copy: true,
        onProgress() {
          dawdle();
          if (!isTaken) act(buffer);
          isTaken = true;
        },
      }));
      assertBufferError(
        () => {
          throw error;
        },
        "released",
        "transferred or resized",
      );
      assert(isTaken, how);
    }
  }
});
