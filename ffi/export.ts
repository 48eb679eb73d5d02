/**
 * Exports: managed tensors of ours, for consumers of memory.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
import { MANAGED, MAX_NDIM, VERSIONED } from "./abi.ts";
import { hasPermission, libc } from "./libc.ts";
import {
  addressOf,
  addressOfArray,
  pointerTo,
  writeAddress,
} from "./memory.ts";
import { type DeleterHere, note, Owner } from "./owner.ts";
import {
  axesBytes,
  type DeleterSpec,
  type FlagSpec,
  type TensorSpec,
  writeAxes,
  writeLegacy,
  writeTensor,
  writeVersioned,
} from "./write.ts";

/** What a managed tensor is to say. */
export interface ExportSpec extends TensorSpec, FlagSpec {
  /** Which struct. */
  readonly versioned: boolean;
}

/** What a consumer still has: kept until it calls the deleter. */
class Export implements DeleterHere {
  readonly #id: number;
  /** The struct: the address of a block of the C library, or memory of ours. */
  readonly #struct: bigint | Uint8Array<ArrayBuffer>;
  /** The bytes of its elements. */
  readonly #bytes: number;
  #release: (() => void) | null;
  /** What else must not be collected. */
  #kept: unknown;
  #isOut = false;

  constructor(
    id: number,
    struct: bigint | Uint8Array<ArrayBuffer>,
    bytes: number,
    kept: unknown,
    release: (() => void) | null,
  ) {
    this.#id = id;
    this.#struct = struct;
    this.#bytes = bytes;
    this.#kept = kept;
    this.#release = release;
  }

  /** A consumer outside of this module has it from here on. */
  moved(kept: unknown): void {
    this.#kept = [this.#kept, kept];
    this.#isOut = true;
    out.count++;
    out.bytes += this.#bytes;
  }

  run(): void {
    if (!exported.delete(this.#id)) return;
    if (this.#isOut) {
      out.count--;
      out.bytes -= this.#bytes;
    }
    if (typeof this.#struct === "bigint") libc()?.free(this.#struct);
    // Whoever still refers to this must not keep more.
    const release = this.#release;
    this.#kept = this.#release = null;
    release?.();
  }
}

/** Every export whose consumer is not done, by `manager_ctx`. */
const exported = new Map<number, Export>();
let lastId = 0;

/** Those of them that were handed over. */
const out = { count: 0, bytes: 0 };

/** The shared exports that consumers still hold, and the bytes of their elements. */
export function exportsOut(): { count: number; bytes: number } {
  return { ...out };
}

/**
 * Exports memory without copying it. The memory lives until the consumer calls
 * the deleter; a call from another thread waits for this thread's event loop.
 *
 * @param bytes The bytes of the elements.
 * @param kept What gives the memory back, or is the memory: it must stay where
 * it is.
 * @param release Is called once, when the consumer is done. It must know nothing
 * that refers to the result: such a circle is never collected.
 * @returns The owner of the struct.
 */
export function exportShared(
  spec: ExportSpec,
  bytes: number,
  kept: Owner | ArrayBufferView | null,
  release: (() => void) | null = null,
): Owner {
  const id = ++lastId;
  const length = structBytes(spec);
  const block = libc()?.malloc(BigInt(length)) ?? 0n;
  const struct = block === 0n ? new Uint8Array(length) : block;
  const address = typeof struct === "bigint" ? struct : addressOfArray(struct);
  const deleter = deleterOf(spec.versioned).address;
  writeStruct(spec, address, { managerCtx: BigInt(id), deleter });
  let end = release;
  if (kept instanceof Owner) {
    kept.hold();
    end = () => {
      kept.unhold();
      release?.();
    };
  }
  const made = new Export(id, struct, bytes, kept, end);
  exported.set(id, made);
  const owner = ownerAt(address, spec);
  owner.deleteHere(made);
  return owner;
}

/** What consumers may expect of fresh memory: a cache line, in bytes. */
const ALIGNMENT = 64n;

/**
 * Exports a copy: one block of native memory that the consumer's call of the
 * deleter frees from any thread, JavaScript not involved.
 *
 * @param spec What the struct is to say; its `data` is not looked at.
 * @param data The elements in C order.
 * @returns The owner of the struct, or `null` where there is no C library.
 * @throws {BufferError} `"copy"` when there is no memory for it.
 */
export function exportCopy(
  spec: Omit<ExportSpec, "data" | "byteOffset">,
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
  const full = { ...spec, data: dataAddress, byteOffset: 0n };
  writeStruct(full, address, { managerCtx: 0n, deleter: freeAddress });
  if (data.length > 0) writeAddress(dataAddress, data, data.length);
  return ownerAt(address, full);
}

let freeAddress: bigint | undefined;

function ownerAt(address: bigint, { versioned }: ExportSpec): Owner {
  const name = versioned ? "dltensor_versioned" : "dltensor";
  const owner = new Owner(pointerTo(address)!, name);
  note(owner);
  return owner;
}

/** The bytes of a struct with its shape and strides behind it. */
function structBytes(
  { versioned, shape }: Pick<ExportSpec, "versioned" | "shape">,
): number {
  return (versioned ? VERSIONED.size : MANAGED.size) +
    2 * axesBytes(shape.length);
}

/** Where structs are written before they go to native memory. */
const draft = new Uint8Array(VERSIONED.size + 2 * axesBytes(MAX_NDIM));
const draftView = new DataView(draft.buffer);

/** Writes a managed tensor to an address, its shape and strides behind it. */
function writeStruct(
  spec: ExportSpec,
  address: bigint,
  deleter: DeleterSpec,
): void {
  const { size, tensor } = spec.versioned ? VERSIONED : MANAGED;
  const { length: ndim } = spec.shape;
  const stridesAt = size + axesBytes(ndim);
  draft.fill(0, 0, size);
  if (spec.versioned) writeVersioned(draftView, 0, spec, deleter);
  else writeLegacy(draftView, 0, deleter);
  const toShape = ndim === 0 ? 0n : address + BigInt(size);
  const toStrides = ndim === 0 ? 0n : address + BigInt(stridesAt);
  writeTensor(draftView, tensor, spec, toShape, toStrides);
  writeAxes(draftView, size, spec.shape);
  writeAxes(draftView, stridesAt, spec.strides);
  writeAddress(address, draft, structBytes(spec));
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
    try {
      exported.get(Number(id))?.run();
    } catch (error) {
      // C cannot catch it.
      console.error("The release of memory threw:", error);
    }
  });
  return { callback, address: addressOf(callback.pointer) };
}

// At once where it is allowed, for the reason given in libc.ts.
if (hasPermission()) {
  deleterOf(false);
  deleterOf(true);
}
