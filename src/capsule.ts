import type { ManagedName } from "../ffi/header.ts";
import { pointerTo } from "../ffi/memory.ts";
import { claim, Owner } from "../ffi/owner.ts";
import { BufferError, checkOptions, describe } from "./errors.ts";

/**
 * What a consumer asks of an exporter: the keyword arguments of the array
 * API's `__dlpack__`.
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

/** What another copy of this module in the program knows a capsule or tensor by. */
const MODULE = Symbol.for("@dlpack/deno");
/** What that symbol's method has promised since the first version that has it. */
const MODULE_ABI = 1;

/** A capsule, for what looks at it from another copy of this module. */
export interface OtherCapsule {
  /** As of {@linkcode DlpackCapsule}. */
  readonly name: string;
  /** As of {@linkcode DlpackCapsule}. */
  readonly pointer: Deno.PointerObject;
  /** As of {@linkcode DlpackCapsule}. */
  take(): Deno.PointerObject;
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

/** The array API's protocol: anything with these two methods can be imported. */
export interface DlpackExporter {
  /** Hands out the tensor, once for each call. */
  __dlpack__(request?: DlpackRequest): DlpackCapsule;
  /** Where the memory is: a `DLDeviceType` and an id. */
  __dlpack_device__(): readonly [type: number, id: number];
}

/** What `structuredClone` and `postMessage` stumble over, and then show. */
const UNCLONEABLE = Symbol(
  "A DlpackCapsule: send the address of take(), which",
);

let takeOwner: (capsule: DlpackCapsule) => Owner;
let seeOwner: (capsule: DlpackCapsule) => Owner;
let streamIn: (capsule: DlpackCapsule) => number | bigint | null;

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
 * @example Wrap what a library returned
 * ```ts
 * import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * // The pointer, as a library's function returns it:
 * const pointer = Tensor.from(new Float32Array([1, 2, 3]))
 *   .__dlpack__({ maxVersion: [1, 3] }).take();
 *
 * using t = fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
 * assertEquals(t.toArray(), [1, 2, 3]);
 * ```
 */
export class DlpackCapsule implements DlpackExporter, Disposable {
  // An own field, as the structured clone looks at nothing else.
  private readonly uncloneable = UNCLONEABLE;
  #owner: Owner | null;
  readonly #name: ManagedName;
  readonly #stream: number | bigint | null;

  static {
    takeOwner = (capsule) => capsule.#consume("import");
    seeOwner = (capsule) => capsule.#unconsumed("import");
    streamIn = (capsule) => capsule.#stream;
  }

  /**
   * Takes ownership of a managed tensor.
   *
   * @param pointer What the library returned: a pointer, or its address.
   * @param name Which struct it is: `"dltensor"` for `DLManagedTensor`,
   * `"dltensor_versioned"` for `DLManagedTensorVersioned`.
   * @param options The `stream` on which the memory of a device is being
   * written, numbered as in the array API: for CUDA 1 is the legacy default
   * stream and 2 the per-thread one, for ROCm 0 the default one; above 2 it is
   * a handle, for OpenCL that of the command queue; -1 says that nothing is to
   * be waited for. Without it everything that the device was given is waited
   * for, where the device can (CUDA and ROCm).
   * @throws {TypeError} When the pointer is NULL, not a pointer, or cannot be
   * that of a struct; the name is neither; or the stream is no integer from -1
   * on.
   * @throws {BufferError} `"consumed"` when another capsule or tensor is seen to
   * own the struct.
   * @throws {Deno.errors.NotCapable} Without full `--allow-ffi`.
   */
  constructor(
    pointer: Deno.PointerValue | bigint,
    name: "dltensor" | "dltensor_versioned",
    options?: { stream?: number | bigint },
  ) {
    if (name !== "dltensor" && name !== "dltensor_versioned") {
      throw new TypeError(
        `Cannot wrap a struct named ${describe(name)}: pass "dltensor" for a ` +
          'DLManagedTensor*, "dltensor_versioned" for a ' +
          "DLManagedTensorVersioned*",
      );
    }
    this.#name = name;
    if (options !== undefined) checkOptions("DlpackCapsule", options);
    this.#stream = options === undefined ? null : checkStream(options.stream);
    this.#owner = (pointer as unknown) instanceof Owner
      ? pointer as unknown as Owner // of capsuleOf()
      : claim(checkPointer(pointer), name);
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
   * Hands the struct to a native consumer, which must call its deleter. The
   * capsule becomes used. If it came out of a library that {@linkcode dlopen}
   * opened, that one stays open for good: the deleter is its code.
   *
   * @returns The struct.
   * @throws {BufferError} `"consumed"` when it is not the capsule's any more.
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
    return this.#consume("take").moveAway();
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
    const header = this.#unconsumed("read the device of").header();
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
    const stream = this.#stream;
    return { abi: MODULE_ABI, kind: "capsule", stream, writable: false };
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

/** For other files of this module: an owner's struct in a capsule. */
export function capsuleOf(owner: Owner): DlpackCapsule {
  return new DlpackCapsule(owner as never, owner.name);
}

/** For other files of this module: takes the owner out of a capsule. */
export function consume(capsule: DlpackCapsule): Owner {
  return takeOwner(capsule);
}

/** For other files of this module: the owner that a capsule keeps. */
export function ownerIn(capsule: DlpackCapsule): Owner {
  return seeOwner(capsule);
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
  const { abi } = introduction;
  if (abi !== MODULE_ABI) {
    throw new TypeError(
      `Cannot use a ${kind} of another copy of @dlpack/deno: that one speaks ` +
        `version ${String(abi)} of what copies exchange, this one version ` +
        `${MODULE_ABI}; have the program import one version of the module`,
    );
  }
  return introduction.kind === kind;
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
  const pointer = other.take();
  const stream = introductionOf(other)?.stream ?? null;
  return new DlpackCapsule(pointer, name, stream === null ? {} : { stream });
}

/** For other files of this module: what is to be waited for. */
export function streamOf(capsule: DlpackCapsule): number | bigint | null {
  return streamIn(capsule);
}

/** For other files of this module: an owner's struct in a capsule again. */
export function giveAway(owner: Owner): DlpackCapsule {
  const { name, library } = owner;
  const moved = new Owner(owner.moveAway(), name);
  if (library !== null) {
    moved.keepOpen(library);
    library.release(); // what the old owner left behind
  }
  return capsuleOf(moved);
}

function checkStream(
  stream: number | bigint | undefined,
): number | bigint | null {
  if (stream === undefined) return null;
  const isInteger = typeof stream === "bigint" || Number.isSafeInteger(stream);
  if (isInteger && stream >= -1 && stream < 2n ** 64n) return stream;
  throw new TypeError(
    `The option "stream" must be an integer from -1 on, not ` +
      describe(stream),
  );
}

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
  throw new TypeError(
    `Cannot wrap ${describe(pointer)}: pass the Deno.PointerObject, or the ` +
      "address as a bigint, of a managed tensor",
  );
}
