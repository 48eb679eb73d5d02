/**
 * Reads the header of a managed tensor, and tells when it cannot be one.
 *
 * @module
 */

import { FLAG, MANAGED, MAX_NDIM, TENSOR, VERSIONED } from "./abi.ts";
import { deviceName } from "../src/device.ts";
import { Scratch } from "./memory.ts";

/** The two structs of `dlpack.h`, by the name of their Python capsules. */
export type ManagedName = "dltensor" | "dltensor_versioned";

/** What a managed tensor says of itself, as it lies there, unchecked. */
export interface Header {
  /** The major version; of the legacy struct 0. */
  readonly major: number;
  /** The minor version; of the legacy struct 0. */
  readonly minor: number;
  /** The address of the deleter; 0 for none. */
  readonly deleter: bigint;
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
const axesScratch = new Scratch(MAX_NDIM * 8);
const { bytes } = scratch;
const u16 = new Uint16Array(bytes.buffer);
const i32 = new Int32Array(bytes.buffer);
const u32 = new Uint32Array(bytes.buffer);
const u64 = new BigUint64Array(bytes.buffer);
const axes = new Int32Array(axesScratch.bytes.buffer);

/** Where the fields of the struct are in `bytes`. */
const AT = {
  data: VERSIONED.tensor + TENSOR.data,
  deviceType: VERSIONED.tensor + TENSOR.deviceType,
  deviceId: VERSIONED.tensor + TENSOR.deviceId,
  ndim: VERSIONED.tensor + TENSOR.ndim,
  code: VERSIONED.tensor + TENSOR.code,
  bits: VERSIONED.tensor + TENSOR.bits,
  lanes: VERSIONED.tensor + TENSOR.lanes,
  shape: VERSIONED.tensor + TENSOR.shape,
  strides: VERSIONED.tensor + TENSOR.strides,
  byteOffset: VERSIONED.tensor + TENSOR.byteOffset,
  legacyDeleter: VERSIONED.tensor + MANAGED.deleter,
} as const;

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
    scratch.readPointer(pointer, legacyBytes, VERSIONED.tensor);
    if (looksVersioned()) return null;
    return parse(0, 0, FLAG.readOnly, u64[AT.legacyDeleter / 8]!);
  }
  scratch.readPointer(pointer, stableBytes);
  const major = u32[VERSIONED.major / 4]!;
  const minor = u32[VERSIONED.minor / 4]!;
  const flags = u32[VERSIONED.flags / 4]!;
  const deleter = u64[VERSIONED.deleter / 8]!;
  if (!looksStable(major)) return null;
  if (major === 1) scratch.readPointer(pointer, versionedBytes);
  return parse(major, minor, flags, deleter);
}

/** The header that was read last: it is read again and again. */
const header: { -readonly [Field in keyof Header]: Header[Field] } = {
  major: 0,
  minor: 0,
  deleter: 0n,
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

function parse(
  major: number,
  minor: number,
  flags: number,
  deleter: bigint,
): Header {
  header.major = major;
  header.minor = minor;
  header.deleter = deleter;
  header.readOnly = (flags & FLAG.readOnly) !== 0;
  header.isCopied = (flags & FLAG.isCopied) !== 0;
  header.isPadded = (flags & FLAG.subbytePadded) !== 0;
  header.data = u32[AT.data / 4 + 1]! * 2 ** 32 + u32[AT.data / 4]!;
  header.deviceType = i32[AT.deviceType / 4]!;
  header.deviceId = i32[AT.deviceId / 4]!;
  header.ndim = i32[AT.ndim / 4]!;
  header.code = bytes[AT.code]!;
  header.bits = bytes[AT.bits]!;
  header.lanes = u16[AT.lanes / 2]!;
  header.hasShape = (u32[AT.shape / 4]! | u32[AT.shape / 4 + 1]!) !== 0;
  header.hasStrides = (u32[AT.strides / 4]! | u32[AT.strides / 4 + 1]!) !== 0;
  header.byteOffset = u32[AT.byteOffset / 4 + 1]! * 2 ** 32 +
    u32[AT.byteOffset / 4]!;
  return header;
}

/**
 * Whether the bytes can begin a versioned struct. In a legacy struct the pointer
 * `data` stands in the place of the version, which is small and, as the struct
 * came with DLPack 1.0, not 0; and ndim with dtype in the place of the deleter:
 * `lanes` makes its top 16 bits non-zero, which no code address has.
 */
function looksStable(major: number): boolean {
  const high = u32[VERSIONED.deleter / 4 + 1]!;
  const low = u32[VERSIONED.deleter / 4]!;
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
  if (u16[AT.lanes / 2] !== 0) return false;
  const ndim = i32[AT.ndim / 4]!;
  return deviceName(i32[AT.deviceType / 4]!) === undefined || ndim < 0 ||
    ndim > MAX_NDIM;
}

/** `DLTensor.data` of the struct whose header was read last, exactly. */
export function readData(): bigint {
  return u64[AT.data / 8]!;
}

/** Reads the lengths of the struct whose header was read last. */
export function readShape(ndim: number): number[] {
  return readAxes(u64[AT.shape / 8]!, ndim);
}

/** Reads the strides of the struct whose header was read last. */
export function readStrides(ndim: number): number[] {
  return readAxes(u64[AT.strides / 8]!, ndim);
}

/** The bytes of so many axes. */
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
