// Small floats against constants typed by hand, and against ml_dtypes.

import { assert, assertEquals } from "@std/assert";
import {
  decodeBfloat16,
  decodeSmallFloat,
  encodeBfloat16,
  encodeSmallFloat,
  type SmallFloat,
} from "../src/dtype/small_float.ts";
import { askOracle } from "./parity/python.ts";
import { skipped } from "./skipped.ts";

/** What the definition of a format says, typed by hand. */
interface Expected {
  /** Number of patterns. */
  patterns: number;
  /** [pattern, value]: one, largest, smallest normal, smallest denormal, … */
  values: [number, number][];
  infinities: number[];
  nans: number[];
  /** [value, pattern] where the value is not one of the format. */
  rounded: [number, number][];
}

const expected: Record<SmallFloat, Expected> = {
  float8_e3m4: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x80, -0],
      [0x30, 1],
      [0x6f, 15.5],
      [0x10, 0.25],
      [0x01, 0.015625],
      [0x0f, 0.234375],
      [0xb8, -1.5],
    ],
    infinities: [0x70],
    // deno-fmt-ignore
    nans: [
      0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78,
      0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f,
    ],
    rounded: [
      [1.03125, 0x30], // tie to the even 1
      [1.09375, 0x32], // tie to the even 1.125
      [15.7, 0x6f],
      [15.75, 0x70], // tie between the largest and infinity
      [-16, 0xf0],
      [0.0078125, 0x00], // tie between zero and the smallest denormal
      [-0.0078125, 0x80],
      [0.0079, 0x01],
      [0.0234375, 0x02], // tie between two denormals
      [0.2421875, 0x10], // tie between largest denormal and smallest normal
    ],
  },
  float8_e4m3: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x80, -0],
      [0x38, 1],
      [0x77, 240],
      [0x08, 2 ** -6],
      [0x01, 2 ** -9],
      [0xbc, -1.5],
    ],
    infinities: [0x78],
    nans: [0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f],
    rounded: [
      [1.0625, 0x38],
      [1.1875, 0x3a],
      [247.9, 0x77],
      [248, 0x78],
      [-248, 0xf8],
      [2 ** -10, 0x00],
      [-(2 ** -10), 0x80],
      [3 * 2 ** -10, 0x02],
    ],
  },
  float8_e4m3b11fnuz: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x58, 1],
      [0x7f, 30],
      [0x08, 2 ** -10],
      [0x01, 2 ** -13],
      [0xdc, -1.5],
      [0xff, -30],
    ],
    infinities: [],
    nans: [0x80],
    rounded: [
      [1.0625, 0x58],
      [1.1875, 0x5a],
      [30.9, 0x7f],
      [31, 0x80], // tie between the largest and beyond
      [-31, 0x80],
      [-0, 0x00],
      [2 ** -14, 0x00],
      [-(2 ** -14), 0x00], // rounds to zero, which has no sign
      [-3 * 2 ** -14, 0x82],
    ],
  },
  float8_e4m3fn: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x80, -0],
      [0x38, 1],
      [0x7e, 448],
      [0x78, 256],
      [0x08, 2 ** -6],
      [0x01, 2 ** -9],
      [0x07, 7 * 2 ** -9],
      [0xfe, -448],
    ],
    infinities: [],
    nans: [0x7f],
    rounded: [
      [1.0625, 0x38],
      [1.1875, 0x3a],
      [464, 0x7e], // tie between the largest and beyond: even is the largest
      [464.00001, 0x7f],
      [-480, 0xff],
      [2 ** -10, 0x00],
      [-(2 ** -10), 0x80],
      [15 * 2 ** -10, 0x08],
    ],
  },
  float8_e4m3fnuz: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x40, 1],
      [0x7f, 240],
      [0x08, 2 ** -7],
      [0x01, 2 ** -10],
      [0xff, -240],
    ],
    infinities: [],
    nans: [0x80],
    rounded: [
      [1.0625, 0x40],
      [1.1875, 0x42],
      [247.9, 0x7f],
      [248, 0x80],
      [-1000, 0x80],
      [-0, 0x00],
      [-(2 ** -11), 0x00],
    ],
  },
  float8_e5m2: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x80, -0],
      [0x3c, 1],
      [0x7b, 57344],
      [0x04, 2 ** -14],
      [0x01, 2 ** -16],
      [0xfb, -57344],
    ],
    infinities: [0x7c],
    nans: [0x7d, 0x7e, 0x7f],
    rounded: [
      [1.125, 0x3c],
      [1.375, 0x3e],
      [61439, 0x7b],
      [61440, 0x7c],
      [-61440, 0xfc],
      [2 ** -17, 0x00],
      [-(2 ** -17), 0x80],
      [3 * 2 ** -17, 0x02],
    ],
  },
  float8_e5m2fnuz: {
    patterns: 256,
    values: [
      [0x00, 0],
      [0x40, 1],
      [0x7f, 57344],
      [0x04, 2 ** -15],
      [0x01, 2 ** -17],
      [0xff, -57344],
    ],
    infinities: [],
    nans: [0x80],
    rounded: [
      [1.125, 0x40],
      [1.375, 0x42],
      [61439, 0x7f],
      [61440, 0x80],
      [-0, 0x00],
      [-(2 ** -18), 0x00],
    ],
  },
  float8_e8m0fnu: {
    patterns: 256,
    values: [
      [0x00, 2 ** -127],
      [0x01, 2 ** -126],
      [0x7f, 1],
      [0x80, 2],
      [0xfe, 2 ** 127],
    ],
    infinities: [],
    nans: [0xff],
    rounded: [
      [0, 0xff],
      [-0, 0xff],
      [-1, 0xff],
      [1.5, 0x80], // a tie goes up, from odd and even exponents alike
      [3, 0x81],
      [2.99, 0x80],
      [1.49999 * 2 ** 127, 0xfe],
      [1.5 * 2 ** 127, 0xff],
      [1.25 * 2 ** -127, 0x00],
      [1.5 * 2 ** -127, 0x01],
      [2 ** -128, 0x00],
      [5e-324, 0x00],
    ],
  },
  float6_e2m3fn: {
    patterns: 64,
    values: [
      [0x00, 0],
      [0x20, -0],
      [0x08, 1],
      [0x1f, 7.5],
      [0x01, 0.125],
      [0x07, 0.875],
      [0x3f, -7.5],
    ],
    infinities: [],
    nans: [],
    rounded: [
      [1.0625, 0x08],
      [1.1875, 0x0a],
      [7.75, 0x1f],
      [1e300, 0x1f],
      [Infinity, 0x1f],
      [-Infinity, 0x3f],
      [NaN, 0x20],
      [0.0625, 0x00],
      [-0.0625, 0x20],
      [0.1875, 0x02],
    ],
  },
  float6_e3m2fn: {
    patterns: 64,
    values: [
      [0x00, 0],
      [0x20, -0],
      [0x0c, 1],
      [0x1f, 28],
      [0x04, 0.25],
      [0x01, 0.0625],
      [0x3f, -28],
    ],
    infinities: [],
    nans: [],
    rounded: [
      [1.125, 0x0c],
      [1.375, 0x0e],
      [30, 0x1f],
      [Infinity, 0x1f],
      [-Infinity, 0x3f],
      [NaN, 0x20],
      [0.03125, 0x00],
      [0.09375, 0x02],
    ],
  },
  float4_e2m1fn: {
    patterns: 16,
    values: [
      [0, 0],
      [1, 0.5],
      [2, 1],
      [3, 1.5],
      [4, 2],
      [5, 3],
      [6, 4],
      [7, 6],
      [8, -0],
      [9, -0.5],
      [10, -1],
      [11, -1.5],
      [12, -2],
      [13, -3],
      [14, -4],
      [15, -6],
    ],
    infinities: [],
    nans: [],
    rounded: [
      [0.25, 0],
      [0.75, 2],
      [1.25, 2],
      [2.5, 4],
      [3.5, 6],
      [5, 6],
      [5.1, 7],
      [-5.1, 15],
      [Infinity, 7],
      [-Infinity, 15],
      [NaN, 8],
    ],
  },
};

const kinds = Object.keys(expected) as SmallFloat[];

Deno.test("decodeSmallFloat gives each format's landmark values", async (t) => {
  for (const kind of kinds) {
    await t.step(kind, () => {
      const { patterns, values, infinities, nans } = expected[kind];
      const table = decodeSmallFloat(kind);
      assertEquals(table.length, patterns);
      for (const [pattern, value] of values) {
        assertSame(table[pattern], value, `${kind} 0x${pattern.toString(16)}`);
      }

      const found = { infinities: [] as number[], nans: [] as number[] };
      table.forEach((value, pattern) => {
        if (value === Infinity) found.infinities.push(pattern);
        if (Number.isNaN(value)) found.nans.push(pattern);
      });
      // With a sign, each of these patterns has a negative twin; the single
      // NaN of the fnuz formats is such a twin (of zero), and fnu has no sign.
      const twins = kind.includes("fnu") ? [] : nans.map((nan) => nan + 0x80);
      assertEquals(found, { infinities, nans: [...nans, ...twins] });
      for (const pattern of infinities) {
        assertEquals(table[pattern + 0x80], -Infinity);
      }
    });
  }
});

Deno.test("decodeSmallFloat gives the same table each time", () => {
  assert(decodeSmallFloat("float8_e5m2") === decodeSmallFloat("float8_e5m2"));
});

Deno.test("encodeSmallFloat rounds to nearest, ties to even, by the format's rules", async (t) => {
  for (const kind of kinds) {
    await t.step(kind, () => {
      const { values, rounded, infinities, nans } = expected[kind];
      for (const [pattern, value] of values) {
        assertEquals(encodeSmallFloat(kind, value), pattern, `${value}`);
      }
      for (const [value, pattern] of rounded) {
        assertEquals(encodeSmallFloat(kind, value), pattern, `${value}`);
      }
      if (nans.length > 0) {
        assert(nans.includes(encodeSmallFloat(kind, NaN)));
        const beyond = infinities[0] ?? encodeSmallFloat(kind, NaN);
        assertEquals(encodeSmallFloat(kind, Infinity), beyond);
        assertEquals(encodeSmallFloat(kind, Number.MAX_VALUE), beyond);
      }
    });
  }
});

Deno.test("encodeSmallFloat gives the pattern back when its value is encoded", async (t) => {
  for (const kind of kinds) {
    await t.step(kind, () => {
      decodeSmallFloat(kind).forEach((value, pattern) => {
        if (Number.isNaN(value)) return;
        assertEquals(encodeSmallFloat(kind, value), pattern);
      });
    });
  }
});

Deno.test("encodeSmallFloat rounds once when a float64 lies next to a tie", () => {
  // Through float32 these would become the tie, and then the even neighbour.
  const aboveTie = 1.0625 + 2 ** -45;
  assertEquals(Math.fround(aboveTie), 1.0625);
  assertEquals(encodeSmallFloat("float8_e4m3fn", aboveTie), 0x39);
  const belowTie = 1.1875 - 2 ** -45;
  assertEquals(Math.fround(belowTie), 1.1875);
  assertEquals(encodeSmallFloat("float8_e4m3fn", belowTie), 0x39);
});

Deno.test("encodeBfloat16 rounds to nearest, ties to even, once", () => {
  const largest = (2 - 2 ** -7) * 2 ** 127;
  const cases: [number, number][] = [
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3f80],
    [-2, 0xc000],
    [largest, 0x7f7f],
    [2 ** -126, 0x0080], // smallest normal
    [2 ** -133, 0x0001], // smallest denormal
    [2 ** -134, 0x0000], // tie between zero and the smallest denormal
    [-3 * 2 ** -134, 0x8002],
    [Number.MIN_VALUE, 0x0000],
    [1 + 2 ** -8, 0x3f80], // tie
    [1 + 3 * 2 ** -8, 0x3f82], // tie
    [1 + 2 ** -8 + 2 ** -45, 0x3f81], // as float32 it would be the tie
    [largest + 2 ** 119, 0x7f80], // tie between the largest and infinity
    [largest + 2 ** 119 - 2 ** 80, 0x7f7f],
    [Number.MAX_VALUE, 0x7f80],
    [Infinity, 0x7f80],
    [-Infinity, 0xff80],
    [NaN, 0x7fc0],
  ];
  for (const [value, bits] of cases) {
    assertEquals(encodeBfloat16(value), bits, `${value}`);
  }
});

Deno.test("decodeBfloat16 gives back what encodeBfloat16 takes, for every pattern", () => {
  assertEquals(decodeBfloat16(0x3fc0), 1.5);
  assertEquals(decodeBfloat16(0xff80), -Infinity);
  for (let bits = 0; bits < 65536; bits++) {
    const value = decodeBfloat16(bits);
    const isNaN = (bits & 0x7fff) > 0x7f80;
    assert(Number.isNaN(value) === isNaN);
    if (!isNaN) assert(encodeBfloat16(value) === bits);
  }
});

/** What tests/parity/ml_dtypes_oracle.py wrote, by file name. */
type Oracle = Map<string, ArrayBuffer>;

const oracle = await runOracle();

Deno.test({
  name: "small floats agree with ml_dtypes for every pattern and many values",
  ignore: oracle === undefined,
  fn: async (t) => {
    const inputs = new Float32Array(oracle!.get("inputs")!);
    assert(inputs.length > 230_000, "all 16 bit patterns and 100,000 more");

    for (const kind of kinds) {
      await t.step(kind, () => {
        const decoded = new Float64Array(oracle!.get(`${kind}.decoded`)!);
        const encoded = new Uint8Array(oracle!.get(`${kind}.encoded`)!);
        const table = decodeSmallFloat(kind);
        assertSameValues(table, decoded);
        assertEquals(encoded.length, inputs.length);
        inputs.forEach((value, i) => {
          const pattern = encodeSmallFloat(kind, value);
          if (pattern === encoded[i]) return;
          // ml_dtypes gives the farther neighbour between 2^-127 and half way
          // to 2^-126, where float32 has denormals.
          const farther = kind === "float8_e8m0fnu" &&
            value > 2 ** -127 && value < 1.5 * 2 ** -127;
          if (farther) return assertEquals([pattern, encoded[i]], [0, 1]);
          // ml_dtypes keeps the sign of a NaN, which JavaScript cannot see.
          const other = table[encoded[i]!]!;
          assert(
            Number.isNaN(value) &&
              Object.is(Math.abs(other), Math.abs(table[pattern]!)),
            `${value}: 0x${pattern.toString(16)}, ml_dtypes ${other}`,
          );
        });
      });
    }

    await t.step("bfloat16", () => {
      const decoded = new Float64Array(oracle!.get("bfloat16.decoded")!);
      const encoded = new Uint16Array(oracle!.get("bfloat16.encoded")!);
      assertSameValues(decoded.map((_, bits) => decodeBfloat16(bits)), decoded);
      assertEquals(encoded.length, inputs.length);
      inputs.forEach((value, i) => {
        const bits = encodeBfloat16(value);
        if (bits === encoded[i]) return;
        assert(
          Number.isNaN(decoded[bits]) && Number.isNaN(decoded[encoded[i]!]),
          `${value}: 0x${bits.toString(16)}, ml_dtypes ${decoded[encoded[i]!]}`,
        );
      });
    });

    await t.step("float16 as Float16Array", () => {
      const decoded = new Float64Array(oracle!.get("float16.decoded")!);
      const every = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
      assertSameValues(
        Float64Array.from(new Float16Array(every.buffer)),
        decoded,
      );
      const encoded = new Float16Array(oracle!.get("float16.encoded")!);
      assertSameValues(
        Float64Array.from(Float16Array.from(inputs)),
        Float64Array.from(encoded),
      );
    });
  },
});

/** Runs the oracle; undefined where it cannot run. */
async function runOracle(): Promise<Oracle | undefined> {
  const folder = await Deno.makeTempDir();
  try {
    if (await askOracle("ml_dtypes_oracle.py", null, [folder]) === null) {
      skipped("small floats beside ml_dtypes'", "pip install ml_dtypes");
      return undefined;
    }
    const files: Oracle = new Map();
    for await (const { name } of Deno.readDir(folder)) {
      files.set(name, (await Deno.readFile(`${folder}/${name}`)).buffer);
    }
    return files;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Equal as values, and -0 apart from 0; NaN equals NaN. */
function assertSame(
  actual: number | undefined,
  wanted: number,
  what: string,
): void {
  assert(Object.is(actual, wanted), `${what}: ${actual}, expected ${wanted}`);
}

function assertSameValues(actual: Float64Array, wanted: Float64Array): void {
  assertEquals(actual.length, wanted.length);
  wanted.forEach((value, i) => {
    if (!Object.is(actual[i], value)) assertSame(actual[i], value, `at ${i}`);
  });
}
