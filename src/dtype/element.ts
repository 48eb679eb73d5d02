import { describe, withArticle } from "../errors.ts";
import type { Complex, DTypeInfo, TypedArray } from "./table.ts";

/** What an array that has lost its memory belongs to. */
export interface Memory {
  /** Throws, and says what became of it. */
  lost(): never;
}

/** Reads and writes single elements of a dtype in its typed array. */
export interface ElementAccess {
  /**
   * The element at an index, counted in elements.
   *
   * @param length How long the array must be: it is shorter when its buffer was
   * transferred.
   */
  get(
    data: TypedArray,
    index: number,
    length: number,
    memory: Memory,
  ): unknown;
  /** Writes one; the value has been checked. */
  set(
    data: TypedArray,
    index: number,
    length: number,
    memory: Memory,
    value: unknown,
  ): void;
}

/**
 * Elements that are what the typed array holds.
 *
 * The classes share nothing: V8 keeps what it learns of an access by the text it
 * is in, and is fast only where it has seen few classes.
 */
const plain: Readonly<Record<string, unknown>> = {
  Int8Array: {
    get: (data: Int8Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Int8Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Uint8Array: {
    get: (data: Uint8Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Uint8Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Int16Array: {
    get: (data: Int16Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Int16Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Uint16Array: {
    get: (data: Uint16Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Uint16Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Int32Array: {
    get: (data: Int32Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Int32Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Uint32Array: {
    get: (data: Uint32Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Uint32Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Float16Array: {
    get: (data: Float16Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Float16Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Float32Array: {
    get: (data: Float32Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Float32Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  Float64Array: {
    get: (data: Float64Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: Float64Array,
      i: number,
      length: number,
      memory: Memory,
      value: number,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  BigInt64Array: {
    get: (data: BigInt64Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: BigInt64Array,
      i: number,
      length: number,
      memory: Memory,
      value: bigint,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
  BigUint64Array: {
    get: (data: BigUint64Array, i: number, length: number, memory: Memory) =>
      data.length === length ? data[i] : memory.lost(),
    set(
      data: BigUint64Array,
      i: number,
      length: number,
      memory: Memory,
      value: bigint,
    ) {
      if (data.length !== length) memory.lost();
      data[i] = value;
    },
  },
};

type Numbers = Uint8Array | Float32Array;

const bool: ElementAccess = {
  get: (data, index, length, memory) =>
    data.length === length ? data[index] !== 0 : memory.lost(),
  set(data, index, length, memory, value) {
    if (data.length !== length) memory.lost();
    (data as Numbers)[index] = value ? 1 : 0;
  },
};

const complex: ElementAccess = {
  get(data, index, length, memory): Complex {
    if (data.length !== length) memory.lost();
    const numbers = data as Numbers;
    return { re: numbers[2 * index]!, im: numbers[2 * index + 1]! };
  },
  set(data, index, length, memory, value) {
    if (data.length !== length) memory.lost();
    const numbers = data as Numbers;
    numbers[2 * index] = (value as Complex).re;
    numbers[2 * index + 1] = (value as Complex).im;
  },
};

function coded(
  decode: (bits: number) => number,
  encode: (value: number) => number,
  mask: number,
): ElementAccess {
  return {
    get: (data, index, length, memory) =>
      data.length === length
        ? decode((data as Numbers)[index]! & mask)
        : memory.lost(),
    set(data, index, length, memory, value) {
      if (data.length !== length) memory.lost();
      (data as Numbers)[index] = encode(value as number);
    },
  };
}

function packed(
  decode: (bits: number) => number,
  encode: (value: number) => number,
  bits: number,
): ElementAccess {
  return {
    get: (data, index, length, memory) =>
      data.length === length
        ? decode(readBits(data as Uint8Array, index * bits, bits))
        : memory.lost(),
    set(data, index, length, memory, value) {
      if (data.length !== length) memory.lost();
      const encoded = encode(value as number);
      writeBits(data as Uint8Array, index * bits, bits, encoded);
    },
  };
}

/**
 * Up to 8 bits, which may lie in two bytes, the first ones in the lowest bits.
 *
 * @param at Where the first one is, counted in bits.
 */
export function readBits(data: Uint8Array, at: number, count: number): number {
  const shift = at % 8;
  const byte = (at - shift) / 8;
  let bits = data[byte]! >>> shift;
  if (shift + count > 8) bits |= data[byte + 1]! << 8 - shift;
  return bits & (1 << count) - 1;
}

/**
 * Writes up to 8 bits, and leaves their neighbours alone.
 *
 * @param at Where the first one goes to, counted in bits.
 */
export function writeBits(
  data: Uint8Array,
  at: number,
  count: number,
  bits: number,
): void {
  const shift = at % 8;
  const byte = (at - shift) / 8;
  const mask = (1 << count) - 1;
  data[byte] = data[byte]! & ~(mask << shift) | bits << shift;
  if (shift + count > 8) {
    const above = 8 - shift;
    data[byte + 1] = data[byte + 1]! & ~(mask >>> above) | bits >>> above;
  }
}

const cache = new Map<DTypeInfo, ElementAccess>();
const packedCache = new Map<DTypeInfo, ElementAccess>();

/** Memory that is there: what loops pass that have just checked it. */
export const present: Memory = {
  lost() {
    throw new TypeError("The array is of another length");
  },
};

/**
 * How to read and write the elements of a dtype.
 *
 * @param info The dtype.
 * @param isPacked Whether elements of fewer than 8 bits share bytes.
 */
export function elementAccess(
  info: DTypeInfo,
  isPacked: boolean,
): ElementAccess {
  const known = isPacked ? packedCache : cache;
  let access = known.get(info);
  if (access === undefined) known.set(info, access = make(info, isPacked));
  return access;
}

function make(info: DTypeInfo, isPacked: boolean): ElementAccess {
  const { kind, decode, encode, bits, array } = info;
  if (decode !== undefined && encode !== undefined) {
    return isPacked
      ? packed(decode, encode, bits)
      : coded(decode, encode, (1 << bits) - 1);
  }
  return kind === "bool"
    ? bool
    : kind === "complex"
    ? complex
    : plain[array.name] as ElementAccess;
}

/** Whether elements are what the typed array holds. */
export function isPlain({ kind, decode }: DTypeInfo): boolean {
  return decode === undefined && kind !== "bool" && kind !== "complex";
}

/** What `typeof` says of elements. */
export function typeOfElements(
  { kind }: DTypeInfo,
): "number" | "boolean" | "bigint" | "object" {
  switch (kind) {
    case "int":
    case "float":
      return "number";
    case "bool":
      return "boolean";
    case "complex":
      return "object";
    default:
      return "bigint";
  }
}

/**
 * Checks that a value can be an element.
 *
 * @throws {TypeError} When it is of another kind.
 */
export function checkElement(info: DTypeInfo, value: unknown): void {
  const { kind, name } = info;
  const found = typeof value;
  const wanted = typeOfElements(info);
  if (kind === "complex") {
    const { re, im } = (value ?? {}) as Partial<Complex>;
    if (typeof re === "number" && typeof im === "number") return;
  } else if (found === wanted) return;
  const isPlain = ["number", "bigint", "boolean", "string"].includes(found);
  throw new TypeError(
    `Cannot set an element of ${withArticle(name)} tensor to ` +
      `${isPlain ? withArticle(found) : describe(value)}: pass ` +
      (kind === "complex" ? "{ re, im } with two numbers" : `a ${wanted}`),
  );
}
