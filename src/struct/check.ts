/**
 * Checks what a producer's struct says, before anything of it is believed.
 *
 * @module
 */

import { MAX_NDIM, VERSION } from "../../ffi/abi.ts";
import {
  type Header,
  type ManagedName,
  readData,
  readShape,
  readStrides,
} from "../../ffi/header.ts";
import { deviceName, isHost } from "../device.ts";
import { entriesOf, packingOf } from "../dtype/packing.ts";
import { dtypeByCode } from "../dtype/table.ts";
import { cStrides } from "../layout.ts";
import * as refusals from "./refusals.ts";
import type { Struct } from "./types.ts";

/** The end of what a process can address, on any 64-bit system. */
const ADDRESSES = 2 ** 48;

const BOOL = dtypeByCode(6, 8)!;

/**
 * Whether elements are a bool in a byte each, as libraries wrote it that are
 * older than DLPack's own bool (TVM, MXNet 1.9, decord 0.6): uint of 1 bit. In
 * the versioned struct such elements share bytes.
 */
function isOldBool(
  { code, bits, lanes }: Header,
  name: ManagedName,
): boolean {
  return code === 1 && bits === 1 && lanes === 1 && name === "dltensor";
}

/**
 * Reads a struct and checks it. All in one function: V8 does not inline that
 * many by itself, and every import comes through here.
 *
 * @param header What was read of it last.
 * @param name Which struct it is.
 * @param isWritable Whether a legacy struct may be written to, which it cannot
 * say.
 * @throws {BufferError} What is wrong with it, as its code says.
 */
export function checkStruct(
  header: Header,
  name: ManagedName,
  isWritable = false,
): Struct {
  const { ndim, lanes, deviceType } = header;
  if (name === "dltensor_versioned" && header.major !== VERSION[0]) {
    throw refusals.otherVersion(header);
  }
  // Lanes become one axis more.
  if (ndim < 0 || (lanes > 1 ? ndim + 1 : ndim) > MAX_NDIM) {
    throw refusals.tooManyAxes(header);
  }
  if (deviceName(deviceType) === undefined) {
    throw refusals.unknownDevice(header);
  }
  if (lanes === 0) throw refusals.noLanes(header);
  const info = isOldBool(header, name)
    ? BOOL
    : dtypeByCode(header.code, header.bits);
  if (info === undefined) throw refusals.unknownDType(header);
  const { bits } = info;
  const isPacked = bits < 8 && !header.isPadded;
  if (lanes > 1 && isPacked && bits * lanes % 8 !== 0) {
    throw refusals.brokenLanes(header);
  }

  if (ndim > 0 && !header.hasShape) throw refusals.noShape(header);
  const shape = readShape(ndim);
  let size = lanes;
  let isEmpty = false;
  for (let axis = 0; axis < ndim; axis++) {
    const length = shape[axis]!;
    if (length < 0) throw refusals.negativeLength(header);
    // Lengths of 0 aside: a huge length beside one is as absurd, as in NumPy.
    if (length === 0) isEmpty = true;
    else size *= length;
  }
  // No element is smaller than a bit, and bytes must be safe integers, too.
  if (size * Math.max(bits, 8) > 8 * Number.MAX_SAFE_INTEGER) {
    throw refusals.tooLarge(header);
  }
  if (lanes > 1) shape.push(lanes);

  const strides = header.hasStrides ? readStrides(ndim) : cStrides(shape);
  if (header.hasStrides && lanes > 1) {
    for (let axis = 0; axis < ndim; axis++) strides[axis]! *= lanes;
    strides.push(1);
  }
  // How far the elements reach to both sides of the one at [0, …, 0].
  let lowest = 0;
  let highest = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    const length = shape[axis]!;
    if (!Number.isSafeInteger(strides[axis])) {
      if (!isEmpty && length !== 1) throw refusals.tooFar(header);
      // It carries no meaning.
      strides[axis] = cStrides(shape)[axis]!;
    }
    const reach = (length - 1) * strides[axis]!;
    if (reach < 0) lowest += reach;
    else highest += reach;
  }

  let start = 0;
  let length = 0;
  let offset = 0;
  if (!isEmpty) {
    const { data } = header;
    if (data === 0) throw refusals.noData(header);
    let first = lowest;
    let itemsize = Math.max(bits / 8, 1);
    if (isPacked) {
      // Back to an element that starts on a byte.
      const { group } = packingOf(info, isPacked);
      first -= (lowest % group + group) % group;
      itemsize = bits / 8;
    }
    length = entriesOf(info, isPacked, highest - first + 1);
    offset = 0 - first;
    const from = header.byteOffset + first * itemsize;
    // A device's data may be a handle, to which nothing can be added.
    const isAddress = isHost(deviceType);
    start = isAddress ? data + from : from;
    const end = start + length * info.array.BYTES_PER_ELEMENT;
    // What was rounded on the way is far beyond the end.
    if (
      !(end <= ADDRESSES && lowest >= -ADDRESSES &&
        start > (isAddress ? 0 : -ADDRESSES))
    ) {
      throw refusals.outOfMemory(header);
    }
  }
  return {
    info,
    isPacked,
    layout: { shape, strides, offset },
    deviceType,
    deviceId: header.deviceId,
    readOnly: header.readOnly && !(isWritable && name === "dltensor"),
    isCopied: header.isCopied,
    data: isHost(deviceType) ? 0n : readData(),
    start,
    length,
  };
}
