/**
 * Two copies of this module in one program, as two versions of it come with two
 * dependencies: what one has made the other takes, whichever way it goes.
 */

import * as ours from "@dlpack/deno";
import { type BufferError, type DlpackCapsule, Tensor } from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { addressOfArray } from "../ffi/memory.ts";
import { collectGarbage, deletions, floats } from "./helpers.ts";
import { callsPath } from "./native/calls.ts";
import { counts, type FixtureSpec, make } from "./native/fixture.ts";

type Module = typeof ours;

const folder = Deno.makeTempDirSync({ prefix: "dlpack-" });

/** Another copy of the module, of which a text may be another. */
async function copyOfModule(
  name: string,
  path = "",
  change: (text: string) => string = (text) => text,
): Promise<Module> {
  const from = new URL("../", import.meta.url);
  const place = folder.replaceAll("\\", "/").replace(/^\//, "");
  const into = new URL(`file:///${place}/${name}/`);
  const copy = (path: string): void => {
    Deno.mkdirSync(new URL(path, into), { recursive: true });
    for (const { name, isDirectory } of Deno.readDirSync(new URL(path, from))) {
      if (isDirectory) copy(`${path}${name}/`);
      else if (name.endsWith(".ts")) {
        Deno.copyFileSync(
          new URL(path + name, from),
          new URL(path + name, into),
        );
      }
    }
  };
  copy("src/");
  copy("ffi/");
  Deno.copyFileSync(new URL("mod.ts", from), new URL("mod.ts", into));
  if (path !== "") {
    const text = Deno.readTextFileSync(new URL(path, into));
    const changed = change(text);
    assertNotEquals(changed, text, `${path} is as it was`);
    Deno.writeTextFileSync(new URL(path, into), changed);
  }
  return await import(new URL("mod.ts", into).href);
}

const other = await copyOfModule("other");
const next = await copyOfModule(
  "next",
  "src/capsule.ts",
  (text) => text.replace("MODULE_ABI = 1", "MODULE_ABI = 2"),
);
Deno.removeSync(folder, { recursive: true });

/** The functions of calls.c, opened by a copy. */
const openBy = (module: Module) =>
  module.dlopen(callsPath, {
    calls_sum: { parameters: ["DLTensor*"], result: "f64" },
    calls_sum_when: {
      parameters: ["DLTensor*", "buffer"],
      result: "f64",
      nonblocking: true,
    },
    calls_sum_five: {
      parameters: ["DLTensor*", "DLTensor*", "f64", "DLTensor*", "DLTensor*"],
      result: "f64",
    },
    calls_sum_borrowed: {
      parameters: ["borrowed DLManagedTensor*"],
      result: "f64",
    },
    // A versioned struct has a legacy one without its deleter in it.
    calls_flags: {
      name: "calls_refuse",
      parameters: ["borrowed DLManagedTensorVersioned*"],
      result: "i32",
    },
    calls_sum_all: { parameters: ["DLTensor**", "i32"], result: "f64" },
    calls_sum_all_when: {
      parameters: ["DLTensor**", "i32", "buffer"],
      result: "f64",
      nonblocking: true,
    },
    calls_address: { parameters: ["data*"], result: "u64" },
    calls_address_in_order: {
      name: "calls_address",
      parameters: ["contiguous data*"],
      result: "u64",
    },
    calls_consume: {
      parameters: ["taken DLManagedTensorVersioned*", "buffer"],
      result: "i64",
    },
    calls_consume_legacy: {
      parameters: ["taken DLManagedTensor*"],
      result: "f64",
    },
    calls_consume_two: {
      parameters: [
        "taken DLManagedTensorVersioned*",
        "taken DLManagedTensorVersioned*",
      ],
      result: "f64",
    },
    calls_make_out: {
      parameters: ["i32", "DLManagedTensorVersioned**"],
      result: "i32",
    },
  });

/** Each copy, its functions, and the copy that made what it is given. */
const ways: readonly { way: string; here: Module; there: Module }[] = [
  { way: "of another copy", here: ours, there: other },
  { way: "in another copy", here: other, there: ours },
];
const symbols = new Map(
  [ours, other].map((module) => [module, openBy(module).symbols]),
);

/** A managed tensor of the fixture in a capsule of a copy. */
function wrap(
  module: Module,
  spec: FixtureSpec = floats([2, 3]),
  options?: ours.CapsuleOptions,
): DlpackCapsule {
  const name = spec.versioned ?? true ? "dltensor_versioned" : "dltensor";
  return new module.DlpackCapsule(make(spec), name, options);
}

/** What the copies hold that is not garbage. */
async function held(): Promise<unknown> {
  await collectGarbage();
  return [ours, other, next].map((module) => module.liveTensors());
}

/** Each copy has an error of its own; both say which. */
function assertCode(run: () => unknown, code: ours.BufferErrorCode): Error {
  const error = assertThrows(run, Error);
  assertEquals([error.name, (error as BufferError).code], [
    "BufferError",
    code,
  ], error.message);
  return error;
}

Deno.test("The copies are two modules", () => {
  const mine = Tensor.from(new Float32Array(1));
  const theirs = other.Tensor.from(new Float32Array(1));
  assertEquals(theirs instanceof Tensor, false);
  assertEquals(mine instanceof other.Tensor, false);
  assertNotEquals(ours.dlopen, other.dlopen);
});

for (const { way, here, there } of ways) {
  const c = symbols.get(here)!;
  const { fromDlpack, fromDlpackAsync } = here;

  Deno.test(`A tensor ${way} is imported: the same memory`, async (t) => {
    await t.step("JavaScript's", () => {
      const theirs = there.Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
      using mine = fromDlpack(theirs.transpose());
      assert(mine instanceof here.Tensor);
      assertEquals(mine.toArray(), [[1, 3], [2, 4]]);
      mine.set(0, 1, 9);
      assertEquals(theirs.get(1, 0), 9);
      theirs[Symbol.dispose]();
      assertEquals(mine.get(0, 1), 9);
    });
    await t.step("a library's, whichever goes first", async () => {
      for (const first of [0, 1]) {
        const before = await held();
        assertEquals(
          deletions(() => {
            const theirs = there.fromDlpack(wrap(there));
            const mine = fromDlpack(theirs);
            assertEquals(mine.get(1, 2), 5);
            const both = first === 0 ? [theirs, mine] : [mine, theirs];
            both[0]![Symbol.dispose]();
            assertEquals(both[1]!.get(1, 2), 5);
            assertCode(() => both[0]!.get(1, 2), "released");
            both[1]![Symbol.dispose]();
          }),
          1,
        );
        assertEquals(await held(), before);
      }
    });
    await t.step("a copy, if that is asked for", async () => {
      const theirs = there.Tensor.from(new Float32Array([1, 2]));
      const copies = [
        fromDlpack(theirs, { copy: true }),
        await fromDlpackAsync(theirs, { copy: true }),
      ];
      theirs.set(0, 9);
      assertEquals(copies.map((copy) => copy.toArray()), [[1, 2], [1, 2]]);
    });
    await t.step("read-only", () => {
      const options = { readOnly: true };
      const theirs = there.Tensor.from(new Float32Array(2), [2], options);
      using mine = fromDlpack(theirs);
      assertEquals(mine.readOnly, true);
    });
    await t.step("through an exporter", () => {
      const theirs = there.Tensor.from(new Float32Array([1, 2]));
      using mine = fromDlpack({
        __dlpack__: (request) => theirs.__dlpack__(request),
        __dlpack_device__: () => [1, 0],
      });
      assertEquals(mine.toArray(), [1, 2]);
    });
  });

  Deno.test(`A capsule ${way} is imported, and used up`, async (t) => {
    for (const versioned of [true, false]) {
      const name = versioned ? "dltensor_versioned" : "dltensor";
      await t.step(name, async () => {
        const before = await held();
        assertEquals(
          deletions(() => {
            const theirs = wrap(there, floats([2, 3], { versioned }));
            using mine = fromDlpack(theirs);
            assertEquals(theirs.name, `used_${name}`);
            assertCode(() => fromDlpack(theirs), "consumed");
            theirs[Symbol.dispose]();
            assertEquals(mine.toArray(), [[0, 1, 2], [3, 4, 5]]);
            assertEquals(mine.readOnly, !versioned);
          }),
          1,
        );
        assertEquals(await held(), before);
      });
    }
    await t.step("asynchronously", async () => {
      const before = counts().deleted;
      const theirs = wrap(there);
      using mine = await fromDlpackAsync(theirs, { copy: true });
      assertEquals(counts().deleted - before, 1);
      assertEquals(theirs.name, "used_dltensor_versioned");
      assertEquals(mine.get(1, 2), 5);
    });
    await t.step("with what it was told of a legacy struct", () => {
      const spec = floats([2, 3], { versioned: false });
      using mine = fromDlpack(wrap(there, spec, { writable: true }));
      assertEquals(mine.readOnly, false);
    });
    await t.step("released, when its struct is bad", () => {
      assertEquals(
        deletions(() => {
          const theirs = wrap(there, floats([2, 3], { ndim: 65 }));
          const error = assertCode(() => fromDlpack(theirs), "shape");
          assertInstanceOf(error, here.BufferError);
          assertEquals(theirs.name, "used_dltensor_versioned");
        }),
        1,
      );
    });
  });

  Deno.test(`A capsule ${way} that is refused for the options stays usable`, async (t) => {
    const cuda = { device: [2, 0], handle: 0x7000n } as const;
    const isCopied = { flags: 2 };
    const refusals: [
      string,
      Partial<FixtureSpec>,
      ours.FromDlpackOptions,
      ours.BufferErrorCode,
    ][] = [
      ["on a device", cuda, {}, "device"],
      ["on a device", cuda, { device: "cpu", copy: false }, "copy"],
      ["copied", isCopied, { copy: false }, "copy"],
      ["of another dtype", {}, { dtype: "int32" }, "dtype"],
    ];
    for (const [what, changes, options, code] of refusals) {
      await t.step(`${what}, ${JSON.stringify(options)}`, async () => {
        const before = counts().deleted;
        const theirs = wrap(there, floats([2, 3], changes));
        assertCode(() => fromDlpack(theirs, options), code);
        await assertRejects(() => fromDlpackAsync(theirs, options), Error);
        assertThrows(() => fromDlpack(theirs, { copy: 1 as never }), TypeError);
        assertEquals(counts().deleted, before);
        assertEquals(theirs.name, "dltensor_versioned");
        assertEquals(theirs.shape, [2, 3]);
        if (changes.device === undefined) {
          using again = there.fromDlpack(theirs);
          assertEquals(again.get(1, 2), 5);
        } else theirs[Symbol.dispose]();
        assertEquals(counts().deleted, before + 1);
      });
    }
    await t.step("but what was made for the import is released", () => {
      assertEquals(
        deletions(() => {
          let made: DlpackCapsule | undefined;
          const exporter = {
            __dlpack__: () => made = wrap(there),
            __dlpack_device__: () => [1, 0] as const,
          };
          assertCode(() => fromDlpack(exporter, { dtype: "int32" }), "dtype");
          assertEquals(made!.name, "used_dltensor_versioned");
        }),
        1,
      );
    });
  });

  Deno.test(`What is ${way} is lent to functions, and stays as it is`, async (t) => {
    const before = await held();
    const made: Readonly<Record<string, () => Tensor | DlpackCapsule>> = {
      "a tensor of JavaScript": () =>
        there.Tensor.from(new Float32Array([0, 1, 2, 3, 4, 5]), [3, 2])
          .transpose(),
      "a tensor of a library": () => there.fromDlpack(wrap(there)),
      "a capsule": () => wrap(there),
      "a legacy capsule": () =>
        wrap(there, floats([2, 3], { versioned: false })),
    };
    for (const [name, make] of Object.entries(made)) {
      await t.step(name, async () => {
        const deleted = counts().deleted;
        using theirs = make();
        const mine = here.Tensor.from(new Float32Array([100]));
        for (let i = 0; i < 3; i++) {
          assertEquals(c.calls_sum(theirs), 15);
          assertEquals(c.calls_sum_borrowed(theirs), 15);
          assertEquals(c.calls_flags(theirs), 1);
          assertEquals(
            c.calls_sum_five(mine, theirs, 0.5, theirs, mine),
            230.5,
          );
          assertEquals(c.calls_sum_all([theirs, mine, theirs], 3), 130);
        }
        const open = Int32Array.of(1);
        assertEquals(await c.calls_sum_when(theirs, open), 15);
        assertEquals(await c.calls_sum_all_when([theirs], 1, open), 15);
        assertEquals(counts().deleted, deleted);
        if (theirs instanceof there.DlpackCapsule) {
          assert(!theirs.name.startsWith("used"));
        } else assertEquals((theirs as Tensor).size, 6);
      });
    }
    await t.step('as "data*"', () => {
      const data = new Float32Array(6);
      const theirs = there.Tensor.from(data, [6]).slice([2]);
      assertEquals(c.calls_address(theirs), addressOfArray(data) + 8n);
    });
    await t.step("kept until a nonblocking call is over", async () => {
      for (const name of ["a tensor of a library", "a capsule"]) {
        const theirs = made[name]!();
        const deleted = counts().deleted;
        const gates = [new Int32Array(1), new Int32Array(1)];
        const sums = [
          c.calls_sum_when(theirs, gates[0]!),
          c.calls_sum_all_when([theirs], 1, gates[1]!),
        ];
        theirs[Symbol.dispose]();
        await collectGarbage();
        assertEquals(counts().deleted, deleted);
        gates.forEach((gate) => gate[0] = 1);
        assertEquals(await Promise.all(sums), [15, 15]);
        assertEquals(counts().deleted, deleted + 1);
      }
    });
    await t.step("and let go of, when it is refused", () => {
      const int4 = { dtype: [0, 4, 1], nbytes: 4, shape: [4] } as const;
      const padded = { ...int4, flags: 4, data: new Uint8Array(4) };
      const apart = floats([2], { strides: [3], nbytes: 16 });
      const refusals: [FixtureSpec, (theirs: DlpackCapsule) => unknown][] = [
        [padded, (theirs) => c.calls_sum(theirs)],
        [padded, (theirs) => c.calls_sum_all([theirs], 1)],
        [
          { ...apart, data: new Uint8Array(16) },
          (theirs) => c.calls_address_in_order(theirs),
        ],
      ];
      for (const [spec, call] of refusals) {
        assertEquals(
          deletions(() => {
            const theirs = wrap(there, spec);
            assertThrows(() => call(theirs), Error, "Cannot pass");
            theirs[Symbol.dispose]();
            const tensor = there.fromDlpack(wrap(there, spec));
            assertThrows(() => call(tensor as never), Error, "Cannot pass");
            tensor[Symbol.dispose]();
          }),
          2,
        );
      }
    });
    await t.step("not when it is used or disposed", () => {
      const used = wrap(there);
      used[Symbol.dispose]();
      assertCode(() => c.calls_sum(used), "consumed");
      const gone = there.fromDlpack(wrap(there));
      gone[Symbol.dispose]();
      assertCode(() => c.calls_sum(gone), "released");
    });
    assertEquals(await held(), before);
  });

  Deno.test(`What is ${way} is taken over once`, async (t) => {
    const before = await held();
    const sum = new Float64Array(1);
    await t.step("a capsule, used up", () => {
      assertEquals(
        deletions(() => {
          const theirs = wrap(there);
          assertEquals(c.calls_consume(theirs, sum), 0n);
          assertEquals(sum[0], 15);
          assertEquals(theirs.name, "used_dltensor_versioned");
          assertCode(() => c.calls_consume(theirs, sum), "consumed");
        }),
        1,
      );
    });
    await t.step("a legacy capsule", () => {
      assertEquals(
        deletions(() => {
          const theirs = wrap(there, floats([2, 3], { versioned: false }));
          assertEquals(c.calls_consume_legacy(theirs), 15);
        }),
        1,
      );
    });
    await t.step("a tensor, which stays usable", () => {
      assertEquals(
        deletions(() => {
          using theirs = there.fromDlpack(wrap(there));
          c.calls_consume(theirs, sum);
          assertEquals(sum[0], 15);
          assertEquals(c.calls_consume_two(theirs, theirs), 30);
          assertEquals(theirs.get(1, 2), 5);
        }),
        1,
      );
      const own = there.Tensor.from(new Float32Array([1, 2]));
      assertEquals(c.calls_consume_legacy(own), 3);
    });
    await t.step("nothing, where an argument is refused", () => {
      const legacy = wrap(there, floats([2, 3], { versioned: false }));
      const first = wrap(there);
      assertEquals(
        deletions(() => {
          assertCode(() => c.calls_consume(legacy, sum), "version");
          assertCode(() => c.calls_consume_legacy(first), "version");
          assertThrows(() => c.calls_consume(first, 5 as never), TypeError);
          assertThrows(() => c.calls_consume_two(first, 5 as never), TypeError);
          assertCode(() => c.calls_consume_two(first, first), "consumed");
          using busy = wrap(here);
          using _held = busy.hold();
          assertCode(() => c.calls_consume_two(first, busy), "consumed");
        }),
        1, // of busy
      );
      assertEquals(
        [legacy.name, first.name],
        ["dltensor", "dltensor_versioned"],
      );
      assertEquals(
        deletions(() => {
          c.calls_consume(first, sum);
          c.calls_consume_legacy(legacy);
        }),
        2,
      );
    });
    assertEquals(await held(), before);
  });

  Deno.test(`What is ${way} is kept alive by a capsule`, async (t) => {
    const memory = new Float32Array([1, 2]);
    const struct = make(floats([2], { deleter: "null" }));
    const bare = Deno.UnsafePointer.offset(struct, 32)!;
    const capsules: Readonly<
      Record<string, (keepAlive: unknown) => DlpackCapsule>
    > = {
      borrow: (keepAlive) => here.DlpackCapsule.borrow(bare, { keepAlive }),
      from: (keepAlive) =>
        here.DlpackCapsule.from(Deno.UnsafePointer.of(memory), {
          dtype: "float32",
          shape: [2],
          keepAlive,
        }),
      "OutCapsule.take": (keepAlive) => {
        const out = new here.OutCapsule();
        assertEquals(c.calls_make_out(2, out), 0);
        return out.take({ keepAlive });
      },
    };
    for (const [name, make] of Object.entries(capsules)) {
      await t.step(name, async () => {
        const before = await held();
        for (
          const theirs of [there.fromDlpack(wrap(there)), wrap(there)]
        ) {
          const { deleted } = counts();
          const mine = make(theirs);
          theirs[Symbol.dispose]();
          await collectGarbage();
          assertEquals(counts().deleted, deleted, "it is kept");
          using t = fromDlpack(mine);
          assertEquals(t.size, 2);
          t[Symbol.dispose]();
          assertEquals(counts().deleted, deleted + 1, "it is let go");
        }
        assertEquals(await held(), before);
      });
    }
  });

  Deno.test(`Loops with what is ${way} leave nothing behind`, async () => {
    const before = await held();
    const deleted = counts().deleted;
    const theirs = there.fromDlpack(wrap(there));
    const lent = wrap(there);
    const sum = new Float64Array(1);
    for (let i = 0; i < 1000; i++) {
      using _t = fromDlpack(theirs);
      c.calls_sum(theirs);
      c.calls_sum_borrowed(lent);
      c.calls_consume(theirs, sum);
    }
    assertEquals(counts().deleted, deleted);
    theirs[Symbol.dispose]();
    lent[Symbol.dispose]();
    await collectGarbage();
    assertEquals(counts().deleted, deleted + 2);
    assertEquals(await held(), before);
  });
}

// ---- a version that speaks otherwise ----

Deno.test("Another version of the exchange is named, and nothing is used up", async (t) => {
  const before = await held();
  const sum = new Float64Array(1);
  for (
    const { here, there, versions } of [
      { here: ours, there: next, versions: [2, 1] },
      { here: next, there: ours, versions: [1, 2] },
    ]
  ) {
    const c = openBy(here).symbols;
    const { deleted } = counts();
    const capsule = wrap(there);
    const tensor = there.fromDlpack(wrap(there));
    const out = new here.OutCapsule();
    c.calls_make_out(2, out);
    const pointer = Deno.UnsafePointer.offset(capsule.pointer, 32)!;
    const calls: Readonly<Record<string, () => unknown>> = {
      "fromDlpack(capsule)": () => here.fromDlpack(capsule),
      "fromDlpack(tensor)": () => here.fromDlpack(tensor),
      "fromDlpackAsync(tensor)": () => here.fromDlpackAsync(tensor),
      "a capsule that is lent": () => c.calls_sum(capsule),
      "a tensor that is lent": () => c.calls_sum(tensor),
      "a borrowed capsule": () => c.calls_sum_borrowed(capsule),
      "one in an array": () => c.calls_sum_all([tensor], 1),
      "a capsule that is taken over": () => c.calls_consume(capsule, sum),
      "a tensor that is taken over": () => c.calls_consume(tensor, sum),
      "keepAlive of borrow": () =>
        here.DlpackCapsule.borrow(pointer, { keepAlive: tensor }),
      "keepAlive of take": () => out.take({ keepAlive: capsule }),
    };
    for (const [name, call] of Object.entries(calls)) {
      await t.step(`${name} of version ${versions[0]}`, async () => {
        const error = await assertRejects(async () => await call(), TypeError);
        const [theirs, mine] = versions;
        assertStringIncludes(
          error.message,
          "of another copy of @dlpack/deno: that one speaks version " +
            `${theirs} of what copies exchange, this one version ${mine}; have ` +
            "the program import one version of the module",
        );
      });
    }
    await t.step(`nothing is used up of version ${versions[0]}`, async () => {
      await collectGarbage();
      assertEquals(capsule.name, "dltensor_versioned");
      assertEquals(tensor.get(1, 2), 5);
      assertEquals(counts().deleted, deleted);
    });
    // Its own copy goes on with them.
    using t1 = there.fromDlpack(capsule);
    using t2 = there.fromDlpack(tensor);
    assertEquals([t1.get(1, 2), t2.get(1, 2)], [5, 5]);
    using left = out.take();
    assertEquals(left.shape, [2]);
    tensor[Symbol.dispose]();
  }
  assertEquals(await held(), before);
});

Deno.test("Where another copy's tensor is not taken, the message says whose it is", () => {
  const theirs = other.Tensor.from(new Float32Array(2));
  const t = Tensor.from(new Float32Array(2));
  const uses: (() => unknown)[] = [
    () => ours.addressOf(theirs as never),
    () => t.assign(theirs as never),
    () => t.copy({ out: theirs as never }),
    () => t.astype("float32", { out: theirs as never }),
    () => ours.addressOf(theirs.__dlpack__({}) as never),
  ];
  for (const use of uses) {
    const { message } = assertThrows(use, TypeError);
    assertStringIncludes(message, "of another copy of @dlpack/deno");
  }
  // Of this one, and of one that has nothing to do with it.
  class Tensor2 {}
  Object.defineProperty(Tensor2, "name", { value: "Tensor" });
  for (const value of [new Tensor2(), t.slice([0, 1])]) {
    const { message } = assertThrows(() => t.set(0, value as never), TypeError);
    assert(!message.includes("another copy"), message);
  }
});

Deno.test("uploadTo() takes capsules and tensors of another copy", async () => {
  const memory = new Uint8Array(16);
  const nothing = { synchronize() {}, [Symbol.dispose]() {} };
  const { extDev } = ours.DeviceType;
  ours.registerDevice(extDev, {
    name: "a test's device",
    open: () => ({ ...nothing, read() {} }),
    openForWriting: () => ({
      ...nothing,
      write: (at, from) => memory.set(from, at),
    }),
  });
  try {
    const options = { dtype: "float32", shape: [4] } as const;
    const capsule = other.DlpackCapsule.from(0x1000n, {
      ...options,
      device: { type: "extDev", id: 0 },
    });
    const source = other.Tensor.from(Float32Array.of(1, 2, 3, 4));
    await ours.uploadTo(capsule as never, source as never);
    assertEquals([...new Float32Array(memory.buffer)], [1, 2, 3, 4]);
    assertEquals(capsule.name, "dltensor_versioned");
    capsule[Symbol.dispose]();
    const error = await ours.uploadTo(capsule as never, source as never)
      .catch((error) => error);
    assertEquals(error.code, "consumed");
  } finally {
    ours.registerDevice(extDev, null);
  }
});
