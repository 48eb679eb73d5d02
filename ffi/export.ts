/**
 * Builds managed tensors, for consumers of our memory.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
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

/** What a `DLTensor` is to say. */
export interface TensorSpec {
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

/** What a managed tensor is to say. */
export interface ExportSpec extends TensorSpec {
  /** Which struct. */
  readonly versioned: boolean;
  /** Whether the consumer must not write. */
  readonly readOnly: boolean;
  /** Whether the memory is the consumer's alone. */
  readonly isCopied: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. */
  readonly isPadded: boolean;
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

/** A `DLTensor` in memory of ours, to be lent to any number of calls. */
export class Loan {
  /** Where the `DLTensor` is. */
  readonly address: bigint;
  readonly #owner: Owner | null;
  /** What must not be collected while C uses it. */
  readonly #kept: readonly ArrayBufferView[];
  #calls = 0;

  /** Keeps what C reads: the struct, and memory of JavaScript. */
  constructor(
    address: bigint,
    owner: Owner | null,
    kept: readonly ArrayBufferView[],
  ) {
    this.address = address;
    this.#owner = owner;
    this.#kept = kept;
  }

  /**
   * A call begins: native memory stays until its end, even if a callback
   * disposes the tensor.
   */
  begin(): void {
    this.#calls++;
    this.#owner?.hold();
  }

  /** A call is over. The count makes V8 keep the loan, and what it keeps, until then. */
  end(): void {
    this.#calls--;
    this.#owner?.unhold();
  }
}

/**
 * Writes a `DLTensor` that can be lent to native functions.
 *
 * @param data Element [0, …, 0], as for {@linkcode exportShared}.
 * @param owner Who gives a native tensor's memory back.
 */
export function lend(
  spec: TensorSpec,
  data: bigint | ArrayBufferView,
  owner: Owner | null,
): Loan {
  const struct = new Uint8Array(TENSOR.size + axesBytes(spec));
  const address = addressOfArray(struct);
  const view = new DataView(struct.buffer);
  if (typeof data === "bigint") {
    writeTensor(view, 0, TENSOR.size, spec, address, data);
    return new Loan(address, owner, [struct]);
  }
  writeTensor(view, 0, TENSOR.size, spec, address, addressOfArray(data));
  return new Loan(address, owner, [struct, data]);
}

/** What consumers may expect of fresh memory: a cache line, in bytes. */
const ALIGNMENT = 64n;

/**
 * Exports a copy: one block of native memory that the consumer's call of the
 * deleter frees from any thread, JavaScript not involved.
 *
 * @param data The elements in C order.
 * @throws {BufferError} `"copy"` when there is no memory for it.
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
    throw new BufferError(
      "copy",
      `Cannot export a copy: there is no memory for ${bytes} bytes`,
    );
  }
  const end = address + BigInt(struct.length);
  const dataAddress = data.length === 0
    ? 0n
    : end + (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT;
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
  return (spec.versioned ? VERSIONED.size : MANAGED.size) + axesBytes(spec);
}

/** The bytes of shape and strides: 64 bits for each length and stride. */
function axesBytes(spec: TensorSpec): number {
  return 16 * spec.shape.length;
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
  writeTensor(view, tensor, size, spec, address, data);
}

/**
 * Writes a `DLTensor`, and its shape and strides behind the struct.
 *
 * @param at Where in the struct the `DLTensor` is, in bytes.
 * @param size The bytes of the struct.
 * @param address Where the struct is.
 * @param data The address of element [0, …, 0].
 */
function writeTensor(
  view: DataView,
  at: number,
  size: number,
  spec: TensorSpec,
  address: bigint,
  data: bigint,
): void {
  const ndim = spec.shape.length;
  view.setBigUint64(at + TENSOR.data, data, true);
  view.setInt32(at + TENSOR.deviceType, spec.device[0], true);
  view.setInt32(at + TENSOR.deviceId, spec.device[1], true);
  view.setInt32(at + TENSOR.ndim, ndim, true);
  view.setUint8(at + TENSOR.code, spec.code);
  view.setUint8(at + TENSOR.bits, spec.bits);
  view.setUint16(at + TENSOR.lanes, 1, true);
  if (ndim === 0) return;
  const stridesAt = size + 8 * ndim;
  view.setBigUint64(at + TENSOR.shape, address + BigInt(size), true);
  view.setBigUint64(at + TENSOR.strides, address + BigInt(stridesAt), true);
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
