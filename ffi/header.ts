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

// One buffer for every header, and one for every shape and strides.
const bytes = new Uint8Array(VERSIONED.size);
const u16 = new Uint16Array(bytes.buffer);
const i32 = new Int32Array(bytes.buffer);
const u32 = new Uint32Array(bytes.buffer);
const u64 = new BigUint64Array(bytes.buffer);
const axes = new Uint8Array(MAX_NDIM * 8);
const axesI32 = new Int32Array(axes.buffer);
const axesU32 = new Uint32Array(axes.buffer);

/** Of the header in `bytes`: where its DLTensor begins, and its flags. */
let tensor = 0;
let flags = 0;

/**
 * What the managed tensor that was read last says of itself, as it lies there,
 * unchecked. Use it before anything else is read, or called.
 */
export const header = {
  /** The major version, of a versioned struct. */
  get major(): number {
    return u32[VERSIONED.major / 4]!;
  },
  /** The minor version, of a versioned struct. */
  get minor(): number {
    return u32[VERSIONED.minor / 4]!;
  },
  /** The address of the deleter; 0 for none. */
  get deleter(): bigint {
    return tensor === MANAGED.tensor
      ? u64[MANAGED.deleter / 8]!
      : u64[VERSIONED.deleter / 8]!;
  },
  /** Whether the memory must not be written: always so for the legacy struct, which cannot say. */
  get readOnly(): boolean {
    return (flags & FLAG.readOnly) !== 0;
  },
  /** Whether the producer made a copy for this consumer alone. */
  get isCopied(): boolean {
    return (flags & FLAG.isCopied) !== 0;
  },
  /** Whether elements of fewer than 8 bits have a byte each. */
  get isPadded(): boolean {
    return (flags & FLAG.subbytePadded) !== 0;
  },
  /** `DLTensor.data`; from 2^53 on the nearest number. */
  get data(): number {
    return number64(TENSOR.data);
  },
  /** `DLDevice.device_type`. */
  get deviceType(): number {
    return i32[(tensor + TENSOR.deviceType) / 4]!;
  },
  /** `DLDevice.device_id`. */
  get deviceId(): number {
    return i32[(tensor + TENSOR.deviceId) / 4]!;
  },
  /** Number of axes. */
  get ndim(): number {
    return i32[(tensor + TENSOR.ndim) / 4]!;
  },
  /** `DLDataType.code`. */
  get code(): number {
    return bytes[tensor + TENSOR.code]!;
  },
  /** `DLDataType.bits`. */
  get bits(): number {
    return bytes[tensor + TENSOR.bits]!;
  },
  /** `DLDataType.lanes`. */
  get lanes(): number {
    return u16[(tensor + TENSOR.lanes) / 2]!;
  },
  /** Whether there are lengths. */
  get hasShape(): boolean {
    return number64(TENSOR.shape) !== 0;
  },
  /** Whether there are strides; else the order is C. */
  get hasStrides(): boolean {
    return number64(TENSOR.strides) !== 0;
  },
  /** From `data` to element [0, …, 0], in bytes; from 2^53 on the nearest number. */
  get byteOffset(): number {
    return number64(TENSOR.byteOffset);
  },
  /** Reads the lengths, at most 64, as {@linkcode readAxes} does. */
  readShape(): number[] {
    return readAxes(u64[(tensor + TENSOR.shape) / 8]!, header.ndim);
  },
  /** Reads the strides, at most 64, as {@linkcode readAxes} does. */
  readStrides(): number[] {
    return readAxes(u64[(tensor + TENSOR.strides) / 8]!, header.ndim);
  },
};

/** A header that was read. */
export type Header = typeof header;

function number64(offset: number): number {
  const at = (tensor + offset) / 4;
  return u32[at + 1]! * 2 ** 32 + u32[at]!;
}

const legacyBytes = BigInt(MANAGED.size);
const stableBytes = BigInt(VERSIONED.stable);
const versionedBytes = BigInt(VERSIONED.size);

/**
 * Reads the header of a struct into {@linkcode header}.
 *
 * Of another major version only the fields that every version has are read;
 * the rest is zero.
 *
 * @returns Whether the struct can be what its name says; if not, nothing in it
 * may be trusted or called.
 */
export function readHeader(
  pointer: Deno.PointerObject,
  name: ManagedName,
): boolean {
  if (name === "dltensor") {
    readPointer(bytes, pointer, legacyBytes);
    tensor = MANAGED.tensor;
    flags = FLAG.readOnly;
    return !looksVersioned();
  }
  readPointer(bytes, pointer, stableBytes);
  tensor = VERSIONED.tensor;
  flags = u32[VERSIONED.flags / 4]!;
  if (!looksStable()) return false;
  if (header.major === 1) readPointer(bytes, pointer, versionedBytes);
  else bytes.fill(0, VERSIONED.stable);
  return true;
}

/**
 * Whether `bytes` can begin a versioned struct. In a legacy struct the pointer
 * `data` stands in the place of the version, which is small and, as the struct
 * came with DLPack 1.0, not 0; and ndim with dtype in the place of the deleter:
 * `lanes` makes its top 16 bits non-zero, which no code address has.
 */
function looksStable(): boolean {
  const { major } = header;
  const deleterHigh = u32[VERSIONED.deleter / 4 + 1]!;
  const deleterLow = u32[VERSIONED.deleter / 4]!;
  return major > 0 && major < 256 && deleterHigh < 65536 &&
    (deleterHigh !== 0 || deleterLow === 0 || deleterLow >= 4096);
}

/**
 * Whether `bytes`, said to be a legacy struct, is a versioned one: there the
 * upper half of an address stands in the place of the dtype, which leaves 0
 * lanes, and halves of addresses in the places of device and ndim, which make
 * sense only by a rare accident.
 */
function looksVersioned(): boolean {
  const { ndim } = header;
  return header.lanes === 0 &&
    (deviceName(header.deviceType) === undefined || ndim < 0 ||
      ndim > MAX_NDIM);
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
  readAddress(axes, address, axesBytes[ndim]!);
  for (let axis = 0; axis < ndim; axis++) {
    values[axis] = axesI32[2 * axis + 1]! * 2 ** 32 + axesU32[2 * axis]!;
  }
  return values;
}
