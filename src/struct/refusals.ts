/**
 * Why a managed tensor cannot be imported: one function for each message.
 *
 * @module
 */

import { MAX_NDIM, VERSION } from "../../ffi/abi.ts";
import {
  type Header,
  type ManagedName,
  readByteOffset,
  readData,
  readShapeExactly,
  readStridesExactly,
} from "../../ffi/header.ts";
import { type DeviceName, deviceName } from "../device.ts";
import { describeDataType, type DType } from "../dtype/table.ts";
import { BufferError } from "../errors.ts";
import { describeShape } from "../layout.ts";
import type { Struct } from "./types.ts";

/** It is of another major version. */
export function otherVersion({ major, minor }: Header): BufferError {
  return new BufferError(
    "version",
    `Cannot import a DLPack ${major}.${minor} tensor: this module reads major ` +
      `version ${VERSION[0]}; ask the library for that, or for the legacy ` +
      "DLManagedTensor",
  );
}

/** Its number of axes makes no sense. */
export function tooManyAxes({ ndim, lanes }: Header): BufferError {
  const extra = lanes > 1 ? ` and one of ${lanes} lanes` : "";
  return new BufferError(
    "shape",
    `Cannot import a tensor with ${ndim} axes${extra}: 0 to ${MAX_NDIM} are ` +
      "possible",
  );
}

/** DLPack has no such device. */
export function unknownDevice({ deviceType }: Header): BufferError {
  return new BufferError(
    "device",
    `Cannot import a tensor on device type ${deviceType}: DLPack has no such ` +
      "device",
  );
}

/** Its elements have no lanes. */
export function noLanes(header: Header): BufferError {
  return new BufferError(
    "dtype",
    `Cannot import elements of ${dataType(header)}: there must be at least 1 ` +
      "lane",
  );
}

/** This module has no such dtype. */
export function unknownDType(header: Header): BufferError {
  return new BufferError(
    "dtype",
    `Cannot import elements of ${dataType(header)}: no dtype of this module; ` +
      "have the library convert them first",
  );
}

/** Its packed lanes are no whole number of bytes. */
export function brokenLanes(header: Header): BufferError {
  return new BufferError(
    "dtype",
    `Cannot import elements of ${dataType(header)}: ` +
      `${header.bits * header.lanes} bits do not end on a byte`,
  );
}

/** Its shape is NULL. */
export function noShape({ ndim }: Header): BufferError {
  return new BufferError(
    "shape",
    `Cannot import a tensor with ${ndim} axes: its shape is NULL`,
  );
}

/** A length is negative. */
export function negativeLength(header: Header): BufferError {
  return new BufferError(
    "shape",
    `Cannot import ${shapeOf(header)}: lengths cannot be negative`,
  );
}

/** Its size overflows. */
export function tooLarge(header: Header): BufferError {
  return new BufferError(
    "shape",
    `Cannot import ${shapeOf(header)}: the size of its elements overflows`,
  );
}

/** A stride overflows. */
export function tooFar(header: Header): BufferError {
  return new BufferError(
    "shape",
    `Cannot import a tensor ${stridesOf(header)}: they overflow` +
      (readStridesExactly(header.ndim).some((stride) => stride >= 2n ** 59n)
        ? "; CuPy up to 14.2 writes negative strides so: have it copy the array"
        : ""),
  );
}

/** Its data is NULL although there are elements. */
export function noData(header: Header): BufferError {
  return new BufferError(
    "data",
    `Cannot import ${shapeOf(header)}: its data is NULL`,
  );
}

/** Its elements lie where no memory can be. */
export function outOfMemory(header: Header): BufferError {
  const strides = header.hasStrides ? ` ${stridesOf(header)}` : "";
  return new BufferError(
    "shape",
    `Cannot import ${shapeOf(header)}${strides} at address ` +
      `0x${readData().toString(16)} + ${readByteOffset()}: it reaches beyond ` +
      "the address space",
  );
}

// Exactly as the struct has them, which a number may not be able to say.

function shapeOf({ ndim }: Header): string {
  return `a tensor of shape [${readShapeExactly(ndim).join(", ")}]`;
}

function stridesOf({ ndim }: Header): string {
  return `with strides [${readStridesExactly(ndim).join(", ")}]`;
}

/** Another dtype was expected. */
export function otherDType(found: DType, expected: DType): BufferError {
  return new BufferError(
    "dtype",
    `Cannot import ${found} elements as ${expected}: leave the option out, and ` +
      `convert with astype("${expected}")`,
  );
}

/** The exporter copied although it was asked not to. */
export function wasCopied(): BufferError {
  return new BufferError(
    "copy",
    "Cannot import without a copy: the exporter made one although it was " +
      "asked for none",
  );
}

/** The memory is a device's, and was not to be copied. */
export function onDevice(struct: Struct): BufferError {
  return new BufferError(
    "device",
    `Cannot view a tensor on ${placeOf(struct)} from JavaScript: pass ` +
      '{ device: "cpu" } to copy it to the host',
  );
}

/** The memory is a device's, and must not be copied. */
export function needsCopy(struct: Struct): BufferError {
  return new BufferError(
    "copy",
    `Cannot import a tensor on ${placeOf(struct)} without a copy: it is not ` +
      "in the host's memory; allow the copy",
  );
}

/** Why memory of some devices takes more to reach than DLPack tells. */
const needs: Partial<Record<DeviceName, string>> = {
  vulkan: "its VkDevice and a queue to copy on, which data does not lead to",
  webgpu: "the table of GPUBuffers of the runtime that made it",
  hexagon: "the RPC session to the DSP whose memory it is",
  tpu: "the PJRT client that made it",
  trn: "the Neuron runtime that made it",
};

/** The memory is of a device that no runtime reaches. */
export function noRuntime(struct: Struct): BufferError {
  return new BufferError(
    "device",
    `Cannot copy a tensor on ${placeOf(struct)} to the host: that takes ` +
      `${
        whatItTakes(struct)
      }; have the library that made it copy it, or teach ` +
      `this module with ${registration(struct)}`,
  );
}

/** The memory is of a device that no runtime reaches, and was to be filled. */
export function noRuntimeToUpload(struct: Struct): BufferError {
  return new BufferError(
    "device",
    `Cannot upload to a tensor on ${placeOf(struct)}: that takes ` +
      `${
        whatItTakes(struct)
      }; have the library that made it fill it, or teach ` +
      `this module with ${registration(struct)}`,
  );
}

/** The memory is of a device whose runtime only reads it. */
export function onlyRead(struct: Struct, runtime: string): BufferError {
  return new BufferError(
    "device",
    `Cannot upload to a tensor on ${placeOf(struct)}: ${runtime}, as this ` +
      "module uses it, only reads (it has no openForWriting()); have the " +
      `library that made it fill it, or write what is missing and ` +
      registration(struct),
  );
}

/** The memory is the host's, and was to be filled as a device's is. */
export function onHost(struct: Struct): BufferError {
  return new BufferError(
    "device",
    `Cannot upload to a tensor on ${placeOf(struct)}: it is in the host's ` +
      "memory; view it with fromDlpack(), and assign() to that",
  );
}

/** The memory was to be filled, but must not be written. */
export function notToWrite(name: ManagedName): BufferError {
  return new BufferError(
    "readonly",
    "Cannot upload to a read-only tensor" +
      (name === "dltensor"
        ? ": a legacy struct cannot say that it may be written; if it may, say " +
          "so with capsule.with({ writable: true })"
        : ": have the library make one that may be written"),
  );
}

/** The elements that were to be written are of another dtype. */
export function uploadOfOtherDType(
  source: DType,
  target: DType,
): BufferError {
  return new BufferError(
    "dtype",
    `Cannot upload ${source} elements to ${target} ones: convert them first, ` +
      `with astype("${target}")`,
  );
}

/** The elements have a byte each on one side, and share bytes on the other. */
export function uploadOfOtherPacking(target: Struct): BufferError {
  const { info, isPacked } = target;
  const [from, to] = isPacked ? ["padded", "packed"] : ["packed", "padded"];
  return new BufferError(
    "dtype",
    `Cannot upload ${from} ${info.name} elements to ${to} ones: assign() them ` +
      `to a tensor of ${to} ones first`,
  );
}

/** The elements that were to be written are others in number or shape. */
export function uploadOfOtherShape(
  source: readonly number[],
  target: readonly number[],
): BufferError {
  return new BufferError(
    "shape",
    `Cannot upload elements of shape ${describeShape(source)} to a tensor of ` +
      `shape ${describeShape(target)}: reshape() or slice() the source`,
  );
}

/** Elements that were to be written may lie at the same place. */
export function overlapping({ layout }: Struct): BufferError {
  return new BufferError(
    "layout",
    `Cannot upload to a tensor of shape ${describeShape(layout.shape)} with ` +
      `strides ${describeShape(layout.strides)}: elements of it lie at the ` +
      "same place; have the library give the memory without repeating axes",
  );
}

function whatItTakes({ deviceType }: Struct): string {
  return needs[deviceName(deviceType)!] ?? "the library of its maker";
}

function registration({ deviceType }: Struct): string {
  return `registerDevice(DeviceType.${deviceName(deviceType)!}, runtime)`;
}

function placeOf({ deviceType, deviceId }: Struct): string {
  return `${deviceName(deviceType)}:${deviceId}`;
}

function dataType({ code, bits, lanes }: Header): string {
  return describeDataType(code, bits, lanes);
}
