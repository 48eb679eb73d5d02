// Text of arrays against strings typed by hand, and against NumPy's str().

import { assert, assertEquals, assertThrows } from "@std/assert";
import { formatArray, type Printable } from "../src/tensor/format.ts";
import { askOracle } from "./parity/python.ts";
import { skipped } from "./skipped.ts";

/** A C-contiguous array over its elements in order. */
function array(dtype: string, shape: number[], elements: unknown[]): Printable {
  const get = (...index: number[]) => {
    assertEquals(index.length, shape.length);
    return elements[index.reduce((at, i, axis) => at * shape[axis]! + i, 0)];
  };
  return { dtype, shape, get };
}

/** Text of a 1-D array. */
function row(dtype: string, elements: unknown[]): string {
  return formatArray(array(dtype, [elements.length], elements));
}

/** Text of a 0-d array. */
function scalar(dtype: string, element: unknown): string {
  return formatArray(array(dtype, [], [element]));
}

const count = (n: number) => Array.from({ length: n }, (_, i) => i);

Deno.test("bool elements align True below False", () => {
  assertEquals(row("bool", [true, false]), "[ True False]");
  assertEquals(row("bool", [true, true]), "[ True  True]");
  assertEquals(scalar("bool", true), "True");
  assertEquals(scalar("bool", false), "False");
});

Deno.test("integers align to the right", () => {
  assertEquals(row("int8", [-128, 5, 127]), "[-128    5  127]");
  assertEquals(row("uint4", [0, 15]), "[ 0 15]");
  assertEquals(
    row("int64", [-9223372036854775808n, 0n]),
    "[-9223372036854775808                    0]",
  );
  assertEquals(
    row("uint64", [18446744073709551615n, 1n]),
    "[18446744073709551615                    1]",
  );
  assertEquals(scalar("int32", -3), "-3");
});

Deno.test("floats align at the point and trim trailing zeros", () => {
  assertEquals(
    formatArray(array("float64", [2, 2], [0, 1, 2, 3])),
    "[[0. 1.]\n [2. 3.]]",
  );
  assertEquals(row("float64", [-1.5, 10.25]), "[-1.5  10.25]");
  assertEquals(row("float64", [1.5, 2]), "[1.5 2. ]");
  assertEquals(row("float64", [-0, 0]), "[-0.  0.]");
  assertEquals(row("float64", [1 / 3]), "[0.33333333]");
  assertEquals(row("float64", [99999999]), "[99999999.]");
});

Deno.test("floats take exponents when one is large, small, or far off", () => {
  assertEquals(row("float64", [1e8, 1]), "[1.e+08 1.e+00]");
  assertEquals(row("float64", [1e-5]), "[1.e-05]");
  assertEquals(row("float64", [1e-4]), "[0.0001]");
  assertEquals(row("float64", [1000, 1]), "[1000.    1.]");
  assertEquals(row("float64", [1001, 1]), "[1.001e+03 1.000e+00]");
  assertEquals(row("float64", [1e-300, NaN, 1]), "[1.e-300     nan 1.e+000]");
  assertEquals(
    row("float64", [1e10, 1 / 3]),
    "[1.00000000e+10 3.33333333e-01]",
  );
  assertEquals(row("float32", [999999, 1000]), "[999999.   1000.]");
  assertEquals(row("float32", [1e6, 1000]), "[1.e+06 1.e+03]");
  // NumPy compares in the array's dtype: there neither is beyond the limit.
  const small = Math.fround(1e-4);
  assert(small < 1e-4);
  assertEquals(row("float32", [small, Math.fround(0.05)]), "[0.0001 0.05  ]");
  const apart = [5, Math.fround(0.005)] as const;
  assert(apart[0] / apart[1] > 1000);
  assertEquals(row("float32", [...apart]), "[5.    0.005]");
  assertEquals(row("float16", [999]), "[999.]");
  assertEquals(row("float16", [1000]), "[1.e+03]");
});

Deno.test("digits are the fewest that round-trip in the dtype", () => {
  const tenth = 0.1;
  assertEquals(row("float64", [tenth]), "[0.1]");
  assertEquals(row("float32", [Math.fround(tenth)]), "[0.1]");
  assertEquals(row("float16", [Math.f16round(tenth)]), "[0.1]");
  assertEquals(row("float64", [Math.fround(tenth)]), "[0.1]");
  assertEquals(scalar("float64", Math.fround(tenth)), "0.10000000149011612");
  assertEquals(row("float16", [300.25, 1]), "[300.2   1. ]");
  assertEquals(scalar("float64", 1e23), "1e+23");
  assertEquals(scalar("float64", 5e-324), "5e-324");
  assertEquals(scalar("float32", 2 ** -149), "1e-45");
  // All elements get the digits of the longest: here those of the exact value.
  assertEquals(
    row("float32", [0.1, 1e-5, 1 / 3].map(Math.fround)),
    "[1.0000000e-01 9.9999997e-06 3.3333334e-01]",
  );
});

Deno.test("nan and inf align with the numbers", () => {
  assertEquals(row("float64", [NaN, 1, -Infinity]), "[ nan   1. -inf]");
  assertEquals(row("float64", [NaN, Infinity]), "[nan inf]");
  assertEquals(row("float64", [NaN, -Infinity]), "[ nan -inf]");
  assertEquals(row("float64", [0.125, NaN]), "[0.125   nan]");
});

Deno.test("a 0-d float shows all its digits", () => {
  assertEquals(scalar("float64", 1.5), "1.5");
  assertEquals(scalar("float64", 1), "1.0");
  assertEquals(scalar("float64", -0), "-0.0");
  assertEquals(scalar("float64", 1e15), "1000000000000000.0");
  assertEquals(scalar("float64", 1e16), "1e+16");
  assertEquals(scalar("float64", 1e-4), "0.0001");
  assertEquals(scalar("float64", 1e-5), "1e-05");
  assertEquals(scalar("float64", -Infinity), "-inf");
  assertEquals(scalar("float32", Math.fround(1 / 3)), "0.33333334");
  assertEquals(scalar("float32", 1234567), "1.234567e+06");
  assertEquals(scalar("float32", Math.fround(1e-4)), "1e-04");
  assertEquals(scalar("float16", 1024), "1.024e+03");
});

Deno.test("small floats print as the float32 of the same value", () => {
  assertEquals(row("bfloat16", [1.5, 2.25]), "[1.5  2.25]");
  assertEquals(row("bfloat16", [3.140625, -NaN]), "[3.140625      nan]");
  assertEquals(row("float8_e5m2", [57344, -0.5]), "[ 5.7344e+04 -5.0000e-01]");
  assertEquals(row("float8_e4m3fn", [448, 0.5]), "[448.    0.5]");
  assertEquals(scalar("float8_e8m0fnu", 2 ** -127), "5.877472e-39");
  assertEquals(row("float6_e2m3fn", [7.5, -0.125]), "[ 7.5   -0.125]");
  assertEquals(row("float4_e2m1fn", [6, 0.5]), "[6.  0.5]");
});

Deno.test("complex elements align each part, with j before the padding", () => {
  assertEquals(row("complex64", [{ re: 1, im: 2 }]), "[1.+2.j]");
  assertEquals(
    row("complex128", [
      { re: 1, im: 2 },
      { re: 1 / 3, im: 1000 },
      { re: NaN, im: -Infinity },
    ]),
    "[1.           +2.j 0.33333333+1000.j        nan  -infj]",
  );
  assertEquals(
    row("complex128", [{ re: 1, im: -Infinity }, { re: 1, im: 20.5 }]),
    "[1. -infj 1.+20.5j]",
  );
  assertEquals(
    row("complex128", [{ re: 1e10, im: 1 }, { re: 1, im: 1e-3 }]),
    "[1.e+10+1.j    1.e+00+0.001j]",
  );
  assertEquals(row("complex32", [{ re: 1000, im: -0 }]), "[1.e+03-0.j]");
});

Deno.test("a 0-d complex is in parentheses unless its real part is +0", () => {
  assertEquals(scalar("complex128", { re: 1, im: 2 }), "(1+2j)");
  assertEquals(scalar("complex128", { re: 0, im: 1 }), "1j");
  assertEquals(scalar("complex128", { re: -0, im: 1 }), "(-0+1j)");
  assertEquals(scalar("complex128", { re: 0, im: NaN }), "nanj");
  assertEquals(
    scalar("complex128", { re: NaN, im: -Infinity }),
    "(nan-infj)",
  );
  assertEquals(
    scalar("complex64", { re: Math.fround(1 / 3), im: Math.fround(1e20) }),
    "(0.33333334+1e+20j)",
  );
});

Deno.test("handles print as hexadecimal", () => {
  assertEquals(row("handle", [255n, 4096n]), "[  0xff 0x1000]");
  assertEquals(scalar("handle", 0n), "0x0");
});

Deno.test("an array without elements prints as []", () => {
  for (const shape of [[0], [0, 3], [3, 0], [2, 0, 3]]) {
    assertEquals(formatArray(array("float32", shape, [])), "[]");
  }
});

Deno.test("blocks of 3-D and 4-D arrays are apart by blank lines", () => {
  assertEquals(
    formatArray(array("int32", [2, 2, 2], count(8))),
    "[[[0 1]\n  [2 3]]\n\n [[4 5]\n  [6 7]]]",
  );
  assertEquals(
    formatArray(array("int32", [2, 1, 2, 1], count(4))),
    "[[[[0]\n   [1]]]\n\n\n [[[2]\n   [3]]]]",
  );
});

Deno.test("rows wrap at 75 columns", () => {
  const full = "[" + "7 ".repeat(36) + "7]";
  assertEquals(full.length, 75);
  assertEquals(row("int8", Array(37).fill(7)), full);
  assertEquals(
    row("int8", Array(38).fill(7)),
    full.slice(0, -1) + "\n 7]",
  );
  assertEquals(
    row("int64", count(40)),
    "[ 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23\n" +
      " 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39]",
  );
  assertEquals(
    formatArray(array("float64", [1, 25], count(25).map((i) => i / 2))),
    "[[ 0.   0.5  1.   1.5  2.   2.5  3.   3.5  4.   4.5  5.   5.5  6.   6.5\n" +
      "   7.   7.5  8.   8.5  9.   9.5 10.  10.5 11.  11.5 12. ]]",
  );
});

Deno.test("1000 elements print in full and 1001 as a summary", () => {
  assert(!row("int16", count(1000)).includes("..."));
  assertEquals(
    row("int16", count(1001)),
    "[   0    1    2 ...  998  999 1000]",
  );
  assertEquals(
    formatArray(array("int16", [1001, 1], count(1001))),
    "[[   0]\n [   1]\n [   2]\n ...\n [ 998]\n [ 999]\n [1000]]",
  );
  assertEquals(
    formatArray(array("uint8", [2, 501, 1], Array(1002).fill(7))),
    "[[[7]\n  [7]\n  [7]\n  ...\n  [7]\n  [7]\n  [7]]\n\n" +
      " [[7]\n  [7]\n  [7]\n  ...\n  [7]\n  [7]\n  [7]]]",
  );
});

Deno.test("a summary reads the edge items only, and pads for them only", () => {
  const read: number[][] = [];
  const far = 1e8;
  const x: Printable = {
    dtype: "float64",
    shape: [far, far],
    get: (i, j) => {
      read.push([i!, j!]);
      return j === 3 ? 1e100 : 1;
    },
  };
  const line = "[1. 1. 1. ... 1. 1. 1.]";
  assertEquals(
    formatArray(x),
    `[${line}\n ${line}\n ${line}\n ...\n ${line}\n ${line}\n ${line}]`,
  );
  const edges = [0, 1, 2, far - 3, far - 2, far - 1];
  assertEquals(read, edges.flatMap((i) => edges.map((j) => [i, j])));
});

Deno.test("an unknown dtype is a TypeError that names it", () => {
  assertThrows(() => row("datetime64", [0]), TypeError, '"datetime64"');
});

// ---- NumPy as oracle ----

/** Cases per run; the seed of each is its number. */
const CASES = 600;

const dtypes = [
  "bool",
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "float16",
  "float32",
  "float64",
  "complex64",
  "complex128",
] as const;

/** Uniform in [0, 1), the same sequence for the same seed. */
type Random = () => number;

function seeded(seed: number): Random {
  let state = Math.imul(seed + 1, 0x9e3779b9);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[Math.floor(random() * choices.length)]!;
}

const below = (random: Random, n: number) => Math.floor(random() * n);

/** 0-d to 4-d; few elements, enough to wrap, or around the threshold. */
function randomShape(random: Random): number[] {
  const ndim = below(random, 5);
  const most = pick(random, [6, 30, 150, 300, 1400]) ** (1 / ndim);
  const shape = Array.from({ length: ndim }, () => 1 + below(random, most));
  if (ndim > 0 && random() < 0.03) shape[below(random, ndim)] = 0;
  if (random() < 0.03) {
    return pick(random, [[1000], [1001], [2, 501], [7, 143]]);
  }
  return shape;
}

/** A float in the manner of the case: one manner per array. */
function randomFloat(random: Random, manner: string): number {
  if (random() < 0.02) return pick(random, [0, -0, 1, -1]);
  const sign = random() < 0.3 ? -1 : 1;
  switch (manner) {
    case "whole":
      return sign * below(random, 2000);
    case "unit":
      return sign * random();
    case "hundredths":
      return sign * below(random, 10000) / 100;
    case "dyadic":
      return sign * below(random, 4096) / 2 ** below(random, 8);
    case "powers of two":
      return sign * 2 ** (below(random, 300) - 150);
    case "powers of ten":
      return sign * 10 ** (below(random, 24) - 12);
    case "near the limits":
      return sign * pick(random, [1e-4, 1e3, 1e6, 1e8, 1e16]) *
        (1 + (below(random, 5) - 2) / 1e4);
    case "tiny":
      return sign * random() * 10 ** -(4 + below(random, 12));
    case "huge":
      return sign * random() * 10 ** (6 + below(random, 40));
    default:
      return sign * random() * 10 ** (below(random, 12) - 6);
  }
}

const manners = [
  "whole",
  "unit",
  "hundredths",
  "dyadic",
  "powers of two",
  "powers of ten",
  "near the limits",
  "tiny",
  "huge",
  "mixed",
  "any bits",
];

interface Case {
  readonly dtype: string;
  readonly shape: number[];
  readonly bytes: Uint8Array;
  readonly elements: unknown[];
}

/** Bytes of one random array, and the same bytes as elements. */
function randomCase(seed: number): Case {
  const random = seeded(seed);
  const dtype = pick(random, dtypes);
  const shape = randomShape(random);
  const size = shape.reduce((product, extent) => product * extent, 1);
  const bytes = new Uint8Array(16 * size);
  for (let i = 0; i < bytes.length; i++) bytes[i] = below(random, 256);

  const floats = (data: Float16Array | Float32Array | Float64Array) => {
    const manner = pick(random, manners);
    const specials = pick(random, [0, 0, 0.1, 1]);
    for (let i = 0; i < data.length; i++) {
      if (manner !== "any bits") data[i] = randomFloat(random, manner);
      if (random() < specials) {
        data[i] = pick(random, [NaN, Infinity, -Infinity]);
      }
    }
    return data;
  };
  const complexes = (data: Float32Array | Float64Array) => {
    // Each part in its own manner.
    const re = floats(data.slice(0, size));
    const im = floats(data.slice(size));
    for (let i = 0; i < size; i++) data.set([re[i]!, im[i]!], 2 * i);
    return Array.from({ length: size }, (_, i) => ({
      re: data[2 * i],
      im: data[2 * i + 1],
    }));
  };
  const integers = (data: Exclude<ArrayLike<number | bigint>, string>) => {
    // Half of the arrays hold small numbers.
    if (random() < 0.5) {
      bytes.forEach((byte, i) => bytes[i] = i % 8 ? 0 : byte % 128);
    }
    return Array.from(data);
  };

  const { buffer } = bytes;
  const made = (data: ArrayBufferView, elements: unknown[]): Case => ({
    dtype,
    shape,
    bytes: new Uint8Array(buffer, 0, data.byteLength),
    elements,
  });
  switch (dtype) {
    case "bool": {
      const data = bytes.subarray(0, size);
      data.forEach((byte, i) => data[i] = byte % 2);
      return made(data, Array.from(data, Boolean));
    }
    case "complex64": {
      const data = new Float32Array(buffer, 0, 2 * size);
      return made(data, complexes(data));
    }
    case "complex128": {
      const data = new Float64Array(buffer, 0, 2 * size);
      return made(data, complexes(data));
    }
    case "float16": {
      const data = new Float16Array(buffer, 0, size);
      return made(data, Array.from(floats(data)));
    }
    case "float32": {
      const data = new Float32Array(buffer, 0, size);
      return made(data, Array.from(floats(data)));
    }
    case "float64": {
      const data = new Float64Array(buffer, 0, size);
      return made(data, Array.from(floats(data)));
    }
    default: {
      const data = new integerArrays[dtype](buffer, 0, size);
      return made(data, integers(data));
    }
  }
}

const integerArrays = {
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
};

const cases = Array.from({ length: CASES }, (_, seed) => randomCase(seed));
const expected = await askOracle<string[]>(
  "format_oracle.py",
  cases.map(({ dtype, shape, bytes }) => ({
    dtype,
    shape,
    hex: bytes.toHex(),
  })),
);
if (expected === null) {
  skipped("the text of tensors beside NumPy's", "pip install 'numpy>=2.3'");
}

Deno.test({
  name: `${CASES} random arrays print as NumPy prints them`,
  ignore: expected === null,
  fn() {
    assertEquals(expected!.length, CASES);
    cases.forEach(({ dtype, shape, elements }, seed) => {
      const text = formatArray(array(dtype, shape, elements));
      const label = `seed ${seed}, ${dtype}, shape [${shape}]`;
      assertEquals(text, expected![seed], label);
    });
  },
});

Deno.test("formatArray() shows less of each axis when there are many", () => {
  let reads = 0;
  const text = (shape: readonly number[]): string =>
    formatArray({
      dtype: "uint8",
      shape,
      get: () => {
        reads++;
        return 7;
      },
    });
  // 6 ** 5 edge items are fine, of 6 ** 6 only two are shown at each end.
  assert(text(Array(5).fill(7)).startsWith("[[[[[7 7 7 ... 7 7 7]"));
  assert(text(Array(6).fill(7)).startsWith("[[[[[[7 7 ... 7 7]"));
  reads = 0;
  assert(text(Array(13).fill(7)).includes("7 ... 7"));
  assertEquals(reads, 2 ** 13);
  assertEquals(text(Array(64).fill(7)), "[...]");
});
