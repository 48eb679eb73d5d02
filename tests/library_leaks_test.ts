/**
 * Memory that calls of native functions must keep until they are over, and not
 * an hour longer; and structs that must have one owner.
 */

import {
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  assertBufferError,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  runScript,
  testBothPaths,
} from "./helpers.ts";
import { callsPath } from "./native/calls.ts";
import { counts, fixture, make } from "./native/fixture.ts";

const { symbols: c } = dlopen(callsPath, {
  sum: {
    name: "calls_sum_memory_when",
    parameters: ["buffer", "i32", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  sumBorrowed: {
    name: "calls_sum_borrowed",
    parameters: ["borrowed DLManagedTensor*"],
    result: "f64",
  },
});

// ---- buffers of nonblocking functions ----

const SIZE = 1000;

/** What is filled with 0xDB when it is given back, and stays mapped. */
function filled(value: number): Tensor<"float32"> {
  const data = new Uint8Array(new Float32Array(SIZE).fill(value).buffer);
  const t = importFixture(
    floats([SIZE], { data, nbytes: data.length, deleter: "poison" }),
  );
  assert(t.is("float32"));
  return t;
}

/** The memory of a tensor, in each way that a "buffer" takes it. */
const buffers: Readonly<
  Record<string, (t: Tensor<"float32">) => BufferSource>
> = {
  data: (t) => t.data,
  bytes: (t) => t.bytes,
  "a subarray": (t) => t.data.subarray(0, SIZE),
  "a DataView": (t) => new DataView(t.data.buffer),
  "the ArrayBuffer": (t) => t.data.buffer as ArrayBuffer,
  "data of a view": (t) => t.slice([null, null, -1]).data,
};

const makers: Readonly<Record<string, (value: number) => Tensor<"float32">>> = {
  imports: filled,
  copies: (value) => {
    using t = filled(value);
    return t.copy();
  },
  conversions: (value) => {
    using t = filled(value);
    return t.astype("float32");
  },
};

for (const [kind, make] of Object.entries(makers)) {
  testBothPaths(
    `Three nonblocking calls at once read ${kind} that are disposed`,
    async (t) => {
      for (const [name, bufferOf] of Object.entries(buffers)) {
        await t.step(name, async () => {
          const before = { ...liveTensors(), deleted: counts().deleted };
          const gate = new Int32Array(1);
          const sums = [1, 2, 3].map((value) => {
            using tensor = make(value);
            return c.sum(bufferOf(tensor), SIZE, gate);
          });
          await collectGarbage();
          // What was free already, others have got by now.
          const others = [4, 5, 6].map((value) => make(value));
          gate[0] = 1;
          assertEquals(await Promise.all(sums), [1000, 2000, 3000]);
          others.forEach((other) => other[Symbol.dispose]());
          const { deleted } = counts();
          assertEquals(deleted - before.deleted, 6, "all are released");
          assertEquals({ ...liveTensors(), deleted: before.deleted }, before);
        });
      }
    },
  );

  Deno.test(`A nonblocking call keeps ${kind} that nobody refers to`, async () => {
    const { deleted } = counts();
    const gate = new Int32Array(1);
    const call = (() => {
      const whole = make(7);
      return c.sum(whole.data, SIZE, gate);
    })();
    const { deleted: begun } = counts();
    await collectGarbage();
    await collectGarbage();
    assertEquals(counts().deleted, begun, "nothing is released meanwhile");
    gate[0] = 1;
    assertEquals(await call, 7000);
    await collectGarbage();
    assertEquals(counts().deleted - deleted, 1);
  });
}

Deno.test("One buffer is kept until the last of its calls is over", async () => {
  const tensor = filled(2);
  const { data } = tensor;
  const gates = [new Int32Array(1), new Int32Array(1)];
  const { deleted } = counts();
  const calls = gates.map((gate) => c.sum(data, SIZE, gate));
  tensor[Symbol.dispose]();
  gates[0]![0] = 1;
  assertEquals(await calls[0], 2000);
  assertEquals(counts().deleted, deleted);
  gates[1]![0] = 1;
  assertEquals(await calls[1], 2000);
  assertEquals(counts().deleted, deleted + 1);
});

Deno.test("A nonblocking call that is refused keeps nothing", async () => {
  const tensor = filled(2);
  const { deleted } = counts();
  for (let i = 0; i < 3; i++) {
    try {
      await c.sum(tensor.data, "many" as never, Int32Array.of(1));
    } catch (error) {
      assert(error instanceof TypeError);
      continue;
    }
    throw new Error("It was not refused");
  }
  tensor[Symbol.dispose]();
  assertEquals(counts().deleted, deleted + 1);
});

// ---- loops ----

/** Measures a loop in a process of its own. */
async function measure(
  loop: string,
): Promise<{ rss: number; heap: number; sum: number; left: unknown }> {
  const { code, out, err } = await runScript(
    `
    import { dlopen, DlpackCapsule, fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
    import { counts, make } from "#fixture";
    const path = new URL(${JSON.stringify(callsPath.href)});
    const MiB = 2 ** 20;
    const load = (place = "heap") => fromDlpack(new DlpackCapsule(make({
      dtype: [2, 32, 1], shape: [MiB / 4], nbytes: MiB, place,
    }), "dltensor_versioned"));
    let sum = 0;
    async function settle() {
      for (let i = 0; i < 5; i++) {
        gc();
        await new Promise((done) => setTimeout(done));
      }
      const { rss, heapUsed } = Deno.memoryUsage();
      return { rss, heap: heapUsed };
    }
    ${loop}
    const before = [liveTensors(), counts().live];
    run(LOOPS / 2); // until V8 and the C library have what they keep for good
    const first = await settle();
    run(LOOPS);
    const last = await settle();
    console.log(JSON.stringify({
      rss: last.rss - first.rss,
      heap: last.heap - first.heap,
      sum,
      left: [before, [liveTensors(), counts().live]],
    }));`,
    ["-A", "--v8-flags=--expose-gc"],
  );
  assertEquals([code, err], [0, ""]);
  return JSON.parse(out.at(-1)!);
}

Deno.test("A borrowed struct of a tensor is made once, not for each call", async () => {
  const { rss, sum, left } = await measure(`
    const LOOPS = 100_000;
    const { symbols: c } = dlopen(path, {
      calls_sum_borrowed: {
        parameters: ["borrowed DLManagedTensor*"],
        result: "f64",
      },
    });
    const tensor = Tensor.from(new Float32Array([1, 2]));
    const view = load().slice([1, 3]);
    const capsule = tensor.__dlpack__();
    function run(loops) {
      for (let i = 0; i < loops; i++) {
        sum += c.calls_sum_borrowed(tensor) + c.calls_sum_borrowed(view) +
          c.calls_sum_borrowed(capsule);
      }
    }
  `);
  assertEquals(sum, 150_000 * 6);
  assert(rss < 8 * 2 ** 20, `${rss} bytes more`);
  assertEquals((left as unknown[])[1], (left as unknown[])[0]);
});

Deno.test("What was borrowed is given back at dispose", async () => {
  // 1 MiB each: 2 GiB more, if a call kept it.
  const { rss, left } = await measure(`
    const LOOPS = 2000;
    const { symbols: c } = dlopen(path, {
      calls_sum_borrowed: {
        parameters: ["borrowed DLManagedTensor*"],
        result: "f64",
      },
    });
    function run(loops) {
      for (let i = 0; i < loops; i++) {
        using tensor = load();
        sum += c.calls_sum_borrowed(tensor.slice([1, 3]));
      }
    }
  `);
  assert(rss < 64 * 2 ** 20, `${rss} bytes more`);
  assertEquals((left as unknown[])[1], (left as unknown[])[0]);
});

Deno.test("What was borrowed of tensors that nobody disposes is collected", async () => {
  const before = { ...liveTensors(), deleted: counts().deleted };
  for (let i = 0; i < 20; i++) {
    (() => {
      assertEquals(c.sumBorrowed(importFixture(floats([2]))), 1);
      assertEquals(c.sumBorrowed(capsule(floats([2]))), 1);
    })();
  }
  await collectGarbage();
  assertEquals(counts().deleted - before.deleted, 40);
  assertEquals({ ...liveTensors(), deleted: before.deleted }, before);
});

Deno.test("V8 keeps nothing of a library that was closed", async () => {
  const { heap, sum } = await measure(`
    const LOOPS = 10_000;
    const type = { parameters: ["DLTensor*"], result: "f64" };
    const tensor = Tensor.from(new Float32Array([1, 2]));
    function run(loops) {
      for (let i = 0; i < loops; i++) {
        using lib = dlopen(path, {
          calls_sum: type,
          borrowed: {
            name: "calls_sum_borrowed",
            parameters: ["borrowed DLManagedTensor*"],
            result: "f64",
          },
        });
        sum += lib.symbols.calls_sum(tensor) + lib.symbols.borrowed(tensor);
      }
    }
  `);
  assertEquals(sum, 15_000 * 6);
  assert(heap < 2 ** 20, `${heap} bytes more`);
});

// ---- one owner ----

type Name = "dltensor" | "dltensor_versioned";

/** Each way to say where a struct is. */
const spellings: readonly ((pointer: Deno.PointerObject) =>
  | Deno.PointerObject
  | bigint)[] = [
    (pointer) => pointer,
    (pointer) => BigInt(Deno.UnsafePointer.value(pointer)),
    (pointer) => Deno.UnsafePointer.create(Deno.UnsafePointer.value(pointer))!,
  ];

/** Checks that a struct cannot be wrapped while somebody owns it. */
function assertOwned(pointer: Deno.PointerObject): void {
  for (const spell of spellings) {
    for (const name of ["dltensor", "dltensor_versioned"] as const) {
      assertBufferError(
        () => {
          const second = new DlpackCapsule(spell(pointer), name);
          second.take(); // or its memory would be given back twice
        },
        "consumed",
        "a capsule or tensor owns the struct already",
      );
    }
  }
}

for (const name of ["dltensor", "dltensor_versioned"] as const) {
  const versioned = name === "dltensor_versioned";
  const spec = floats([2], { versioned });

  testBothPaths(`A struct has one owner at a time: ${name}`, async (t) => {
    const wrapped: Readonly<
      Record<string, (pointer: Deno.PointerObject) => Disposable>
    > = {
      "a capsule": (pointer) => new DlpackCapsule(pointer, name),
      "a tensor": (pointer) => fromDlpack(new DlpackCapsule(pointer, name)),
      "a view": (pointer) =>
        fromDlpack(new DlpackCapsule(pointer, name)).slice([1]),
      "a capsule of release()": (pointer) =>
        fromDlpack(new DlpackCapsule(pointer, name)).release(),
    };
    for (const [who, wrap] of Object.entries(wrapped)) {
      await t.step(who, async () => {
        const live = liveTensors();
        for (const spell of spellings) {
          assertEquals(
            deletions(() => {
              const pointer = make(spec);
              using _owner = wrap(spell(pointer) as Deno.PointerObject);
              assertOwned(pointer);
              assertOwned(pointer);
            }),
            1,
          );
        }
        await collectGarbage();
        assertEquals(liveTensors(), live);
      });
    }
    await t.step("what is held after its dispose", () => {
      assertEquals(
        deletions(() => {
          const pointer = make(spec);
          const tensor = fromDlpack(new DlpackCapsule(pointer, name));
          const held = tensor.hold();
          tensor[Symbol.dispose]();
          assertOwned(pointer);
          held[Symbol.dispose]();
        }),
        1,
      );
    });
    await t.step("an export, the tensor of which is disposed", () => {
      assertEquals(
        deletions(() => {
          const pointer = make(spec);
          const tensor = fromDlpack(new DlpackCapsule(pointer, name));
          using _export = tensor.__dlpack__({ maxVersion: [1, 3] });
          tensor[Symbol.dispose]();
          assertOwned(pointer);
        }),
        1,
      );
    });
    await t.step("but another after the first gave it up", () => {
      assertEquals(
        deletions(() => {
          const pointer = make(spec);
          for (const spell of spellings) {
            const taken = new DlpackCapsule(spell(pointer), name).take();
            assert(Deno.UnsafePointer.equals(taken, pointer));
            const again = fromDlpack(new DlpackCapsule(spell(pointer), name));
            assertEquals(again.get(1), 1);
            again.release().take();
          }
          new DlpackCapsule(pointer, name)[Symbol.dispose]();
        }),
        1,
      );
    });
  });

  testBothPaths(
    `An address that is used again is another struct: ${name}`,
    () => {
      // Without a deleter it stays where it is, as what comes there next would.
      const pointer = make({ ...spec, deleter: "null" });
      for (let i = 0; i < 100; i++) {
        const spell = spellings[i % spellings.length]!;
        using t = fromDlpack(new DlpackCapsule(spell(pointer), name));
        assertEquals(t.get(1), 1);
      }
      fixture.fx_free(pointer);
    },
  );
}

Deno.test("An exported struct has one owner, too", async (t) => {
  const tensor = Tensor.from(new Float32Array([1, 2]));
  const exports: Readonly<Record<string, () => DlpackCapsule>> = {
    "shared": () => tensor.__dlpack__({ maxVersion: [1, 3] }),
    "copied": () => tensor.__dlpack__({ maxVersion: [1, 3], copy: true }),
    "of bare memory": () =>
      DlpackCapsule.from(0n, { dtype: "float32", shape: [0] }),
  };
  for (const [name, make] of Object.entries(exports)) {
    await t.step(name, () => {
      using own = make();
      assertOwned(own.pointer);
      const again = new DlpackCapsule(own.take(), "dltensor_versioned");
      again[Symbol.dispose]();
    });
  }
});

testBothPaths("What cannot be the address of a struct is refused", () => {
  const live = liveTensors();
  const { deleted } = counts();
  const pointer = make(floats([2]));
  const address = BigInt(Deno.UnsafePointer.value(pointer));
  const wrong = [3n, 8n, 4088n, 4097n, 2n ** 47n + 4n];
  for (let i = 1n; i < 8n; i++) wrong.push(address + i);
  for (const value of wrong) {
    for (const at of [value, Deno.UnsafePointer.create(value)!]) {
      for (const name of ["dltensor", "dltensor_versioned"] as Name[]) {
        assertThrows(
          () => new DlpackCapsule(at, name),
          TypeError,
          `Cannot wrap 0x${value.toString(16)}: no struct can be there`,
        );
      }
    }
  }
  assertEquals(liveTensors(), live);
  new DlpackCapsule(pointer, "dltensor_versioned")[Symbol.dispose]();
  assertEquals(counts().deleted, deleted + 1);
});

Deno.test("A status that a symbol table calls a struct is refused", async (t) => {
  const live = liveTensors();
  for (
    const result of [
      "DLManagedTensor*",
      "DLManagedTensorVersioned*",
      "DLTensor*",
    ] as const
  ) {
    await t.step(result, () => {
      using lib = dlopen(callsPath, {
        calls_add: { parameters: ["i32", "i32"], result },
      });
      assertEquals(lib.symbols.calls_add(1, -1), null);
      assertThrows(
        () => lib.symbols.calls_add(1, 2),
        TypeError,
        "Cannot wrap 0x3: no struct can be there; is it the pointer, not a " +
          "status, that the function returned?",
      );
    });
  }
  assertEquals(liveTensors(), live);
});
