import { runtimeOf } from "../ffi/devices/registry.ts";
import {
  DlpackCapsule,
  type DlpackExporter,
  isOfOtherCopy,
  lookInto,
  type OtherCapsule,
} from "./capsule.ts";
import { isHost } from "./device.ts";
import { checkOptions, describe } from "./errors.ts";
import { fromDlpack } from "./from_dlpack.ts";
import { mayOverlap, sizeOf } from "./layout.ts";
import { checkStruct } from "./struct/check.ts";
import { memoryOf } from "./struct/memory.ts";
import * as refusals from "./struct/refusals.ts";
import type { Struct } from "./struct/types.ts";
import { elementsOf, presenceOf, Tensor } from "./tensor/class.ts";
import {
  checked,
  checkWatch,
  runStepsAsync,
  STEP_BYTES,
} from "./transfer/steps.ts";
import { copyToDevice } from "./transfer/to_device.ts";

/**
 * How {@linkcode uploadTo} can be watched and stopped.
 *
 * @category Devices
 */
export interface UploadOptions {
  /**
   * Stops it; the promise is rejected with the signal's reason, and part of the
   * target is written. Default: nothing does.
   */
  signal?: AbortSignal | null;
  /**
   * Called as it goes on, at last with all of the tensor's bytes; not for
   * tensors without elements. Default: nobody is told.
   */
  onProgress?: ((bytesDone: number, bytesTotal: number) => void) | null;
}

/**
 * Fills the memory of a device that a library made with the elements of a
 * tensor, through that device's runtime: what `fromDlpack(capsule, { device:
 * "cpu" })` does, the other way round.
 *
 * The target stays as it is, unconsumed: hand it to the library again, or to
 * {@linkcode fromDlpack}. What lies between its elements is not written, but for
 * packed elements that share a byte with others. Work that uses the target is
 * waited for first, as the capsule's `stream` says; what the library starts after
 * the promise has settled sees the new elements.
 *
 * It does not block the event loop for long: it copies in pieces of 32 MiB,
 * between which that turns. Nobody may write to the source, or use the target,
 * until the promise has settled.
 *
 * @param target A capsule of memory that may be written, on a device whose
 * runtime can: CUDA, ROCm, OpenCL, oneAPI, or one of {@linkcode registerDevice}
 * with `openForWriting`.
 * @param source A tensor of the same dtype and shape, with any strides.
 * @param options A signal that stops it, and a function that is told how far it
 * is.
 * @throws {TypeError} When `target` is no capsule, `source` is no tensor, or an
 * option is of the wrong kind.
 * @throws {BufferError} `"consumed"`, `"readonly"`, `"dtype"`, `"shape"`, or
 * `"layout"` when elements of the target lie at the same place; `"device"` when
 * the memory is not a device's, cannot be reached, or is not what the struct
 * says; what {@linkcode fromDlpack} throws of a bad struct. The target stays as
 * it is.
 * @throws {unknown} The signal's reason.
 *
 * @example Fill memory that a library made on a device
 * ```ts
 * import {
 *   DeviceType,
 *   DlpackCapsule,
 *   registerDevice,
 *   Tensor,
 *   uploadTo,
 * } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * // Stands for an accelerator and its library.
 * const memory = new Uint8Array(24);
 * const nothing = { synchronize() {}, [Symbol.dispose]() {} };
 * registerDevice(DeviceType.extDev, {
 *   name: "the accelerator's library",
 *   open: () => ({
 *     ...nothing,
 *     read: (at, into) => into.set(memory.subarray(at, at + into.length)),
 *   }),
 *   openForWriting: () => ({
 *     ...nothing,
 *     write: (at, from) => memory.set(from, at),
 *   }),
 * });
 *
 * const capsule = DlpackCapsule.from(0x1000n, {
 *   dtype: "float32",
 *   shape: [2, 3],
 *   device: { type: "extDev", id: 0 },
 * });
 * const source = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
 * await uploadTo(capsule, source);
 * assertEquals([...new Float32Array(memory.buffer)], [1, 2, 3, 4, 5, 6]);
 * registerDevice(DeviceType.extDev, null);
 * ```
 *
 * @category Devices
 */
export async function uploadTo(
  target: DlpackCapsule,
  source: Tensor,
  options: UploadOptions = {},
): Promise<void> {
  checkOptions("uploadTo()", options);
  const signal = options.signal ?? null;
  const onProgress = options.onProgress ?? null;
  checkWatch(signal, onProgress);
  checkTarget(target);
  // Of another copy of this module: a view of the same memory.
  using view = !(source instanceof Tensor) && isOfOtherCopy(source, "tensor")
    ? fromDlpack(source as unknown as DlpackExporter)
    : null;
  const from = view ?? source;
  checkSource(from);
  const { header, name, writable, stream } = lookInto(target, "upload to");
  const struct = checkStruct(header, name, writable);
  if (isHost(struct.deviceType)) throw refusals.onHost(struct);
  if (struct.readOnly) throw refusals.notToWrite(name);
  const elements = elementsOf(from);
  checkSame(struct, from);
  signal?.throwIfAborted();
  if (from.size === 0) return;
  const runtime = runtimeOf(struct.deviceType);
  if (runtime === undefined) throw refusals.noRuntimeToUpload(struct);
  if (typeof runtime.openForWriting !== "function") {
    throw refusals.onlyRead(struct, runtime.name);
  }
  if (mayOverlap(struct.layout.shape, struct.layout.strides)) {
    throw refusals.overlapping(struct);
  }
  // Dispose, or a consumer of the target, must not take the memory away.
  using _target = target.hold();
  using _source = from.hold();
  const memory = memoryOf(struct, stream, "write");
  const steps = copyToDevice(runtime, memory, struct, elements, STEP_BYTES);
  const total = from.nbytes;
  await runStepsAsync(checked(presenceOf(from), steps), signal, (done) => {
    if (done > 0) onProgress?.(Math.floor(done * total), total);
  });
}

function checkTarget(
  target: unknown,
): asserts target is DlpackCapsule | OtherCapsule {
  if (target instanceof DlpackCapsule || isOfOtherCopy(target, "capsule")) {
    return;
  }
  const found = describe(target);
  throw new TypeError(
    target instanceof Tensor
      ? "Cannot upload to a Tensor, which is in the host's memory: assign() to it"
      : typeof (target as { __dlpack__?: unknown } | null)?.__dlpack__ ===
          "function"
      ? `Cannot upload to ${found}: pass the DlpackCapsule that its ` +
        "__dlpack__() returns"
      : `Cannot upload to ${found}: pass a DlpackCapsule of memory on a device`,
  );
}

function checkSource(source: unknown): asserts source is Tensor {
  if (source instanceof Tensor) return;
  throw new TypeError(
    `Cannot upload ${describe(source)}: make a tensor of it with ` +
      (ArrayBuffer.isView(source) ? "Tensor.from()" : "fromDlpack()"),
  );
}

function checkSame(struct: Struct, source: Tensor): void {
  const { info, isPacked, layout } = struct;
  if (source.dtype !== info.name) {
    throw refusals.uploadOfOtherDType(source.dtype, info.name);
  }
  const { shape } = layout;
  if (
    source.ndim !== shape.length ||
    shape.some((length, axis) => source.shape[axis] !== length)
  ) throw refusals.uploadOfOtherShape(source.shape, shape);
  if (elementsOf(source).isPacked !== isPacked && sizeOf(shape) > 0) {
    throw refusals.uploadOfOtherPacking(struct);
  }
}
