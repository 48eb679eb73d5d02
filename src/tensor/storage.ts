import { Caches } from "../../ffi/caches.ts";
import { addressOfArray, peek } from "../../ffi/memory.ts";
import type { Owner } from "../../ffi/owner.ts";
import { Hold } from "../capsule.ts";
import { giveBack } from "../copy/memory.ts";
import type { ElementAccess, Memory } from "../dtype/element.ts";
import { entriesOf } from "../dtype/packing.ts";
import type {
  DTypeInfo,
  TypedArray,
  TypedArrayConstructor,
} from "../dtype/table.ts";
import { BufferError } from "../errors.ts";
import type { Struct } from "../struct/types.ts";

/** The memory behind a tensor and every view of it: one dtype, one `data`. */
export interface Storage extends Memory {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** Whether the producer forbids writing. */
  readonly readOnly: boolean;
  /** `DLDevice.device_type`. */
  readonly deviceType: number;
  /** `DLDevice.device_id`. */
  readonly deviceId: number;
  /** Who gives the memory back; `null` for JavaScript's own. */
  readonly owner: Owner | null;
  /** What is made of the memory for others, and goes with it. */
  readonly caches: Caches;
  /**
   * From the lowest to the highest element: for this module, which must not show
   * it to anybody.
   *
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  readonly data: TypedArray;
  /**
   * The same for others: from here on they may look at it at any time.
   *
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  show(): TypedArray;
  /**
   * `data`, or an array of another length than {@linkcode length} when it is
   * gone or not made yet: for whoever compares them on every use.
   */
  readonly live: TypedArray;
  /** The length of `data`. */
  readonly length: number;
  /** Whether nobody can resize the memory. */
  readonly isFixed: boolean;
  /**
   * Reads one element, which for a few of them does not take `data`.
   *
   * @param index The element of `data`.
   * @param elements How to read it.
   * @throws {BufferError} `"released"` when the memory is gone.
   */
  read(index: number, elements: ElementAccess): unknown;
  /** Whether the memory is gone. */
  readonly isReleased: boolean;
  /**
   * For what needs the memory to be there, but not yet.
   *
   * @throws {BufferError} `"released"` when it is gone.
   */
  check(): void;
  /**
   * Where a byte of `data` is: for others, as {@linkcode show}.
   *
   * @throws {BufferError} `"data"` when it may move.
   */
  addressAt(byteOffset: number): bigint;
  /**
   * Keeps the memory as it is until the result is disposed, over
   * {@linkcode release} and garbage collection.
   *
   * @param lender The tensor: it has the structs that functions were lent.
   * @throws {BufferError} `"released"` when it is gone.
   */
  hold(lender: object): Disposable;
  /** Gives the memory back: idempotent. */
  release(): void;
}

/** In the place of memory that is not there. */
const GONE = new Uint8Array(0);

/** Memory of JavaScript. */
export class ArrayStorage implements Storage {
  readonly owner = null;
  readonly deviceType = 1;
  readonly deviceId = 0;
  live: TypedArray;
  readonly length: number;
  #isDisposed = false;
  /** Whether nobody else has seen the memory. */
  #isOurs: boolean;
  #address: bigint | null = null;
  #caches: Caches | null = null;

  /** @param isCopy Whether `data` was allocated for this storage alone. */
  constructor(
    readonly info: DTypeInfo,
    readonly isPacked: boolean,
    readonly readOnly: boolean,
    data: TypedArray,
    isCopy: boolean,
  ) {
    this.live = data;
    this.length = data.length;
    this.#isOurs = isCopy;
  }

  get data(): TypedArray {
    this.check();
    return this.live;
  }

  get isFixed(): boolean {
    if (this.#isOurs) return true;
    const { buffer } = this.live;
    return buffer instanceof ArrayBuffer ? !buffer.resizable : !buffer.growable;
  }

  get caches(): Caches {
    return this.#caches ??= new Caches();
  }

  show(): TypedArray {
    this.#isOurs = false;
    return this.data;
  }

  read(index: number, elements: ElementAccess): unknown {
    return elements.get(this.data, index, this.length, this);
  }

  addressAt(byteOffset: number): bigint {
    const data = this.show();
    // It stays where it is for as long as `data` is there.
    const start = this.#address ??= addressThatStays(data);
    return byteOffset === 0 ? start : start + BigInt(byteOffset);
  }

  check(): void {
    if (this.#isDisposed) throw released();
    if (this.live.length !== this.length) throw transferred();
  }

  lost(): never {
    this.check();
    throw released();
  }

  get isReleased(): boolean {
    return this.#isDisposed || this.live.length !== this.length;
  }

  hold(lender: object): Disposable {
    return new Hold([lender, this.show()], () => {});
  }

  release(): void {
    this.#caches?.dropAll();
    if (this.#isOurs && !this.isReleased) giveBack(this.live);
    this.#isDisposed = true;
    this.live = GONE;
  }
}

function addressThatStays(data: TypedArray): bigint {
  const { buffer } = data;
  if (buffer instanceof ArrayBuffer && buffer.resizable) {
    throw new BufferError(
      "data",
      "Cannot export a resizable ArrayBuffer, which can take the memory " +
        "away from its consumer: ask for a copy",
    );
  }
  return addressOfArray(data);
}

/** So many elements are read one by one before it is worth to make `data`. */
export const FEW = 8;
/** What they are read by, for each class of typed array. */
const peeked = new Map<TypedArrayConstructor, TypedArray>();

/** Memory of a native library. */
export class NativeStorage implements Storage {
  // `declare`, else each would be set twice.
  /** Made when it is first asked for. */
  declare live: TypedArray;
  declare readonly length: number;
  declare readonly owner: Owner;
  readonly #struct: Struct;
  #peeks = 0;

  /**
   * @param struct What is known of the memory, which the host can read.
   * @param owner Who gives it back.
   */
  constructor(struct: Struct, owner: Owner) {
    this.#struct = struct;
    this.live = GONE;
    this.length = struct.length;
    this.owner = owner;
  }

  get info(): DTypeInfo {
    return this.#struct.info;
  }

  get caches(): Caches {
    return this.owner.caches;
  }

  get isPacked(): boolean {
    return this.#struct.isPacked;
  }

  get readOnly(): boolean {
    return this.#struct.readOnly;
  }

  get isFixed(): boolean {
    return true;
  }

  get deviceType(): number {
    return this.#struct.deviceType;
  }

  get deviceId(): number {
    return this.#struct.deviceId;
  }

  get data(): TypedArray {
    const { live } = this;
    // Whatever releases the memory detaches the array: its length is 0 then.
    if (live.length === this.length && live.length !== 0) return live;
    return this.#makeData();
  }

  show(): TypedArray {
    return this.data;
  }

  check(): void {
    const { live } = this;
    // As in `data`: to ask the ArrayBuffer takes as long as a call into C.
    if (live.length === this.length && live.length !== 0) return;
    if (!this.owner.active) throw released();
    if (this.owner.transferred) throw transferred();
  }

  #makeData(): TypedArray {
    this.check();
    const { info, start, length } = this.#struct;
    const bytes = length * info.array.BYTES_PER_ELEMENT;
    if (length > 0) {
      this.live = new info.array(this.owner.buffer(start, bytes));
    } else if (this.live === GONE) this.live = new info.array(0);
    return this.live;
  }

  read(index: number, elements: ElementAccess): unknown {
    // A packed element may lie in two bytes.
    if (this.live === GONE && this.#peeks < FEW && !this.isPacked) {
      const one = this.#peek(index);
      return elements.get(one, 0, one.length, this);
    }
    return elements.get(this.data, index, this.length, this);
  }

  /** A copy of one element, at the start of a typed array that is used again. */
  #peek(index: number): TypedArray {
    this.check();
    this.#peeks++;
    const { info, start } = this.#struct;
    const bytes = entriesOf(info, false, 1) * info.array.BYTES_PER_ELEMENT;
    const buffer = peek(start + index * bytes, bytes);
    let array = peeked.get(info.array);
    if (array === undefined) {
      peeked.set(info.array, array = new info.array(buffer));
    }
    return array;
  }

  addressAt(byteOffset: number): bigint {
    return BigInt(this.#struct.start + byteOffset);
  }

  lost(): never {
    this.check();
    throw released();
  }

  get isReleased(): boolean {
    return !this.owner.active || this.owner.transferred;
  }

  hold(lender: object): Disposable {
    this.check();
    const { owner } = this;
    owner.pin();
    return new Hold(lender, () => owner.unpin());
  }

  release(): void {
    this.owner.release();
    this.live = GONE;
  }
}

function released(): BufferError {
  return new BufferError(
    "released",
    "Cannot use a tensor whose memory was given back: it was disposed or " +
      "released; call copy() before to keep the values",
  );
}

/** The memory went with its ArrayBuffer, or that was resized. */
export function transferred(): BufferError {
  return new BufferError(
    "released",
    "Cannot use a tensor whose ArrayBuffer was transferred or resized: the " +
      "memory is elsewhere now; to hand a tensor to a Worker, send the address " +
      "of release().take()",
  );
}
