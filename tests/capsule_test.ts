import {
  type BufferErrorCode,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { addressOfArray } from "../ffi/memory.ts";
import {
  assertBufferError,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  testBothPaths,
} from "./helpers.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";

const deletionsSoFar = (): number => counts().deleted;

Deno.test("DlpackCapsule takes a pointer or its address", () => {
  assertEquals(
    deletions(() => {
      const pointer = make(floats([2]));
      const name = "dltensor_versioned";
      using a = new DlpackCapsule(pointer, name);
      assert(Deno.UnsafePointer.equals(a.pointer, pointer));
      const address = BigInt(Deno.UnsafePointer.value(make(floats([2]))));
      using b = new DlpackCapsule(address, name);
      assertEquals(BigInt(Deno.UnsafePointer.value(b.pointer)), address);
    }),
    2,
  );
});

Deno.test("DlpackCapsule refuses what is no pointer, and names the way out", () => {
  type Pointer = Deno.PointerObject;
  const wrap = (pointer: unknown, name: unknown = "dltensor") => () =>
    new DlpackCapsule(pointer as Pointer, name as "dltensor");
  const before = liveTensors();
  assertThrows(wrap(null), TypeError, "Cannot wrap NULL");
  assertThrows(wrap(0n), TypeError, "Cannot wrap NULL");
  assertThrows(wrap(undefined), TypeError, "pass the Deno.PointerObject");
  assertThrows(wrap(140737488355328), TypeError, "address as a bigint");
  assertThrows(
    wrap(new Uint8Array(80)),
    TypeError,
    "Cannot wrap a Uint8Array: pass",
  );
  const pointer = make(floats([2]));
  assertThrows(wrap(pointer, "tensor"), TypeError, '"dltensor_versioned" for');
  assertThrows(wrap(pointer, "used_dltensor"), TypeError, "used_dltensor");
  assertEquals(liveTensors(), before, "nothing was taken");
  new DlpackCapsule(pointer, "dltensor_versioned")[Symbol.dispose]();
});

Deno.test("DlpackCapsule calls the deleter when nobody consumed it", () => {
  for (const versioned of [true, false]) {
    assertEquals(
      deletions(() => {
        const c = capsule(floats([2], { versioned }));
        const name = versioned ? "dltensor_versioned" : "dltensor";
        assertEquals(c.name, name);
        c[Symbol.dispose]();
        c[Symbol.dispose]();
        assertEquals(c.name, `used_${name}`);
        assertBufferError(() => c.pointer, "consumed");
        assertBufferError(() => c.take(), "consumed");
        assertBufferError(() => fromDlpack(c), "consumed");
      }),
      1,
    );
  }
});

Deno.test("DlpackCapsule.take() leaves the deleter to the caller", () => {
  const before = liveTensors().count;
  assertEquals(
    deletions(() => {
      const c = capsule(floats([2]));
      assertEquals(liveTensors().count, before + 1);
      const pointer = c.take();
      assertEquals(liveTensors().count, before);
      assertEquals(c.name, "used_dltensor_versioned");
      assertBufferError(() => c.take(), "consumed");
      c[Symbol.dispose]();
      assertEquals(counts().live > 0, true);
      fixture.fx_call_deleter_from_thread(pointer);
    }),
    1,
  );
});

Deno.test("DlpackCapsule says where the memory is without consuming it", () => {
  using gpu = capsule(floats([2], { device: [2, 3] }));
  assertEquals(gpu.__dlpack_device__(), [2, 3]);
  using legacy = capsule(floats([2], { device: [13, 0], versioned: false }));
  assertEquals(legacy.__dlpack_device__(), [13, 0]);
  assertEquals(legacy.name, "dltensor");
  using other = capsule(floats([2], { version: [2, 0] }));
  assertBufferError(() => other.__dlpack_device__(), "version", "2.0");
  assertEquals(other.name, "dltensor_versioned");
});

Deno.test("DlpackCapsule is its own exporter, once", () => {
  const c = capsule(floats([2]));
  assertEquals(c.__dlpack__() === c, true);
  assertEquals(c.__dlpack__({ copy: true }) === c, true);
  using _t = fromDlpack(c);
  assertBufferError(() => c.__dlpack__(), "consumed");
  assertBufferError(() => c.__dlpack_device__(), "consumed");
});

// --- what it shows --------------------------------------------------------------

Deno.test("A capsule shows what it holds, on any device, and stays unconsumed", () => {
  for (const device of [[1, 0], [2, 3], [4, 0], [14, 1]] as const) {
    for (const versioned of [true, false]) {
      const spec = floats([2, 3], { device, versioned, strides: [1, 2] });
      using c = capsule(spec);
      assertEquals(c.dtype, "float32");
      assertEquals([c.shape, c.strides], [[2, 3], [1, 2]]);
      assert(c.shape === c.shape && Object.isFrozen(c.shape));
      assert(Object.isFrozen(c.strides));
      assertEquals(c.device.id, device[1]);
      assertEquals([c.nbytes, c.readOnly], [24, !versioned]);
      const name = versioned ? "dltensor_versioned" : "dltensor";
      assertEquals(c.name, name);
      assertEquals(
        Deno.inspect(c),
        `DlpackCapsule ${name}, float32 [2, 3], strides [1, 2], ` +
          `${c.device.type}:${device[1]}`,
      );
    }
  }
});

Deno.test("A capsule shows lanes as the last axis, and packed bytes", () => {
  using lanes = capsule({ dtype: [2, 32, 4], shape: [2], nbytes: 32 });
  assertEquals([lanes.shape, lanes.strides], [[2, 4], [4, 1]]);
  using packed = capsule({ dtype: [0, 4, 1], shape: [3], nbytes: 2, flags: 1 });
  assertEquals([packed.dtype, packed.nbytes], ["int4", 2]);
  assert(Deno.inspect(packed).endsWith("cpu:0, read-only"));
  using old = capsule({
    dtype: [1, 1, 1],
    shape: [3],
    nbytes: 3,
    versioned: false,
  });
  assertEquals([old.dtype, old.nbytes], ["bool", 3]);
});

Deno.test("A getter says what is wrong with a struct, and calls no deleter", () => {
  const bad: readonly [Partial<FixtureSpec>, BufferErrorCode][] = [
    [{ dtype: [200, 8, 1] }, "dtype"],
    [{ shape: [2, -1] }, "shape"],
    [{ ndim: 65 }, "shape"],
    [{ nullData: true }, "data"],
    [{ version: [2, 0] }, "version"],
    [{ device: [99, 0] }, "device"],
  ];
  for (const [changes, code] of bad) {
    using c = capsule({ ...floats([2, 3]), ...changes });
    assertEquals(
      deletions(() => {
        for (
          const get of [
            () => c.dtype,
            () => c.shape,
            () => c.strides,
            () => c.device,
            () => c.readOnly,
            () => c.nbytes,
          ]
        ) assertBufferError(get, code);
        assert(Deno.inspect(c).startsWith("DlpackCapsule dltensor_versioned"));
      }),
      0,
    );
    assertEquals(c.name, "dltensor_versioned");
  }
  const used = capsule(floats([2]));
  used[Symbol.dispose]();
  assertBufferError(() => used.shape, "consumed");
  assertEquals(Deno.inspect(used), "DlpackCapsule used_dltensor_versioned");
});

Deno.test("with() says more before it is consumed, and writable is believed", () => {
  const legacy = capsule(floats([2], { versioned: false }));
  assert(legacy.readOnly);
  assert(legacy.with({ writable: true }) === legacy);
  assert(!legacy.readOnly);
  using t = fromDlpack(legacy, { dtype: "float32" });
  t.set(0, 5);
  assertEquals([t.get(0), t.readOnly], [5, false]);
  assertBufferError(() => legacy.with({ writable: true }), "consumed");
  // A versioned struct has said it itself.
  using readOnly = capsule(floats([2], { flags: 1 }));
  assert(readOnly.with({ writable: true }).readOnly);
  for (const wrong of [null, 5, "x"]) {
    assertThrows(() => readOnly.with(wrong as never), TypeError, "an object");
  }
  assertThrows(() => readOnly.with({ writable: 1 as never }), TypeError);
  assertThrows(() => readOnly.with({ stream: -2 }), TypeError, "from -1 on");
});

Deno.test("hold() of a capsule keeps the memory over dispose and collection", async () => {
  const before = deletionsSoFar();
  const c = capsule(floats([2]));
  const held = c.hold();
  assertBufferError(() => c.take(), "consumed", "1 export, call or hold");
  c[Symbol.dispose]();
  assertEquals(deletionsSoFar(), before);
  held[Symbol.dispose]();
  held[Symbol.dispose]();
  assertEquals(deletionsSoFar(), before + 1);
  const dropped = (() => capsule(floats([2])).hold())();
  await collectGarbage();
  assertEquals(deletionsSoFar(), before + 1);
  dropped[Symbol.dispose]();
  await collectGarbage();
  assertEquals(deletionsSoFar(), before + 2);
});

// --- borrow() and from() ----------------------------------------------------------

/** Where the DLTensor of a versioned struct is. */
function tensorIn(c: DlpackCapsule): Deno.PointerObject {
  return Deno.UnsafePointer.offset(c.pointer, 32)!;
}

testBothPaths("borrow() looks at a DLTensor that stays the library's", () => {
  const theirs = capsule(
    floats([2, 3], { strides: [1, 2], byteOffset: 8, origin: -8 }),
  );
  assertEquals(
    deletions(() => {
      using t = fromDlpack(DlpackCapsule.borrow(tensorIn(theirs)));
      assertEquals(t.toArray(), [[0, 2, 4], [1, 3, 5]]);
      assert(t.readOnly);
      using u = fromDlpack(
        DlpackCapsule.borrow(tensorIn(theirs), { writable: true }),
        { dtype: "float32" },
      );
      u.set(0, 0, 9);
      assertEquals(t.get(0, 0), 9);
    }),
    0,
  );
  theirs[Symbol.dispose]();
  for (const wrong of [null, 0n, 3, "x", {}, undefined]) {
    assertThrows(() => DlpackCapsule.borrow(wrong as never), TypeError);
  }
  using bad = capsule({ ...floats([2]), ndim: 99 });
  assertBufferError(() => DlpackCapsule.borrow(tensorIn(bad)), "shape");
});

Deno.test("borrow() keeps what it is told to keep, and a circle is collected", async () => {
  const before = deletionsSoFar();
  (() => {
    const theirs = capsule(floats([2]));
    const owner = { theirs, seen: null as unknown };
    const t = fromDlpack(
      DlpackCapsule.borrow(tensorIn(theirs), { keepAlive: owner }),
    );
    owner.seen = t; // a circle through keepAlive
  })();
  await collectGarbage();
  await collectGarbage();
  assertEquals(deletionsSoFar(), before + 1);

  const kept: Tensor[] = [];
  await (async () => {
    const theirs = capsule(floats([2]));
    kept.push(
      fromDlpack(DlpackCapsule.borrow(tensorIn(theirs), { keepAlive: theirs })),
    );
    theirs[Symbol.dispose]();
    await collectGarbage();
  })();
  assertEquals(kept[0]!.toArray(), [0, 1]);
  assertEquals(deletionsSoFar(), before + 1);
  kept.pop()![Symbol.dispose]();
  assertEquals(deletionsSoFar(), before + 2);
});

testBothPaths("from() wraps memory that came without a struct", async (t) => {
  const memory = Float32Array.from({ length: 12 }, (_, i) => i);
  const address = addressOfArray(memory);
  await t.step("in C order, released once", () => {
    let released = 0;
    const c = DlpackCapsule.from(address, {
      dtype: "float32",
      shape: [3n, 4],
      keepAlive: memory,
      release: () => released++,
    });
    assertEquals([c.name, c.readOnly, c.nbytes], [
      "dltensor_versioned",
      false,
      48,
    ]);
    const x = fromDlpack(c, { dtype: "float32" });
    x.set(0, 0, 50);
    assertEquals(memory[0], 50);
    memory[0] = 0;
    x[Symbol.dispose]();
    x[Symbol.dispose]();
    assertEquals(released, 1);
  });
  await t.step("with strides in elements and in bytes", () => {
    using x = fromDlpack(DlpackCapsule.from(address, {
      dtype: "float32",
      shape: [3, 2],
      byteStrides: [16, 4],
      byteLength: 48,
      keepAlive: memory,
    }));
    assertEquals(x.toArray(), [[0, 1], [4, 5], [8, 9]]);
    // FFmpeg's negative line size: data is the first row, the last in memory.
    using up = fromDlpack(DlpackCapsule.from(address + 32n, {
      dtype: "float32",
      shape: [3, 4],
      byteStrides: [-16n, 4n],
      byteLength: 48n,
      keepAlive: memory,
    }));
    assertEquals(up.slice(null, 0).toArray(), [8, 4, 0]);
    using nibbles = fromDlpack(DlpackCapsule.from(address, {
      dtype: "uint4",
      shape: [2, 2],
      byteStrides: [1, 1],
      keepAlive: memory,
    }));
    assertEquals([nibbles.strides, nibbles.nbytes], [[2, 2], 2]);
  });
  await t.step("of a device, read-only, padded", () => {
    using x = DlpackCapsule.from(0x1000n, {
      dtype: "int4",
      shape: [2],
      device: { type: "cuda", id: 1 },
      readOnly: true,
      padded: true,
      stream: 2,
    });
    assertEquals(x.device, { type: "cuda", id: 1 });
    assertEquals([x.readOnly, x.nbytes], [true, 2]);
    assertBufferError(() => fromDlpack(x), "device");
  });
  await t.step("NULL, only without elements", () => {
    using x = fromDlpack(
      DlpackCapsule.from(null, { dtype: "int8", shape: [0, 3] }),
    );
    assertEquals(x.size, 0);
    for (const nothing of [null, 0n]) {
      assertThrows(
        () => DlpackCapsule.from(nothing, { dtype: "int8", shape: [1] }),
        TypeError,
        "Cannot wrap NULL",
      );
    }
  });
});

Deno.test("When from() throws, nothing was taken", () => {
  const memory = new Uint8Array(new ArrayBuffer(64));
  const address = addressOfArray(memory);
  let released = 0;
  const release = (): number => released++;
  const good = { dtype: "float32", shape: [2, 3], release } as const;
  const wrong: [unknown, typeof Error, string][] = [
    [{ ...good, dtype: "float" }, TypeError, 'no dtype "float"'],
    [{ ...good, shape: 6 }, TypeError, "must be an array"],
    [{ ...good, shape: [2, -3] }, RangeError, "negative"],
    [{ ...good, shape: [1.5] }, RangeError, "not 1.5"],
    [{ ...good, shape: Array(65).fill(1) }, RangeError, "65 axes"],
    [{ ...good, shape: [2 ** 40, 2 ** 40] }, RangeError, "overflows"],
    [{ ...good, strides: [3] }, RangeError, "2 lengths but 1 strides"],
    [{ ...good, strides: [3, 1], byteStrides: [12, 4] }, TypeError, "pass one"],
    [{ ...good, byteStrides: [13, 4] }, RangeError, "13 bytes along axis 0"],
    [
      { ...good, byteLength: 23 },
      RangeError,
      "23 bytes: the elements end after 24",
    ],
    [
      { ...good, strides: [-3, 1], byteLength: 23 },
      RangeError,
      "the elements end after 24",
    ],
    [{ ...good, device: "cuda" }, TypeError, "There is no device"],
    [{ ...good, device: { type: "gpu", id: 0 } }, TypeError, '"gpu"'],
    [{ ...good, release: 5 }, TypeError, '"release" must be a function'],
    [{ ...good, stream: "x" }, TypeError, '"stream" must be'],
    [undefined, TypeError, "must be an object"],
  ];
  const before = liveTensors();
  for (const [options, type, message] of wrong) {
    assertThrows(
      () => DlpackCapsule.from(address, options as never),
      type,
      message,
    );
  }
  for (const data of [3n, 5, "x", undefined, memory]) {
    assertThrows(() => DlpackCapsule.from(data as never, good), TypeError);
  }
  assertEquals(released, 0);
  assertEquals(liveTensors(), before);
});

Deno.test("release runs at the end whoever has it, and then keepAlive goes", async () => {
  const memory = new Uint8Array(new ArrayBuffer(64));
  const address = addressOfArray(memory);
  const events: string[] = [];
  const make = (name: string, keepAlive?: unknown): DlpackCapsule =>
    DlpackCapsule.from(address, {
      dtype: "uint8",
      shape: [64],
      keepAlive,
      release: () => events.push(name),
    });
  const source = importFixture(floats([2]));
  const plane = make("plane", source);
  source[Symbol.dispose]();
  assertEquals(deletions(() => plane[Symbol.dispose]()), 1, "held until then");
  // By a native consumer.
  const pointer = make("taken").take();
  assertEquals(events, ["plane"]);
  new DlpackCapsule(pointer, "dltensor_versioned")[Symbol.dispose]();
  assertEquals(events, ["plane", "taken"]);
  // By the garbage collector.
  (() => fromDlpack(make("collected")))();
  await collectGarbage();
  assertEquals(events, ["plane", "taken", "collected"]);
  // One that throws is reported where a deleter that throws is.
  const failing = DlpackCapsule.from(address, {
    dtype: "uint8",
    shape: [1],
    release() {
      throw new Error("as it must");
    },
  });
  assertThrows(() => failing[Symbol.dispose](), Error, "as it must");
});

Deno.test("keepAlive keeps what a typed array shows, also one in an array", () => {
  for (const inArray of [false, true]) {
    const t = importFixture(floats([3]));
    const keepAlive = inArray ? [{}, t.data] : t.data;
    const pointer = Deno.UnsafePointer.of(t.data);
    const spec = { dtype: "float32", shape: [3], keepAlive } as const;
    const kept = fromDlpack(DlpackCapsule.from(pointer, spec));
    const values = kept.toArray();
    assertEquals(deletions(() => t[Symbol.dispose]()), 0);
    assertEquals(kept.toArray(), values);
    assertEquals(deletions(() => kept[Symbol.dispose]()), 1);
  }
});
