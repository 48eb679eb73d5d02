// Elements of every dtype, in JavaScript's memory and in that of the C fixture,
// where a read outside of the tensor ends the process.

import {
  DlpackCapsule,
  type DType,
  fromDlpack,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { bytesOf } from "./helpers.ts";
import { type FixtureSpec, make } from "./native/fixture.ts";

/** A tensor over a managed tensor of the fixture. */
function load(spec: FixtureSpec): Tensor {
  return fromDlpack(new DlpackCapsule(make(spec), "dltensor_versioned"));
}

/** `DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED` */
const PADDED = 4;

/** Both ends of a data region that can touch a page nobody may read. */
const places = ["start", "end"] as const;

/** Equal, and -0 told from 0. */
function assertSame(actual: unknown, expected: unknown, message = ""): void {
  if (typeof actual !== "object" || actual === null) {
    const text = `${message}: ${String(actual)}, not ${String(expected)}`;
    return assert(Object.is(actual, expected), text);
  }
  const wanted = expected as Record<string, unknown>;
  assertEquals(Object.keys(actual), Object.keys(wanted), message);
  for (const [key, value] of Object.entries(actual)) {
    assertSame(value, wanted[key], message);
  }
}

/** A dtype of whole bytes: how it is made, and elements that it can hold. */
interface Whole {
  code: number;
  bits: number;
  /** The typed array that `data` is. */
  array: string;
  /** Elements, and little-endian bytes typed by hand from the format. */
  elements: [element: unknown, bytes: number[]][];
}

const whole: Partial<Record<DType, Whole>> = {
  bool: {
    code: 6,
    bits: 8,
    array: "Uint8Array",
    elements: [[false, [0]], [true, [1]]],
  },
  int8: {
    code: 0,
    bits: 8,
    array: "Int8Array",
    elements: [[0, [0]], [127, [127]], [-128, [128]], [-1, [255]]],
  },
  int16: {
    code: 0,
    bits: 16,
    array: "Int16Array",
    elements: [[258, [2, 1]], [-1, [255, 255]], [-32768, [0, 128]]],
  },
  int32: {
    code: 0,
    bits: 32,
    array: "Int32Array",
    elements: [[0x01020304, [4, 3, 2, 1]], [-(2 ** 31), [0, 0, 0, 128]]],
  },
  int64: {
    code: 0,
    bits: 64,
    array: "BigInt64Array",
    elements: [
      [0x0102030405060708n, [8, 7, 6, 5, 4, 3, 2, 1]],
      [-(2n ** 63n), [0, 0, 0, 0, 0, 0, 0, 128]],
    ],
  },
  uint8: {
    code: 1,
    bits: 8,
    array: "Uint8Array",
    elements: [[0, [0]], [255, [255]]],
  },
  uint16: {
    code: 1,
    bits: 16,
    array: "Uint16Array",
    elements: [[258, [2, 1]], [65535, [255, 255]]],
  },
  uint32: {
    code: 1,
    bits: 32,
    array: "Uint32Array",
    elements: [[2 ** 32 - 2, [254, 255, 255, 255]], [1, [1, 0, 0, 0]]],
  },
  uint64: {
    code: 1,
    bits: 64,
    array: "BigUint64Array",
    elements: [
      [2n ** 64n - 2n, [254, 255, 255, 255, 255, 255, 255, 255]],
      [1n, [1, 0, 0, 0, 0, 0, 0, 0]],
    ],
  },
  float16: {
    code: 2,
    bits: 16,
    array: "Float16Array",
    elements: [[1, [0, 0x3c]], [-0, [0, 0x80]], [65504, [0xff, 0x7b]]],
  },
  float32: {
    code: 2,
    bits: 32,
    array: "Float32Array",
    elements: [
      [1, [0, 0, 0x80, 0x3f]],
      [-Infinity, [0, 0, 0x80, 0xff]],
      [NaN, [0, 0, 0xc0, 0x7f]],
    ],
  },
  float64: {
    code: 2,
    bits: 64,
    array: "Float64Array",
    elements: [
      [1, [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]],
      [-0, [0, 0, 0, 0, 0, 0, 0, 0x80]],
      [5e-324, [1, 0, 0, 0, 0, 0, 0, 0]],
    ],
  },
  handle: {
    code: 3,
    bits: 64,
    array: "BigUint64Array",
    elements: [[0xfedcba9876543210n, [
      0x10,
      0x32,
      0x54,
      0x76,
      0x98,
      0xba,
      0xdc,
      0xfe,
    ]]],
  },
  bfloat16: {
    code: 4,
    bits: 16,
    array: "Uint16Array",
    elements: [[1, [0x80, 0x3f]], [-2, [0, 0xc0]], [Infinity, [0x80, 0x7f]]],
  },
  complex32: {
    code: 5,
    bits: 32,
    array: "Float16Array",
    elements: [[{ re: 1, im: -0 }, [0, 0x3c, 0, 0x80]]],
  },
  complex64: {
    code: 5,
    bits: 64,
    array: "Float32Array",
    elements: [
      [{ re: 1, im: -2 }, [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]],
      [{ re: -0, im: 0 }, [0, 0, 0, 0x80, 0, 0, 0, 0]],
    ],
  },
  complex128: {
    code: 5,
    bits: 128,
    array: "Float64Array",
    elements: [[
      { re: 1, im: -2 },
      [0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0],
    ]],
  },
  float8_e3m4: {
    code: 7,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x30]], [-1.5, [0xb8]]],
  },
  float8_e4m3: {
    code: 8,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x38]], [-1.5, [0xbc]]],
  },
  float8_e4m3b11fnuz: {
    code: 9,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x58]], [-1.5, [0xdc]]],
  },
  float8_e4m3fn: {
    code: 10,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x38]], [448, [0x7e]], [NaN, [0x7f]]],
  },
  float8_e4m3fnuz: {
    code: 11,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x40]], [-1.5, [0xc4]], [NaN, [0x80]]],
  },
  float8_e5m2: {
    code: 12,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x3c]], [-Infinity, [0xfc]]],
  },
  float8_e5m2fnuz: {
    code: 13,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [0x40]], [-1.5, [0xc2]]],
  },
  float8_e8m0fnu: {
    code: 14,
    bits: 8,
    array: "Uint8Array",
    elements: [[1, [127]], [2 ** -127, [0]], [NaN, [255]]],
  },
};

Deno.test("elements of whole bytes are read and written", async (t) => {
  for (const [name, { code, bits, array, elements }] of Object.entries(whole)) {
    await t.step(name, () => {
      const raw = Uint8Array.from(elements.flatMap(([, bytes]) => bytes));
      const values = elements.map(([element]) => element);
      for (const place of places) {
        using t = load({
          dtype: [code, bits, 1],
          shape: [values.length],
          nbytes: raw.length,
          data: raw,
          place,
        });
        assertEquals(t.dtype, name);
        assertEquals(t.bits, bits);
        assertEquals(t.itemsize, bits / 8);
        assertEquals(t.nbytes, raw.length);
        assertEquals(t.data.constructor.name, array);
        assertEquals(bytesOf(t.data), raw);
        assertElements(t, values);

        // Written in reverse, the bytes come in reverse.
        values.toReversed().forEach((value, i) => t.set(i, value as never));
        const reversed = elements.toReversed().flatMap(([, bytes]) => bytes);
        assertEquals(bytesOf(t.data), Uint8Array.from(reversed));
        assertElements(t, values.toReversed());

        const own = Tensor.from(t.data.slice(), [values.length], {
          dtype: name as DType,
        });
        assertElements(own, values.toReversed());
      }
    });
  }
});

/** Every way to read a tensor with one axis. */
function assertElements(t: Tensor, expected: readonly unknown[]): void {
  assertEquals(t.shape, [expected.length]);
  expected.forEach((element, i) => {
    assertSame(t.get(i), element, `element ${i}`);
    assertSame(t.get(i - expected.length), element, `element ${i}`);
    assertSame(t.slice(i).get(), element, `element ${i}`);
    assertSame(t.slice(i).toArray(), element, `element ${i}`);
  });
  assertSame(t.toArray(), expected, "toArray");
  assertSame([...t], expected, "iteration");
}

Deno.test("bool reads every byte but 0 as true and writes 0 and 1", () => {
  using t = load({
    dtype: [6, 8, 1],
    shape: [4],
    nbytes: 4,
    data: new Uint8Array([0, 1, 2, 255]),
  });
  assertEquals(t.toArray(), [false, true, true, true]);
  if (!t.is("bool")) throw new Error(t.dtype);
  t.set(3, false);
  t.set(2, true);
  assertEquals(t.data, new Uint8Array([0, 1, 1, 0]));
});

/** A dtype of fewer than 8 bits, with the value of each bit pattern. */
interface Subbyte {
  code: number;
  bits: number;
  values: readonly number[];
}

// Typed by hand: the positive halves; the sign bit is the highest.
const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
// deno-fmt-ignore
const e2m3 = [
  0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875,
  1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
  2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75,
  4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5,
];
// deno-fmt-ignore
const e3m2 = [
  0, 0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375,
  0.5, 0.625, 0.75, 0.875, 1, 1.25, 1.5, 1.75,
  2, 2.5, 3, 3.5, 4, 5, 6, 7,
  8, 10, 12, 14, 16, 20, 24, 28,
];
const withSign = (values: number[]) => [...values, ...values.map((x) => -x)];

const subbyte: Partial<Record<DType, Subbyte>> = {
  int1: { code: 0, bits: 1, values: [0, -1] },
  int2: { code: 0, bits: 2, values: [0, 1, -2, -1] },
  int4: {
    code: 0,
    bits: 4,
    values: [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1],
  },
  uint1: { code: 1, bits: 1, values: [0, 1] },
  uint2: { code: 1, bits: 2, values: [0, 1, 2, 3] },
  uint4: {
    code: 1,
    bits: 4,
    values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  },
  float6_e2m3fn: { code: 15, bits: 6, values: withSign(e2m3) },
  float6_e3m2fn: { code: 16, bits: 6, values: withSign(e3m2) },
  float4_e2m1fn: { code: 17, bits: 4, values: withSign(e2m1) },
};

/** Patterns side by side, the first in the lowest bits: bit by bit. */
function pack(patterns: readonly number[], bits: number) {
  const bytes = new Uint8Array(Math.ceil(patterns.length * bits / 8));
  patterns.forEach((pattern, i) => {
    for (let bit = 0; bit < bits; bit++) {
      const at = i * bits + bit;
      bytes[at >> 3] = bytes[at >> 3]! | (pattern >> bit & 1) << (at & 7);
    }
  });
  return bytes;
}

Deno.test("packed elements of fewer than 8 bits are read and written", async (t) => {
  for (const [name, { code, bits, values }] of Object.entries(subbyte)) {
    await t.step(name, () => {
      // All patterns, then once more shifted by one element in their bytes.
      const patterns = [...values.keys(), 1, ...values.keys()];
      const expected = patterns.map((pattern) => values[pattern]!);
      const raw = pack(patterns, bits);
      for (const place of places) {
        using t = load({
          dtype: [code, bits, 1],
          shape: [patterns.length],
          nbytes: raw.length,
          data: raw,
          place,
        });
        assertEquals(t.dtype, name);
        assertEquals(t.bits, bits);
        assertEquals(t.itemsize, bits / 8);
        assertEquals(t.nbytes, raw.length);
        assertEquals(t.data, raw);
        assertElements(t, expected);

        patterns.toReversed().forEach((pattern, i) =>
          t.set(i, values[pattern] as never)
        );
        assertElements(t, expected.toReversed());
        assertEquals(t.data, pack(patterns.toReversed(), bits));

        const own = Tensor.from(t.data.slice() as Uint8Array, t.shape, {
          dtype: name as "uint4",
        });
        assertElements(own, expected.toReversed());
      }
    });
  }
});

Deno.test("padded elements of fewer than 8 bits have a byte each", async (t) => {
  for (const [name, { code, bits, values }] of Object.entries(subbyte)) {
    await t.step(name, () => {
      // What lies above an element's bits says nothing.
      const above = 255 << bits & 255;
      const raw = Uint8Array.from(
        values.keys(),
        (pattern) => pattern | (pattern % 2 ? above : 0),
      );
      for (const place of places) {
        using t = load({
          dtype: [code, bits, 1],
          flags: PADDED,
          shape: [values.length],
          nbytes: raw.length,
          data: raw,
          place,
        });
        assertEquals([t.dtype, t.bits, t.itemsize], [name, bits, 1]);
        assertEquals(t.nbytes, values.length);
        assertEquals(t.data, raw);
        assertElements(t, values);

        values.toReversed().forEach((value, i) => t.set(i, value as never));
        assertElements(t, values.toReversed());

        const own = Tensor.from(raw.slice(), undefined, {
          dtype: name as "uint4",
          padded: true,
        });
        assertEquals(own.itemsize, 1);
        assertElements(own, values);
      }
    });
  }
});

Deno.test("set leaves the neighbours of a packed element alone", async (t) => {
  for (const [name, { code, bits, values }] of Object.entries(subbyte)) {
    await t.step(name, () => {
      const last = values.length - 1;
      // Elements of all ones, one of them set to 0, and the reverse.
      for (const [around, pattern] of [[last, 0], [0, last]] as const) {
        for (let at = 0; at < 9; at++) {
          const patterns = new Array(9).fill(around);
          const raw = pack(patterns, bits);
          // The bits behind the last element are ones.
          const slack = 255 << 9 * bits % 8 & 255;
          const end = raw.length - 1;
          if (9 * bits % 8 !== 0) raw[end] = raw[end]! | slack;
          using t = load({
            dtype: [code, bits, 1],
            shape: [9],
            nbytes: raw.length,
            data: raw,
          });
          t.set(at, values[pattern] as never);
          patterns[at] = pattern;
          const expected = pack(patterns, bits);
          if (9 * bits % 8 !== 0) expected[end] = expected[end]! | slack;
          assertEquals(t.data, expected, `element ${at}`);
        }
      }
    });
  }
});

Deno.test("integers wrap around when they are set, as typed arrays do", () => {
  const cases: [DType, TypedArray, value: number, expected: number][] = [
    ["int1", new Uint8Array(1), 1, -1],
    ["int2", new Uint8Array(1), 2, -2],
    ["int4", new Uint8Array(1), 8, -8],
    ["int4", new Uint8Array(1), -9, 7],
    ["uint1", new Uint8Array(1), 2, 0],
    ["uint2", new Uint8Array(1), -1, 3],
    ["uint4", new Uint8Array(1), 17, 1],
    ["uint4", new Uint8Array(1), 2 ** 32 + 3, 3],
    ["uint4", new Uint8Array(1), 2.9, 2],
    ["int4", new Uint8Array(1), -2.9, -2],
    ["uint4", new Uint8Array(1), NaN, 0],
    ["uint4", new Uint8Array(1), Infinity, 0],
    ["int8", new Int8Array(1), 128, -128],
    ["uint8", new Uint8Array(1), -1, 255],
    ["uint16", new Uint16Array(1), 65537, 1],
    ["int32", new Int32Array(1), 2 ** 31, -(2 ** 31)],
    ["uint32", new Uint32Array(1), -1, 2 ** 32 - 1],
  ];
  for (const [dtype, data, value, expected] of cases) {
    const t = Tensor.from(data, [1], { dtype });
    t.set(0, value);
    assertSame(t.get(0), expected, `${dtype} of ${value}`);
  }
  const big = Tensor.from(new BigInt64Array(1));
  big.set(0, 2n ** 63n);
  assertEquals(big.get(0), -(2n ** 63n));
  const unsigned = Tensor.from(new BigUint64Array(1));
  unsigned.set(0, -1n);
  assertEquals(unsigned.get(0), 2n ** 64n - 1n);
});

Deno.test("set refuses a value of another kind", () => {
  const cases: [DType, TypedArray, wrong: unknown[], wanted: string][] = [
    ["int8", new Int8Array(1), [1n, "1", true, null, undefined], "a number"],
    ["int4", new Uint8Array(1), [1n, "1", true], "a number"],
    ["float32", new Float32Array(1), [1n, "1", {}], "a number"],
    ["bfloat16", new Uint16Array(1), [1n, "1"], "a number"],
    ["int64", new BigInt64Array(1), [1, "1", true], "a bigint"],
    ["handle", new BigUint64Array(1), [1], "a bigint"],
    ["bool", new Uint8Array(1), [1, "true", null], "a boolean"],
    [
      "complex64",
      new Float32Array(2),
      [1, null, undefined, {}, { re: 1 }, { re: 1, im: 1n }],
      "{ re, im } with two numbers",
    ],
  ];
  const named = (value: unknown): string =>
    value === null || value === undefined
      ? String(value)
      : typeof value === "object"
      ? "an object"
      : `a ${typeof value}`;
  for (const [dtype, data, wrong, wanted] of cases) {
    const t = Tensor.from(data, [1], { dtype });
    const a = dtype.startsWith("int") ? "an" : "a";
    for (const value of wrong) {
      assertThrows(
        () => t.set(0, value as never),
        TypeError,
        `Cannot set an element of ${a} ${dtype} tensor to ${named(value)}: ` +
          `pass ${wanted}`,
      );
    }
    assert(bytesOf(data).every((byte) => byte === 0), "nothing was written");
  }
});

/** A dtype's whole-byte elements 0, 1, …, n - 1, or bytes that count. */
function counting(n: number): Uint8Array<ArrayBuffer> {
  return bytesOf(Float32Array.from({ length: n }, (_, i) => i));
}

Deno.test("lanes become a last axis", async (t) => {
  const nibbles = pack([1, 2, 3, 4, 5, 6, 7, 0], 4);
  const cases: [name: string, FixtureSpec, shape: number[], unknown][] = [
    [
      "float32x4",
      { dtype: [2, 32, 4], shape: [2], nbytes: 32, data: counting(8) },
      [2, 4],
      [[0, 1, 2, 3], [4, 5, 6, 7]],
    ],
    [
      "float32x2, transposed",
      {
        dtype: [2, 32, 2],
        shape: [2, 2],
        strides: [1, 2],
        nbytes: 32,
        data: counting(8),
      },
      [2, 2, 2],
      [[[0, 1], [4, 5]], [[2, 3], [6, 7]]],
    ],
    [
      "float32x2, backwards",
      {
        dtype: [2, 32, 2],
        shape: [3],
        strides: [-1],
        origin: 16,
        nbytes: 24,
        data: counting(6),
      },
      [3, 2],
      [[4, 5], [2, 3], [0, 1]],
    ],
    [
      "float32x3, without axes",
      { dtype: [2, 32, 3], shape: null, nbytes: 12, data: counting(3) },
      [3],
      [0, 1, 2],
    ],
    [
      "complex64x2",
      { dtype: [5, 64, 2], shape: [1], nbytes: 16, data: counting(4) },
      [1, 2],
      [[{ re: 0, im: 1 }, { re: 2, im: 3 }]],
    ],
    [
      "int4x2",
      { dtype: [0, 4, 2], shape: [4], nbytes: 4, data: nibbles },
      [4, 2],
      [[1, 2], [3, 4], [5, 6], [7, 0]],
    ],
    [
      "int4x2, every other, backwards",
      {
        dtype: [0, 4, 2],
        shape: [2],
        strides: [-2],
        origin: 2,
        nbytes: 3,
        data: nibbles.slice(0, 3),
      },
      [2, 2],
      [[5, 6], [1, 2]],
    ],
    [
      "int4x2, padded",
      {
        dtype: [0, 4, 2],
        flags: PADDED,
        shape: [2],
        nbytes: 4,
        data: new Uint8Array([1, 15, 7, 8]),
      },
      [2, 2],
      [[1, -1], [7, -8]],
    ],
    [
      "float4_e2m1fnx2",
      {
        dtype: [17, 4, 2],
        shape: [2],
        nbytes: 2,
        data: new Uint8Array([0x21, 0xf7]),
      },
      [2, 2],
      [[0.5, 1], [6, -6]],
    ],
    [
      "uint1x8",
      {
        dtype: [1, 1, 8],
        shape: [2],
        nbytes: 2,
        data: new Uint8Array([0b10000001, 0b00000110]),
      },
      [2, 8],
      [[1, 0, 0, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0, 0]],
    ],
    [
      "float6_e2m3fnx4",
      {
        dtype: [15, 6, 4],
        shape: [2],
        nbytes: 6,
        data: pack([8, 16, 24, 40, 0, 1, 31, 63], 6),
      },
      [2, 4],
      [[1, 2, 4, -1], [0, 0.125, 7.5, -7.5]],
    ],
  ];
  for (const [name, spec, shape, expected] of cases) {
    await t.step(name, () => {
      for (const place of places) {
        using t = load({ ...spec, place });
        assertEquals(t.shape, shape);
        assertEquals(t.toArray(), expected);
        assertEquals(t.data.byteLength, spec.nbytes);
        assertEquals(t.strides.at(-1), 1);
      }
    });
  }
});

Deno.test("a tensor without axes has one element", () => {
  for (const place of places) {
    using t = load({
      dtype: [2, 32, 1],
      shape: null,
      nbytes: 4,
      data: new Uint8Array([0, 0, 0x80, 0x3f]),
      place,
    });
    assertEquals([t.ndim, t.size, t.nbytes, t.isContiguous], [0, 1, 4, true]);
    assertEquals([t.shape, t.strides, t.offset], [[], [], 0]);
    assertEquals(t.get(), 1);
    t.set(2);
    assertEquals(t.toArray(), 2);
    assertEquals(t.data, new Float32Array([2]));
  }
});

Deno.test("an empty tensor has no elements and needs no memory", () => {
  for (const nullData of [true, false]) {
    using t = load({
      dtype: [2, 32, 1],
      shape: [2, 0, 3],
      nbytes: 0,
      nullData,
    });
    assertEquals([t.size, t.nbytes, t.data.length], [0, 0, 0]);
    assertEquals(t.toArray(), [[], []]);
    assertThrows(() => t.get(0, 0, 0), RangeError, "axis 1 of length 0");
    assertEquals([...t].length, 2);
    assertEquals(t.copy().shape, [2, 0, 3]);
  }
});

Deno.test("64 axes are possible", () => {
  const shape = new Array(64).fill(1);
  shape[7] = 2;
  shape[63] = 3;
  using t = load({
    dtype: [2, 32, 1],
    shape,
    nbytes: 24,
    data: counting(6),
  });
  const index = new Array(64).fill(0);
  index[7] = 1;
  index[63] = -1;
  assertEquals(t.ndim, 64);
  assertEquals(t.get(...index), 5);
  assertEquals(t.reshape([2, 3]).toArray(), [[0, 1, 2], [3, 4, 5]]);
  assertEquals(t.copy().get(...index), 5);
});

Deno.test("strides of both signs, 0 and overlapping ones are followed", async (t) => {
  const float = (spec: Partial<FixtureSpec>, count: number): FixtureSpec => ({
    dtype: [2, 32, 1],
    nbytes: 4 * count,
    data: counting(count),
    ...spec,
  });
  const cases: [name: string, FixtureSpec, unknown, offset: number][] = [
    ["NULL", float({ shape: [2, 3] }, 6), [[0, 1, 2], [3, 4, 5]], 0],
    [
      "transposed",
      float({ shape: [3, 2], strides: [1, 3] }, 6),
      [[0, 3], [1, 4], [2, 5]],
      0,
    ],
    [
      "gaps",
      float({ shape: [2, 2], strides: [4, 2] }, 7),
      [[0, 2], [4, 6]],
      0,
    ],
    [
      "broadcast",
      float({ shape: [2, 3], strides: [0, 1] }, 3),
      [[0, 1, 2], [0, 1, 2]],
      0,
    ],
    ["all one", float({ shape: [2, 2], strides: [0, 0] }, 1), [[0, 0], [
      0,
      0,
    ]], 0],
    [
      "overlapping",
      float({ shape: [3, 3], strides: [1, 1] }, 5),
      [[0, 1, 2], [1, 2, 3], [2, 3, 4]],
      0,
    ],
    [
      "negative",
      float({ shape: [4], strides: [-1], origin: 12 }, 4),
      [3, 2, 1, 0],
      3,
    ],
    [
      "negative from a byte offset",
      float({ shape: [4], strides: [-1], byteOffset: 12 }, 4),
      [3, 2, 1, 0],
      3,
    ],
    [
      "of both signs",
      float({ shape: [2, 3], strides: [3, -1], origin: 8 }, 6),
      [[2, 1, 0], [5, 4, 3]],
      2,
    ],
    [
      "meaningless in an axis of length 1",
      float({ shape: [1, 3], strides: [-(2n ** 62n), 1] }, 3),
      [[0, 1, 2]],
      0,
    ],
  ];
  for (const [name, spec, expected, offset] of cases) {
    await t.step(name, () => {
      for (const place of places) {
        using t = load({ ...spec, place });
        assertEquals(t.toArray(), expected);
        assertSame(t.offset, offset, "offset");
        assertEquals(t.data.byteLength, spec.nbytes);
        assertEquals(t.copy().toArray(), expected);
        assert(t.copy().isContiguous);
      }
    });
  }
});

Deno.test("packed elements are followed by strides of both signs", async (t) => {
  const nibbles = pack([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 4);
  const uint4 = (spec: Partial<FixtureSpec>): FixtureSpec => ({
    dtype: [1, 4, 1],
    nbytes: nibbles.length,
    data: nibbles,
    ...spec,
  });
  const cases: [name: string, FixtureSpec, unknown][] = [
    [
      "transposed",
      uint4({ shape: [3, 4], strides: [1, 3] }),
      [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]],
    ],
    [
      "rows that do not start on a byte",
      uint4({ shape: [4, 3] }),
      [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]],
    ],
    [
      "backwards, from the last byte",
      uint4({ shape: [11], strides: [-1], origin: 5 }),
      [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ],
    [
      "backwards over a part",
      uint4({
        shape: [3],
        strides: [-1],
        origin: 1,
        nbytes: 2,
        data: nibbles.slice(0, 2),
      }),
      [2, 1, 0],
    ],
    [
      "of both signs",
      uint4({ shape: [3, 2], strides: [4, -2], origin: 1 }),
      [[2, 0], [6, 4], [10, 8]],
    ],
    ["broadcast", uint4({ shape: [3], strides: [0], origin: 2 }), [4, 4, 4]],
    [
      "backwards, 1 bit each",
      {
        dtype: [1, 1, 1],
        shape: [16],
        strides: [-1],
        origin: 2,
        nbytes: 3,
        data: new Uint8Array([0b00000010, 0b10000000, 0b00000001]),
      },
      [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ],
    [
      "backwards, 2 bits each",
      {
        dtype: [1, 2, 1],
        shape: [5],
        strides: [-1],
        origin: 1,
        nbytes: 2,
        data: new Uint8Array([0b11_10_01_00, 0b00_00_00_01]),
      },
      [1, 3, 2, 1, 0],
    ],
    [
      "backwards, 6 bits each, across bytes",
      {
        dtype: [15, 6, 1],
        shape: [5],
        strides: [-1],
        origin: 3,
        nbytes: 4,
        data: pack([8, 16, 24, 40, 31], 6),
      },
      [7.5, -1, 4, 2, 1],
    ],
  ];
  for (const [name, spec, expected] of cases) {
    await t.step(name, () => {
      for (const place of places) {
        using t = load({ ...spec, place });
        assertEquals(t.toArray(), expected);
        assertEquals(t.copy().toArray(), expected);
      }
    });
  }
});

Deno.test("data holds no byte that no element of a packed tensor touches", async (t) => {
  // Whatever lies beside the tensor may be memory that nobody may read.
  const cases: [bits: number, code: number][] = [[1, 1], [2, 1], [4, 1]];
  for (const [bits, code] of cases) {
    await t.step(`uint${bits}, backwards`, () => {
      const perByte = 8 / bits;
      using t = load({
        dtype: [code, bits, 1],
        shape: [perByte + 1],
        strides: [-1],
        origin: 1,
        nbytes: 2,
        place: "start",
      });
      assertEquals(t.data.length, 2);
      assertEquals(t.offset, perByte);
    });
  }
});

Deno.test("elements may lie at any address", async (t) => {
  const cases: [name: string, code: number, bits: number, bytes: Uint8Array][] =
    [
      ["float16", 2, 16, bytesOf(new Float16Array([1, 2, 3]))],
      ["int32", 0, 32, bytesOf(new Int32Array([1, 2, 3]))],
      ["float64", 2, 64, bytesOf(new Float64Array([1, 2, 3]))],
      ["int64", 0, 64, bytesOf(new BigInt64Array([1n, 2n, 3n]))],
      ["complex128", 5, 128, bytesOf(new Float64Array([1, 0, 2, 0, 3, 0]))],
    ];
  for (const [name, code, bits, bytes] of cases) {
    await t.step(name, () => {
      for (const [origin, byteOffset] of [[1, 0], [0, 3], [3, 4], [1, 1]]) {
        const before = origin! + byteOffset!;
        const data = new Uint8Array(before + bytes.length);
        data.set(bytes, before);
        using t = load({
          dtype: [code, bits, 1],
          shape: [3],
          origin: origin!,
          byteOffset: byteOffset!,
          nbytes: data.length,
          data,
          place: "start",
        });
        const numbers = (t.toArray() as unknown[]).map((element) =>
          Number((element as { re: number }).re ?? element)
        );
        assertEquals(numbers, [1, 2, 3]);
        assertEquals(t.offset, 0);
        assertEquals(bytesOf(t.data), bytes);
        t.set(0, t.get(2));
        assertEquals(t.get(0), t.get(2));
        assertEquals(t.slice([null, null, -1]).copy().get(0), t.get(2));
      }
    });
  }
});
