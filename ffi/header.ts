/**
 * Reads the header of a managed tensor, and tells when it cannot be one.
 *
 * @module
 */

import { shapeTable, stridesTable } from "../src/axes.ts";
import { deviceName, hasAddresses } from "../src/device.ts";
import { cStrides } from "../src/layout.ts";
import { FLAG, MANAGED, MAX_NDIM, TENSOR, VERSION, VERSIONED } from "./abi.ts";
import { Scratch } from "./memory.ts";
import type { FlagSpec, TensorSpec } from "./write.ts";

/** The two structs of `dlpack.h`, by the name of their Python capsules. */
export type ManagedName = "dltensor" | "dltensor_versioned";

/** What a managed tensor says of itself, unchecked. */
export interface Header {
  /** Another number than before, unless only `data` differs from the header read before. */
  readonly kind: number;
  /** The major version; of the legacy struct 0. */
  readonly major: number;
  /** The minor version; of the legacy struct 0. */
  readonly minor: number;
  /** Whether the memory must not be written: always so for the legacy struct, which cannot say. */
  readonly readOnly: boolean;
  /** Whether the producer made a copy for this consumer alone. */
  readonly isCopied: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
  /** `DLTensor.data`; from 2^53 on the nearest number. */
  readonly data: number;
  /** `DLDevice.device_type`. */
  readonly deviceType: number;
  /** `DLDevice.device_id`. */
  readonly deviceId: number;
  /** Number of axes. */
  readonly ndim: number;
  /** `DLDataType.code`. */
  readonly code: number;
  /** `DLDataType.bits`. */
  readonly bits: number;
  /** `DLDataType.lanes`. */
  readonly lanes: number;
  /** Whether there are lengths: {@linkcode readShape}. */
  readonly hasShape: boolean;
  /** Whether there are strides, else the order is C: {@linkcode readStrides}. */
  readonly hasStrides: boolean;
  /** From `data` to element [0, …, 0], in bytes; from 2^53 on the nearest number. */
  readonly byteOffset: number;
}

// One buffer for every header, and one for every shape and strides. A legacy
// struct is read to where the DLTensor of a versioned one is.
const scratch = new Scratch(VERSIONED.tensor + MANAGED.size);
const legacyScratch = scratch.from(VERSIONED.tensor);
const axesScratch = new Scratch(2 * MAX_NDIM * 8);
const { bytes } = scratch;
const u16 = new Uint16Array(bytes.buffer);
const i32 = new Int32Array(bytes.buffer);
const u32 = new Uint32Array(bytes.buffer);
const u64 = new BigUint64Array(bytes.buffer);
const axes = new Int32Array(axesScratch.bytes.buffer);

// Where the fields of the struct are: in bytes, for arrays of bytes, and so on.
const MAJOR = VERSIONED.major / 4;
const MINOR = VERSIONED.minor / 4;
const FLAGS = VERSIONED.flags / 4;
const DELETER = VERSIONED.deleter / 4;
const DATA = (VERSIONED.tensor + TENSOR.data) / 4;
const DEVICE_TYPE = (VERSIONED.tensor + TENSOR.deviceType) / 4;
const DEVICE_ID = (VERSIONED.tensor + TENSOR.deviceId) / 4;
const NDIM = (VERSIONED.tensor + TENSOR.ndim) / 4;
const CODE = VERSIONED.tensor + TENSOR.code;
const BITS = VERSIONED.tensor + TENSOR.bits;
const LANES = (VERSIONED.tensor + TENSOR.lanes) / 2;
/** All three. */
const DTYPE = CODE / 4;
const SHAPE = (VERSIONED.tensor + TENSOR.shape) / 4;
const STRIDES = (VERSIONED.tensor + TENSOR.strides) / 4;
const BYTE_OFFSET = (VERSIONED.tensor + TENSOR.byteOffset) / 4;
const LEGACY_DELETER = (VERSIONED.tensor + MANAGED.deleter) / 4;

const legacyBytes = BigInt(MANAGED.size);
const stableBytes = BigInt(VERSIONED.stable);
const versionedBytes = BigInt(VERSIONED.size);

/** No system has smaller pages: where a byte of one is, all of it is. */
const PAGE = 4096;

/**
 * Reads the header of a struct.
 *
 * Of another major version only the fields that every version has are there to
 * be read; the rest is not looked at.
 *
 * @param low The lower half of the pointer, if it is known; else 0.
 * @returns The header, good until the next one is read; or `null` when the struct
 * cannot be what its name says, so that nothing in it may be trusted or called.
 */
export function readHeader(
  pointer: Deno.PointerObject,
  name: ManagedName,
  low = 0,
): Header | null {
  if (name === "dltensor") {
    legacyScratch.readPointer(pointer, legacyBytes);
    if (looksVersioned()) return null;
    return parse(0, 0, FLAG.readOnly);
  }
  const isInPage = low !== 0 && (low & PAGE - 1) <= PAGE - VERSIONED.size;
  scratch.readPointer(pointer, isInPage ? versionedBytes : stableBytes);
  const major = u32[MAJOR]!;
  const minor = u32[MINOR]!;
  const flags = u32[FLAGS]!;
  if (!looksStable(major)) return null;
  if (!isInPage && major === 1) scratch.readPointer(pointer, versionedBytes);
  return parse(major, minor, flags);
}

/** The header that was read last: it is read again and again. */
const header: { -readonly [Field in keyof Header]: Header[Field] } = {
  kind: 0,
  major: 0,
  minor: 0,
  readOnly: false,
  isCopied: false,
  isPadded: false,
  data: 0,
  deviceType: 0,
  deviceId: 0,
  ndim: 0,
  code: 0,
  bits: 0,
  lanes: 0,
  hasShape: false,
  hasStrides: false,
  byteOffset: 0,
};

/** What `header` was made of, `data` aside. */
let dtypeBefore = 0;
let flagsBefore = 0;

function parse(major: number, minor: number, flags: number): Header {
  header.data = u32[DATA + 1]! * 2 ** 32 + u32[DATA]!;
  const hasShape = (u32[SHAPE]! | u32[SHAPE + 1]!) !== 0;
  const hasStrides = (u32[STRIDES]! | u32[STRIDES + 1]!) !== 0;
  const byteOffset = u32[BYTE_OFFSET + 1]! * 2 ** 32 + u32[BYTE_OFFSET]!;
  // Of a library most are alike.
  if (
    header.major === major && header.minor === minor && flagsBefore === flags &&
    header.deviceType === i32[DEVICE_TYPE] &&
    header.deviceId === i32[DEVICE_ID] && header.ndim === i32[NDIM] &&
    dtypeBefore === i32[DTYPE] && header.hasShape === hasShape &&
    header.hasStrides === hasStrides && header.byteOffset === byteOffset
  ) return header;
  header.kind++;
  header.major = major;
  header.minor = minor;
  flagsBefore = flags;
  header.readOnly = (flags & FLAG.readOnly) !== 0;
  header.isCopied = (flags & FLAG.isCopied) !== 0;
  header.isPadded = (flags & FLAG.subbytePadded) !== 0;
  header.deviceType = i32[DEVICE_TYPE]!;
  header.deviceId = i32[DEVICE_ID]!;
  header.ndim = i32[NDIM]!;
  dtypeBefore = i32[DTYPE]!;
  header.code = bytes[CODE]!;
  header.bits = bytes[BITS]!;
  header.lanes = u16[LANES]!;
  header.hasShape = hasShape;
  header.hasStrides = hasStrides;
  header.byteOffset = byteOffset;
  return header;
}

/**
 * Whether the bytes can begin a versioned struct. In a legacy struct the pointer
 * `data` stands in the place of the version, which is small and, as the struct
 * came with DLPack 1.0, not 0; and ndim with dtype in the place of the deleter:
 * `lanes` makes its top 16 bits non-zero, which no code address has.
 */
function looksStable(major: number): boolean {
  const high = u32[DELETER + 1]!;
  const low = u32[DELETER]!;
  return major > 0 && major < 256 && high < 65536 &&
    (high !== 0 || low === 0 || low >= 4096);
}

/**
 * Whether the bytes, said to be a legacy struct, are a versioned one: there the
 * upper half of an address stands in the place of the dtype, which leaves 0
 * lanes, and halves of addresses in the places of device and ndim, which make
 * sense only by a rare accident.
 */
function looksVersioned(): boolean {
  if (u16[LANES] !== 0) return false;
  const ndim = i32[NDIM]!;
  return deviceName(i32[DEVICE_TYPE]!) === undefined || ndim < 0 ||
    ndim > MAX_NDIM;
}

/** The deleter that was read last: mostly it is the same one again. */
let deleter = 0n;
let deleterLow = 0;
let deleterHigh = 0;

/** The address of the deleter of the struct whose header was read last; 0 for none. */
export function readDeleter(name: ManagedName): bigint {
  const at = name === "dltensor" ? LEGACY_DELETER : DELETER;
  const low = i32[at]!;
  const high = i32[at + 1]!;
  if (low !== deleterLow || high !== deleterHigh) {
    deleter = u64[at / 2]!;
    deleterLow = low;
    deleterHigh = high;
  }
  return deleter;
}

/** `DLTensor.data` of the struct whose header was read last, exactly. */
export function readData(): bigint {
  return u64[DATA / 2]!;
}

/** Where the strides are among the words that were read with the lengths; -1: nowhere. */
let stridesAt = -1;

/**
 * Reads the lengths of the struct whose header was read last.
 *
 * @param withStrides Whether the strides are to be read next: mostly they lie
 * close behind the lengths, and are read with them.
 * @returns An array that nobody may change.
 */
export function readShape(
  ndim: number,
  withStrides = false,
): readonly number[] {
  stridesAt = -1;
  if (ndim === 0) return NO_AXES;
  const apart = u32[STRIDES]! - u32[SHAPE]!;
  // Less than a page apart, whatever lies between is on a page of theirs.
  const areClose = withStrides && i32[SHAPE + 1] === i32[STRIDES + 1] &&
    apart > 0 && apart <= axes.byteLength - 8 * ndim && (apart & 7) === 0;
  if (areClose) {
    axesScratch.readAddress(u64[SHAPE / 2]!, axesBytes[(apart >> 3) + ndim]!);
    stridesAt = apart >> 2;
  } else readAxes(u64[SHAPE / 2]!, ndim);
  return shapeTable.of(axes, 0, ndim);
}

/**
 * Reads the strides of the struct whose lengths were read last.
 *
 * @returns An array that nobody may change.
 */
export function readStrides(ndim: number): readonly number[] {
  if (stridesAt !== -1) return stridesTable.of(axes, stridesAt, ndim);
  readAxes(u64[STRIDES / 2]!, ndim);
  return stridesTable.of(axes, 0, ndim);
}

/**
 * Reads the header of a bare `DLTensor`, as that of a versioned struct that may
 * be written.
 */
export function readTensorHeader(pointer: Deno.PointerObject): Header {
  legacyScratch.readPointer(pointer, BigInt(TENSOR.size));
  return parse(VERSION[0], VERSION[1], 0);
}

/**
 * What the struct whose header was read last says of its tensor, for another
 * struct of the same memory. `byte_offset` becomes a part of `data` where that
 * is an address; strides are never NULL.
 */
export function readSpec(header: Header): TensorSpec & FlagSpec {
  const { ndim, deviceType, deviceId, code, bits, lanes } = header;
  const shape = readShape(ndim, header.hasStrides);
  const data = readData();
  const byteOffset = readByteOffset();
  const isAddress = hasAddresses(deviceType);
  return {
    device: [deviceType, deviceId],
    code,
    bits,
    lanes,
    shape,
    strides: header.hasStrides ? readStrides(ndim) : cStrides(shape),
    data: isAddress && data !== 0n ? data + byteOffset : data,
    byteOffset: isAddress ? 0n : byteOffset,
    readOnly: header.readOnly,
    isCopied: false,
    isPadded: header.isPadded,
  };
}

/** `DLTensor.byte_offset` of the struct whose header was read last, exactly. */
export function readByteOffset(): bigint {
  return u64[BYTE_OFFSET / 2]!;
}

/** {@linkcode readShape}, with every length exactly. */
export function readShapeExactly(ndim: number): bigint[] {
  return readAxesExactly(u64[SHAPE / 2]!, ndim);
}

/** {@linkcode readStrides}, with every stride exactly. */
export function readStridesExactly(ndim: number): bigint[] {
  return readAxesExactly(u64[STRIDES / 2]!, ndim);
}

function readAxesExactly(address: bigint, ndim: number): bigint[] {
  readAxes(address, ndim);
  return Array.from(new BigInt64Array(axes.buffer, 0, ndim));
}

const NO_AXES: readonly number[] = [];

/** The bytes of that many integers. */
const axesBytes = Array.from(
  { length: 2 * MAX_NDIM + 1 },
  (_, n) => BigInt(8 * n),
);

/** Reads lengths or strides, at most 64, to where `axes` is. */
function readAxes(address: bigint, ndim: number): void {
  if (ndim > 0) axesScratch.readAddress(address, axesBytes[ndim]!);
}
