/**
 * Writes structs, for consumers of our memory.
 *
 * @module
 */

import { FLAG, MANAGED, TENSOR, VERSION, VERSIONED } from "./abi.ts";

/** What a `DLTensor` is to say. */
export interface TensorSpec {
  /** `DLDevice`. */
  readonly device: readonly [type: number, id: number];
  /** `DLDataType.code`. */
  readonly code: number;
  /** `DLDataType.bits`. */
  readonly bits: number;
  /** `DLDataType.lanes`. */
  readonly lanes: number;
  /** The lengths. */
  readonly shape: readonly number[];
  /** The strides, in elements. */
  readonly strides: readonly number[];
  /** `DLTensor.data`. */
  readonly data: bigint;
  /** `DLTensor.byte_offset`. */
  readonly byteOffset: bigint;
}

/** What the flags of the versioned struct are to say. */
export interface FlagSpec {
  /** Whether the consumer must not write. */
  readonly readOnly: boolean;
  /** Whether the memory is the consumer's alone. */
  readonly isCopied: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
}

/** The bytes of lengths or strides. */
export function axesBytes(ndim: number): number {
  return 8 * ndim;
}

/** Writes lengths or strides. */
export function writeAxes(
  view: DataView,
  at: number,
  values: readonly number[],
): void {
  for (let axis = 0; axis < values.length; axis++) {
    writeInteger(view, at + axesBytes(axis), values[axis]!);
  }
}

/** Writes 64 bits by halves: to make a BigInt of each number takes longer than all else here. */
function writeInteger(view: DataView, at: number, value: number): void {
  view.setInt32(at, value, true);
  view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
}

/**
 * Writes a `DLTensor`, every byte of it.
 *
 * @param at Where it begins.
 * @param data The address of the elements, or a handle; 0 for NULL.
 * @param shape The address of the lengths; 0 for NULL.
 * @param strides The address of the strides; 0 for NULL.
 */
export function writeTensor(
  view: DataView,
  at: number,
  spec: Omit<TensorSpec, "data">,
  data: bigint,
  shape: bigint,
  strides: bigint,
): void {
  view.setBigUint64(at + TENSOR.data, data, true);
  view.setInt32(at + TENSOR.deviceType, spec.device[0], true);
  view.setInt32(at + TENSOR.deviceId, spec.device[1], true);
  view.setInt32(at + TENSOR.ndim, spec.shape.length, true);
  view.setUint8(at + TENSOR.code, spec.code);
  view.setUint8(at + TENSOR.bits, spec.bits);
  view.setUint16(at + TENSOR.lanes, spec.lanes, true);
  view.setBigUint64(at + TENSOR.shape, shape, true);
  view.setBigUint64(at + TENSOR.strides, strides, true);
  view.setBigUint64(at + TENSOR.byteOffset, spec.byteOffset, true);
}

/**
 * Writes what is before the `DLTensor` of a versioned struct, every byte of it.
 *
 * @param managerCtx What the deleter is called with: a number of ours, no address.
 * @param deleter Who is called when a consumer is done; 0 for nobody.
 */
export function writeVersioned(
  view: DataView,
  at: number,
  { readOnly, isCopied, isPadded }: FlagSpec,
  managerCtx: number,
  deleter: bigint,
): void {
  view.setUint32(at + VERSIONED.major, VERSION[0], true);
  view.setUint32(at + VERSIONED.minor, VERSION[1], true);
  writeInteger(view, at + VERSIONED.managerCtx, managerCtx);
  view.setBigUint64(at + VERSIONED.deleter, deleter, true);
  const flags = (readOnly ? FLAG.readOnly : 0) |
    (isCopied ? FLAG.isCopied : 0) | (isPadded ? FLAG.subbytePadded : 0);
  writeInteger(view, at + VERSIONED.flags, flags);
}

/** Writes what is behind the `DLTensor` of a legacy struct, every byte of it. */
export function writeLegacy(
  view: DataView,
  at: number,
  managerCtx: number,
  deleter: bigint,
): void {
  writeInteger(view, at + MANAGED.managerCtx, managerCtx);
  view.setBigUint64(at + MANAGED.deleter, deleter, true);
}
