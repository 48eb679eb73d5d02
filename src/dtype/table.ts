import {
  decodeBfloat16,
  decodeSmallFloat,
  encodeBfloat16,
  encodeSmallFloat,
  type SmallFloat,
} from "./small_float.ts";

/**
 * A complex number: an element of a `complex32`, `complex64` or `complex128` tensor.
 *
 * @category Elements
 */
export interface Complex {
  /** The real part. */
  re: number;
  /** The imaginary part. */
  im: number;
}

/**
 * For each dtype, the typed array that `data` is and what `get()` gives.
 *
 * - Complex numbers lie interleaved in `data`: real part, imaginary part.
 * - `bfloat16`, the float8 types and everything of fewer than 8 bits have no
 *   typed array in JavaScript: `data` holds their raw bits.
 * - Types of fewer than 8 bits are packed, the first element in the lowest
 *   bits, unless the tensor's {@linkcode Tensor.itemsize | itemsize} is 1:
 *   then each has a byte of its own.
 * - `handle` is `dlpack.h`'s opaque handle: 64 bits that mean something to the
 *   producer only.
 *
 * @category Elements
 */
export interface DTypeMap {
  /** One byte each, 0 or 1. */
  bool: { data: Uint8Array<ArrayBuffer>; element: boolean };
  /** Signed, 1 bit: 0 or -1. */
  int1: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Signed, 2 bits. */
  int2: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Signed, 4 bits. */
  int4: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Signed, 8 bits. */
  int8: { data: Int8Array<ArrayBuffer>; element: number };
  /** Signed, 16 bits. */
  int16: { data: Int16Array<ArrayBuffer>; element: number };
  /** Signed, 32 bits. */
  int32: { data: Int32Array<ArrayBuffer>; element: number };
  /** Signed, 64 bits. */
  int64: { data: BigInt64Array<ArrayBuffer>; element: bigint };
  /** Unsigned, 1 bit. */
  uint1: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Unsigned, 2 bits. */
  uint2: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Unsigned, 4 bits. */
  uint4: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Unsigned, 8 bits. */
  uint8: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Unsigned, 16 bits. */
  uint16: { data: Uint16Array<ArrayBuffer>; element: number };
  /** Unsigned, 32 bits. */
  uint32: { data: Uint32Array<ArrayBuffer>; element: number };
  /** Unsigned, 64 bits. */
  uint64: { data: BigUint64Array<ArrayBuffer>; element: bigint };
  /** IEEE 754 binary16. */
  float16: { data: Float16Array<ArrayBuffer>; element: number };
  /** IEEE 754 binary32. */
  float32: { data: Float32Array<ArrayBuffer>; element: number };
  /** IEEE 754 binary64. */
  float64: { data: Float64Array<ArrayBuffer>; element: number };
  /** The upper half of a binary32. */
  bfloat16: { data: Uint16Array<ArrayBuffer>; element: number };
  /** Two float16. */
  complex32: { data: Float16Array<ArrayBuffer>; element: Complex };
  /** Two float32. */
  complex64: { data: Float32Array<ArrayBuffer>; element: Complex };
  /** Two float64. */
  complex128: { data: Float64Array<ArrayBuffer>; element: Complex };
  /** 8 bits: 3 of exponent, 4 of mantissa. */
  float8_e3m4: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 4 of exponent, 3 of mantissa. */
  float8_e4m3: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 4 of exponent with bias 11, 3 of mantissa, no infinity, no -0. */
  float8_e4m3b11fnuz: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 4 of exponent, 3 of mantissa, no infinity. */
  float8_e4m3fn: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 4 of exponent, 3 of mantissa, no infinity, no -0. */
  float8_e4m3fnuz: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 5 of exponent, 2 of mantissa. */
  float8_e5m2: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits: 5 of exponent, 2 of mantissa, no infinity, no -0. */
  float8_e5m2fnuz: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 8 bits of exponent: powers of two, no sign, no zero. */
  float8_e8m0fnu: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 6 bits: 2 of exponent, 3 of mantissa; finite. */
  float6_e2m3fn: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 6 bits: 3 of exponent, 2 of mantissa; finite. */
  float6_e3m2fn: { data: Uint8Array<ArrayBuffer>; element: number };
  /** 4 bits: 2 of exponent, 1 of mantissa; finite. */
  float4_e2m1fn: { data: Uint8Array<ArrayBuffer>; element: number };
  /** Opaque, 64 bits. */
  handle: { data: BigUint64Array<ArrayBuffer>; element: bigint };
}

/**
 * The name of a data type: `"float32"`, `"bfloat16"`, `"int4"`, …
 *
 * @category Elements
 */
export type DType = keyof DTypeMap;

/**
 * The typed array that holds a dtype's elements, or their raw bits.
 *
 * @category Elements
 */
export type TypedArrayOf<D extends DType> = DTypeMap[D]["data"];

/**
 * What an element of a dtype is in JavaScript.
 *
 * @category Elements
 */
export type ElementOf<D extends DType> = DTypeMap[D]["element"];

/**
 * Any typed array.
 *
 * @category Elements
 */
export type TypedArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Float16Array
  | Float32Array
  | Float64Array;

/**
 * The dtype of a typed array that is given without one.
 *
 * @category Elements
 */
export type DTypeOfArray<A extends TypedArray> = A extends Int8Array ? "int8"
  : A extends Uint8Array | Uint8ClampedArray ? "uint8"
  : A extends Int16Array ? "int16"
  : A extends Uint16Array ? "uint16"
  : A extends Int32Array ? "int32"
  : A extends Uint32Array ? "uint32"
  : A extends BigInt64Array ? "int64"
  : A extends BigUint64Array ? "uint64"
  : A extends Float16Array ? "float16"
  : A extends Float32Array ? "float32"
  : A extends Float64Array ? "float64"
  : DType;

/**
 * Every dtype whose elements, or their raw bits, lie in a typed array.
 *
 * @category Elements
 */
export type DTypeIn<A extends TypedArray> = {
  [D in DType]: TypedArrayOf<D>[typeof Symbol.toStringTag] extends (
    A extends Uint8ClampedArray ? "Uint8Array" : A[typeof Symbol.toStringTag]
  ) ? D
    : never;
}[DType];

/**
 * An element, or arrays of them, as deep as there are axes.
 *
 * @category Elements
 */
export type NestedArray<E> = E | NestedArray<E>[];

/** The constructor of a typed array. */
export interface TypedArrayConstructor {
  /** The class's name, such as `"Float32Array"`. */
  readonly name: string;
  /** Bytes of one entry. */
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): TypedArray;
  new (array: TypedArray): TypedArray;
  new (
    buffer: ArrayBufferLike,
    byteOffset?: number,
    length?: number,
  ): TypedArray;
}

/** What kind of value an element is: decides how `astype` converts it. */
export type ElementKind =
  | "bool"
  | "int"
  | "bigint"
  | "float"
  | "complex"
  | "handle";

/** What there is to know of a dtype. */
export interface DTypeInfo {
  /** Its name. */
  readonly name: DType;
  /** `DLDataType.code`. */
  readonly code: number;
  /** `DLDataType.bits`: of one element. */
  readonly bits: number;
  /** What an element is. */
  readonly kind: ElementKind;
  /** The typed array that `data` is. */
  readonly array: TypedArrayConstructor;
  /** Raw bits to element, where the typed array does not do it. */
  readonly decode?: (bits: number) => number;
  /** Element to raw bits, where the typed array does not do it. */
  readonly encode?: (value: number) => number;
}

function signed(name: DType, bits: number): DTypeInfo {
  const shift = 32 - bits;
  return {
    name,
    code: 0,
    bits,
    kind: "int",
    array: Uint8Array,
    decode: (raw) => raw << shift >> shift,
    encode: (value) => value & (1 << bits) - 1,
  };
}

function unsigned(name: DType, bits: number): DTypeInfo {
  return {
    name,
    code: 1,
    bits,
    kind: "int",
    array: Uint8Array,
    decode: (raw) => raw,
    encode: (value) => value & (1 << bits) - 1,
  };
}

function smallFloat(name: SmallFloat, code: number, bits: number): DTypeInfo {
  let table: Float64Array | undefined;
  return {
    name,
    code,
    bits,
    kind: "float",
    array: Uint8Array,
    decode: (raw) => (table ??= decodeSmallFloat(name))[raw]!,
    encode: (value) => encodeSmallFloat(name, value),
  };
}

/** Every dtype, as `DLDataType` spells it: code and bits. */
const dtypes: readonly DTypeInfo[] = [
  signed("int1", 1),
  signed("int2", 2),
  signed("int4", 4),
  { name: "int8", code: 0, bits: 8, kind: "int", array: Int8Array },
  { name: "int16", code: 0, bits: 16, kind: "int", array: Int16Array },
  { name: "int32", code: 0, bits: 32, kind: "int", array: Int32Array },
  { name: "int64", code: 0, bits: 64, kind: "bigint", array: BigInt64Array },
  unsigned("uint1", 1),
  unsigned("uint2", 2),
  unsigned("uint4", 4),
  { name: "uint8", code: 1, bits: 8, kind: "int", array: Uint8Array },
  { name: "uint16", code: 1, bits: 16, kind: "int", array: Uint16Array },
  { name: "uint32", code: 1, bits: 32, kind: "int", array: Uint32Array },
  { name: "uint64", code: 1, bits: 64, kind: "bigint", array: BigUint64Array },
  { name: "float16", code: 2, bits: 16, kind: "float", array: Float16Array },
  { name: "float32", code: 2, bits: 32, kind: "float", array: Float32Array },
  { name: "float64", code: 2, bits: 64, kind: "float", array: Float64Array },
  { name: "handle", code: 3, bits: 64, kind: "handle", array: BigUint64Array },
  {
    name: "bfloat16",
    code: 4,
    bits: 16,
    kind: "float",
    array: Uint16Array,
    decode: decodeBfloat16,
    encode: encodeBfloat16,
  },
  {
    name: "complex32",
    code: 5,
    bits: 32,
    kind: "complex",
    array: Float16Array,
  },
  {
    name: "complex64",
    code: 5,
    bits: 64,
    kind: "complex",
    array: Float32Array,
  },
  {
    name: "complex128",
    code: 5,
    bits: 128,
    kind: "complex",
    array: Float64Array,
  },
  { name: "bool", code: 6, bits: 8, kind: "bool", array: Uint8Array },
  smallFloat("float8_e3m4", 7, 8),
  smallFloat("float8_e4m3", 8, 8),
  smallFloat("float8_e4m3b11fnuz", 9, 8),
  smallFloat("float8_e4m3fn", 10, 8),
  smallFloat("float8_e4m3fnuz", 11, 8),
  smallFloat("float8_e5m2", 12, 8),
  smallFloat("float8_e5m2fnuz", 13, 8),
  smallFloat("float8_e8m0fnu", 14, 8),
  smallFloat("float6_e2m3fn", 15, 6),
  smallFloat("float6_e3m2fn", 16, 6),
  smallFloat("float4_e2m1fn", 17, 4),
];

const byName = new Map(dtypes.map((info) => [info.name as string, info]));
const byCode = new Array<DTypeInfo | undefined>(19 * 256).fill(undefined);
for (const info of dtypes) byCode[info.code << 8 | info.bits] = info;
const byArray = new Map<string, DTypeInfo>(
  dtypes.filter((info) => info.decode === undefined && info.code <= 2)
    .map((info) => [info.array.name, info]),
).set("Uint8ClampedArray", byName.get("uint8")!);

/** Every dtype's name. */
export const dtypeNames: readonly DType[] = dtypes.map((info) => info.name);

/** What there is to know of a dtype, or `undefined` when the name is none. */
export function dtypeByName(name: string): DTypeInfo | undefined {
  return byName.get(name);
}

/** The dtype of a `DLDataType`, or `undefined` when this module has none. */
export function dtypeByCode(code: number, bits: number): DTypeInfo | undefined {
  return byCode[code << 8 | bits];
}

/** The dtype of a typed array's elements, or `undefined` when it is none. */
export function dtypeOfArray(data: TypedArray): DTypeInfo | undefined {
  return byArray.get(data[Symbol.toStringTag]);
}

const codeNames = [
  "int",
  "uint",
  "float",
  "opaque handle",
  "bfloat",
  "complex",
  "bool",
  "float8_e3m4",
  "float8_e4m3",
  "float8_e4m3b11fnuz",
  "float8_e4m3fn",
  "float8_e4m3fnuz",
  "float8_e5m2",
  "float8_e5m2fnuz",
  "float8_e8m0fnu",
  "float6_e2m3fn",
  "float6_e3m2fn",
  "float4_e2m1fn",
  "bcomplex",
];

/** A `DLDataType` in words, for messages: `int (code 0), 128 bits, 1 lane`. */
export function describeDataType(
  code: number,
  bits: number,
  lanes: number,
): string {
  const name = codeNames[code] ?? "unknown";
  return `${name} (code ${code}), ${bits} ${bits === 1 ? "bit" : "bits"}, ` +
    `${lanes} ${lanes === 1 ? "lane" : "lanes"}`;
}
