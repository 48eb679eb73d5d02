import {
  BufferError,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  testBothPaths,
} from "./helpers.ts";
import { counts, fixture } from "./native/fixture.ts";

/** Starts a count of deleter calls; each call of the result gives it. */
function deleterCalls(): () => number {
  const before = counts();
  return () => {
    assertEquals(counts().double, before.double);
    return counts().deleted - before.deleted;
  };
}

testBothPaths("A tensor is released at the end of using", () => {
  const before = liveTensors();
  assertEquals(
    deletions(() => {
      using t = importFixture(floats([2, 3]));
      assertEquals(liveTensors().count - before.count, 1);
      assertEquals(liveTensors().bytes - before.bytes, 24);
      assertEquals(t.get(1, 2), 5);
    }),
    1,
  );
  assertEquals(liveTensors(), before);
});

testBothPaths("A tensor is released when it is garbage", async () => {
  const before = liveTensors();
  const deleted = deleterCalls();
  (() => {
    importFixture(floats([2, 3]));
    bytesOf(importFixture(floats([2, 3])).data).fill(1);
    importFixture(floats([2, 3])).slice(0).transpose();
    capsule(floats([2, 3], { versioned: false }));
  })();
  await collectGarbage();
  assertEquals(deleted(), 4);
  assertEquals(liveTensors(), before);
});

Deno.test("A view, an array or a subarray alone keeps the memory", async (t) => {
  const keepers: Record<string, (t: Tensor) => unknown> = {
    view: (t) => t.slice(1),
    "view of a view": (t) => t.transpose().slice(1),
    data: (t) => t.data,
    buffer: (t) => t.data.buffer,
    subarray: (t) => t.data.subarray(1, 2),
    "array over the buffer": (t) => new Uint8Array(t.data.buffer, 4),
    "iterator's view": (t) => [...t][0],
  };
  for (const [name, keep] of Object.entries(keepers)) {
    await t.step(name, async () => {
      const deleted = deleterCalls();
      const kept: unknown[] = [];
      (() => {
        kept.push(keep(importFixture(floats([2, 3]))));
      })();
      await collectGarbage();
      assertEquals(deleted(), 0);
      assert(kept.length === 1);
      kept.pop();
      await collectGarbage();
      assertEquals(deleted(), 1);
    });
  }
});

testBothPaths("Disposing empties every view, once", async () => {
  const deleted = deleterCalls();
  const t = importFixture(floats([2, 3]));
  const { data } = t;
  const row = t.slice(1);
  const bytes = new Uint8Array(data.buffer);
  row[Symbol.dispose]();
  assertEquals(deleted(), 1);
  assertEquals([data.length, bytes.length, data.buffer.byteLength], [0, 0, 0]);
  t[Symbol.dispose]();
  row[Symbol.dispose]();
  for (const view of [t, row]) {
    assertBufferError(() => view.data, "released");
    assertBufferError(() => view.release(), "released");
  }
  await collectGarbage();
  assertEquals(deleted(), 1);
});

testBothPaths("release() hands the tensor on, unconsumed", async () => {
  const before = liveTensors();
  const deleted = deleterCalls();
  const t = importFixture(floats([2, 3]));
  const { data } = t;
  const again = t.release();
  assertEquals([again.name, deleted()], ["dltensor_versioned", 0]);
  assertEquals(data.length, 0);
  assertBufferError(() => t.data, "released");
  t[Symbol.dispose]();
  assertEquals(deleted(), 0);
  const second = fromDlpack(again);
  assertEquals(second.toArray(), [[0, 1, 2], [3, 4, 5]]);
  second[Symbol.dispose]();
  assertEquals(deleted(), 1);
  await collectGarbage();
  assertEquals(deleted(), 1);
  assertEquals(liveTensors(), before);
});

Deno.test("Who is told of a transfer may release and import others", async () => {
  const before = liveTensors();
  const lost = importFixture(floats([2]));
  const [first, last] = [
    importFixture(floats([3])),
    importFixture(floats([4])),
  ];
  let made: Tensor | undefined;
  const { warn } = console;
  console.warn = () => {
    made = importFixture(floats([5]));
    first[Symbol.dispose]();
    last[Symbol.dispose]();
  };
  try {
    const deleted = deleterCalls();
    lost.data.buffer.transfer();
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(deleted(), 2);
  } finally {
    console.warn = warn;
  }
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(deletions(() => made![Symbol.dispose]()), 1);
  assertEquals(liveTensors(), before);
});

testBothPaths(
  "A bad struct is let go once, however often it is looked at",
  async () => {
    const before = liveTensors();
    const bad = new DlpackCapsule(
      Deno.UnsafePointer.of(new Uint8Array(128)),
      "dltensor_versioned",
    );
    const kept = [importFixture(floats([2])), importFixture(floats([3]))];
    await new Promise((resolve) => setTimeout(resolve));
    for (let i = 0; i < 3; i++) {
      assertBufferError(() => bad.__dlpack_device__(), "version");
    }
    assertBufferError(() => fromDlpack(bad), "version");
    assertEquals(liveTensors().count - before.count, 2);
    assertEquals(deletions(() => kept.forEach((t) => t[Symbol.dispose]())), 2);
    assertEquals(liveTensors(), before);
  },
);

Deno.test("release() is for imported tensors that nobody else uses", () => {
  const own = Tensor.from(new Float32Array(2));
  assertBufferError(() => own.release(), "data", "__dlpack__()");
  assertEquals(
    deletions(() => {
      using t = importFixture(floats([2]));
      const exported = t.__dlpack__({ maxVersion: [1, 0] });
      assertBufferError(
        () => t.release(),
        "consumed",
        "while 1 export, call or hold uses",
      );
      assertEquals(t.get(1), 1, "it is as it was");
      exported[Symbol.dispose]();
      t.release()[Symbol.dispose]();
    }),
    1,
  );
});

testBothPaths("An export outlives the tensor it was made of", async () => {
  const deleted = deleterCalls();
  const exported: DlpackCapsule[] = [];
  await (async () => {
    const t = importFixture(floats([2, 3]));
    exported.push(t.slice(1).__dlpack__({ maxVersion: [1, 0] }));
    t[Symbol.dispose]();
    assertBufferError(() => t.data, "released");
    exported.push(importFixture(floats([2, 3])).__dlpack__());
    await collectGarbage();
  })();
  await collectGarbage();
  assertEquals(deleted(), 0);
  const [row, all] = exported.map((capsule) => fromDlpack(capsule));
  assertEquals(row!.toArray(), [3, 4, 5]);
  assertEquals(all!.toArray(), [[0, 1, 2], [3, 4, 5]]);
  row![Symbol.dispose]();
  assertEquals(deleted(), 1);
  all![Symbol.dispose]();
  exported.length = 0;
  await collectGarbage();
  assertEquals(deleted(), 2);
});

Deno.test("JavaScript's memory lives until its consumer is done", async () => {
  const exported: DlpackCapsule[] = [];
  const collected: string[] = [];
  const registry = new FinalizationRegistry<string>((name) => {
    collected.push(name);
  });
  (() => {
    const data = Float32Array.from({ length: 1000 }, (_, i) => i);
    registry.register(data.buffer, "buffer");
    exported.push(Tensor.from(data).__dlpack__({ maxVersion: [1, 0] }));
  })();
  await collectGarbage();
  const t = fromDlpack(exported.pop()!);
  assertEquals(t.get(999), 999);
  assertEquals(collected, []);
  t[Symbol.dispose]();
  await collectGarbage();
  assertEquals(collected, ["buffer"]);
});

testBothPaths("A copied export is freed by the consumer alone", () => {
  const t = Tensor.from(Float32Array.of(1, 2, 3, 4), [2, 2]).transpose();
  for (const maxVersion of [[1, 0], null] as const) {
    const before = liveTensors();
    using copied = fromDlpack(t.__dlpack__({ maxVersion, copy: true }));
    assertEquals(copied.toArray(), [[1, 3], [2, 4]]);
    assertEquals(copied.strides, [2, 1]);
    t.data[0] = 100;
    assertEquals(copied.get(0, 0), 1);
    t.data[0] = 1;
    copied[Symbol.dispose]();
    assertEquals(liveTensors(), before);
  }
});

Deno.test("A buffer that was transferred by hand is noticed and never freed", () => {
  const { warn } = console;
  const warnings: string[] = [];
  console.warn = (message) => warnings.push(message);
  try {
    const before = liveTensors();
    assertEquals(
      deletions(() => {
        const t = importFixture(floats([2, 3], { place: "heap" }));
        const moved = t.data.buffer.transfer();
        assertBufferError(() => t.get(0, 0), "released", "release().take()");
        t[Symbol.dispose]();
        t[Symbol.dispose]();
        assertEquals([...new Float32Array(moved)], [0, 1, 2, 3, 4, 5]);
      }),
      0,
    );
    assertEquals(warnings.length, 1);
    assert(warnings[0]?.includes("24 bytes will never be freed"));
    assertEquals(liveTensors(), before);
  } finally {
    console.warn = warn;
  }
});

Deno.test("A buffer that was transferred at once is noticed though all is garbage", async () => {
  const { warn } = console;
  const warnings: string[] = [];
  console.warn = (message) => warnings.push(message);
  try {
    const before = liveTensors();
    const deleted = deleterCalls();
    const moved = (() => {
      const { buffer } = importFixture(floats([2], { place: "heap" })).data;
      return structuredClone(buffer, { transfer: [buffer] });
    })();
    await collectGarbage();
    assertEquals([...new Float32Array(moved)], [0, 1]);
    assertEquals([deleted(), warnings.length], [0, 1]);
    assertEquals(liveTensors(), before);
  } finally {
    console.warn = warn;
  }
});

Deno.test("A deleter may free and poison everything", async () => {
  const deleted = deleterCalls();
  const t = importFixture(floats([2, 3], { deleter: "poison" }));
  const copy = t.copy();
  t[Symbol.dispose]();
  assertEquals(copy.toArray(), [[0, 1, 2], [3, 4, 5]]);
  assertEquals(t.shape, [2, 3]);
  assertEquals(Deno.inspect(t).includes("released"), true);
  await collectGarbage();
  assertEquals(deleted(), 1);
});

testBothPaths("A deleter may call back into JavaScript", () => {
  let inner = 0;
  const callback = new Deno.UnsafeCallback(
    { parameters: ["pointer"], result: "void" },
    () => {
      using t = importFixture(floats([3]));
      inner += t.copy().data.length;
    },
  );
  fixture.fx_set_callback(callback.pointer);
  assertEquals(
    deletions(() => {
      importFixture(floats([2], { deleter: "callback" }))[Symbol.dispose]();
      importFixture(floats([2], { deleter: "callback" }), { copy: true });
    }),
    4,
  );
  assertEquals(inner, 6);
  callback.close();
});

testBothPaths(
  "A deleter that throws during collection is reported, and no more",
  async () => {
    const { error } = console;
    const reported: unknown[][] = [];
    console.error = (...args) => reported.push(args);
    const callback = new Deno.UnsafeCallback(
      { parameters: ["pointer"], result: "void" },
      () => {
        throw new Error("It threw");
      },
    );
    fixture.fx_set_callback(callback.pointer);
    const deleted = deleterCalls();
    try {
      (() => {
        for (let i = 0; i < 3; i++) {
          importFixture(floats([2], { deleter: "callback" }));
          importFixture(floats([2]));
        }
      })();
      await collectGarbage();
    } finally {
      console.error = error;
      callback.close();
    }
    assertEquals(deleted(), 6);
    assertEquals(reported.length, 3);
    assertEquals((reported[0]![1] as Error).message, "It threw");
  },
);

testBothPaths(
  "A slow deleter runs once, and what waits runs after it",
  async () => {
    const deleted = deleterCalls();
    (() => {
      importFixture(floats([2], { deleter: "slow" }));
      importFixture(floats([2]));
    })();
    await collectGarbage();
    assertEquals(deleted(), 2);
    const before = performance.now();
    importFixture(floats([2], { deleter: "slow" }))[Symbol.dispose]();
    assert(performance.now() - before >= 99, "dispose waits for the deleter");
  },
);

testBothPaths(
  "Any order of disposing, any number of times, is one deleter call",
  () => {
    const random = mulberry32(1);
    const actions: ((t: Tensor, all: Disposable[]) => void)[] = [
      (t, all) => all.push(t.slice(0)),
      (t, all) => all.push(t.transpose()),
      (t) => t.data,
      (t) => t[Symbol.dispose](),
      (t, all) => all.push(t.__dlpack__({ maxVersion: [1, 0] })),
      (t, all) => all.push(fromDlpack(t)),
      (t, all) => all.push(t.copy()),
      (t, all) => all.push(t.release()),
      (_t, all) => all[Math.floor(random() * all.length)]?.[Symbol.dispose](),
    ];
    for (let round = 0; round < 500; round++) {
      const deleted = deleterCalls();
      const all: Disposable[] = [];
      const t = importFixture(floats([2, 3], { versioned: round % 2 === 0 }));
      for (let step = 0; step < 8; step++) {
        try {
          actions[Math.floor(random() * actions.length)]!(t, all);
        } catch (error) {
          assert(error instanceof BufferError, String(error));
        }
      }
      assert(deleted() <= 1);
      all.push(t);
      all.sort(() => random() - 0.5);
      for (const each of [...all, ...all]) each[Symbol.dispose]();
      assertEquals(deleted(), 1);
    }
  },
);

/** A small random number generator with a seed. */
function mulberry32(seed: number): () => number {
  return () => {
    seed = seed + 0x6d2b79f5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
}
