/**
 * Checks what a producer's struct says, before anything of it is believed.
 *
 * @module
 */

import { MAX_NDIM, VERSION } from "../ffi/abi.ts";
import {
  type Header,
  readData,
  readShape,
  readStrides,
} from "../ffi/header.ts";
import type { Owner } from "../ffi/owner.ts";
import { deviceName, isHost } from "./device.ts";
import { dtypeByCode, type DTypeInfo } from "./dtype.ts";
import { cStrides, extentOf, type Layout, sizeOf } from "./layout.ts";
import { entriesOf, packingOf } from "./packing.ts";
import * as refusals from "./refusals.ts";

/** What a struct says, checked. */
export interface Struct {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** Which elements, counted from the lowest; lanes are the last axis. */
  readonly layout: Layout;
  /** `DLDevice.device_type`. */
  readonly deviceType: number;
  /** `DLDevice.device_id`. */
  readonly deviceId: number;
  /** Whether the memory must not be written. */
  readonly readOnly: boolean;
  /** Whether the producer made a copy for this consumer alone. */
  readonly isCopied: boolean;
  /** `DLTensor.data`: of a device's memory exactly, 0 for the host's. */
  readonly data: bigint;
  /** Of the lowest element: an address of the host, else counted from `data`. */
  readonly start: number;
  /** Entries of the typed array from there to the highest element. */
  readonly length: number;
}

/**
 * Reads a struct and checks it.
 *
 * @throws {BufferError} What is wrong with it, as its code says.
 */
export function checkStruct(owner: Owner): Struct {
  const header = owner.header();
  const info = checkHeader(owner, header);
  const isPacked = info.bits < 8 && !header.isPadded;
  const shape = checkShape(header, info);
  const strides = checkStrides(header, shape);
  const { start, length, offset } = locate(
    header,
    info,
    isPacked,
    shape,
    strides,
  );
  const { deviceType, deviceId, readOnly, isCopied } = header;
  return {
    info,
    isPacked,
    layout: { shape, strides, offset },
    deviceType,
    deviceId,
    readOnly,
    isCopied,
    data: isHost(deviceType) ? 0n : readData(),
    start,
    length,
  };
}

/** Checks what stands in the header itself. */
function checkHeader(owner: Owner, header: Header): DTypeInfo {
  const { ndim, lanes, bits } = header;
  if (owner.name === "dltensor_versioned" && header.major !== VERSION[0]) {
    throw refusals.otherVersion(header);
  }
  // Lanes become one axis more.
  if (ndim < 0 || (lanes > 1 ? ndim + 1 : ndim) > MAX_NDIM) {
    throw refusals.tooManyAxes(header);
  }
  if (deviceName(header.deviceType) === undefined) {
    throw refusals.unknownDevice(header);
  }
  if (lanes === 0) throw refusals.noLanes(header);
  const info = dtypeByCode(header.code, bits);
  if (info === undefined) throw refusals.unknownDType(header);
  if (lanes > 1 && bits < 8 && !header.isPadded && bits * lanes % 8 !== 0) {
    throw refusals.brokenLanes(header);
  }
  return info;
}

/** Reads and checks the lengths; lanes become a last one. */
function checkShape(header: Header, info: DTypeInfo): number[] {
  const { ndim, lanes } = header;
  if (ndim > 0 && !header.hasShape) throw refusals.noShape(header);
  const shape = readShape(ndim);
  let size = lanes;
  for (let axis = 0; axis < ndim; axis++) {
    const length = shape[axis]!;
    if (length < 0) throw refusals.negativeLength(shape);
    // Lengths of 0 aside: a huge length beside one is as absurd, as in NumPy.
    if (length !== 0) size *= length;
  }
  // No element is smaller than a bit, and bytes must be safe integers, too.
  if (size * Math.max(info.bits, 8) > 8 * Number.MAX_SAFE_INTEGER) {
    throw refusals.tooLarge(shape);
  }
  if (lanes > 1) shape.push(lanes);
  return shape;
}

/** Reads and checks the strides; where they carry no meaning they are set right. */
function checkStrides(header: Header, shape: readonly number[]): number[] {
  if (!header.hasStrides) return cStrides(shape);
  const { ndim, lanes } = header;
  const strides = readStrides(ndim);
  if (lanes > 1) {
    for (let axis = 0; axis < ndim; axis++) strides[axis]! *= lanes;
    strides.push(1);
  }
  for (let axis = 0; axis < ndim; axis++) {
    if (Number.isSafeInteger(strides[axis])) continue;
    if (sizeOf(shape) !== 0 && shape[axis] !== 1) {
      throw refusals.tooFar(strides);
    }
    strides[axis] = cStrides(shape)[axis]!;
  }
  return strides;
}

/** Where the elements are. */
interface Place {
  /** The lowest one: an address of the host, else counted from `data`. */
  readonly start: number;
  /** Entries of the typed array from there to the highest element. */
  readonly length: number;
  /** The index of element [0, …, 0] from there, in elements. */
  readonly offset: number;
}

/** The end of what a process can address, on any 64-bit system. */
const ADDRESSES = 2 ** 48;

function locate(
  header: Header,
  info: DTypeInfo,
  isPacked: boolean,
  shape: readonly number[],
  strides: readonly number[],
): Place {
  const { lowest, highest } = extentOf(shape, strides);
  if (highest < lowest) return { start: 0, length: 0, offset: 0 };
  const { data } = header;
  if (data === 0) throw refusals.noData(shape);
  let first = lowest;
  let itemsize = info.bits / 8;
  if (isPacked) {
    // Back to an element that starts on a byte.
    const { group } = packingOf(info, isPacked);
    first -= ((lowest % group) + group) % group;
  } else if (itemsize < 1) itemsize = 1;
  const length = entriesOf(info, isPacked, highest - first + 1);
  const from = header.byteOffset + first * itemsize;
  // A device's data may be a handle, to which nothing can be added.
  const isAddress = isHost(header.deviceType);
  const start = isAddress ? data + from : from;
  const end = start + length * info.array.BYTES_PER_ELEMENT;
  // What was rounded on the way is far beyond the end.
  if (
    !(end <= ADDRESSES && lowest >= -ADDRESSES &&
      start > (isAddress ? 0 : -ADDRESSES))
  ) {
    throw refusals.outOfMemory(header, shape, strides);
  }
  return { start, length, offset: 0 - first };
}
