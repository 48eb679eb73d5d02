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
import { stridesTable } from "../axes.ts";
import { deviceName, isHost } from "../device.ts";
import { entriesOf, packingOf } from "../dtype/packing.ts";
import { dtypeByCode, type DTypeInfo } from "../dtype/table.ts";
import { cStrides, type Layout, layoutOf } from "../layout.ts";
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

/** What structs have in common that differ in nothing but where their memory is. */
interface Kind extends Omit<Struct, "data" | "start"> {
  /** From `data` to the lowest element, in bytes. */
  readonly from: number;
  /** Whether it cannot be addressed, wherever `data` is. */
  readonly isTooFar: boolean;
}

/** A struct of some kind. */
class StructOfKind implements Struct {
  // `declare`, else each would be set twice.
  declare readonly data: bigint;
  declare readonly start: number;
  readonly #kind: Kind;

  constructor(kind: Kind, data: bigint, start: number) {
    this.#kind = kind;
    this.data = data;
    this.start = start;
  }

  get info(): DTypeInfo {
    return this.#kind.info;
  }

  get isPacked(): boolean {
    return this.#kind.isPacked;
  }

  get layout(): Layout {
    return this.#kind.layout;
  }

  get deviceType(): number {
    return this.#kind.deviceType;
  }

  get deviceId(): number {
    return this.#kind.deviceId;
  }

  get readOnly(): boolean {
    return this.#kind.readOnly;
  }

  get isCopied(): boolean {
    return this.#kind.isCopied;
  }

  get length(): number {
    return this.#kind.length;
  }
}

/** The kind of the struct that was checked last, and all that it was made of. */
let known: Kind | null = null;
let knownHeader = 0;
let knownWritable = false;
let knownShape: readonly number[] = [];
let knownStrides: readonly number[] | null = null;

/**
 * Reads a struct and checks it.
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
  // Mostly a library's tensors are alike, and what was found of one is so of all.
  const seemsKnown = known !== null && header.kind === knownHeader &&
    isWritable === knownWritable;
  if (!seemsKnown) checkHeader(header, name);
  const { ndim, data, hasStrides } = header;
  const shape = readShape(ndim, hasStrides);
  const strides = hasStrides ? readStrides(ndim) : null;
  let kind = known;
  if (
    !seemsKnown || kind === null || shape !== knownShape ||
    strides !== knownStrides
  ) {
    kind = checkKind(header, name, isWritable, shape, strides);
    known = kind;
    knownHeader = header.kind;
    knownWritable = isWritable;
    knownShape = shape;
    knownStrides = strides;
  }
  const { length, deviceType, from } = kind;
  // A device's data may be a handle, to which nothing can be added.
  const isAddress = isHost(deviceType);
  let start = 0;
  if (length > 0) {
    if (data === 0) throw refusals.noData(header);
    start = isAddress ? data + from : from;
    const end = start + length * kind.info.array.BYTES_PER_ELEMENT;
    // What was rounded on the way is far beyond the end.
    const isInside = end <= ADDRESSES && start > (isAddress ? 0 : -ADDRESSES);
    if (!isInside || kind.isTooFar) throw refusals.outOfMemory(header);
  }
  return new StructOfKind(kind, isAddress ? 0n : readData(), start);
}

/** Checks what is said before the lengths are read. */
function checkHeader(header: Header, name: ManagedName): void {
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
  const info = infoOf(header, name);
  if (info === undefined) throw refusals.unknownDType(header);
  if (lanes > 1 && isPackedIn(header, info) && info.bits * lanes % 8 !== 0) {
    throw refusals.brokenLanes(header);
  }
  if (ndim > 0 && !header.hasShape) throw refusals.noShape(header);
}

function infoOf(header: Header, name: ManagedName): DTypeInfo | undefined {
  return isOldBool(header, name) ? BOOL : dtypeByCode(header.code, header.bits);
}

function isPackedIn({ isPadded }: Header, { bits }: DTypeInfo): boolean {
  return bits < 8 && !isPadded;
}

/**
 * Checks lengths and strides.
 *
 * @param lengths As they were read.
 * @param steps Likewise; `null` where there are none.
 */
function checkKind(
  header: Header,
  name: ManagedName,
  isWritable: boolean,
  lengths: readonly number[],
  steps: readonly number[] | null,
): Kind {
  const { ndim, lanes, deviceType } = header;
  const info = infoOf(header, name)!;
  const { bits } = info;
  const isPacked = isPackedIn(header, info);
  let size = lanes;
  let isEmpty = false;
  for (let axis = 0; axis < ndim; axis++) {
    const length = lengths[axis]!;
    if (length < 0) throw refusals.negativeLength(header);
    // Lengths of 0 aside: a huge length beside one is as absurd, as in NumPy.
    if (length === 0) isEmpty = true;
    else size *= length;
  }
  // No element is smaller than a bit, and bytes must be safe integers, too.
  if (size * Math.max(bits, 8) > 8 * Number.MAX_SAFE_INTEGER) {
    throw refusals.tooLarge(header);
  }
  const shape = lanes > 1 ? [...lengths, lanes] : lengths;
  let strides = steps === null
    ? cStrides(shape)
    : lanes > 1
    ? [...steps.map((step) => step * lanes), 1]
    : steps;
  // How far the elements reach to both sides of the one at [0, …, 0].
  let lowest = 0;
  let highest = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    const length = shape[axis]!;
    if (!Number.isSafeInteger(strides[axis])) {
      if (!isEmpty && length !== 1) throw refusals.tooFar(header);
      // It carries no meaning.
      strides = strides.with(axis, cStrides(shape)[axis]!);
    }
    const reach = (length - 1) * strides[axis]!;
    if (reach < 0) lowest += reach;
    else highest += reach;
  }

  let from = 0;
  let length = 0;
  let offset = 0;
  if (!isEmpty) {
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
    from = header.byteOffset + first * itemsize;
  }
  return {
    info,
    isPacked,
    layout: layoutOf(shape, stridesTable.shared(strides), offset),
    deviceType,
    deviceId: header.deviceId,
    readOnly: header.readOnly && !(isWritable && name === "dltensor"),
    isCopied: header.isCopied,
    length,
    from,
    isTooFar: lowest < -ADDRESSES,
  };
}
