import { MAX_NDIM } from "../../ffi/abi.ts";
import {
  exportCopy,
  exportShared,
  type ExportSpec,
  lend,
  type Loan,
} from "../../ffi/export.ts";
import { type Owner, sharesMemory } from "../../ffi/owner.ts";
import {
  capsuleOf,
  type DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  giveAway,
} from "../capsule.ts";
import { convertElements } from "../convert/elements.ts";
import { copyElements, copyOf } from "../copy/elements.ts";
import { allocate, giveBack, pin } from "../copy/memory.ts";
import { type Device, deviceName, DeviceType, isHost } from "../device.ts";
import {
  checkElement,
  type ElementAccess,
  elementAccess,
} from "../dtype/element.ts";
import { entriesOf, packingOf } from "../dtype/packing.ts";
import {
  type DType,
  dtypeByName,
  type DTypeInfo,
  dtypeNames,
  type DTypeOfArray,
  dtypeOfArray,
  type ElementOf,
  type TypedArray,
  type TypedArrayOf,
} from "../dtype/table.ts";
import { BufferError } from "../errors.ts";
import {
  compactLayout,
  cStrides,
  describeShape,
  extentOf,
  isContiguous,
  type Layout,
  type Range,
  reshapeLayout,
  sizeOf,
  sliceLayout,
  transposeLayout,
} from "../layout.ts";
import { formatArray } from "./format.ts";
import { ArrayStorage, type Storage } from "./storage.ts";

export type { Range };

/** How {@linkcode Tensor.from} is to read a typed array. */
export interface TensorOptions<D extends DType = DType> {
  /** The dtype; none: that of the typed array. */
  dtype?: D;
  /** In elements; none: C order. */
  strides?: readonly number[];
  /** The index of element [0, …, 0], in elements; none: 0. */
  offset?: number;
  /** Whether consumers must not write; none: they may. */
  readOnly?: boolean;
  /** Whether elements of fewer than 8 bits have a byte each; none: packed. */
  padded?: boolean;
}

let make: <D extends DType>(storage: Storage, layout: Layout) => Tensor<D>;
let lendTensor: (tensor: unknown) => Loan | null;

/**
 * A typed, strided view of memory: of a native library, shared and not
 * copied, or of JavaScript.
 *
 * `shape`, `strides` and `offset` say which elements of `data` it is made of,
 * all in elements: element `[i, j]` of a real-valued tensor is
 * `data[offset + i * strides[0] + j * strides[1]]`.
 *
 * Views made by `slice`, `transpose` and `reshape` have the same `data`. The
 * memory of a native library goes back to it when it is disposed, through any
 * of its views, or when all of them are garbage: dispose, best with `using`,
 * what a loop imports.
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
 */
export class Tensor<D extends DType = DType>
  implements DlpackExporter, Disposable, Iterable<unknown> {
  /** The data type's name. */
  readonly dtype: D;
  /** The length of each axis. */
  readonly shape: readonly number[];
  /** The step along each axis, in elements; negative and 0 are possible. */
  readonly strides: readonly number[];
  /** The index of element [0, …, 0] in `data`, in elements. */
  readonly offset: number;
  readonly #storage: Storage;
  #access: ElementAccess | null = null;
  /** The `DLTensor` of this view, once a native function has asked for it. */
  #loan: Loan | null = null;

  static {
    make = (storage, layout) => new Tensor(storage, layout);
    lendTensor = (tensor) =>
      typeof tensor === "object" && tensor !== null && #loan in tensor
        ? tensor.#lend()
        : null;
  }

  private constructor(storage: Storage, layout: Layout) {
    this.#storage = storage;
    this.dtype = storage.info.name as D;
    this.shape = layout.shape;
    this.strides = layout.strides;
    this.offset = layout.offset;
  }

  /**
   * A tensor over JavaScript's memory, not copied.
   *
   * @param data The elements, or their raw bits: see {@linkcode DTypeMap}.
   * @param shape The lengths; none: one axis with all elements.
   * @param options The dtype where the typed array does not tell it, strides
   * and offset in elements, and whether consumers may write.
   * @returns The tensor.
   * @throws {TypeError} When the typed array does not hold that dtype.
   * @throws {RangeError} When an element would lie outside of the typed array.
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
  static from<A extends TypedArray, D extends DType = DTypeOfArray<A>>(
    data: A,
    shape?: readonly number[],
    options: TensorOptions<D> = {},
  ): Tensor<D> {
    const info = infoFor(data, options.dtype);
    const isPacked = info.bits < 8 && options.padded !== true;
    const perElement = isPacked ? info.bits / 8 : entriesOf(info, isPacked, 1);
    const capacity = Math.floor(data.length / perElement);
    const lengths = [...shape ?? [capacity]];
    const layout = {
      shape: lengths,
      strides: [...options.strides ?? cStrides(lengths)],
      offset: options.offset ?? 0,
    };
    checkLayout(layout, capacity);
    const entries = data.constructor === info.array
      ? data
      : new info.array(data.buffer, data.byteOffset, data.length);
    const readOnly = options.readOnly ?? false;
    const storage = new ArrayStorage(info, isPacked, readOnly, entries, false);
    return make(storage, layout);
  }

  /** The number of axes. */
  get ndim(): number {
    return this.shape.length;
  }

  /** The number of elements. */
  get size(): number {
    return sizeOf(this.shape);
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
    return isContiguous(this.shape, this.strides);
  }

  /**
   * The memory itself, from the lowest to the highest element of what was
   * imported: no copy, the same typed array every time and in every view.
   * What it holds for each dtype says {@linkcode DTypeMap}.
   *
   * It keeps the memory alive, also when the tensor is gone, and is empty
   * once the memory was given back. JavaScript has no read-only typed array:
   * writing to one of a read-only tensor is undefined behaviour, and ends the
   * process when the memory is write-protected. Never transfer its buffer (to
   * a Worker, say): send {@linkcode Tensor.release | release}`().take()`.
   *
   * @throws {BufferError} `"released"` when the memory is gone; `"data"` when it
   * is longer than 16 GiB and V8 older than 15.
   */
  get data(): TypedArrayOf<D> {
    return this.#storage.data as TypedArrayOf<D>;
  }

  /**
   * Reads one element.
   *
   * @param index One for each axis; negative ones count from the end.
   * @returns The element, as {@linkcode DTypeMap} says for each dtype.
   * @throws {RangeError} When an index is outside its axis, or their number
   * is not that of the axes.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  get(...index: number[]): ElementOf<D> {
    const at = this.#indexOf(index, index.length);
    return this.#storage.read(at, this.#elements) as ElementOf<D>;
  }

  /**
   * Writes one element. Numbers are converted as typed arrays do it: integers
   * wrap around, floats are rounded to the nearest.
   *
   * @param args One index for each axis, then the value.
   * @throws {RangeError} When an index is outside its axis, or their number
   * is not that of the axes.
   * @throws {TypeError} When the value is of another kind.
   * @throws {BufferError} `"readonly"` when the tensor is, `"released"` when
   * the memory is gone.
   */
  set(...args: [...index: number[], value: ElementOf<D>]): void {
    const at = this.#indexOf(args as number[], args.length - 1);
    const { data, info, readOnly } = this.#storage;
    if (readOnly) {
      throw new BufferError(
        "readonly",
        "Cannot write to a read-only tensor: call copy() for one of your own",
      );
    }
    const value = args[args.length - 1];
    checkElement(info, value);
    this.#elements.set(data, at, value);
  }

  /** Found when it is first needed: most tensors are not read by elements. */
  get #elements(): ElementAccess {
    const { info, isPacked } = this.#storage;
    return this.#access ??= elementAccess(info, isPacked);
  }

  #indexOf(index: readonly number[], count: number): number {
    const { shape, strides } = this;
    if (count !== shape.length) {
      throw new RangeError(
        `Cannot index ${shape.length} axes with ${count} indices`,
      );
    }
    let at = this.offset;
    for (let axis = 0; axis < count; axis++) {
      const length = shape[axis]!;
      const i = index[axis]!;
      const from0 = i < 0 ? i + length : i;
      if (!(from0 >= 0 && from0 < length) || !Number.isInteger(i)) {
        throw new RangeError(
          `Index ${i} is out of range for axis ${axis} of length ${length}`,
        );
      }
      at += from0 * strides[axis]!;
    }
    return at;
  }

  /**
   * Cuts out a part, without a copy: NumPy's `x[1, :, ::-1]` is
   * `x.slice(1, null, [null, null, -1])`.
   *
   * @param ranges For each axis: an index, which drops the axis; `null` for
   * all of it; or `[start, stop, step]` with Python's meaning. Axes that are
   * not named stay whole.
   * @returns A view.
   * @throws {RangeError} When there are more ranges than axes, an index is
   * outside its axis, or a step is 0.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  slice(...ranges: Range[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, sliceLayout(this, ranges));
  }

  /**
   * Reorders the axes, without a copy.
   *
   * @param axes The old axis for each new one; none: reversed, as NumPy's
   * `x.T`.
   * @returns A view.
   * @throws {RangeError} When an axis is not named exactly once.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  transpose(...axes: number[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, transposeLayout(this, axes));
  }

  /**
   * The same elements, in C order, in another shape, without a copy.
   *
   * @param shape The new lengths; one may be -1: it is worked out.
   * @returns A view.
   * @throws {RangeError} When the number of elements differs.
   * @throws {BufferError} `"layout"` when only a copy could do it,
   * `"released"` when the memory is gone.
   */
  reshape(shape: readonly number[]): Tensor<D> {
    this.#storage.check();
    return make(this.#storage, reshapeLayout(this, shape));
  }

  /**
   * Copies the elements, in C order, into JavaScript's memory. A copy that is
   * disposed gives its memory to the next one of its length: in a loop declare
   * copies with `using`, or pass `out`.
   *
   * @param options `out`: a typed array like `data` to copy into, with as many
   * entries as the elements take; none: a new one.
   * @returns A writable tensor over the copy.
   * @throws {TypeError} When `out` is of another type.
   * @throws {RangeError} When `out` has another length.
   * @throws {BufferError} `"released"` when the memory is gone, `"copy"` when
   * there is none for the copy.
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
  copy(options: { out?: TypedArray } = {}): Tensor<D> {
    const storage = this.#storage;
    const { data, info, isPacked } = storage;
    const { out } = options;
    if (out === undefined) {
      const copy = copyOf(info, isPacked, data, this);
      return makeCopy(info, isPacked, copy, this.shape);
    }
    checkOut(out, data, entriesOf(info, isPacked, this.size));
    if (sharesMemory(out, data)) {
      // What is read must not have been overwritten.
      const apart = copyOf(info, isPacked, data, this);
      out.set(apart as never);
      giveBack(apart);
    } else copyElements(info, isPacked, data, this, out);
    const layout = compactLayout(this.shape);
    return make(new ArrayStorage(info, isPacked, false, out, false), layout);
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
   * @returns A writable tensor over the copy.
   * @throws {TypeError} When there is no such dtype.
   * @throws {BufferError} `"dtype"` when one of the two is `handle`,
   * `"released"` when the memory is gone, `"copy"` when there is none for the
   * copy.
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
  astype<E extends DType>(dtype: E): Tensor<E> {
    const info = checkDType(dtype);
    const { data, info: from, isPacked } = this.#storage;
    const into = {
      info,
      isPacked: info.bits < 8,
      data: allocate(info, info.bits < 8, this.size),
    };
    convertElements({ info: from, isPacked, data }, this, into);
    return makeCopy(info, into.isPacked, into.data, this.shape);
  }

  /**
   * The elements in nested arrays, as NumPy's `tolist`; of a tensor without
   * axes, the element.
   *
   * @returns Arrays as deep as there are axes.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  toArray(): unknown {
    const { shape, strides } = this;
    const { data } = this.#storage;
    const elements = this.#elements;
    if (shape.length === 0) return elements.get(data, this.offset);
    const nest = (axis: number, start: number): unknown[] => {
      const length = shape[axis]!;
      const stride = strides[axis]!;
      // V8 makes a hash table of a longer one that is made at once.
      const array = length < 2 ** 25 ? new Array<unknown>(length) : [];
      const isLast = axis === shape.length - 1;
      for (let i = 0, at = start; i < length; i++, at += stride) {
        array[i] = isLast ? elements.get(data, at) : nest(axis + 1, at);
      }
      return array;
    };
    return nest(0, this.offset);
  }

  /**
   * Goes over the first axis: elements of a tensor with one axis, views of one
   * with more.
   *
   * @returns The iterator.
   * @throws {TypeError} When there are no axes.
   */
  *[Symbol.iterator](): IterableIterator<unknown> {
    const { shape } = this;
    if (shape.length === 0) {
      throw new TypeError(
        "Cannot iterate over a tensor without axes: use get()",
      );
    }
    for (let i = 0; i < shape[0]!; i++) {
      yield shape.length === 1 ? this.get(i) : this.slice(i);
    }
  }

  /**
   * Whether the tensor has that dtype: narrows the types of `data`, `get` and
   * `set`.
   *
   * @param dtype The dtype to ask for.
   * @returns Whether it has it.
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
   * Gives an imported tensor up without running its deleter: for another
   * consumer, or a Worker, which gets the address of what the capsule's
   * {@linkcode DlpackCapsule.take | take} returns. A capsule that is not taken
   * from still owns the struct, and releases it when it is garbage.
   * The whole managed tensor is given up, whatever this view shows of it, and
   * every view of it becomes empty. A Worker must dispose of what it imported
   * before it ends: Deno lets nobody do that for it.
   *
   * @returns The capsule, unconsumed.
   * @throws {BufferError} `"released"` when the memory is gone, `"data"` when
   * it is JavaScript's own, `"consumed"` while exports use it.
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
   * - The deleter of shared memory is JavaScript. Called from another thread it
   *   waits for this thread's event loop, so a native function that waits for
   *   such a thread must be `nonblocking`; and it must not be called while the
   *   process, or the Worker that exported, is being torn down.
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
   * say the dtype's padding; `"shape"` when there are more than 64 axes;
   * `"layout"` when packed elements do not start on a byte; `"data"` when the
   * ArrayBuffer is resizable; `"copy"` when there is no memory for a copy.
   */
  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const storage = this.#storage;
    storage.check();
    const { info, isPacked } = storage;
    const versioned = checkRequest(request, this.__dlpack_device__());
    const isCopied = request.copy === true;
    const isPadded = info.bits < 8 && !isPacked;
    const { code, bits } = info;
    if (this.ndim > MAX_NDIM) {
      throw new BufferError(
        "shape",
        `Cannot export a tensor with ${this.ndim} axes: 0 to ${MAX_NDIM} are ` +
          "possible",
      );
    }
    if (storage.readOnly && !versioned && !isCopied) {
      throw new BufferError(
        "readonly",
        "Cannot export a read-only tensor as a legacy struct, which cannot " +
          "say so: ask for maxVersion [1, 0] or newer, or for a copy",
      );
    }
    if (isPadded && !versioned) {
      throw new BufferError(
        "dtype",
        `Cannot export padded ${info.name} elements as a legacy struct, which ` +
          "cannot say so: ask for maxVersion [1, 1] or newer",
      );
    }
    const spec: ExportSpec = {
      versioned,
      readOnly: storage.readOnly && !isCopied,
      isCopied,
      isPadded,
      device: this.__dlpack_device__(),
      code,
      bits,
      shape: this.shape,
      strides: this.strides,
    };
    if (!isCopied) return this.#share(spec);
    const copy = this.copy();
    const { strides } = copy;
    const copied = { ...spec, device: [DeviceType.cpu, 0], strides } as const;
    const owner = exportCopy(copied, new Uint8Array(copy.data.buffer));
    if (owner === null) return copy.#share(copied);
    copy[Symbol.dispose]();
    return capsuleOf(owner);
  }

  #share(spec: ExportSpec): DlpackCapsule {
    return capsuleOf(exportShared(spec, this.#start(), this.#keeper()));
  }

  /** The address of element [0, …, 0]: 0 when there is none. */
  #start(): bigint {
    if (this.size === 0) return 0n;
    const byteOffset = this.offset * this.itemsize;
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
    const { owner } = this.#storage;
    if (owner !== null) return owner;
    const { data } = this.#storage;
    pin(data); // C has its address from here on
    return data;
  }

  #lend(): Loan {
    const storage = this.#storage;
    storage.check();
    if (this.#loan !== null) return this.#loan;
    const { info, isPacked } = storage;
    if (info.bits < 8 && !isPacked) {
      throw new BufferError(
        "dtype",
        `Cannot pass padded ${info.name} elements as a DLTensor, which cannot ` +
          "say so: pass a DLManagedTensorVersioned, or astype()",
      );
    }
    const { code, bits } = info;
    const { shape, strides } = this;
    const device = this.__dlpack_device__();
    const spec = { device, code, bits, shape, strides };
    return this.#loan = lend(spec, this.#start(), this.#keeper());
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
   * Gives the memory back, now: a library's to the library, whose deleter runs,
   * and a copy's to the next copies. `data`, and every typed array over the same
   * buffer, is empty then. Typed arrays that were given to
   * {@linkcode Tensor.from}, or to `copy` as `out`, stay as they are, and so does
   * a copy that C was given the address of. Disposing one view disposes all of
   * them. Idempotent.
   */
  [Symbol.dispose](): void {
    this.#storage.release();
    this.#loan = null;
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

  /** What `console.log` shows: dtype, shape, strides, device and elements. */
  [Symbol.for("Deno.customInspect")](): string {
    const { type, id } = this.device;
    const head = `Tensor ${this.dtype} ${describeShape(this.shape)}, strides ` +
      `${describeShape(this.strides)}, ${type}:${id}`;
    if (this.#storage.isReleased) return `${head}, released`;
    return `${head}${this.readOnly ? ", read-only" : ""}\n${this}`;
  }
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

/** For other files of this module: a tensor over some storage. */
export function makeTensor(storage: Storage, layout: Layout): Tensor {
  return make(storage, layout);
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

function checkDType(dtype: string): DTypeInfo {
  const info = dtypeByName(dtype);
  if (info !== undefined) return info;
  throw new TypeError(
    `There is no dtype "${dtype}": it is one of ${dtypeNames.join(", ")}`,
  );
}

function infoFor(data: TypedArray, dtype: DType | undefined): DTypeInfo {
  const own = ArrayBuffer.isView(data) ? dtypeOfArray(data) : undefined;
  if (own === undefined) {
    throw new TypeError("Cannot make a tensor: data is not a typed array");
  }
  if (dtype === undefined) return own;
  const info = checkDType(dtype);
  if (info.array !== own.array) {
    throw new TypeError(
      `Cannot make a ${dtype} tensor of a ${own.array.name}: its elements ` +
        `lie in a ${info.array.name}`,
    );
  }
  return info;
}

function checkLayout(layout: Layout, capacity: number): void {
  const { shape, strides, offset } = layout;
  const numbers = [...shape, ...strides, offset];
  if (
    !numbers.every(Number.isSafeInteger) || shape.some((length) => length < 0)
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape ${describeShape(shape)}, strides ` +
        `${describeShape(strides)}, offset ${offset}: lengths must be ` +
        "integers from 0, strides and offset integers",
    );
  }
  if (shape.length !== strides.length) {
    throw new RangeError(
      `Cannot make a tensor: ${shape.length} lengths but ${strides.length} ` +
        "strides",
    );
  }
  const { lowest, highest } = extentOf(shape, strides);
  if (
    highest >= lowest && (offset + lowest < 0 || offset + highest >= capacity)
  ) {
    throw new RangeError(
      `Cannot make a tensor of shape ${describeShape(shape)}: it spans the ` +
        `elements ${offset + lowest} to ${offset + highest}, data has ` +
        `${capacity}`,
    );
  }
}

function checkOut(out: TypedArray, like: TypedArray, entries: number): void {
  if (out[Symbol.toStringTag] !== like[Symbol.toStringTag]) {
    throw new TypeError(
      `Cannot copy into a ${out[Symbol.toStringTag]}: the elements lie in a ` +
        `${like[Symbol.toStringTag]}`,
    );
  }
  if (out.length !== entries) {
    throw new RangeError(
      `Cannot copy into ${out.length} entries: the elements take ${entries}`,
    );
  }
}

/** Checks a consumer's request, and says whether it gets the versioned struct. */
function checkRequest(
  request: DlpackRequest,
  device: readonly [type: number, id: number],
): boolean {
  const { stream, maxVersion, dlDevice, copy } = request;
  if (stream !== undefined && stream !== null) {
    throw new TypeError(
      `Cannot export host memory on stream ${stream}: it has no streams, pass ` +
        "none",
    );
  }
  if (copy !== undefined && copy !== null && typeof copy !== "boolean") {
    throw new TypeError(
      `The option "copy" must be true, false or null, not ${String(copy)}`,
    );
  }
  checkPair("maxVersion", maxVersion);
  checkPair("dlDevice", dlDevice);
  if (
    dlDevice &&
    !(isHost(device[0]) && dlDevice[0] === DeviceType.cpu &&
      dlDevice[1] === 0) &&
    !(dlDevice[0] === device[0] && dlDevice[1] === device[1])
  ) {
    throw new BufferError(
      "device",
      `Cannot export a tensor on ${describe(device)} to ${
        describe(dlDevice)
      }: ` +
        "ask for none, or for the CPU",
    );
  }
  return (maxVersion?.[0] ?? 0) >= 1;
}

function describe([type, id]: readonly [type: number, id: number]): string {
  return `${deviceName(type) ?? `device type ${type}`}:${id}`;
}

function checkPair(
  name: string,
  pair: readonly [number, number] | null | undefined,
): void {
  if (pair === undefined || pair === null) return;
  if (
    Array.isArray(pair) && pair.length === 2 && pair.every(Number.isInteger)
  ) {
    return;
  }
  throw new TypeError(
    `The option "${name}" must be a pair of integers or null, not ` +
      `${String(pair)}`,
  );
}
