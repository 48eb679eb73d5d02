/**
 * Tensor objects of TVM-FFI: of structs of ours, and back.
 *
 * @module
 */

import { cStrides } from "../../src/layout.ts";
import { exportEmpty } from "../export.ts";
import { readShape, readTensorHeader } from "../header.ts";
import type { LentObject, Loan } from "../loan.ts";
import { pointerTo } from "../memory.ts";
import { claim, type Owner } from "../owner.ts";
import { TYPE } from "./abi.ts";
import { Reference } from "./reference.ts";
import type { Runtime } from "./runtime.ts";

/** Hands a struct over: a new reference to a tensor object that owns it. */
export function makeTensorObject(runtime: Runtime, owner: Owner): bigint {
  const out = new BigUint64Array(1);
  const pointer = owner.moveAway();
  const status = runtime.library.tensorFromDlpack(pointer, 0, 0, out);
  // What it refuses it leaves with its caller.
  if (status !== 0) claim(pointer, "dltensor_versioned").releaseAfterFailure();
  runtime.check(status);
  return out[0]!;
}

/**
 * The tensor object of a loan, made at first use and given up with the tensor.
 *
 * @param owner Gives a struct for it.
 * @returns `null` where nothing can be kept.
 */
export function tensorObjectOf(
  runtime: Runtime,
  loan: Loan,
  owner: () => Owner,
): LentObject | null {
  const { object, caches } = loan;
  if (object !== null && !object.isOver && object.runtime === runtime) {
    return object;
  }
  if (caches === null) return null;
  const address = makeTensorObject(runtime, owner());
  const reference = new Reference(
    runtime,
    address,
    TYPE.tensor,
    "ours",
    caches,
  );
  reference.isOf(loan.memory);
  runtime.watch(loan, reference);
  return loan.object = reference;
}

/** Takes what a tensor object shows; the reference to it is given up. */
export function takeTensor(runtime: Runtime, address: bigint): Owner {
  const out = new BigUint64Array(1);
  try {
    runtime.check(runtime.library.tensorToDlpack(address, out));
  } finally {
    runtime.library.decRef(address);
  }
  const owner = claim(pointerTo(out[0]!)!, "dltensor_versioned");
  // Its deleter may be the code of a module.
  owner.keepOpen(runtime);
  return owner;
}

/** What native code asks an allocator for. */
export interface Prototype {
  /** `DLDevice`. */
  readonly device: readonly [type: number, id: number];
  /** `DLDataType`, of how many lanes. */
  readonly dtype: readonly [code: number, bits: number, lanes: number];
  /** The lengths. */
  readonly shape: readonly number[];
}

/** Reads the prototype that an allocator gets. */
export function readPrototype(pointer: Deno.PointerObject): Prototype {
  const header = readTensorHeader(pointer);
  return {
    device: [header.deviceType, header.deviceId],
    dtype: [header.code, header.bits, header.lanes],
    shape: readShape(header.ndim),
  };
}

/** Allocates a tensor in host memory; `null` where there is no C library. */
export function allocateTensor(
  { device, dtype: [code, bits, lanes], shape }: Prototype,
): Owner | null {
  const size = shape.reduce((size, length) => size * length, 1);
  const spec = {
    versioned: true,
    readOnly: false,
    isCopied: false,
    isPadded: false,
    device,
    code,
    bits,
    lanes,
    shape,
    strides: cStrides(shape),
    byteOffset: 0n,
  };
  return exportEmpty(spec, Math.ceil(size * bits * lanes / 8));
}
