import {
  BufferError,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
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
import { callsPath, openCalls } from "./native/calls.ts";

// One library for all tests that do not close it.
const { lib, counts } = openCalls();
const c = lib.symbols;

/** What calls_describe says of a tensor. */
function described(t: Tensor) {
  const into = new BigInt64Array(10 + 2 * t.ndim);
  c.calls_describe(t, into);
  const [data, type, id, ndim, code, bits, lanes, byteOffset, shape, strides] =
    [...into].map(Number);
  const axes = [...into.subarray(10)].map(Number);
  return {
    data: into[0]!,
    isNull: data === 0,
    device: [type, id],
    ndim,
    dtype: [code, bits, lanes],
    byteOffset,
    hasAxes: [shape === 1, strides === 1],
    shape: axes.slice(0, t.ndim),
    strides: axes.slice(t.ndim),
  };
}

/** A C function pointer for a function of JavaScript. */
function callback(run: () => void): {
  pointer: Deno.PointerObject;
  close(): void;
} {
  return new Deno.UnsafeCallback(
    { parameters: [], result: "void" },
    run,
  );
}

/** A nonblocking call waits until its gate is 1: C looks every millisecond. */
const isOpen = Int32Array.of(1);

// ---- results ----

testBothPaths("A result is a capsule of the right name, NULL is null", () => {
  const live = liveTensors();
  const before = counts();
  {
    const made = c.calls_make(3);
    assertInstanceOf(made, DlpackCapsule);
    assertEquals(made.name, "dltensor_versioned");
    using t = fromDlpack(made);
    assertEquals(t.toArray(), [0, 1, 2]);
    assertEquals(t.readOnly, false);
  }
  {
    const made = c.calls_make_legacy(2);
    assertInstanceOf(made, DlpackCapsule);
    assertEquals(made.name, "dltensor");
    using t = fromDlpack(made);
    assertEquals(t.toArray(), [0, 1]);
    assertEquals(t.readOnly, true);
  }
  assertEquals(c.calls_make(-1), null);
  assertEquals(c.calls_make_legacy(-1), null);
  assertEquals(counts().made - before.made, 2);
  assertEquals(counts().deleted - before.deleted, 2);
  assertEquals(liveTensors(), live);
});

Deno.test("A result that nobody imports is released", async () => {
  const before = counts().deleted;
  (() => {
    c.calls_make(3);
  })();
  c.calls_make(3)![Symbol.dispose]();
  assertEquals(counts().deleted - before, 1);
  await collectGarbage();
  assertEquals(counts().deleted - before, 2);
});

// ---- borrowed ----

testBothPaths(
  "A borrowed tensor is a DLTensor over the same memory",
  async (t) => {
    await t.step("of JavaScript", () => {
      const data = new Int16Array([1, 2, 3, 4, 5, 6]);
      const tensor = Tensor.from(data, [2, 3]);
      assertEquals(described(tensor), {
        data: addressOfArray(data),
        isNull: false,
        device: [1, 0],
        ndim: 2,
        dtype: [0, 16, 1],
        byteOffset: 0,
        hasAxes: [true, true],
        shape: [2, 3],
        strides: [3, 1],
      });
    });
    await t.step("of a library, on its device", () => {
      using tensor = importFixture(floats([2, 2], { device: [3, 1] }));
      const { data, device, shape } = described(tensor);
      assertEquals(data, addressOfArray(tensor.data));
      assertEquals(device, [3, 1]);
      assertEquals(shape, [2, 2]);
      assertEquals(c.calls_sum(tensor), 6);
    });
    await t.step("a view: offset and negative strides are in data", () => {
      const data = Float32Array.from({ length: 12 }, (_, i) => i);
      const whole = Tensor.from(data, [3, 4]);
      const view = whole.slice([null, null, -1], [1, null, 2]).transpose();
      const { data: at, byteOffset, shape, strides } = described(view);
      assertEquals(at, addressOfArray(data) + 4n * 9n);
      assertEquals(byteOffset, 0);
      assertEquals(shape, [2, 3]);
      assertEquals(strides, [2, -4]);
      assertEquals(c.calls_sum(view), 1 + 3 + 5 + 7 + 9 + 11);
    });
    await t.step("an ArrayBuffer from its middle on", () => {
      const data = new Float32Array(new ArrayBuffer(32), 8, 2).fill(4);
      assertEquals(described(Tensor.from(data)).data, addressOfArray(data));
      assertEquals(c.calls_sum(Tensor.from(data)), 8);
    });
    await t.step("shared memory", () => {
      const data = new Float32Array(new SharedArrayBuffer(8)).fill(4);
      assertEquals(c.calls_sum(Tensor.from(data)), 8);
    });
    await t.step("no axes", () => {
      const tensor = Tensor.from(new Float32Array([7]), []);
      const { ndim, hasAxes } = described(tensor);
      // TVM-FFI asks for the two of a tensor without axes, too.
      assertEquals([ndim, hasAxes], [0, [true, true]]);
      assertEquals(c.calls_sum(tensor), 7);
    });
    await t.step("no elements", () => {
      const { isNull, shape } = described(Tensor.from(new Float32Array(0)));
      assertEquals([isNull, shape], [true, [0]]);
    });
    await t.step("packed elements that begin a byte", () => {
      const nibbles = Tensor.from(new Uint8Array(2), [4], { dtype: "int4" });
      assertEquals(described(nibbles.slice([2])).dtype, [0, 4, 1]);
    });
  },
);

Deno.test("What C writes to a borrowed tensor is there", () => {
  const data = new Float32Array([1, 2, 3, 4]);
  c.calls_scale(Tensor.from(data).slice([null, null, 2]), 10);
  assertEquals([...data], [10, 2, 30, 4]);
  using t = fromDlpack(c.calls_make(3)!);
  c.calls_scale(t, 2);
  assertEquals(t.toArray(), [0, 2, 4]);
});

Deno.test("A read-only tensor is lent: a DLTensor cannot say so", () => {
  const data = new Float32Array([1, 2]);
  const t = Tensor.from(data, [2], { readOnly: true });
  assertEquals(c.calls_sum(t), 3);
  using legacy = fromDlpack(c.calls_make_legacy(3)!);
  assertEquals(c.calls_sum(legacy), 3);
});

Deno.test("Several tensors are lent to one call", () => {
  const t = Tensor.from(new Float32Array([1, 2, 3]));
  assertEquals(c.calls_same(t, t), 3);
  assertEquals(c.calls_same(t, t.slice()), 2);
  assertEquals(c.calls_same(t, t.copy()), 0);
  using u = fromDlpack(c.calls_make(3)!);
  assertEquals(
    c.calls_sum_five(t, u, 0.5, t, t.slice([1])),
    6 + 3 + 0.5 + 6 + 5,
  );
});

Deno.test("A lent tensor's struct is made once, for each view", () => {
  const t = Tensor.from(new Float32Array([1, 2, 3]));
  const sums = Array.from({ length: 1000 }, () => c.calls_sum(t));
  assertEquals(new Set(sums), new Set([6]));
  t.set(0, 4);
  assertEquals(c.calls_sum(t), 9);
});

Deno.test("A callback may do with a lent tensor what it likes", async (t) => {
  for (
    const [name, make] of Object.entries({
      "of a library": () => fromDlpack(c.calls_make(4)!),
      "of JavaScript": () =>
        Tensor.from(Float32Array.from({ length: 4 }, (_, i) => i)),
    })
  ) {
    await t.step(`dispose it, ${name}`, () => {
      const before = counts();
      const tensor = make();
      let isDeletedWithin = false;
      const dispose = callback(() => {
        tensor[Symbol.dispose]();
        (globalThis as unknown as { gc(): void }).gc();
        // What JavaScript frees now, others may get.
        for (let i = 0; i < 100; i++) new Float32Array(4).fill(9).buffer;
        isDeletedWithin = counts().deleted > before.deleted;
      });
      assertEquals(c.calls_sum_after(tensor, dispose.pointer), 6);
      assertEquals(isDeletedWithin, false);
      assertEquals(
        counts().deleted - before.deleted,
        counts().made - before.made,
      );
      assertBufferError(() => c.calls_sum(tensor), "released");
      dispose.close();
    });
    await t.step(`lend it again, ${name}`, () => {
      using tensor = make();
      let inner = 0;
      const again = callback(() => inner = c.calls_sum(tensor));
      assertEquals(c.calls_sum_after(tensor, again.pointer), 6);
      assertEquals(inner, 6);
      again.close();
    });
  }
  await t.step("throw", () => {
    const before = counts();
    const tensor = fromDlpack(c.calls_make(4)!);
    const fail = callback(() => {
      throw new Error("Thrown by a callback");
    });
    assertThrows(
      () => c.calls_sum_after(tensor, fail.pointer),
      Error,
      "Thrown by a callback",
    );
    tensor[Symbol.dispose](); // the loan is over
    assertEquals(counts().deleted - before.deleted, 1);
    fail.close();
  });
});

// ---- handed over ----

testBothPaths(
  "A tensor that is handed over is released by the callee",
  async (t) => {
    await t.step("JavaScript's memory, versioned", () => {
      const tensor = Tensor.from(new Float32Array([1, 2]));
      const sum = new Float64Array(1);
      assertEquals(c.calls_consume(tensor, sum), 0n);
      assertEquals(sum[0], 3);
      assertEquals(tensor.toArray(), [1, 2]); // still usable
    });
    await t.step("read-only, with its flag", () => {
      const tensor = Tensor.from(new Float32Array(2), [2], { readOnly: true });
      assertEquals(c.calls_consume(tensor, new Float64Array(1)), 1n);
    });
    await t.step("JavaScript's memory, legacy", () => {
      assertEquals(
        c.calls_consume_legacy(Tensor.from(new Float32Array([4]))),
        4,
      );
    });
    await t.step("a tensor of a library, shared", () => {
      assertEquals(
        deletions(() => {
          using tensor = importFixture(floats([3]));
          c.calls_consume(tensor, new Float64Array(1));
          assertEquals(tensor.toArray(), [0, 1, 2]);
        }),
        1,
      );
    });
    await t.step("a tensor of a library that is gone before", () => {
      assertEquals(
        deletions(() => {
          const tensor = importFixture(floats([3]));
          c.calls_keep(tensor);
          tensor[Symbol.dispose]();
        }),
        0,
      );
      assertEquals(deletions(() => c.calls_drop()), 1);
    });
    await t.step("a capsule, used up", () => {
      const given = capsule(floats([3]));
      assertEquals(
        deletions(() => {
          const sum = new Float64Array(1);
          c.calls_consume(given, sum);
          assertEquals(sum[0], 3);
        }),
        1,
      );
      assertEquals(given.name, "used_dltensor_versioned");
      const legacy = capsule(floats([3], { versioned: false }));
      assertEquals(deletions(() => c.calls_consume_legacy(legacy)), 1);
    });
    await t.step("two at once", () => {
      const b = Tensor.from(new Float32Array([5]));
      assertEquals(
        deletions(() => {
          assertEquals(c.calls_consume_two(capsule(floats([3])), b), 8);
          assertEquals(c.calls_consume_two(b, b), 10);
        }),
        1,
      );
    });
  },
);

Deno.test("A struct that a failing callee leaves can be wrapped again", () => {
  const given = capsule(floats([3]));
  const { pointer } = given;
  assertEquals(
    deletions(() => {
      assertEquals(c.calls_refuse(given), 1);
    }),
    0,
  );
  assertEquals(
    deletions(() =>
      new DlpackCapsule(pointer, "dltensor_versioned")[Symbol.dispose]()
    ),
    1,
  );
});

Deno.test("Where an argument is refused, nothing is handed over", async (t) => {
  const byte = new Uint8Array(1);
  const pointer = Deno.UnsafePointer.of(byte);
  const good: unknown[] = [
    1,
    -1,
    2n,
    0.5,
    true,
    pointer,
    byte,
    new Uint8Array(16),
  ];
  const bad: unknown[][] = [
    ["", -1, 2 ** 32, 1.5, 1n, null],
    [2 ** 31, 1.5, "1", 1n],
    ["1", null, true],
    ["1", 1n, undefined],
    [1, 0, "true", null],
    [0n, byte, Object.create(null), "x"],
    [pointer, 0, "x", undefined],
    [null, pointer, {}],
  ];
  // deno-lint-ignore no-explicit-any
  const consumeWith = c.calls_consume_with as (...args: any[]) => void;
  for (const [i, values] of bad.entries()) {
    for (const value of values) {
      const shown = typeof value === "object" ? "an object" : String(value);
      await t.step(`parameter ${i + 2}: ${shown}`, () => {
        const before = counts().consumed;
        using given = capsule(floats([3]));
        assertEquals(
          deletions(() => {
            assertThrows(
              () => consumeWith(given, ...good.with(i, value)),
              TypeError,
              `parameter ${i + 2} of "calls_consume_with"`,
            );
          }),
          0,
        );
        assertEquals(given.name, "dltensor_versioned");
        assertEquals(counts().consumed, before);
      });
    }
  }
  await t.step("none of these is refused", () => {
    const accepted: unknown[][] = [
      [0, 255, 2 ** 32 - 1],
      [0, 1, 2 ** 31 - 1, -(2 ** 31)],
      [1, 2n ** 64n],
      [NaN, Infinity],
      [false],
      [null],
      [null, byte.buffer, new DataView(byte.buffer), new Uint8Array(0)],
      [new ArrayBuffer(16), new Float64Array(2)],
    ];
    assertEquals(
      deletions(() => {
        for (const [i, values] of accepted.entries()) {
          for (const value of values) {
            consumeWith(capsule(floats([3])), ...good.with(i, value));
          }
        }
      }),
      accepted.flat().length,
    );
  });
  await t.step("a tensor's export is taken back", () => {
    const tensor = importFixture(floats([3]));
    assertThrows(() => consumeWith(tensor, "bad"), TypeError);
    assertThrows(
      // @ts-expect-error: the second is no tensor
      () => c.calls_consume_two(tensor, 5),
      TypeError,
      'Cannot pass 5 to parameter 2 of "calls_consume_two"',
    );
    assertEquals(deletions(() => tensor[Symbol.dispose]()), 1);
  });
  await t.step("a callback that throws after it is no refusal", () => {
    const fail = callback(() => {
      throw new Error("Too late");
    });
    assertEquals(
      deletions(() => {
        const given = capsule(floats([3]));
        assertThrows(
          () => c.calls_consume_then(given, fail.pointer),
          Error,
          "Too late",
        );
        given[Symbol.dispose]();
      }),
      1,
    );
    fail.close();
  });
});

// ---- out ----

testBothPaths("An OutCapsule is filled, taken, and filled again", () => {
  const before = counts();
  const out = new OutCapsule();
  for (const length of [3, 2]) {
    assertEquals(c.calls_make_out(length, out), 0);
    const made = out.take();
    assertEquals(made.name, "dltensor_versioned");
    using t = fromDlpack(made);
    assertEquals(t.shape, [length]);
  }
  assertEquals(c.calls_make_out_legacy(1, out), 0);
  using legacy = out.take();
  assertEquals(legacy.name, "dltensor");
  legacy[Symbol.dispose]();
  assertEquals(counts().made - before.made, 3);
  assertEquals(counts().deleted - before.deleted, 3);
});

Deno.test("An OutCapsule that nothing was written to is empty", () => {
  const out = new OutCapsule();
  assertBufferError(() => out.take(), "data", "empty OutCapsule");
  assertEquals(c.calls_make_out(-1, out), 1);
  assertBufferError(() => out.take(), "data", "status");
  // Nor is what an earlier call wrote still there.
  const before = counts().deleted;
  assertEquals(c.calls_make_out(3, out), 0);
  assertEquals(c.calls_make_out(-1, out), 1);
  assertBufferError(() => out.take(), "data");
  assertEquals(counts().deleted - before, 1);
  assertEquals(c.calls_make_out(3, out), 0);
  using _taken = out.take();
  assertBufferError(() => out.take(), "data", "no call wrote one");
});

Deno.test("A tensor that was lent is lent again while its memory is there", () => {
  const look = (t: Tensor): void => void t.data;
  const dispose = (t: Tensor): void => t[Symbol.dispose]();
  const transfer = (t: Tensor): void =>
    void (t.data.buffer as ArrayBuffer).transfer();
  const resize = (t: Tensor): void => (t.data.buffer as ArrayBuffer).resize(4);
  const own = (): Tensor => Tensor.from(new Float32Array([1, 2, 3]));
  const native = (): Tensor => importFixture(floats([3]));
  const ends: [make: () => Tensor, between: (t: Tensor) => void][] = [
    [own, dispose],
    [own, transfer],
    [() => own().copy(), dispose],
    [() => Tensor.empty([0], "float32"), dispose],
    [native, dispose],
    [native, (t) => t.release()[Symbol.dispose]()],
    [() => importFixture({ ...floats([0, 3]), nbytes: 0 }), dispose],
  ];
  for (const [make, end] of ends) {
    for (const before of [() => {}, look]) {
      for (const between of [() => {}, look]) {
        const t = make();
        const view = t.reshape([-1, t.size === 0 ? 1 : t.size]);
        before(t);
        const sum = c.calls_sum(t);
        c.calls_sum(view);
        between(t);
        assertEquals([c.calls_sum(t), c.calls_sum(t)], [sum, sum]);
        end(t);
        for (let i = 0; i < 2; i++) {
          assertBufferError(() => c.calls_sum(t), "released");
          assertBufferError(() => c.calls_sum(view), "released");
        }
      }
    }
  }
  const resizable = new ArrayBuffer(12, { maxByteLength: 16 });
  const t = Tensor.from(new Float32Array(resizable, 0, 3));
  assertBufferError(() => c.calls_sum(t), "data", "resizable");
  resize(t);
  assertBufferError(() => c.calls_sum(t), "released");
});

Deno.test("A tensor is refused when it has another length, also after it was lent", () => {
  const views = (t: Tensor) => [t, t.slice(), t.slice([1, 1])] as const;
  const shared = new SharedArrayBuffer(12, { maxByteLength: 24 });
  for (const data of [new Float32Array(shared), new Float32Array(shared, 4)]) {
    const t = Tensor.from(data as never);
    const [, fresh, empty] = views(t);
    for (let i = 0; i < 3; i++) {
      assertEquals([c.calls_sum(t), c.calls_sum(empty)], [0, 0]);
    }
    shared.grow(shared.byteLength + 4);
    for (const each of [t, fresh, empty]) {
      assertBufferError(() => each.data, "released", "resized");
      assertBufferError(() => c.calls_sum(each), "released", "resized");
    }
  }
  // What does not grow with its memory stays.
  const t = Tensor.from(new Float32Array(shared, 0, 3) as never);
  assertEquals(c.calls_sum(t), 0);
  shared.grow(24);
  assertEquals(c.calls_sum(t), 0);

  const resizable = new ArrayBuffer(12, { maxByteLength: 24 });
  const [, fresh, empty] = views(Tensor.from(new Float32Array(resizable)));
  const before = empty.slice();
  assertEquals(c.calls_sum(before), 0);
  resizable.resize(16);
  for (const each of [fresh, empty, before]) {
    assertBufferError(() => c.calls_sum(each), "released", "resized");
  }
});

Deno.test("A tensor without elements is lent although its ArrayBuffer was transferred", () => {
  for (const isLentBefore of [false, true]) {
    const data = new Float32Array(0);
    const t = Tensor.from(data);
    if (isLentBefore) c.calls_sum(t);
    data.buffer.transfer();
    for (const each of [t, t.reshape([0, 3])]) {
      for (let i = 0; i < 2; i++) assertEquals(c.calls_sum(each), 0);
    }
    t[Symbol.dispose]();
    assertBufferError(() => c.calls_sum(t), "released");
  }
});

Deno.test("What an OutCapsule holds is released with it", async () => {
  const before = counts().deleted;
  {
    using out = new OutCapsule();
    c.calls_make_out(3, out);
  }
  assertEquals(counts().deleted - before, 1);
  (() => {
    c.calls_make_out(3, new OutCapsule());
  })();
  await collectGarbage();
  assertEquals(counts().deleted - before, 2);
});

Deno.test("One call fills two, also when a callback throws at its end", () => {
  const a = new OutCapsule();
  const b = new OutCapsule();
  c.calls_make_two(a, b, null);
  using first = fromDlpack(a.take());
  assertEquals(first.shape, [1]);
  b.take()[Symbol.dispose]();
  const fail = callback(() => {
    throw new Error("Thrown by a callback");
  });
  assertThrows(
    () => c.calls_make_two(a, b, fail.pointer),
    Error,
    "Thrown by a callback",
  );
  using second = fromDlpack(b.take());
  assertEquals(second.shape, [2]);
  a[Symbol.dispose]();
  assertBufferError(() => c.calls_make_two(a, a, null), "consumed");
  c.calls_make_two(a, b, null); // and a is free again
  a[Symbol.dispose]();
  b[Symbol.dispose]();
  fail.close();
});

// ---- nonblocking ----

Deno.test("A nonblocking call keeps what is lent to it", async (t) => {
  await t.step("a tensor that is dropped", async () => {
    const before = counts();
    const gate = new Int32Array(1);
    const call = (() => c.calls_sum_when(fromDlpack(c.calls_make(4)!), gate))();
    await collectGarbage();
    assertEquals(counts().deleted, before.deleted);
    gate[0] = 1;
    assertEquals(await call, 6);
    await collectGarbage();
    assertEquals(counts().deleted - before.deleted, 1);
  });
  await t.step("a tensor that is disposed", async () => {
    const before = counts();
    const tensor = fromDlpack(c.calls_make(4)!);
    const gate = new Int32Array(1);
    const call = c.calls_sum_when(tensor, gate);
    tensor[Symbol.dispose]();
    assertThrows(() => tensor.data, BufferError);
    assertEquals(counts().deleted, before.deleted);
    gate[0] = 1;
    assertEquals(await call, 6);
    assertEquals(counts().deleted - before.deleted, 1);
  });
  await t.step("memory of JavaScript that is dropped", async () => {
    const gate = new Int32Array(1);
    const call = (() =>
      c.calls_sum_when(Tensor.from(new Float32Array(1000).fill(2)), gate))();
    await collectGarbage();
    for (let i = 0; i < 100; i++) {
      new Float32Array(1000).fill(9).buffer;
    }
    gate[0] = 1;
    assertEquals(await call, 2000);
  });
  await t.step("a tensor that is lent is not given away", async () => {
    const tensor = fromDlpack(c.calls_make(4)!);
    const gate = new Int32Array(1);
    const call = c.calls_sum_when(tensor, gate);
    assertBufferError(() => tensor.release(), "consumed");
    gate[0] = 1;
    await call;
    tensor.release()[Symbol.dispose]();
  });
});

Deno.test("A nonblocking result is a capsule in a promise", async () => {
  const before = counts();
  using t = fromDlpack((await c.calls_make_when(3, isOpen))!);
  assertEquals(t.toArray(), [0, 1, 2]);
  assertEquals(await c.calls_make_when(-1, isOpen), null);
  t[Symbol.dispose]();
  assertEquals(counts().deleted - before.deleted, 1);
});

Deno.test("A nonblocking call takes tensors over and fills", async () => {
  assertEquals(
    await c.calls_consume_when(Tensor.from(new Float32Array([2, 3])), isOpen),
    5,
  );
  const out = new OutCapsule();
  const gate = new Int32Array(1);
  const call = c.calls_make_out_when(3, out, gate);
  assertBufferError(() => out.take(), "data", "await it first");
  assertBufferError(() => c.calls_make_out(3, out), "consumed");
  gate[0] = 1;
  assertEquals(await call, 0);
  using t = fromDlpack(out.take());
  assertEquals(t.shape, [3]);
});

Deno.test("A nonblocking call that is refused rejects, and takes nothing", async () => {
  using given = capsule(floats([3]));
  await assertRejects(
    // @ts-expect-error: the second is a buffer
    () => c.calls_consume_when(given, "5"),
    TypeError,
    'parameter 2 of "calls_consume_when"',
  );
  assertEquals(given.name, "dltensor_versioned");
  await assertRejects(
    // @ts-expect-error: the first is a Tensor
    () => c.calls_sum_when(null, isOpen),
    TypeError,
    "Cannot pass null",
  );
});

// ---- what is refused ----

Deno.test("What is no tensor is refused by name and number", () => {
  const before = counts().called;
  const cases: [unknown, string][] = [
    [null, "null"],
    [undefined, "undefined"],
    [5n, "5n"],
    ["x", '"x"'],
    [{}, "an object"],
    [() => 0, "a function"],
    [new Float32Array(1), "a Float32Array"],
    [Deno.UnsafePointer.of(new Uint8Array(1)), "a pointer"],
  ];
  for (const [value, shown] of cases) {
    const error = assertThrows(
      () => c.calls_sum(value as Tensor),
      TypeError,
    );
    assertStringIncludes(
      error.message,
      `Cannot pass ${shown} to parameter 1 of "calls_sum", a DLTensor*: it ` +
        "takes a Tensor or a DlpackCapsule",
    );
    assertThrows(
      () => c.calls_consume_legacy(value as Tensor),
      TypeError,
      "takes a Tensor or a DlpackCapsule",
    );
    assertThrows(
      () => c.calls_make_out(3, value as OutCapsule),
      TypeError,
      'parameter 2 of "calls_make_out", a DLManagedTensorVersioned**: it ' +
        "takes an OutCapsule",
    );
  }
  assertThrows(
    // @ts-expect-error: five arguments
    () => c.calls_sum_five(Tensor.from(new Float32Array(1))),
    TypeError,
    "Cannot pass undefined to parameter 2",
  );
  assertThrows(
    // @ts-expect-error: a typed array is no Tensor
    () => c.calls_sum(new Float32Array(1)),
    TypeError,
    "Tensor.from()",
  );
  assertEquals(counts().called, before);
});

Deno.test("What a callee could not use is refused", async (t) => {
  const calls: Record<string, (tensor: Tensor) => unknown> = {
    borrowed: (tensor) => c.calls_sum(tensor),
    "handed over": (tensor) => c.calls_consume(tensor, new Float64Array(1)),
    "handed over, legacy": (tensor) => c.calls_consume_legacy(tensor),
    nonblocking: (tensor) => c.calls_sum_when(tensor, isOpen),
  };
  const before = counts().called;
  for (const [name, call] of Object.entries(calls)) {
    const refused = async (tensor: Tensor, code: BufferError["code"]) => {
      try {
        await call(tensor);
      } catch (error) {
        assertInstanceOf(error, BufferError);
        assertEquals(error.code, code, error.message);
        return;
      }
      throw new Error("Nothing was thrown");
    };
    await t.step(`a disposed tensor, ${name}`, async () => {
      const own = Tensor.from(new Float32Array(2));
      await call(own);
      own[Symbol.dispose]();
      await refused(own, "released");
      const tensor = fromDlpack(c.calls_make(2)!);
      await call(tensor.slice());
      tensor[Symbol.dispose]();
      await refused(tensor, "released");
    });
    await t.step(`a detached ArrayBuffer, ${name}`, async () => {
      const data = new Float32Array(2);
      const tensor = Tensor.from(data);
      await call(tensor);
      structuredClone(data, { transfer: [data.buffer] });
      await refused(tensor, "released");
    });
    await t.step(`a resizable ArrayBuffer, ${name}`, async () => {
      const buffer = new ArrayBuffer(8, { maxByteLength: 16 });
      await refused(Tensor.from(new Float32Array(buffer)), "data");
      await call(Tensor.from(new Float32Array(buffer)).copy());
    });
    await t.step(`elements that start inside a byte, ${name}`, async () => {
      const nibbles = Tensor.from(new Uint8Array(2), [4], { dtype: "int4" });
      await refused(nibbles.slice([1]), "layout");
    });
  }
  await t.step("padded elements, where the struct cannot say so", () => {
    const padded = Tensor.from(new Uint8Array(2), [2], {
      dtype: "int4",
      padded: true,
    });
    assertBufferError(() => c.calls_sum(padded), "dtype");
    assertBufferError(() => c.calls_consume_legacy(padded), "dtype");
  });
  await t.step("a read-only tensor, as a legacy struct", () => {
    const data = new Float32Array(2);
    const readOnly = Tensor.from(data, [2], { readOnly: true });
    assertBufferError(() => c.calls_consume_legacy(readOnly), "readonly");
  });
  await t.step("a capsule that is used, of the other struct, or twice", () => {
    const sum = new Float64Array(1);
    const used = capsule(floats([3]));
    used[Symbol.dispose]();
    assertBufferError(() => c.calls_consume(used, sum), "consumed");
    using legacy = capsule(floats([3], { versioned: false }));
    assertBufferError(
      () => c.calls_consume(legacy, sum),
      "version",
      'it takes a "dltensor_versioned"',
    );
    using versioned = capsule(floats([3]));
    assertBufferError(() => c.calls_consume_legacy(versioned), "version");
    assertEquals(
      deletions(() => {
        assertBufferError(
          () => c.calls_consume_two(versioned, versioned),
          "consumed",
          'parameter 2 of "calls_consume_two"',
        );
      }),
      0,
    );
    assertEquals(versioned.name, "dltensor_versioned");
    assertEquals(legacy.name, "dltensor");
  });
  // Only the good calls got through: four, each with 2 + 1 + 1 tensors.
  assertEquals(counts().called - before, 16);
});

// ---- Deno's own ----

Deno.test("What has no type of DLPack's is called as Deno calls it", async () => {
  assertEquals(c.calls_version, 7);
  assertEquals(c.calls_no_such, null);
  assertEquals(c.calls_add(2, 3), 5);
  assertEquals(c.addition(2, 3), 5);
  assertEquals(await c.calls_add_when(2, 3, isOpen), 5);
  const pair = new DataView(new ArrayBuffer(16));
  pair.setFloat64(0, 4, true);
  pair.setInt32(8, 5, true);
  const swapped = c.calls_swap(pair);
  const view = new DataView(swapped.buffer);
  assertEquals([view.getFloat64(0, true), view.getInt32(8, true)], [5, 4]);
  const double = new Deno.UnsafeCallback(
    { parameters: ["i32"], result: "i32" },
    (x) => 2 * x,
  );
  assertEquals(c.calls_apply(double.pointer, 21), 42);
  double.close();
  assertThrows(
    // @ts-expect-error: text is no number
    () => c.calls_add("2", 3),
    TypeError,
    'Cannot pass "2" to parameter 1 of "calls_add", an i32',
  );
});

Deno.test("A function that was taken out of symbols knows that its library is closed", () => {
  const lib = dlopen(callsPath, {
    calls_add: { parameters: ["i32", "i32"], result: "i32" },
    calls_apply: { parameters: ["function", "i32"], result: "i32" },
  });
  const { calls_add, calls_apply } = lib.symbols;
  assertEquals(calls_add(2, 3), 5);
  const closing = new Deno.UnsafeCallback(
    { parameters: ["i32"], result: "i32" },
    (x) => {
      lib.close(); // its code stays until the call is over
      return x + 1;
    },
  );
  assertEquals(calls_apply(closing.pointer, 1), 2);
  closing.close();
  assertThrows(() => calls_add(2, 3), Error, "calls_add");
});

Deno.test("The compiler knows what goes in and comes out", () => {
  // Never called: only checked.
  const _types = async () => {
    const made: DlpackCapsule | null = c.calls_make(1);
    // @ts-expect-error: it may be null
    const _capsule: DlpackCapsule = c.calls_make(1);
    // @ts-expect-error: it is a promise
    const _late: DlpackCapsule = c.calls_make_when(1, isOpen);
    const _awaited: DlpackCapsule | null = await c.calls_make_when(1, isOpen);
    const sum: number = c.calls_sum(Tensor.from(new Float32Array(1)));
    const _optional: ((t: Tensor) => DlpackCapsule | null) | null =
      c.calls_no_such;
    // @ts-expect-error: an optional symbol may be null
    c.calls_no_such(Tensor.from(new Float32Array(1)));
    // @ts-expect-error: a number is no Tensor
    c.calls_sum(sum);
    // @ts-expect-error: nor is a pointer
    c.calls_sum(Deno.UnsafePointer.create(1n));
    // @ts-expect-error: one is missing
    c.calls_same(Tensor.from(new Float32Array(1)));
    // @ts-expect-error: one is too many
    c.calls_sum(Tensor.from(new Float32Array(1)), 1);
    // @ts-expect-error: a capsule is no OutCapsule
    c.calls_make_out(1, made!);
    // @ts-expect-error: an OutCapsule is no Tensor
    c.calls_consume(new OutCapsule(), new Float64Array(1));
    // @ts-expect-error: there is no such symbol
    c.calls_nothing();
    // @ts-expect-error: not to be replaced
    c.calls_sum = () => 0;
    // @ts-expect-error: a filled one is no result
    dlopen("x", { f: { parameters: [], result: "DLManagedTensor**" } });
    // @ts-expect-error: there is no such type
    dlopen("x", { f: { parameters: ["DLTensor"], result: "void" } });
  };
  assert(typeof _types === "function");
});

// ---- opening ----

Deno.test("A library is opened by path, URL, or URL in a string", () => {
  const table = {
    calls_add: { parameters: ["i32", "i32"], result: "i32" },
  } as const;
  const path = decodeURIComponent(callsPath.pathname).replace(
    /^\/(?=[A-Z]:)/,
    "",
  );
  for (const place of [callsPath, callsPath.href, path]) {
    using opened = dlopen(place, table);
    assertEquals(opened.symbols.calls_add(1, 2), 3);
  }
});

Deno.test({
  name: "A bare name is what the platform makes of it, or itself",
  ignore: Deno.build.os !== "linux",
  fn() {
    using math = dlopen("libm.so.6", {
      cos: { parameters: ["f64"], result: "f64" },
    });
    assertEquals(math.symbols.cos(0), 1);
    // LD_LIBRARY_PATH is read when a process starts.
    const directory = new URL(".", callsPath).pathname;
    const copy = `${directory}libnamed.so`;
    Deno.copyFileSync(callsPath, copy);
    const { success, stderr } = new Deno.Command(Deno.execPath(), {
      args: [
        "eval",
        `import { dlopen } from ${
          JSON.stringify(new URL("../mod.ts", import.meta.url).href)
        };
        for (const name of ["named", "libnamed"]) {
          using lib = dlopen(name, {
            calls_add: { parameters: ["i32", "i32"], result: "i32" },
          });
          if (lib.symbols.calls_add(1, 2) !== 3) Deno.exit(1);
        }`,
      ],
      env: { LD_LIBRARY_PATH: directory },
    }).outputSync();
    Deno.removeSync(copy);
    assert(success, new TextDecoder().decode(stderr));
  },
});

Deno.test("An error lists what was tried, why not, and the way out", () => {
  const bare = assertThrows(() => dlopen("no_such_library", {}), Error);
  const spelled = {
    windows: "no_such_library.dll",
    darwin: "libno_such" +
      "_library.dylib",
  }[Deno.build.os as string] ?? "libno_such_library.so";
  assertStringIncludes(
    bare.message,
    `Cannot open the library no_such_library: tried ${spelled} (`,
  );
  assertStringIncludes(bare.message, ", no_such_library (");
  assertStringIncludes(bare.message, "pass its path");
  assertInstanceOf(bare.cause, Error);
  assertStringIncludes(bare.cause.message, spelled);
  const path = assertThrows(() => dlopen("./no_such.so", {}), Error);
  assertStringIncludes(path.message, "tried ./no_such.so (");
  assert(!path.message.includes("tried ./no_such.so (Could"), path.message);
  assertStringIncludes(path.message, "import.meta.url");
  const url = new URL("./library_test.ts", import.meta.url);
  assertThrows(() => dlopen(url, {}), Error, `Cannot open the library ${url}`);
  assertThrows(
    () => dlopen("https://example.com/lib.so", {}),
    TypeError,
    "download it first",
  );
});

Deno.test("A symbol or a type that is not there is named", () => {
  const missing = assertThrows(
    () => dlopen(callsPath, { nope: { parameters: [], result: "void" } }),
    Error,
    'no symbol "nope"',
  );
  assertInstanceOf(missing.cause, Error);
  assertThrows(
    () =>
      dlopen(callsPath, {
        // @ts-expect-error: a type of DLPack's that is no result
        calls_make: { parameters: [], result: "DLTensor**" },
      }),
    TypeError,
    'The result of "calls_make" has the type "DLTensor**", which there is not',
  );
});

Deno.test("Without full permission, the error says what to do", () => {
  const { stderr, code } = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      `--allow-ffi=${decodeURIComponent(callsPath.pathname)}`,
      "--no-prompt",
      "--allow-import",
      new URL(
        `data:application/typescript,${
          encodeURIComponent(
            `import { dlopen } from ${
              JSON.stringify(new URL("../mod.ts", import.meta.url).href)
            }; dlopen("x", {});`,
          )
        }`,
      ).href,
    ],
    env: { NO_COLOR: "1" },
  }).outputSync();
  assertEquals(code, 1);
  assertStringIncludes(
    new TextDecoder().decode(stderr),
    "NotCapable: Cannot reach native memory without full FFI permission",
  );
});

// ---- closing ----

Deno.test("Close waits for the last tensor that came out", async (t) => {
  const cases: Record<
    string,
    (c: ReturnType<typeof openCalls>["lib"]["symbols"]) => Disposable
  > = {
    "a tensor": (c) => fromDlpack(c.calls_make(3)!),
    "a capsule": (c) => c.calls_make_legacy(3)!,
    "a view": (c) => fromDlpack(c.calls_make(3)!).slice([1]),
    "a capsule of a tensor": (c) => fromDlpack(c.calls_make(3)!).release(),
    "an OutCapsule": (c) => {
      const out = new OutCapsule();
      c.calls_make_out(3, out);
      return out;
    },
    "an export": (c) => {
      using tensor = fromDlpack(c.calls_make(3)!);
      return tensor.__dlpack__();
    },
  };
  for (const [name, make] of Object.entries(cases)) {
    await t.step(name, () => {
      const { lib, counts } = openCalls();
      const kept = make(lib.symbols);
      const other = lib.symbols.calls_make(1)!;
      lib.close();
      lib.close();
      other[Symbol.dispose]();
      assertEquals(counts().unloaded, false);
      if (kept instanceof Tensor) assertEquals(kept.get(-1), 2);
      kept[Symbol.dispose]();
      assertEquals(counts().deleted, counts().made);
      assertEquals(counts().unloaded, true);
    });
  }
  await t.step("a tensor that is garbage", async () => {
    const { lib, counts } = openCalls();
    (() => {
      fromDlpack(lib.symbols.calls_make(3)!);
    })();
    lib.close();
    assertEquals(counts().unloaded, false);
    await collectGarbage();
    assertEquals(counts().deleted, 1);
    assertEquals(counts().unloaded, true);
  });
  await t.step("nothing: at once, at the end of using", () => {
    const { lib, counts } = openCalls();
    {
      using opened = lib;
      fromDlpack(opened.symbols.calls_make(3)!)[Symbol.dispose]();
      assertEquals(counts().unloaded, false);
    }
    assertEquals(counts().unloaded, true);
    lib[Symbol.dispose]();
  });
});

Deno.test({
  name: "A tensor keeps its library open that another took over",
  // For good: nobody tells when the other one is done with it.
  sanitizeResources: false,
  fn() {
    const { lib, counts: countsOf } = openCalls();
    c.calls_keep(lib.symbols.calls_make(3)!);
    lib.close();
    assertEquals(countsOf().unloaded, false);
    c.calls_drop(); // into code of the library that was closed
    assertEquals(countsOf().deleted, 1);
  },
});

Deno.test("Close waits for nonblocking calls", async (t) => {
  await t.step("with tensors lent, and results", async () => {
    const { lib, counts } = openCalls();
    const tensor = fromDlpack(lib.symbols.calls_make(4)!);
    const gates = [0, 1, 2].map(() => new Int32Array(1));
    const sum = lib.symbols.calls_sum_when(tensor, gates[0]!);
    const made = lib.symbols.calls_make_when(2, gates[1]!);
    const plain = lib.symbols.calls_add_when(1, 2, gates[2]!);
    tensor[Symbol.dispose]();
    lib.close();
    gates[1]![0] = 1;
    const result = fromDlpack((await made)!);
    assertEquals(result.toArray(), [0, 1]);
    result[Symbol.dispose]();
    gates[0]![0] = 1;
    assertEquals(await sum, 6);
    assertEquals(counts().unloaded, false);
    gates[2]![0] = 1;
    assertEquals(await plain, 3);
    assertEquals(counts().deleted, 2);
    assertEquals(counts().unloaded, true);
  });
  await t.step("many at once, closed meanwhile", async () => {
    const { lib, counts } = openCalls();
    const gate = new Int32Array(1);
    const calls = Array.from(
      { length: 20 },
      (_, i) => lib.symbols.calls_make_when(i, i % 2 === 0 ? isOpen : gate),
    );
    await calls[0];
    lib.close();
    gate[0] = 1;
    for (const [i, call] of calls.entries()) {
      using t = fromDlpack((await call)!);
      assertEquals(t.size, i);
    }
    assertEquals(counts().deleted, 20);
    assertEquals(counts().unloaded, true);
  });
});

Deno.test("A callback may close the library that calls it", () => {
  const { lib, counts } = openCalls();
  const close = callback(() => lib.close());
  const t = Tensor.from(new Float32Array([1, 2]));
  assertEquals(lib.symbols.calls_sum_after(t, close.pointer), 3);
  assertEquals(counts().unloaded, true);
  close.close();
});

Deno.test("A closed library's symbols throw, by name", async () => {
  const { lib } = openCalls();
  const { calls_sum, calls_make, calls_consume_legacy, calls_add_when } =
    lib.symbols;
  const t = Tensor.from(new Float32Array(1));
  lib.close();
  const closed = (run: () => unknown, symbol: string) =>
    assertThrows(run, Deno.errors.BadResource, `Cannot call "${symbol}" of `);
  closed(() => lib.symbols.calls_add(1, 2), "calls_add");
  closed(() => lib.symbols.addition(1, 2), "addition");
  closed(() => lib.symbols.calls_sum(t), "calls_sum");
  closed(() => calls_sum(t), "calls_sum");
  closed(() => calls_make(1), "calls_make");
  closed(() => calls_consume_legacy(t), "calls_consume_legacy");
  await assertRejects(
    () => calls_add_when(1, 2, isOpen),
    Deno.errors.BadResource,
  );
  assertEquals(lib.symbols.calls_version, 7);
  assertStrictEquals(lib.symbols.calls_no_such, null);
  assertNotEquals(lib.symbols.calls_sum, calls_sum);
});
