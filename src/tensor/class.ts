import { exportCopy, exportShared } from "../../ffi/export.ts";
import { isPermitted } from "../../ffi/libc.ts";
import { type LentObject, Loan } from "../../ffi/loan.ts";
import { addressOfArray } from "../../ffi/memory.ts";
import { type Owner, sharesMemory } from "../../ffi/owner.ts";
import { shapeTable, stridesTable } from "../axes.ts";
import {
  capsuleOf,
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  giveAway,
  introduceTensor,
  type Introduction,
  loanOfCapsule,
} from "../capsule.ts";
import { convertElements } from "../convert/elements.ts";
import {
  copyElements,
  copyOf,
  type Elements,
  inOrder,
  moveElements,
} from "../copy/elements.ts";
import { allocate, giveBack, orNoMemory } from "../copy/memory.ts";
import { type Device, deviceName, DeviceType } from "../device.ts";
import {
  checkElement,
  type ElementAccess,
  elementAccess,
  present,
} from "../dtype/element.ts";
import { bytesOf, entriesOf, packingOf } from "../dtype/packing.ts";
import type {
  DType,
  DTypeIn,
  DTypeInfo,
  DTypeOfArray,
  ElementOf,
  NestedArray,
  TypedArray,
  TypedArrayOf,
} from "../dtype/table.ts";
import {
  BufferError,
  checkFlag,
  checkOptions,
  describe,
  MODULE,
  ourClasses,
} from "../errors.ts";
import {
  broadcastLayout,
  compactLayout,
  cStrides,
  describeShape,
  extentOf,
  isContiguous,
  type Layout,
  type Range,
  reshapeLayout,
  resolveIndex,
  sizeOf,
  sliceLayout,
  stridesToTell,
  transposeLayout,
  walk,
} from "../layout.ts";
import { accessOf, type Slow } from "./access.ts";
import {
  checkArray,
  checkAxes,
  checkDType,
  checkOut,
  checkPlacement,
  checkRequest,
  checkSame,
  checkShape,
  checkShapeOf,
} from "./check.ts";
import { displayTensor } from "./display.ts";
import { formatArray, inspectArray } from "./format.ts";
import { iterate } from "./iterators.ts";
import { placeOf, Reader } from "./reader.ts";
import { ArrayStorage, FEW, type Storage, transferred } from "./storage.ts";

export type { Range };

/**
 * How {@linkcode Tensor.from} is to read a typed array.
 *
 * @category Basics
 */
export interface TensorOptions<D extends DType = DType> {
  /** The dtype. Default: that of the typed array. */
  dtype?: D;
  /** In elements. Default: those of C order. */
  strides?: readonly (number | bigint)[];
  /** The index of element [0, …, 0], in elements. Default: 0. */
  offset?: number | bigint;
  /** Whether consumers must not write. Default: `false`. */
  readOnly?: boolean;
  /** Whether elements of fewer than 8 bits have a byte each. Default: `false`. */
  padded?: boolean;
}

let make: <D extends DType>(storage: Storage, layout: Layout) => Tensor<D>;
let slow: Slow;
let beginLoan: (tensor: unknown) => Loan | null;
let lendTensor: (tensor: unknown) => Loan | null;
let extrasOf: (tensor: Tensor) => Extras;
let objectIn: (value: unknown) => LentObject | null | undefined;
let lookInto: (tensor: Tensor) => Elements & { readonly data: TypedArray };

// What an overload's implementation takes nobody sees.
// deno-lint-ignore no-explicit-any
type Any = any;

/** Where copies are: a `DLDevice`. */
const CPU = [DeviceType.cpu, 0] as const;

/** Elements that are read or written before it is worth to make that faster. */
const FEW_ACCESSES = 2;
/** And before it is worth to make it as fast as an array's. */
const MANY_ACCESSES = 1024;

/** What is made of a tensor when it is first asked for. */
class Extras {
  /** How often an element was read or written, until there is a reader. */
  accesses = 0;
  reader: Reader | null = null;
  /** The `DLTensor` that native functions are lent. */
  loan: Loan | null = null;
  /** What another library has made of the tensor. */
  object: LentObject | null = null;
}

/** Only this file makes tensors by themselves. */
const KEY = Symbol("Tensor.from()");

/** What `structuredClone` and `postMessage` stumble over, and then show. */
const UNCLONEABLE = Symbol(
  "A Tensor, of which the memory would be lost: send its data, or the address " +
    "of release().take(),",
);

/**
 * A typed, strided view of memory: of a native library, shared and not
 * copied, or of JavaScript.
 *
 * `shape`, `strides` and `offset` say which elements of `data` it is made of,
 * all in elements: element `[i, j]` of a real-valued tensor is
 * `data[offset + i * strides[0] + j * strides[1]]`.
 *
 * Views made by `slice`, `transpose` and `reshape` have the same `data`. The
 * memory of a native library goes back to it when the tensor is disposed,
 * through any of its views, or when all of them are garbage. In a loop, dispose
 * of each import, best with `using`.
 *
 * Three things in JavaScript see no elements: `{ ...t }` has none,
 * `deepStrictEqual` of `node:assert` does not compare them (compare
 * `t.toArray()`), and `array.set(t)` of a typed array copies nothing: call
 * `t.copy({ out: array })`. `structuredClone` and `postMessage` throw, and
 * `JSON.stringify` gives nested arrays.
 *
 * `assertEquals` of `@std/assert` compares prototypes, and a tensor gets another
 * one when a thousand elements were read by `get` or written by `set`: compare
 * `t.toArray()`.
 *
 * @typeParam D The dtype; {@linkcode Tensor.is} narrows it.
 *
 * @example Look at a matrix by columns
 * ```ts
 * import { Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const t = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
 * assertEquals(t.transpose().toArray(), [[1, 4], [2, 5], [3, 6]]);
 * assertEquals(t.slice(null, -1).toArray(), [3, 6]);
 * assertEquals(t.get(1, 0), 4);
 * ```
 *
 * @category Basics
 */
export class Tensor<D extends DType = DType>
  implements DlpackExporter, Disposable, Iterable<ElementOf<D> | Tensor<D>> {
  // An own field, as the structured clone looks at nothing else.
  private readonly uncloneable = UNCLONEABLE;
  readonly #storage: Storage;
  readonly #layout: Layout;
  /** What most tensors are not asked for. */
  #extras: Extras | null = null;

  static {
    ourClasses.add(Tensor);
    make = (storage, layout) => new Tensor(KEY, storage, layout);
    slow = {
      get: (tensor, count, ...index) =>
        (tensor as Tensor).#get(index.slice(0, count), count),
      set: (tensor, count, ...args) =>
        (tensor as Tensor).#set(args.slice(0, count), count),
    };
    beginLoan = (value) => {
      const isTensor = typeof value === "object" && value !== null &&
        #extras in value;
      if (!isTensor) return null;
      const loan = value.#extras?.loan ?? null;
      if (loan !== null && loan.beginIfThere(value.#storage.live)) return loan;
      const again = value.#lend();
      again.begin();
      return again;
    };
    lendTensor = (value) =>
      typeof value === "object" && value !== null && #extras in value
        ? value.#lend()
        : null;
    extrasOf = (tensor) => tensor.#more;
    // No property: what compares tensors would find it.
    objectIn = (value) =>
      typeof value === "object" && value !== null && #extras in value
        ? value.#extras?.object
        : null;
    lookInto = (tensor) => {
      const { info, isPacked, data } = tensor.#storage;
      return { info, isPacked, data, layout: tensor.#layout };
    };
  }

  private constructor(key: symbol, storage: Storage, layout: Layout) {
    if (key !== KEY) {
      throw new TypeError(
        "Cannot construct a Tensor: use Tensor.from() or fromDlpack()",
      );
    }
    this.#storage = storage;
    this.#layout = layout;
  }

  /**
   * A tensor over JavaScript's memory, not copied.
   *
   * @param data The elements, or their raw bits: see {@linkcode DTypeMap}.
   * @param shape The lengths. Default: one axis with all elements.
   * @param options The dtype where the typed array does not tell it, strides
   * and offset in elements, and whether consumers may write.
   * @returns The tensor.
   * @throws {TypeError} When `data` is no typed array or does not hold that
   * dtype, or something else is of the wrong kind.
   * @throws {RangeError} When an element would lie outside of the typed array,
   * or some of it would be left over although there are neither strides nor an
   * offset.
   *
   * @example Raw bits as bfloat16
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const bits = new Uint16Array([0x3f80, 0x4000]);
   * const t = Tensor.from(bits, [2], { dtype: "bfloat16" });
   * assertEquals(t.toArray(), [1, 2]);
   * ```
   */
  static from<
    A extends TypedArray,
    D extends DTypeIn<A> = DTypeOfArray<A> & DTypeIn<A>,
  >(
    data: A,
    shape?: readonly (number | bigint)[],
    options: TensorOptions<D> = {},
  ): Tensor<D> {
    checkOptions("Tensor.from()", options);
    const info = checkArray(data, options.dtype);
    checkFlag("padded", options.padded);
    checkFlag("readOnly", options.readOnly);
    const isPacked = info.bits < 8 && options.padded !== true;
    const layout = checkPlacement(info, isPacked, data, shape, options);
    const entries = data.constructor === info.array
      ? data
      : new info.array(data.buffer, data.byteOffset, data.length);
    const readOnly = options.readOnly ?? false;
    const storage = new ArrayStorage(info, isPacked, readOnly, entries, false);
    return make(storage, layout);
  }

  /**
   * A tensor of JavaScript's memory, all zeros, to be filled: by
   * {@linkcode Tensor.assign | assign}, or by a native function.
   *
   * With permission for FFI, its first element is on a multiple of 64 bytes, as
   * vector instructions and some libraries ask for: `data` may then begin inside
   * of its buffer.
   *
   * @param shape The lengths.
   * @param dtype The data type.
   * @returns The tensor, in C order.
   * @throws {TypeError} When there is no such dtype, or the shape is no array of
   * numbers.
   * @throws {RangeError} When a length is negative, or no integer.
   * @throws {BufferError} `"copy"` when there is no memory for it.
   *
   * @example The result of a native function
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const image = Tensor.empty([2, 3], "float32");
   * image.slice(0).assign(1);
   * assertEquals(image.toArray(), [[1, 1, 1], [0, 0, 0]]);
   * ```
   */
  static empty<D extends DType>(
    shape: readonly (number | bigint)[],
    dtype: D,
  ): Tensor<D> {
    const info = checkDType(dtype);
    const isPacked = info.bits < 8;
    const lengths = checkShape(shape);
    const data = allocateAligned(info, isPacked, sizeOf(lengths));
    return over(info, isPacked, data, lengths);
  }

  /**
   * A tensor of JavaScript's memory, all zeros: the same as
   * {@linkcode Tensor.empty}, by NumPy's name.
   *
   * @param shape The lengths.
   * @param dtype The data type.
   * @returns The tensor, in C order.
   * @throws {TypeError} As `empty` does.
   * @throws {RangeError} As `empty` does.
   * @throws {BufferError} As `empty` does.
   */
  static zeros<D extends DType>(
    shape: readonly (number | bigint)[],
    dtype: D,
  ): Tensor<D> {
    return Tensor.empty(shape, dtype);
  }

  /** The data type's name. */
  get dtype(): D {
    return this.#storage.info.name as D;
  }

  /** The length of each axis. A frozen array. */
  get shape(): readonly number[] {
    return shapeTable.shown(this.#layout.shape);
  }

  /**
   * The step along each axis, in elements; negative and 0 are possible. A frozen
   * array.
   */
  get strides(): readonly number[] {
    return stridesTable.shown(this.#layout.strides);
  }

  /** The index of element [0, …, 0] in `data`, in elements. */
  get offset(): number {
    return this.#layout.offset;
  }

  /** The number of axes. */
  get ndim(): number {
    return this.#layout.shape.length;
  }

  /** The number of elements. */
  get size(): number {
    return sizeOf(this.#layout.shape);
  }

  /** The bits of one element. */
  get bits(): number {
    return this.#storage.info.bits;
  }

  /** The bytes that one element takes: a fraction for packed ones, 0.5 for `int4`. */
  get itemsize(): number {
    const { info, isPacked } = this.#storage;
    return packingOf(info, isPacked).bits / 8;
  }

  /** The bytes of all elements, packed ones rounded up. */
  get nbytes(): number {
    return Math.ceil(this.size * this.itemsize);
  }

  /** Where the memory is. */
  get device(): Device {
    const { deviceType, deviceId } = this.#storage;
    return { type: deviceName(deviceType)!, id: deviceId };
  }

  /**
   * Whether writing is forbidden: said by the producer, and always so for the
   * legacy struct, which cannot say (NumPy's rule).
   */
  get readOnly(): boolean {
    return this.#storage.readOnly;
  }

  /** Whether the elements lie in C order without gaps. */
  get isContiguous(): boolean {
    const { shape, strides } = this.#layout;
    return isContiguous(shape, strides);
  }

  /**
   * The memory itself, from the lowest to the highest element of what was
   * imported: no copy, the same typed array every time and in every view.
   * {@linkcode DTypeMap} says what it holds for each dtype.
   *
   * It keeps the memory alive, also when the tensor is gone. Once a library's
   * memory was given back, it is empty; a copy's stays as it was.
   *
   * JavaScript has no read-only typed array. You must not write to one of a
   * read-only tensor: that is undefined behaviour, and ends the process when the
   * memory is write-protected. Never transfer its buffer: to hand a tensor to a
   * Worker, send the address of `t.release().take()`.
   *
   * **Work that goes on after the call** must have ended before a library's
   * memory is given back, by `dispose` or by the garbage collector: wrap the
   * promise, `await t.during(file.write(t.bytes))`. Which functions copy what
   * they are given, and which read it later, in Deno 2.9 (in 2.7, Node's
   * `fs.write` reads later, too, and `FsFile.writable` need not throw):
   *
   * | functions | what they do |
   * | --- | --- |
   * | `Deno.writeFile`, `Blob`, `File`, `FormData`, `Response`, `Request`, `fetch`, `Deno.serve`, `Deno.Kv`, `structuredClone`, `postMessage` without transfer, `BroadcastChannel`, `WebSocket.send`, `crypto.subtle`, WebGPU's `writeBuffer`, Node's `createHash().update`, `Buffer.from`, `brotliCompress`, `fs.write` | copy at the call |
   * | `FsFile.write`, `Conn.write`, nonblocking functions of `Deno.dlopen`, Node's `pbkdf2` and `scrypt`, sharp, lmdb, the chunks of `conn.writable`, `Command.stdin` and Node's HTTP requests | read later: freed memory, when it was given back |
   * | `FsFile.read`, `Conn.read`, Node's `fs.read` | write later: into freed memory, when it was given back |
   * | `FsFile.writable`, `ReadableStream`, `Cache.put`, Node's `fs/promises.writeFile`, `createWriteStream`, `zlib.gzip` | read later, and throw when it was given back, the last two uncaught |
   * | `CompressionStream`, `TextDecoderStream`, Node's `socket.write` | read later, and take nothing, without a word, when it was given back |
   * | readers with `mode: "byob"` | fill the memory, and transfer the buffer: the tensor cannot be used any more, and is never freed. Use `file.read(t.bytes)`, or `t.data.set(chunk)` |
   *
   * Nonblocking functions that this module's {@linkcode dlopen} opens keep what
   * they are given themselves.
   *
   * @throws {BufferError} `"released"` when the memory is gone; `"data"` when it
   * is longer than 16 GiB and V8 older than 15.
   */
  get data(): TypedArrayOf<D> {
    return this.#storage.show() as TypedArrayOf<D>;
  }

  /**
   * All bytes of {@linkcode Tensor.data | data}: files and sockets of Deno take
   * nothing but a `Uint8Array`.
   *
   * @throws {BufferError} As `data` does.
   */
  get bytes(): Uint8Array<ArrayBuffer> {
    const { buffer, byteOffset, byteLength } = this.data;
    return new Uint8Array(buffer, byteOffset, byteLength);
  }

  /**
   * Reads one element.
   *
   * @param index One for each axis; negative ones count from the end.
   * @returns The element, as {@linkcode DTypeMap} says for each dtype.
   * @throws {RangeError} When an index is outside its axis or no integer, or
   * their number is not that of the axes.
   * @throws {TypeError} When an index is no number.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  get(...index: (number | bigint)[]): ElementOf<D>;
  get(i?: unknown, j?: unknown, k?: unknown, l?: unknown): unknown {
    if (arguments.length <= 4) {
      return this.#getFew(arguments.length, i, j, k, l);
    }
    // V8 makes no object of `arguments` as long as only entries are used.
    const index: unknown[] = [];
    for (let n = 0; n < arguments.length; n++) index.push(arguments[n]);
    return this.#get(index);
  }

  #getFew(
    count: number,
    i: unknown,
    j: unknown,
    k: unknown,
    l: unknown,
  ): unknown {
    const reader = this.#extras?.reader ?? null;
    if (reader !== null && count === reader.ndim) {
      const { storage } = reader;
      if (reader.uses < MANY_ACCESSES) this.#count(reader);
      const at = placeOf(reader, i, j, k, l);
      if (at >= 0) return reader.get(storage.live, at, reader.length, storage);
    }
    return this.#get([i, j, k, l].slice(0, count));
  }

  #get(index: readonly unknown[], count = index.length): unknown {
    const at = this.#indexOf(index, count);
    const value = this.#storage.read(at, this.#elements);
    this.#prepare();
    return value;
  }

  /**
   * Writes one element. Numbers are converted as typed arrays do it: integers
   * wrap around, floats are rounded to the nearest.
   *
   * @param args One index for each axis, then the value.
   * @throws {RangeError} When an index is outside its axis or no integer, or
   * their number is not that of the axes.
   * @throws {TypeError} When an index is no number, or the value is of another
   * kind than the elements are.
   * @throws {BufferError} `"readonly"` when the tensor is, `"released"` when
   * the memory is gone.
   */
  set(...args: [...index: (number | bigint)[], value: ElementOf<D>]): void;
  set(i?: Any, j?: Any, k?: Any, l?: Any, m?: Any, ..._: Any): void {
    if (arguments.length <= 5) {
      return this.#setFew(arguments.length, i, j, k, l, m);
    }
    const args: unknown[] = [];
    for (let n = 0; n < arguments.length; n++) args.push(arguments[n]);
    this.#set(args);
  }

  #setFew(
    count: number,
    i: unknown,
    j: unknown,
    k: unknown,
    l: unknown,
    m: unknown,
  ): void {
    const reader = this.#extras?.reader ?? null;
    if (reader !== null && count === reader.ndim + 1) {
      const { storage, ndim } = reader;
      if (reader.uses < MANY_ACCESSES) this.#count(reader);
      const at = placeOf(reader, i, j, k, l);
      const value = ndim === 1
        ? j
        : ndim === 2
        ? k
        : ndim === 3
        ? l
        : ndim === 4
        ? m
        : i;
      if (at >= 0 && typeof value === reader.writable) {
        return reader.set(storage.live, at, reader.length, storage, value);
      }
    }
    this.#set([i, j, k, l, m].slice(0, count));
  }

  #set(args: readonly unknown[], count = args.length): void {
    const at = this.#indexOf(args, count - 1);
    const storage = this.#storage;
    const { data, info } = storage;
    this.#checkWritable();
    const value = args[args.length - 1];
    checkElement(info, value);
    this.#elements.set(data, at, data.length, storage, value);
    this.#prepare();
  }

  get #elements(): ElementAccess {
    const { info, isPacked } = this.#storage;
    return elementAccess(info, isPacked);
  }

  /** After a few accesses the next ones are of the fast kind. */
  #prepare(): void {
    const more = this.#more;
    if (more.reader !== null || ++more.accesses <= FEW_ACCESSES) return;
    this.#makeReader();
  }

  /** After many accesses, V8 is to see those of this kind alone. */
  #count(reader: Reader): void {
    if (++reader.uses < MANY_ACCESSES) return;
    const { info } = reader.storage;
    accessOf(Tensor.prototype, slow, info, this.ndim)?.(this, reader);
  }

  #makeReader(): Reader | null {
    const storage = this.#storage;
    const isThere = storage.live.length === storage.length && storage.isFixed;
    if (!isThere) return null;
    return this.#more.reader ??= new Reader(storage, this.#layout);
  }

  get #more(): Extras {
    return this.#extras ??= new Extras();
  }

  #checkWritable(): void {
    if (!this.#storage.readOnly) return;
    throw new BufferError(
      "readonly",
      "Cannot write to a read-only tensor: call copy() for one of your own",
    );
  }

  #indexOf(index: readonly unknown[], count: number): number {
    const { shape, strides, offset } = this.#layout;
    if (count !== shape.length) {
      throw new RangeError(
        `Cannot index a tensor of ${counted(shape.length, "axis", "axes")} ` +
          `with ${counted(Math.max(count, 0), "index", "indices")}: ` +
          (count < shape.length
            ? "pass one for each axis, or slice() for a part" +
              (count < 0 ? "; the last argument of set() is the value" : "")
            : "pass one for each axis"),
      );
    }
    let at = offset;
    for (let axis = 0; axis < count; axis++) {
      const length = shape[axis]!;
      const i = index[axis] as number;
      const from0 = typeof i === "number" && i < 0 ? i + length : i;
      // The index itself: to add the length may round it to an integer.
      at += (Number.isInteger(i) && from0 >= 0 && from0 < length
        ? from0
        : resolveIndex(index[axis], axis, length)) * strides[axis]!;
    }
    return at;
  }

  /**
   * Cuts out a part, without a copy: NumPy's `x[1, :, ::-1]` is
   * `x.slice(1, null, [null, null, -1])`. Unlike the `slice` of an array, which
   * takes a start and an end, it takes one range for each axis: the first two
   * rows are `x.slice([0, 2])`.
   *
   * @param ranges For each axis: an index, which drops the axis; `null` for
   * all of it; or `[start, stop, step]` with Python's meaning. Axes that are
   * not named stay whole.
   * @returns A view.
   * @throws {RangeError} When there are more ranges than axes, an index is
   * outside its axis, or a step is 0.
   * @throws {TypeError} When a range is none of these.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  slice(...ranges: Range[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, sliceLayout(this.#layout, ranges));
  }

  /**
   * Reorders the axes, without a copy.
   *
   * @param axes The old axis for each new one. Default: all axes reversed, as
   * NumPy's `x.T`.
   * @returns A view.
   * @throws {RangeError} When an axis is not named exactly once.
   * @throws {TypeError} When an axis is no integer.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  transpose(...axes: number[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, transposeLayout(this.#layout, axes));
  }

  /**
   * The same elements, in C order, in another shape, without a copy.
   *
   * @param shape The new lengths, as an array; one may be -1: it is worked out.
   * @returns A view.
   * @throws {RangeError} When the number of elements differs.
   * @throws {TypeError} When it is no array of integers.
   * @throws {BufferError} `"layout"` when only a copy could do it,
   * `"released"` when the memory is gone.
   */
  reshape(shape: readonly (number | bigint)[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, reshapeLayout(this.#layout, shape));
  }

  /**
   * Writes to all elements: NumPy's `x[...] = source`, for any strides on both
   * sides, also where they overlap.
   *
   * @param source A tensor of the same dtype, which is broadcast as in NumPy; a
   * typed array of the class that `data` has, which is read in C order and must
   * have as many entries as the elements take; or one element for all.
   * @returns This tensor.
   * @throws {TypeError} When the source is of another dtype, which `astype`
   * converts, or of another class or kind.
   * @throws {RangeError} When its shape or length does not fit.
   * @throws {BufferError} `"readonly"` when this tensor is, `"released"` when
   * memory is gone.
   *
   * @example Fill an image whose rows are padded
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const memory = new Uint8Array(8); // two rows of 3, padded to 4
   * const image = Tensor.from(memory, [2, 3], { strides: [4, 1] });
   * image.assign(9);
   * image.slice(1).assign(new Uint8Array([1, 2, 3]));
   * assertEquals([...memory], [9, 9, 9, 0, 1, 2, 3, 0]);
   * ```
   */
  assign(source: Tensor<D> | TypedArray | ElementOf<D>): this {
    this.#checkWritable();
    const { info, isPacked, data } = this.#storage;
    const { shape } = this.#layout;
    let from: Elements & { readonly data: TypedArray };
    if (source instanceof Tensor) {
      checkSame(source.dtype, info.name);
      const { layout, ...rest } = lookInto(source);
      from = { ...rest, layout: broadcastLayout(layout, shape) };
    } else if (ArrayBuffer.isView(source)) {
      checkOut(
        source,
        info.array,
        entriesOf(info, isPacked, this.size),
        "from",
      );
      from = { info, isPacked, data: source, layout: compactLayout(shape) };
    } else {
      checkElement(info, source);
      const one = new info.array(entriesOf(info, isPacked, 1));
      this.#elements.set(one, 0, one.length, present, source);
      const layout = broadcastLayout(compactLayout([]), shape);
      from = { info, isPacked, data: one, layout };
    }
    assignElements(from, { info, isPacked, data, layout: this.#layout });
    return this;
  }

  /**
   * Copies the elements, in C order, into JavaScript's memory.
   *
   * New memory takes longer than most copies into it. In a loop, pass `out`; or
   * declare copies with `using` and read them by `get`, `slice` and iteration:
   * the memory of a disposed copy, whose `data` nobody asked for, is used again.
   *
   * @param options `out`: where to copy to; a typed array of the class that
   * `data` has, with as many entries as the elements take, or a tensor of the
   * same dtype and shape, in its own strides. Default: new memory.
   * @returns A writable tensor over the copy; `out`, if that is a tensor.
   * @throws {TypeError} When `out` is of another class or dtype.
   * @throws {RangeError} When `out` has another length or shape.
   * @throws {BufferError} `"released"` when the memory is gone, `"copy"` when
   * there is none for the copy, `"readonly"` when `out` is read-only.
   *
   * @example Copy into memory that is used again and again
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const t = Tensor.from(new Int32Array([1, 2, 3, 4]), [2, 2]);
   * const out = new Int32Array(4);
   * t.transpose().copy({ out });
   * assertEquals([...out], [1, 3, 2, 4]);
   * ```
   */
  copy(options: { out?: TypedArray | Tensor<D> } = {}): Tensor<D> {
    checkOptions("copy()", options);
    const layout = this.#layout;
    const { data, info, isPacked } = this.#storage;
    const { out } = options;
    if (out === undefined) {
      const copy = copyOf(info, isPacked, data, layout);
      return makeCopy(info, isPacked, copy, layout.shape);
    }
    if (out instanceof Tensor) {
      checkShapeOf(out.#layout.shape, layout.shape);
      return out.assign(this);
    }
    checkOut(out, info.array, entriesOf(info, isPacked, this.size));
    if (sharesMemory(out, data)) {
      // What is read must not have been overwritten.
      const apart = copyOf(info, isPacked, data, layout);
      out.set(apart as never);
      giveBack(apart);
    } else copyElements(info, isPacked, data, layout, out);
    return over(info, isPacked, out, layout.shape);
  }

  /**
   * A copy of another dtype, in C order, in JavaScript's memory.
   *
   * Integers wrap around; floats are cut off towards zero on their way to
   * integers, where NaN and infinities become 0, and rounded to the nearest
   * value, ties to even, on their way to narrower floats; complex numbers lose
   * their imaginary part on their way to real ones; all but 0 is `true`.
   *
   * @param dtype The dtype of the copy.
   * @param options `out`: where to write to; a typed array of the class that
   * `data` of that dtype has, with as many entries as the elements take, or a
   * tensor of that dtype and of the same shape, in its own strides. Default: new
   * memory.
   * @returns A writable tensor over the copy; `out`, if that is a tensor.
   * @throws {TypeError} When there is no such dtype, or `out` is of another
   * class or dtype.
   * @throws {RangeError} When `out` has another length or shape.
   * @throws {BufferError} `"dtype"` when one of the two is `handle`,
   * `"released"` when the memory is gone, `"copy"` when there is none for the
   * copy, `"readonly"` when `out` is read-only.
   *
   * @example Model weights in bfloat16 as float32
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const bits = new Uint16Array([0x3f80, 0xc000]);
   * const weights = Tensor.from(bits, [2], { dtype: "bfloat16" });
   * const values: Float32Array = weights.astype("float32").data;
   * assertEquals([...values], [1, -2]);
   * ```
   */
  astype<E extends DType>(
    dtype: E,
    options: { out?: TypedArray | Tensor<E> } = {},
  ): Tensor<E> {
    const info = checkDType(dtype);
    checkOptions("astype()", options);
    const { data, info: from, isPacked } = this.#storage;
    const { size } = this;
    const packs = info.bits < 8;
    const { out } = options;
    if (out instanceof Tensor) {
      checkShapeOf(out.#layout.shape, this.#layout.shape);
      out.#checkWritable();
      checkSame(out.dtype, dtype);
      using converted = this.astype(dtype);
      return out.assign(converted);
    }
    if (out !== undefined) {
      checkOut(out, info.array, entriesOf(info, packs, size));
    }
    // What is read must not have been overwritten.
    const isApart = out === undefined || sharesMemory(out, data);
    const into = isApart ? allocate(info, packs, size) : out;
    const side = { info, isPacked: packs, data: into };
    convertElements({ info: from, isPacked, data }, this.#layout, side);
    if (out === undefined) return makeCopy(info, packs, into, this.shape);
    if (isApart) {
      out.set(into as never);
      giveBack(into);
    }
    return over(info, packs, out, this.shape);
  }

  /**
   * The elements in nested arrays, as NumPy's `tolist`; of a tensor without
   * axes, the element.
   *
   * @returns Arrays as deep as there are axes.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  toArray(): NestedArray<ElementOf<D>> {
    const { shape, strides, offset } = this.#layout;
    const { data } = this.#storage;
    const { length: entries } = data;
    const elements = this.#elements;
    if (shape.length === 0) {
      return elements.get(data, offset, entries, present) as ElementOf<D>;
    }
    const nest = (axis: number, start: number): NestedArray<ElementOf<D>>[] => {
      const length = shape[axis]!;
      const stride = strides[axis]!;
      // V8 makes a hash table of a longer one that is made at once.
      const array = length < 2 ** 25
        ? new Array<NestedArray<ElementOf<D>>>(length)
        : [];
      const isLast = axis === shape.length - 1;
      for (let i = 0, at = start; i < length; i++, at += stride) {
        array[i] = isLast
          ? elements.get(data, at, entries, present) as ElementOf<D>
          : nest(axis + 1, at);
      }
      return array;
    };
    return nest(0, offset);
  }

  /**
   * What `JSON.stringify` shows: the same as {@linkcode Tensor.toArray}, but
   * bigints as strings, which JSON has no numbers for.
   *
   * @returns Nested arrays, or the element of a tensor without axes.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  toJSON(): unknown {
    const { kind } = this.#storage.info;
    const array = this.toArray();
    if (kind !== "bigint" && kind !== "handle") return array;
    const asText = (value: unknown): unknown =>
      Array.isArray(value) ? value.map(asText) : String(value);
    return asText(array);
  }

  /**
   * Goes over the first axis: elements of a tensor with one axis, views of one
   * with more.
   *
   * @returns The iterator.
   * @throws {TypeError} When there are no axes.
   */
  [Symbol.iterator](): IterableIterator<ElementOf<D> | Tensor<D>>;
  [Symbol.iterator](): unknown {
    const storage = this.#storage;
    const {
      shape: [length, ...shape],
      strides: [stride = 0, ...strides],
      offset,
    } = this.#layout;
    if (length === undefined) {
      throw new TypeError(
        "Cannot iterate over a tensor without axes: use get()",
      );
    }
    if (shape.length === 0) {
      // It is not worth to make `data` for a few.
      if (length > FEW) void storage.data;
      return iterate(length, (i) => this.get(i), this.#makeReader());
    }
    return iterate(length, (i) => {
      storage.check();
      return make(storage, { shape, strides, offset: offset + i * stride });
    });
  }

  /**
   * Whether the tensor has that dtype: narrows the types of `data`, `get` and
   * `set`.
   *
   * @param dtype The dtype to ask for.
   * @returns Whether it is the tensor's.
   *
   * @example Numbers, not bigints
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   *
   * function first(t: Tensor): number {
   *   if (!t.is("float32")) throw new TypeError(`Not float32: ${t.dtype}`);
   *   return t.get(0);
   * }
   * first(Tensor.from(new Float32Array([1])));
   * ```
   */
  is<E extends DType>(dtype: E): this is Tensor<E> {
    return (this.dtype as DType) === dtype;
  }

  /**
   * Keeps the memory as it is until the result is disposed: over `dispose` and
   * garbage collection. For native code that goes on using the memory after a
   * call, such as an index over a dataset or a kernel on a stream. The structs
   * that functions were lent of this very tensor stay, too; a view has its own.
   *
   * A tensor that is disposed meanwhile cannot be used any more, but its memory
   * is given back, and its typed arrays become empty, only at the end of the
   * last hold. At exit the memory is left alone.
   *
   * @returns What ends it.
   * @throws {BufferError} `"released"` when the memory is gone.
   *
   * @example Lend a tensor for longer than a call
   * ```ts
   * import { fromDlpack, Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const t = fromDlpack(Tensor.from(new Float32Array([1, 2])));
   * const { data } = t;
   * const held = t.hold();
   * t[Symbol.dispose]();
   * assertEquals(data.length, 2); // still there
   * held[Symbol.dispose]();
   * assertEquals(data.length, 0);
   * ```
   */
  hold(): Disposable {
    return this.#storage.hold(this);
  }

  /**
   * Keeps the memory as it is until a promise has settled: for work that reads
   * or writes `data` after the call that began it. {@linkcode Tensor.data} says
   * which functions do.
   *
   * @param pending The promise of the work.
   * @returns What that promise gives, or is rejected with, once the memory is not
   * kept any more.
   * @throws {TypeError} When it is no promise.
   * @throws {BufferError} `"released"` when the memory is gone.
   *
   * @example Write a tensor to a file
   * ```ts
   * import { fromDlpack, Tensor } from "@dlpack/deno";
   *
   * async function save(path: string): Promise<void> {
   *   using t = fromDlpack(Tensor.from(new Float32Array([1, 2])));
   *   using file = await Deno.open(path, { write: true });
   *   await t.during(file.write(t.bytes));
   * }
   * await save("/dev/null");
   * ```
   */
  during<T>(pending: PromiseLike<T>): Promise<T> {
    if (typeof pending?.then !== "function") {
      throw new TypeError(
        `Cannot keep the memory during ${
          describe(pending)
        }: pass the promise ` +
          "of the work",
      );
    }
    const held = this.hold();
    return Promise.resolve(pending).finally(() => held[Symbol.dispose]());
  }

  /**
   * Gives an imported tensor up without running its deleter: for another
   * consumer, or a Worker, which gets the address of what the capsule's
   * {@linkcode DlpackCapsule.take | take} returns. A capsule that is not taken
   * from still owns the struct, and releases it when it is garbage.
   * The whole managed tensor is given up, whatever this view shows of it, and
   * every view of it becomes empty. A Worker must dispose of what it imported
   * before it ends, as Deno fires no event there.
   *
   * @returns The capsule, unconsumed.
   * @throws {BufferError} `"released"` when the memory is gone, `"data"` when
   * it is JavaScript's own, `"consumed"` while an export, a call or a hold uses
   * it.
   *
   * @example Give a tensor up, and import it again
   * ```ts
   * import { fromDlpack, Tensor } from "@dlpack/deno";
   * import { assertEquals } from "@std/assert";
   *
   * const t = fromDlpack(Tensor.from(new Float32Array([1, 2])));
   * const { data } = t;
   * using again = fromDlpack(t.release());
   * assertEquals(again.toArray(), [1, 2]);
   * assertEquals(data.length, 0);
   * ```
   */
  release(): DlpackCapsule {
    this.#storage.check();
    const { owner } = this.#storage;
    if (owner === null) {
      throw new BufferError(
        "data",
        "Cannot release a tensor over JavaScript's memory: export it with " +
          "__dlpack__()",
      );
    }
    return giveAway(owner);
  }

  /**
   * Exports the tensor for another consumer: the array API's `__dlpack__`.
   *
   * The memory is shared, and lives until the consumer calls the deleter, also
   * when the tensor was disposed or collected meanwhile. With `copy: true` the
   * consumer gets a copy of its own.
   *
   * What the consumer must know:
   *
   * - The deleter of shared memory is JavaScript, and runs on this thread. A call
   *   from another thread waits until this thread's event loop turns. A native
   *   function that waits for such a thread must therefore be `nonblocking`:
   *   else both wait for ever.
   * - It must not be called while the process is being torn down, nor after the
   *   Worker that exported has ended: it would wait for ever. Export with
   *   `copy: true` what may outlive the Worker.
   * - The deleter of a copy is plain C and can be called from any thread at any
   *   time, with the very struct that was handed out, not with a copy of it.
   * - An ArrayBuffer of JavaScript must not be transferred while it is shared.
   *
   * @param request What the consumer understands and wants. Without
   * `maxVersion`, or with one below 1, it gets the legacy struct.
   * @returns A capsule that owns the exported struct.
   * @throws {TypeError} When a stream is asked of host memory, or an argument
   * is of the wrong kind.
   * @throws {BufferError} `"released"` when the memory is gone; `"device"` when
   * it is not where the consumer wants it; `"readonly"` when it is read-only,
   * which a legacy struct cannot say; `"dtype"` when a legacy struct cannot
   * say how the elements lie: padded ones, and uint1; `"shape"` when there are more than 64 axes;
   * `"layout"` when packed elements do not start on a byte; `"data"` when the
   * ArrayBuffer is resizable; `"copy"` when there is no memory for a copy.
   */
  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const storage = this.#storage;
    storage.check();
    const versioned = checkRequest(request, storage);
    checkAxes(this.ndim);
    const isCopied = request.copy === true;
    if (!versioned) this.#checkLegacy(isCopied);
    return isCopied
      ? this.#exportCopy(versioned)
      : this.#share(versioned, false, request.dlDevice);
  }

  /** Checks that a legacy struct can say what this is. */
  #checkLegacy(isCopied: boolean): void {
    const { info, isPacked, readOnly } = this.#storage;
    if (readOnly && !isCopied) {
      throw new BufferError(
        "readonly",
        "Cannot export a read-only tensor as a legacy struct, which cannot " +
          "say so: ask for maxVersion [1, 0] or newer, or for a copy",
      );
    }
    if (info.bits < 8 && !isPacked) {
      throw new BufferError(
        "dtype",
        `Cannot export padded ${info.name} elements as a legacy struct, which ` +
          "cannot say so: ask for maxVersion [1, 1] or newer",
      );
    }
    if (info.name === "uint1") {
      throw new BufferError(
        "dtype",
        "Cannot export uint1 elements as a legacy struct, where they mean a " +
          "bool in a byte: ask for maxVersion [1, 0] or newer, or export " +
          'astype("bool")',
      );
    }
  }

  /** A struct over this very memory. */
  #share(
    versioned: boolean,
    isCopied: boolean,
    // Pinned memory is the CPU's as well, where that is asked for.
    device: readonly [type: number, id: number] | null | undefined,
  ): DlpackCapsule {
    const { info, isPacked, readOnly } = this.#storage;
    const { code, bits } = info;
    const { shape, strides } = this.#layout;
    const spec = {
      versioned,
      readOnly,
      isCopied,
      isPadded: bits < 8 && !isPacked,
      device: device ?? deviceOf(this.#storage),
      code,
      bits,
      lanes: 1,
      shape,
      strides: stridesToTell(shape, strides),
      data: this.#start(),
      byteOffset: 0n,
    };
    const nbytes = bytesOf(packingOf(info, isPacked), sizeOf(shape));
    return capsuleOf(exportShared(spec, nbytes, this.#keeper()));
  }

  /** A struct of a copy, which is the consumer's alone. */
  #exportCopy(versioned: boolean): DlpackCapsule {
    const { info, isPacked, data } = this.#storage;
    const { shape } = this.#layout;
    const spec = {
      versioned,
      readOnly: false,
      isCopied: true,
      isPadded: info.bits < 8 && !isPacked,
      device: CPU,
      code: info.code,
      bits: info.bits,
      lanes: 1,
      shape,
      strides: cStrides(shape),
      byteOffset: 0n,
    };
    const { elements, isCopy } = inOrder(info, isPacked, data, this.#layout);
    try {
      const owner = exportCopy(spec, elements);
      return owner === null
        ? this.copy().#share(versioned, true, null)
        : capsuleOf(owner);
    } finally {
      if (isCopy) giveBack(elements);
    }
  }

  /** The address of element [0, …, 0]: 0 when there is none. */
  #start(): bigint {
    if (this.size === 0) return 0n;
    const byteOffset = this.#layout.offset * this.itemsize;
    if (Number.isInteger(byteOffset)) {
      return this.#storage.addressAt(byteOffset);
    }
    throw new BufferError(
      "layout",
      `Cannot export ${this.dtype} elements that start inside a byte: ask ` +
        "for a copy",
    );
  }

  /** Who gives the memory back, or is the memory, while C uses it. */
  #keeper(): Owner | TypedArray | null {
    if (this.size === 0) return null;
    return this.#storage.owner ?? this.#storage.show();
  }

  #lend(): Loan {
    const storage = this.#storage;
    storage.check();
    const loan = this.#more.loan ??= this.#makeLoan();
    loan.see(storage.live);
    return loan;
  }

  #makeLoan(): Loan {
    const storage = this.#storage;
    checkAxes(this.ndim);
    const { info: { code, bits }, isPacked, readOnly } = storage;
    const { shape, strides } = this.#layout;
    const spec = {
      device: this.__dlpack_device__(),
      code,
      bits,
      lanes: 1,
      shape,
      strides,
      data: this.#start(),
      byteOffset: 0n,
      readOnly,
      isCopied: false,
      isPadded: bits < 8 && !isPacked,
    };
    return new Loan(spec, this.#keeper(), storage.caches);
  }

  /**
   * Where the memory is.
   *
   * @returns A `DLDeviceType` and an id.
   */
  __dlpack_device__(): readonly [type: number, id: number] {
    return [this.#storage.deviceType, this.#storage.deviceId];
  }

  /**
   * Gives the memory back, now, and makes the tensor and all of its views
   * unusable. Idempotent.
   *
   * A library's memory goes to the library: its deleter runs, and `data`, with
   * every typed array over the same buffer, is empty then. JavaScript's memory
   * stays with whoever was handed `data`.
   *
   * In the hottest loops call it in a `finally`: in V8 of today `using` itself
   * takes about as long as an import.
   */
  [Symbol.dispose](): void {
    this.#storage.release();
  }

  /**
   * The elements as NumPy prints them, summarised when there are more than
   * 1000.
   *
   * @returns The text, without dtype and shape.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  toString(): string {
    return formatArray(this);
  }

  /**
   * What another copy of this module asks first.
   *
   * @ignore
   */
  [MODULE](): Introduction {
    return introduceTensor(!this.readOnly);
  }

  /**
   * What `console.log` shows: dtype, shape, strides, device and elements. They
   * are summarised as by {@linkcode Tensor.toString | toString}, or above the
   * `iterableLimit` of `Deno.inspect`, which also says how wide a line may be.
   *
   * @param inspect Deno's.
   * @param options Those of `Deno.inspect`.
   * @returns The text.
   *
   * @example All elements, however many
   * ```ts
   * import { Tensor } from "@dlpack/deno";
   *
   * const t = Tensor.zeros([40, 40], "float32");
   * console.log(Deno.inspect(t, { iterableLimit: Infinity, breakLength: 200 }));
   * ```
   */
  [Symbol.for("Deno.customInspect")](
    inspect?: unknown,
    options: Deno.InspectOptions = {},
  ): string {
    void inspect; // Deno passes it first
    const { head, shown } = this.#describe();
    const name = `Tensor ${this.dtype} ${describeShape(this.#layout.shape)}`;
    return inspectArray(name, head, shown, options);
  }

  /**
   * What a notebook shows, with Deno's Jupyter kernel: dtype, shape, strides,
   * device, and the elements as a table. Of uint8 or float elements, and of shape
   * [H, W], [H, W, 1], [H, W, 3], [H, W, 4] or [3, H, W], it shows the picture:
   * the least float is black and the greatest white, or in colours 0 and 1 are,
   * unless some lie outside; what is no number is transparent.
   *
   * @returns For each MIME type the text of it; of a picture, base64.
   */
  [Symbol.for("Jupyter.display")](): Promise<Record<string, string>> {
    const { head, shown } = this.#describe();
    return displayTensor(head, shown);
  }

  /** A line about it, and what can be shown of it. */
  #describe(): { head: string; shown: Tensor<D> | null } {
    const { type, id } = this.device;
    const { shape, strides } = this.#layout;
    const head = `Tensor ${this.dtype} ${describeShape(shape)}, strides ` +
      `${describeShape(strides)}, ${type}:${id}`;
    if (this.#storage.isReleased) {
      return { head: `${head}, released`, shown: null };
    }
    return { head: head + (this.readOnly ? ", read-only" : ""), shown: this };
  }
}

/** A `DLDevice`: of the CPU, as nearly always, the one that is there already. */
function deviceOf(
  { deviceType, deviceId }: Storage,
): readonly [type: number, id: number] {
  return deviceType === DeviceType.cpu && deviceId === 0
    ? CPU
    : [deviceType, deviceId];
}

/**
 * For other files of this module: the `DLTensor` of a tensor, or `null` for
 * what is none.
 *
 * @throws {BufferError} `"released"` when the memory is gone; `"dtype"`,
 * `"layout"` or `"data"` when a `DLTensor` cannot say what it is.
 */
export function loanOf(tensor: unknown): Loan | null {
  return lendTensor(tensor);
}

/**
 * For other files of this module: the same, with a call begun.
 *
 * @throws {BufferError} As `loanOf` does: then none was begun.
 */
export function begunLoanOf(tensor: unknown): Loan | null {
  return beginLoan(tensor);
}

/**
 * For other files of this module: what another library has made of a tensor, if
 * anything, unchecked. Of what is no tensor that is nothing.
 */
export function lentObjectOf(value: unknown): LentObject | null | undefined {
  return objectIn(value);
}

/** For other files of this module: says what was made of a tensor. */
export function keepObject(tensor: Tensor, object: LentObject): void {
  extrasOf(tensor).object = object;
}

/**
 * The address of element [0, …, 0], for C functions that take bare memory where
 * a symbol table does not help: inside of a struct, say. Nothing keeps the memory
 * meanwhile: {@linkcode Tensor.hold} does, and in the symbol table of
 * {@linkcode dlopen} `"data*"` does both.
 *
 * @param tensor A tensor, or a capsule, of memory on any device that has
 * addresses.
 * @returns The address; 0 when there are no elements.
 * @throws {TypeError} When it is neither.
 * @throws {BufferError} `"released"` or `"consumed"` when the memory is gone;
 * `"layout"` when packed elements do not start on a byte, or the device has a
 * handle in the place of an address and the elements begin within it.
 *
 * @example A tensor inside of a struct
 * ```ts
 * import { addressOf, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const t = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
 * using _held = t.hold();
 * // struct { const float *first; int64_t row_stride; }
 * const view = new BigInt64Array([addressOf(t), BigInt(t.strides[0]!)]);
 * assertEquals(addressOf(t.slice(1)) - view[0]!, 8n);
 * ```
 *
 * @category C functions
 */
export function addressOf(tensor: Tensor | DlpackCapsule): bigint {
  const loan = loanOf(tensor) ??
    (tensor instanceof DlpackCapsule ? loanOfCapsule(tensor) : null);
  if (loan === null) {
    throw new TypeError(
      `Cannot give the address of ${describe(tensor)}: pass a Tensor or a ` +
        "DlpackCapsule",
    );
  }
  if (loan.byteOffset === 0n) return loan.data;
  throw new BufferError(
    "layout",
    `Cannot give the address of a tensor that begins ${loan.byteOffset} bytes ` +
      "into what its device has a handle for, and no address",
  );
}

/** For other files of this module: a tensor over some storage. */
export function makeTensor(storage: Storage, layout: Layout): Tensor {
  return make(storage, layout);
}

/**
 * Checks, as often as it is called, that a tensor's memory is as it is now: a
 * script may transfer or resize it between two steps. Dispose is no matter, as
 * whoever asks holds the tensor.
 */
export function presenceOf(tensor: Tensor): () => void {
  const { data } = lookInto(tensor);
  const { length } = data;
  return () => {
    if (data.length !== length) throw transferred();
  };
}

/** For other files of this module: the elements that a tensor is made of. */
export function elementsOf(
  tensor: Tensor,
): Elements & { readonly data: TypedArray } {
  return lookInto(tensor);
}

/** What vector instructions and libraries ask for, in bytes. */
const ALIGNMENT = 64;

/** Zeros for elements, the first of which is on a multiple of 64 bytes, where addresses can be seen. */
function allocateAligned(
  info: DTypeInfo,
  isPacked: boolean,
  size: number,
): TypedArray {
  const entries = entriesOf(info, isPacked, size);
  const bytes = entries * info.array.BYTES_PER_ELEMENT;
  const make = (slack: number): ArrayBuffer =>
    orNoMemory(() => new ArrayBuffer(bytes + slack), info, size, bytes);
  if (entries === 0 || !isPermitted()) return new info.array(make(0));
  const buffer = make(ALIGNMENT);
  const beyond = Number(
    addressOfArray(new Uint8Array(buffer)) % BigInt(ALIGNMENT),
  );
  return new info.array(buffer, (ALIGNMENT - beyond) % ALIGNMENT, entries);
}

/** A number of things. */
function counted(count: number, one: string, more: string): string {
  return `${count} ${count === 1 ? one : more}`;
}

/** Writes elements to others, which may be the same in part. */
function assignElements(
  from: Elements & { readonly data: TypedArray },
  into: Elements & { readonly data: TypedArray },
): void {
  const { info, isPacked } = from;
  const { shape } = into.layout;
  if (sizeOf(shape) === 0) return;
  if (isPacked !== into.isPacked) {
    // One has a byte for each element, the other has not.
    const read = elementAccess(info, isPacked);
    const write = elementAccess(info, into.isPacked);
    const places: number[] = [];
    walk(into.layout, (at) => places.push(at));
    const elements: unknown[] = [];
    walk(
      from.layout,
      (at) => elements.push(read.get(from.data, at, from.data.length, present)),
    );
    const { data } = into;
    places.forEach((at, i) =>
      write.set(data, at, data.length, present, elements[i])
    );
    return;
  }
  if (sharesMemory(spanOf(from), spanOf(into))) {
    // What is read must not have been overwritten.
    const data = copyOf(info, isPacked, from.data, from.layout);
    const layout = compactLayout(shape);
    moveElements(info, isPacked, data, layout, into.data, into.layout);
    giveBack(data);
    return;
  }
  moveElements(info, isPacked, from.data, from.layout, into.data, into.layout);
}

/** The part of a typed array that elements lie in. */
function spanOf(
  { info, isPacked, layout, data }: Elements & { readonly data: TypedArray },
): TypedArray {
  const { lowest, highest } = extentOf(layout.shape, layout.strides);
  const first = layout.offset + lowest;
  const end = layout.offset + highest + 1;
  const perEntry = isPacked ? info.bits / 8 : entriesOf(info, false, 1);
  return data.subarray(Math.floor(first * perEntry), Math.ceil(end * perEntry));
}

/** A tensor over a typed array that somebody has, in C order. */
function over<D extends DType>(
  info: DTypeInfo,
  isPacked: boolean,
  data: TypedArray,
  shape: readonly number[],
): Tensor<D> {
  const storage = new ArrayStorage(info, isPacked, false, data, false);
  return make(storage, compactLayout(shape));
}

/** For other files of this module: a tensor over a copy, in C order. */
export function makeCopy<D extends DType>(
  info: DTypeInfo,
  isPacked: boolean,
  data: TypedArray,
  shape: readonly number[],
): Tensor<D> {
  const storage = new ArrayStorage(info, isPacked, false, data, true);
  return make(storage, compactLayout(shape));
}
