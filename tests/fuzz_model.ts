/**
 * What a hostile struct means, worked out without the module: a generator of
 * structs, whether `fromDlpack` may import one, and the value of each element.
 *
 * @module
 */

import type { BufferErrorCode, Complex, DType } from "@dlpack/deno";
import fc from "fast-check";

/** An `int64_t` of a struct. */
type Int64 = number | bigint;

/** A struct, how it is offered, and what is then done with the tensor. */
export interface Case {
  versioned: boolean;
  /** Wrapped under the name of the other struct. */
  asOther: boolean;
  version: [major: number, minor: number];
  flags: bigint;
  device: [type: number, id: number];
  ndim: number;
  dtype: [code: number, bits: number, lanes: number];
  /** Of `ndim` lengths wherever that is possible. */
  shape: Int64[] | null;
  strides: Int64[] | null;
  byteOffset: bigint;
  nullData: boolean;
  nullDeleter: boolean;
  place: "heap" | "start" | "end";
  options: { device: "cpu" | null; copy: boolean | null };
  /** Whether the tensor outlives the turn of the event loop, then is garbage. */
  kept: boolean;
  steps: Step[];
}

/** Something to do with a tensor; the numbers choose which and how. */
export interface Step {
  does: (typeof deeds)[number];
  a: number;
  b: number;
}

const deeds = [
  "slice",
  "transpose",
  "reshape",
  "copy",
  "astype",
  "toArray",
  "iterate",
  "inspect",
  "set",
  "data",
  "export",
  "exportLegacy",
  "exportCopy",
  "release",
  "dispose",
] as const;

// ---- dtypes ----

/** How the bits of a small float are split, and what its highest ones mean. */
interface SmallFloat {
  exponent: number;
  mantissa: number;
  bias: number;
  special: "ieee" | "fn" | "fnuz" | "finite";
}

interface DTypeModel {
  name: DType;
  code: number;
  bits: number;
  small?: SmallFloat;
}

function small(
  name: DType,
  code: number,
  bits: number,
  bias: number,
  special: SmallFloat["special"],
): DTypeModel {
  const [, exponent, mantissa] = /e(\d)m(\d)/.exec(name)!;
  return {
    name,
    code,
    bits,
    small: {
      exponent: Number(exponent),
      mantissa: Number(mantissa),
      bias,
      special,
    },
  };
}

/** What dlpack.h knows and this module reads. */
const dtypes: readonly DTypeModel[] = [
  ...([1, 2, 4, 8, 16, 32, 64] as const).flatMap((bits): DTypeModel[] => [
    { name: `int${bits}`, code: 0, bits },
    { name: `uint${bits}`, code: 1, bits },
  ]),
  { name: "float16", code: 2, bits: 16 },
  { name: "float32", code: 2, bits: 32 },
  { name: "float64", code: 2, bits: 64 },
  { name: "handle", code: 3, bits: 64 },
  { name: "bfloat16", code: 4, bits: 16 },
  { name: "complex32", code: 5, bits: 32 },
  { name: "complex64", code: 5, bits: 64 },
  { name: "complex128", code: 5, bits: 128 },
  { name: "bool", code: 6, bits: 8 },
  small("float8_e3m4", 7, 8, 3, "ieee"),
  small("float8_e4m3", 8, 8, 7, "ieee"),
  small("float8_e4m3b11fnuz", 9, 8, 11, "fnuz"),
  small("float8_e4m3fn", 10, 8, 7, "fn"),
  small("float8_e4m3fnuz", 11, 8, 8, "fnuz"),
  small("float8_e5m2", 12, 8, 15, "ieee"),
  small("float8_e5m2fnuz", 13, 8, 16, "fnuz"),
  small("float8_e8m0fnu", 14, 8, 127, "fn"),
  small("float6_e2m3fn", 15, 6, 1, "finite"),
  small("float6_e3m2fn", 16, 6, 3, "finite"),
  small("float4_e2m1fn", 17, 4, 1, "finite"),
];

/** The device types of dlpack.h; of these the host reads 1, 3, 11 and 13. */
const devices = [1, 2, 3, 4, ...Array.from({ length: 14 }, (_, i) => 7 + i)];
const hostDevices = [1, 3, 11, 13];

// ---- the generator ----

const absurdInt64s = [
  -1n,
  -2n,
  5n,
  64n,
  1000n,
  2n ** 31n,
  2n ** 32n,
  2n ** 40n,
  2n ** 52n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  -(2n ** 31n),
  -(2n ** 53n),
  -(2n ** 63n),
];

/** One field of a valid struct, overwritten. */
type Fault =
  | readonly ["dim" | "stride", axis: number, value: Int64]
  | readonly ["ndim" | "code" | "bits" | "lanes" | "major", value: number]
  | readonly ["device" | "minor", value: number]
  | readonly ["byteOffset" | "flags", value: bigint]
  | readonly ["shape" | "data" | "deleter", null];

const is = <const T>(value: T): fc.Arbitrary<T> => fc.constant(value);
const axis = fc.nat(5);
const int64 = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...absurdInt64s) },
  { weight: 1, arbitrary: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) },
);
const uint64 = fc.oneof(
  fc.constantFrom(1n, 2n ** 31n, 2n ** 52n, 2n ** 63n, 2n ** 64n - 8n),
  fc.bigInt(0n, 2n ** 64n - 1n),
);
const uint32 = fc.nat(2 ** 32 - 1);

const fault: fc.Arbitrary<Fault> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom("dim", "stride"), axis, int64),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(is("dim"), axis, fc.nat(2)),
  },
  fc.tuple(
    is("ndim"),
    fc.oneof(
      fc.integer({ min: -5, max: 70 }),
      fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, 65, -1),
    ),
  ),
  fc.tuple(fc.constantFrom("code", "bits"), fc.nat(255)),
  fc.tuple(
    is("lanes"),
    fc.oneof(fc.constantFrom(0, 2, 3, 4, 65535), fc.nat(65535)),
  ),
  fc.tuple(
    is("major"),
    fc.oneof(fc.constantFrom(0, 2, 255, 256, 2 ** 32 - 1), uint32),
  ),
  fc.tuple(is("minor"), uint32),
  {
    weight: 2,
    arbitrary: fc.tuple(
      is("device"),
      fc.oneof(
        fc.constantFrom(...devices),
        fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      ),
    ),
  },
  fc.tuple(fc.constantFrom("byteOffset", "flags"), uint64),
  fc.tuple(fc.constantFrom("shape", "data", "deleter"), is(null)),
);

const step: fc.Arbitrary<Step> = fc.record({
  does: fc.constantFrom(...deeds),
  a: fc.nat(2 ** 20),
  b: fc.nat(2 ** 20),
});

const valid = fc.record({
  versioned: fc.boolean(),
  asOther: fc.constantFrom(...Array(19).fill(false), true),
  minor: fc.nat(4),
  flags: fc.bigInt(0n, 7n),
  deviceType: fc.constantFrom(1, 1, 1, 3, 11, 13),
  deviceId: fc.integer({ min: -1, max: 3 }),
  dtype: fc.constantFrom(...dtypes),
  lanes: fc.constantFrom(1, 1, 1, 1, 1, 1, 2, 4),
  shape: fc.oneof(
    {
      weight: 20,
      arbitrary: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }),
    },
    {
      weight: 1,
      arbitrary: fc.array(fc.integer({ min: 1, max: 1 }), { maxLength: 64 }),
    },
  ),
  strides: fc.oneof(
    is(null),
    fc.constantFrom("c", "fortran", "reversed", "stepped"),
    fc.array(fc.integer({ min: -7, max: 7 }), { maxLength: 4 }),
  ),
  byteOffset: fc.constantFrom(
    0n,
    0n,
    0n,
    1n,
    8n,
    100n,
    2n ** 40n,
    2n ** 64n - 8n,
  ),
  device: fc.constantFrom(null, null, "cpu"),
  copy: fc.constantFrom(null, null, null, true, false),
  kept: fc.constantFrom(...Array(31).fill(false), true),
  steps: fc.array(step, { maxLength: 8 }),
  faults: fc.oneof(
    { weight: 9, arbitrary: is([]) },
    { weight: 9, arbitrary: fc.tuple(fault) },
    { weight: 2, arbitrary: fc.tuple(fault, fault) },
    { weight: 1, arbitrary: fc.array(fault, { maxLength: 12 }) },
  ),
});

/**
 * Structs of which about half are valid, and most others wrong in one field.
 *
 * @param guarded How many of a hundred lie between guard pages.
 */
export function cases(guarded: number): fc.Arbitrary<Case> {
  const places = fc.nat(99).map((n) =>
    n >= guarded ? "heap" : n % 2 === 0 ? "start" : "end"
  );
  return fc.tuple(valid, places).map(([from, place]) => {
    const { dtype, shape } = from;
    const made: Case = {
      versioned: from.versioned,
      asOther: from.asOther,
      version: [1, from.minor],
      flags: from.flags,
      device: [from.deviceType, from.deviceId],
      ndim: shape.length,
      dtype: [dtype.code, dtype.bits, from.lanes],
      shape: [...shape],
      strides: stridesOf(shape, from.strides),
      byteOffset: from.byteOffset,
      nullData: false,
      nullDeleter: false,
      place,
      options: { device: from.device, copy: from.copy },
      kept: from.kept,
      steps: from.steps,
    };
    // Deno 2.7 infers a type of them that nothing can be read of.
    const faults: readonly Fault[] = from.faults;
    for (const fault of faults) overwrite(made, fault);
    // What is there is as long as ndim says: reading further is a crash.
    if (made.ndim >= 0 && made.ndim <= 64) {
      const resized = (values: Int64[] | null): Int64[] | null =>
        values && Array.from({ length: made.ndim }, (_, i) => values[i] ?? 1);
      made.shape = resized(made.shape);
      made.strides = resized(made.strides);
    }
    if (!judge(made).isFeasible) made.options.copy = null;
    return made;
  });
}

function stridesOf(
  shape: number[],
  style: null | "c" | "fortran" | "reversed" | "stepped" | number[],
): number[] | null {
  if (style === null) return null;
  if (typeof style === "object") return shape.map((_, i) => style[i] ?? 0);
  let stride = style === "stepped" ? 3 : 1;
  const axes = [...shape.keys()];
  if (style !== "fortran") axes.reverse();
  const strides: number[] = [];
  for (const axis of axes) {
    strides[axis] = style === "reversed" ? -stride : stride;
    stride *= shape[axis]!;
  }
  return strides;
}

function overwrite(made: Case, [field, ...rest]: Fault): void {
  const value = rest.at(-1);
  if (field === "dim" || field === "stride") {
    const values = field === "dim" ? made.shape : made.strides;
    if (values === null) return;
    values[rest[0] as number % Math.max(values.length, 1)] = value as Int64;
  } else if (field === "ndim") made.ndim = value as number;
  else if (field === "code") made.dtype[0] = value as number;
  else if (field === "bits") made.dtype[1] = value as number;
  else if (field === "lanes") made.dtype[2] = value as number;
  else if (field === "major") made.version[0] = value as number;
  else if (field === "minor") made.version[1] = value as number;
  else if (field === "device") made.device[0] = value as number;
  else if (field === "byteOffset") made.byteOffset = value as bigint;
  else if (field === "flags") made.flags = value as bigint;
  else if (field === "shape") made.shape = null;
  else if (field === "data") made.nullData = true;
  else made.nullDeleter = true;
}

// ---- what it must come to ----

const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
/** Readable regions are no larger, in bytes. */
const MAX_REGION = 2n ** 16n;
/** Copies that are made are no larger, in bytes. */
const MAX_COPY = 2n ** 20n;
/** No process has so many bytes. */
export const UNTHINKABLE = 2n ** 47n;

/** What importing a case must do. */
export interface Verdict {
  /** The codes that it may be refused with; none: it must work. */
  refused: readonly BufferErrorCode[];
  /** Whether it may work in spite of those. */
  mayWork: boolean;
  /** How often a refusal may call the deleter. */
  calls: readonly number[];
  /** What it is when it works. */
  meaning: Meaning | null;
  /** Which bytes it spans, if it gets so far. */
  extent: Extent | null;
  /** Whether it can be tried: it may copy too much, or what is not there. */
  isFeasible: boolean;
  /** Whether a capsule stays as it was: refused for the options alone. */
  stays: boolean;
}

/** The bytes from the lowest to the highest element: those of `data`. */
export interface Extent {
  /** From `data + byte_offset` to the lowest element. */
  firstByte: bigint;
  bytes: bigint;
}

/** A tensor as the struct describes it. */
export interface Meaning {
  dtype: DTypeModel;
  shape: number[];
  /** In elements. */
  strides: number[];
  size: number;
  /** From one element to the next, in bits. */
  itembits: number;
  isPadded: boolean;
  readOnly: boolean;
  /** Whether the import makes a copy. */
  isCopy: boolean;
  /** Index of element [0, …, 0] in `data`. */
  offset: number;
  /** Bytes of `data`. */
  nbytes: number;
  /** Whether the region is as large as that, so that all may be read. */
  isHonest: boolean;
}

/** Works out what `fromDlpack` must do, check by check in their order. */
export function judge(from: Case): Verdict {
  const { versioned, options, dtype: [code, , lanes] } = from;
  // As libraries wrote bool that are older than DLPack's own.
  const isOldBool = !versioned && code === 1 && from.dtype[1] === 1 &&
    lanes === 1;
  const bits = isOldBool ? 8 : from.dtype[1];
  const [major] = from.version;
  const [deviceType] = from.device;
  const calls = from.nullDeleter ? [0] : [1];
  const refuse = (
    ...refused: BufferErrorCode[]
  ): Verdict => ({
    refused,
    mayWork: false,
    calls,
    meaning: null,
    extent: null,
    isFeasible: true,
    stays: false,
  });

  if (from.asOther) return { ...refuse("version"), calls: [0] };
  const isStrange = !devices.includes(deviceType) || from.ndim < 0 ||
    from.ndim > 64;
  if (!versioned && lanes === 0 && isStrange) {
    // As likely a versioned struct: then it must be left alone.
    return { ...refuse("version", "shape", "device"), calls: [0, ...calls] };
  }
  if (versioned && major !== 1) {
    const isVersion = major > 0 && major < 256;
    return { ...refuse("version"), calls: isVersion ? calls : [0, ...calls] };
  }
  // Lanes are one axis more.
  if (from.ndim < 0 || from.ndim + (lanes > 1 ? 1 : 0) > 64) {
    return refuse("shape");
  }
  if (!devices.includes(deviceType)) return refuse("device");
  if (lanes === 0) return refuse("dtype");
  const dtype = dtypes.find((known) =>
    known.code === (isOldBool ? 6 : code) && known.bits === bits
  );
  if (dtype === undefined) return refuse("dtype");
  const isPadded = versioned && (from.flags & 4n) !== 0n;
  const isPacked = bits < 8 && !isPadded;
  if (isPacked && lanes > 1 && bits * lanes % 8 !== 0) return refuse("dtype");

  if (from.ndim > 0 && from.shape === null) return refuse("shape");
  const shape = (from.shape ?? []).slice(0, from.ndim).map(BigInt);
  if (shape.some((length) => length < 0n)) return refuse("shape");
  const itembits = isPacked ? bits : Math.ceil(bits / 8) * 8;
  const extended = shape.reduce((n, length) => n * (length || 1n), 1n) *
    BigInt(lanes);
  if (extended > MAX_SAFE || extended * BigInt(itembits) > MAX_SAFE * 8n) {
    return refuse("shape");
  }
  const size = shape.reduce((n, length) => n * length, BigInt(lanes));
  const strides = from.strides === null
    ? shape.map((_, axis) =>
      shape.slice(axis + 1).reduce((n, length) => n * (length || 1n), 1n)
    )
    : from.strides.slice(0, from.ndim).map(BigInt);
  const isSafe = (n: bigint): boolean => n >= -MAX_SAFE && n <= MAX_SAFE;
  const matters = (axis: number): boolean => size > 0n && shape[axis]! > 1n;
  if (strides.some((stride, axis) => matters(axis) && !isSafe(stride))) {
    return refuse("shape");
  }

  if (lanes > 1) {
    shape.push(BigInt(lanes));
    strides.forEach((stride, axis) => strides[axis] = stride * BigInt(lanes));
    strides.push(1n);
  }
  const reach = strides.map((stride, axis) =>
    matters(axis) ? (shape[axis]! - 1n) * stride : 0n
  );
  const sum = (values: bigint[]): bigint => values.reduce((a, b) => a + b, 0n);
  const lowest = sum(reach.filter((n) => n < 0n));
  const highest = sum(reach.filter((n) => n > 0n));
  // data begins with an element that begins on a byte.
  const perBytes = [1n, 2n, 4n, 8n].find((n) =>
    n * BigInt(itembits) % 8n === 0n
  )!;
  const first = floor(lowest, perBytes) * perBytes;
  const bytes = size === 0n
    ? 0n
    : -floor(-(highest - first + 1n) * BigInt(itembits), 8n);
  const isBeyond = !isSafe(lowest) || !isSafe(highest) || !isSafe(bytes);
  if (from.nullData && size > 0n) {
    return isBeyond ? refuse("data", "shape") : refuse("data");
  }
  if (isBeyond) return refuse("shape");

  const extent = { firstByte: first * BigInt(itembits) / 8n, bytes };
  const isReadOnly = !versioned || (from.flags & 1n) !== 0n;
  const isCopied = versioned && (from.flags & 2n) !== 0n;
  const isHost = hostDevices.includes(deviceType);
  const refuseThere = (...refused: BufferErrorCode[]): Verdict => ({
    ...refuse(...refused),
    extent,
  });
  const refuseOption = (refused: BufferErrorCode): Verdict => ({
    ...refuseThere(refused),
    stays: true,
  });
  if (!isHost && options.device === null) return refuseOption("device");
  if (!isHost && options.copy === false) return refuseOption("copy");
  // Host memory that is said to be a device's: its runtime refuses it, too.
  if (!isHost && size > 0n) return refuseThere("device", "copy");
  if (isHost && options.copy === false && isCopied) return refuseOption("copy");
  const isCopy = !isHost ||
    options.copy === true && (isReadOnly || !isCopied);
  const copyBytes = isCopy ? -floor(-size * BigInt(itembits), 8n) : 0n;
  if (copyBytes >= UNTHINKABLE) return refuseThere("copy");

  const isHonest = bytes <= MAX_REGION &&
    Number.isSafeInteger(Number(originOf(from, extent)));
  return {
    refused: isHost ? [] : ["device", "copy"],
    mayWork: true,
    calls,
    meaning: {
      dtype,
      shape: shape.map(Number),
      strides: strides.map(Number),
      size: Number(size),
      itembits,
      isPadded: bits < 8 && isPadded,
      readOnly: isReadOnly && !isCopy,
      isCopy,
      offset: size === 0n ? 0 : Number(-first),
      nbytes: Number(bytes),
      isHonest,
    },
    extent,
    isFeasible: !isCopy || isHonest && copyBytes <= MAX_COPY,
    stays: false,
  };
}

/** Where `tensor.data` must point in a region that begins with the lowest element. */
export function originOf(from: Case, { firstByte }: Extent): bigint {
  return BigInt.asIntN(64, -firstByte - from.byteOffset);
}

function floor(a: bigint, b: bigint): bigint {
  return a / b - (a % b < 0n ? 1n : 0n);
}

// ---- elements ----

const pattern = Uint8Array.from(
  { length: Number(MAX_REGION) },
  (_, i) => i * i + 89 * i + 31,
);

/** What a region holds: bits of all kinds. */
export function patternOf(nbytes: number): Uint8Array<ArrayBuffer> {
  return pattern.slice(0, nbytes);
}

/** The element at an index, decoded from the bytes of `data`. */
export function elementAt(
  { dtype, itembits }: Meaning,
  bytes: Uint8Array<ArrayBuffer>,
  index: number,
): number | bigint | boolean | Complex {
  const { name, bits, small } = dtype;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = Math.floor(index * itembits / 8);
  const real = (width: number, at: number): number =>
    width === 16
      ? view.getFloat16(at, true)
      : width === 32
      ? view.getFloat32(at, true)
      : view.getFloat64(at, true);
  if (name === "bool") return view.getUint8(at) !== 0;
  if (name === "bfloat16") {
    const wide = new DataView(new ArrayBuffer(4));
    wide.setUint16(0, view.getUint16(at, true));
    return wide.getFloat32(0);
  }
  if (name.startsWith("complex")) {
    return { re: real(bits / 2, at), im: real(bits / 2, at + bits / 16) };
  }
  if (name.startsWith("float") && small === undefined) return real(bits, at);

  // The rest are integers, or begin as such.
  let raw = 0n;
  for (let bit = 0; bit < bits; bit++) {
    const place = index * itembits + bit;
    const byte = bytes[Math.floor(place / 8)]!;
    raw |= BigInt(byte >> place % 8 & 1) << BigInt(bit);
  }
  if (small !== undefined) return decodeSmall(Number(raw), bits, small);
  const value = name.startsWith("int") ? BigInt.asIntN(bits, raw) : raw;
  return bits === 64 ? value : Number(value);
}

function decodeSmall(raw: number, bits: number, kind: SmallFloat): number {
  const { exponent: width, mantissa: places, bias, special } = kind;
  const isSigned = width + places < bits;
  const magnitude = isSigned ? raw % 2 ** (bits - 1) : raw;
  const sign = magnitude === raw ? 1 : -1;
  const exponent = Math.floor(magnitude / 2 ** places);
  const mantissa = magnitude % 2 ** places;
  const top = 2 ** width - 1;
  if (special === "fnuz" && raw === 2 ** (bits - 1)) return NaN;
  if (special === "fn" && magnitude === 2 ** (width + places) - 1) return NaN;
  if (special === "ieee" && exponent === top) {
    return mantissa === 0 ? sign * Infinity : NaN;
  }
  // e8m0 has no subnormals, and no mantissa to have any.
  return exponent === 0 && places > 0
    ? sign * mantissa * 2 ** (1 - bias - places)
    : sign * (1 + mantissa / 2 ** places) * 2 ** (exponent - bias);
}
