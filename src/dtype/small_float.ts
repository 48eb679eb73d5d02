/**
 * Floats that JavaScript has no typed array for, between their bit patterns
 * and numbers: bfloat16 and the 8, 6 and 4 bit floats of machine learning.
 *
 * Every value of these formats is exact as a number. Encoding rounds once,
 * from the float64 value to the nearest value of the format, ties to even.
 * (ml_dtypes rounds a float64 to float32 first, which can move a value that
 * lies within half a float32 step of a tie; from float32 both agree.)
 *
 * @module
 */

/** The name of a float format of 8, 6 or 4 bits. */
export type SmallFloat =
  | "float8_e3m4"
  | "float8_e4m3"
  | "float8_e4m3b11fnuz"
  | "float8_e4m3fn"
  | "float8_e4m3fnuz"
  | "float8_e5m2"
  | "float8_e5m2fnuz"
  | "float8_e8m0fnu"
  | "float6_e2m3fn"
  | "float6_e3m2fn"
  | "float4_e2m1fn";

/**
 * Which patterns a format gives up for values that are not finite numbers:
 *
 * - ieee: the highest exponent holds the infinities and the NaNs
 * - fn: no infinities; all ones (with either sign) is NaN
 * - fnuz: no infinities; what would be -0 is the only NaN
 * - fnu: no sign, no zero, no denormals, no infinities; all ones is NaN
 * - finite: none; every pattern is a finite number
 */
type Specials = "ieee" | "fn" | "fnuz" | "fnu" | "finite";

/** The layout of a format, from the high bit: sign, exponent, mantissa. */
interface Format {
  /** Number of exponent bits. */
  readonly exponent: number;
  /** Number of mantissa bits, without the implicit leading one. */
  readonly mantissa: number;
  /** What is subtracted from the exponent bits. */
  readonly bias: number;
  readonly specials: Specials;
}

const formats: Readonly<Record<SmallFloat, Format>> = {
  float8_e3m4: { exponent: 3, mantissa: 4, bias: 3, specials: "ieee" },
  float8_e4m3: { exponent: 4, mantissa: 3, bias: 7, specials: "ieee" },
  float8_e4m3b11fnuz: { exponent: 4, mantissa: 3, bias: 11, specials: "fnuz" },
  float8_e4m3fn: { exponent: 4, mantissa: 3, bias: 7, specials: "fn" },
  float8_e4m3fnuz: { exponent: 4, mantissa: 3, bias: 8, specials: "fnuz" },
  float8_e5m2: { exponent: 5, mantissa: 2, bias: 15, specials: "ieee" },
  float8_e5m2fnuz: { exponent: 5, mantissa: 2, bias: 16, specials: "fnuz" },
  float8_e8m0fnu: { exponent: 8, mantissa: 0, bias: 127, specials: "fnu" },
  float6_e2m3fn: { exponent: 2, mantissa: 3, bias: 1, specials: "finite" },
  float6_e3m2fn: { exponent: 3, mantissa: 2, bias: 3, specials: "finite" },
  float4_e2m1fn: { exponent: 2, mantissa: 1, bias: 1, specials: "finite" },
};

/** What encoding and decoding need of a format, worked out once. */
interface Codec {
  readonly specials: Specials;
  readonly mantissa: number;
  /** Exponent of the smallest normal value; the denormals share it. */
  readonly minExponent: number;
  /** The sign bit; 0 for a format without sign. */
  readonly sign: number;
  /** Pattern of the largest finite value. */
  readonly largest: number;
  /** Pattern of what lies beyond the largest finite value (positive). */
  readonly overflow: number;
  /** Pattern of the NaN that encoding gives. */
  readonly nan: number;
  /** Value of every pattern. */
  readonly values: Float64Array;
}

const codecs: Partial<Record<SmallFloat, Codec>> = {};

function codecOf(kind: SmallFloat): Codec {
  return codecs[kind] ??= buildCodec(formats[kind]);
}

function buildCodec({ exponent, mantissa, bias, specials }: Format): Codec {
  const magnitudes = 1 << (exponent + mantissa); // patterns without sign bit
  const sign = specials === "fnu" ? 0 : magnitudes;
  const minExponent = (specials === "fnu" ? 0 : 1) - bias;
  const [largest, overflow, nan] = specialPatterns(
    specials,
    magnitudes,
    mantissa,
  );

  const values = new Float64Array(magnitudes + sign);
  for (let pattern = 0; pattern < magnitudes; pattern++) {
    const fraction = pattern & ((1 << mantissa) - 1);
    const field = pattern >> mantissa;
    const denormal = field === 0 && specials !== "fnu";
    let value = denormal
      ? fraction * 2 ** (minExponent - mantissa)
      : ((1 << mantissa) + fraction) * 2 ** (field - bias - mantissa);
    if (pattern > largest) {
      value = specials === "ieee" && pattern === overflow ? Infinity : NaN;
    }
    values[pattern] = value;
    if (sign !== 0) values[sign | pattern] = -value;
  }
  if (specials === "fnuz") values[nan] = NaN;

  return {
    specials,
    mantissa,
    minExponent,
    sign,
    largest,
    overflow,
    nan,
    values,
  };
}

/** The patterns of the largest finite value, of overflow and of NaN. */
function specialPatterns(
  specials: Specials,
  magnitudes: number,
  mantissa: number,
): [largest: number, overflow: number, nan: number] {
  const last = magnitudes - 1;
  switch (specials) {
    case "ieee": {
      const infinity = magnitudes - (1 << mantissa);
      return [infinity - 1, infinity, infinity | (1 << (mantissa - 1))];
    }
    case "fn":
    case "fnu":
      return [last - 1, last, last];
    case "fnuz":
      return [last, magnitudes, magnitudes]; // the sign bit alone
    case "finite":
      return [last, last, magnitudes]; // saturates; NaN becomes -0
  }
}

/**
 * The value of every bit pattern of a format: 256, 64 or 16 numbers, indexed
 * by the pattern. The table is built once and shared: do not write to it.
 */
export function decodeSmallFloat(kind: SmallFloat): Float64Array {
  return codecOf(kind).values;
}

/**
 * The bit pattern of the value of a format nearest to `value`, ties to even.
 *
 * - A value that rounds beyond the largest finite one gives infinity where
 *   the format has it, else NaN, else (float6, float4) the largest finite
 *   value with its sign.
 * - NaN gives the quiet NaN without sign. float6 and float4 have no NaN:
 *   they give -0, as ml_dtypes does for a NaN without sign.
 * - Zero keeps its sign, but in the fnuz formats, which have no -0.
 * - float8_e8m0fnu holds powers of two only: zero, negative numbers and
 *   values that round beyond 2^127 give NaN; positive values below 2^-127
 *   give 2^-127; a value half way between two powers goes to the higher one.
 *   (ml_dtypes takes all from just above 2^-127 up to 2^-126, where float32
 *   has denormals; here as elsewhere the nearer of the two is taken.)
 */
export function encodeSmallFloat(kind: SmallFloat, value: number): number {
  const codec = codecOf(kind);
  if (Number.isNaN(value)) return codec.nan;
  const negative = value < 0 || Object.is(value, -0);
  let pattern = nearestMagnitude(value, codec.minExponent, codec.mantissa);
  if (codec.specials === "fnu") {
    if (value <= 0) return codec.nan;
    pattern = Math.max(pattern - 1, 0); // no denormals: counts from 2^-127
  }
  if (pattern > codec.largest) pattern = codec.overflow;
  if (pattern === 0 && codec.specials === "fnuz") return 0;
  return negative ? pattern | codec.sign : pattern;
}

/** The value of a bfloat16 bit pattern (its low 16 bits are read). */
export function decodeBfloat16(bits: number): number {
  scratch.setInt32(0, bits << 16);
  return scratch.getFloat32(0);
}

/**
 * The bit pattern of the bfloat16 nearest to `value`, ties to even. Values
 * that round beyond the largest finite one give infinity, NaN gives the quiet
 * NaN 0x7fc0, and zero keeps its sign.
 */
export function encodeBfloat16(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  const negative = value < 0 || Object.is(value, -0);
  const pattern = nearestMagnitude(value, -126, 7);
  return negative ? pattern | 0x8000 : pattern;
}

const scratch = new DataView(new ArrayBuffer(8));

/**
 * The pattern (without sign) nearest to |value|, ties to even, in a format
 * with denormals and without largest value. `value` is not NaN; from 2^128
 * on, beyond all formats here, the pattern is that of 2^128.
 */
function nearestMagnitude(
  value: number,
  minExponent: number,
  mantissa: number,
): number {
  const magnitude = Math.min(Math.abs(value), 2 ** 128);
  scratch.setFloat64(0, magnitude);
  const exponent = Math.max((scratch.getInt32(0) >> 20) - 1023, minExponent);

  // Patterns near `magnitude` are 2^(exponent - mantissa) apart. A float64
  // with 52 bits above that step has the step as its last bit, so adding it
  // rounds to whole steps and leaves their number in the low bits of the sum.
  scratch.setInt32(0, (exponent - mantissa + 52 + 1023) << 20);
  scratch.setInt32(4, 0);
  scratch.setFloat64(0, magnitude + scratch.getFloat64(0));
  const steps = scratch.getInt32(4);

  // The steps of a normal value include its implicit leading one, which adds
  // the one by which its exponent bits exceed exponent - minExponent.
  return ((exponent - minExponent) << mantissa) + steps;
}
