import { VERSION } from "../ffi/abi.ts";
import { runtimeOf } from "../ffi/devices/registry.ts";
import { readHeader } from "../ffi/header.ts";
import type { Owner } from "../ffi/owner.ts";
import {
  adopt,
  consume,
  DlpackCapsule,
  type DlpackExporter,
  isOfOtherCopy,
  isWritable,
  type OtherCapsule,
  ownerIn,
  streamOf,
} from "./capsule.ts";
import type { Elements } from "./copy/elements.ts";
import { allocate } from "./copy/memory.ts";
import { DeviceType, isHost } from "./device.ts";
import { bytesOf, packingOf } from "./dtype/packing.ts";
import {
  type DType,
  dtypeByName,
  dtypeNames,
  type TypedArray,
} from "./dtype/table.ts";
import { type BufferError, checkOptions, describe } from "./errors.ts";
import { sizeOf } from "./layout.ts";
import { checkStruct } from "./struct/check.ts";
import { memoryOf } from "./struct/memory.ts";
import * as refusals from "./struct/refusals.ts";
import type { Struct } from "./struct/types.ts";
import {
  elementsOf,
  makeCopy,
  makeTensor,
  presenceOf,
  Tensor,
} from "./tensor/class.ts";
import { NativeStorage } from "./tensor/storage.ts";
import {
  checked,
  checkWatch,
  runSteps,
  runStepsAsync,
  STEP_BYTES,
  type Steps,
} from "./transfer/steps.ts";
import { copyFromDevice, putInOrder, synchronize } from "./transfer/to_host.ts";

/**
 * Where {@linkcode fromDlpack} is to put the tensor, and whether it may copy.
 *
 * @category Basics
 */
export interface FromDlpackOptions {
  /** `"cpu"`: memory the host can read, copied there if need be. Default: where it is. */
  device?: "cpu" | null;
  /** `true`: always a copy; `false`: never. Default: only where needed. */
  copy?: boolean | null;
  /** The dtype that is expected; another one is refused. Default: any. */
  dtype?: DType;
}

/**
 * The same for {@linkcode fromDlpackAsync}, which can be watched and stopped.
 *
 * @category Basics
 */
export interface FromDlpackAsyncOptions extends FromDlpackOptions {
  /** Stops the copy; the promise is rejected with the signal's reason. Default: nothing does. */
  signal?: AbortSignal | null;
  /**
   * Called as a copy goes on, at last with all of the tensor's bytes; not for
   * views, nor for tensors without elements. Default: nobody is told.
   */
  onProgress?: ((bytesDone: number, bytesTotal: number) => void) | null;
}

/**
 * Turns a native library's tensor into a view of the same memory, or a copy:
 * `numpy.from_dlpack` for Deno.
 *
 * | memory is | `device` | `copy` | result |
 * | --- | --- | --- | --- |
 * | the host's | any | `null` or `false` | a view |
 * | the host's | any | `true` | a copy; the producer's memory is given back |
 * | a device's | `null` | any | `BufferError`, code `"device"` |
 * | a device's | `"cpu"` | `null` or `true` | a copy; the producer's memory is given back |
 * | a device's | `"cpu"` | `false` | `BufferError`, code `"copy"` |
 *
 * The memory of a view is given back, by the producer's deleter, when the
 * tensor is disposed, when the last view of it is garbage, or when the program
 * ends (but not by an uncaught error or a signal, where Deno tells nobody). On
 * failure it is given back at once, with one exception: a capsule that was
 * passed itself and is refused only for the options stays as it was, so that it
 * can be passed again with others.
 *
 * Follows the array API's `from_dlpack` and the order of NumPy's checks.
 *
 * @param x A capsule around a library's pointer, a tensor, or anything else
 * with `__dlpack__` and `__dlpack_device__`.
 * @param options Device and copy, as in NumPy; and the dtype that is expected,
 * to which the types are narrowed.
 * @returns The tensor; without an expected dtype, `is()` narrows it.
 * @throws {TypeError} When `x` is no exporter, or an option has a value that is
 * not allowed.
 * @throws {BufferError} When the tensor cannot be imported: its code says why,
 * `"dtype"` when it is not the one expected.
 *
 * @example Three lines
 * ```ts
 * import { fromDlpack, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const producer = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
 *
 * using t = fromDlpack(producer, { dtype: "float32" });
 * const first: number = t.get(0, 0);
 * assertEquals(first + t.get(1, 0), 4);
 * ```
 *
 * @category Basics
 */
export function fromDlpack<D extends DType>(
  x: DlpackExporter,
  options: FromDlpackOptions & { readonly dtype: D },
): Tensor<D>;
/** Of any dtype. */
export function fromDlpack(
  x: DlpackExporter,
  options?: FromDlpackOptions,
): Tensor;
export function fromDlpack(
  x: DlpackExporter,
  options?: FromDlpackOptions,
): Tensor {
  if (options !== undefined) checkRequest("fromDlpack()", options);
  const device = options?.device ?? null;
  const copy = options?.copy ?? null;
  const dtype = options?.dtype ?? null;
  if (copy === true && isOwnTensor(x)) {
    checkExpected(x.dtype, dtype);
    return x.copy();
  }
  const capsule = ask(x, device, copy, dtype);
  const struct = checkCapsule(capsule, x, device, copy, dtype);
  const stream = streamOf(capsule);
  const owner = consume(capsule);
  try {
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

/**
 * {@linkcode fromDlpack} without blocking the event loop: for large tensors on
 * a device, and large copies.
 *
 * A view is there at once. A copy is made in pieces of 32 MiB, between which the
 * event loop turns; it also turns while the runtime of CUDA, ROCm, OpenCL or
 * oneAPI copies a piece. So the producer is not asked to copy the host's memory,
 * CUDA's or ROCm's, which it would do at once.
 *
 * @param x A capsule around a library's pointer, a tensor, or anything else
 * with `__dlpack__` and `__dlpack_device__`. Nobody may write to its memory
 * until the promise is settled.
 * @param options Device and copy, as in NumPy; a signal that stops it, and a
 * function that is told how far it is.
 * @returns The tensor; `is()` narrows its dtype.
 * @throws {TypeError} When `x` is no exporter, or an option has a value that is
 * not allowed.
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
 *
 * @category Basics
 */
export function fromDlpackAsync<D extends DType>(
  x: DlpackExporter,
  options: FromDlpackAsyncOptions & { readonly dtype: D },
): Promise<Tensor<D>>;
/** Of any dtype. */
export function fromDlpackAsync(
  x: DlpackExporter,
  options?: FromDlpackAsyncOptions,
): Promise<Tensor>;
export async function fromDlpackAsync(
  x: DlpackExporter,
  options: FromDlpackAsyncOptions = {},
): Promise<Tensor> {
  checkRequest("fromDlpackAsync()", options);
  const device = options.device ?? null;
  const copy = options.copy ?? null;
  const dtype = options.dtype ?? null;
  const signal = options.signal ?? null;
  const onProgress = options.onProgress ?? null;
  checkWatch(signal, onProgress);
  signal?.throwIfAborted();
  const run = (
    steps: Steps<Tensor>,
    { info, isPacked, layout }: Elements,
  ): Promise<Tensor> => {
    const total = bytesOf(packingOf(info, isPacked), sizeOf(layout.shape));
    return runStepsAsync(steps, signal, (done) => {
      if (done > 0) onProgress?.(Math.floor(done * total), total);
    });
  };
  if (copy === true && isOwnTensor(x)) {
    checkExpected(x.dtype, dtype);
    using _held = x.hold();
    const elements = elementsOf(x);
    const { data } = elements;
    const steps = copySteps(elements, data, STEP_BYTES);
    return await run(checked(presenceOf(x), steps), elements);
  }
  // What the producer copies, it copies at once.
  const isToAsk = !(x instanceof DlpackCapsule) && copy !== false &&
    (device !== null || copy !== null);
  const capsule = isToAsk && canCopy(x)
    ? ask(x, null, null, dtype)
    : ask(x, device, copy, dtype);
  const struct = checkCapsule(capsule, x, device, copy, dtype);
  const stream = streamOf(capsule);
  const owner = consume(capsule);
  try {
    if (isReadable(struct) && !isToCopy(struct, copy)) {
      return viewOf(struct, owner);
    }
    const steps = importSteps(struct, owner, stream, copy, STEP_BYTES);
    return await run(steps, struct);
  } catch (error) {
    owner.releaseAfterFailure();
    throw error;
  }
}

/** Whether an exporter's memory can be copied here, without its help. */
function canCopy(x: DlpackExporter): boolean {
  checkExporter(x);
  const [type] = x.__dlpack_device__();
  return isHost(type) || (runtimeOf(type)?.isHere?.() ?? false);
}

function checkRequest(of: string, options: FromDlpackOptions): void {
  checkOptions(of, options);
  const { device = null, copy = null } = options;
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
  const { dtype } = options;
  if (dtype !== undefined && dtypeByName(dtype) === undefined) {
    throw new TypeError(
      `There is no dtype ${describe(dtype)}: it is one of ` +
        dtypeNames.join(", "),
    );
  }
}

/** A capsule answers every request with itself. */
const { __dlpack__: answerOfCapsule } = DlpackCapsule.prototype;
const { __dlpack__: answerOfTensor } = Tensor.prototype;

/** Whether it is a tensor of this module, which is asked like any other. */
function isOwnTensor(x: unknown): x is Tensor {
  return x instanceof Tensor && x.__dlpack__ === answerOfTensor;
}

/** Asks for the tensor, as the array API says. */
function ask(
  x: DlpackExporter,
  device: "cpu" | null,
  copy: boolean | null,
  dtype: DType | null,
): DlpackCapsule {
  if (x instanceof DlpackCapsule && x.__dlpack__ === answerOfCapsule) return x;
  return askOther(x, device, copy, dtype);
}

function askOther(
  x: DlpackExporter,
  device: "cpu" | null,
  copy: boolean | null,
  dtype: DType | null,
): DlpackCapsule {
  checkExporter(x);
  const capsule = x.__dlpack__({
    maxVersion: VERSION,
    dlDevice: device === "cpu" ? [DeviceType.cpu, 0] : null,
    copy,
  });
  if (capsule instanceof DlpackCapsule) return capsule;
  if (isOfOtherCopy(capsule, "capsule")) {
    if (capsule as unknown === x) {
      refuseUntaken(capsule, device, copy, dtype);
    }
    return adopt(capsule);
  }
  throw new TypeError(
    "Cannot import: __dlpack__() must return a DlpackCapsule, not " +
      describe(capsule),
  );
}

/**
 * Refuses a capsule of another copy of this module for the options, before it is
 * taken: then it stays as it was.
 */
function refuseUntaken(
  { pointer, name }: OtherCapsule,
  device: "cpu" | null,
  copy: boolean | null,
  dtype: DType | null,
): void {
  if (name !== "dltensor" && name !== "dltensor_versioned") return;
  const header = readHeader(pointer, name);
  let refusal: BufferError | null = null;
  try {
    if (header !== null) {
      refusal = refusalOf(checkStruct(header, name), device, copy, dtype);
    }
  } catch {
    // A bad struct is taken, and released.
  }
  if (refusal !== null) throw refusal;
}

/**
 * Checks what is in a capsule. It is released when that is bad, or when it was
 * made for this import and is refused for the options.
 *
 * @param x What was asked for it.
 */
function checkCapsule(
  capsule: DlpackCapsule,
  x: DlpackExporter,
  device: "cpu" | null,
  copy: boolean | null,
  dtype: DType | null,
): Struct {
  const owner = ownerIn(capsule);
  let struct: Struct;
  try {
    struct = checkStruct(owner.header(), owner.name, isWritable(capsule));
  } catch (error) {
    consume(capsule).releaseAfterFailure();
    throw error;
  }
  const refusal = refusalOf(struct, device, copy, dtype);
  if (refusal === null) return struct;
  if (capsule !== x) consume(capsule).releaseAfterFailure();
  throw refusal;
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
        "DLManagedTensorVersioned*), or a DLTensor* by DlpackCapsule.borrow()"
      : x instanceof Promise
      ? "Cannot import a Promise: await it first"
      : ArrayBuffer.isView(x)
      ? `Cannot import ${describe(x)}: make a tensor of it with Tensor.from()`
      : `Cannot import ${describe(x)}: it has no __dlpack__() and ` +
        "__dlpack_device__()",
  );
}

/**
 * What NumPy's rules of device and copy say against a tensor, or the dtype that
 * is expected, if anything.
 */
function refusalOf(
  struct: Struct,
  device: "cpu" | null,
  copy: boolean | null,
  dtype: DType | null,
): BufferError | null {
  const { deviceType, isCopied, info } = struct;
  if (isHost(deviceType)) {
    if (copy === false && isCopied) return refusals.wasCopied();
  } else {
    if (device === null) return refusals.onDevice(struct);
    if (copy === false) return refusals.needsCopy(struct);
  }
  if (dtype === null || dtype === info.name) return null;
  return refusals.otherDType(info.name, dtype);
}

function checkExpected(found: DType, expected: DType | null): void {
  if (expected === null || expected === found) return;
  throw refusals.otherDType(found, expected);
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

/** The steps to a copy of what the host reads. */
function* copySteps(
  elements: Elements,
  from: TypedArray,
  stepBytes: number,
): Steps<Tensor> {
  const { info, isPacked, layout: { shape } } = elements;
  const data = allocate(info, isPacked, sizeOf(shape));
  yield* putInOrder(elements, from, data, stepBytes);
  return makeCopy(info, isPacked, data, shape);
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
      yield* synchronize(cuda, memoryOf(struct, stream, "read"));
    }
    const view = viewOf(struct, owner);
    if (!isToCopy(struct, copy)) return view;
    const copied = yield* copySteps(struct, elementsOf(view).data, stepBytes);
    owner.release();
    return copied;
  }
  if (size > 0) {
    const runtime = runtimeOf(deviceType);
    if (runtime === undefined) throw refusals.noRuntime(struct);
    const memory = memoryOf(struct, stream, "read");
    data = yield* copyFromDevice(runtime, memory, struct, stepBytes);
  } else data = allocate(info, isPacked, 0);
  const tensor = makeCopy(info, isPacked, data, shape);
  owner.release();
  return tensor;
}
