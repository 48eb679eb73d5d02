/**
 * Checks what is said of memory that came without a struct, and what is borrowed
 * of a struct.
 *
 * @module
 */

import {
  FIRST_ADDRESS,
  LAST_ADDRESS,
  MAX_NDIM,
  VERSION,
} from "../../ffi/abi.ts";
import {
  type Header,
  type ManagedName,
  readShape,
  readSpec,
} from "../../ffi/header.ts";
import type { FlagSpec, TensorSpec } from "../../ffi/write.ts";
import { type Device, DeviceType, hasAddresses } from "../device.ts";
import { bytesOf, packingOf } from "../dtype/packing.ts";
import {
  type DType,
  dtypeByName,
  type DTypeInfo,
  dtypeNames,
} from "../dtype/table.ts";
import { describe } from "../errors.ts";
import {
  cStrides,
  describeShape,
  extentOf,
  sizeOf,
  toInteger,
  toIntegers,
} from "../layout.ts";
import * as refusals from "./refusals.ts";

/** What a struct of ours is to say, and the bytes of its elements. */
export interface Made {
  /** What it is to say. */
  readonly spec: TensorSpec & FlagSpec;
  /** The bytes of its elements. */
  readonly bytes: number;
}

/** How `DlpackCapsule.from` describes memory. */
export interface MemoryDescription {
  readonly dtype: DType;
  readonly shape: readonly (number | bigint)[];
  readonly strides?: readonly (number | bigint)[];
  readonly byteStrides?: readonly (number | bigint)[];
  readonly byteLength?: number | bigint;
  readonly padded?: boolean;
  readonly device?: Device;
  readonly readOnly?: boolean;
}

/**
 * Checks what is said of memory.
 *
 * @param data The address of element [0, …, 0], or a handle; 0 for NULL.
 * @throws {TypeError} When something is of the wrong kind.
 * @throws {RangeError} When the numbers cannot be right.
 */
export function specOfMemory(data: bigint, said: MemoryDescription): Made {
  const info = typeof said.dtype === "string"
    ? dtypeByName(said.dtype)
    : undefined;
  if (info === undefined) {
    throw new TypeError(
      `There is no dtype ${describe(said.dtype)}: it is one of ` +
        dtypeNames.join(", "),
    );
  }
  const isPadded = info.bits < 8 && said.padded === true;
  const packing = packingOf(info, info.bits < 8 && !isPadded);
  const shape = toIntegers(said.shape, "shape", "[2, 3]");
  const strides = stridesOf(info, packing.bits, shape, said);
  const device = deviceOf(said.device);
  if (shape.length > MAX_NDIM) {
    throw new RangeError(
      `Cannot wrap memory of ${shape.length} axes: 0 to ${MAX_NDIM} are possible`,
    );
  }
  if (shape.some((length) => length < 0)) {
    throw new RangeError(
      `Cannot wrap memory of shape ${
        describeShape(shape)
      }: lengths cannot be ` +
        "negative",
    );
  }
  if (strides.length !== shape.length) {
    throw new RangeError(
      `Cannot wrap memory: ${shape.length} lengths but ${strides.length} strides`,
    );
  }
  const size = sizeOf(shape);
  const { lowest, highest } = extentOf(shape, strides);
  const span = bytesOf(packing, highest - lowest + 1);
  if (!Number.isSafeInteger(size) || !Number.isSafeInteger(span * 8)) {
    throw new RangeError(
      `Cannot wrap memory of shape ${describeShape(shape)} with strides ` +
        `${describeShape(strides)}: its size overflows`,
    );
  }
  checkLength(
    said.byteLength,
    lowest < 0 ? span : bytesOf(packing, highest + 1),
  );
  checkAddress(data, device[0], size);
  return {
    bytes: bytesOf(packing, size),
    spec: {
      device,
      code: info.code,
      bits: info.bits,
      lanes: 1,
      shape,
      strides,
      data,
      byteOffset: 0n,
      readOnly: said.readOnly === true,
      isCopied: false,
      isPadded,
    },
  };
}

function stridesOf(
  { name }: DTypeInfo,
  bits: number,
  shape: readonly number[],
  { strides, byteStrides }: MemoryDescription,
): number[] {
  if (byteStrides === undefined || byteStrides === null) {
    return strides === undefined || strides === null
      ? cStrides(shape)
      : toIntegers(strides, "strides", "[3, 1]");
  }
  if (strides !== undefined && strides !== null) {
    throw new TypeError(
      'Cannot take both "strides", in elements, and "byteStrides": pass one',
    );
  }
  return toIntegers(byteStrides, "byteStrides", "[12, 4]").map((step, axis) => {
    const stride = step * 8 / bits;
    if (Number.isInteger(stride)) return stride;
    throw new RangeError(
      `Cannot step ${step} bytes along axis ${axis}: it is no whole number of ` +
        `${name} elements, which take ${bits / 8} bytes; wrap the memory as ` +
        "uint8",
    );
  });
}

function deviceOf(device: Device | undefined): readonly [number, number] {
  if (device === undefined || device === null) return [DeviceType.cpu, 0];
  const { type, id = 0 } = device;
  if (
    typeof device !== "object" || typeof type !== "string" ||
    !Object.hasOwn(DeviceType, type)
  ) {
    throw new TypeError(
      `There is no device ${
        describe(type ?? device)
      }: pass { type, id } with ` +
        `one of ${Object.keys(DeviceType).join(", ")}`,
    );
  }
  const number = toInteger(id, "The id of a device");
  if (number !== (number | 0)) {
    throw new RangeError(
      `The id of a device must be an integer of 32 bits, not ${describe(id)}`,
    );
  }
  return [DeviceType[type], number];
}

function checkLength(said: number | bigint | undefined, needed: number): void {
  if (said === undefined || said === null) return;
  const there = toInteger(said, "The byteLength");
  if (needed <= there) return;
  throw new RangeError(
    `Cannot wrap ${there} bytes: the elements end after ${needed}`,
  );
}

function checkAddress(data: bigint, deviceType: number, size: number): void {
  if (size === 0) return;
  if (data === 0n) {
    throw new TypeError(
      "Cannot wrap NULL as the memory of elements: the library returned none",
    );
  }
  if (
    hasAddresses(deviceType) && (data < FIRST_ADDRESS || data >= LAST_ADDRESS)
  ) {
    throw new TypeError(
      `Cannot wrap 0x${data.toString(16)}: no memory can be there; is it the ` +
        "address, not a status, that the function returned?",
    );
  }
}

/**
 * What is lent of a tensor, whose dtype and device may be anything.
 *
 * @param header What was read of it last.
 * @param name Which struct it is.
 * @throws {BufferError} `"version"` or `"shape"` when it cannot be read.
 */
export function specToLend(header: Header, name: ManagedName): Made {
  const { ndim } = header;
  if (name === "dltensor_versioned" && header.major !== VERSION[0]) {
    throw refusals.otherVersion(header);
  }
  if (ndim < 0 || ndim > MAX_NDIM) throw refusals.tooManyAxes(header);
  if (ndim > 0 && !header.hasShape) throw refusals.noShape(header);
  if (readShape(ndim).some((length) => length < 0)) {
    throw refusals.negativeLength(header);
  }
  const spec = readSpec(header);
  const { shape, bits, lanes, isPadded } = spec;
  const itembits = isPadded ? Math.ceil(bits / 8) * 8 : bits;
  return { spec, bytes: Math.ceil(sizeOf(shape) * itembits * lanes / 8) };
}
