/**
 * Reads the header of a managed tensor, and tells when it cannot be one.
 *
 * @module
 */

import { FLAG, MANAGED, MAX_NDIM, TENSOR, VERSIONED } from "./abi.ts";
import { deviceName } from "../src/device.ts";
import { readAddress, readPointer } from "./memory.ts";

/** The two structs of `dlpack.h`, by the name of their Python capsules. */
export type ManagedName = "dltensor" | "dltensor_versioned";

/** What a managed tensor says of itself, as it lies there, unchecked. */
export interface Header {
  /** The major version: 0 for the legacy struct. */
  readonly major: number;
  /** The minor version: 0 for the legacy struct. */
  readonly minor: number;
  /** The address of the deleter; 0 for none. */
  readonly deleter: bigint;
  /** Whether the memory must not be written: always so for the legacy struct, which cannot say. */
  readonly readOnly: boolean;
  /** Whether the producer made a copy for this consumer alone. */
  readonly isCopied: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
  /** `DLTensor.data`. */
  readonly data: bigint;
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
  /** The address of the lengths; 0 for none. */
  readonly shape: bigint;
  /** The address of the strides; 0 for C order. */
  readonly strides: bigint;
  /** From `data` to element [0, …, 0], in bytes. */
  readonly byteOffset: bigint;
}

// One buffer for every header, and one for every shape and strides.
const bytes = new Uint8Array(VERSIONED.size);
const u16 = new Uint16Array(bytes.buffer);
const i32 = new Int32Array(bytes.buffer);
const u32 = new Uint32Array(bytes.buffer);
const u64 = new BigUint64Array(bytes.buffer);

const legacyBytes = BigInt(MANAGED.size);
const stableBytes = BigInt(VERSIONED.stable);
const versionedBytes = BigInt(VERSIONED.size);

/**
 * Reads the header of a struct, or gives `null` when the struct cannot be
 * what its name says, so that nothing in it may be trusted or called.
 *
 * Of another major version only the fields that every version has are read;
 * the rest is zero.
 */
export function readHeader(
  pointer: Deno.PointerObject,
  name: ManagedName,
): Header | null {
  if (name === "dltensor") {
    readPointer(bytes, pointer, legacyBytes);
    if (looksVersioned()) return null;
    return parse(
      MANAGED.tensor,
      0,
      0,
      u64[MANAGED.deleter / 8]!,
      FLAG.readOnly,
    );
  }
  readPointer(bytes, pointer, stableBytes);
  if (!looksStable()) return null;
  const major = u32[VERSIONED.major / 4]!;
  if (major === 1) readPointer(bytes, pointer, versionedBytes);
  else bytes.fill(0, VERSIONED.stable);
  return parse(
    VERSIONED.tensor,
    major,
    u32[VERSIONED.minor / 4]!,
    u64[VERSIONED.deleter / 8]!,
    u32[VERSIONED.flags / 4]!,
  );
}

function parse(
  tensor: number,
  major: number,
  minor: number,
  deleter: bigint,
  flags: number,
): Header {
  return {
    major,
    minor,
    deleter,
    readOnly: (flags & FLAG.readOnly) !== 0,
    isCopied: (flags & FLAG.isCopied) !== 0,
    isPadded: (flags & FLAG.subbytePadded) !== 0,
    data: u64[(tensor + TENSOR.data) / 8]!,
    deviceType: i32[(tensor + TENSOR.deviceType) / 4]!,
    deviceId: i32[(tensor + TENSOR.deviceId) / 4]!,
    ndim: i32[(tensor + TENSOR.ndim) / 4]!,
    code: bytes[tensor + TENSOR.code]!,
    bits: bytes[tensor + TENSOR.bits]!,
    lanes: u16[(tensor + TENSOR.lanes) / 2]!,
    shape: u64[(tensor + TENSOR.shape) / 8]!,
    strides: u64[(tensor + TENSOR.strides) / 8]!,
    byteOffset: u64[(tensor + TENSOR.byteOffset) / 8]!,
  };
}

/**
 * Whether `bytes` can begin a versioned struct. In a legacy struct the pointer
 * `data` stands in the place of the version, and ndim with dtype in the place
 * of the deleter: `lanes` makes its top 16 bits non-zero, which no code
 * address has.
 */
function looksStable(): boolean {
  const deleterTop = u16[VERSIONED.deleter / 2 + 3]!;
  const deleter = u64[VERSIONED.deleter / 8]!;
  return isVersion(u32[VERSIONED.major / 4]!, u32[VERSIONED.minor / 4]!) &&
    deleterTop === 0 && (deleter === 0n || deleter >= 4096n);
}

/**
 * Whether `bytes`, said to be a legacy struct, is a versioned one. There the
 * version stands in the place of `data`, half of an address in the place of
 * `lanes`, where it leaves 0, and halves of addresses in the places of device
 * and ndim, which make sense only by a rare accident.
 */
function looksVersioned(): boolean {
  const ndim = i32[TENSOR.ndim / 4]!;
  return u16[TENSOR.lanes / 2] === 0 &&
    isVersion(u32[VERSIONED.major / 4]!, u32[VERSIONED.minor / 4]!) &&
    (deviceName(i32[TENSOR.deviceType / 4]!) === undefined || ndim < 0 ||
      ndim > MAX_NDIM);
}

/** Versions are small numbers; addresses are not. */
function isVersion(major: number, minor: number): boolean {
  return major < 256 && minor < 65536;
}

const axes = new Uint8Array(MAX_NDIM * 8);
const axes32 = new Int32Array(axes.buffer);
const axesU32 = new Uint32Array(axes.buffer);

/**
 * Reads `ndim` lengths or strides. Those beyond the safe integers come as
 * the nearest unsafe number.
 *
 * @param address Where the `int64_t`s are.
 * @param ndim How many, at most 64.
 */
export function readAxes(address: bigint, ndim: number): number[] {
  const values = new Array<number>(ndim);
  if (ndim === 0) return values;
  readAddress(axes, address, BigInt(ndim * 8));
  for (let axis = 0; axis < ndim; axis++) {
    values[axis] = axes32[2 * axis + 1]! * 2 ** 32 + axesU32[2 * axis]!;
  }
  return values;
}
