import { consume, DlpackCapsule, type DlpackExporter } from "../ffi/capsule.ts";
import { MAX_NDIM, VERSION } from "../ffi/abi.ts";
import { type Header, readShape, readStrides } from "../ffi/header.ts";
import type { Owner } from "../ffi/owner.ts";
import { entriesOf } from "./copy.ts";
import { deviceName, DeviceType, isHost } from "./device.ts";
import { dtypeByCode, type DTypeInfo } from "./dtype.ts";
import { cStrides, extentOf, sizeOf } from "./layout.ts";
import * as refusals from "./refusals.ts";
import { NativeStorage } from "./storage.ts";
import { makeTensor, type Tensor } from "./tensor.ts";

/** Where {@linkcode fromDlpack} is to put the tensor, and whether it may copy. */
export interface FromDlpackOptions {
  /** `"cpu"`: memory the host can read, copied there if need be; none: where it is. */
  device?: "cpu" | null;
  /** `true`: always a copy; `false`: never; none: only where needed. */
  copy?: boolean | null;
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
  options: FromDlpackOptions = {},
): Tensor {
  const device = options.device ?? null;
  const copy = options.copy ?? null;
  checkOptions(device, copy);
  checkExporter(x);
  const capsule = x.__dlpack__({
    maxVersion: VERSION,
    dlDevice: device === "cpu" ? [DeviceType.cpu, 0] : null,
    copy,
  });
  if (!(capsule instanceof DlpackCapsule)) {
    throw new TypeError(
      "Cannot import: __dlpack__() must return a DlpackCapsule, not " +
        describe(capsule),
    );
  }
  const owner = consume(capsule);
  try {
    return importTensor(owner, device, copy);
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

/** Makes a tensor of what the owner has, or says why not. */
function importTensor(
  owner: Owner,
  device: "cpu" | null,
  copy: boolean | null,
): Tensor {
  const header = owner.header();
  const info = checkHeader(owner, header);
  const isPacked = info.bits < 8 && !header.isPadded;
  const shape = checkShape(header, info);
  const strides = checkStrides(header, shape);
  const { address, length, offset } = locate(
    header,
    info,
    isPacked,
    shape,
    strides,
  );
  // NumPy's rules of device and copy.
  const { deviceType, readOnly, isCopied } = header;
  if (!isHost(deviceType)) throw refusals.onDevice(header, device, copy);
  if (copy === false && isCopied) throw refusals.wasCopied();

  owner.consume(length * info.array.BYTES_PER_ELEMENT);
  const storage = new NativeStorage(
    info,
    isPacked,
    readOnly,
    deviceType,
    header.deviceId,
    owner,
    address,
    length,
  );
  const view = makeTensor(storage, { shape, strides, offset });
  // A copy that was made for us is ours alone.
  if (copy !== true || isCopied && !readOnly) return view;
  const copied = view.copy();
  owner.release();
  return copied;
}

/** Checks what stands in the header itself. */
function checkHeader(owner: Owner, header: Header): DTypeInfo {
  const { ndim, lanes, bits } = header;
  if (owner.name === "dltensor_versioned" && header.major !== VERSION[0]) {
    throw refusals.otherVersion(header);
  }
  // Lanes become one axis more.
  if (ndim < 0 || (lanes > 1 ? ndim + 1 : ndim) > MAX_NDIM) {
    throw refusals.tooManyAxes(header);
  }
  if (deviceName(header.deviceType) === undefined) {
    throw refusals.unknownDevice(header);
  }
  if (lanes === 0) throw refusals.noLanes(header);
  const info = dtypeByCode(header.code, bits);
  if (info === undefined) throw refusals.unknownDType(header);
  if (lanes > 1 && bits < 8 && !header.isPadded && bits * lanes % 8 !== 0) {
    throw refusals.brokenLanes(header);
  }
  return info;
}

/** Reads and checks the lengths; lanes become a last one. */
function checkShape(header: Header, info: DTypeInfo): number[] {
  const { ndim, lanes } = header;
  if (ndim > 0 && !header.hasShape) throw refusals.noShape(header);
  const shape = readShape(ndim);
  let size = lanes;
  for (let axis = 0; axis < ndim; axis++) {
    const length = shape[axis]!;
    if (length < 0) throw refusals.negativeLength(shape);
    // Lengths of 0 aside: a huge length beside one is as absurd, as in NumPy.
    if (length !== 0) size *= length;
  }
  // No element is smaller than a bit, and bytes must be safe integers, too.
  if (size * Math.max(info.bits, 8) > 8 * Number.MAX_SAFE_INTEGER) {
    throw refusals.tooLarge(shape);
  }
  if (lanes > 1) shape.push(lanes);
  return shape;
}

/** Reads and checks the strides; where they carry no meaning they are set right. */
function checkStrides(header: Header, shape: readonly number[]): number[] {
  if (!header.hasStrides) return cStrides(shape);
  const { ndim, lanes } = header;
  const strides = readStrides(ndim);
  if (lanes > 1) {
    for (let axis = 0; axis < ndim; axis++) strides[axis]! *= lanes;
    strides.push(1);
  }
  for (let axis = 0; axis < ndim; axis++) {
    if (Number.isSafeInteger(strides[axis])) continue;
    if (sizeOf(shape) !== 0 && shape[axis] !== 1) {
      throw refusals.tooFar(strides);
    }
    strides[axis] = cStrides(shape)[axis]!;
  }
  return strides;
}

/** Where the elements are in memory. */
interface Place {
  /** Of the lowest element. */
  readonly address: number;
  /** Entries of the typed array from there to the highest element. */
  readonly length: number;
  /** The index of element [0, …, 0] from there, in elements. */
  readonly offset: number;
}

/** The end of what a process can address, on any 64-bit system. */
const ADDRESSES = 2 ** 48;

function locate(
  header: Header,
  info: DTypeInfo,
  isPacked: boolean,
  shape: readonly number[],
  strides: readonly number[],
): Place {
  const { lowest, highest } = extentOf(shape, strides);
  if (highest < lowest) return { address: 0, length: 0, offset: 0 };
  const { data } = header;
  if (data === 0) throw refusals.noData(shape);
  let first = lowest;
  let itemsize = info.bits / 8;
  if (isPacked) {
    // Back to an element that starts on a byte.
    const group = 8 / (info.bits & -info.bits);
    first -= ((lowest % group) + group) % group;
  } else if (itemsize < 1) itemsize = 1;
  const length = entriesOf(info, isPacked, highest - first + 1);
  const address = data + header.byteOffset + first * itemsize;
  const end = address + length * info.array.BYTES_PER_ELEMENT;
  // What was rounded on the way is far beyond the end.
  if (!(address > 0 && end <= ADDRESSES && lowest >= -ADDRESSES)) {
    throw refusals.outOfMemory(header, shape, strides);
  }
  return { address, length, offset: 0 - first };
}
