import { consume, DlpackCapsule, type DlpackExporter } from "../ffi/capsule.ts";
import { MAX_NDIM, VERSION } from "../ffi/abi.ts";
import type { Header } from "../ffi/header.ts";
import type { Owner } from "../ffi/owner.ts";
import { entriesOf } from "./copy.ts";
import { deviceName, DeviceType, isHost } from "./device.ts";
import { describeDataType, dtypeByCode, type DTypeInfo } from "./dtype.ts";
import { BufferError } from "./errors.ts";
import { cStrides, describeShape, extentOf, sizeOf } from "./layout.ts";
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

function importTensor(
  owner: Owner,
  device: "cpu" | null,
  copy: boolean | null,
): Tensor {
  const header = owner.header();
  checkVersion(owner, header);
  checkHeader(header);
  const info = checkDType(header);
  const isPacked = info.bits < 8 && !header.isPadded;
  const { shape, strides } = readLayout(header, info, isPacked);
  const memory = locate(header, info, isPacked, shape, strides);
  checkRules(header, device, copy);
  const isOurs = header.isCopied && !header.readOnly;

  owner.consume(memory.length * info.array.BYTES_PER_ELEMENT);
  const storage = new NativeStorage(
    info,
    isPacked,
    header.readOnly,
    header.deviceType,
    header.deviceId,
    owner,
    memory.address,
    memory.length,
  );
  const view = makeTensor(storage, { shape, strides, offset: memory.offset });
  if (copy !== true || isOurs) return view;
  const copied = view.copy();
  owner.release();
  return copied;
}

function checkVersion(owner: Owner, { major, minor }: Header): void {
  if (owner.name === "dltensor" || major === VERSION[0]) return;
  throw new BufferError(
    "version",
    `Cannot import a DLPack ${major}.${minor} tensor: this module reads major ` +
      `version ${VERSION[0]}; ask the library for that, or for the legacy ` +
      "DLManagedTensor",
  );
}

function checkHeader({ ndim, deviceType, code, bits, lanes }: Header): void {
  if (ndim < 0 || ndim > MAX_NDIM) {
    throw new BufferError(
      "shape",
      `Cannot import a tensor with ${ndim} axes: 0 to ${MAX_NDIM} are possible`,
    );
  }
  if (deviceName(deviceType) === undefined) {
    throw new BufferError(
      "device",
      `Cannot import a tensor on device type ${deviceType}: DLPack has no such ` +
        "device",
    );
  }
  if (lanes === 0) {
    throw new BufferError(
      "dtype",
      `Cannot import elements of ${
        describeDataType(code, bits, lanes)
      }: there ` +
        "must be at least 1 lane",
    );
  }
}

function checkDType({ code, bits, lanes, isPadded }: Header): DTypeInfo {
  const info = dtypeByCode(code, bits);
  if (info === undefined) {
    throw new BufferError(
      "dtype",
      `Cannot import elements of ${describeDataType(code, bits, lanes)}: no ` +
        "dtype of this module; have the library convert them first",
    );
  }
  if (lanes > 1 && bits < 8 && !isPadded && bits * lanes % 8 !== 0) {
    throw new BufferError(
      "dtype",
      `Cannot import elements of ${describeDataType(code, bits, lanes)}: ` +
        `${bits * lanes} bits do not end on a byte`,
    );
  }
  return info;
}

interface Axes {
  readonly shape: number[];
  readonly strides: number[];
}

/** Reads shape and strides; lanes become a last axis. */
function readLayout(
  header: Header,
  info: DTypeInfo,
  isPacked: boolean,
): Axes {
  const { ndim, lanes } = header;
  if (ndim > 0 && !header.hasShape) {
    throw new BufferError(
      "shape",
      `Cannot import a tensor with ${ndim} axes: its shape is NULL`,
    );
  }
  const shape = header.readShape();
  checkShape(shape, lanes, info, isPacked);
  const isCompact = !header.hasStrides;
  const strides = isCompact ? cStrides(shape) : header.readStrides();
  if (lanes > 1) {
    for (let axis = 0; axis < ndim; axis++) strides[axis]! *= lanes;
    shape.push(lanes);
    strides.push(1);
  }
  if (!isCompact) checkStrides(shape, strides);
  return { shape, strides };
}

function checkShape(
  shape: readonly number[],
  lanes: number,
  info: DTypeInfo,
  isPacked: boolean,
): void {
  let size = lanes;
  for (let axis = 0; axis < shape.length; axis++) {
    const length = shape[axis]!;
    if (length < 0) {
      throw new BufferError(
        "shape",
        `Cannot import a tensor of shape ${describeShape(shape)}: lengths ` +
          "cannot be negative",
      );
    }
    // Lengths of 0 aside: a huge length beside one is as absurd, as in NumPy.
    if (length !== 0) size *= length;
  }
  const bytes = isPacked
    ? size / 8 * info.bits
    : size * Math.ceil(info.bits / 8);
  if (Number.isSafeInteger(size) && bytes <= Number.MAX_SAFE_INTEGER) return;
  throw new BufferError(
    "shape",
    `Cannot import a tensor of shape ${
      describeShape(shape)
    }: the size of its ` +
      `${info.name} elements overflows`,
  );
}

/** Where strides carry meaning they must be safe; elsewhere they are set right. */
function checkStrides(shape: readonly number[], strides: number[]): void {
  for (let axis = 0; axis < strides.length; axis++) {
    if (Number.isSafeInteger(strides[axis])) continue;
    if (sizeOf(shape) !== 0 && shape[axis]! > 1) {
      throw new BufferError(
        "shape",
        `Cannot import a tensor with strides ${describeShape(strides)}: they ` +
          "overflow",
      );
    }
    strides[axis] = cStrides(shape)[axis]!;
  }
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

function locate(
  header: Header,
  info: DTypeInfo,
  isPacked: boolean,
  shape: readonly number[],
  strides: readonly number[],
): Place {
  const { lowest, highest } = extentOf(shape, strides);
  if (highest < lowest) return { address: 0, length: 0, offset: 0 };
  if (header.data === 0) {
    throw new BufferError(
      "data",
      `Cannot import a tensor of shape ${
        describeShape(shape)
      }: its data is NULL`,
    );
  }
  // Packed elements: back to one that starts on a byte.
  const group = isPacked ? 8 / (info.bits & -info.bits) : 1;
  const first = isPacked ? lowest - ((lowest % group) + group) % group : lowest;
  const itemsize = isPacked ? info.bits / 8 : Math.ceil(info.bits / 8);
  const length = entriesOf(info, isPacked, highest - first + 1);
  const address = header.data + header.byteOffset + first * itemsize;
  const end = address + length * info.array.BYTES_PER_ELEMENT;
  // What overflows on the way is far beyond the end.
  if (!(address > 0 && end <= ADDRESSES && lowest >= -ADDRESSES)) {
    throw new BufferError(
      "shape",
      `Cannot import a tensor of shape ${describeShape(shape)} with strides ` +
        `${describeShape(strides)} at address ${header.data} + ` +
        `${header.byteOffset}: it reaches beyond the address space`,
    );
  }
  return { address, length, offset: 0 - first };
}

/** The end of what a process can address, on any 64-bit system. */
const ADDRESSES = 2 ** 48;

/** NumPy's rules of device and copy. */
function checkRules(
  header: Header,
  device: "cpu" | null,
  copy: boolean | null,
): void {
  if (!isHost(header.deviceType)) {
    const where = `${deviceName(header.deviceType)}:${header.deviceId}`;
    if (device === null) {
      throw new BufferError(
        "device",
        `Cannot view a tensor on ${where} from JavaScript: pass ` +
          '{ device: "cpu" } to copy it to the host',
      );
    }
    if (copy === false) {
      throw new BufferError(
        "copy",
        `Cannot import a tensor on ${where} without a copy: it is not in the ` +
          "host's memory; allow the copy",
      );
    }
    throw new BufferError(
      "device",
      `Cannot copy a tensor on ${where} to the host: this version has no ` +
        "runtime for that device; have the library copy it first",
    );
  }
  if (copy === false && header.isCopied) {
    throw new BufferError(
      "copy",
      "Cannot import without a copy: the exporter made one although it was " +
        "asked for none",
    );
  }
}
