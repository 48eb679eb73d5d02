/**
 * Tensors into Python: objects with `__dlpack__`, which any thread of Python may
 * use and let go while JavaScript is busy, or waits for Python.
 *
 * So nothing of JavaScript is called from there. A class in Python makes the
 * structs and the capsules, of templates; and the deleter of a struct is a
 * function of the C library that writes zeros to its first bytes, which needs
 * neither Python's lock nor its exceptions to be in any state. From time to time
 * JavaScript has Python look which structs are zero and which tensors are
 * forgotten.
 *
 * @module
 */

import { isHost } from "../../src/device.ts";
import { cStrides, isContiguous, sizeOf } from "../../src/layout.ts";
import { MANAGED, TENSOR, VERSIONED } from "../abi.ts";
import { addressOf } from "../memory.ts";
import { claim, type Owner } from "../owner.ts";
import {
  axesBytes,
  type FlagSpec,
  type TensorSpec,
  writeAxes,
  writeLegacy,
  writeTensor,
  writeVersioned,
} from "../write.ts";
import { type Exchange, giveByExchange } from "./exchange.ts";
import type { Interpreter } from "./interpreter.ts";
import { capsuleName, permanentText } from "./names.ts";

/** Where something is in a struct of Python's, in bytes. */
interface Places {
  readonly size: number;
  readonly data: number;
  readonly device: number;
  readonly shape: number;
  readonly strides: number;
}

function placesIn(size: number, tensor: number): Places {
  return {
    size,
    data: tensor + TENSOR.data,
    device: tensor + TENSOR.deviceType,
    shape: tensor + TENSOR.shape,
    strides: tensor + TENSOR.strides,
  };
}

const places = {
  legacy: placesIn(MANAGED.size, MANAGED.tensor),
  versioned: placesIn(VERSIONED.size, VERSIONED.tensor),
};

/** The bytes that `sigemptyset` may write: a `sigset_t` of glibc before 2.30. */
const MOST_ZEROS = 128;

/** What consumers may expect of fresh memory: a cache line, in bytes. */
const ALIGNMENT = 64;

/**
 * The class of tensors in Python.
 *
 * `_out` has what consumers were given: the block of a struct; its capsule, until
 * it was consumed; and the tensor behind it, or `None` where the struct has a copy
 * of its own, which its deleter frees.
 */
const program = (c: { malloc: bigint; free: bigint }): string => `
import collections, ctypes, sys

_address, _size = ctypes.c_void_p, ctypes.c_size_t
_malloc = ctypes.CFUNCTYPE(_address, _size)(${c.malloc})
_free = ctypes.CFUNCTYPE(None, _address)(${c.free})

def _function(name, result, *arguments):
    prototype = ctypes.PYFUNCTYPE(result, *arguments)
    return prototype((name, ctypes.pythonapi))

_new = _function("PyCapsule_New", ctypes.py_object, _address, _address, _address)
_is_valid = _function("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, _address)

# By whether the struct is the versioned one.
_name = ${capsuleName("dltensor")}, ${capsuleName("dltensor_versioned")}
_used_name = (
    ${capsuleName("used_dltensor")},
    ${capsuleName("used_dltensor_versioned")},
)
# Of the struct: its size, then where data, device, shape and strides are.
_places = (
${
  [places.legacy, places.versioned].map(
    ({ size, data, device, shape, strides }) =>
      `    (${size}, ${data}, ${device}, ${shape}, ${strides}),`,
  ).join("\n")
}
)

_out = collections.deque()
_freed = collections.deque()
_forgotten = collections.deque()

class _Buffer(ctypes.Structure):
    _fields_ = [
        ("buf", _address), ("obj", _address), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int), ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", _address), ("internal", _address),
    ]

_gather = _function(
    "PyBuffer_ToContiguous", ctypes.c_int,
    _address, ctypes.POINTER(_Buffer), ctypes.c_ssize_t, ctypes.c_char,
)

def _numbers(template, at, count):
    return tuple((ctypes.c_ssize_t * count).from_buffer_copy(template, at))

class Tensor:
    """A tensor of Deno's, for all that takes DLPack: from_dlpack(x).

    NumPy's functions take it as it is.
    """

    __slots__ = (
        "_key", "_text", "_device", "_templates", "_data", "_itemsize", "_nbytes",
        "__weakref__",
    )

    def __init__(self, key, text, device, data, itemsize, nbytes, *templates):
        self._key = key
        self._text = text
        self._device = device
        self._data = data
        self._itemsize = itemsize
        self._nbytes = nbytes
        self._templates = templates

    def __del__(self, forgotten=_forgotten):
        forgotten.append(self._key)

    def __repr__(self):
        return "<Tensor of Deno: " + self._text + ">"

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(
        self, *, stream=None, max_version=None, dl_device=None, copy=None
    ):
        is_host = self._device[0] in ${JSON.stringify(hostTypes)}
        if stream is not None and is_host:
            raise ValueError("host memory has no streams: leave stream out")
        device = self._device if dl_device is None else tuple(dl_device)
        if device != self._device and not (is_host and device == (1, 0)):
            raise BufferError(
                "cannot export a tensor on device %s to device %s"
                % (self._device, device)
            )
        versioned = max_version is not None and max_version[0] >= 1
        block = self._struct(versioned, bool(copy))
        if device != self._device:
            place = block + _places[versioned][2]
            ctypes.c_int32.from_address(place).value = int(device[0])
            ctypes.c_int32.from_address(place + 4).value = int(device[1])
        capsule = _new(block, _name[versioned], None)
        _out.append([block, capsule, None if copy else self, versioned])
        return capsule

    def __array__(self, dtype=None, copy=None):
        import numpy
        try:
            array = numpy.from_dlpack(self)
        except BufferError:
            # Before 2.1 it asks for a legacy struct, which may be possible of a copy.
            if copy is False or isinstance(self._templates[0], bytes):
                raise
            array = numpy.from_dlpack(_Copy(self))
        if dtype is not None and numpy.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(
                    "cannot convert %s to %s without a copy"
                    % (array.dtype, numpy.dtype(dtype))
                )
            return array.astype(dtype)
        return array.copy("K") if copy else array

    def _struct(self, versioned, copy):
        template = self._templates[2 * copy + versioned]
        if isinstance(template, str):
            raise BufferError(template)
        size, data, _, shape, strides = _places[versioned]
        length = len(template)
        # As much again as rounds up, where the elements are in the block, too.
        nbytes = ${ALIGNMENT} + self._nbytes if copy else 0
        # Older C libraries write ${MOST_ZEROS} zeros.
        block = _malloc(max(length, ${MOST_ZEROS}) + nbytes)
        if not block:
            raise MemoryError("no memory for %d bytes" % (length + nbytes))
        ctypes.memmove(block, template, length)
        ndim = (length - size) // 16
        if ndim:
            _address.from_address(block + shape).value = block + size
            _address.from_address(block + strides).value = block + size + 8 * ndim
        if copy and self._nbytes:
            to = block + length
            to += -to % ${ALIGNMENT}
            _address.from_address(block + data).value = to
            self._copy(to, ndim)
        return block

    def _copy(self, to, ndim):
        if not self._itemsize:
            ctypes.memmove(to, self._data, self._nbytes)
            return
        # Of the versioned struct that is shared, which has these strides.
        template = self._templates[1]
        size = _places[True][0]
        shape = _numbers(template, size, ndim)
        strides = _numbers(template, size + 8 * ndim, ndim)
        numbers = ctypes.c_ssize_t * ndim
        source = _Buffer(
            buf=self._data, len=self._nbytes, itemsize=self._itemsize, ndim=ndim,
            shape=numbers(*shape),
            strides=numbers(*(s * self._itemsize for s in strides)),
        )
        _gather(to, ctypes.byref(source), self._nbytes, b"C")

class _Copy:
    """For consumers that cannot ask for a copy."""

    def __init__(self, tensor):
        self._tensor = tensor

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, stream=None):
        return self._tensor.__dlpack__(copy=True)

def lend(tensor):
    """A struct for a consumer that takes no capsule."""
    block = tensor._struct(True, False)
    _out.append([block, None, tensor, True])
    return block

def withdraw(block):
    """Nobody says whether the consumer that failed has taken it."""
    for entry in list(_out):
        if entry[0] == block and ctypes.c_uint32.from_address(block).value:
            # Whoever has taken it may write to it for good.
            _out.remove(entry)

def _users(entry):
    return sys.getrefcount(entry[1])

# What that says of a capsule that nobody else refers to.
_ALONE = _users([0, object()])

def sweep(most):
    """Frees what is over, up to the first that are not.

    Gives the keys of the tensors that Python has forgotten, 8 bytes each.
    """
    while _freed:
        _free(_freed.popleft())
    kept = 0
    for _ in range(len(_out)):
        if kept == most:
            break
        entry = _out.popleft()
        block, tensor, versioned = entry[0], entry[2], entry[3]
        if entry[1] is not None:
            if _is_valid(entry[1], _used_name[versioned]):
                entry[1] = None
                if tensor is None:
                    continue
            elif _users(entry) <= _ALONE:
                entry[1] = None
                _free(block)
                continue
        if entry[1] is None and not ctypes.c_uint32.from_address(block).value:
            # Not at once: its deleter may be about to return.
            _freed.append(block)
            continue
        _out.append(entry)
        kept += 1
    entry = tensor = None
    if not _forgotten:
        return None
    keys = [_forgotten.popleft() for _ in range(len(_forgotten))]
    return b"".join(key.to_bytes(8, "little") for key in keys)

give = Tensor, sweep, lend, withdraw
`;

/** Memory that the host reads as its own: see {@linkcode isHost}. */
const hostTypes = Array.from({ length: 32 }, (_, type) => type).filter(isHost);

/** The C library's functions, and the one that writes zeros to where it is told. */
const libraries: Record<string, { c: string; system: string; zero: string }> = {
  linux: { c: "libc.so.6", system: "libc.so.6", zero: "sigemptyset" },
  android: { c: "libc.so", system: "libc.so", zero: "sigemptyset" },
  freebsd: { c: "libc.so.7", system: "libc.so.7", zero: "sigemptyset" },
  darwin: {
    c: "/usr/lib/libSystem.B.dylib",
    system: "/usr/lib/libSystem.B.dylib",
    zero: "sigemptyset",
  },
  windows: {
    c: "ucrtbase.dll",
    system: "kernel32.dll",
    zero: "InitializeSRWLock",
  },
};

/** The address of a function. */
function addressIn(library: string, name: string): bigint {
  const { symbols } = Deno.dlopen(library, {
    found: { name, type: "pointer" },
  });
  return addressOf(symbols.found!);
}

/** What a tensor is to say in Python. */
export interface Given {
  /** What its structs are to say. */
  readonly spec: TensorSpec & FlagSpec;
  /** The bytes of its elements. */
  readonly bytes: number;
  /** What it is, for people: `"float32 [2, 3]"`. */
  readonly text: string;
}

/** As many structs that consumers still have are looked at, after what. */
const MOST = { program: 64, release: 2 } as const;

/** What gives tensors to one interpreter. */
class Giver {
  readonly #interpreter: Interpreter;
  readonly #class: Deno.PointerObject;
  readonly #sweep: Deno.PointerObject;
  readonly #lend: Deno.PointerObject;
  readonly #withdraw: Deno.PointerObject;
  readonly #all: Deno.PointerObject;
  readonly #none: bigint;
  readonly #zero: bigint;
  readonly #free: bigint;
  /** Where tensors without elements have them. */
  readonly #nowhere = permanentText("");
  /** The structs behind the tensors in Python, by a number of ours. */
  readonly #given = new Map<
    number,
    { pointer: Deno.PointerObject; name: Name }
  >();
  #lastKey = 0;
  #isWatched = false;
  readonly #watch = new FinalizationRegistry<null>(() => {
    this.#isWatched = false;
    this.#sweepNow(this.#all);
  });

  constructor(interpreter: Interpreter) {
    this.#interpreter = interpreter;
    const system = libraries[Deno.build.os];
    if (system === undefined) {
      throw new Error(
        `Cannot give a tensor to Python on ${Deno.build.os}: its C library is ` +
          "not known",
      );
    }
    this.#zero = addressIn(system.system, system.zero);
    this.#free = addressIn(system.c, "free");
    const malloc = addressIn(system.c, "malloc");
    const { py } = interpreter;
    const functions = interpreter.moduleOf(
      program({ malloc, free: this.#free }),
      "give",
    );
    this.#none = addressOf(interpreter.none);
    const at = (index: number): Deno.PointerObject => {
      const object = py.PyTuple_GetItem(functions, BigInt(index))!;
      py.Py_IncRef(object);
      return object;
    };
    this.#class = at(0);
    this.#sweep = at(1);
    this.#lend = at(2);
    this.#withdraw = at(3);
    py.Py_DecRef(functions);
    this.#all = interpreter.integer(Number.MAX_SAFE_INTEGER);
    const most = {
      program: interpreter.integer(MOST.program),
      release: interpreter.integer(MOST.release),
    };
    interpreter.afterwards = (what) => this.#sweepNow(most[what]);
  }

  /** Makes an object of a tensor, whose struct it takes. The lock is held. */
  give(owner: Owner, { spec, bytes, text }: Given): Deno.PointerObject {
    const { py } = this.#interpreter;
    const key = ++this.#lastKey;
    const isHere = isHost(spec.device[0]);
    const isPacked = spec.bits < 8 && !spec.isPadded;
    const integers = [
      key,
      isHere ? spec.data : 0,
      isPacked || isContiguous(spec.shape, spec.strides)
        ? 0
        : Math.ceil(spec.bits * spec.lanes / 8),
      bytes,
    ].map((value) => this.#interpreter.integer(value));
    const device = this.#interpreter.tuple(
      ...spec.device.map((value) => this.#interpreter.integer(value)),
    );
    const [keyObject, ...numbers] = integers;
    const args = [
      keyObject!,
      this.#interpreter.string(text),
      device,
      ...numbers,
      ...this.#templates(spec),
    ];
    const { name } = owner;
    const pointer = owner.moveAway();
    this.#given.set(key, { pointer, name });
    try {
      const object = this.#interpreter.call(this.#class, ...args);
      this.#watchAll();
      return object;
    } catch (error) {
      this.#release(key);
      throw error;
    } finally {
      for (const argument of args) py.Py_DecRef(argument);
    }
  }

  /** The same for a type that has DLPack's C functions. The lock is held. */
  giveByExchange(
    exchange: Exchange,
    tensor: Deno.PointerObject,
  ): Deno.PointerObject {
    const { py } = this.#interpreter;
    const address = this.#interpreter.call(this.#lend, tensor);
    try {
      const struct = py.PyLong_AsUnsignedLongLong(address);
      const pointer = Deno.UnsafePointer.create(struct)!;
      return giveByExchange(this.#interpreter, exchange, pointer);
    } catch (error) {
      py.Py_DecRef(this.#interpreter.call(this.#withdraw, address));
      throw error;
    } finally {
      py.Py_DecRef(address);
    }
  }

  /** For each kind of struct that is asked for: its bytes, or why there is none. */
  #templates(spec: TensorSpec & FlagSpec): Deno.PointerObject[] {
    const { py } = this.#interpreter;
    const isHere = isHost(spec.device[0]);
    const isPacked = spec.bits < 8 && !spec.isPadded;
    const noLegacy = legacyRefusal(spec);
    const readOnly = spec.readOnly
      ? "Cannot export a read-only tensor as a legacy struct, which cannot say " +
        "so: ask for max_version (1, 0) or newer, or for a copy"
      : null;
    const noCopy = !isHere
      ? "Cannot copy memory of a device here: leave copy out"
      : isPacked && !isContiguous(spec.shape, spec.strides)
      ? "Cannot copy elements that do not begin on a byte: leave copy out"
      : null;
    const copied: TensorSpec & FlagSpec = {
      ...spec,
      device: [1, 0],
      strides: cStrides(spec.shape),
      readOnly: false,
      isCopied: true,
      data: this.#nowhere, // until there is one
      byteOffset: 0n,
    };
    const kinds: [string | null, TensorSpec & FlagSpec, boolean, bigint][] = [
      [noLegacy ?? readOnly, spec, false, this.#zero],
      [null, spec, true, this.#zero],
      [noLegacy ?? noCopy, copied, false, this.#free],
      [noCopy, copied, true, this.#free],
    ];
    return kinds.map(([refusal, said, versioned, deleter]) => {
      if (refusal !== null) return this.#interpreter.string(refusal);
      const bytes = this.#templateOf(said, versioned, deleter);
      return py.PyBytes_FromStringAndSize(bytes, BigInt(bytes.length))!;
    });
  }

  #templateOf(
    spec: TensorSpec & FlagSpec,
    versioned: boolean,
    deleter: bigint,
  ): Uint8Array<ArrayBuffer> {
    const { size, tensor } = versioned ? VERSIONED : MANAGED;
    const axes = axesBytes(spec.shape.length);
    const bytes = new Uint8Array(size + 2 * axes);
    const view = new DataView(bytes.buffer);
    let { data, byteOffset } = spec;
    if (sizeOf(spec.shape) === 0 && data === 0n) data = this.#nowhere;
    // A legacy struct begins with this; zero is what it is when it is over.
    if (!versioned && BigInt.asUintN(32, data) === 0n) {
      data -= 64n;
      byteOffset += 64n;
    }
    // Paddle calls no deleter of a struct whose manager_ctx is NULL.
    const managerCtx = 1;
    if (versioned) writeVersioned(view, 0, spec, managerCtx, deleter);
    else writeLegacy(view, 0, managerCtx, deleter);
    writeTensor(view, tensor, { ...spec, byteOffset }, data, 0n, 0n);
    writeAxes(view, size, spec.shape);
    writeAxes(view, size + axes, spec.strides);
    return bytes;
  }

  /** Lets go of what Python has done with. */
  #sweepNow(most: Deno.PointerObject): void {
    if (this.#given.size === 0 || !this.#interpreter.enter()) return;
    let keys: BigUint64Array | null = null;
    try {
      const result = this.#interpreter.call(this.#sweep, most);
      if (addressOf(result) === this.#none) {
        this.#interpreter.py.Py_DecRef(result);
      } else {
        const bytes = this.#interpreter.bytesOf(result);
        keys = new BigUint64Array(bytes.buffer);
      }
    } finally {
      this.#interpreter.leave();
    }
    for (const key of keys ?? []) this.#release(Number(key));
    this.#watchAll();
  }

  #release(key: number): void {
    const { pointer, name } = this.#given.get(key)!;
    this.#given.delete(key);
    const owner = claim(pointer, name);
    owner.deleteWithin(this.#interpreter);
    owner.header();
    owner.releaseAfterFailure(); // a deleter that throws is reported
  }

  /** Looks again when the next garbage is collected: that is when memory counts. */
  #watchAll(): void {
    if (this.#isWatched || this.#given.size === 0) return;
    this.#isWatched = true;
    this.#watch.register({}, null);
  }
}

type Name = "dltensor" | "dltensor_versioned";

/** Why a legacy struct cannot say what a tensor is, if so. */
function legacyRefusal(
  { code, bits, isPadded }: TensorSpec & FlagSpec,
): string | null {
  if (bits < 8 && isPadded) {
    return "Cannot export padded elements as a legacy struct, which cannot say " +
      "so: ask for max_version (1, 1) or newer";
  }
  if (code === 1 && bits === 1) {
    return "Cannot export uint1 elements as a legacy struct, where they mean a " +
      "bool in a byte: ask for max_version (1, 0) or newer";
  }
  return null;
}

let giver: Giver | undefined;

/**
 * Makes an object of Python's of a tensor. The lock is held.
 *
 * @param owner Who owns the struct, which goes to Python.
 */
export function giveTensor(
  interpreter: Interpreter,
  owner: Owner,
  given: Given,
): Deno.PointerObject {
  giver ??= new Giver(interpreter);
  return giver.give(owner, given);
}

/** Makes one of a type that has DLPack's C functions, of an object of {@linkcode giveTensor}. */
export function giveAs(
  exchange: Exchange,
  tensor: Deno.PointerObject,
): Deno.PointerObject {
  return giver!.giveByExchange(exchange, tensor);
}
