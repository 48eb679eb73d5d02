/**
 * Builds managed tensors, for consumers of our memory.
 *
 * @module
 */

import { FLAG, MANAGED, TENSOR, VERSION, VERSIONED } from "./abi.ts";
import { DlpackCapsule } from "./capsule.ts";
import { hasPermission, libc } from "./libc.ts";
import {
  addressOf,
  addressOfArray,
  pointerTo,
  writeAddress,
} from "./memory.ts";
import type { Owner } from "./owner.ts";

/** What a struct is to say. */
export interface ExportSpec {
  /** Which struct. */
  readonly versioned: boolean;
  /** Whether the consumer must not write. */
  readonly readOnly: boolean;
  /** Whether the memory is the consumer's alone. */
  readonly isCopied: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
  /** `DLDevice`. */
  readonly device: readonly [type: number, id: number];
  /** `DLDataType.code`. */
  readonly code: number;
  /** `DLDataType.bits`. */
  readonly bits: number;
  /** The lengths. */
  readonly shape: readonly number[];
  /** The strides, in elements. */
  readonly strides: readonly number[];
}

/** What a consumer still has: kept until it calls the deleter. */
interface Export {
  readonly struct: Uint8Array<ArrayBuffer>;
  readonly data: bigint | ArrayBufferView;
  readonly owner: Owner | null;
}

/** Everything that consumers still have, by `manager_ctx`. */
const exported = new Map<bigint, Export>();
let lastId = 0n;

/**
 * Exports memory without copying it. The memory lives until the consumer calls
 * the deleter; a call from another thread waits for this thread's event loop.
 *
 * @param data The address of element [0, …, 0] of a native tensor, or the
 * typed array that begins with it.
 * @param owner Who gives a native tensor's memory back.
 */
export function exportShared(
  spec: ExportSpec,
  data: bigint | ArrayBufferView,
  owner: Owner | null,
): DlpackCapsule {
  const id = ++lastId;
  const struct = new Uint8Array(structBytes(spec));
  const address = addressOfArray(struct);
  const dataAddress = typeof data === "bigint" ? data : addressOfArray(data);
  const deleter = addressOf(deleterOf(spec.versioned).pointer);
  writeStruct(struct, spec, address, dataAddress, id, deleter);
  owner?.hold();
  exported.set(id, { struct, data, owner });
  return capsuleAt(address, spec);
}

/** What consumers may expect of fresh memory: a cache line, in bytes. */
const ALIGNMENT = 64n;

/**
 * Exports a copy: one block of native memory that the consumer's call of the
 * deleter frees from any thread, JavaScript not involved.
 *
 * @param data The elements in C order.
 * @throws {RangeError} When there is no memory for it.
 */
export function exportCopy(
  spec: ExportSpec,
  data: Uint8Array<ArrayBuffer>,
): DlpackCapsule {
  const c = libc();
  if (c === null) return exportShared(spec, data, null);
  const struct = new Uint8Array(structBytes(spec));
  const bytes = BigInt(struct.length + data.length) + ALIGNMENT;
  const address = c.malloc(bytes);
  if (address === 0n) {
    throw new RangeError(`Cannot export a copy: no memory for ${bytes} bytes`);
  }
  const end = address + BigInt(struct.length);
  const dataAddress = end + (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT;
  // The struct is the start of the block, so its deleter is `free`.
  const free = addressOf(c.freePointer as Deno.PointerObject);
  writeStruct(struct, spec, address, dataAddress, 0n, free);
  writeAddress(address, struct);
  if (data.length > 0) writeAddress(dataAddress, data);
  return capsuleAt(address, spec);
}

function capsuleAt(address: bigint, spec: ExportSpec): DlpackCapsule {
  return new DlpackCapsule(
    pointerTo(address)!,
    spec.versioned ? "dltensor_versioned" : "dltensor",
  );
}

/** The bytes of a struct with its shape and strides behind it. */
function structBytes(spec: ExportSpec): number {
  const { size } = spec.versioned ? VERSIONED : MANAGED;
  return size + 16 * spec.shape.length;
}

function writeStruct(
  into: Uint8Array<ArrayBuffer>,
  spec: ExportSpec,
  address: bigint,
  data: bigint,
  managerCtx: bigint,
  deleter: bigint,
): void {
  const { managerCtx: managerCtxAt, deleter: deleterAt, tensor, size } =
    spec.versioned ? VERSIONED : MANAGED;
  const view = new DataView(into.buffer);
  view.setBigUint64(managerCtxAt, managerCtx, true);
  view.setBigUint64(deleterAt, deleter, true);
  if (spec.versioned) {
    view.setUint32(VERSIONED.major, VERSION[0], true);
    view.setUint32(VERSIONED.minor, VERSION[1], true);
    view.setUint32(
      VERSIONED.flags,
      (spec.readOnly ? FLAG.readOnly : 0) |
        (spec.isCopied ? FLAG.isCopied : 0) |
        (spec.isPadded ? FLAG.subbytePadded : 0),
      true,
    );
  }
  const ndim = spec.shape.length;
  view.setBigUint64(tensor + TENSOR.data, data, true);
  view.setInt32(tensor + TENSOR.deviceType, spec.device[0], true);
  view.setInt32(tensor + TENSOR.deviceId, spec.device[1], true);
  view.setInt32(tensor + TENSOR.ndim, ndim, true);
  view.setUint8(tensor + TENSOR.code, spec.code);
  view.setUint8(tensor + TENSOR.bits, spec.bits);
  view.setUint16(tensor + TENSOR.lanes, 1, true);
  if (ndim === 0) return;
  const stridesAt = size + 8 * ndim;
  view.setBigUint64(tensor + TENSOR.shape, address + BigInt(size), true);
  view.setBigUint64(tensor + TENSOR.strides, address + BigInt(stridesAt), true);
  for (let axis = 0; axis < ndim; axis++) {
    view.setBigInt64(size + 8 * axis, BigInt(spec.shape[axis]!), true);
    view.setBigInt64(stridesAt + 8 * axis, BigInt(spec.strides[axis]!), true);
  }
}

const deleterType = { parameters: ["pointer"], result: "void" } as const;
type Deleter = Deno.UnsafeCallback<typeof deleterType>;
let legacyDeleter: Deleter | undefined;
let versionedDeleter: Deleter | undefined;

/** The deleter of all shared exports; it is never closed: C may call it late. */
function deleterOf(versioned: boolean): Deleter {
  return versioned
    ? versionedDeleter ??= makeDeleter(VERSIONED.managerCtx)
    : legacyDeleter ??= makeDeleter(MANAGED.managerCtx);
}

function makeDeleter(managerCtxAt: number): Deleter {
  return new Deno.UnsafeCallback(deleterType, (self) => {
    if (self === null) return;
    // Not by `self`: a consumer may call with a copy of the struct.
    const id = new Deno.UnsafePointerView(self).getBigUint64(managerCtxAt);
    const { owner } = exported.get(id) ?? {};
    exported.delete(id);
    owner?.unhold();
  });
}

// At once where it is allowed, for the reason given in libc.ts.
if (hasPermission()) {
  deleterOf(false);
  deleterOf(true);
}
