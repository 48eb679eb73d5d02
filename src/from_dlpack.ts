import { VERSION } from "../ffi/abi.ts";
import { runtimeOf } from "../ffi/devices/registry.ts";
import type { DeviceMemory } from "../ffi/devices/runtime.ts";
import type { Owner } from "../ffi/owner.ts";
import {
  consume,
  DlpackCapsule,
  type DlpackExporter,
  streamOf,
} from "./capsule.ts";
import { allocate } from "./copy/memory.ts";
import { deviceName, DeviceType, isHost } from "./device.ts";
import { bytesOf, packingOf } from "./dtype/packing.ts";
import type { TypedArray } from "./dtype/table.ts";
import { sizeOf } from "./layout.ts";
import { checkStruct } from "./struct/check.ts";
import * as refusals from "./struct/refusals.ts";
import type { Struct } from "./struct/types.ts";
import { makeCopy, makeTensor, type Tensor } from "./tensor/class.ts";
import { NativeStorage } from "./tensor/storage.ts";
import { runSteps, runStepsAsync, type Steps } from "./transfer/steps.ts";
import { copyFromDevice, putInOrder, synchronize } from "./transfer/to_host.ts";

/** Where {@linkcode fromDlpack} is to put the tensor, and whether it may copy. */
export interface FromDlpackOptions {
  /** `"cpu"`: memory the host can read, copied there if need be; none: where it is. */
  device?: "cpu" | null;
  /** `true`: always a copy; `false`: never; none: only where needed. */
  copy?: boolean | null;
}

/** The same for {@linkcode fromDlpackAsync}, which can be watched and stopped. */
export interface FromDlpackAsyncOptions extends FromDlpackOptions {
  /** Stops the copy; the promise is rejected with the signal's reason. */
  signal?: AbortSignal | null;
  /**
   * Called as a copy goes on, at last with all of the tensor's bytes; not for
   * views, nor for tensors without elements.
   */
  onProgress?: ((bytesDone: number, bytesTotal: number) => void) | null;
}

/**
 * Turns a native library's tensor into a view of the same memory, or a copy:
 * `numpy.from_dlpack` for Deno.
 *
 * | memory is | `device` | `copy` | result |
 * | --- | --- | --- | --- |
 * | the host's | any | none, `false` | a view |
 * | the host's | any | `true` | a copy; the producer's memory is given back |
 * | a device's | none | any | `BufferError`, code `"device"` |
 * | a device's | `"cpu"` | none, `true` | a copy; the producer's memory is given back |
 * | a device's | `"cpu"` | `false` | `BufferError`, code `"copy"` |
 *
 * The memory of a view is given back, by the producer's deleter, when the
 * tensor is disposed, when the last view of it is garbage, or at exit. On
 * failure it is given back at once.
 *
 * Follows the array API's `from_dlpack` and the order of NumPy's checks.
 *
 * @param x A capsule around a library's pointer, a tensor, or anything else
 * with `__dlpack__` and `__dlpack_device__`.
 * @param options Device and copy, as in NumPy.
 * @returns The tensor; `is()` narrows its dtype.
 * @throws {TypeError} When `x` is no exporter, or an option is none of the
 * allowed.
 * @throws {BufferError} When the tensor cannot be imported: its code says why.
 *
 * @example Three lines
 * ```ts
 * import { fromDlpack, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const producer = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
 *
 * using t = fromDlpack(producer);
 * assertEquals(t.dtype, "float32");
 * assertEquals(t.get(1, 0), 3);
 * ```
 */
export function fromDlpack(
  x: DlpackExporter,
  options?: FromDlpackOptions,
): Tensor {
  const device = options?.device ?? null;
  const copy = options?.copy ?? null;
  if (options !== undefined) checkOptions(device, copy);
  const capsule = ask(x, device, copy);
  const stream = streamOf(capsule);
  const owner = consume(capsule);
  try {
    const struct = checkStruct(owner);
    checkRules(struct, device, copy);
    if (!isReadable(struct)) {
      return runSteps(importSteps(struct, owner, stream, copy, Infinity));
    }
    const view = viewOf(struct, owner);
    if (!isToCopy(struct, copy)) return view;
    const copied = view.copy();
    owner.release();
    return copied;
  } catch (error) {
    owner.releaseAfterFailure();
    throw error;
  }
}

/** The bytes of a step of {@linkcode fromDlpackAsync}, about. */
const STEP_BYTES = 32 * 1024 * 1024;

/**
 * {@linkcode fromDlpack} without blocking the event loop: for large tensors on
 * a device, and large copies.
 *
 * A view is there at once. A copy is made in pieces of 32 MiB, between which
 * other things can happen; while the runtime of CUDA, ROCm or OpenCL copies a
 * piece, too.
 *
 * @param x A capsule around a library's pointer, a tensor, or anything else
 * with `__dlpack__` and `__dlpack_device__`. Nobody may write to its memory
 * until the promise is settled.
 * @param options Device and copy, as in NumPy; a signal that stops it, and a
 * function that is told how far it is.
 * @returns The tensor; `is()` narrows its dtype.
 * @throws {TypeError} When `x` is no exporter, or an option is none of the
 * allowed.
 * @throws {BufferError} When the tensor cannot be imported: its code says why.
 * @throws {unknown} The signal's reason, when the producer's memory was given
 * back.
 *
 * @example Show how far a large copy is
 * ```ts
 * import { fromDlpackAsync, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * // A large one, of a library:
 * const capsule = Tensor.from(new Float32Array(1000))
 *   .__dlpack__({ maxVersion: [1, 3] });
 * let percent = 0;
 *
 * const t = await fromDlpackAsync(capsule, {
 *   copy: true,
 *   signal: AbortSignal.timeout(60_000),
 *   onProgress: (done, total) => percent = 100 * done / total,
 * });
 * assertEquals([t.size, percent], [1000, 100]);
 * ```
 */
export async function fromDlpackAsync(
  x: DlpackExporter,
  options: FromDlpackAsyncOptions = {},
): Promise<Tensor> {
  const device = options.device ?? null;
  const copy = options.copy ?? null;
  const signal = options.signal ?? null;
  const onProgress = options.onProgress ?? null;
  checkOptions(device, copy);
  checkAsyncOptions(signal, onProgress);
  signal?.throwIfAborted();
  const capsule = ask(x, device, copy);
  const stream = streamOf(capsule);
  const owner = consume(capsule);
  try {
    const struct = checkStruct(owner);
    checkRules(struct, device, copy);
    if (isReadable(struct) && !isToCopy(struct, copy)) {
      return viewOf(struct, owner);
    }
    const steps = importSteps(struct, owner, stream, copy, STEP_BYTES);
    const { info, isPacked, layout: { shape } } = struct;
    const total = bytesOf(packingOf(info, isPacked), sizeOf(shape));
    return await runStepsAsync(steps, signal, (done) => {
      if (done > 0) onProgress?.(Math.floor(done * total), total);
    });
  } catch (error) {
    owner.releaseAfterFailure();
    throw error;
  }
}

function checkOptions(device: unknown, copy: unknown): void {
  if (device !== null && device !== "cpu") {
    throw new TypeError(
      `The option "device" must be "cpu" or null, not ${describe(device)}`,
    );
  }
  if (copy !== null && typeof copy !== "boolean") {
    throw new TypeError(
      `The option "copy" must be true, false or null, not ${describe(copy)}`,
    );
  }
}

function checkAsyncOptions(signal: unknown, onProgress: unknown): void {
  if (signal !== null && !(signal instanceof AbortSignal)) {
    throw new TypeError(
      `The option "signal" must be an AbortSignal, not ${describe(signal)}`,
    );
  }
  if (onProgress !== null && typeof onProgress !== "function") {
    throw new TypeError(
      `The option "onProgress" must be a function, not ${describe(onProgress)}`,
    );
  }
}

/** A capsule answers every request with itself. */
const { __dlpack__: answerOfCapsule } = DlpackCapsule.prototype;

/** Asks for the tensor, as the array API says. */
function ask(
  x: DlpackExporter,
  device: "cpu" | null,
  copy: boolean | null,
): DlpackCapsule {
  if (x instanceof DlpackCapsule && x.__dlpack__ === answerOfCapsule) return x;
  return askOther(x, device, copy);
}

function askOther(
  x: DlpackExporter,
  device: "cpu" | null,
  copy: boolean | null,
): DlpackCapsule {
  checkExporter(x);
  const capsule = x.__dlpack__({
    maxVersion: VERSION,
    dlDevice: device === "cpu" ? [DeviceType.cpu, 0] : null,
    copy,
  });
  if (capsule instanceof DlpackCapsule) return capsule;
  throw new TypeError(
    "Cannot import: __dlpack__() must return a DlpackCapsule, not " +
      describe(capsule),
  );
}

function checkExporter(x: unknown): void {
  const exporter = x as Partial<DlpackExporter> | null | undefined;
  if (
    typeof exporter?.__dlpack__ === "function" &&
    typeof exporter.__dlpack_device__ === "function"
  ) return;
  const isPointer = typeof x === "bigint" ||
    typeof x === "object" && x !== null && Object.getPrototypeOf(x) === null;
  throw new TypeError(
    x === null
      ? "Cannot import null: the library returned no tensor"
      : isPointer
      ? "Cannot import a bare pointer: wrap it in new DlpackCapsule(pointer, " +
        '"dltensor" for a DLManagedTensor*, "dltensor_versioned" for a ' +
        "DLManagedTensorVersioned*)"
      : `Cannot import ${describe(x)}: it has no __dlpack__() and ` +
        "__dlpack_device__()",
  );
}

function describe(x: unknown): string {
  if (typeof x === "string") return JSON.stringify(x);
  if (typeof x === "function") return "a function";
  if (typeof x !== "object" || x === null) return String(x);
  return Object.prototype.toString.call(x);
}

/** NumPy's rules of device and copy. */
function checkRules(
  struct: Struct,
  device: "cpu" | null,
  copy: boolean | null,
): void {
  const { deviceType, isCopied } = struct;
  if (isHost(deviceType)) {
    if (copy === false && isCopied) throw refusals.wasCopied();
  } else {
    if (device === null) throw refusals.onDevice(struct);
    if (copy === false) throw refusals.needsCopy(struct);
  }
}

/** Whether the host can read the memory at once. */
function isReadable({ deviceType }: Struct): boolean {
  return isHost(deviceType) && deviceType !== DeviceType.cudaManaged;
}

/** Whether the host's memory is to be copied. */
function isToCopy(
  { isCopied, readOnly }: Struct,
  copy: boolean | null,
): boolean {
  // A copy that was made for us is ours alone.
  return copy === true && !(isCopied && !readOnly);
}

/** The memory as it is. */
function viewOf(struct: Struct, owner: Owner): Tensor {
  owner.consume(struct.length * struct.info.array.BYTES_PER_ELEMENT);
  const storage = new NativeStorage(struct, owner);
  return makeTensor(storage, struct.layout);
}

/** The steps where memory is waited for, or copied in pieces. */
function* importSteps(
  struct: Struct,
  owner: Owner,
  stream: number | bigint | null,
  copy: boolean | null,
  stepBytes: number,
): Steps<Tensor> {
  const { info, isPacked, layout: { shape }, deviceType } = struct;
  const size = sizeOf(shape);
  let data: TypedArray;
  if (isHost(deviceType)) {
    const cuda = runtimeOf(DeviceType.cuda);
    if (
      deviceType === DeviceType.cudaManaged && size > 0 &&
      cuda !== undefined && (cuda.isHere?.() ?? true)
    ) {
      // What the GPU still writes, the host must not touch.
      yield* synchronize(cuda, memoryOf(struct, stream));
    }
    const view = viewOf(struct, owner);
    if (!isToCopy(struct, copy)) return view;
    data = allocate(info, isPacked, size);
    yield* putInOrder(struct, view.data, data, stepBytes);
  } else if (size > 0) {
    const runtime = runtimeOf(deviceType);
    if (runtime === undefined) throw refusals.noRuntime(struct);
    const memory = memoryOf(struct, stream);
    data = yield* copyFromDevice(runtime, memory, struct, stepBytes);
  } else data = allocate(info, isPacked, 0);
  const tensor = makeCopy(info, isPacked, data, shape);
  owner.release();
  return tensor;
}

/** What a device's runtime is to know. */
function memoryOf(
  struct: Struct,
  stream: number | bigint | null,
): DeviceMemory {
  const { info, deviceType, deviceId, data, start, length } = struct;
  const isAddress = isHost(deviceType);
  return {
    type: deviceName(deviceType)!,
    id: deviceId,
    data: isAddress ? BigInt(start) : data,
    byteOffset: isAddress ? 0 : start,
    byteLength: length * info.array.BYTES_PER_ELEMENT,
    stream,
  };
}
