/**
 * Managed tensors, the ordinary and the odd, as plain data: both the C fixture
 * and numpy_oracle.py build them, and what fromDlpack and numpy.from_dlpack make
 * of each is compared.
 */

import type { FixtureSpec } from "../native/fixture.ts";

/** Which struct a tensor is handed over in. */
export type StructKind = "versioned" | "legacy";

/** One managed tensor. All of it survives JSON. */
export interface ParityCase {
  name: string;
  /** The structs to try it in; both, where that makes a difference. */
  kinds: readonly StructKind[];
  /** Of the versioned struct only. */
  version: readonly [major: number, minor: number];
  /** Of the versioned struct only; a decimal string, as it has 64 bits. */
  flags: string;
  device: readonly [type: number, id: number];
  /** As written into the struct. */
  ndim: number;
  dtype: readonly [code: number, bits: number, lanes: number];
  /** null: a NULL pointer. */
  shape: readonly number[] | null;
  /** In elements; null: a NULL pointer. */
  strides: readonly number[] | null;
  byteOffset: number;
  /** The bytes of the data region. */
  data: readonly number[];
  /** Where in the region tensor.data points, in bytes. */
  origin: number;
  /** "start" where the alignment of the region's first byte matters. */
  place: "end" | "start";
  /** Whether tensor.data is NULL. */
  nullData: boolean;
  deleter: "normal" | "null";
}

/** A case as the C fixture takes it. */
export function fixtureSpec(c: ParityCase, kind: StructKind): FixtureSpec {
  return {
    versioned: kind === "versioned",
    version: c.version,
    flags: BigInt(c.flags),
    device: c.device,
    ndim: c.ndim,
    dtype: c.dtype,
    shape: c.shape,
    strides: c.strides,
    byteOffset: c.byteOffset,
    nbytes: c.data.length,
    origin: c.origin,
    place: c.place,
    nullData: c.nullData,
    deleter: c.deleter,
    data: Uint8Array.from(c.data),
  };
}

const base: ParityCase = {
  name: "base",
  kinds: ["versioned", "legacy"],
  version: [1, 0],
  flags: "0",
  device: [1, 0],
  ndim: 2,
  dtype: [2, 32, 1],
  shape: [2, 3],
  strides: [3, 1],
  byteOffset: 0,
  data: float32s(6),
  origin: 0,
  place: "end",
  nullData: false,
  deleter: "normal",
};

/** What differs from base; ndim follows the shape unless it is given. */
type Changes = Partial<Omit<ParityCase, "name">>;

function make(name: string, changes: Changes): ParityCase {
  const ndim = changes.shape?.length ?? base.ndim;
  return { ...base, ndim, ...changes, name };
}

/** Two rows of three elements of a dtype. */
function dtype(
  name: string,
  code: number,
  bits: number,
  data: readonly number[],
  lanes = 1,
): ParityCase {
  return make(name, { dtype: [code, bits, lanes], data });
}

function device(name: string, type: number, id = 0): ParityCase {
  return make(name, { device: [type, id] });
}

/** 0, 1, …, n - 1 as float32. */
function float32s(n: number): number[] {
  return bytesOf(Float32Array.from({ length: n }, (_, i) => i));
}

/** n bytes counting up: the content where the values do not matter. */
function counting(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}

function bytesOf(array: ArrayBufferView): number[] {
  const { buffer, byteOffset, byteLength } = array;
  return [...new Uint8Array(buffer, byteOffset, byteLength)];
}

const versioned = { kinds: ["versioned"] } as const;
const legacy = { kinds: ["legacy"] } as const;

/** All cases, by unique name. */
export const cases: readonly ParityCase[] = [
  // The structs, their version and flags.
  make("base", versioned),
  make("legacy", legacy),
  make("readonly", { ...versioned, flags: "1" }),
  make("copied", { ...versioned, flags: "2" }),
  make("ro+copied", { ...versioned, flags: "3" }),
  make("padded", { ...versioned, flags: "4" }),
  make("unkflag", { ...versioned, flags: String(2n ** 63n + 8n) }),
  make("major2", { ...versioned, version: [2, 0] }),
  make("major0", { ...versioned, version: [0, 8] }),
  make("minor99", { ...versioned, version: [1, 99] }),

  // Element types.
  dtype("lanes2", 2, 32, float32s(12), 2),
  dtype("lanes0", 2, 32, float32s(6), 0),
  dtype("bool8", 6, 8, [0, 1, 0, 1, 1, 0]),
  dtype("bool1", 6, 1, [0b011010]),
  dtype("bool16", 6, 16, counting(12)),
  dtype("int4", 0, 4, [0x10, 0x32, 0xf8]),
  dtype("int8", 0, 8, bytesOf(Int8Array.of(0, 1, 2, 3, -128, 127))),
  dtype(
    "int64",
    0,
    64,
    bytesOf(BigInt64Array.of(0n, 1n, 2n, -3n, -(2n ** 63n), 2n ** 63n - 1n)),
  ),
  dtype("int128", 0, 128, counting(96)),
  make("uint1", { ...versioned, dtype: [1, 1, 1], data: [0b101100] }),
  make("oldbool", { ...legacy, dtype: [1, 1, 1], data: [0, 1, 0, 2, 255, 0] }),
  dtype(
    "uint64",
    1,
    64,
    bytesOf(BigUint64Array.of(0n, 1n, 2n, 3n, 2n ** 53n + 1n, 2n ** 64n - 1n)),
  ),
  dtype("f16", 2, 16, bytesOf(Float16Array.of(0, 1, 2, 3, -0.5, 65504))),
  dtype("f64", 2, 64, bytesOf(Float64Array.of(0, 1, 2, 3, -0.1, 1e300))),
  dtype("f80", 2, 80, counting(60)),
  dtype("f128", 2, 128, counting(96)),
  dtype(
    "bf16",
    4,
    16,
    bytesOf(Uint16Array.of(0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0)),
  ),
  dtype("opaque64", 3, 64, counting(48)),
  dtype("c32", 5, 32, bytesOf(Float16Array.from(counting(12)))),
  dtype("c64", 5, 64, bytesOf(Float32Array.from(counting(12)))),
  dtype("c128", 5, 128, bytesOf(Float64Array.from(counting(12)))),
  dtype("e4m3", 8, 8, counting(6)),
  dtype("e4m3fn", 10, 8, counting(6)),
  dtype("e5m2", 12, 8, counting(6)),
  dtype("e8m0", 14, 8, counting(6)),
  dtype("fp6", 15, 6, counting(5)),
  dtype("fp4", 17, 4, [0x10, 0x32, 0x54]),
  dtype("fp4x2", 17, 4, [0x10, 0x32, 0x54, 0x76, 0x98, 0xba], 2),
  dtype("bcomplex", 18, 32, counting(24)),
  dtype("code200", 200, 32, counting(24)),

  // Number of axes.
  make("ndim0", { ndim: 0, shape: null, strides: null, data: float32s(1) }),
  make("ndim0_ptr", { shape: [], strides: [], data: float32s(1) }),
  make("ndim64", {
    shape: Array(64).fill(1),
    strides: Array(64).fill(1),
    data: float32s(1),
  }),
  make("ndim65", {
    shape: Array(65).fill(1),
    strides: Array(65).fill(1),
    data: float32s(1),
  }),
  make("ndimneg", { ndim: -1 }),

  // Nothing where something is expected.
  make("nullfull", { nullData: true }),
  make("nullempty", { shape: [0, 3], nullData: true, data: [] }),
  make("nonnullempty", { shape: [0, 3], data: [] }),
  make("emptyweird", {
    shape: [0, 3],
    strides: [7, -5],
    nullData: true,
    data: [],
  }),
  make("negshape", { shape: [-1, 3] }),
  make("shapenull", { shape: null }),
  make("stridesnull", { ...versioned, strides: null }),
  make("stridesnull13", { ...versioned, version: [1, 3], strides: null }),
  make("legstridesnull", { ...legacy, strides: null }),

  // Strides.
  make("zerostride", { strides: [0, 1], data: float32s(3) }),
  make("negstride", { strides: [3, -1], byteOffset: 8 }),
  make("transposed", { shape: [3, 2], strides: [1, 3] }),
  make("overlap", { strides: [1, 1], data: float32s(4) }),
  make("gaps", { strides: [6, 2], data: float32s(11) }),
  make("size1", { shape: [2, 1, 3], strides: [3, 12345, 1] }),

  // Where the first element lies.
  make("off4", { byteOffset: 4, data: float32s(7), place: "start" }),
  make("off3", {
    byteOffset: 3,
    data: [...counting(3), ...float32s(6)],
    place: "start",
  }),
  make("off4_stridesnull", {
    byteOffset: 4,
    strides: null,
    data: float32s(7),
    place: "start",
  }),
  make("unaligned", {
    origin: 1,
    data: [...counting(1), ...float32s(6)],
    place: "start",
  }),
  make("align4", { origin: 4, data: float32s(7), place: "start" }),
  make("overflow", { shape: [2 ** 40, 2 ** 40], strides: [2 ** 40, 1] }),

  make("nodel", { deleter: "null" }),

  // Devices. The memory is the host's whatever the struct says.
  device("dev2", 2),
  device("dev3", 3),
  device("dev4", 4),
  device("dev7", 7),
  device("dev8", 8),
  device("dev10", 10),
  device("dev11", 11),
  device("dev12", 12),
  device("dev13", 13),
  device("dev14", 14),
  device("dev17", 17),
  device("dev18", 18),
  device("dev99", 99),
  device("cpu5", 1, 5),
];
