/**
 * Checks the arguments of a tensor's methods.
 *
 * @module
 */

import { MAX_NDIM } from "../../ffi/abi.ts";
import type { DlpackRequest } from "../capsule.ts";
import { deviceName, DeviceType, isHost } from "../device.ts";
import { entriesOf } from "../dtype/packing.ts";
import {
  type DType,
  dtypeByName,
  type DTypeInfo,
  dtypeNames,
  dtypeOfArray,
  type TypedArray,
} from "../dtype/table.ts";
import { BufferError, checkOptions, describe, withArticle } from "../errors.ts";
import {
  cStrides,
  describeShape,
  extentOf,
  type Layout,
  layoutOf,
  sizeOf,
  toInteger,
  toIntegers,
} from "../layout.ts";

/**
 * What there is to know of a dtype.
 *
 * @throws {TypeError} When there is none of that name.
 */
export function checkDType(dtype: unknown): DTypeInfo {
  const info = typeof dtype === "string" ? dtypeByName(dtype) : undefined;
  if (info !== undefined) return info;
  throw new TypeError(
    `There is no dtype ${describe(dtype)}: it is one of ` +
      dtypeNames.join(", "),
  );
}

/**
 * The dtype of a tensor over a typed array.
 *
 * @throws {TypeError} When it is no typed array, or does not hold that dtype.
 */
export function checkArray(data: unknown, dtype: DType | undefined): DTypeInfo {
  const own = ArrayBuffer.isView(data)
    ? dtypeOfArray(data as TypedArray)
    : undefined;
  if (own === undefined) {
    throw new TypeError(
      `Cannot make a tensor of ${describe(data)}: pass a typed array` +
        advice(data),
    );
  }
  if (dtype === undefined) return own;
  const info = checkDType(dtype);
  if (info.array !== own.array) {
    throw new TypeError(
      `Cannot make ${withArticle(dtype)} tensor of ` +
        `${withArticle(own.array.name)}: its elements lie in ` +
        `${withArticle(info.array.name)}, and astype() converts`,
    );
  }
  return info;
}

/** How to get to a typed array. */
function advice(data: unknown): string {
  if (Array.isArray(data)) {
    return ", such as Float32Array.from(values.flat(Infinity))";
  }
  if (data instanceof ArrayBuffer || data instanceof DataView) {
    return " over it, such as new Float32Array(buffer)";
  }
  const { buffer, byteLength } = Object(data);
  if (buffer instanceof ArrayBuffer && typeof byteLength === "number") {
    // Complex64Array and BooleanArray of stdlib, for example.
    return " over its buffer, and the dtype as an option";
  }
  return "";
}

/** What `Tensor.from` takes beside the dtype, unchecked. */
interface Placement {
  readonly strides?: readonly (number | bigint)[];
  readonly offset?: number | bigint;
}

/**
 * Which elements of a typed array a tensor is made of.
 *
 * @param data The typed array.
 * @param shape The lengths; without them, one axis with all elements.
 * @throws {TypeError} When something is no integer, or no array of them.
 * @throws {RangeError} When an element would lie outside, or some are left over
 * although neither strides nor offset were given.
 */
export function checkPlacement(
  info: DTypeInfo,
  isPacked: boolean,
  data: TypedArray,
  shape: unknown,
  { strides, offset }: Placement,
): Layout {
  const perElement = isPacked ? info.bits / 8 : entriesOf(info, isPacked, 1);
  const capacity = Math.floor(data.length / perElement);
  const lengths = shape === undefined || shape === null
    ? [capacity]
    : toIntegers(shape, "shape", "[2, 3]");
  const layout = {
    shape: lengths,
    strides: strides === undefined
      ? cStrides(lengths)
      : toIntegers(strides, "strides", "[3, 1]"),
    offset: offset === undefined ? 0 : toInteger(offset, "The offset"),
  };
  checkLayout(layout, capacity);
  const entries = entriesOf(info, isPacked, sizeOf(lengths));
  if (
    strides === undefined && offset === undefined && entries !== data.length
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape ${describeShape(lengths)}: it takes ` +
        `${entries} entries of data, which has ${data.length}; for a part of ` +
        "data, pass an offset or strides, or a subarray",
    );
  }
  return layoutOf(layout.shape, layout.strides, layout.offset);
}

function checkLayout(layout: Layout, capacity: number): void {
  const { shape, strides, offset } = layout;
  const numbers = [...shape, ...strides, offset];
  if (
    !numbers.every(Number.isSafeInteger) || shape.some((length) => length < 0)
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape ${describeShape(shape)}, strides ` +
        `${describeShape(strides)}, offset ${offset}: lengths must be ` +
        "integers from 0, strides and offset integers",
    );
  }
  if (shape.length !== strides.length) {
    throw new RangeError(
      `Cannot make a tensor: ${shape.length} lengths but ${strides.length} ` +
        "strides",
    );
  }
  const { lowest, highest } = extentOf(shape, strides);
  if (
    highest >= lowest && (offset + lowest < 0 || offset + highest >= capacity)
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape ${describeShape(shape)}: it spans the ` +
        `elements ${offset + lowest} to ${offset + highest}, data has ` +
        `${capacity}`,
    );
  }
}

/**
 * Checks the lengths of a new tensor.
 *
 * @throws {TypeError} When they are no array of numbers.
 * @throws {RangeError} When one is negative, or no integer.
 */
export function checkShape(shape: unknown): number[] {
  const lengths = toIntegers(shape, "shape", "[2, 3]");
  if (lengths.every((length) => length >= 0)) return lengths;
  throw new RangeError(
    `Cannot make a tensor of shape ${describeShape(lengths)}: lengths cannot ` +
      "be negative",
  );
}

/**
 * Checks that a tensor is of a dtype.
 *
 * @throws {TypeError} When it is of another.
 */
export function checkSame(found: DType, wanted: DType): void {
  if (found === wanted) return;
  throw new TypeError(
    `Cannot copy between ${found} and ${wanted} elements: astype("${wanted}") ` +
      "converts",
  );
}

/**
 * Checks the shape of the tensor that is written to.
 *
 * @throws {RangeError} When it is another.
 */
export function checkShapeOf(
  out: readonly number[],
  wanted: readonly number[],
): void {
  if (
    out.length === wanted.length &&
    out.every((length, axis) => length === wanted[axis])
  ) return;
  throw new RangeError(
    `Cannot copy shape ${describeShape(wanted)} into a tensor of shape ` +
      `${describeShape(out)}: assign() broadcasts`,
  );
}

/**
 * Checks where a copy is to go.
 *
 * @param like A typed array of the class that it must have.
 * @param entries How many it must have.
 * @param way Whether it is written or read.
 * @throws {TypeError} When it is of another class.
 * @throws {RangeError} When it has another length.
 */
export function checkOut(
  out: unknown,
  like: { readonly name: string },
  entries: number,
  way: "into" | "from" = "into",
): asserts out is TypedArray {
  if (!ArrayBuffer.isView(out) || tagOf(out) !== like.name) {
    throw new TypeError(
      `Cannot copy ${way} ${describe(out)}: pass ${withArticle(like.name)}, ` +
        "in which the elements lie",
    );
  }
  const { length } = out as TypedArray;
  if (length !== entries) {
    throw new RangeError(
      `Cannot copy ${way} ${length} entries: the elements take ${entries}`,
    );
  }
}

function tagOf(view: ArrayBufferView): string | undefined {
  return (view as TypedArray)[Symbol.toStringTag];
}

/**
 * Checks that a tensor can be described by a struct.
 *
 * @throws {BufferError} `"shape"` when it has too many axes.
 */
export function checkAxes(ndim: number): void {
  if (ndim <= MAX_NDIM) return;
  throw new BufferError(
    "shape",
    `Cannot export a tensor with ${ndim} axes: 0 to ${MAX_NDIM} are possible`,
  );
}

/** What is on some device. */
interface Placed {
  readonly deviceType: number;
  readonly deviceId: number;
}

/**
 * Checks a consumer's request, and says whether it gets the versioned struct.
 *
 * @param storage Where the memory is.
 * @throws {TypeError} When an option is of the wrong kind, or a stream is asked
 * of host memory.
 * @throws {BufferError} `"device"` when it is not where it is wanted.
 */
export function checkRequest(
  request: DlpackRequest,
  storage: Placed,
): boolean {
  checkOptions("__dlpack__()", request);
  const { stream, maxVersion, dlDevice, copy } = request;
  const { deviceType, deviceId } = storage;
  if (stream !== undefined && stream !== null) {
    throw new TypeError(
      `Cannot export host memory on stream ${describe(stream)}: it has no ` +
        "streams, leave it out",
    );
  }
  if (copy !== undefined && copy !== null && typeof copy !== "boolean") {
    throw new TypeError(
      `The option "copy" must be true, false or null, not ${describe(copy)}`,
    );
  }
  checkPair("maxVersion", maxVersion);
  checkPair("dlDevice", dlDevice);
  if (
    dlDevice && !isCpu(dlDevice, deviceType) &&
    !(dlDevice[0] === deviceType && dlDevice[1] === deviceId)
  ) {
    throw new BufferError(
      "device",
      `Cannot export a tensor on ${nameOf([deviceType, deviceId])} to ` +
        `${nameOf(dlDevice)}: leave dlDevice out, or ask for the CPU, [1, 0]`,
    );
  }
  return (maxVersion?.[0] ?? 0) >= 1;
}

/** Whether the CPU is wanted of memory that it reads as its own. */
function isCpu(
  wanted: readonly [type: number, id: number],
  deviceType: number,
): boolean {
  return isHost(deviceType) && wanted[0] === DeviceType.cpu && wanted[1] === 0;
}

function nameOf([type, id]: readonly [type: number, id: number]): string {
  return `${deviceName(type) ?? `device type ${type}`}:${id}`;
}

function checkPair(
  name: string,
  pair: readonly [number, number] | null | undefined,
): void {
  if (pair === undefined || pair === null) return;
  if (
    Array.isArray(pair) && pair.length === 2 &&
    Number.isInteger(pair[0]) && Number.isInteger(pair[1])
  ) {
    return;
  }
  throw new TypeError(
    `The option "${name}" must be a pair of integers or null, not ` +
      describe(pair),
  );
}
