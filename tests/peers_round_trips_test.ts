/**
 * Round trips through real libraries: JavaScript hands out a tensor, the
 * library holds it, and hands it back. NumPy runs in this process, through
 * libpython; tvm-ffi is plain C.
 */

import {
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Python } from "@dlpack/deno/python";
import { pythonPath } from "../examples/python.ts";
import {
  assertBufferError,
  bytesOf,
  collectGarbage,
  deletions,
  deletionsInOrder,
  floats,
  importFixture,
  ordersOf,
} from "./helpers.ts";
import { counts } from "./native/fixture.ts";
import { tvm } from "./peers_tvm_ffi.ts";
import { skipped } from "./skipped.ts";

type Name = "dltensor" | "dltensor_versioned";
const names: readonly Name[] = ["dltensor", "dltensor_versioned"];

/** A tensor in the hands of a library. */
interface Held {
  /** The library exports it. */
  give(name: Name): DlpackCapsule;
  /** The library lets go of it. */
  release(): void;
}

/** A consumer that exports what it consumed. */
interface Library {
  readonly dtypes: readonly DType[];
  /** Gives it a tensor; throws when it refuses, and nothing is leaked then. */
  take(capsule: DlpackCapsule): Held;
}

const libraries: Record<string, Library> = {};

/** Exports a tensor as the struct of that name. */
function capsuleOf(t: Tensor, name: Name, copy = false): DlpackCapsule {
  return t.__dlpack__({
    copy,
    maxVersion: name === "dltensor" ? null : [1, 3],
  });
}

// --- NumPy -------------------------------------------------------------------

const python = startPython();

function startPython(): Python | null {
  try {
    const python = Python.open({ executable: pythonPath() });
    python.exec(`
      import json, numpy
      assert numpy.lib.NumpyVersion(numpy.__version__) >= "2.1.0", (
          "NumPy " + numpy.__version__)

      class GivesOnce:
          """Gives a tensor once, as one of the structs, whoever asks for which."""
          def __init__(self, tensor, version):
              self.tensor, self.version = tensor, version

          def __dlpack__(self, **request):
              global requested
              requested = request
              tensor, self.tensor = self.tensor, None
              return tensor.__dlpack__(max_version=self.version)

          def __dlpack_device__(self):
              return (1, 0)

      arrays = {}
    `);
    return python;
  } catch (error) {
    skipped(
      `NumPy in this process (${(error as Error).message})`,
      "pip install 'numpy>=2.1', in a Python that has a shared libpython",
    );
    return null;
  }
}

/** Runs Python statements in the module __main__. */
function run(program: string): void {
  python!.exec(program);
}

/** What a Python expression gives, by way of JSON. */
function evaluate(expression: string): unknown {
  using json = python!.eval(`json.dumps(${expression})`);
  return JSON.parse(String(json));
}

/** Puts a capsule into Python's variable `exporter`, ready to be imported. */
function offer(capsule: DlpackCapsule): void {
  const version = capsule.name === "dltensor" ? "None" : "(1, 0)";
  // As far as Python is to know, a legacy struct may be written.
  python!.set("tensor", capsule.with({ writable: true }));
  run(`exporter = GivesOnce(tensor, ${version}); del tensor`);
}

class NumpyArray implements Held {
  static #count = 0;
  readonly variable = `arrays[${NumpyArray.#count++}]`;

  /** Imports what is in `exporter`. */
  constructor(keywords = "") {
    try {
      run(`${this.variable} = numpy.from_dlpack(exporter, ${keywords})`);
    } finally {
      run("del exporter");
    }
  }

  give(name: Name, copy: boolean | null = null): DlpackCapsule {
    using array = python!.eval(this.variable);
    return array.__dlpack__({
      maxVersion: name === "dltensor" ? null : [1, 0],
      copy,
    });
  }

  release(): void {
    run(`del ${this.variable}`);
  }
}

if (python !== null) {
  libraries["NumPy"] = {
    // deno-fmt-ignore
    dtypes: [
      "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
      "uint64", "float16", "float32", "float64", "complex64", "complex128",
    ],
    take: (capsule) => {
      offer(capsule);
      return new NumpyArray();
    },
  };
}

// --- tvm-ffi -----------------------------------------------------------------

class TvmTensor implements Held {
  readonly handle: Deno.PointerObject;

  constructor(
    capsule: DlpackCapsule,
    { requireAlignment = 0, requireContiguous = false } = {},
  ) {
    const name = capsule.name as Name;
    const from = name === "dltensor"
      ? tvm!.TVMFFITensorFromDLPack
      : tvm!.TVMFFITensorFromDLPackVersioned;
    const struct = capsule.take();
    try {
      this.handle = tvmOut((out) =>
        from(struct, requireAlignment, requireContiguous ? 1 : 0, out)
      );
    } catch (error) {
      // A call that fails leaves the struct with its caller.
      new DlpackCapsule(struct, name)[Symbol.dispose]();
      throw error;
    }
  }

  give(name: Name): DlpackCapsule {
    const to = name === "dltensor"
      ? tvm!.TVMFFITensorToDLPack
      : tvm!.TVMFFITensorToDLPackVersioned;
    return new DlpackCapsule(tvmOut((out) => to(this.handle, out)), name);
  }

  release(): void {
    tvm!.TVMFFIObjectDecRef(this.handle);
  }

  /** Lets go on another thread. */
  async releaseOnThread(): Promise<void> {
    await tvm!.decRefOnThread(this.handle);
  }
}

/** What a function of tvm-ffi gives through its last parameter. */
function tvmOut(
  call: (out: BigUint64Array<ArrayBuffer>) => number,
): Deno.PointerObject {
  const out = new BigUint64Array(1);
  const status = call(out);
  if (status !== 0) tvm!.TVMFFIErrorMoveFromRaised(out);
  const object = Deno.UnsafePointer.create(out[0]!)!;
  if (status === 0) return object;
  // A 24-byte object header, then kind and message as { pointer, length }.
  const error = new Deno.UnsafePointerView(object);
  const message = new Uint8Array(Number(error.getBigUint64(48)));
  new Deno.UnsafePointerView(error.getPointer(40)!).copyInto(message);
  tvm!.TVMFFIObjectDecRef(object);
  throw new Error(new TextDecoder().decode(message));
}

if (tvm !== null) {
  libraries["tvm-ffi"] = {
    dtypes: [
      ...libraries["NumPy"]?.dtypes ?? ["float32", "float64"],
      "bfloat16",
      "float8_e4m3fn",
      "float8_e5m2",
      "float4_e2m1fn",
      "int4",
    ],
    take: (capsule) => new TvmTensor(capsule),
  };
}

// --- Round trips through each ------------------------------------------------

const views: Record<string, (t: Tensor) => Tensor> = {
  "a matrix": (t) => t,
  "a transpose": (t) => t.transpose(),
  "a row": (t) => t.slice(1),
  "a part": (t) => t.slice([1, 3], [2, 5]),
  "every other element, backwards": (t) =>
    t.slice([null, null, -1], [null, null, -2]),
  "a scalar": (t) => t.slice(3, 5),
  "an axis of length 1": (t) => t.slice([1, 2]),
  "nothing": (t) => t.slice([2, 2]),
};

for (const [library, { dtypes, take }] of Object.entries(libraries)) {
  for (const into of names) {
    // NumPy takes a legacy struct as read-only, which no legacy struct can say.
    const outOf = library === "NumPy" && into === "dltensor"
      ? names.slice(1)
      : names;
    for (const back of outOf) {
      const way = `${library} as ${into} and back as ${back}`;

      Deno.test(`A view goes to ${way}`, async (t) => {
        for (const [view, cut] of Object.entries(views)) {
          await t.step(view, () => {
            const live = liveTensors();
            const memory = Float32Array.from({ length: 24 }, (_, i) => i);
            const source = cut(Tensor.from(memory, [4, 6]));
            const held = take(capsuleOf(source, into));
            const tensor = fromDlpack(held.give(back));

            assertEquals(tensor.shape, source.shape);
            if (source.size > 0) assertEquals(tensor.strides, source.strides);
            assertEquals(tensor.toArray(), source.toArray());
            // Of nothing NumPy makes an array of its own.
            if (source.size > 0) {
              const legacy = library === "NumPy" ? [into, back] : [back];
              assertEquals(tensor.readOnly, legacy.includes("dltensor"));
            }
            memory.fill(-7);
            const sevens = new Set([tensor.toArray()].flat(9));
            assertEquals([...sevens], source.size > 0 ? [-7] : []);

            tensor[Symbol.dispose]();
            held.release();
            assertEquals(liveTensors(), live);
          });
        }
      });

      Deno.test(`A stride of 0 goes to ${way}`, () => {
        const memory = Float32Array.of(1, 2, 3);
        const source = Tensor.from(memory, [2, 3], { strides: [0, 1] });
        const held = take(capsuleOf(source, into));
        using tensor = fromDlpack(held.give(back));
        assertEquals(tensor.strides, [0, 1]);
        assertEquals(tensor.toArray(), [[1, 2, 3], [1, 2, 3]]);
        held.release();
      });

      Deno.test(`Every dtype goes to ${way}`, async (t) => {
        for (const dtype of dtypes) {
          await t.step(dtype, () => {
            const numbers = Float64Array.of(0, 1, 2, 3, 1, 0, 6, 7);
            const source = Tensor.from(numbers, [2, 4]).astype(dtype);
            const held = take(capsuleOf(source, into));
            using tensor = fromDlpack(held.give(back));
            assertEquals(tensor.dtype, dtype);
            assertEquals(bytesOf(tensor.data), bytesOf(source.data));
            held.release();
          });
        }
      });

      const orders = ordersOf(["source", "library", "result"]);
      Deno.test(`The deleter runs once after ${way}`, async (t) => {
        for (const order of orders) {
          await t.step(`released in the order ${order.join(", ")}`, () => {
            const live = liveTensors();
            const source = importFixture(floats([2, 3]));
            const held = take(capsuleOf(source.transpose(), into));
            const result = fromDlpack(held.give(back));
            assertEquals(result.toArray(), [[0, 3], [1, 4], [2, 5]]);
            const release: Record<string, () => void> = {
              source: () => source[Symbol.dispose](),
              library: () => held.release(),
              result() {
                assertEquals(result.get(2, 1), 5);
                result[Symbol.dispose]();
              },
            };
            assertEquals(deletionsInOrder(order, release), [0, 0, 1]);
            assertEquals(liveTensors(), live);
          });
        }
      });
    }

    Deno.test(`${library} owns a copy that it takes as ${into}`, () => {
      const memory = Float32Array.of(1, 2, 3, 4);
      const source = Tensor.from(memory, [2, 2]).transpose();
      const held = take(capsuleOf(source, into, true));
      memory.fill(0);
      using tensor = fromDlpack(held.give("dltensor_versioned"));
      assertEquals(tensor.toArray(), [[1, 3], [2, 4]]);
      assertEquals(tensor.strides, [2, 1]);
      held.release();
      assertEquals(tensor.get(1, 1), 4);
    });
  }

  Deno.test(`What is forgotten after ${library} is collected`, async () => {
    const live = liveTensors();
    const before = counts();
    let collected = 0;
    const registry = new FinalizationRegistry(() => collected++);
    (() => {
      for (const name of names) {
        const memory = Float32Array.of(1, 2);
        registry.register(memory.buffer, null);
        for (const t of [Tensor.from(memory), importFixture(floats([2]))]) {
          const held = take(capsuleOf(t, name));
          fromDlpack(held.give("dltensor_versioned"));
          held.release();
        }
      }
    })();
    // First what came back, then what it held.
    await collectGarbage();
    await collectGarbage();
    assertEquals(collected, 2);
    assertEquals(counts(), { ...before, deleted: before.deleted + 2 });
    assertEquals(liveTensors(), live);
  });

  Deno.test(`What ${library} computes and JavaScript writes is one memory`, () => {
    const memory = Float32Array.of(1, 2, 3, 4);
    const source = Tensor.from(memory, [2, 2]);
    const held = take(capsuleOf(source.transpose(), "dltensor_versioned"));
    using tensor = fromDlpack(held.give("dltensor_versioned"));
    assert(tensor.is("float32"));
    tensor.set(0, 1, 30);
    assertEquals([...memory], [1, 2, 30, 4]);
    tensor.data[3] = 40;
    assertEquals(source.get(1, 1), 40);
    held.release();
  });
}

// --- NumPy alone -------------------------------------------------------------

function numpyTest(
  name: string,
  test: (t: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({ name: `NumPy: ${name}`, ignore: python === null, fn: test });
}

numpyTest("arithmetic in place is seen in JavaScript", () => {
  const memory = Float32Array.from({ length: 6 }, (_, i) => i);
  const t = Tensor.from(memory, [2, 3]);
  offer(t.transpose().__dlpack__({ maxVersion: [1, 0] }));
  const x = new NumpyArray();
  assertEquals(
    evaluate(`(${x.variable}.shape, ${x.variable}.strides)`),
    [[3, 2], [4, 12]],
  );
  run(`${x.variable} *= 10; ${x.variable}[0] += 1`);
  assertEquals([...memory], [1, 10, 20, 31, 40, 50]);
  memory[5] = -1;
  assertEquals(evaluate(`${x.variable}.tolist()`), [[1, 31], [10, 40], [
    20,
    -1,
  ]]);
  x.release();
});

numpyTest("it asks as the array API says, and gets what it asks for", () => {
  const t = Tensor.from(Float32Array.of(1, 2));
  const asked = (keywords: string): unknown => {
    offer(t.__dlpack__({ maxVersion: [1, 0] }));
    new NumpyArray(keywords).release();
    return evaluate("requested");
  };
  assertEquals(asked(""), { dl_device: null, copy: null, max_version: [1, 0] });
  assertEquals(asked("device='cpu', copy=False"), {
    dl_device: [1, 0],
    copy: false,
    max_version: [1, 0],
  });
  const request = asked("copy=True") as { copy: boolean };
  offer(t.__dlpack__({ maxVersion: [1, 0], copy: request.copy }));
  const x = new NumpyArray("copy=True");
  run(`${x.variable}[:] = 5`);
  assertEquals(t.toArray(), [1, 2]);
  x.release();
});

numpyTest("read-only stays so, there and back", () => {
  const t = Tensor.from(Float32Array.of(1, 2), [2], { readOnly: true });
  offer(t.__dlpack__({ maxVersion: [1, 0] }));
  const x = new NumpyArray();
  const writeable = `${x.variable}.flags.writeable`;
  assertEquals(evaluate(writeable), false);
  {
    using back = fromDlpack(x.give("dltensor_versioned"));
    assert(back.is("float32") && back.readOnly);
    assertBufferError(() => back.set(0, 1), "readonly");
    using copied = fromDlpack(x.give("dltensor_versioned", true));
    assertEquals(copied.readOnly, false);
  }
  x.release();

  offer(t.__dlpack__({ copy: true, maxVersion: [1, 0] }));
  const copy = new NumpyArray();
  assertEquals(evaluate(`${copy.variable}.flags.writeable`), true);
  copy.release();
});

numpyTest("a part that is left in Python keeps the memory", () => {
  const t = importFixture(floats([4, 6]));
  offer(t.__dlpack__({ maxVersion: [1, 0] }));
  const x = new NumpyArray();
  t[Symbol.dispose]();
  const kept = deletions(() => {
    run(`part = ${x.variable}[1:, ::2]`);
    x.release();
    assertEquals(evaluate("float(part.sum())"), 126);
  });
  assertEquals(kept, 0);
  assertEquals(deletions(() => run("del part")), 1);
});

numpyTest("a tensor that it refuses is released once", () => {
  for (const name of names) {
    const t = importFixture(floats([2], { dtype: [4, 16, 1] }));
    offer(capsuleOf(t, name));
    t[Symbol.dispose]();
    const deleted = deletions(() => {
      const error = assertThrows(() => new NumpyArray(), Error);
      assertStringIncludes(error.message, "Unsupported dtype");
    });
    assertEquals(deleted, 1);
  }
});

numpyTest("a capsule that nobody consumes is released once", () => {
  for (const name of names) {
    const t = importFixture(floats([2]));
    offer(capsuleOf(t, name));
    t[Symbol.dispose]();
    assertEquals(deletions(() => run("del exporter")), 1);
  }
});

numpyTest("a copy may be freed by another thread of Python", () => {
  for (const name of names) {
    offer(capsuleOf(Tensor.from(new Float32Array(1000)), name, true));
    const x = new NumpyArray();
    // This thread waits in Python: no JavaScript can run meanwhile.
    run(`
import threading
def forget(): del ${x.variable}
thread = threading.Thread(target=forget)
thread.start()
thread.join()`);
    assertEquals(evaluate("len(arrays)"), 0);
  }
});

// --- tvm-ffi alone -----------------------------------------------------------

function tvmTest(name: string, test: () => void | Promise<void>): void {
  Deno.test({ name: `tvm-ffi: ${name}`, ignore: tvm === null, fn: test });
}

for (const name of names) {
  tvmTest(`a ${name} that it refuses is the caller's, released once`, () => {
    const cases: [(t: Tensor) => Tensor, Record<string, unknown>, string][] = [
      [(t) => t.transpose(), { requireContiguous: true }, "not contiguous"],
      [(t) => t.slice(0, [1, 3]), { requireAlignment: 64 }, "not aligned"],
    ];
    for (const [cut, requirements, message] of cases) {
      const live = liveTensors();
      const t = importFixture(floats([2, 3]));
      const own = Tensor.from(new Float32Array(6), [2, 3]);
      const deleted = deletions(() => {
        for (const source of [t, own]) {
          const error = assertThrows(
            () => new TvmTensor(capsuleOf(cut(source), name), requirements),
            Error,
          );
          assertStringIncludes(error.message, message);
        }
        assertEquals(t.get(1, 2), 5);
      });
      assertEquals(deleted, 0);
      assertEquals(deletions(() => t[Symbol.dispose]()), 1);
      assertEquals(liveTensors(), live);
    }
  });

  tvmTest(`a copy as ${name} has the alignment that it requires`, () => {
    const t = Tensor.from(new Float32Array(7)).slice([1, 6, 2]);
    const requirements = { requireAlignment: 64, requireContiguous: true };
    new TvmTensor(capsuleOf(t, name, true), requirements).release();
  });

  tvmTest(`a ${name} may be let go on another thread`, async () => {
    const { deleted } = counts();
    const t = importFixture(floats([2, 3]));
    const held = new TvmTensor(capsuleOf(t, name));
    const result = fromDlpack(held.give(name));
    t[Symbol.dispose]();
    await held.releaseOnThread();
    assertEquals([counts().deleted, result.get(1, 2)], [deleted, 5]);
    result[Symbol.dispose]();
    assertEquals(counts().deleted, deleted + 1);

    await new TvmTensor(capsuleOf(importFixture(floats([2])), name))
      .releaseOnThread();
    await new TvmTensor(capsuleOf(Tensor.from(new Float32Array(2)), name, true))
      .releaseOnThread();
    await collectGarbage();
    assertEquals(counts().deleted, deleted + 2);
  });
}

tvmTest("padded elements are refused and released", () => {
  const t = importFixture({
    dtype: [0, 4, 1],
    shape: [2],
    nbytes: 2,
    flags: 4,
  });
  const capsule = capsuleOf(t, "dltensor_versioned");
  t[Symbol.dispose]();
  const deleted = deletions(() => {
    const error = assertThrows(() => new TvmTensor(capsule), Error);
    assertStringIncludes(error.message, "padded");
  });
  assertEquals(deleted, 1);
});
