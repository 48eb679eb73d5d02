/** Values of TVM-FFI: in, out, and what is refused. */

import {
  addressOf,
  BufferError,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  dtype,
  float,
  shape,
  TvmFfiDType,
  TvmFfiError,
  TvmFfiObject,
} from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { countsOf } from "../src/tvm_ffi/binding.ts";
import { collectGarbage, deletions, floats, importFixture } from "./helpers.ts";
import { assertTvmError, k, tvmTest } from "./tvm_ffi.ts";

const [NONE, INT, BOOL, FLOAT, POINTER, DTYPE, DEVICE] = [0, 1, 2, 3, 4, 5, 6];
const [SMALL_STR, SMALL_BYTES, STR, BYTES, FUNCTION, SHAPE, TENSOR] = [
  11,
  12,
  65,
  66,
  68,
  69,
  70,
];
const [ARRAY, MAP] = [71, 72];

const longText = "ä long text that is in an object of its own \0 \u{1f600}";

for (
  const [what, value, type, out] of [
    ["nothing", null, NONE, null],
    ["true", true, BOOL, true],
    ["false", false, BOOL, false],
    ["an integer number", 3, INT, 3n],
    ["a negative one", -3, INT, -3n],
    ["a number of 53 bits", 2 ** 53, INT, 2n ** 53n],
    ["a bigint", -(2n ** 63n), INT, -(2n ** 63n)],
    ["the largest", 2n ** 63n - 1n, INT, 2n ** 63n - 1n],
    ["a number with a fraction", 0.1, FLOAT, 0.1],
    ["an infinite number", -Infinity, FLOAT, -Infinity],
    ["NaN", NaN, FLOAT, NaN],
    ["an integer as a float", float(2), FLOAT, 2],
    ["a large integer as a float", float(1e300), FLOAT, 1e300],
    ["no text", "", SMALL_STR, ""],
    ["7 bytes of text", "1234567", SMALL_STR, "1234567"],
    ["8 bytes of text", "12345678", STR, "12345678"],
    ["text with a NUL and beyond ASCII", longText, STR, longText],
    ["very long text", "ä".repeat(5000), STR, "ä".repeat(5000)],
    ["text that begins with U+FEFF", "\ufeffmore text", STR, "\ufeffmore text"],
    ["no bytes", new Uint8Array(0), SMALL_BYTES, new Uint8Array(0)],
    ["bytes", new Uint8Array([0, 255]), SMALL_BYTES, new Uint8Array([0, 255])],
    [
      "more bytes",
      new Uint8Array(99).fill(7),
      BYTES,
      new Uint8Array(99).fill(7),
    ],
    [
      "a part of bytes",
      new Uint8Array([1, 2, 3]).subarray(1),
      SMALL_BYTES,
      new Uint8Array([2, 3]),
    ],
    ["a dtype", dtype("bfloat16"), DTYPE, dtype("bfloat16")],
    ["a dtype with lanes", dtype("float32x4"), DTYPE, dtype("float32x4")],
    ["a device", { type: "cuda", id: 3 }, DEVICE, { type: "cuda", id: 3 }],
    ["an empty array", [], ARRAY, []],
    ["an array", [1, "two", [3, [null, true]]], ARRAY, [1n, "two", [3n, [
      null,
      true,
    ]]]],
    [
      "a map",
      new Map<unknown, unknown>([["a", 1], [2, ["b"]]]),
      MAP,
      new Map<unknown, unknown>([["a", 1n], [2n, ["b"]]]),
    ],
    ["an empty map", new Map(), MAP, new Map()],
    [
      "a map in a map",
      new Map([["m", new Map([[1, 2]])]]),
      MAP,
      new Map([["m", new Map([[1n, 2n]])]]),
    ],
    ["a shape", shape([2, 3n]), SHAPE, [2n, 3n]],
    ["a shape without axes", shape([]), SHAPE, []],
  ] as const
) {
  tvmTest(`${what} goes in and comes out`, () => {
    assertEquals(k.type_of(value), BigInt(type));
    assertEquals(k.identity(value), out);
    // In an array, and among more arguments than the first four.
    assertEquals(k.identity([value]), [out]);
  });
}

tvmTest("a shape that came out goes in as one", () => {
  const out = k.identity(shape([4, 5]));
  assert(Object.isFrozen(out));
  assertEquals(k.type_of(out), BigInt(SHAPE));
  assertEquals(k.type_of([...out]), BigInt(ARRAY));
});

tvmTest("a pointer goes in and comes out", () => {
  const pointer = k.pointer_to(0x1000n);
  assertEquals(Deno.UnsafePointer.value(pointer), 0x1000n);
  assertEquals(k.type_of(pointer), BigInt(POINTER));
  assert(Deno.UnsafePointer.equals(k.identity(pointer), pointer));
  assertEquals(k.pointer_to(0n), null);
});

tvmTest("integers beyond 64 bits come out as they are", () => {
  for (const n of [62, 63, 64, 127, 128, 500]) {
    assertEquals(k.power_of_two(n), 2n ** BigInt(n));
  }
});

tvmTest("many arguments", (ffi) => {
  using array = ffi.globalFunction("ffi.Array")!;
  const many = Array.from({ length: 100 }, (_, i) => i);
  assertEquals(array(...many), many.map(BigInt));
  for (const count of [0, 1, 2, 3, 4, 5, 15, 16, 17]) {
    assertEquals(array(...many.slice(0, count)).length, count);
  }
  const words = Array.from({ length: 50_000 }, (_, i) => `word number ${i}`);
  assertEquals(array(words, words)[1], words);
});

for (
  const [what, value, Class, message] of [
    [
      "2**63",
      2n ** 63n,
      RangeError,
      'Cannot pass 9223372036854775808n as argument 0 of "identity": an int has 64 bits',
    ],
    ["an int too low", -(2n ** 63n) - 1n, RangeError, "an int has 64 bits"],
    ["a number too large", 2 ** 63, RangeError, "for a float pass float(x)"],
    ["undefined", undefined, TypeError, "for nothing pass null"],
    ["a symbol", Symbol("s"), TypeError, "for nothing pass null"],
    ["half a surrogate pair", "\ud800", TypeError, "it has no UTF-8"],
    [
      "a typed array",
      new Float32Array(2),
      TypeError,
      "pass Tensor.from() of it",
    ],
    [
      "an ArrayBuffer",
      new ArrayBuffer(2),
      TypeError,
      "pass a Uint8Array of it",
    ],
    ["an object", { a: 1 }, TypeError, "pass new Map(Object.entries(x))"],
    ["a Promise", Promise.resolve(1), TypeError, "await it before"],
    ["a Date", new Date(), TypeError, "Cannot pass a Date as argument 0"],
    [
      "something in an array",
      [1, [undefined]],
      TypeError,
      'as element 0 of element 1 of argument 0 of "identity"',
    ],
    [
      "something in a map",
      new Map([["k", {}]]),
      TypeError,
      'the value of "k" of argument 0',
    ],
  ] as const
) {
  tvmTest(`${what} is refused before the call`, () => {
    const error = assertThrows(() => k.identity(value), Class);
    assert(error.message.includes(message), error.message);
    // What was made of other arguments is given up.
    assertThrows(() => k.call("long text that is an object", value), Class);
  });
}

tvmTest("what is no name, lengths or number is refused", (ffi) => {
  assertThrows(() => dtype("float31"), TypeError, "There is no dtype");
  assertThrows(() => dtype("float32x0"), TypeError, "There is no dtype");
  assertThrows(() => float("1" as never), TypeError, "pass a number");
  assertThrows(() => shape([1.5]), TypeError, "lengths are integers");
  assertThrows(() => shape(3 as never), TypeError, "an array of integers");
  assertThrows(() => ffi.globalFunction(3 as never), TypeError, "its name");
  assertThrows(() => ffi.type(null as never), TypeError, "its name");
  assertThrows(() => new TvmFfiObject(null, null), TypeError, "type()");
});

tvmTest("dtypes have names", () => {
  const out = k.identity(dtype("float8_e4m3fn"));
  assert(out instanceof TvmFfiDType);
  assertEquals(out === dtype("float8_e4m3fn"), true);
  assertEquals([out.name, out.bits, out.lanes], ["float8_e4m3fn", 8, 1]);
  assertEquals(`${dtype("int8x4")}`, "int8x4");
  assertEquals(Deno.inspect(out), "TvmFfiDType float8_e4m3fn");
});

// --- tensors -----------------------------------------------------------------------

tvmTest(
  "a tensor goes in as an object, and comes out as the same memory",
  () => {
    const x = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
    assertEquals(k.type_of(x), BigInt(TENSOR));
    for (
      const view of [
        x,
        x.transpose(),
        x.slice(1),
        x.slice(null, [null, null, -2]),
      ]
    ) {
      using out: Tensor = k.identity(view);
      assertEquals(addressOf(out), addressOf(view));
      assertEquals(out.toArray(), view.toArray());
      assertEquals([out.dtype, out.readOnly], ["float32", false]);
    }
    using out: Tensor = k.identity(x);
    out.set(0, 0, 100);
    assertEquals(x.get(0, 0), 100);
  },
);

tvmTest("tensors without axes or elements go in, too", () => {
  for (const lengths of [[], [0], [2, 0, 3]]) {
    const x = Tensor.zeros(lengths, "int32");
    using out: Tensor = k.identity(x);
    assertEquals(out.shape, lengths);
    using again: Tensor = k.identity([out])[0];
    assertEquals(again.toArray(), x.toArray());
  }
});

tvmTest("functions of C++ read and write tensors", () => {
  const x = Tensor.from(new Float32Array([1, 2, 3]));
  const y = Tensor.zeros([3], "float32");
  assertEquals(k.add_one(x, y), null);
  assertEquals(y.toArray(), [2, 3, 4]);
  // Memory of a library, too.
  using native = importFixture(floats([3]));
  k.add_one(native, y);
  assertEquals(y.toArray(), [1, 2, 3]);
});

tvmTest("a read-only tensor is not known to be: the ABI cannot say", () => {
  const x = Tensor.from(new Float32Array([1]), [1], { readOnly: true });
  k.add_one(x, x);
  assertEquals(x.get(0), 2);
});

tvmTest("what C++ says of arguments is thrown", () => {
  const x = Tensor.zeros([3], "float32");
  for (
    const [args, kind, message] of [
      [[x], "TypeError", "Expected 2 but got 1 arguments"],
      [[x, x, x], "TypeError", "Expected 2 but got 3 arguments"],
      [[x, 1], "TypeError", "Mismatched type on argument #1"],
      [[Tensor.zeros([3], "int8"), x], "TypeError", "x must be float32"],
      [[x, Tensor.zeros([2], "float32")], "ValueError", "sizes differ"],
    ] as const
  ) {
    try {
      k.add_one(...args);
      throw new Error("Nothing was thrown");
    } catch (error) {
      assert(error instanceof TvmFfiError, String(error));
      assertEquals([error.kind, error.message.includes(message)], [kind, true]);
    }
  }
});

tvmTest("a tensor on another device is the function's to refuse", () => {
  using capsule: DlpackCapsule = k.on_cuda(3);
  const x = Tensor.zeros([3], "float32");
  assertTvmError(() => k.add_one(capsule, x), "ValueError", "not on the CPU");
});

tvmTest(
  "a tensor has one object, to its dispose or until it is garbage",
  async (ffi) => {
    const count =
      () => [countsOf(ffi).references, liveTensors().exported.count];
    const [references, exported] = count();
    const x = Tensor.zeros([2], "float32");
    using native = importFixture(floats([2]));
    for (let i = 0; i < 10; i++) k.add_one(x, native);
    assertEquals(count(), [references! + 2, exported! + 2]);
    // A view is another tensor; all go together.
    k.add_one(x.slice([0, 2]), native.slice([0, 2]));
    assertEquals(count(), [references! + 4, exported! + 4]);
    x[Symbol.dispose]();
    assertEquals(deletions(() => native[Symbol.dispose]()), 1);
    assertEquals(count(), [references!, exported!]);
    // What the library keeps is kept: memory of JavaScript and of others.
    const y = importFixture(floats([2]));
    const z = Tensor.from(new Float32Array([5, 6]));
    k.keep([y, z]);
    assertEquals(deletions(() => y[Symbol.dispose]()), 0);
    z[Symbol.dispose]();
    await collectGarbage();
    const [a, b] = k.get_kept();
    assertEquals([a.toArray(), b.toArray()], [[0, 1], [5, 6]]);
    b[Symbol.dispose]();
    a[Symbol.dispose]();
    assertEquals(deletions(() => k.keep(null)), 1);
    assertEquals(count(), [references!, exported!]);
    (() => {
      for (let i = 0; i < 50; i++) {
        k.add_one(Tensor.zeros([2], "float32"), importFixture(floats([2])));
      }
    })();
    assertEquals(count()[0]! > references! + 50, true);
    for (let i = 0; i < 5; i++) await collectGarbage();
    assertEquals(count(), [references!, exported!]);
  },
);

tvmTest("a tensor can be given away after it was lent", () => {
  using native = importFixture(floats([2]));
  k.identity([native]).forEach((t: Tensor) => t[Symbol.dispose]());
  using capsule = native.release();
  k.add_one(capsule, capsule);
  using again = fromDlpack(capsule);
  assertEquals(again.toArray(), [1, 2]);
});

tvmTest("tensors of C++ come out, and are freed once", () => {
  const before = k.live_count();
  const t: Tensor = k.count_up(4);
  assertEquals([t.toArray(), t.readOnly], [[0, 1, 2, 3], false]);
  const again: Tensor = k.identity(t);
  t[Symbol.dispose]();
  assertEquals(again.toArray(), [0, 1, 2, 3]);
  assertEquals(k.live_count(), before + 1n);
  again[Symbol.dispose]();
  assertEquals(k.live_count(), before);
});

tvmTest("tensors of a device come out as capsules, and go in again", () => {
  const before = k.live_count();
  const capsule: DlpackCapsule = k.on_cuda(5);
  assert(capsule instanceof DlpackCapsule);
  assertEquals([capsule.device, capsule.shape], [{ type: "cuda", id: 0 }, [5]]);
  const again: DlpackCapsule = k.identity(capsule);
  assertEquals(addressOf(again), addressOf(capsule));
  assertEquals(capsule.name, "dltensor_versioned");
  // The object that was made for the call goes when the capsule is used.
  again[Symbol.dispose]();
  const taken = new DlpackCapsule(capsule.take(), "dltensor_versioned");
  assertEquals(k.live_count(), before + 1n);
  taken[Symbol.dispose]();
  assertEquals(k.live_count(), before);
});

tvmTest("a capsule of host memory goes in, and stays unconsumed", () => {
  const x = Tensor.from(new Float32Array([1, 2]));
  const y = Tensor.zeros([2], "float32");
  for (const maxVersion of [null, [1, 0]] as const) {
    using capsule = x.__dlpack__({ maxVersion });
    k.add_one(capsule, y);
    k.add_one(capsule, y);
    assertEquals(y.toArray(), [2, 3]);
    using t = fromDlpack(capsule);
    assertEquals(t.toArray(), [1, 2]);
  }
});

tvmTest("anything that exports a tensor goes in", () => {
  const y = Tensor.zeros([2], "float32");
  for (const maxVersion of [null, [1, 0]] as const) {
    const exporter = {
      __dlpack__: () =>
        Tensor.from(new Float32Array([5, 6])).__dlpack__({ maxVersion }),
      __dlpack_device__: () => [1, 0] as const,
    };
    k.add_one(exporter, y);
    assertEquals(y.toArray(), [6, 7]);
  }
});

tvmTest(
  "a disposed tensor, a used capsule and a transferred buffer are refused",
  () => {
    const y = Tensor.zeros([2], "float32");
    for (
      const spoil of [
        (t: Tensor) => t[Symbol.dispose](),
        (t: Tensor) =>
          void structuredClone(t.data.buffer, { transfer: [t.data.buffer] }),
      ]
    ) {
      const x = Tensor.from(new Float32Array([1, 2]));
      k.add_one(x, y);
      spoil(x);
      assertThrows(() => k.add_one(x, y), BufferError, "Cannot use a tensor");
      x[Symbol.dispose]();
    }
    const capsule = y.__dlpack__({ maxVersion: [1, 0] });
    capsule[Symbol.dispose]();
    assertThrows(() => k.identity(capsule), BufferError, "used before");
  },
);

tvmTest("C++ allocates tensors of the host by its environment", () => {
  using t: Tensor = k.allocated([2, 3], "float64", { type: "cpu", id: 0 });
  assertEquals([t.dtype, t.shape, t.readOnly], ["float64", [2, 3], false]);
  assertEquals(Number(addressOf(t) % 64n), 0);
  t.assign(3);
  using lanes: Tensor = k.allocated([2], "int8x4", "cpu");
  assertEquals(lanes.shape, [2, 4]);
  using none: Tensor = k.allocated([0, 3], dtype("int8"), "cpu");
  assertEquals(none.toArray(), []);
  try {
    k.allocated([2], "float32", "cuda:0");
    throw new Error("Nothing was thrown");
  } catch (error) {
    assert(error instanceof TvmFfiError);
    assertEquals(
      error.message,
      "Cannot allocate a tensor on cuda:0: pass one of that device to the function, for its result",
    );
  }
});

tvmTest(
  "what comes before an element that cannot be received is given up",
  () => {
    const before = k.live_count();
    assertThrows(() => k.partly_bad(), TypeError, "not UTF-8");
    assertEquals(k.live_count(), before);
  },
);

tvmTest("containers of everything come out", () => {
  const before = k.live_count();
  const out: Map<string, unknown> = k.nested();
  assertEquals([...out.keys()].sort(), ["closures", "shape", "tensor"]);
  const [one, ten] = out.get("closures") as (() => bigint)[];
  assertEquals([one!(), one!(), ten!(), one!()], [1n, 2n, 10n, 3n]);
  assertEquals(k.type_of(one), BigInt(FUNCTION));
  assertEquals((out.get("tensor") as Tensor).toArray(), [0, 1, 2]);
  assertEquals(out.get("shape"), [2n, 3n]);
  assertEquals(k.live_count(), before + 3n);
  for (const f of [one, ten]) (f as unknown as Disposable)[Symbol.dispose]();
  (out.get("tensor") as Tensor)[Symbol.dispose]();
  assertEquals(k.live_count(), before);
});

tvmTest(
  "lists and dicts are the library's own, and show what they have",
  (ffi) => {
    using makeList = ffi.globalFunction("ffi.List")!;
    using append = ffi.globalFunction("ffi.ListAppend")!;
    using list = makeList(1, "two");
    append(list, [3]);
    assertEquals([...list], [1n, "two", [3n]]);
    assertEquals(Deno.inspect(list), 'ffi.List(3) [ 1n, "two", [ 3n ] ]');
    using makeDict = ffi.globalFunction("ffi.Dict")!;
    using dict = makeDict("a", 1, 2, "b");
    assertEquals(
      new Map(dict),
      new Map<unknown, unknown>([["a", 1n], [2n, "b"]]),
    );
    assertEquals(Deno.inspect(dict), 'ffi.Dict(2) { "a" => 1n, 2n => "b" }');
    using empty = makeDict();
    assertEquals([...empty], []);
    using none = makeList();
    assertEquals(
      [none, empty].map((one) => Deno.inspect(one)),
      ["ffi.List(0) []", "ffi.Dict(0) {}"],
    );
    none[Symbol.dispose]();
    assertEquals(Deno.inspect(none), "ffi.List, disposed");
  },
);

tvmTest("console.log shows large and nested containers as arrays", (ffi) => {
  using makeList = ffi.globalFunction("ffi.List")!;
  using append = ffi.globalFunction("ffi.ListAppend")!;
  using clear = ffi.globalFunction("ffi.ListClear")!;
  using makeDict = ffi.globalFunction("ffi.Dict")!;
  const numbers = Array.from({ length: 250 }, (_, i) => BigInt(i));
  using long = makeList(...numbers);
  for (const iterableLimit of [100, 249, 250, 3, 0, Infinity]) {
    for (const colors of [false, true]) {
      assertEquals(
        Deno.inspect(long, { iterableLimit, colors }),
        `ffi.List(250) ${Deno.inspect(numbers, { iterableLimit, colors })}`,
      );
    }
  }
  const pairs = numbers.map((i) => [i, "... 1 more item"] as const);
  using dict = makeDict(...pairs.flat());
  assertEquals(
    Deno.inspect(dict),
    `ffi.Dict(250) ${Deno.inspect(new Map(pairs)).slice("Map(250) ".length)}`,
  );

  // Of what is shown nothing is kept.
  using f = k.closure(1);
  using one = makeList(f, Tensor.zeros([2], "int8"), long);
  using deep = makeList(makeList(makeList(1)));
  const counts = () => [
    countsOf(ffi).references,
    liveTensors().count,
    k.strong_count(f),
    k.strong_count(long),
  ];
  const before = counts();
  const text = Deno.inspect(one);
  assertEquals(counts(), before);
  assert(text.startsWith("ffi.List(3) [\n  TvmFfiFunction,\n  Tensor"), text);
  assert(text.includes("ffi.List(250) ["), text);

  const shallow = (depth: number) => Deno.inspect({ deep }, { depth });
  assertEquals(shallow(0), "{ deep: [ffi.List] }");
  assertEquals(shallow(1), "{ deep: ffi.List(1) [ [ffi.List] ] }");
  assertEquals(
    shallow(5),
    "{ deep: ffi.List(1) [ ffi.List(1) [ ffi.List(1) [ 1n ] ] ] }",
  );
  // A list may have itself.
  append(deep, [deep]);
  for (const depth of [9, Infinity]) {
    assert(Deno.inspect(deep, { depth }).includes("[Circular]"));
  }
  clear(deep);
  // What cannot be received has no text.
  using bad = k.bad_list();
  assertEquals(Deno.inspect(bad), "ffi.List(2) ?");
});

tvmTest("A tensor that was passed is what it was", () => {
  const [passed, other] = [1, 2].map(() =>
    Tensor.from(new Float32Array([1, 2]))
  ) as [Tensor, Tensor];
  k.type_of(passed);
  assertEquals(passed, other);
  assertEquals(Reflect.ownKeys(passed), Reflect.ownKeys(other));
});
