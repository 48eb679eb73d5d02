// Tensor: making, indexing, views, printing, disposing, releasing, exporting.

import {
  BufferError,
  type BufferErrorCode,
  DeviceType,
  DlpackCapsule,
  type DlpackCapsule as Capsule,
  type DlpackRequest,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
  type TensorOptions,
  type TypedArray,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import { bytesOf } from "./helpers.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";
import { Random } from "./random.ts";

/** 0, 1, …, 5 as float32. */
const six = Float32Array.from({ length: 6 }, (_, i) => i);

/** A managed tensor of shape [2, 3] that holds these. */
const float32: FixtureSpec = {
  dtype: [2, 32, 1],
  shape: [2, 3],
  strides: [3, 1],
  nbytes: six.byteLength,
  data: new Uint8Array(six.buffer),
};

/** `DLPACK_FLAG_BITMASK_READ_ONLY` */
const READ_ONLY = 1;
/** `DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED` */
const PADDED = 4;

function load(spec: FixtureSpec = float32): Tensor {
  return fromDlpack(new DlpackCapsule(make(spec), "dltensor_versioned"));
}

function assertBufferError(
  attempt: () => unknown,
  code: BufferErrorCode,
  message = "",
): void {
  assertEquals(assertThrows(attempt, BufferError, message).code, code);
}

/** Where a typed array begins in memory. */
function addressOf(data: TypedArray): bigint {
  const pointer = Deno.UnsafePointer.of(data as Uint8Array<ArrayBuffer>);
  return Deno.UnsafePointer.value(pointer);
}

Deno.test("Tensor.from takes dtype and shape from the typed array", async (t) => {
  const cases: [TypedArray, DType][] = [
    [new Int8Array(3), "int8"],
    [new Uint8Array(3), "uint8"],
    [new Uint8ClampedArray(3), "uint8"],
    [new Int16Array(3), "int16"],
    [new Uint16Array(3), "uint16"],
    [new Int32Array(3), "int32"],
    [new Uint32Array(3), "uint32"],
    [new BigInt64Array(3), "int64"],
    [new BigUint64Array(3), "uint64"],
    [new Float16Array(3), "float16"],
    [new Float32Array(3), "float32"],
    [new Float64Array(3), "float64"],
  ];
  for (const [data, dtype] of cases) {
    await t.step(dtype, () => {
      const t = Tensor.from(data);
      assertEquals(t.dtype, dtype);
      assertEquals(t.shape, [3]);
      assertEquals(t.strides, [1]);
      assertEquals([t.offset, t.ndim, t.size], [0, 1, 3]);
      assertEquals(t.bits, 8 * data.BYTES_PER_ELEMENT);
      assertEquals(t.itemsize, data.BYTES_PER_ELEMENT);
      assertEquals(t.nbytes, data.byteLength);
      assertEquals(t.device, { type: "cpu", id: 0 });
      assertEquals(t.__dlpack_device__(), [DeviceType.cpu, 0]);
      assertEquals([t.readOnly, t.isContiguous], [false, true]);
      assert(t.data.buffer === data.buffer);
      if (!(data instanceof Uint8ClampedArray)) assert(t.data === data);
    });
  }
});

Deno.test("Tensor.from counts the elements of a typed array by dtype", () => {
  // deno-lint-ignore no-explicit-any
  const cases: [TypedArray, any, elements: number][] = [
    [new Float32Array(4), { dtype: "complex64" }, 2],
    [new Float16Array(6), { dtype: "complex32" }, 3],
    [new Float64Array(0), { dtype: "complex128" }, 0],
    [new Uint16Array(3), { dtype: "bfloat16" }, 3],
    [new Uint8Array(3), { dtype: "float8_e5m2" }, 3],
    [new Uint8Array(3), { dtype: "uint1" }, 24],
    [new Uint8Array(3), { dtype: "int4" }, 6],
    [new Uint8Array(3), { dtype: "int4", padded: true }, 3],
    [new Uint8Array(1), { dtype: "float6_e3m2fn" }, 1],
    [new Uint8Array(2), { dtype: "float6_e3m2fn" }, 2],
    [new Uint8Array(3), { dtype: "float6_e3m2fn" }, 4],
    [new Uint8Array(3), { dtype: "float6_e3m2fn", padded: true }, 3],
    [new Uint8Array(0), {}, 0],
  ];
  for (const [data, options, elements] of cases) {
    const t = Tensor.from(data, undefined, options);
    assertEquals(t.shape, [elements], options.dtype);
    // One more would lie outside.
    assertThrows(() => Tensor.from(data, [elements + 1], options), RangeError);
  }
  assertThrows(
    () => Tensor.from(new Float32Array(5), undefined, { dtype: "complex64" }),
    RangeError,
    "shape [2]: it takes 4 entries of data, which has 5",
  );
});

Deno.test("Tensor.from takes strides and an offset in elements", () => {
  const reversed = Tensor.from(six, [2, 3], { strides: [-3, -1], offset: 5 });
  assertEquals(reversed.toArray(), [[5, 4, 3], [2, 1, 0]]);
  const columns = Tensor.from(six, [3, 2], { strides: [1, 3] });
  assertEquals(columns.toArray(), [[0, 3], [1, 4], [2, 5]]);
  const broadcast = Tensor.from(six, [2, 2], { strides: [0, 1], offset: 4 });
  assertEquals(broadcast.toArray(), [[4, 5], [4, 5]]);
  const part = Tensor.from(six.subarray(2), [2], { offset: 1 });
  assertEquals(part.toArray(), [3, 4]);
  const complex = Tensor.from(six, [2], { dtype: "complex64", offset: 1 });
  assertEquals(complex.toArray(), [{ re: 2, im: 3 }, { re: 4, im: 5 }]);
  const empty = Tensor.from(six, [0], { offset: 100 });
  assertEquals(empty.toArray(), []);
  const scalar = Tensor.from(six, [], { offset: 3 });
  assertEquals(scalar.get(), 3);
});

Deno.test("Tensor.from does not see later changes of its arguments", () => {
  const shape = [2, 3];
  const strides = [3, 1];
  const t = Tensor.from(six, shape, { strides });
  shape[0] = 100;
  strides[0] = 100;
  assertEquals([t.shape, t.strides], [[2, 3], [3, 1]]);
});

Deno.test("Tensor.from throws when an element would lie outside", () => {
  const cases: [number[], TensorOptions<"float32">, string][] = [
    [[7], {}, "it spans the elements 0 to 6, data has 6"],
    [[2, 4], {}, "shape [2, 4]: it spans the elements 0 to 7, data has 6"],
    [[], { offset: 6 }, "it spans the elements 6 to 6, data has 6"],
    [[], { offset: -1 }, "it spans the elements -1 to -1, data has 6"],
    [[2], { strides: [-1] }, "it spans the elements -1 to 0, data has 6"],
    [[3], { strides: [2], offset: 2 }, "it spans the elements 2 to 6"],
    [[2, 3], { strides: [1] }, "2 lengths but 1 strides"],
    [[-1], {}, "lengths must be integers from 0"],
    [[1.5], {}, "The shape at axis 0 must be an integer, not 1.5"],
    [[NaN], {}, "The shape at axis 0 must be an integer, not NaN"],
    [[2], { strides: [0.5] }, "The strides at axis 0 must be an integer"],
    [[2], { offset: 0.5 }, "The offset must be an integer, not 0.5"],
    [[2 ** 60], {}, "lengths must be integers from 0"],
    [[2, 2], {}, "it takes 4 entries of data, which has 6; for a part"],
  ];
  for (const [shape, options, message] of cases) {
    assertThrows(() => Tensor.from(six, shape, options), RangeError, message);
  }
});

Deno.test("Tensor.from throws when the data cannot hold the dtype", () => {
  assertThrows(
    () =>
      Tensor.from(new Float32Array(2), [2], { dtype: "bfloat16" as "float32" }),
    TypeError,
    "Cannot make a bfloat16 tensor of a Float32Array: its elements lie in a " +
      "Uint16Array, and astype() converts",
  );
  assertThrows(
    () => Tensor.from(six, [6], { dtype: "double" as "float32" }),
    TypeError,
    'There is no dtype "double": it is one of int1,',
  );
  const noArrays: [unknown, string][] = [
    [[1, 2], "an array: pass a typed array, such as Float32Array.from(values"],
    [new ArrayBuffer(8), "an ArrayBuffer: pass a typed array over it, such as"],
    [new DataView(six.buffer), "a DataView: pass a typed array over it"],
    // As stdlib's Complex64Array is.
    [
      new class Complex64Array {
        buffer = six.buffer;
        byteLength = 24;
      }(),
      "a Complex64Array: pass a typed array over its buffer, and the dtype as",
    ],
    [null, "null: pass a typed array"],
  ];
  for (const [data, message] of noArrays) {
    assertThrows(
      () => Tensor.from(data as TypedArray),
      TypeError,
      `Cannot make a tensor of ${message}`,
    );
  }
});

Deno.test("get and set take one index for each axis, from either end", () => {
  const t = Tensor.from(six.slice(), [2, 3]);
  assertEquals([t.get(1, 0), t.get(-1, -3), t.get(0, -1)], [3, 3, 2]);
  t.set(-1, 2, 9);
  assertEquals(t.get(1, 2), 9);
  const cases: [number[], string][] = [
    [[], "Cannot index a tensor of 2 axes with 0 indices"],
    [[1], "Cannot index a tensor of 2 axes with 1 index"],
    [[1, 1, 1], "Cannot index a tensor of 2 axes with 3 indices"],
    [[2, 0], "Index 2 is out of range for axis 0 of length 2"],
    [[-3, 0], "Index -3 is out of range for axis 0 of length 2"],
    [[0, 3], "Index 3 is out of range for axis 1 of length 3"],
    [[0, 0.5], "The index for axis 1 must be an integer, not 0.5"],
    [[-0.5, 0], "The index for axis 0 must be an integer, not -0.5"],
    [[NaN, 0], "The index for axis 0 must be an integer, not NaN"],
    [[Infinity, 0], "The index for axis 0 must be an integer, not Infinity"],
  ];
  for (const [index, message] of cases) {
    assertThrows(() => t.get(...index), RangeError, message);
    assertThrows(() => t.set(...index, 1), RangeError, message);
  }
  for (const wrong of ["0", undefined, null, [0], {}]) {
    assertThrows(
      () => t.get(0, wrong as number),
      TypeError,
      "The index for axis 1 must be an integer, not",
    );
  }
});

Deno.test("set throws when the tensor is read-only, and writes nothing", () => {
  const own = Tensor.from(six.slice(), [2, 3], { readOnly: true });
  using native = load({ ...float32, flags: READ_ONLY });
  using legacy = fromDlpack(
    new DlpackCapsule(make({ ...float32, versioned: false }), "dltensor"),
  );
  for (const t of [own, native, legacy]) {
    assert(t.readOnly);
    for (const view of [t, t.transpose(), t.slice(null), t.reshape([3, 2])]) {
      assert(view.readOnly);
      assertBufferError(
        () => view.set(0, 0, 9),
        "readonly",
        "Cannot write to a read-only tensor: call copy() for one of your own",
      );
    }
    assertEquals(t.data, six);
    const copy = t.copy();
    copy.set(0, 0, 9);
    assertEquals(copy.get(0, 0), 9);
  }
});

/** Only has to type check. */
function narrowed(t: Tensor): void {
  if (t.is("float32")) {
    const data: Float32Array = t.data;
    const element: number = t.get(0);
    t.set(0, data[0]! + element);
    const dtype: "float32" = t.dtype;
    const view: Tensor<"float32"> = t.slice(0).transpose().reshape([1]).copy();
    view.is(dtype);
    // @ts-expect-error A float32 is no bigint
    t.set(0, 1n);
  }
  if (t.is("int64")) {
    const data: BigInt64Array = t.data;
    const element: bigint = t.get(0);
    t.set(0, data[0]! + element);
  }
  if (t.is("bool")) {
    const data: Uint8Array = t.data;
    const element: boolean = t.get(0);
    t.set(0, data[0] === 1 || element);
  }
  if (t.is("complex64")) {
    const data: Float32Array = t.data;
    const { re, im }: { re: number; im: number } = t.get(0);
    t.set(0, { re: re + data[0]!, im });
  }
  if (t.is("bfloat16")) {
    const data: Uint16Array = t.data;
    const element: number = t.get(0);
    t.set(0, data[0]! + element);
  }
  const converted: Float64Array = t.astype("float64").data;
  const made: Tensor<"int16"> = Tensor.from(new Int16Array(converted.length));
  // @ts-expect-error There is no such dtype
  made.is("int24");
  // @ts-expect-error The elements are int16
  const wrong: Tensor<"float32"> = made;
  wrong.get(0);
}

Deno.test("is tells the dtype, and narrows the types", () => {
  const t: Tensor = Tensor.from(new BigInt64Array(1));
  assertEquals([t.is("int64"), t.is("uint64")], [true, false]);
  assertEquals(typeof narrowed, "function");
});

Deno.test("data is the same typed array every time and in every view", () => {
  const own = Tensor.from(six.slice(), [2, 3]);
  using native = load();
  for (const t of [own, native]) {
    const { data } = t;
    const views = [
      t,
      t.slice(1),
      t.slice(null, [null, null, -1]),
      t.slice([0, 0]),
      t.transpose(),
      t.reshape([6]),
      t.transpose().slice(0).reshape([2, 1]),
      ...t as Iterable<Tensor>,
    ];
    for (const view of views) assert(view.data === data);
  }
});

Deno.test("data is the producer's memory", () => {
  const managed = make(float32);
  using t = fromDlpack(new DlpackCapsule(managed, "dltensor_versioned"));
  assertEquals(addressOf(t.data), fixture.fx_data_address(managed));
  t.set(1, 2, 1);
  assertEquals(fixture.fx_peek(managed, 23n), 0x3f);
  fixture.fx_poke(managed, 3n, 0x40);
  assertEquals(t.get(0, 0), 2);
});

Deno.test("get reads the producer's memory before data was asked for, and after", async (t) => {
  const bytes = Uint8Array.from({ length: 96 }, (_, i) => i * 37);
  for (const dtype of dtypeNames) {
    const { code, bits } = dtypeByName(dtype)!;
    for (const isPadded of bits < 8 ? [true, false] : [true]) {
      await t.step(`${dtype}${isPadded ? "" : ", packed"}`, () => {
        // Backwards, and not from the start of the memory.
        const spec: FixtureSpec = {
          dtype: [code, bits, 1],
          shape: [2, 2],
          strides: [-1, 2],
          nbytes: 96,
          data: bytes,
          byteOffset: isPadded ? Math.max(bits / 8, 1) : bits === 6 ? 3 : 1,
          flags: isPadded && bits < 8 ? PADDED : 0,
        };
        using asked = load(spec);
        const { data } = asked;
        using t = load(spec);
        // More often than is read without data.
        for (let round = 0; round < 5; round++) {
          for (const [i, j] of [[0, 0], [1, 0], [0, 1], [1, 1]] as const) {
            assertEquals(t.get(i, j), asked.get(i, j));
          }
        }
        assertEquals(bytesOf(t.data), bytesOf(data));
      });
    }
  }
});

Deno.test("get sees what the producer writes, and throws when it is too late", () => {
  const t = load();
  const view = t.transpose();
  assertEquals(t.get(1, 2), 5);
  {
    using other = fromDlpack(t);
    other.set(1, 2, 7);
  }
  assertEquals(t.get(1, 2), 7);
  assertEquals(view.get(2, 1), 7);
  t[Symbol.dispose]();
  assertBufferError(() => t.get(1, 2), "released");
  assertBufferError(() => view.get(2, 1), "released");
});

Deno.test("views show and write the same elements", () => {
  const own = Tensor.from(six.slice(), [2, 3]);
  using native = load();
  for (const t of [own, native]) {
    const row = t.slice(1);
    assertEquals([row.shape, row.strides, row.offset], [[3], [1], 3]);
    const turned = t.slice([null, null, -1], [null, null, -2]);
    assertEquals([turned.shape, turned.strides], [[2, 2], [-3, -2]]);
    assertEquals(turned.offset, 5);
    assertEquals(turned.toArray(), [[5, 3], [2, 0]]);
    const columns = t.transpose();
    assertEquals([columns.shape, columns.strides], [[3, 2], [1, 3]]);
    assertEquals(columns.isContiguous, false);
    const flat = t.reshape([-1]);
    assertEquals([flat.shape, flat.isContiguous], [[6], true]);
    assertEquals(t.slice().toArray(), t.toArray());

    turned.set(0, 0, 50);
    columns.set(0, 1, 30);
    flat.set(0, 10);
    row.set(-2, 40);
    assertEquals(t.toArray(), [[10, 1, 2], [30, 40, 50]]);
    assertBufferError(() => columns.reshape([6]), "layout");
    assertEquals(columns.copy().reshape([6]).shape, [6]);
  }
});

Deno.test("toArray nests as deep as there are axes", () => {
  const t = Tensor.from(six, [2, 1, 3]);
  assertEquals(t.toArray(), [[[0, 1, 2]], [[3, 4, 5]]]);
  assertEquals(t.slice([0, 0]).toArray(), []);
  assertEquals(t.slice(null, [0, 0]).toArray(), [[], []]);
  assertEquals(t.slice(0, 0, 2).toArray(), 2);
});

Deno.test("iterating goes over the first axis", () => {
  const t = Tensor.from(six, [2, 3]);
  const rows = [...t] as Tensor[];
  assert(rows.every((row) => row instanceof Tensor));
  assertEquals(rows.map((row) => row.toArray()), [[0, 1, 2], [3, 4, 5]]);
  assertEquals([...t.slice(1)], [3, 4, 5]);
  assertEquals([...t.slice([0, 0])], []);
  assertEquals([...t.slice(null, [0, 0])].length, 2);
  assertThrows(
    () => [...t.slice(0, 0)],
    TypeError,
    "Cannot iterate over a tensor without axes: use get()",
  );
});

Deno.test("an iterator can be left early, and has its helpers", () => {
  const t = Tensor.from(six);
  for (const ofFew of [t, t.slice([0, 3]), t.reshape([3, 2])]) {
    const iterator = ofFew[Symbol.iterator]() as IteratorObject<unknown>;
    assertEquals(Object.is(iterator[Symbol.iterator](), iterator), true);
    for (const _ of iterator as Iterable<unknown>) break;
    assertEquals([...iterator as Iterable<unknown>], []);
    assertEquals(iterator.next(), { value: undefined, done: true });
  }
  const doubled = (t[Symbol.iterator]() as IteratorObject<number>)
    .map((value) => 2 * value);
  assertEquals([...doubled], [0, 2, 4, 6, 8, 10]);
});

for (const length of [3, 100, 2000]) {
  Deno.test(`memory that goes during a loop over ${length} is noticed`, () => {
    const values = new Float32Array(length).fill(1);
    const native = fromDlpack(Tensor.from(values));
    const own = Tensor.from(values).copy();
    const moved = Tensor.from(values.slice());
    const ends: [t: Tensor, end: () => void][] = [
      [native, () => native[Symbol.dispose]()],
      [own, () => own[Symbol.dispose]()],
      [moved, () => structuredClone(0, { transfer: [moved.data.buffer] })],
    ];
    for (const [t, end] of ends) {
      for (const looped of [t, t.reshape([length, 1])]) {
        assertThrows(
          () => {
            let count = 0;
            for (const _ of looped) if (++count === 2) end();
          },
          BufferError,
          "Cannot use a tensor whose",
        );
      }
    }
  });
}

Deno.test("an element is read and written alike the first time and later", () => {
  const indices = [0, 1, 2, -1, -2, -3, 3, -0, 0.5, NaN, 2 ** 31, 2 ** 32]
    .concat([-(2 ** 32), Infinity]) as unknown[];
  indices.push(0n, -1n, 7n, "0", null, undefined, true, {}, []);
  const random = new Random();
  const outcome = (run: () => unknown): unknown => {
    try {
      return run();
    } catch (error) {
      const { name, message } = error as Error;
      return `${name}: ${message}`;
    }
  };
  for (let run = 0; run < 3000; run++) {
    const dtype = random.pick(dtypeNames);
    const shape = Array.from(
      { length: random.below(7) },
      () => random.pick([1, 2, 3]),
    );
    const count = shape.reduce((a, b) => a * b, 1);
    const { array, bits, kind } = dtypeByName(dtype)!;
    const entries = kind === "complex"
      ? 2 * count
      : Math.ceil(count * Math.min(bits, 8) / 8);
    const bytes = random.bytes(entries * array.BYTES_PER_ELEMENT);
    const fresh = (readOnly = false): Tensor => {
      const data = new array(bytes.slice().buffer);
      return Tensor.from(data, shape, { dtype, readOnly }).transpose();
    };
    const right = shape.map(() => 0);
    const element = fresh().get(...right);
    const values = [element, 1, 1n, true, null, { re: 1, im: 2 }];
    const [warm, readOnly] = [fresh(), fresh(true)];
    // Few times, often, and so often that V8 is to see this kind alone.
    for (let i = random.pick([1, 9, 1100]); i > 0; i--) {
      warm.get(...right);
      readOnly.get(...right);
    }
    const kept = bytes.slice();
    for (let i = 0; i < 10; i++) {
      const index = shape.map(() =>
        random.below(5) > 0 ? 0 : random.pick(indices)
      ) as number[];
      if (random.below(10) === 0) index.push(0);
      if (random.below(10) === 0) index.pop();
      assertEquals(
        outcome(() => warm.get(...index)),
        outcome(() => fresh().get(...index)),
      );
      const value = random.pick(values) as never;
      const other = fresh();
      assertEquals(
        outcome(() => warm.set(...index, value)),
        outcome(() => other.set(...index, value)),
      );
      assertEquals(
        outcome(() => readOnly.set(...index, value)),
        outcome(() => fresh(true).set(...index, value)),
      );
      assertEquals(bytesOf(warm.data), bytesOf(other.data));
      bytes.set(bytesOf(warm.data));
    }
    assertEquals(bytesOf(readOnly.data), kept);
    warm[Symbol.dispose]();
    for (
      const use of [
        () => warm.get(...right),
        () => warm.set(...right, element as never),
      ]
    ) {
      assertEquals((assertThrows(use, BufferError)).code, "released");
    }
  }
});

Deno.test("A tensor that a script has frozen, or given a prototype, stays so", () => {
  const ofSix = () => Tensor.from(new Float32Array([0, 1, 2, 3, 4, 5]), [2, 3]);
  const frozen = Object.freeze(ofSix());
  class Mine extends (Tensor as unknown as { new (): Tensor<"float32"> }) {
    get first(): number {
      return this.get(0, 0);
    }
  }
  const mine = ofSix();
  Object.setPrototypeOf(mine, Mine.prototype);
  const plain = ofSix();
  for (let i = 0; i < 2000; i++) {
    for (const t of [frozen, mine, plain]) {
      assertEquals(t.get(1, i % 3), 3 + i % 3);
      t.set(0, 0, i);
    }
    assertEquals((mine as Mine).first, i);
  }
  for (const t of [frozen, mine, plain]) {
    assert(t instanceof Tensor && t.constructor !== Object);
    assertEquals(t.slice(0).toArray(), [1999, 1, 2]);
    assertThrows(() => t.get(2, 0), RangeError);
    t[Symbol.dispose]();
    assertEquals(assertThrows(() => t.get(0, 0), BufferError).code, "released");
  }
  assertEquals(plain.constructor, Tensor);
});

Deno.test("A tensor that was read often looks like one that was not", () => {
  const [often, once] = [2000, 1].map((count) => {
    const t = Tensor.from(new Int16Array([7, 8, 9]));
    for (let i = 0; i < count; i++) t.get(i % 3);
    return t;
  });
  assertEquals(often!.toArray(), once!.toArray());
  assertEquals(Deno.inspect(often), Deno.inspect(once));
  assertEquals(JSON.stringify(often), JSON.stringify(once));
  assertEquals(Reflect.ownKeys(often!), Reflect.ownKeys(once!));
  assertEquals(often!.constructor, once!.constructor);
});

Deno.test("console.log shows what the tensor is and its elements", () => {
  using t = load({ ...float32, strides: [1, 2] });
  assertEquals(
    Deno.inspect(t),
    "Tensor float32 [2, 3], strides [1, 2], cpu:0\n[[0. 2. 4.]\n [1. 3. 5.]]",
  );
  assertEquals(String(t), "[[0. 2. 4.]\n [1. 3. 5.]]");
  using readOnly = load({
    ...float32,
    flags: READ_ONLY,
    device: [DeviceType.cudaHost, 1],
  });
  assertEquals(
    Deno.inspect(readOnly.slice(1)),
    "Tensor float32 [3], strides [1], cudaHost:1, read-only\n[3. 4. 5.]",
  );
  const scalar = Tensor.from(new BigInt64Array([-5n]), []);
  assertEquals(Deno.inspect(scalar), "Tensor int64 [], strides [], cpu:0\n-5");
  const empty = Tensor.from(new Int8Array(0), [0, 2]);
  assertEquals(
    Deno.inspect(empty),
    "Tensor int8 [0, 2], strides [2, 1], cpu:0\n[]",
  );
  const released = load();
  released[Symbol.dispose]();
  assertEquals(
    Deno.inspect(released),
    "Tensor float32 [2, 3], strides [3, 1], cpu:0, released",
  );
});

Deno.test("console.log shows elements of every kind", () => {
  const cases: [Tensor, string][] = [
    [Tensor.from(new Uint8Array([1, 0]), [2], { dtype: "bool" }), "True"],
    [Tensor.from(new Uint8Array([0x21]), [2], { dtype: "int4" }), "[1 2]"],
    [Tensor.from(new Float32Array([1, -2]), [1], { dtype: "complex64" }), "1"],
    [Tensor.from(new Uint16Array([0x3fc0]), [1], { dtype: "bfloat16" }), "1.5"],
    [Tensor.from(new BigUint64Array([7n]), [1], { dtype: "handle" }), "7"],
  ];
  for (const [t, text] of cases) {
    const shown = Deno.inspect(t);
    assert(shown.startsWith(`Tensor ${t.dtype} [`), shown);
    assert(shown.split("\n")[1]!.includes(text), shown);
  }
});

/** Everything that needs the memory. */
const uses: Record<string, (t: Tensor) => unknown> = {
  data: (t) => t.data,
  get: (t) => t.get(0, 0),
  set: (t) => t.set(0, 0, 1),
  copy: (t) => t.copy(),
  "copy into out": (t) => t.copy({ out: new Float32Array(6) }),
  astype: (t) => t.astype("int8"),
  toArray: (t) => t.toArray(),
  iteration: (t) => [...t],
  slice: (t) => t.slice(0),
  transpose: (t) => t.transpose(),
  reshape: (t) => t.reshape([6]),
  toString: (t: Tensor) => t.toString(),
  release: (t) => t.release(),
  __dlpack__: (t) => t.__dlpack__(),
  "__dlpack__, versioned": (t) => t.__dlpack__({ maxVersion: [1, 3] }),
  "__dlpack__, a copy": (t) => t.__dlpack__({ copy: true }),
  fromDlpack: (t) => fromDlpack(t),
};

/** That nothing is left of the memory but what the tensor said of itself. */
function assertReleased(t: Tensor): void {
  for (const [name, use] of Object.entries(uses)) {
    const error = assertThrows(() => use(t), BufferError, "", name);
    assertEquals(error.code, "released", name);
  }
  assertEquals([t.dtype, t.shape, t.strides], ["float32", [2, 3], [3, 1]]);
  assertEquals([t.offset, t.ndim, t.size, t.bits], [0, 2, 6, 32]);
  assertEquals([t.itemsize, t.nbytes, t.isContiguous], [4, 24, true]);
  assertEquals([t.device.type, t.readOnly], ["cpu", false]);
  assert(Deno.inspect(t).endsWith(", released"));
}

Deno.test("dispose empties every view, runs the deleter once, then all throw", () => {
  const before = counts();
  const t = load();
  const { data } = t;
  const tail = data.subarray(3);
  const view = t.transpose().transpose();
  t[Symbol.dispose]();
  assertEquals([data.length, tail.length], [0, 0]);
  assertEquals(data.buffer.byteLength, 0);
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });

  assertReleased(t);
  assertReleased(view);
  t[Symbol.dispose]();
  view[Symbol.dispose]();
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
});

Deno.test("dispose works through any view, and when data was never read", () => {
  const before = counts();
  const t = load();
  t.slice(1)[Symbol.dispose]();
  assertReleased(t);
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
});

Deno.test("using disposes at the end of its block", () => {
  const before = counts();
  const held = liveTensors();
  {
    using t = load();
    assertEquals(t.get(0, 1), 1);
    assertEquals(counts().live, before.live + 1);
    const { count, bytes } = liveTensors();
    assertEquals([count, bytes], [held.count + 1, held.bytes + 24]);
  }
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
  assertEquals(liveTensors(), held);
});

Deno.test("a copy outlives the tensor it was made of", () => {
  const t = load();
  const copy = t.copy();
  const converted = t.astype("int32");
  t[Symbol.dispose]();
  assertEquals(copy.toArray(), [[0, 1, 2], [3, 4, 5]]);
  assertEquals(converted.toArray(), [[0, 1, 2], [3, 4, 5]]);
});

Deno.test("dispose of a tensor over JavaScript's memory leaves the array alone", () => {
  const data = six.slice();
  const t = Tensor.from(data, [2, 3]);
  const view = t.transpose().transpose();
  t[Symbol.dispose]();
  assertReleased(t);
  assertReleased(view);
  assertEquals(data, six);
});

Deno.test("a tensor whose ArrayBuffer was moved away throws", () => {
  const data = six.slice();
  const own = Tensor.from(data, [2, 3]);
  data.buffer.transfer();
  assertReleased(own);
  assertBufferError(() => own.get(0, 0), "released", "was transferred");
});

Deno.test("release gives the capsule, unconsumed, and empties every view", () => {
  const before = counts();
  const t = load();
  const view = t.transpose().transpose();
  const { data } = t;
  const capsule = view.release();
  assertEquals(capsule.name, "dltensor_versioned");
  assertEquals(data.length, 0);
  assertReleased(t);
  assertReleased(view);
  t[Symbol.dispose]();
  assertEquals(counts(), { ...before, live: before.live + 1 });

  const again = fromDlpack(capsule);
  assertEquals(again.toArray(), [[0, 1, 2], [3, 4, 5]]);
  again[Symbol.dispose]();
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
});

Deno.test("release of a legacy tensor gives a legacy capsule", () => {
  const legacy = make({ ...float32, versioned: false });
  using capsule = fromDlpack(new DlpackCapsule(legacy, "dltensor")).release();
  assertEquals(capsule.name, "dltensor");
});

Deno.test("release refuses what is not to give away", () => {
  const own = Tensor.from(six, [2, 3]);
  assertBufferError(() => own.release(), "data", "export it with __dlpack__()");

  using t = load();
  using exported = t.__dlpack__({ maxVersion: [1, 3] });
  assertEquals(exported.name, "dltensor_versioned");
  assertBufferError(
    () => t.release(),
    "consumed",
    "Cannot give away a tensor while 1 export, call or hold uses its memory: " +
      "wait for the end of that",
  );
  assertEquals(t.get(0, 1), 1, "it is as it was");
});

/** The flags of a versioned struct. */
function flagsOf(capsule: Capsule): bigint {
  return new Deno.UnsafePointerView(capsule.pointer).getBigUint64(24);
}

Deno.test("__dlpack__ gives the struct that the consumer understands", () => {
  const t = Tensor.from(six.slice(), [2, 3]);
  const cases: [DlpackRequest | undefined, name: string][] = [
    [undefined, "dltensor"],
    [{}, "dltensor"],
    [{ maxVersion: null }, "dltensor"],
    [{ maxVersion: [0, 8] }, "dltensor"],
    [{ maxVersion: [1, 0] }, "dltensor_versioned"],
    [{ maxVersion: [1, 3] }, "dltensor_versioned"],
    [{ maxVersion: [2, 0] }, "dltensor_versioned"],
    [{ stream: null, dlDevice: null, copy: null }, "dltensor"],
    [{ dlDevice: [DeviceType.cpu, 0], copy: false }, "dltensor"],
  ];
  for (const [request, name] of cases) {
    const capsule = t.__dlpack__(request);
    assertEquals(capsule.name, name);
    using again = fromDlpack(capsule);
    assertEquals(capsule.name, `used_${name}`);
    assertEquals(again.toArray(), t.toArray());
    assertEquals(again.readOnly, name === "dltensor");
    assertEquals(addressOf(again.data), addressOf(t.data));
  }
});

Deno.test("__dlpack__ exports views as they are", () => {
  const own = Tensor.from(six.slice(), [2, 3]);
  using native = load();
  for (const t of [own, native]) {
    const views = [
      t.transpose(),
      t.slice(1),
      t.slice([null, null, -1], [null, null, -2]),
      t.slice(1, 1),
      t.slice([0, 0]),
      t.slice(null, [1, 2]),
    ];
    for (const view of views) {
      using again = fromDlpack(view);
      assertEquals([again.shape, again.strides], [view.shape, view.strides]);
      assertEquals(again.toArray(), view.toArray());
      if (view.size === 0) continue;
      // The same memory: what is written there is seen here.
      if (again.is("float32")) again.data.fill(7);
      assertEquals(view.toArray(), again.toArray());
    }
  }
});

Deno.test("__dlpack__ with copy gives memory of its own", () => {
  const source = six.slice();
  const t = Tensor.from(source, [2, 3], { readOnly: true });
  for (const maxVersion of [null, [1, 3]] as const) {
    using copy = fromDlpack(
      t.transpose().__dlpack__({
        maxVersion,
        copy: true,
      }),
    );
    assertEquals(copy.toArray(), [[0, 3], [1, 4], [2, 5]]);
    assertEquals(copy.strides, [2, 1]);
    assertEquals(addressOf(copy.data) % 64n, 0n);
    if (copy.is("float32")) copy.data.fill(9);
    assertEquals(copy.get(0, 0), 9);
    assertEquals(source, six);
  }
  const isCopied = 2n;
  using versioned = t.__dlpack__({ maxVersion: [1, 0], copy: true });
  assertEquals(flagsOf(versioned), isCopied);
});

Deno.test("__dlpack__ says that a tensor is read-only, or refuses", () => {
  const own = Tensor.from(six, [2, 3], { readOnly: true });
  using native = load({ ...float32, flags: READ_ONLY });
  for (const t of [own, native]) {
    using capsule = t.__dlpack__({ maxVersion: [1, 0] });
    assertEquals(flagsOf(capsule), BigInt(READ_ONLY));
    for (const request of [{}, { maxVersion: [0, 9] }] as DlpackRequest[]) {
      assertBufferError(
        () => t.__dlpack__(request),
        "readonly",
        "Cannot export a read-only tensor as a legacy struct",
      );
    }
    using again = fromDlpack(t);
    assert(again.readOnly);
  }
});

Deno.test("__dlpack__ exports elements of fewer than 8 bits", () => {
  const raw = new Uint8Array([0x21, 0x43, 0x65]);
  const packed = Tensor.from(raw, [6], { dtype: "uint4" });
  using again = fromDlpack(packed.slice([2, 6, 2]));
  assertEquals([again.dtype, again.itemsize], ["uint4", 0.5]);
  assertEquals(again.toArray(), [3, 5]);
  assertBufferError(
    () => packed.slice([1]).__dlpack__(),
    "layout",
    "Cannot export uint4 elements that start inside a byte: ask for a copy",
  );
  using copy = fromDlpack(packed.slice([1]).__dlpack__({ copy: true }));
  assertEquals(copy.toArray(), [2, 3, 4, 5, 6]);

  const padded = Tensor.from(raw, [3], { dtype: "uint4", padded: true });
  using capsule = padded.__dlpack__({ maxVersion: [1, 1] });
  assertEquals(flagsOf(capsule), BigInt(PADDED));
  using paddedAgain = fromDlpack(padded);
  assertEquals([paddedAgain.itemsize, paddedAgain.toArray()], [1, [1, 3, 5]]);
  assertBufferError(
    () => padded.__dlpack__(),
    "dtype",
    "Cannot export padded uint4 elements as a legacy struct",
  );
});

Deno.test("__dlpack__ refuses another device, and a stream", () => {
  using t = load();
  assertBufferError(
    () => t.__dlpack__({ dlDevice: [DeviceType.cuda, 1] }),
    "device",
    "Cannot export a tensor on cpu:0 to cuda:1",
  );
  for (const stream of [0, 1, -1, 5n]) {
    assertThrows(
      () => t.__dlpack__({ stream }),
      TypeError,
      `Cannot export host memory on stream ${stream}`,
    );
  }
  using pinned = load({ ...float32, device: [DeviceType.cudaHost, 2] });
  for (const dlDevice of [[DeviceType.cudaHost, 2], [DeviceType.cpu, 0]]) {
    using capsule = pinned.__dlpack__({
      maxVersion: [1, 3],
      dlDevice: dlDevice as [number, number],
    });
    assertEquals([...capsule.__dlpack_device__()], dlDevice);
  }
  assertBufferError(
    () => pinned.__dlpack__({ dlDevice: [DeviceType.cudaHost, 0] }),
    "device",
  );
});

Deno.test("__dlpack__ refuses options of the wrong kind", () => {
  const t = Tensor.from(six, [2, 3]);
  const wrong: [string, unknown[]][] = [
    ["maxVersion", [1, "1.0", [1], [1, 0, 0], [1, 0.5], ["1", "0"]]],
    ["dlDevice", ["cpu", 1, [1], [1, null]]],
    ["copy", [0, 1, "true", {}]],
  ];
  for (const [name, values] of wrong) {
    for (const value of values) {
      assertThrows(
        () => t.__dlpack__({ [name]: value }),
        TypeError,
        `The option "${name}" must be`,
      );
    }
  }
});

Deno.test("an exported tensor lives until its consumer is done", () => {
  const before = counts();
  const t = load();
  const again = fromDlpack(t);
  t[Symbol.dispose]();
  assertReleased(t);
  assertEquals(again.toArray(), [[0, 1, 2], [3, 4, 5]]);
  assertEquals(counts().live, before.live + 1);
  again[Symbol.dispose]();
  assertEquals(counts(), { ...before, deleted: before.deleted + 1 });
});

Deno.test("a tensor with more than 64 axes cannot be exported", () => {
  const t = Tensor.from(new Uint8Array(1)).reshape(Array(65).fill(1));
  assertBufferError(() => t.__dlpack__(), "shape", "65 axes");
});

Deno.test("a stride that no element takes is not multiplied", () => {
  const t = Tensor.from(new Uint8Array(8), [4, 2]);
  const first = t.slice(null, [null, null, 2 ** 53 - 1]);
  assertEquals([first.shape, first.strides], [[4, 1], [2, 1]]);
});

Deno.test("Reading and writing elements leaves a tensor what it was", () => {
  const [read, other] = [1, 2].map(() =>
    Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2])
  ) as [Tensor<"float32">, Tensor<"float32">];
  for (let i = 0; i < 10; i++) read.set(1, 1, read.get(1, 1));
  assertEquals(read, other);
  assertEquals(read.constructor, Tensor);
  assert(read instanceof Tensor);
  assertEquals(Reflect.ownKeys(read), Reflect.ownKeys(other));
  assertEquals(read.get.name, "get");
  other.set(0, 0, 7);
  assertNotEquals(read, other);
});

Deno.test("Elements of a buffer that is resized are refused, however often they were read", () => {
  const buffers = [
    new ArrayBuffer(16, { maxByteLength: 32 }),
    new ArrayBuffer(16, { maxByteLength: 32 }),
  ] as const;
  buffers.forEach((buffer, i) => {
    const t = Tensor.from(new Float32Array(buffer));
    for (let k = 0; k < 10; k++) t.set(0, t.get(0));
    buffer.resize(i === 0 ? 8 : 32);
    assertBufferError(() => t.get(0), "released", "transferred or resized");
    assertBufferError(() => t.set(0, 1), "released", "transferred or resized");
  });
  const shared = new SharedArrayBuffer(16, { maxByteLength: 32 });
  const t = Tensor.from(new Float32Array(shared) as unknown as Float32Array);
  for (let k = 0; k < 10; k++) t.set(0, t.get(0));
  shared.grow(32);
  assertBufferError(() => t.get(0), "released", "transferred or resized");
});

Deno.test("An index is no integer because the length rounds it to one", () => {
  const t = Tensor.zeros([2 ** 20], "float64");
  for (let k = 0; k < 10; k++) {
    assertEquals(t.get(-1), 0);
    for (const index of [-1.0000000000000002, 0.5, -0.5]) {
      assertThrows(() => t.get(index), RangeError, "integer");
      assertThrows(() => t.set(index, 1), RangeError, "integer");
    }
  }
});
