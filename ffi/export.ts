/**
 * Exports: managed tensors of ours, for consumers of memory.
 *
 * @module
 */

import { BufferError } from "../src/errors.ts";
import { MANAGED, MAX_NDIM, VERSIONED } from "./abi.ts";
import { hasPermission, libc } from "./libc.ts";
import { addressOf, addressOfArray, writeAddress } from "./memory.ts";
import { afterExit, type DeleterHere, Owner } from "./owner.ts";
import {
  axesBytes,
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

/** An export: kept until the memory is given back. */
class Export implements DeleterHere {
  readonly #id: number;
  readonly #versioned: boolean;
  /** The struct: the address of a block of the C library, or memory of ours. */
  readonly #struct: bigint | Uint8Array<ArrayBuffer>;
  /** The bytes of its elements. */
  readonly #bytes: number;
  /** What gives the memory back, or is the memory. */
  #kept: Owner | ArrayBufferView | null;
  #release: (() => void) | null;
  /** What else must not be collected. */
  #keptToo: unknown;
  #isOut = false;

  constructor(
    id: number,
    versioned: boolean,
    struct: bigint | Uint8Array<ArrayBuffer>,
    bytes: number,
    kept: Owner | ArrayBufferView | null,
    release: (() => void) | null,
  ) {
    this.#id = id;
    this.#versioned = versioned;
    this.#struct = struct;
    this.#bytes = bytes;
    this.#kept = kept;
    this.#release = release;
  }

  /** A consumer outside of this module has it from here on. */
  moved(kept: unknown): void {
    if (!outlivesUs) {
      outlivesUs = true;
      afterExit(outlive);
    }
    this.#keptToo = kept;
    this.#isOut = true;
    out.set(this.#id, this);
    bytesOut += this.#bytes;
  }

  /**
   * Nobody will be here to be told: from here on its deleter is C, which frees the
   * struct. Consumers read it from there when they call it.
   */
  outlive(): void {
    const struct = this.#struct;
    const at = this.#versioned ? VERSIONED.deleter : MANAGED.deleter;
    const bytes = new BigUint64Array([
      typeof struct === "bigint" ? addressOfFree() : 0n,
    ]);
    const address = typeof struct === "bigint"
      ? struct
      : addressOfArray(struct);
    writeAddress(address + BigInt(at), new Uint8Array(bytes.buffer), 8n);
  }

  run(): void {
    if (this.#isOut) {
      if (!out.delete(this.#id)) return;
      bytesOut -= this.#bytes;
    }
    if (typeof this.#struct === "bigint") libc()?.free(this.#struct);
    const kept = this.#kept;
    const release = this.#release;
    // Whoever still refers to this must not keep more.
    this.#kept = this.#release = this.#keptToo = null;
    if (kept instanceof Owner) kept.unhold();
    release?.();
  }
}

let outlivesUs = false;

/** At exit: what consumers still have. */
function outlive(): void {
  for (const one of out.values()) one.outlive();
}

let lastId = 0;

/** Those that consumers outside of this module have, by `manager_ctx`. */
const out = new Map<number, Export>();
/** The bytes of their elements. */
let bytesOut = 0;

/** The shared exports that consumers still hold, and the bytes of their elements. */
export function exportsOut(): { count: number; bytes: number } {
  return { count: out.size, bytes: bytesOut };
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
  const length = lengthOf(spec);
  const block = libc()?.malloc(length) ?? 0n;
  const struct = block === 0n ? new Uint8Array(Number(length)) : block;
  const address = typeof struct === "bigint" ? struct : addressOfArray(struct);
  const deleter = deleterOf(spec.versioned).address;
  writeStruct(spec, length, spec.data, address, id, deleter);
  if (kept instanceof Owner) kept.hold();
  const owner = ownerAt(address, spec);
  owner.deleteHere(
    new Export(id, spec.versioned, struct, bytes, kept, release),
  );
  return owner;
}

/** Frees a copy that never left this module, without the way through its struct. */
const freeHere: DeleterHere = {
  // From here on the consumer calls `free`, of which nobody tells.
  moved(): void {},
  run(place): void {
    libc()?.free(typeof place === "bigint" ? place : addressOf(place));
  },
};

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
  spec: Omit<ExportSpec, "data">,
  data: ArrayBufferView,
): Owner | null {
  const made = allocateExport(spec, BigInt(data.byteLength));
  if (made !== null && data.byteLength > 0) {
    libc()!.copyToAddress(
      made.data,
      data as BufferSource,
      BigInt(data.byteLength),
    );
  }
  return made?.owner ?? null;
}

/**
 * The same with elements that are not set, for whoever is going to write them.
 *
 * @param bytes Of the elements.
 */
export function exportEmpty(
  spec: Omit<ExportSpec, "data">,
  bytes: number,
): Owner | null {
  return allocateExport(spec, BigInt(bytes))?.owner ?? null;
}

/** One block of native memory: the struct, then the elements. */
function allocateExport(
  spec: Omit<ExportSpec, "data">,
  dataLength: bigint,
): { readonly owner: Owner; readonly data: bigint } | null {
  const c = libc();
  if (c === null) return null;
  const length = lengthOf(spec);
  const bytes = length + dataLength + ALIGNMENT;
  const address = c.malloc(bytes);
  if (address === 0n) {
    throw new BufferError(
      "copy",
      `Cannot export a copy: there is no memory for ${bytes} bytes`,
    );
  }
  const end = address + length;
  const data = dataLength === 0n
    ? 0n
    : end + (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT;
  // The struct is the start of the block, so its deleter is `free`.
  // Not 0: Paddle calls no deleter of a struct whose manager_ctx is NULL.
  writeStruct(spec, length, data, address, 1, addressOfFree());
  const owner = ownerAt(address, spec);
  owner.deleteHere(freeHere);
  return { owner, data };
}

let freeAddress: bigint | undefined;

function addressOfFree(): bigint {
  return freeAddress ??= addressOf(libc()!.freePointer as Deno.PointerObject);
}

function ownerAt(
  address: bigint,
  { versioned }: Pick<ExportSpec, "versioned">,
): Owner {
  return new Owner(address, versioned ? "dltensor_versioned" : "dltensor");
}

/** Bytes by the number of axes, as BigInts: to make one takes longer than to call C. */
function byAxes(bytes: (ndim: number) => number): readonly bigint[] {
  return Array.from({ length: MAX_NDIM + 1 }, (_, n) => BigInt(bytes(n)));
}

/** Of lengths or strides. */
const axesLength = byAxes(axesBytes);
/** Of a struct with both behind it. */
const versionedLength = byAxes((n) => VERSIONED.size + 2 * axesBytes(n));
const legacyLength = byAxes((n) => MANAGED.size + 2 * axesBytes(n));

function lengthOf(
  { versioned, shape }: Pick<ExportSpec, "versioned" | "shape">,
): bigint {
  return (versioned ? versionedLength : legacyLength)[shape.length]!;
}

/** Where structs are written before they go to native memory. */
const draft = new Uint8Array(VERSIONED.size + 2 * axesBytes(MAX_NDIM));
const draftView = new DataView(draft.buffer);

/**
 * Writes a managed tensor to an address, its shape and strides behind it.
 *
 * @param length The bytes of all that.
 */
function writeStruct(
  spec: Omit<ExportSpec, "data">,
  length: bigint,
  data: bigint,
  address: bigint,
  managerCtx: number,
  deleter: bigint,
): void {
  const { size, tensor } = spec.versioned ? VERSIONED : MANAGED;
  const { length: ndim } = spec.shape;
  const stridesAt = size + axesBytes(ndim);
  if (spec.versioned) writeVersioned(draftView, 0, spec, managerCtx, deleter);
  else writeLegacy(draftView, 0, managerCtx, deleter);
  const toShape = ndim === 0
    ? 0n
    : address + (spec.versioned ? versionedLength : legacyLength)[0]!;
  const toStrides = ndim === 0 ? 0n : toShape + axesLength[ndim]!;
  writeTensor(draftView, tensor, spec, data, toShape, toStrides);
  writeAxes(draftView, size, spec.shape);
  writeAxes(draftView, stridesAt, spec.strides);
  writeAddress(address, draft, length);
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
      out.get(Number(id))?.run();
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
