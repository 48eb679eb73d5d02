/** Tensors handed to a consumer in C, which looks at every field and element. */

import {
  type DlpackCapsule,
  type DlpackRequest,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  runScript,
  testBothPaths,
} from "./helpers.ts";
import { Consumer } from "./native/consumer.ts";
import { counts, fixture } from "./native/fixture.ts";

type Version = readonly [major: number, minor: number];

const READ_ONLY = 1, IS_COPIED = 2, PADDED = 4;
const legacy: DlpackRequest = {};
const versioned: DlpackRequest = { maxVersion: [1, 3] };
const kinds = { "dltensor": legacy, "dltensor_versioned": versioned };

/** Where a typed array is. */
function addressOf(array: ArrayBufferView): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytesOf(array)));
}

/** The numbers 0, 1, 2, … */
function iota(length: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => i);
}

/** Hands a tensor to a consumer, runs a check, and lets the consumer delete. */
function consume(
  capsule: DlpackCapsule,
  check: (consumer: Consumer) => void,
): void {
  const consumer = new Consumer(capsule);
  check(consumer);
  consumer.delete();
}

/** Elements of some bits in so many bytes as they have, packed from the lowest bit. */
function pack(elements: Uint8Array, bits: number): Uint8Array<ArrayBuffer> {
  const packed = new Uint8Array(Math.ceil(elements.length * bits / 8));
  for (let bit = 0; bit < elements.length * bits; bit++) {
    const value = elements[Math.floor(bit / bits)]! >> bit % bits & 1;
    packed[bit >> 3]! |= value << bit % 8;
  }
  return packed;
}

// --- What the struct says ----------------------------------------------------

for (const dtype of dtypeNames) {
  const info = dtypeByName(dtype)!;
  const { code, bits } = info;
  const size = 24;
  const shape = [2, 3, 4];
  const raw = Uint8Array.from(
    { length: size * Math.ceil(bits / 8) },
    (_, i) => (i * 37 + 11) & (bits < 8 ? (1 << bits) - 1 : 255),
  );
  for (const padded of bits < 8 ? [false, true] : [false]) {
    for (const [name, request] of Object.entries(kinds)) {
      // What a legacy struct cannot say.
      if ((padded || dtype === "uint1") && request === legacy) continue;
      Deno.test(`${padded ? "Padded" : "A"} ${dtype} arrives as ${name}`, () => {
        const memory = bits < 8 && !padded ? pack(raw, bits) : raw.slice();
        const data = new info.array(memory.buffer);
        const t = Tensor.from<TypedArray, DType>(data, shape, {
          dtype,
          padded,
        });
        consume(t.__dlpack__(request), (consumer) => {
          const { managerCtx: _, deleter, version, ...struct } =
            consumer.struct;
          assertEquals(struct, {
            flags: padded ? PADDED : 0,
            data: addressOf(memory),
            device: [1, 0],
            dtype: [code, bits, 1],
            byteOffset: 0,
            shape,
            strides: [12, 4, 1],
          });
          assertEquals(version?.[0], request === legacy ? undefined : 1);
          assert(deleter !== 0n);
          assertEquals(consumer.read(new Uint8Array(raw.length)), raw);
          raw.reverse();
          consumer.write(raw);
          const written = bits < 8 && !padded ? pack(raw, bits) : raw;
          assertEquals(memory, written, "what C writes is in JavaScript");
        });
      });
    }
  }
}

/** A tensor to make views of, and the address of its element 0. */
const memories: Record<string, () => { base: Tensor; address: bigint }> = {
  "JavaScript's memory": () => {
    const data = iota(24);
    return { base: Tensor.from(data, [4, 6]), address: addressOf(data) };
  },
  "an import": () => {
    const imported = capsule(floats([4, 6]));
    const address = fixture.fx_data_address(imported.pointer);
    return { base: fromDlpack(imported), address };
  },
};
const views: Record<
  string,
  [(t: Tensor) => Tensor, start: number, shape: number[], strides: number[]]
> = {
  all: [(t) => t, 0, [4, 6], [6, 1]],
  "a row": [(t) => t.slice(2), 12, [6], [1]],
  "a column": [(t) => t.slice(null, 1), 1, [4], [6]],
  "a part": [(t) => t.slice([1, 3], [2, 5]), 8, [2, 3], [6, 1]],
  "every other row, backwards": [
    (t) => t.slice([null, null, -2], [null, null, -1]),
    23,
    [2, 6],
    [-12, -1],
  ],
  "the transpose": [(t) => t.transpose(), 0, [6, 4], [1, 6]],
  "a reshaped view": [(t) => t.reshape([2, 2, 6]), 0, [2, 2, 6], [12, 6, 1]],
  "a view of a view": [
    (t) => t.transpose().slice([1, null, 2]).slice(1),
    3,
    [4],
    [6],
  ],
  "an element": [(t) => t.slice(3, -1), 23, [], []],
};
for (const [memory, make] of Object.entries(memories)) {
  for (const [view, [cut, start, shape, strides]] of Object.entries(views)) {
    for (const [name, request] of Object.entries(kinds)) {
      Deno.test(`Of ${memory}, ${view} arrives as ${name}`, () => {
        const { base, address } = make();
        const t = cut(fromDlpack(base));
        consume(t.__dlpack__(request), (consumer) => {
          const { struct } = consumer;
          assertEquals(struct.data, address + 4n * BigInt(start));
          assertEquals(struct.byteOffset, 0);
          assertEquals(struct.shape, shape.length === 0 ? null : shape);
          assertEquals(struct.strides, shape.length === 0 ? null : strides);

          const values = [t.toArray()].flat(9) as number[];
          assertEquals(values[0], start);
          const read = consumer.read(new Float32Array(values.length));
          assertEquals([...read], values);
          consumer.write(read.map((value) => -value - 1));
          for (let i = 0; i < 24; i++) {
            const seen = base.get(Math.floor(i / 6), i % 6);
            assertEquals(seen, values.includes(i) ? -i - 1 : i);
          }
        });
        t[Symbol.dispose]();
        base[Symbol.dispose]();
      });
    }
  }
}

Deno.test("Strides of 0 and an offset arrive as they are", () => {
  const data = iota(8);
  const t = Tensor.from(data, [2, 3], { strides: [0, -2], offset: 6 });
  consume(t.__dlpack__(versioned), (consumer) => {
    assertEquals(consumer.struct.data, addressOf(data) + 24n);
    assertEquals(consumer.struct.strides, [0, -2]);
    const values = consumer.read(new Float32Array(6));
    assertEquals([...values], [6, 4, 2, 6, 4, 2]);
  });
});

Deno.test("Strides, offset and byte offset of an import arrive in data", () => {
  const imported = capsule(floats([8], {
    shape: [2, 3],
    strides: [0, -2],
    origin: 16,
    byteOffset: 8,
  }));
  const address = fixture.fx_data_address(imported.pointer);
  using t = fromDlpack(imported);
  consume(t.__dlpack__(versioned), (consumer) => {
    assertEquals(consumer.struct.data, address + 24n);
    assertEquals(consumer.struct.byteOffset, 0);
    assertEquals(consumer.struct.strides, [0, -2]);
    const values = consumer.read(new Float32Array(6));
    assertEquals([...values], [6, 4, 2, 6, 4, 2]);
  });
});

Deno.test("An array inside of a larger buffer arrives where it is", () => {
  const all = iota(10);
  const part = all.subarray(3, 7);
  consume(Tensor.from(part).__dlpack__(), (consumer) => {
    assertEquals(consumer.struct.data, addressOf(all) + 12n);
    assertEquals([...consumer.read(new Float32Array(4))], [3, 4, 5, 6]);
  });
});

testBothPaths("What is empty arrives with data NULL", () => {
  for (const shape of [[0], [2, 0, 3]]) {
    const empty = [
      Tensor.from(new Float32Array(0), shape),
      Tensor.from(iota(6), shape, { offset: 0 }),
      importFixture(floats(shape, { nullData: true })),
      importFixture(floats([2, 3])).slice([2, null]),
    ];
    for (const t of empty) {
      for (const copy of [null, true]) {
        consume(t.__dlpack__({ ...versioned, copy }), (consumer) => {
          assertEquals(consumer.struct.data, 0n);
          assertEquals(consumer.struct.byteOffset, 0);
          assertEquals(consumer.struct.shape, t.shape);
          assertEquals(consumer.struct.strides?.length, t.ndim);
        });
      }
      t[Symbol.dispose]();
    }
  }
});

Deno.test("64 axes arrive", () => {
  const shape = Array.from({ length: 64 }, (_, axis) => axis < 2 ? 2 : 1);
  consume(Tensor.from(iota(4), shape).__dlpack__(), (consumer) => {
    assertEquals(consumer.struct.shape, shape);
    assertEquals([...consumer.read(new Float32Array(4))], [0, 1, 2, 3]);
  });
});

Deno.test("Packed elements arrive where their byte is", () => {
  const memory = Uint8Array.of(0x10, 0x32, 0x54, 0x76);
  const t = Tensor.from(memory, [8], { dtype: "uint4" });
  const cases: [Tensor, bigint, number[]][] = [
    [t.slice([2, null]), 1n, [2, 3, 4, 5, 6, 7]],
    [t.slice([4, null, -1]), 2n, [4, 3, 2, 1, 0]],
    [t.slice([null, null, 3]), 0n, [0, 3, 6]],
  ];
  for (const [view, byte, values] of cases) {
    consume(view.__dlpack__(versioned), (consumer) => {
      assertEquals(consumer.struct.data, addressOf(memory) + byte);
      const read = consumer.read(new Uint8Array(values.length));
      assertEquals([...read], values);
    });
  }
  consume(
    t.slice([1, 4]).__dlpack__({ ...versioned, copy: true }),
    (consumer) => {
      assertEquals([...consumer.read(new Uint8Array(3))], [1, 2, 3]);
    },
  );
});

const maxVersions: [Version | null | undefined, boolean][] = [
  [undefined, false],
  [null, false],
  [[0, 0], false],
  [[0, 8], false],
  [[1, 0], true],
  [[1, 3], true],
  [[2, 0], true],
  [[100, 3], true],
];
for (const [maxVersion, isVersioned] of maxVersions) {
  for (const copy of [null, true]) {
    const asked = `${maxVersion}${copy ? " and a copy" : ""}`;
    Deno.test(`maxVersion ${asked} gets ${isVersioned ? "versioned" : "legacy"}`, () => {
      const request = maxVersion === undefined
        ? { copy }
        : { maxVersion, copy };
      const exported = Tensor.from(iota(3)).__dlpack__(request);
      assertEquals(
        exported.name,
        isVersioned ? "dltensor_versioned" : "dltensor",
      );
      consume(exported, (consumer) => {
        const { version } = consumer.struct;
        assertEquals(version === null, !isVersioned);
        if (version !== null) assertEquals(version[0], 1);
        assertEquals([...consumer.read(new Float32Array(3))], [0, 1, 2]);
      });
    });
  }
}

Deno.test("Read-only is said by a versioned struct, and no other is given", () => {
  const readOnly = [
    Tensor.from(iota(4), [4], { readOnly: true }),
    Tensor.from(iota(4), [4], { readOnly: true }).slice([1, null]),
    importFixture(floats([4], { flags: READ_ONLY })),
    importFixture(floats([4], { versioned: false })),
  ];
  for (const t of readOnly) {
    consume(t.__dlpack__(versioned), (consumer) => {
      assertEquals(consumer.struct.flags, READ_ONLY);
    });
    assertBufferError(() => t.__dlpack__(), "readonly", "ask for maxVersion");
    assertBufferError(() => t.__dlpack__({ maxVersion: [0, 8] }), "readonly");
    consume(t.__dlpack__({ ...versioned, copy: true }), (consumer) => {
      assertEquals(consumer.struct.flags, IS_COPIED);
    });
    consume(t.__dlpack__({ copy: true }), (consumer) => {
      assertEquals(consumer.read(new Float32Array(t.size)).at(-1), 3);
    });
    t[Symbol.dispose]();
  }
});

Deno.test("Strides that no element takes are told as C order has them", () => {
  const column = Tensor.from(iota(4), [4, 1]);
  for (
    const [t, strides] of [
      [column.transpose(), [4, 1]],
      [column.slice([null, null, -1]), [-1, 1]],
      [importFixture(floats([1, 3], { strides: [7, 1] })), [3, 1]],
      [importFixture(floats([1], { strides: [-5] })), [1]],
    ] as const
  ) {
    for (const copy of [null, true]) {
      consume(t.__dlpack__({ ...versioned, copy }), (consumer) => {
        const { strides: told } = consumer.struct;
        assertEquals(told, copy ? t.copy().strides : strides);
      });
    }
  }
});

Deno.test("A legacy struct of uint1 would mean a bool in a byte: it is refused", () => {
  const t = Tensor.from(new Uint8Array([0b101]), [3], { dtype: "uint1" });
  assertBufferError(() => t.__dlpack__(), "dtype", 'export astype("bool")');
  assertBufferError(() => t.__dlpack__({ copy: true }), "dtype");
  using bools = fromDlpack(t.astype("bool").__dlpack__());
  assertEquals(bools.toArray(), [true, false, true]);
});

Deno.test("Flags of an import are passed on: only those that stay true", () => {
  const spec = { dtype: [0, 4, 1], shape: [2], nbytes: 2 } as const;
  using t = importFixture({ ...spec, flags: PADDED | IS_COPIED | 256 });
  for (const copy of [null, true]) {
    consume(t.__dlpack__({ ...versioned, copy }), (consumer) => {
      assertEquals(consumer.struct.flags, PADDED | (copy ? IS_COPIED : 0));
    });
  }
});

Deno.test("An import keeps its device, a copy is on the CPU", () => {
  for (const device of [[1, 5], [3, 0], [11, 1], [13, 2]] as const) {
    using t = importFixture(floats([2], { device }));
    for (const dlDevice of [undefined, null, device, [1, 0]] as const) {
      const request = dlDevice === undefined
        ? versioned
        : { ...versioned, dlDevice };
      consume(t.slice([1, null]).__dlpack__(request), (consumer) => {
        // Memory that the CPU reads is its own where that is asked for.
        assertEquals(consumer.struct.device, dlDevice ?? device);
      });
    }
    consume(t.__dlpack__({ ...versioned, copy: true }), (consumer) => {
      assertEquals(consumer.struct.device, [1, 0]);
    });
  }
});

// --- Copies ------------------------------------------------------------------

testBothPaths("A copied export is the consumer's alone, in C order", () => {
  const data = iota(24);
  const sources = [
    Tensor.from(data, [4, 6]),
    importFixture(floats([4, 6])),
  ];
  for (const source of sources) {
    const t = source.slice([null, null, -2]).transpose();
    const values = (t.toArray() as number[][]).flat();
    for (const request of [legacy, versioned]) {
      consume(t.__dlpack__({ ...request, copy: true }), (consumer) => {
        const { struct } = consumer;
        assertEquals(struct.flags, request === legacy ? 0 : IS_COPIED);
        assertEquals([struct.shape, struct.strides], [[6, 2], [2, 1]]);
        const read = consumer.read(new Float32Array(12));
        assertEquals([...read], values);
        consumer.write(read.fill(-1));
        assertEquals((t.toArray() as number[][]).flat(), values);
      });
    }
    source[Symbol.dispose]();
  }
});

testBothPaths("What lies in order is copied from any kind of buffer", () => {
  const bytes = Uint8Array.from({ length: 64 }, (_, i) => i * 5);
  const buffers = [
    new ArrayBuffer(64),
    new ArrayBuffer(64, { maxByteLength: 128 }),
    new SharedArrayBuffer(64),
    new WebAssembly.Memory({ initial: 1 }).buffer,
  ];
  const arrays = new Set(dtypeNames.map((name) => dtypeByName(name)!.array));
  for (const buffer of buffers) {
    new Uint8Array(buffer).set(bytes);
    for (const array of arrays) {
      const width = array.BYTES_PER_ELEMENT;
      const t: Tensor = Tensor.from(new array(buffer, 0, 64 / width));
      for (
        const [from, to] of [[0, t.size], [1, t.size - 1], [2, 2]] as const
      ) {
        const part = t.slice([from, to]).__dlpack__({ copy: true });
        consume(part, (consumer) => {
          const expected = bytes.slice(from * width, to * width);
          const read = consumer.read(new Uint8Array(expected.length));
          assertEquals(read, expected, `${array.name} from ${from} to ${to}`);
        });
      }
    }
  }
});

testBothPaths("A copied export needs its source no longer", async () => {
  let consumer!: Consumer;
  const deleted = deletions(() => {
    const t = importFixture(floats([1000]));
    consumer = new Consumer(t.__dlpack__({ ...versioned, copy: true }));
    t[Symbol.dispose]();
  });
  assertEquals(deleted, 1);
  await collectGarbage();
  assertEquals(consumer.read(new Float32Array(1000)), iota(1000));
  consumer.delete();
});

Deno.test("A copied export is aligned to 64 bytes whatever its axes", () => {
  const dtypes = ["uint8", "float16", "float64", "complex128"] as const;
  for (const dtype of dtypes) {
    for (let ndim = 0; ndim < 10; ndim++) {
      const t = Tensor.from(iota(1), Array(ndim).fill(1)).astype(dtype);
      for (const request of [legacy, versioned]) {
        consume(t.__dlpack__({ ...request, copy: true }), (consumer) => {
          assertEquals(consumer.struct.data % 64n, 0n);
        });
      }
    }
  }
});

Deno.test("A copied export is freed from any thread, JavaScript not involved", () => {
  const { gc } = globalThis as { gc?: () => void };
  const t = Tensor.from(new Uint8Array(4 << 20));
  const copies = (count: number): number => {
    for (let i = 0; i < count; i++) {
      for (const request of Object.values(kinds)) {
        const consumer = new Consumer(t.__dlpack__({ ...request, copy: true }));
        // This thread waits in C: a deleter in JavaScript would wait for ever.
        consumer.deleteFromThread();
      }
      gc!(); // what JavaScript used to make the copies
    }
    return Deno.memoryUsage().rss;
  };
  const before = copies(2);
  const grown = copies(14) - before;
  // 112 MiB in all, half of them of each kind.
  assert(grown < 40 << 20, `${grown} bytes were not freed`);
});

// --- Lifetime of shared memory -----------------------------------------------

/** How a consumer calls the deleter in the end. */
const deletes: Record<string, (consumer: Consumer) => void | Promise<void>> = {
  "the same thread": (consumer) => consumer.delete(),
  "another thread": (consumer) => consumer.deleteFromThreadAsync(),
  "a copy of the struct": (consumer) => {
    consumer.move();
    consumer.delete();
    consumer.freeCopy();
  },
  "another thread with a copy of the struct": async (consumer) => {
    consumer.move();
    await consumer.deleteFromThreadAsync();
    consumer.freeCopy();
  },
};

Deno.test("JavaScript's memory lives until the deleter call", async () => {
  const collected: string[] = [];
  const registry = new FinalizationRegistry<string>((what) => {
    collected.push(what);
  });
  const consumers = new Map<string, [Consumer, typeof deletes[string]]>();
  (() => {
    for (const [how, end] of Object.entries(deletes)) {
      for (const [name, request] of Object.entries(kinds)) {
        const data = iota(1000);
        const what = `${name}, deleted from ${how}`;
        registry.register(data.buffer, what);
        using t = Tensor.from(data);
        consumers.set(what, [new Consumer(t.__dlpack__(request)), end]);
      }
    }
  })();
  await collectGarbage();
  assertEquals(collected, []);
  for (const [consumer, end] of consumers.values()) {
    assertEquals(consumer.read(new Float32Array(1000)), iota(1000));
    await end(consumer);
  }
  await collectGarbage();
  assertEquals(collected.sort(), [...consumers.keys()].sort());
});

Deno.test("The memory of a disposed import lives until the deleter call", async () => {
  const live = liveTensors();
  for (const end of Object.values(deletes)) {
    for (const request of Object.values(kinds)) {
      const before = counts();
      const t = importFixture(floats([2, 3]));
      const consumer = new Consumer(t.transpose().__dlpack__(request));
      t[Symbol.dispose]();
      assertEquals(counts().deleted, before.deleted);
      assertEquals(liveTensors().count, live.count + 1);
      const values = consumer.read(new Float32Array(6));
      assertEquals([...values], [0, 3, 1, 4, 2, 5]);
      await end(consumer);
      assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
      assertEquals(liveTensors(), live);
    }
  }
});

Deno.test("The memory of a forgotten import lives until the deleter call", async () => {
  const live = liveTensors();
  const before = counts();
  const consumers =
    (() =>
      Object.values(deletes).flatMap((end) =>
        Object.values(kinds).map((request) => {
          const t = importFixture(floats([2, 3])).transpose();
          return { consumer: new Consumer(t.__dlpack__(request)), end };
        })
      ))();
  await collectGarbage();
  assertEquals(counts().deleted, before.deleted);
  for (const { consumer, end } of consumers) {
    const values = consumer.read(new Float32Array(6));
    assertEquals([...values], [0, 3, 1, 4, 2, 5]);
    await end(consumer);
  }
  await collectGarbage();
  const deleted = before.deleted + consumers.length;
  assertEquals(counts(), { ...before, deleted });
  assertEquals(liveTensors(), live);
});

Deno.test("The memory is given back with the last of its exports", () => {
  const live = liveTensors();
  const t = importFixture(floats([4]));
  const consumers = [legacy, versioned, versioned].map((request) =>
    new Consumer(t.__dlpack__(request))
  );
  t[Symbol.dispose]();
  const deleted = consumers.reverse().map((consumer) =>
    deletions(() => consumer.delete())
  );
  assertEquals(deleted, [0, 0, 1]);
  assertEquals(liveTensors(), live);
});

Deno.test("A tensor in use stays when its consumer is done first", () => {
  const t = importFixture(floats([4]));
  const deleted = deletions(() => {
    consume(t.__dlpack__(versioned), () => {});
    assertEquals(t.get(3), 3);
  });
  assertEquals(deleted, 0);
  assertEquals(deletions(() => t[Symbol.dispose]()), 1);
});

Deno.test("An export that nobody takes lets go of the memory", async () => {
  const live = liveTensors();
  const { deleted } = counts();
  (() => {
    importFixture(floats([4])).__dlpack__(versioned);
    importFixture(floats([4])).__dlpack__(legacy);
    importFixture(floats([4])).__dlpack__({ copy: true });
  })();
  // The exports first, then what they held.
  await collectGarbage();
  assertEquals(counts().deleted - deleted, 3);
  assertEquals(liveTensors(), live);
});

Deno.test("A second deleter call, or one of a stranger, does nothing", () => {
  for (const request of [legacy, versioned]) {
    const t = importFixture(floats([4]));
    const consumer = new Consumer(t.__dlpack__(request));
    const other = new Consumer(t.__dlpack__(request));
    t[Symbol.dispose]();
    consumer.move();
    const deleted = deletions(() => {
      for (const managerCtx of [0n, 1n << 40n, 2n ** 64n - 1n]) {
        consumer.deleteStranger(managerCtx);
      }
      consumer.delete();
      consumer.delete();
      consumer.delete();
    });
    assertEquals(deleted, 0, "the other export still holds it");
    assertEquals(other.read(new Float32Array(4)), iota(4));
    assertEquals(deletions(() => other.delete()), 1);
    consumer.freeCopy();
  }
});

Deno.test("A deleter call from another thread waits for the event loop", async () => {
  const { deleted } = counts();
  const t = importFixture(floats([4]));
  const consumer = new Consumer(t.__dlpack__(versioned));
  t[Symbol.dispose]();
  consumer.deleteLater(1);
  const start = performance.now();
  while (performance.now() < start + 30);
  assertEquals(counts().deleted, deleted);
  assertEquals(consumer.read(new Float32Array(4)), iota(4));
  while (counts().deleted === deleted) {
    assert(performance.now() < start + 5000, "the deleter call never came");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assertEquals(counts().deleted, deleted + 1);
});

let whenDeleted = (): void => {};
/** Open for good: the thread that called it returns through it. */
const deleterCalled = new Deno.UnsafeCallback(
  { parameters: ["pointer"], result: "void" },
  () => whenDeleted(),
);

Deno.test("A deleter call from another thread wakes an idle event loop", async () => {
  fixture.fx_set_callback(deleterCalled.pointer);
  const t = importFixture(floats([4], { deleter: "callback" }));
  const consumer = new Consumer(t.__dlpack__(versioned));
  t[Symbol.dispose]();
  const isReleased = await new Promise<boolean>((resolve) => {
    const idle = setTimeout(() => resolve(false), 5000);
    whenDeleted = () => {
      clearTimeout(idle);
      resolve(true);
    };
    consumer.deleteLater(20);
  });
  assert(isReleased, "nothing came while the event loop waited for a timer");
});

Deno.test("What consumers never give back lets the process end", async () => {
  const consumerUrl = new URL("./native/consumer.ts", import.meta.url).href;
  const { code, out, err } = await runScript(`
    import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
    import { counts, make } from "#fixture";
    import { Consumer } from "${consumerUrl}";
    const spec = { dtype: [2, 32, 1], shape: [2], nbytes: 8 };
    for (const maxVersion of [null, [1, 3]]) {
      const native = fromDlpack(
        new DlpackCapsule(make(spec), "dltensor_versioned"),
      );
      const own = Tensor.from(Float32Array.of(1, 2));
      new Consumer(own.__dlpack__({ maxVersion }));
      new Consumer(own.__dlpack__({ maxVersion, copy: true }));
      new Consumer(native.__dlpack__({ maxVersion }));
      own.__dlpack__({ maxVersion });
      await new Consumer(own.__dlpack__({ maxVersion })).deleteFromThreadAsync();
    }
    console.log(JSON.stringify(counts()));
  `);
  assertEquals([code, err], [0, ""]);
  assertEquals(out, ['{"deleted":0,"double":0,"live":2}']);
});

Deno.test("A small array stays where it was exported", async () => {
  // V8 keeps those of at most 64 bytes in its own heap, and moves them.
  const arrays = [1, 3, 8, 63, 64, 65].map((length) =>
    Uint8Array.from({ length }, (_, i) => i + 1)
  );
  const consumers = arrays.map((data) => ({
    whole: new Consumer(Tensor.from(data).__dlpack__()),
    first: new Consumer(Tensor.from(data, [], { offset: 0 }).__dlpack__()),
  }));
  await collectGarbage();
  const later = arrays.flatMap((data) =>
    Array.from({ length: 500 }, () => data.slice().fill(0))
  );
  await collectGarbage();
  for (const [i, data] of arrays.entries()) {
    const { whole, first } = consumers[i]!;
    assertEquals(whole.read(new Uint8Array(data.length)), data);
    first.write(Uint8Array.of(200));
    assertEquals(data[0], 200);
    whole.delete();
    first.delete();
  }
  assert(later.every((array) => array[0] === 0));
});

Deno.test("Shared memory is exported as any other", async () => {
  const growable = new SharedArrayBuffer(32, { maxByteLength: 1024 });
  const arrays = [new SharedArrayBuffer(32), growable].map((buffer) =>
    new Float32Array(buffer, 0, 8).fill(5)
  );
  const consumers = arrays.map((data) => {
    const t = Tensor.from(data, [8]);
    consume(t.slice([1, 4]).__dlpack__(versioned), (consumer) => {
      assertEquals([...consumer.read(new Float32Array(3))], [5, 5, 5]);
      consumer.write(Float32Array.of(1, 2, 3));
      assertEquals([...data], [5, 1, 2, 3, 5, 5, 5, 5]);
    });
    return new Consumer(t.__dlpack__(versioned));
  });
  growable.grow(1024);
  await collectGarbage();
  for (const consumer of consumers) {
    const values = consumer.read(new Float32Array(8));
    assertEquals([...values], [5, 1, 2, 3, 5, 5, 5, 5]);
    await consumer.deleteFromThreadAsync();
  }
});

// --- Bad input ---------------------------------------------------------------

/** Checks that an export is refused, and that the tensor is as it was. */
function refused(
  t: Tensor,
  request: DlpackRequest,
  code: Parameters<typeof assertBufferError>[1],
  message: string,
): void {
  const live = liveTensors();
  assertBufferError(() => t.__dlpack__(request), code, message);
  assertEquals(liveTensors(), live);
}

Deno.test("A stream is refused for host memory", () => {
  using imported = importFixture(floats([2], { device: [3, 0] }));
  for (const t of [Tensor.from(iota(2)), imported]) {
    for (const stream of [-1, 0, 1, 2, 7n]) {
      for (const copy of [null, true]) {
        assertThrows(
          () => t.__dlpack__({ stream, copy }),
          TypeError,
          `stream ${stream}`,
        );
      }
    }
    t.__dlpack__({ stream: null })[Symbol.dispose]();
  }
});

Deno.test("A device that the memory is not on is refused", () => {
  using imported = importFixture(floats([2], { device: [3, 1] }));
  const own = Tensor.from(iota(2));
  refused(own, { dlDevice: [2, 0] }, "device", "cpu:0 to cuda:0");
  refused(own, { dlDevice: [3, 0] }, "device", "cpu:0 to cudaHost:0");
  refused(own, { dlDevice: [1, 7] }, "device", "cpu:0 to cpu:7");
  refused(own, { dlDevice: [99, 0] }, "device", "to device type 99:0");
  refused(own, { dlDevice: [2, 0], copy: true }, "device", "to cuda:0");
  refused(imported, { dlDevice: [3, 0] }, "device", "cudaHost:1 to cudaHost:0");
  refused(imported, { dlDevice: [2, 1] }, "device", "cudaHost:1 to cuda:1");
});

Deno.test("An argument of the wrong kind is refused", () => {
  const t = Tensor.from(iota(2));
  const wrong: [string, unknown][] = [
    ["maxVersion", [1]],
    ["maxVersion", 1],
    ["maxVersion", "1.0"],
    ["maxVersion", [1, 0.5]],
    ["dlDevice", "cpu"],
    ["dlDevice", [1]],
    ["dlDevice", [1, NaN]],
    ["copy", 1],
  ];
  for (const [option, value] of wrong) {
    assertThrows(
      () => t.__dlpack__({ [option]: value }),
      TypeError,
      `The option "${option}" must be`,
    );
  }
});

Deno.test("What a legacy struct cannot say is refused there", () => {
  const data = new Uint8Array(4);
  const own = Tensor.from(data, [4], { dtype: "int4", padded: true });
  const spec = { dtype: [17, 4, 1], shape: [4], nbytes: 4 } as const;
  using imported = importFixture({ ...spec, flags: PADDED });
  refused(own, {}, "dtype", "padded int4");
  refused(own, { copy: true }, "dtype", "padded int4");
  refused(imported, { maxVersion: [0, 8] }, "dtype", "padded float4_e2m1fn");
});

Deno.test("Packed elements that start inside of a byte are refused", () => {
  const own = Tensor.from(new Uint8Array(4), [8], { dtype: "int4" });
  const spec = { dtype: [1, 2, 1], shape: [8], nbytes: 2 } as const;
  using imported = importFixture(spec);
  refused(own.slice([1, null]), versioned, "layout", "int4");
  refused(own.slice([null, null, -1]), versioned, "layout", "ask for a copy");
  refused(imported.slice(3), versioned, "layout", "uint2");
});

Deno.test("A resizable buffer is refused, but for a copy", () => {
  const buffer = new ArrayBuffer(16, { maxByteLength: 64 });
  for (const data of [new Float32Array(buffer), new Float32Array(buffer, 4)]) {
    const t = Tensor.from(data);
    refused(t, versioned, "data", "resizable");
    consume(t.__dlpack__({ copy: true }), (consumer) => {
      assertEquals(consumer.struct.shape, [data.length]);
    });
  }
});

Deno.test("Memory that is gone is refused", () => {
  const transferred = Tensor.from(iota(4));
  transferred.data.buffer.transfer();
  const resized = new ArrayBuffer(16, { maxByteLength: 64 });
  const shrunk = Tensor.from(new Float32Array(resized));
  resized.resize(8);
  const disposed = Tensor.from(iota(4));
  disposed[Symbol.dispose]();
  const imported = importFixture(floats([4]));
  const view = imported.slice([1, null]);
  imported[Symbol.dispose]();
  const released = importFixture(floats([4]));
  released.release()[Symbol.dispose]();
  for (const t of [transferred, shrunk, disposed, imported, view, released]) {
    refused(t, versioned, "released", "Cannot use a tensor");
    refused(t, { copy: true }, "released", "Cannot use a tensor");
  }
});

Deno.test("More than 64 axes are refused", () => {
  const t = Tensor.from(iota(1), Array(65).fill(1));
  refused(t, versioned, "shape", "65 axes");
  refused(t, { copy: true }, "shape", "65 axes");
});
