/**
 * Builds managed tensors, for consumers of our memory.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
import { FLAG, MANAGED, MAX_NDIM, TENSOR, VERSION, VERSIONED } from "./abi.ts";
import { hasPermission, libc } from "./libc.ts";
import {
  addressOf,
  addressOfArray,
  pointerTo,
  writeAddress,
} from "./memory.ts";
import { Owner } from "./owner.ts";

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
  /** The struct: the address of a block of the C library, or memory of ours. */
  readonly struct: bigint | Uint8Array<ArrayBuffer>;
  /** What else must not be collected. */
  readonly kept: Owner | ArrayBufferView | null;
}

/** Everything that consumers still have, by `manager_ctx`. */
const exported = new Map<number, Export>();
let lastId = 0;

/**
 * Exports memory without copying it. The memory lives until the consumer calls
 * the deleter; a call from another thread waits for this thread's event loop.
 *
 * @param data The address of element [0, …, 0].
 * @param kept What gives the memory back, or is the memory: it must stay where
 * it is.
 * @returns The owner of the struct.
 */
export function exportShared(
  spec: ExportSpec,
  data: bigint,
  kept: Owner | ArrayBufferView | null,
): Owner {
  const id = ++lastId;
  const length = structBytes(spec);
  const block = libc()?.malloc(BigInt(length)) ?? 0n;
  const struct = block === 0n ? new Uint8Array(length) : block;
  const address = typeof struct === "bigint" ? struct : addressOfArray(struct);
  const deleter = deleterOf(spec.versioned).address;
  writeStruct(spec, address, data, BigInt(id), deleter);
  if (kept instanceof Owner) kept.hold();
  exported.set(id, { struct, kept });
  const owner = ownerAt(address, spec);
  owner.deleteHere(() => endExport(id));
  return owner;
}

/** The consumer is done. Never throws. */
function endExport(id: number): void {
  const ended = exported.get(id);
  if (ended === undefined) return;
  exported.delete(id);
  const { struct, kept } = ended;
  if (typeof struct === "bigint") libc()?.free(struct);
  if (kept instanceof Owner) kept.unhold();
}

/** A `DLTensor` in memory of ours, to be lent to any number of calls. */
export class Loan {
  /** Where the `DLTensor` is. */
  readonly address: bigint;
  readonly #owner: Owner | null;
  /** What must not be collected while C uses it. */
  readonly #kept: readonly (ArrayBufferView | null)[];
  #calls = 0;

  /** Keeps what C reads: the struct, and memory of JavaScript. */
  constructor(
    address: bigint,
    struct: Uint8Array<ArrayBuffer>,
    kept: Owner | ArrayBufferView | null,
  ) {
    this.address = address;
    this.#owner = kept instanceof Owner ? kept : null;
    this.#kept = [struct, kept instanceof Owner ? null : kept];
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
 * @param data The address of element [0, …, 0].
 * @param kept What gives the memory back, or is the memory: it must stay where
 * it is.
 */
export function lend(
  spec: TensorSpec,
  data: bigint,
  kept: Owner | ArrayBufferView | null,
): Loan {
  const struct = new Uint8Array(TENSOR.size + axesBytes(spec));
  const address = addressOfArray(struct);
  writeTensor(new DataView(struct.buffer), 0, TENSOR.size, spec, address, data);
  return new Loan(address, struct, kept);
}

/** What consumers may expect of fresh memory: a cache line, in bytes. */
const ALIGNMENT = 64n;

/**
 * Exports a copy: one block of native memory that the consumer's call of the
 * deleter frees from any thread, JavaScript not involved.
 *
 * @param data The elements in C order.
 * @returns The owner of the struct, or `null` where there is no C library.
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function exportCopy(
  spec: ExportSpec,
  data: Uint8Array<ArrayBuffer>,
): Owner | null {
  const c = libc();
  if (c === null) return null;
  const length = structBytes(spec);
  const bytes = BigInt(length + data.length) + ALIGNMENT;
  const address = c.malloc(bytes);
  if (address === 0n) {
    throw new BufferError(
      "copy",
      `Cannot export a copy: there is no memory for ${bytes} bytes`,
    );
  }
  const end = address + BigInt(length);
  const dataAddress = data.length === 0
    ? 0n
    : end + (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT;
  // The struct is the start of the block, so its deleter is `free`.
  freeAddress ??= addressOf(c.freePointer as Deno.PointerObject);
  writeStruct(spec, address, dataAddress, 0n, freeAddress);
  if (data.length > 0) writeAddress(dataAddress, data, data.length);
  return ownerAt(address, spec);
}

let freeAddress: bigint | undefined;

function ownerAt(address: bigint, { versioned }: ExportSpec): Owner {
  const name = versioned ? "dltensor_versioned" : "dltensor";
  return new Owner(pointerTo(address)!, name);
}

/** The bytes of a struct with its shape and strides behind it. */
function structBytes(spec: ExportSpec): number {
  return (spec.versioned ? VERSIONED.size : MANAGED.size) + axesBytes(spec);
}

/** The bytes of shape and strides: 64 bits for each length and stride. */
function axesBytes(spec: TensorSpec): number {
  return 16 * spec.shape.length;
}

/** Where structs are written before they go to native memory. */
const draft = new Uint8Array(VERSIONED.size + 16 * MAX_NDIM);
const draftView = new DataView(draft.buffer);

/** Writes a managed tensor to an address, its shape and strides behind it. */
function writeStruct(
  spec: ExportSpec,
  address: bigint,
  data: bigint,
  managerCtx: bigint,
  deleter: bigint,
): void {
  const { managerCtx: managerCtxAt, deleter: deleterAt, tensor, size } =
    spec.versioned ? VERSIONED : MANAGED;
  const view = draftView;
  draft.fill(0, 0, size);
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
  writeAddress(address, draft, structBytes(spec));
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

/** A deleter that C can call. */
interface Deleter {
  readonly callback: Deno.UnsafeCallback<typeof deleterType>;
  readonly address: bigint;
}

let legacyDeleter: Deleter | undefined;
let versionedDeleter: Deleter | undefined;

/** The deleter of all shared exports; it is never closed: C may call it late. */
function deleterOf(versioned: boolean): Deleter {
  return versioned
    ? versionedDeleter ??= makeDeleter(VERSIONED.managerCtx)
    : legacyDeleter ??= makeDeleter(MANAGED.managerCtx);
}

function makeDeleter(managerCtxAt: number): Deleter {
  const callback = new Deno.UnsafeCallback(deleterType, (self) => {
    if (self === null) return;
    // Not by `self`: a consumer may call with a copy of the struct.
    const id = new Deno.UnsafePointerView(self).getBigUint64(managerCtxAt);
    endExport(Number(id));
  });
  return { callback, address: addressOf(callback.pointer) };
}

// At once where it is allowed, for the reason given in libc.ts.
if (hasPermission()) {
  deleterOf(false);
  deleterOf(true);
}
