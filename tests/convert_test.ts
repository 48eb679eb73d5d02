// astype against a naive model, against examples, and against NumPy.

import {
  BufferError,
  type Complex,
  type DType,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  decodeBfloat16,
  decodeSmallFloat,
  encodeBfloat16,
  encodeSmallFloat,
  type SmallFloat,
} from "../src/dtype/small_float.ts";
import { dtypeByName, type DTypeInfo, dtypeNames } from "../src/dtype/table.ts";
import { askOracle } from "./parity/python.ts";
import { skipped } from "./skipped.ts";

type Element = number | bigint | boolean | Complex;

const dtypes = dtypeNames.filter((name) => name !== "handle").map((name) =>
  dtypeByName(name)!
);

/** Where conversions differ: signs, ties, ends of ranges, what is no number. */
// deno-fmt-ignore
const numbers = [
  0, -0, 1, -1, 2, 3, 4, 5, 6, 7, -7, -8, 8, 15, 16, 17,
  0.25, 0.5, 0.75, -0.5, -0.75, 1.5, -1.5, 2.5, 3.5, -3.25,
  28, 30, 57, 100, 127, 128, -128, -129, 240, 255, 256, 257, 448, 465,
  2049, 32767, 32768, -32768, 65504, 65519, 65520, 65535, 65536, 1e5,
  2 ** 24 + 1, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 2 ** 32 - 1, 2 ** 32 + 5,
  2 ** 53, 2 ** 63, -(2 ** 63), 2 ** 64, 1e20, 3.4e38, 1e300, -1e300,
  2 ** -10, 1 / 3, Math.PI, NaN, Infinity, -Infinity,
];

/** A padded tensor with elements that are near the numbers. */
function source({ name, kind, array }: DTypeInfo): Tensor {
  const entries = numbers.length * (kind === "complex" ? 2 : 1);
  const t = Tensor.from(new array(entries), [numbers.length], {
    dtype: name,
    padded: true,
  });
  numbers.forEach((number, i) => {
    const integer = Number.isFinite(number) ? BigInt(Math.trunc(number)) : 0n;
    const element = kind === "bigint"
      ? integer
      : kind === "bool"
      ? i % 3 === 0
      : kind === "complex"
      ? { re: number, im: numbers[numbers.length - 1 - i]! }
      : number;
    t.set(i, element);
  });
  return t;
}

/** The value of a float dtype nearest to a number: dtype_small_float_test has these. */
function round(dtype: DType, value: number): number {
  switch (dtype) {
    case "float64":
    case "complex128":
      return value;
    case "float32":
    case "complex64":
      return Math.fround(value);
    case "float16":
    case "complex32":
      return Math.f16round(value);
    case "bfloat16":
      return decodeBfloat16(encodeBfloat16(value));
    default: {
      const kind = dtype as SmallFloat;
      return decodeSmallFloat(kind)[encodeSmallFloat(kind, value)]!;
    }
  }
}

/** What a conversion is, by the doc of astype. */
function model(element: Element, to: DTypeInfo): Element {
  if (typeof element === "object") {
    const { re, im } = element;
    if (to.kind === "bool") return re !== 0 || im !== 0;
    if (to.kind !== "complex") return model(re, to);
    return { re: round(to.name, re), im: round(to.name, im) };
  }
  if (to.kind === "bool") return Boolean(element) || Number.isNaN(element);
  const real = Number(element);
  if (to.kind === "complex") return { re: round(to.name, real), im: 0 };
  if (to.kind === "float") return round(to.name, real);
  const integer = typeof element === "bigint"
    ? element
    : Number.isFinite(real)
    ? BigInt(Math.trunc(real))
    : 0n;
  const wrapped = to.name.startsWith("u")
    ? BigInt.asUintN(to.bits, integer)
    : BigInt.asIntN(to.bits, integer);
  return to.kind === "bigint" ? wrapped : Number(wrapped);
}

/** Equal, and -0 told from 0. */
function same(a: unknown, b: unknown): boolean {
  if (typeof a !== "object") return Object.is(a, b);
  const [x, y] = [a as Complex, b as Complex];
  return Object.is(x.re, y.re) && Object.is(x.im, y.im);
}

function show(element: unknown): string {
  if (typeof element !== "object") {
    return Object.is(element, -0) ? "-0" : String(element);
  }
  const { re, im } = element as Complex;
  return `${show(re)} + ${show(im)}i`;
}

/** Compares element by element, and names the first that differs. */
function assertConverted(
  from: Tensor,
  converted: Tensor,
  expected: readonly unknown[],
): void {
  const elements = from.toArray() as unknown[];
  const found = converted.toArray() as unknown[];
  assertEquals(found.length, expected.length);
  const at = found.findIndex((element, i) => !same(element, expected[i]));
  assert(
    at === -1,
    `${from.dtype} ${show(elements[at])} to ${converted.dtype}: ` +
      `${show(found[at])}, not ${show(expected[at])}`,
  );
}

Deno.test("astype converts as its doc says, for every pair of dtypes", async (t) => {
  for (const info of dtypes) {
    await t.step(`from ${info.name}`, () => {
      const padded = source(info);
      for (const to of dtypes) {
        // Packed elements are what copy() of packed ones gives, too.
        const views = [
          padded,
          padded.slice([null, null, -1]),
          padded.astype(info.name),
          padded.astype(info.name).slice([3, null, 2]),
        ];
        for (const view of views) {
          const expected = (view.toArray() as Element[])
            .map((element) => model(element, to));
          assertConverted(view, view.astype(to.name), expected);
        }
      }
    });
  }
});

Deno.test("astype converts these as typed by hand", () => {
  const cases: [Tensor, DType, Element[]][] = [
    // Integers wrap around.
    [Tensor.from(new Int16Array([300, -1, -129])), "uint8", [44, 255, 127]],
    [Tensor.from(new Uint8Array([200, 127, 128])), "int8", [-56, 127, -128]],
    [Tensor.from(new Int32Array([-1])), "uint64", [2n ** 64n - 1n]],
    [Tensor.from(new Uint32Array([2 ** 32 - 1])), "int32", [-1]],
    [Tensor.from(new Uint32Array([2 ** 32 - 1])), "int64", [2n ** 32n - 1n]],
    [
      Tensor.from(
        new BigInt64Array([2n ** 63n - 1n, -(2n ** 63n), 2n ** 31n, -2n]),
      ),
      "int32",
      [-1, 0, -(2 ** 31), -2],
    ],
    [Tensor.from(new BigInt64Array([-1n])), "uint32", [2 ** 32 - 1]],
    // The low bits of what no float64 holds exactly.
    [Tensor.from(new BigInt64Array([2n ** 53n + 1n])), "uint8", [1]],
    [Tensor.from(new BigUint64Array([2n ** 64n - 7n])), "int4", [-7]],
    [Tensor.from(new BigUint64Array([2n ** 64n - 1n])), "int64", [-1n]],
    [Tensor.from(new BigUint64Array([2n ** 64n - 1n])), "float64", [2 ** 64]],
    [Tensor.from(new Int8Array([8, -9, 7])), "int4", [-8, 7, 7]],
    [Tensor.from(new Int8Array([1, 2, 3])), "uint1", [1, 0, 1]],
    // Floats are cut off towards zero, and wrap around like integers.
    [Tensor.from(new Float32Array([1.9, -1.9, -0.9])), "int8", [1, -1, 0]],
    [Tensor.from(new Float32Array([2.5, 255.9, 256])), "uint8", [2, 255, 0]],
    [Tensor.from(new Float64Array([-1, 2 ** 32 + 5])), "uint32", [
      2 ** 32 - 1,
      5,
    ]],
    [Tensor.from(new Float64Array([2 ** 63, -1.5])), "int64", [
      -(2n ** 63n),
      -1n,
    ]],
    [Tensor.from(new Float64Array([2 ** 63, 0.5])), "uint64", [2n ** 63n, 0n]],
    [
      Tensor.from(new Float32Array([NaN, Infinity, -Infinity])),
      "int32",
      [0, 0, 0],
    ],
    [
      Tensor.from(new Float32Array([NaN, Infinity, -Infinity])),
      "int64",
      [0n, 0n, 0n],
    ],
    [Tensor.from(new Float32Array([NaN, Infinity])), "uint2", [0, 0]],
    // Floats are rounded to the nearest, ties to even.
    [Tensor.from(new Float64Array([0.1, 1e39])), "float32", [
      Math.fround(0.1),
      Infinity,
    ]],
    [Tensor.from(new Float32Array([65519, 65520])), "float16", [
      65504,
      Infinity,
    ]],
    [
      Tensor.from(new Float32Array([1.00390625, 1.01171875])),
      "bfloat16",
      [1, 1.015625],
    ],
    [Tensor.from(new Float32Array([2.5, 3.5, -100])), "float4_e2m1fn", [
      2,
      4,
      -6,
    ]],
    // Complex numbers lose their imaginary part.
    [
      Tensor.from(new Float32Array([1.5, 2, -3.5, 4]), [2], {
        dtype: "complex64",
      }),
      "int8",
      [1, -3],
    ],
    [
      Tensor.from(new Float64Array([1.5, 2, 0, 4]), [2], {
        dtype: "complex128",
      }),
      "float32",
      [1.5, 0],
    ],
    [Tensor.from(new Int8Array([-3])), "complex64", [{ re: -3, im: 0 }]],
    // All but 0 is true, NaN included.
    [Tensor.from(new Float32Array([0, -0, 0.1, NaN])), "bool", [
      false,
      false,
      true,
      true,
    ]],
    [Tensor.from(new BigInt64Array([0n, 1n << 40n])), "bool", [false, true]],
    [
      Tensor.from(new Float32Array([0, 0, 0, 1, 0, NaN]), [3], {
        dtype: "complex64",
      }),
      "bool",
      [false, true, true],
    ],
    [
      Tensor.from(new Uint8Array([0, 1, 2]), [3], { dtype: "bool" }),
      "float16",
      [0, 1, 1],
    ],
    [
      Tensor.from(new Uint8Array([0, 1]), [2], { dtype: "bool" }),
      "int64",
      [0n, 1n],
    ],
    [Tensor.from(new Uint8Array([0, 255]), [2], { dtype: "bool" }), "bool", [
      false,
      true,
    ]],
  ];
  for (const [t, dtype, expected] of cases) {
    assertConverted(t, t.astype(dtype), expected);
  }
});

Deno.test("astype rounds 64-bit integers to float32 once", () => {
  // Just above the tie between 2 ** 60 and the next float32; through float64
  // it would become the tie, and then the even 2 ** 60.
  const aboveTie = 2n ** 60n + 2n ** 36n + 1n;
  const values = [aboveTie, -aboveTie, aboveTie - 1n];
  const expected = [2 ** 60 + 2 ** 37, -(2 ** 60) - 2 ** 37, 2 ** 60];
  const t = Tensor.from(BigInt64Array.from(values));
  assertEquals(t.astype("float32").toArray(), expected);
});

Deno.test("astype gives a compact, writable tensor of its own", () => {
  const data = new Float32Array([1, 2, 3, 4, 5, 6]);
  const t = Tensor.from(data, [2, 3], { readOnly: true }).transpose();
  for (const dtype of ["int16", "float32"] as const) {
    const converted = t.astype(dtype);
    assertEquals(converted.dtype, dtype);
    assertEquals(converted.shape, [3, 2]);
    assertEquals(converted.strides, [2, 1]);
    assertEquals(converted.offset, 0);
    assertEquals(converted.readOnly, false);
    assertEquals(converted.toArray(), [[1, 4], [2, 5], [3, 6]]);
    converted.set(0, 0, 9);
    assertEquals(data[0], 1);
  }
  const packed = t.astype("uint4");
  assertEquals(packed.itemsize, 0.5);
  assertEquals(packed.data, new Uint8Array([0x41, 0x52, 0x63]));
});

Deno.test("astype of an empty tensor and of one without axes", () => {
  const t = Tensor.from(new Int16Array([7, 8]));
  const empty = t.slice([2]).astype("float32");
  assertEquals([empty.shape, empty.data.length], [[0], 0]);
  const scalar = t.slice(1).astype("float32");
  assertEquals([scalar.shape, scalar.get()], [[], 8]);
});

Deno.test("astype copies handles but converts none", () => {
  const handles = Tensor.from(new BigUint64Array([1n, 2n]), [2], {
    dtype: "handle",
  });
  assertEquals(handles.astype("handle").toArray(), [1n, 2n]);
  for (const info of dtypes) {
    const t = source(info);
    const attempts: [() => Tensor, string][] = [
      [() => handles.astype(info.name), `handle to ${info.name}`],
      [() => t.astype("handle"), `${info.name} to handle`],
    ];
    for (const [attempt, what] of attempts) {
      const error = assertThrows(
        attempt,
        BufferError,
        `Cannot convert ${what}: an opaque handle is no number`,
      );
      assertEquals(error.code, "dtype");
    }
  }
});

Deno.test("astype refuses a dtype that there is not", () => {
  const t = Tensor.from(new Float32Array(1));
  for (const dtype of ["float", "", "toString", undefined]) {
    assertThrows(
      () => t.astype(dtype as DType),
      TypeError,
      `There is no dtype ${JSON.stringify(dtype)}: it is one of int1, int2,`,
    );
  }
});

/** The bytes behind a typed array, in hexadecimal. */
function hexOf({ buffer, byteOffset, byteLength }: TypedArray): string {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength).toHex();
}

/** Whether NumPy's result is defined, and ours by the same rule. */
function isDefined(element: Element, to: DTypeInfo): boolean {
  if (typeof element === "object") {
    if (to.kind === "complex" || to.kind === "bool") return true;
    return isDefined(element.re, to);
  }
  if (to.kind === "int" || to.kind === "bigint") {
    // C leaves floats outside of the range, and NumPy what it makes of them,
    // to the machine.
    if (typeof element !== "number" || Number.isInteger(element)) {
      return model(element, to) == element;
    }
    const whole = Math.trunc(element);
    return Number.isFinite(element) && model(whole, to) == whole;
  }
  if (to.kind === "float" && to.decode !== undefined) {
    // ml_dtypes goes by way of float32, and keeps a NaN's sign.
    const real = Number(element);
    return Object.is(Math.fround(real), real) &&
      !(Number.isNaN(real) && to.bits < 8);
  }
  return true;
}

/** All pairs, with the elements whose conversion is defined. */
function oracleCases(): { view: Tensor; to: DTypeInfo }[] {
  return dtypes.flatMap((info) => {
    const all = source(info);
    const elements = all.toArray() as Element[];
    // To bool, ml_dtypes looks at the real part of a complex32 only.
    const targets = info.name === "complex32"
      ? dtypes.filter((to) => to.kind !== "bool")
      : dtypes;
    return targets.map((to) => {
      const kept = elements.filter((element) => isDefined(element, to));
      const view = all.slice([0, kept.length]).copy();
      kept.forEach((element, i) => view.set(i, element));
      return { view, to };
    });
  });
}

const pairs = oracleCases();
const oracle = await askOracle<(string | null)[]>(
  "astype_oracle.py",
  pairs.map(({ view, to }) => ({
    from: view.dtype,
    to: to.name,
    hex: hexOf(view.data),
  })),
);
if (oracle === null) {
  skipped("astype() beside NumPy's", "pip install numpy ml_dtypes");
}

Deno.test({
  name: "astype agrees with NumPy and ml_dtypes for every pair of dtypes",
  ignore: oracle === null,
  fn() {
    let compared = 0;
    for (const [i, { view, to }] of pairs.entries()) {
      const hex = oracle![i]!;
      if (hex === null) continue;
      compared++;
      const bytes = Uint8Array.fromHex(hex);
      const theirs = Tensor.from(new to.array(bytes.buffer), undefined, {
        dtype: to.name,
        padded: true,
      });
      const expected = theirs.toArray() as unknown[];
      assertConverted(view, view.astype(to.name), expected);
    }
    assert(compared > 500, `${compared} pairs are too few`);
  },
});

Deno.test("astype goes on beyond its first chunk, and past strides that none takes", () => {
  const long = Float32Array.from({ length: 5000 }, (_, i) => i - 2500.75);
  for (
    const t of [
      Tensor.from(long),
      Tensor.from(long, [2500], { strides: [-2], offset: 4999 }),
    ]
  ) {
    const expected = (t.toArray() as number[]).map(Math.trunc);
    assertEquals([...t.astype("int16").data], expected);
    assertEquals(t.astype("int64").toArray(), expected.map(BigInt));
  }
  const column = Tensor.from(Float32Array.from([1, 2, 3, 4]), [4, 1], {
    strides: [1, 2 ** 53 - 1],
  });
  assertEquals(column.astype("complex64").astype("float64").toArray(), [
    [1],
    [2],
    [3],
    [4],
  ]);
});

/** Where loops end: what goes by chunks has 4096 elements in each. */
const sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17, 4095, 4096, 4097, 8193];

Deno.test("astype converts all elements and no more, at every size", async (t) => {
  const values = Tensor.from(
    Float32Array.from({ length: 8300 }, (_, i) => (i * 7 % 23 - 11) / 2),
  );
  for (const info of dtypes) {
    const all = values.astype(info.name);
    const elements = all.toArray() as Element[];
    await t.step(`from ${info.name}`, () => {
      // Kernels are found by kind: these have them all.
      for (const to of dtypes.filter(({ name }) => kinds.has(name))) {
        const expected = elements.map((element) => model(element, to));
        for (const size of sizes) {
          // Within a byte, if elements share bytes, and at its start.
          for (const start of [3, 8]) {
            const view = all.slice([start, start + size]);
            const part = expected.slice(start, start + size);
            assertConverted(view, view.astype(to.name), part);
          }
        }
      }
    });
  }
});

const kinds = new Set<DType>([
  "bool",
  "int4",
  "uint8",
  "int32",
  "uint32",
  "int64",
  "float16",
  "bfloat16",
  "float32",
  "float64",
  "float8_e4m3fn",
  "float4_e2m1fn",
  "complex32",
  "complex64",
  "complex128",
]);

/** Every pattern of 16 bits. */
const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);

Deno.test("astype converts every pattern of 16 bits", async (t) => {
  const bfloats = Tensor.from(patterns, [65536], { dtype: "bfloat16" });
  const halves = Tensor.from(new Float16Array(patterns.buffer));
  const sources: [Tensor, number[]][] = [
    [bfloats, Array.from(patterns, decodeBfloat16)],
    [halves, [...halves.data]],
  ];
  for (const [source, values] of sources) {
    await t.step(`from ${source.dtype}`, () => {
      for (const to of dtypes) {
        const expected = values.map((value) => model(value, to));
        assertConverted(source, source.astype(to.name), expected);
      }
    });
    await t.step(`from ${source.dtype} to itself, bit for bit`, () => {
      const { data } = source.astype(source.dtype);
      assertEquals(hexOf(data), hexOf(patterns));
    });
  }
  await t.step("from bfloat16 to float32, NaN's bits too", () => {
    const { data } = bfloats.astype("float32");
    const widened = Uint32Array.from(patterns, (half) => half << 16);
    assertEquals(hexOf(data), hexOf(widened));
  });
});

Deno.test("astype rounds to 16 and 8 bits once, around every tie", async (t) => {
  const narrow = [
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "float8_e5m2",
  ] as const;
  // Every upper half of a float32, with lower halves around ties.
  for (const low of [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001]) {
    await t.step(`lower half ${low}`, () => {
      const bits = Uint32Array.from(patterns, (high) => high << 16 | low);
      const singles = new Float32Array(bits.buffer);
      // Beside them by less than float32 can tell.
      const doubles = Float64Array.from(singles, (x) => x * (1 + 2 ** -52));
      for (const dtype of narrow) {
        const to = dtypeByName(dtype)!;
        for (const data of [singles, doubles]) {
          const source = Tensor.from(data as Float64Array);
          const expected = Array.from(data, (value) => model(value, to));
          assertConverted(source, source.astype(dtype), expected);
        }
      }
    });
  }
});

/** Integers around sums of two powers of two, and random ones. */
function bigIntegers(): bigint[] {
  const values: bigint[] = [];
  for (let bit = 0n; bit < 64n; bit++) {
    for (let other = 0n; other <= bit; other++) {
      const value = 1n << bit | 1n << other;
      values.push(value - 1n, value, value + 1n);
    }
  }
  let random = 1n;
  for (let i = 0; i < 10_000; i++) {
    random = BigInt.asUintN(64, random * 6364136223846793005n + 1n);
    values.push(random >> BigInt(i % 64));
  }
  return values.flatMap((value) => [value, -value]);
}

/** The float with so many bits that is nearest to an integer, ties to even. */
function nearest(value: bigint, bits: number): number {
  const magnitude = value < 0n ? -value : value;
  const excess = BigInt(Math.max(magnitude.toString(2).length - bits, 0));
  let kept = magnitude >> excess;
  const twice = (magnitude - (kept << excess)) * 2n;
  const step = 1n << excess;
  if (twice > step || twice === step && kept % 2n === 1n) kept++;
  return Number((value < 0n ? -kept : kept) << excess);
}

Deno.test("astype converts 64-bit integers as BigInt arithmetic does", async (t) => {
  for (const array of [BigInt64Array, BigUint64Array]) {
    const data = array.from(bigIntegers());
    const source = Tensor.from(data as BigInt64Array);
    const integers = [...data];
    const check = (dtype: DType, to: (value: bigint) => Element): void =>
      assertConverted(source, source.astype(dtype), integers.map(to));
    await t.step(`from ${source.dtype}`, () => {
      check("float64", (value) => nearest(value, 53));
      check("float32", (value) => nearest(value, 24));
      check("bfloat16", (value) => nearest(value, 8));
      check("float16", (value) => Math.f16round(nearest(value, 11)));
      check("complex64", (value) => ({ re: nearest(value, 24), im: 0 }));
      check("int64", (value) => BigInt.asIntN(64, value));
      check("uint64", (value) => BigInt.asUintN(64, value));
      check("int32", (value) => Number(BigInt.asIntN(32, value)));
      check("uint32", (value) => Number(BigInt.asUintN(32, value)));
      check("uint8", (value) => Number(BigInt.asUintN(8, value)));
      check("int4", (value) => Number(BigInt.asIntN(4, value)));
      check("bool", (value) => value !== 0n);
    });
  }
});

Deno.test("astype converts to 64-bit integers as BigInt arithmetic does", async (t) => {
  const doubles = Float64Array.from(
    bigIntegers(),
    (value, i) => Number(value) * 2 ** (i % 9 - 4) + i % 5 / 4,
  );
  doubles.set([NaN, Infinity, -Infinity, -0, -0.5, 2 ** 70, -1e300]);
  const sources: Tensor[] = [
    Tensor.from(doubles),
    Tensor.from(Float32Array.from(doubles)),
    Tensor.from(Int32Array.from(doubles)),
    Tensor.from(Uint32Array.from(doubles)),
    Tensor.from(Int8Array.from(doubles)),
  ];
  for (const source of sources) {
    await t.step(`from ${source.dtype}`, () => {
      const integers = [...source.data as Float64Array].map((value) =>
        Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n
      );
      const signed = integers.map((value) => BigInt.asIntN(64, value));
      const unsigned = integers.map((value) => BigInt.asUintN(64, value));
      assertConverted(source, source.astype("int64"), signed);
      assertConverted(source, source.astype("uint64"), unsigned);
    });
  }
});

Deno.test("astype converts 64-bit integers alike, whatever is beside them", () => {
  // 16 go at once: all small, all large, or one of them.
  const edges = [0n, 1n, -1n, 2n ** 24n + 1n, 2n ** 25n + 3n, 2n ** 31n]
    .concat([2n ** 32n, 5n * 2n ** 30n, 6n * 2n ** 30n, 7n * 2n ** 30n])
    .concat([2n ** 33n, 2n ** 53n + 1n, 2n ** 62n + 2n ** 38n])
    .flatMap((edge) => [edge - 1n, edge, edge + 1n, -edge]);
  const values = edges.flatMap((edge) => [
    ...Array<bigint>(16).fill(edge),
    ...edges.slice(0, 15),
    edge,
  ]);
  for (const array of [BigInt64Array, BigUint64Array]) {
    const source = Tensor.from(array.from(values) as BigInt64Array);
    const integers = [...source.data];
    const to = (dtype: DType, bits: number): void =>
      assertConverted(
        source,
        source.astype(dtype),
        integers.map((value) => nearest(value, bits)),
      );
    to("float32", 24);
    to("float64", 53);
  }
});

Deno.test("astype converts float32 to 64-bit integers alike, whatever is beside them", () => {
  const below = Math.fround(2 ** 31 - 128);
  const edges = [0, -0.75, 1.5, below, -below, 2 ** 31, -(2 ** 31), 2 ** 32]
    .concat([2 ** 40 + 2 ** 20, -(2 ** 62), 2 ** 63, NaN, Infinity, -Infinity]);
  const values = edges.flatMap((edge) => [
    ...Array<number>(16).fill(edge),
    ...Array.from({ length: 15 }, (_, i) => i % 2 === 0 ? below : 0.5 - i),
    edge,
  ]);
  const source = Tensor.from(Float32Array.from(values));
  for (const dtype of ["int64", "uint64"] as const) {
    const expected = values.map((value) => model(value, dtypeByName(dtype)!));
    assertConverted(source, source.astype(dtype), expected);
  }
});

Deno.test("astype reads complex32 that begins within a word", () => {
  const parts = Float16Array.from([9, 0, -0, 0, 1, 2.5, -3, NaN, 0]);
  const t = Tensor.from(parts.subarray(1), [4], { dtype: "complex32" });
  assertEquals(t.astype("bool").toArray(), [false, true, true, true]);
  assertEquals(t.astype("int64").toArray(), [0n, 0n, 2n, 0n]);
});

Deno.test("astype ignores what else is in the byte of a padded element", () => {
  const bytes = Uint8Array.from([0xf1, 0x9f, 0x02]);
  const t = Tensor.from(bytes, [3], { dtype: "int4", padded: true });
  assertEquals(t.astype("int4").data, Uint8Array.from([0xf1, 0x02]));
  assertEquals(t.astype("float32").toArray(), [1, -1, 2]);
});
