/**
 * Reads the header of a managed tensor, and tells when it cannot be one.
 *
 * @module
 */

import { deviceName, hasAddresses } from "../src/device.ts";
import { cStrides } from "../src/layout.ts";
import { FLAG, MANAGED, MAX_NDIM, TENSOR, VERSION, VERSIONED } from "./abi.ts";
import { Scratch } from "./memory.ts";
import type { FlagSpec, TensorSpec } from "./write.ts";

/** The two structs of `dlpack.h`, by the name of their Python capsules. */
export type ManagedName = "dltensor" | "dltensor_versioned";

/** What a managed tensor says of itself, unchecked. */
export interface Header {
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
const axesScratch = new Scratch(MAX_NDIM * 8);
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
const SHAPE = (VERSIONED.tensor + TENSOR.shape) / 4;
const STRIDES = (VERSIONED.tensor + TENSOR.strides) / 4;
const BYTE_OFFSET = (VERSIONED.tensor + TENSOR.byteOffset) / 4;
const LEGACY_DELETER = (VERSIONED.tensor + MANAGED.deleter) / 4;

const legacyBytes = BigInt(MANAGED.size);
const stableBytes = BigInt(VERSIONED.stable);
const versionedBytes = BigInt(VERSIONED.size);

/**
 * Reads the header of a struct.
 *
 * Of another major version only the fields that every version has are read;
 * the rest is what was read before.
 *
 * @returns The header, good until the next one is read; or `null` when the struct
 * cannot be what its name says, so that nothing in it may be trusted or called.
 */
export function readHeader(
  pointer: Deno.PointerObject,
  name: ManagedName,
): Header | null {
  if (name === "dltensor") {
    legacyScratch.readPointer(pointer, legacyBytes);
    if (looksVersioned()) return null;
    return parse(0, 0, FLAG.readOnly);
  }
  scratch.readPointer(pointer, stableBytes);
  const major = u32[MAJOR]!;
  const minor = u32[MINOR]!;
  const flags = u32[FLAGS]!;
  if (!looksStable(major)) return null;
  if (major === 1) scratch.readPointer(pointer, versionedBytes);
  return parse(major, minor, flags);
}

/** The header that was read last: it is read again and again. */
const header: { -readonly [Field in keyof Header]: Header[Field] } = {
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

function parse(major: number, minor: number, flags: number): Header {
  header.major = major;
  header.minor = minor;
  header.readOnly = (flags & FLAG.readOnly) !== 0;
  header.isCopied = (flags & FLAG.isCopied) !== 0;
  header.isPadded = (flags & FLAG.subbytePadded) !== 0;
  header.data = u32[DATA + 1]! * 2 ** 32 + u32[DATA]!;
  header.deviceType = i32[DEVICE_TYPE]!;
  header.deviceId = i32[DEVICE_ID]!;
  header.ndim = i32[NDIM]!;
  header.code = bytes[CODE]!;
  header.bits = bytes[BITS]!;
  header.lanes = u16[LANES]!;
  header.hasShape = (u32[SHAPE]! | u32[SHAPE + 1]!) !== 0;
  header.hasStrides = (u32[STRIDES]! | u32[STRIDES + 1]!) !== 0;
  header.byteOffset = u32[BYTE_OFFSET + 1]! * 2 ** 32 +
    u32[BYTE_OFFSET]!;
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

/** The address of the deleter of the struct whose header was read last; 0 for none. */
export function readDeleter(name: ManagedName): bigint {
  return u64[(name === "dltensor" ? LEGACY_DELETER : DELETER) / 2]!;
}

/** `DLTensor.data` of the struct whose header was read last, exactly. */
export function readData(): bigint {
  return u64[DATA / 2]!;
}

/** Reads the lengths of the struct whose header was read last. */
export function readShape(ndim: number): number[] {
  return readAxes(u64[SHAPE / 2]!, ndim);
}

/** Reads the strides of the struct whose header was read last. */
export function readStrides(ndim: number): number[] {
  return readAxes(u64[STRIDES / 2]!, ndim);
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
  const shape = readShape(ndim);
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

/** The bytes of that many axes. */
const axesBytes = Array.from({ length: MAX_NDIM + 1 }, (_, n) => BigInt(8 * n));

/**
 * Reads `ndim` lengths or strides, at most 64. Those beyond the safe integers
 * come as the nearest unsafe number.
 */
function readAxes(address: bigint, ndim: number): number[] {
  const values = new Array<number>(ndim);
  if (ndim === 0) return values;
  axesScratch.readAddress(address, axesBytes[ndim]!);
  for (let axis = 0; axis < ndim; axis++) {
    const low = axes[2 * axis]!;
    const high = axes[2 * axis + 1]!;
    // Small ones stay small integers, which V8 handles best.
    values[axis] = high === low >> 31 ? low : high * 2 ** 32 + (low >>> 0);
  }
  return values;
}
