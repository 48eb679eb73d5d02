/**
 * What converts elements, from one typed array to another of as many: a
 * WebAssembly function each, but for what typed arrays do well by themselves.
 *
 * @module
 */

import type { DTypeInfo, TypedArray } from "../dtype/table.ts";
import {
  choose,
  f32,
  f32x4,
  f64,
  f64x2,
  i16x8,
  i32,
  i32x4,
  i64,
  i64x2,
  i8x16,
  load,
  select,
  v128,
  type Value,
} from "../wasm/assembler.ts";
import {
  CHUNK_BYTES,
  get,
  put,
  setTable,
  type Stage,
  stage,
  TABLE_AT,
} from "../wasm/stage.ts";

/** Makes all elements of `into` from those of `from`. */
export type Kernel = (from: TypedArray, into: TypedArray) => void;

/** The most elements between two kernels: few enough for the cache. */
export const CHUNK = 4096;

/** As typed arrays convert numbers: by a loop of V8's own. */
export const cast: Kernel = (from, into) => into.set(from as never);

function bytesOf({ buffer, byteOffset, byteLength }: TypedArray): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/**
 * A kernel that goes through its memory block by block. It is compiled when it
 * is first called.
 *
 * @param bytes How many bytes of `from` are a block.
 * @param values What they become.
 */
function kernel(bytes: number, values: () => readonly Value[]): Kernel {
  let made: Stage | undefined;
  return (from, into) => {
    const { stored, run } = made ??= stage({
      bytes,
      values: values(),
    });
    const ratio = stored / bytes;
    const source = bytesOf(from);
    const target = bytesOf(into);
    const step = CHUNK_BYTES / Math.max(ratio, 1);
    for (let at = 0; at < source.length; at += step) {
      const part = source.subarray(at, at + step);
      put(part);
      run(Math.ceil(part.length / bytes));
      const to = at * ratio;
      target.set(get(Math.min(part.length * ratio, target.length - to)), to);
    }
  };
}

/** A kernel that looks things up. */
function withTable(of: Kernel, table: Uint8Array): Kernel {
  return (from, into) => {
    setTable(table);
    of(from, into);
  };
}

/** The lower or upper halves of all lanes of two vectors. */
function halves(a: Value, b: Value, bytes: number, which: 0 | 1): Value {
  const lanes = Array.from(
    { length: 16 },
    (_, i) => Math.floor(i / bytes) * 2 * bytes + which * bytes + i % bytes,
  );
  return i8x16.shuffle(a, b, lanes);
}

/** Parts of two vectors in turn, of so many bytes, from byte `start` on. */
function zip(a: Value, b: Value, start: number, bytes: number): Value {
  const lanes = Array.from({ length: 16 }, (_, i) => {
    const part = Math.floor(i / bytes);
    return start + (part >> 1) * bytes + i % bytes + 16 * (part & 1);
  });
  return i8x16.shuffle(a, b, lanes);
}

/** The upper half of a vector, twice. */
function upperHalf(vector: Value): Value {
  return i8x16.shuffle(
    vector,
    vector,
    Array.from({ length: 16 }, (_, i) => 8 + i % 8),
  );
}

/** Whether any bit of some vectors is set. */
function anyTrue(vectors: readonly Value[]): Value {
  return v128.any_true(vectors.reduce((a, b) => v128.or(a, b)));
}

// Floats to floats.

/** bfloat16 to float32, of which it is the upper half. */
export const widenBfloat16: Kernel = kernel(
  32,
  () =>
    [0, 16].flatMap((at) =>
      [0, 8].map((start) => zip(i8x16.splat(0), load.v128(at), start, 2))
    ),
);

/** float32 to bfloat16: to the nearest, ties to even; NaN is one pattern. */
export const roundToBfloat16: Kernel = kernel(32, () => {
  const round = (x: Value): Value => {
    const even = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
    const sum = i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), even);
    const isNaN = f32x4.ne(x, x);
    const bits = v128.bitselect(i32x4.splat(0x7fc00000), sum, isNaN);
    return i32x4.shr_u(bits, 16);
  };
  return [i16x8.narrow_i32x4_u(round(load.v128()), round(load.v128(16)))];
});

/** float16 to float32. */
export const widenFloat16: Kernel = kernel(16, () => {
  const widen = (half: Value): Value => {
    const bits = v128.and(i32x4.shl(half, 13), i32x4.splat(0x8fffe000 | 0));
    // As if the exponents had one bias; denormals become what they are.
    const scaled = f32x4.mul(bits, f32x4.splat(2 ** 112));
    const magnitude = v128.and(bits, i32x4.splat(0x7fffffff));
    const isSpecial = i32x4.gt_s(magnitude, i32x4.splat(0x0f7fffff));
    return v128.or(scaled, v128.and(isSpecial, i32x4.splat(0x7f800000)));
  };
  const halves = load.v128();
  return [
    widen(i32x4.extend_low_i16x8_s(halves)),
    widen(i32x4.extend_high_i16x8_s(halves)),
  ];
});

/** float32 to float16: to the nearest, ties to even; NaN is one pattern. */
export const roundToFloat16: Kernel = kernel(32, () => {
  const round = (x: Value): Value => {
    const magnitude = v128.and(x, i32x4.splat(0x7fffffff));
    const even = v128.and(i32x4.shr_u(x, 13), i32x4.splat(1));
    const rebias = i32x4.splat((15 - 127 << 23) + 0xfff);
    const sum = i32x4.add(i32x4.add(magnitude, rebias), even);
    // The bits of a denormal are the last ones of its sum with 0.5.
    const half = f32x4.splat(0.5);
    const denormal = i32x4.sub(f32x4.add(magnitude, half), half);
    const isNormal = i32x4.gt_s(magnitude, i32x4.splat((113 << 23) - 1));
    const isBeyond = i32x4.gt_s(magnitude, i32x4.splat((143 << 23) - 1));
    const finite = v128.bitselect(i32x4.shr_u(sum, 13), denormal, isNormal);
    const bits = v128.bitselect(i32x4.splat(0x7c00), finite, isBeyond);
    const isNaN = f32x4.ne(x, x);
    const sign = v128.and(i32x4.shr_u(x, 16), i32x4.splat(0x8000));
    return v128.bitselect(i32x4.splat(0x7e00), v128.or(bits, sign), isNaN);
  };
  return [i16x8.narrow_i32x4_u(round(load.v128()), round(load.v128(16)))];
});

/** float64 to float32. */
export const narrow: Kernel = kernel(32, () => {
  const [low, high] = [0, 16].map((at) =>
    f32x4.demote_f64x2_zero(load.v128(at))
  );
  return [joinLow(low!, high!)];
});

/**
 * Rounds float64 to float32 in a way that another rounding, to two bits fewer
 * or less, gives what one rounding would have: towards zero, and what is cut
 * off sets the last bit.
 */
export const narrowToOdd: Kernel = kernel(8, () => {
  const number = load.f64();
  const single = f32.demote_f64(number);
  const bits = i32.reinterpret_f32(single);
  const back = f64.promote_f32(single);
  const isAbove = f64.gt(f64.abs(back), f64.abs(number));
  const odd = i32.or(i32.sub(bits, isAbove), i32.const(1));
  const isNaN = f64.ne(back, back);
  return [select(bits, odd, i32.or(f64.eq(back, number), isNaN))];
});

// Floats of 8 bits or fewer, in a byte each, by tables.

const look: Kernel = kernel(
  4,
  () =>
    [0, 1, 2, 3].map((at) =>
      i32.load(i32.shl(load.u8(at), i32.const(2)), TABLE_AT)
    ),
);

/** Elements in a byte each to numbers: integers to int32, floats to float32. */
export function decoder({ kind, bits, decode }: DTypeInfo): Kernel {
  const values = new (kind === "int" ? Int32Array : Float32Array)(256);
  const mask = (1 << bits) - 1;
  for (let byte = 0; byte < 256; byte++) values[byte] = decode!(byte & mask);
  return withTable(look, bytesOf(values));
}

const lookUpper: Kernel = kernel(16, () =>
  [0, 4, 8, 12].map((at) => {
    const bits = load.i32(at);
    const isCut = i32.ne(i32.and(bits, i32.const(0xffff)), i32.const(0));
    const index = i32.or(i32.shr_u(bits, i32.const(16)), isCut);
    return i32.store8(i32.load8_u(index, TABLE_AT));
  }));

/**
 * float32 to floats of 8 bits or fewer, in a byte each: by the pattern for every
 * upper half of a float32 whose last bit is set when anything is cut off. Small
 * floats need no more for one rounding.
 */
export function encoder({ encode }: DTypeInfo): Kernel {
  const words = Int32Array.from({ length: 65536 }, (_, half) => half << 16);
  const patterns = Uint8Array.from(new Float32Array(words.buffer), encode!);
  return withTable(lookUpper, patterns);
}

// Floats to integers: cut off towards zero, and wrapped around. What the usual
// instructions do not wrap is rare, and goes another way.

type Floats = typeof f32x4 | typeof f64x2;

function isBeyond(lanes: Floats, x: Value, limit: number): Value {
  return lanes.ge(lanes.abs(x), lanes.splat(limit));
}

/** Whole numbers modulo 2^32, as far as they are exact; of others NaN. */
function modulo32(lanes: Floats, x: Value): Value {
  const times = lanes.floor(lanes.mul(x, lanes.splat(2 ** -32)));
  return lanes.sub(x, lanes.mul(times, lanes.splat(2 ** 32)));
}

/** float32 to int32 or uint32. */
export const truncate32: Kernel = kernel(16, () => {
  const x = load.v128();
  const small = i32x4.trunc_sat_f32x4_s(x);
  // Exact of large ones only.
  const large = i32x4.trunc_sat_f32x4_u(modulo32(f32x4, x));
  const isLarge = isBeyond(f32x4, x, 2 ** 31);
  const each = v128.bitselect(large, small, isLarge);
  return [choose(each, small, v128.any_true(isLarge))];
});

/** The low lanes of two vectors of two. */
function joinLow(a: Value, b: Value): Value {
  const lanes = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
  return i8x16.shuffle(a, b, lanes);
}

/** float64 to int32 or uint32. */
export const truncate64: Kernel = kernel(32, () => {
  const [a, b] = [0, 16].map((at) => {
    const x = load.v128(at);
    const wrapped = modulo32(f64x2, f64x2.trunc(x));
    return choose(
      i32x4.trunc_sat_f64x2_u_zero(wrapped),
      i32x4.trunc_sat_f64x2_s_zero(x),
      v128.any_true(isBeyond(f64x2, x, 2 ** 31)),
    );
  });
  return [joinLow(a!, b!)];
});

/** Two float64 to 64-bit integers. */
function truncateToPairs(x: Value): Value {
  const whole = f64x2.trunc(x);
  // Every integer of 52 bits is the end of a float64's bits beside this one.
  const beside = f64x2.splat(1.5 * 2 ** 52);
  const small = i64x2.sub(f64x2.add(whole, beside), beside);

  const times = f64x2.floor(f64x2.mul(whole, f64x2.splat(2 ** -32)));
  const low = f64x2.sub(whole, f64x2.mul(times, f64x2.splat(2 ** 32)));
  const high = modulo32(f64x2, times);
  const lanes = [0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23];
  const large = i8x16.shuffle(
    i32x4.trunc_sat_f64x2_u_zero(low),
    i32x4.trunc_sat_f64x2_u_zero(high),
    lanes,
  );
  // Not below, so that NaN takes the other way.
  const isSmall = i64x2.all_true(
    f64x2.lt(f64x2.abs(x), f64x2.splat(2 ** 51)),
  );
  return choose(small, large, isSmall);
}

/** float32 to 64-bit integers: by words, if all of some have room in one. */
export const truncateToPairs32: Kernel = kernel(64, () => {
  const vectors = [0, 16, 32, 48].map((at) => load.v128(at));
  // NaN's bits are above those of all numbers.
  const isLarge = anyTrue(vectors.map((x) => {
    const magnitude = v128.and(x, i32x4.splat(0x7fffffff));
    return i32x4.gt_s(magnitude, i32x4.splat(0x4effffff));
  }));
  return vectors.flatMap((x) => {
    const words = i32x4.relaxed_trunc_f32x4_s(x);
    return [
      choose(
        truncateToPairs(f64x2.promote_low_f32x4(x)),
        i64x2.extend_low_i32x4_s(words),
        isLarge,
      ),
      choose(
        truncateToPairs(f64x2.promote_low_f32x4(upperHalf(x))),
        i64x2.extend_high_i32x4_s(words),
        isLarge,
      ),
    ];
  });
});

/** float64 to 64-bit integers. */
export const truncateToPairs64: Kernel = kernel(16, () => [
  truncateToPairs(load.v128()),
]);

// Integers to integers: wrapped around.

/**
 * 64-bit integers to the int32 or uint32 in their low words; complex64 to
 * float32, by their bits.
 */
export const lowWords: Kernel = kernel(32, () => [
  halves(load.v128(), load.v128(16), 4, 0),
]);

/** int32 to 64-bit integers. */
export const extendSigned: Kernel = kernel(16, () => [
  i64x2.extend_low_i32x4_s(load.v128()),
  i64x2.extend_high_i32x4_s(load.v128()),
]);

/** uint32 to 64-bit integers; float32 to complex64, by their bits. */
export const extendUnsigned: Kernel = kernel(16, () => [
  i64x2.extend_low_i32x4_u(load.v128()),
  i64x2.extend_high_i32x4_u(load.v128()),
]);

/** Vectors of 32 bits a lane, none of them negative or more than 255, to bytes. */
function bytesOfWords(words: readonly Value[]): Value {
  const [a, b, c, d] = words as [Value, Value, Value, Value];
  return i8x16.narrow_i16x8_u(
    i16x8.narrow_i32x4_s(a, b),
    i16x8.narrow_i32x4_s(c, d),
  );
}

/** int32 to integers of fewer than 8 bits, in a byte each. */
export function wrapper(bits: number): Kernel {
  return kernel(64, () => {
    const mask = i32x4.splat((1 << bits) - 1);
    const words = [0, 16, 32, 48].map((at) => v128.and(load.v128(at), mask));
    return [bytesOfWords(words)];
  });
}

// Elements of fewer than 8 bits that share bytes, the first in the lowest bits.

/** The bytes of some vectors in turn. */
function zipAll(vectors: readonly Value[]): Value[] {
  if (vectors.length === 1) return [...vectors];
  const even = zipAll(vectors.filter((_, i) => i % 2 === 0));
  const odd = zipAll(vectors.filter((_, i) => i % 2 === 1));
  return even.flatMap((a, i) =>
    [0, 8].map((start) => zip(a, odd[i]!, start, 1))
  );
}

/** A kernel for each width that divides a byte. */
function forBits(
  of: (bits: number) => Kernel,
): Readonly<Record<number, Kernel>> {
  return { 1: of(1), 2: of(2), 4: of(4) };
}

/** Elements of 1, 2 or 4 bits: gives each a byte of its own. */
export const unpackers = forBits((bits) =>
  kernel(16, () => {
    const bytes = load.v128();
    const mask = i8x16.splat((1 << bits) - 1);
    return zipAll(
      Array.from({ length: 8 / bits }, (_, i) =>
        v128.and(i8x16.shr_u(bytes, i * bits), mask)),
    );
  })
);

/** Elements of 1, 2 or 4 bits in a byte each: lets them share bytes. */
export const packers = forBits((bits) =>
  kernel(128 / bits, () => {
    let vectors = Array.from({ length: 8 / bits }, (_, i) => load.v128(16 * i));
    for (let wide = bits; wide < 8; wide *= 2) {
      vectors = Array.from({ length: vectors.length / 2 }, (_, i) => {
        const [a, b] = [vectors[2 * i]!, vectors[2 * i + 1]!];
        const upper = i8x16.shl(halves(a, b, 1, 1), wide);
        return v128.or(halves(a, b, 1, 0), upper);
      });
    }
    return vectors;
  })
);

// 64-bit integers to floats.

/**
 * 64-bit integers to floats, 16 at once. Most are small: these go by vectors of
 * their low words, of which a float is the nearest at once; where one of the 16
 * is larger, all go one by one.
 *
 * @param one Of an integer.
 * @param low Of the first words of a vector.
 */
function joinTo(
  lanes: Floats,
  isSigned: boolean,
  one: (integer: Value) => Value,
  low: (words: Value) => Value,
): Kernel {
  const count = lanes === f32x4 ? 4 : 2;
  return kernel(128, () => {
    const groups = [0, 32, 64, 96].map((at) => {
      const [a, b] = [load.v128(at), load.v128(at + 16)];
      return { at, words: halves(a, b, 4, 0), upper: halves(a, b, 4, 1) };
    });
    const isLarge = anyTrue(
      groups.map(({ words, upper }) =>
        isSigned ? v128.xor(upper, i32x4.shr_s(words, 31)) : upper
      ),
    );
    return groups.flatMap(({ at, words }) =>
      Array.from({ length: 4 / count }, (_, part) => {
        let each = lanes.splat(0);
        for (let lane = 0; lane < count; lane++) {
          const integer = load.i64(at + 8 * (part * count + lane));
          each = lanes.replace_lane(each, lane, one(integer));
        }
        const some = low(part === 0 ? words : upperHalf(words));
        return choose(each, some, isLarge);
      })
    );
  });
}

/** 64-bit integers to the nearest float64. */
export const joinToFloat64: Record<"int64" | "uint64", Kernel> = {
  int64: joinTo(f64x2, true, f64.convert_i64_s, f64x2.convert_low_i32x4_s),
  uint64: joinTo(f64x2, false, f64.convert_i64_u, f64x2.convert_low_i32x4_u),
};

/** 64-bit integers to the nearest float32. */
export const joinToFloat32: Record<"int64" | "uint64", Kernel> = {
  int64: joinTo(f32x4, true, f32.convert_i64_s, f32x4.convert_i32x4_s),
  uint64: joinTo(f32x4, false, f32.convert_i64_u, f32x4.convert_i32x4_u),
};

/** Where a float64 has no bits for all of an integer, the last of them is set. */
function toOdd(integer: Value, isSmall: Value): Value {
  const cut = i64.const(2047n);
  const isExact = i32.or(isSmall, i64.eqz(i64.and(integer, cut)));
  const odd = i64.or(
    i64.and(integer, i64.const(~2047n)),
    i64.const(2048n),
  );
  return select(integer, odd, isExact);
}

/** 64-bit integers to float64, for one more rounding: {@linkcode narrowToOdd}. */
export const joinToOddFloat64: Record<"int64" | "uint64", Kernel> = {
  int64: kernel(8, () => {
    const integer = load.i64();
    const distance = i64.add(integer, i64.const(2n ** 53n));
    const isSmall = i64.lt_u(distance, i64.const(2n ** 54n));
    return [f64.convert_i64_s(toOdd(integer, isSmall))];
  }),
  uint64: kernel(8, () => {
    const integer = load.i64();
    const isSmall = i64.lt_u(integer, i64.const(2n ** 53n));
    return [f64.convert_i64_u(toOdd(integer, isSmall))];
  }),
};

// To bool: all but 0 is true, NaN too: one at least of the bits that a mask has.
// Those of floats have none for the sign.

const TRUE = (): Value => i8x16.splat(1);

/** Elements of 1 byte to bool. */
export const testBytes: Kernel = kernel(16, () => [
  v128.and(i8x16.ne(load.v128(), i8x16.splat(0)), TRUE()),
]);

/** Elements of 2 bytes to bool. */
export function testHalves(mask: number): Kernel {
  return kernel(32, () => {
    const [a, b] = [0, 16].map((at) =>
      i16x8.ne(v128.and(load.v128(at), i16x8.splat(mask)), i16x8.splat(0))
    );
    return [v128.and(i8x16.narrow_i16x8_s(a!, b!), TRUE())];
  });
}

/** Vectors of 32 bits a lane to bool. */
function testLanes(words: readonly Value[]): Value {
  const [a, b, c, d] = words.map((word) => i32x4.ne(word, i32x4.splat(0)));
  const isTrue = i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(a!, b!),
    i16x8.narrow_i32x4_s(c!, d!),
  );
  return v128.and(isTrue, TRUE());
}

/** Elements of 4 bytes to bool. */
export function testWords(mask: number): Kernel {
  return kernel(64, () => [
    testLanes(
      [0, 16, 32, 48].map((at) => v128.and(load.v128(at), i32x4.splat(mask))),
    ),
  ]);
}

/** Elements of two words to bool, by a mask for the first and the second. */
export function testPairs(low: number, high: number): Kernel {
  return kernel(128, () => [
    testLanes([0, 32, 64, 96].map((at) => {
      const [a, b] = [load.v128(at), load.v128(at + 16)];
      return v128.or(
        v128.and(halves(a, b, 4, 0), i32x4.splat(low)),
        v128.and(halves(a, b, 4, 1), i32x4.splat(high)),
      );
    })),
  ]);
}

/** complex128 to bool. */
export const testComplex128: Kernel = kernel(16, () => {
  const bits = i64.and(
    i64.or(load.i64(), load.i64(8)),
    i64.const(2n ** 63n - 1n),
  );
  return [i32.store8(i32.eq(i64.eqz(bits), i32.const(0)))];
});

// Complex numbers to and from their real parts.

/** complex32 to float16. */
export const realParts16: Kernel = kernel(32, () => [
  halves(load.v128(), load.v128(16), 2, 0),
]);

/** complex128 to float64. */
export const realParts64: Kernel = kernel(32, () => [
  halves(load.v128(), load.v128(16), 8, 0),
]);

/** float16 to complex32. */
export const addImaginary16: Kernel = kernel(16, () => [
  i32x4.extend_low_i16x8_u(load.v128()),
  i32x4.extend_high_i16x8_u(load.v128()),
]);

/** float64 to complex128. */
export const addImaginary64: Kernel = kernel(8, () => [
  load.f64(),
  f64.const(0),
]);
