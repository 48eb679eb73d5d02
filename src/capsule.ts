import { exportShared } from "../ffi/export.ts";
import {
  type Header,
  type ManagedName,
  readHeader,
  readTensorHeader,
} from "../ffi/header.ts";
import { Loan } from "../ffi/loan.ts";
import {
  addressOf as addressOfPointer,
  isPointer,
  pointerTo,
} from "../ffi/memory.ts";
import {
  checkPlace,
  claim,
  impossible,
  type KeptOpen,
  notAPointer,
  note,
  Owner,
  ownerOf,
} from "../ffi/owner.ts";
import { shapeTable, stridesTable } from "./axes.ts";
import { type Device, deviceName } from "./device.ts";
import { bytesOf, packingOf } from "./dtype/packing.ts";
import { describeDataType, type DType, dtypeByCode } from "./dtype/table.ts";
import {
  BufferError,
  checkFlag,
  checkOptions,
  describe,
  MODULE,
  ourClasses,
} from "./errors.ts";
import { describeShape, sizeOf } from "./layout.ts";
import { checkStruct } from "./struct/check.ts";
import { type Made, specOfMemory, specToLend } from "./struct/make.ts";
import type { Struct } from "./struct/types.ts";

/**
 * What a consumer asks of an exporter: the keyword arguments of the array
 * API's `__dlpack__`.
 *
 * @category C functions
 */
export interface DlpackRequest {
  /** The consumer's stream, for memory of a device that has streams. Default: not said. */
  stream?: number | bigint | null;
  /** The newest version that the consumer understands. Default: the legacy struct's. */
  maxVersion?: readonly [major: number, minor: number] | null;
  /** The device it wants the memory on: `[type, id]`. Default: where it is. */
  dlDevice?: readonly [type: number, id: number] | null;
  /** `true`: always a copy; `false`: never. Default: only where needed. */
  copy?: boolean | null;
}

/** What the method by {@linkcode MODULE} has promised since the first version that has it. */
const MODULE_ABI = 1;

/** A capsule, for what looks at it from another copy of this module. */
export interface OtherCapsule {
  /** As of {@linkcode DlpackCapsule}. */
  readonly name: string;
  /** As of {@linkcode DlpackCapsule}. */
  readonly pointer: Deno.PointerObject;
  /** As of {@linkcode DlpackCapsule}. */
  take(): Deno.PointerObject;
  /** As of {@linkcode DlpackCapsule}. */
  hold(): Disposable;
}

/** What a capsule or tensor says of itself to another copy of this module. */
export interface Introduction {
  /** What it can be asked for then. */
  readonly abi: number;
  /** What it is. */
  readonly kind: "capsule" | "tensor";
  /** The stream on which the memory is being written, if somebody said. */
  readonly stream: number | bigint | null;
  /** Whether a legacy struct may be written, which it cannot say. */
  readonly writable: boolean;
}

/**
 * The array API's protocol: anything with these two methods can be imported.
 *
 * @category C functions
 */
export interface DlpackExporter {
  /** Hands out the tensor, once for each call. */
  __dlpack__(request?: DlpackRequest): DlpackCapsule;
  /** Where the memory is: a `DLDeviceType` and an id. */
  __dlpack_device__(): readonly [type: number, id: number];
}

/**
 * What a capsule knows beside the struct.
 *
 * @category C functions
 */
export interface CapsuleOptions {
  /**
   * The stream on which the memory of a device is being written, numbered as in
   * the array API: for CUDA 1 is the legacy default stream and 2 the per-thread
   * one, for ROCm 0 is the default one; above 2 it is a handle, for OpenCL that
   * of the command queue, for oneAPI the address of a `sycl::queue`; -1 says that
   * nothing is to be waited for. Default: all that the device was given is waited
   * for, where the device can (CUDA and ROCm).
   */
  stream?: number | bigint;
  /**
   * Whether a legacy struct may be written to, which it cannot say. Default:
   * `false`, as in NumPy.
   */
  writable?: boolean;
}

/**
 * What {@linkcode DlpackCapsule.borrow} takes beside the struct.
 *
 * @category C functions
 */
export interface BorrowOptions extends CapsuleOptions {
  /**
   * What must live for as long as the memory is used: a `Tensor`,
   * `DlpackCapsule` or typed array, whose memory then stays, an array of these,
   * or any other object, which is not collected. Default: nothing.
   */
  keepAlive?: unknown;
}

/**
 * How {@linkcode DlpackCapsule.from} describes memory.
 *
 * @category C functions
 */
export interface MemoryOptions {
  /** The data type. */
  dtype: DType;
  /** The length of each axis. */
  shape: readonly (number | bigint)[];
  /** The step along each axis, in elements. Default: C order. */
  strides?: readonly (number | bigint)[];
  /**
   * The step along each axis in bytes, instead: a line size, a pitch. Each must
   * be a whole number of elements.
   */
  byteStrides?: readonly (number | bigint)[];
  /**
   * How many bytes the library says are there, from `data` on; of memory that a
   * negative stride goes back in, how many in all. Default: it is not checked.
   */
  byteLength?: number | bigint;
  /** Whether elements of fewer than 8 bits have a byte each. Default: `false`. */
  padded?: boolean;
  /** Where the memory is. Default: `{ type: "cpu", id: 0 }`. */
  device?: Device;
  /** Whether nobody must write to it. Default: `false`. */
  readOnly?: boolean;
  /** As of {@linkcode CapsuleOptions}. */
  stream?: number | bigint;
  /** As of {@linkcode BorrowOptions}. */
  keepAlive?: unknown;
  /**
   * Gives the memory back: is called once, when nobody uses it any more. It must
   * not refer to the capsule or to tensors of it, which would then never be
   * collected. A library that it calls must still be open: dispose of the tensor
   * before. Default: nothing is to be done.
   */
  release?: () => void;
}

let takeOwner: (capsule: DlpackCapsule) => Owner;
let seeOwner: (capsule: DlpackCapsule, action: string) => Owner;
let streamIn: (capsule: DlpackCapsule) => number | bigint | null;
let isWritableIn: (capsule: DlpackCapsule) => boolean;
let lendCapsule: (capsule: DlpackCapsule) => Loan;
let giveOwner: (capsule: DlpackCapsule, owner: Owner) => void;

/** What a capsule knows beside the struct, and what was made of it. */
class More {
  stream: number | bigint | null = null;
  isWritable = false;
  /** What the struct says, once somebody has asked. */
  struct: Struct | null = null;
  loan: Loan | null = null;
  lentBefore: unknown = null;
}

/** In the place of options: what is passed as the pointer is an owner. */
const OWNED = {} as CapsuleOptions;

/** What `structuredClone` and `postMessage` stumble over, and then show. */
const UNCLONEABLE = Symbol(
  "A DlpackCapsule: send the address of take(), which",
);

/**
 * Owns one managed tensor until somebody consumes it: what a PyCapsule is in
 * Python. It wraps the pointer that a native library returned.
 *
 * A pointer says nothing of what it points to, so the caller names the struct:
 * `"dltensor"` for a `DLManagedTensor*`, `"dltensor_versioned"` for a
 * `DLManagedTensorVersioned*`. From then on the capsule owns the struct: pass
 * it to {@linkcode fromDlpack}, hand it to another consumer with
 * {@linkcode DlpackCapsule.take | take}, or let it go, and the producer's
 * deleter runs exactly once.
 *
 * It also stands for memory of a device, which JavaScript cannot see: its
 * `dtype`, `shape` and `strides` can be read, and functions of libraries that
 * {@linkcode dlopen} opened take it, without the memory leaving the device.
 * `structuredClone` and `postMessage` throw.
 *
 * @example Wrap what a library returned
 * ```ts
 * import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * // The pointer, as a library's function returns it:
 * const pointer = Tensor.from(new Float32Array([1, 2, 3]))
 *   .__dlpack__({ maxVersion: [1, 3] }).take();
 *
 * const capsule = new DlpackCapsule(pointer, "dltensor_versioned");
 * assertEquals([capsule.dtype, ...capsule.shape], ["float32", 3]);
 * using t = fromDlpack(capsule);
 * assertEquals(t.toArray(), [1, 2, 3]);
 * ```
 *
 * @category C functions
 */
export class DlpackCapsule implements DlpackExporter, Disposable {
  // An own field, as the structured clone looks at nothing else.
  private readonly uncloneable = UNCLONEABLE;
  #owner: Owner | null;
  readonly #name: ManagedName;
  /** What is not known of most. */
  #more: More | null = null;

  static {
    ourClasses.add(DlpackCapsule);
    takeOwner = (capsule) => capsule.#consume("import");
    seeOwner = (capsule, action) => capsule.#unconsumed(action);
    streamIn = (capsule) => capsule.#more?.stream ?? null;
    isWritableIn = (capsule) => capsule.#more?.isWritable ?? false;
    lendCapsule = (capsule) => capsule.#lend();
    giveOwner = (capsule, owner) => capsule.#owner = owner;
  }

  /**
   * Takes ownership of a managed tensor.
   *
   * @param pointer What the library returned: a pointer, or its address.
   * @param name Which struct it is: `"dltensor"` for `DLManagedTensor`,
   * `"dltensor_versioned"` for `DLManagedTensorVersioned`.
   * @param options The stream on which the memory is being written, and whether
   * a legacy struct may be written to.
   * @throws {TypeError} When the pointer is NULL, not a pointer, or cannot be
   * that of a struct; the name is neither; or an option is of the wrong kind.
   * @throws {BufferError} `"consumed"` when another capsule or tensor is seen to
   * own the struct.
   * @throws {Deno.errors.NotCapable} Without full `--allow-ffi`.
   */
  constructor(
    pointer: Deno.PointerValue | bigint,
    name: "dltensor" | "dltensor_versioned",
    options?: CapsuleOptions,
  ) {
    if (name !== "dltensor" && name !== "dltensor_versioned") {
      throw new TypeError(
        `Cannot wrap a struct named ${describe(name)}: pass "dltensor" for a ` +
          'DLManagedTensor*, "dltensor_versioned" for a ' +
          "DLManagedTensorVersioned*",
      );
    }
    this.#name = name;
    if ((options as unknown) === OWNED) { // of capsuleOf()
      this.#owner = pointer as unknown as Owner;
      return;
    }
    if (options !== undefined) this.#set("DlpackCapsule", options);
    this.#owner = claim(checkPointer(pointer), name);
  }

  /**
   * Wraps a bare `DLTensor` that stays the library's own, for as long as the
   * library says that it is valid.
   *
   * What it says is copied, the memory is not: it may be written to only if
   * `writable` says so.
   *
   * @param tensor The pointer, or its address.
   * @param options What must live meanwhile, whether the memory may be written
   * to, and the stream on which it is being written.
   * @returns A capsule of a versioned struct of this module.
   * @throws {TypeError} When the pointer is NULL, or no pointer, or an option is
   * of the wrong kind.
   * @throws {BufferError} `"shape"` when its axes make no sense.
   *
   * @example Look at a tensor that a library keeps
   * ```ts
   * import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * // Stands for the library's own: a versioned struct has a DLTensor at byte 32.
   * const theirs = Tensor.from(new Float32Array([1, 2, 3]))
   *   .__dlpack__({ maxVersion: [1, 3] });
   * const pointer = Deno.UnsafePointer.offset(theirs.pointer, 32)!;
   *
   * const capsule = DlpackCapsule.borrow(pointer, { keepAlive: theirs });
   * using t = fromDlpack(capsule);
   * assertEquals([t.get(2), t.readOnly], [3, true]);
   * ```
   */
  static borrow(
    tensor: Deno.PointerObject | bigint,
    options: BorrowOptions = {},
  ): DlpackCapsule {
    checkOptions("DlpackCapsule.borrow()", options);
    const { keepAlive, writable, stream } = options;
    checkWritable(writable);
    const pointer = checkPointer(tensor);
    checkPlace(pointer);
    const header = readTensorHeader(pointer);
    const { spec, bytes } = specToLend(header, "dltensor_versioned");
    const made = { spec: { ...spec, readOnly: writable !== true }, bytes };
    return capsuleOfMemory(made, stream, keepAlive, null);
  }

  /**
   * Wraps memory that came without a struct: of `cudaMalloc`, a plane of a video
   * frame, a matrix of a C library.
   *
   * When it throws, nothing was taken, and `release` is not called.
   *
   * @param data The address of element [0, …, 0], or a handle of the device. NULL
   * is allowed where there are no elements.
   * @param options What the memory is, and how to give it back.
   * @returns A capsule of a versioned struct of this module, whose deleter is
   * `release`.
   * @throws {TypeError} When something is of the wrong kind, or `data` is NULL.
   * @throws {RangeError} When the numbers cannot be right: an element ends
   * beyond `byteLength`, or a byte stride is no whole number of elements.
   *
   * @example A matrix whose rows are padded
   * ```ts
   * import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const memory = new Float32Array([1, 2, 3, 0, 4, 5, 6, 0]); // a library's
   * const capsule = DlpackCapsule.from(Deno.UnsafePointer.of(memory), {
   *   dtype: "float32",
   *   shape: [2, 3],
   *   byteStrides: [16, 4],
   *   byteLength: memory.byteLength,
   *   keepAlive: memory,
   *   release: () => console.log("given back"),
   * });
   * using t = fromDlpack(capsule);
   * assertEquals(t.toArray(), [[1, 2, 3], [4, 5, 6]]);
   * ```
   */
  static from(
    data: Deno.PointerValue | bigint,
    options: MemoryOptions,
  ): DlpackCapsule {
    checkOptions("DlpackCapsule.from()", options);
    const { keepAlive, release, stream } = options;
    checkFlag("padded", options.padded);
    checkFlag("readOnly", options.readOnly);
    if (release !== undefined && typeof release !== "function") {
      throw new TypeError(
        `The option "release" must be a function, not ${describe(release)}`,
      );
    }
    const address = data === null || data === 0n
      ? 0n
      : addressAt(checkPointer(data));
    const made = specOfMemory(address, options);
    return capsuleOfMemory(made, stream, keepAlive, release ?? null);
  }

  /**
   * Says more of the memory, before it is consumed.
   *
   * @param options What the constructor takes.
   * @returns This capsule.
   * @throws {TypeError} When an option is of the wrong kind.
   * @throws {BufferError} `"consumed"` when it is not the capsule's any more.
   */
  with(options: CapsuleOptions): this {
    this.#unconsumed("change");
    this.#set("with()", options);
    // A callee may have kept the struct that it was lent before.
    const more = this.#more!;
    if (more.loan !== null) more.lentBefore = [more.lentBefore, more.loan];
    more.struct = more.loan = null;
    return this;
  }

  #set(of: string, options: CapsuleOptions): void {
    checkOptions(of, options);
    const stream = checkStream(options.stream);
    const writable = checkWritable(options.writable);
    const more = this.#more ??= new More();
    if (stream !== undefined) more.stream = stream;
    if (writable !== undefined) more.isWritable = writable;
  }

  /** The struct's name; `used_…` once somebody has consumed it, or it was disposed. */
  get name():
    | "dltensor"
    | "dltensor_versioned"
    | "used_dltensor"
    | "used_dltensor_versioned" {
    return this.#owner === null ? `used_${this.#name}` : this.#name;
  }

  /**
   * The struct. It belongs to the capsule: to own it, call
   * {@linkcode DlpackCapsule.take | take}.
   *
   * @throws {BufferError} `"consumed"` when it is not the capsule's any more.
   */
  get pointer(): Deno.PointerObject {
    return this.#unconsumed("read the pointer of").pointer;
  }

  /**
   * The data type's name.
   *
   * @throws {BufferError} As {@linkcode fromDlpack} would, whatever the device:
   * when the struct is bad, or this module has no such dtype. The capsule stays as
   * it is.
   */
  get dtype(): DType {
    return this.#look().info.name;
  }

  /**
   * The length of each axis; lanes are the last one. A frozen array.
   *
   * @throws {BufferError} As `dtype` does.
   */
  get shape(): readonly number[] {
    return shapeTable.shown(this.#look().layout.shape);
  }

  /**
   * The step along each axis, in elements. A frozen array.
   *
   * @throws {BufferError} As `dtype` does.
   */
  get strides(): readonly number[] {
    return stridesTable.shown(this.#look().layout.strides);
  }

  /**
   * Where the memory is.
   *
   * @throws {BufferError} As `dtype` does.
   */
  get device(): Device {
    const { deviceType, deviceId } = this.#look();
    return { type: deviceName(deviceType)!, id: deviceId };
  }

  /**
   * Whether the memory must not be written to: always so of a legacy struct,
   * unless the option `writable` says otherwise.
   *
   * @throws {BufferError} As `dtype` does.
   */
  get readOnly(): boolean {
    return this.#look().readOnly;
  }

  /**
   * The bytes of all elements, packed ones rounded up.
   *
   * @throws {BufferError} As `dtype` does.
   */
  get nbytes(): number {
    const { info, isPacked, layout } = this.#look();
    return bytesOf(packingOf(info, isPacked), sizeOf(layout.shape));
  }

  #look(): Struct {
    const owner = this.#unconsumed("look into");
    const more = this.#more ??= new More();
    return more.struct ??= checkStruct(
      owner.peek(),
      this.#name,
      more.isWritable,
    );
  }

  #lend(): Loan {
    const owner = this.#unconsumed("lend");
    const more = this.#more ??= new More();
    if (more.loan === null) {
      const { spec } = specToLend(owner.peek(), this.#name);
      const readOnly = this.#name === "dltensor"
        ? !more.isWritable
        : spec.readOnly;
      more.loan = new Loan({ ...spec, readOnly }, owner, owner.caches);
    }
    return more.loan;
  }

  /**
   * Keeps the memory, and the structs that functions were lent, until the result
   * is disposed, over `dispose` and garbage collection: for native code that goes
   * on using them after a call. At exit they are left alone.
   *
   * @returns What ends it.
   * @throws {BufferError} `"consumed"` when it is not the capsule's any more.
   */
  hold(): Disposable {
    const owner = this.#unconsumed("hold");
    owner.pin();
    return new Hold(this, () => owner.unpin());
  }

  /**
   * Hands the struct to a native consumer, which must call its deleter. The
   * capsule becomes used. If it came out of a library that {@linkcode dlopen}
   * opened, that one stays open for good: the deleter is its code.
   *
   * @returns The struct.
   * @throws {BufferError} `"consumed"` when it is not the capsule's any more, or
   * its memory is being used.
   *
   * @example Hand a tensor to a Worker
   * ```ts
   * import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const t = fromDlpack(Tensor.from(new Float32Array([1, 2])));
   * const capsule = t.release();
   * const { name } = capsule;
   * const address = Deno.UnsafePointer.value(capsule.take());
   *
   * // postMessage({ address, name }), and in the Worker:
   * if (name !== "dltensor_versioned") throw new Error("Unexpected");
   * using there = fromDlpack(new DlpackCapsule(address, name));
   * assertEquals(there.toArray(), [1, 2]);
   * ```
   */
  take(): Deno.PointerObject {
    return moveAway(this);
  }

  /**
   * The capsule itself: it can be consumed once, and neither copies nor moves
   * anything. {@linkcode fromDlpack} does that.
   *
   * @param request Not looked at: the consumer checks what it gets.
   * @returns This capsule.
   * @throws {BufferError} `"consumed"` when it was consumed before.
   */
  __dlpack__(request?: DlpackRequest): DlpackCapsule;
  __dlpack__(): DlpackCapsule {
    this.#unconsumed("import");
    return this;
  }

  /**
   * Where the struct says that the memory is.
   *
   * @returns A `DLDeviceType` and an id.
   * @throws {BufferError} `"consumed"` when it was consumed before,
   * `"version"` when it is not the struct it was said to be, or of another
   * major version.
   */
  __dlpack_device__(): readonly [type: number, id: number] {
    const header = this.#unconsumed("read the device of").peek();
    if (this.#name === "dltensor_versioned" && header.major !== 1) {
      throw new BufferError(
        "version",
        `Cannot read the device of a DLPack ${header.major}.${header.minor} ` +
          "struct: this module knows major version 1",
      );
    }
    return [header.deviceType, header.deviceId];
  }

  /** Runs the deleter, unless somebody consumed the struct. Idempotent. */
  [Symbol.dispose](): void {
    const owner = this.#owner;
    this.#owner = null;
    owner?.release();
  }

  /**
   * What another copy of this module asks first.
   *
   * @ignore
   */
  [MODULE](): Introduction {
    const { stream, isWritable: writable } = this.#more ?? new More();
    return { abi: MODULE_ABI, kind: "capsule", stream, writable };
  }

  /** What `console.log` shows: the struct, and what it says. */
  [Symbol.for("Deno.customInspect")](): string {
    const head = `DlpackCapsule ${this.name}`;
    if (this.#owner === null) return head;
    try {
      return `${head}, ${describeCapsule(this.#owner.peek(), this.#name)}`;
    } catch {
      return head;
    }
  }

  #unconsumed(action: string): Owner {
    if (this.#owner !== null) return this.#owner;
    throw new BufferError(
      "consumed",
      `Cannot ${action} a capsule that was used before: a managed tensor has ` +
        "one consumer; ask the producer for another",
    );
  }

  #consume(action: string): Owner {
    const owner = this.#unconsumed(action);
    this.#owner = null;
    return owner;
  }
}

/** Keeps something from being collected until it is disposed. */
export class Hold implements Disposable {
  /** What the script holds, even if it has lost the hold itself. */
  static readonly #open = new Set<Hold>();
  #kept: unknown;
  #end: (() => void) | null;

  /**
   * @param kept What must not be collected: with a tensor or capsule the structs
   * that it has lent.
   * @param end What is to be done at the end.
   */
  constructor(kept: unknown, end: () => void) {
    this.#kept = kept;
    this.#end = end;
    Hold.#open.add(this);
  }

  [Symbol.dispose](): void {
    Hold.#open.delete(this);
    const end = this.#end;
    this.#kept = this.#end = null;
    end?.();
  }
}

/** A capsule of a struct of ours, over memory that came without one. */
function capsuleOfMemory(
  { spec, bytes }: Made,
  stream: number | bigint | undefined,
  keepAlive: unknown,
  release: (() => void) | null,
): DlpackCapsule {
  checkStream(stream);
  const held = holdOf(keepAlive);
  const end = held === null ? release : () => {
    try {
      release?.();
    } finally {
      held[Symbol.dispose]();
    }
  };
  const owner = exportShared({ ...spec, versioned: true }, bytes, null, end);
  owner.keepAlive(keepAlive);
  return capsuleOf(owner, stream === undefined ? undefined : { stream });
}

/**
 * For other files of this module: holds the memory of a tensor or capsule, of
 * whatever copy of this module; `null` for what is neither.
 */
export function holdOf(value: unknown): Disposable | null {
  const introduction = introductionOf(value);
  if (introduction === null) return holdMemory(value);
  checkAbi(introduction);
  return (value as { hold(): Disposable }).hold();
}

/** Holds what a library's memory is seen by: typed arrays, also in arrays. */
function holdMemory(value: unknown): Disposable | null {
  if (Array.isArray(value)) {
    using holds = new DisposableStack();
    for (const one of value) holds.use(holdOf(one));
    return holds.move();
  }
  const buffer = ArrayBuffer.isView(value) ? value.buffer : value;
  const owner = buffer instanceof ArrayBuffer ? ownerOf(buffer) : undefined;
  if (owner === undefined) return null;
  owner.pin();
  return new Hold(value, () => owner.unpin());
}

/** What `console.log` shows of a struct, also where it is odd. */
function describeCapsule(header: Header, name: ManagedName): string {
  const { deviceType, deviceId, readOnly } = header;
  const { spec } = specToLend(header, name);
  const { code, bits, lanes, shape, strides } = spec;
  const info = lanes === 1 ? dtypeByCode(code, bits) : undefined;
  const dtype = info?.name ?? describeDataType(code, bits, lanes);
  const device = deviceName(deviceType) ?? `device type ${deviceType}`;
  return `${dtype} ${describeShape(shape)}, strides ` +
    `${describeShape(strides)}, ${device}:${deviceId}` +
    (readOnly && name === "dltensor_versioned" ? ", read-only" : "");
}

/** For other files of this module: an owner's struct in a capsule. */
export function capsuleOf(
  owner: Owner,
  options?: CapsuleOptions,
): DlpackCapsule {
  const capsule = new DlpackCapsule(owner as never, owner.name, OWNED);
  return options === undefined ? capsule : capsule.with(options);
}

/** For other files of this module: the structs that a capsule lends. */
export function loanOfCapsule(capsule: DlpackCapsule): Loan {
  return lendCapsule(capsule);
}

/** For other files of this module: whether a legacy struct may be written to. */
export function isWritable(capsule: DlpackCapsule): boolean {
  return isWritableIn(capsule);
}

/**
 * For other files of this module: the struct of a capsule for a consumer
 * outside, or for its own library if it is that one.
 *
 * @param library Where it goes.
 */
export function moveAway(
  capsule: DlpackCapsule,
  library: KeptOpen | null = null,
): Deno.PointerObject {
  const owner = takeOwner(capsule);
  if (owner.liesInOurs) return moveCopyOf(owner);
  let pointer: Deno.PointerObject;
  try {
    pointer = owner.moveAway();
  } catch (error) {
    giveOwner(capsule, owner);
    throw error;
  }
  // Back where it came from: a library need not stay open for itself.
  if (library !== null && owner.library === library) library.release();
  return pointer;
}

/**
 * A struct that lies in memory of ours is not given away: its consumer gets an
 * export, whose deleter runs that of the struct and frees its memory.
 */
function moveCopyOf(owner: Owner): Deno.PointerObject {
  const { name } = owner;
  const { spec, bytes } = specToLend(owner.header(), name);
  const versioned = name === "dltensor_versioned";
  const made = exportShared({ ...spec, versioned }, bytes, owner);
  owner.release();
  return made.moveAway();
}

/**
 * For other files of this module: another struct over the memory of a capsule,
 * which stays unconsumed.
 */
export function exportOf(capsule: DlpackCapsule): Owner {
  const owner = seeOwner(capsule, "lend");
  const { spec, bytes } = specToLend(owner.peek(), owner.name);
  return exportShared({ ...spec, versioned: true }, bytes, owner);
}

/** For other files of this module: takes the owner out of a capsule. */
export function consume(capsule: DlpackCapsule): Owner {
  return takeOwner(capsule);
}

/**
 * For other files of this module: the owner that a capsule keeps.
 *
 * @param action What is to be done with it, for the message.
 * @throws {BufferError} `"consumed"` when it was used before.
 */
export function ownerIn(capsule: DlpackCapsule, action = "import"): Owner {
  return seeOwner(capsule, action);
}

/** For other files of this module: what a tensor says of itself to other copies. */
export function introduceTensor(writable: boolean): Introduction {
  return { abi: MODULE_ABI, kind: "tensor", stream: null, writable };
}

/**
 * For other files of this module: whether a value is a capsule or tensor of
 * another copy of it.
 *
 * @throws {TypeError} When that copy is of a version that this one cannot use.
 */
export function isOfOtherCopy(
  value: unknown,
  kind: Introduction["kind"],
): value is OtherCapsule {
  const introduction = introductionOf(value);
  if (introduction === null) return false;
  checkAbi(introduction);
  return introduction.kind === kind;
}

function checkAbi({ abi, kind }: Introduction): void {
  if (abi === MODULE_ABI) return;
  throw new TypeError(
    `Cannot use a ${kind} of another copy of @dlpack/deno: that one speaks ` +
      `version ${String(abi)} of what copies exchange, this one version ` +
      `${MODULE_ABI}; have the program import one version of the module`,
  );
}

function introductionOf(value: unknown): Introduction | null {
  if (typeof value !== "object" || value === null) return null;
  const introduce = (value as { [MODULE]?: unknown })[MODULE];
  return typeof introduce === "function" ? introduce.call(value) : null;
}

/**
 * For other files of this module: takes over what a capsule of another copy has.
 *
 * @throws {BufferError} `"consumed"` when it was used before.
 */
export function adopt(other: OtherCapsule): DlpackCapsule {
  const name = other.name as ManagedName;
  const introduction = introductionOf(other);
  const pointer = other.take();
  const writable = introduction?.writable === true;
  const stream = introduction?.stream ?? null;
  const options = stream === null ? { writable } : { writable, stream };
  return new DlpackCapsule(pointer, name, options);
}

/**
 * For other files of this module: the structs that a capsule of another copy
 * lends, for one call.
 */
export function loanOfOther(other: OtherCapsule): Loan {
  const name = other.name as ManagedName;
  const header = readHeader(other.pointer, name);
  if (header === null) throw impossible(name);
  return new Loan(specToLend(header, name).spec, null);
}

/** What a capsule says before it is consumed. */
export interface Look {
  /** Its struct. */
  readonly header: Header;
  /** Which struct that is. */
  readonly name: ManagedName;
  /** Whether a legacy struct may be written to. */
  readonly writable: boolean;
  /** What is to be waited for. */
  readonly stream: number | bigint | null;
}

/**
 * For other files of this module: looks into a capsule, of whatever copy of it.
 *
 * @param action What is to be done with it, for the message.
 * @throws {BufferError} `"consumed"` when it was used before.
 */
export function lookInto(
  capsule: DlpackCapsule | OtherCapsule,
  action: string,
): Look {
  if (capsule instanceof DlpackCapsule) {
    const owner = ownerIn(capsule, action);
    return {
      header: owner.peek(),
      name: owner.name,
      writable: isWritable(capsule),
      stream: streamOf(capsule),
    };
  }
  const { pointer } = capsule; // of a used one, that throws
  const name = capsule.name as ManagedName;
  const header = readHeader(pointer, name);
  if (header === null) throw impossible(name);
  const introduction = introductionOf(capsule);
  return {
    header,
    name,
    writable: introduction?.writable === true,
    stream: introduction?.stream ?? null,
  };
}

/** For other files of this module: what is to be waited for. */
export function streamOf(capsule: DlpackCapsule): number | bigint | null {
  return streamIn(capsule);
}

/** For other files of this module: an owner's struct in a capsule again. */
export function giveAway(owner: Owner): DlpackCapsule {
  const { name, library } = owner;
  const moved = new Owner(owner.moveAway(), name);
  note(moved);
  if (library !== null) {
    moved.keepOpen(library);
    library.release(); // what the old owner left behind
  }
  return capsuleOf(moved);
}

function checkWritable(writable: unknown): boolean | undefined {
  return checkFlag("writable", writable);
}

function checkStream(
  stream: number | bigint | undefined,
): number | bigint | undefined {
  if (stream === undefined) return undefined;
  const isInteger = typeof stream === "bigint" || Number.isSafeInteger(stream);
  if (isInteger && stream >= -1 && stream < 2n ** 64n) return stream;
  throw new TypeError(
    `The option "stream" must be an integer from -1 on, not ` +
      describe(stream),
  );
}

/** Where a pointer points to. */
function addressAt(pointer: Deno.PointerObject): bigint {
  if (!isPointer(pointer)) throw notAPointer(pointer);
  return addressOfPointer(pointer);
}

/** What may be a pointer: to find out costs a call into Deno. */
function checkPointer(
  pointer: Deno.PointerValue | bigint,
): Deno.PointerObject {
  if (typeof pointer === "bigint") {
    const made = pointerTo(pointer);
    if (made !== null) return made;
  } else if (
    typeof pointer === "object" && pointer !== null &&
    !(pointer instanceof Object)
  ) {
    return pointer;
  }
  if (pointer === null || pointer === 0n) {
    throw new TypeError(
      "Cannot wrap NULL: the library returned no tensor",
    );
  }
  throw notAPointer(pointer);
}
