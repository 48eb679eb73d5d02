/**
 * The C API of tvm-ffi as its header writes it: tensors lent, taken over and
 * filled in through the symbol table of `dlopen`.
 */

import {
  addressOf,
  BufferError,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { findLibrary } from "../examples/find_library.ts";
import {
  assertBufferError,
  capsule,
  deletions,
  floats,
  importFixture,
} from "./helpers.ts";
import { skipped } from "./skipped.ts";

const path = findLibrary({
  variable: "TVM_FFI_LIBRARY",
  module: "tvm_ffi",
  name: "tvm_ffi",
});
if (path === null) skipped("tvm-ffi", "pip install apache-tvm-ffi");
const tvm = path === null ? null : open(path);

function open(path: string) {
  const { symbols } = dlopen(path, {
    TVMFFITensorFromDLPack: {
      parameters: [
        "taken DLManagedTensor*", // from
        "i32", // int32_t require_alignment
        "i32", // int32_t require_contiguous
        "buffer", // TVMFFIObjectHandle *out
      ],
      result: "i32",
    },
    TVMFFITensorFromDLPackVersioned: {
      parameters: [
        "taken DLManagedTensorVersioned*", // from
        "i32", // int32_t require_alignment
        "i32", // int32_t require_contiguous
        "buffer", // TVMFFIObjectHandle *out
      ],
      result: "i32",
    },
    fromDlpackOnThread: {
      name: "TVMFFITensorFromDLPackVersioned",
      parameters: ["taken DLManagedTensorVersioned*", "i32", "i32", "buffer"],
      result: "i32",
      nonblocking: true,
    },
    TVMFFITensorToDLPack: {
      parameters: [
        "pointer", // TVMFFIObjectHandle from
        "DLManagedTensor**", // out
      ],
      result: "i32",
    },
    TVMFFITensorToDLPackVersioned: {
      parameters: [
        "pointer", // TVMFFIObjectHandle from
        "DLManagedTensorVersioned**", // out
      ],
      result: "i32",
    },
    toDlpackOnThread: {
      name: "TVMFFITensorToDLPackVersioned",
      parameters: ["pointer", "DLManagedTensorVersioned**"],
      result: "i32",
      nonblocking: true,
    },
    TVMFFITensorCreateUnsafeView: {
      parameters: [
        "pointer", // TVMFFIObjectHandle source
        "DLTensor*", // const DLTensor *prototype
        "buffer", // TVMFFIObjectHandle *out
      ],
      result: "i32",
    },
    TVMFFIFunctionGetGlobal: {
      parameters: [
        "buffer", // const TVMFFIByteArray *name
        "buffer", // TVMFFIObjectHandle *out
      ],
      result: "i32",
    },
    TVMFFIFunctionCreate: {
      parameters: [
        "pointer", // void *self
        "function", // TVMFFISafeCallType safe_call
        "function", // void (*deleter)(void *self)
        "buffer", // TVMFFIObjectHandle *out
      ],
      result: "i32",
    },
    TVMFFIFunctionCall: {
      parameters: [
        "pointer", // TVMFFIObjectHandle func
        "buffer", // TVMFFIAny *args
        "i32", // int32_t num_args
        "buffer", // TVMFFIAny *result
      ],
      result: "i32",
    },
    TVMFFIObjectDecRef: {
      parameters: [
        "pointer", // TVMFFIObjectHandle obj
      ],
      result: "i32",
    },
    TVMFFIErrorMoveFromRaised: {
      parameters: [
        "buffer", // TVMFFIObjectHandle *result
      ],
      result: "void",
    },
  });
  return symbols;
}

const out = new BigUint64Array(1);

/** A handle that is given back once, at the end of `using`. */
class Handle implements Disposable {
  readonly pointer: Deno.PointerObject;

  /** Takes over the handle that a function wrote. */
  constructor(address = out[0]!) {
    this.pointer = Deno.UnsafePointer.create(address)!;
  }

  /** The strong references: the first 32 bits of every object. */
  get references(): number {
    return new Deno.UnsafePointerView(this.pointer).getUint32(0);
  }

  [Symbol.dispose](): void {
    tvm!.TVMFFIObjectDecRef(this.pointer);
  }
}

/** Throws the error that a call raised. */
function check(status: number): void {
  if (status === 0) return;
  tvm!.TVMFFIErrorMoveFromRaised(out);
  using error = new Handle();
  const cell = new Deno.UnsafePointerView(error.pointer);
  // A header of 24 bytes, then kind and message as { pointer, length }.
  const message = new Uint8Array(Number(cell.getBigUint64(48)));
  new Deno.UnsafePointerView(cell.getPointer(40)!).copyInto(message);
  throw new Error(new TextDecoder().decode(message));
}

/** An object of tvm-ffi that takes over an export of a tensor. */
function objectOf(tensor: Tensor | DlpackCapsule): Handle {
  check(tvm!.TVMFFITensorFromDLPackVersioned(tensor, 0, 0, out));
  return new Handle();
}

/** Registers a test that leaves no tensor behind. */
function tvmTest(name: string, run: () => void | Promise<void>): void {
  Deno.test({
    name: `tvm-ffi: ${name}`,
    ignore: tvm === null,
    async fn() {
      const before = liveTensors();
      await run();
      assertEquals(liveTensors(), before);
    },
  });
}

const filled = new OutCapsule();

/** What an object exports. */
function exportOf({ pointer }: Handle): DlpackCapsule {
  check(tvm!.TVMFFITensorToDLPackVersioned(pointer, filled));
  return filled.take();
}

// --- lent ----------------------------------------------------------------------

const matrix = Tensor.from(
  Float32Array.from({ length: 12 }, (_, i) => i),
  [3, 4],
);
for (
  const [what, tensor] of [
    ["a matrix", matrix],
    ["a transposed matrix", matrix.transpose()],
    ["a part of it, backwards", matrix.slice([2, 0, -1], [3, null, -2])],
    ["a column", matrix.slice(null, 1)],
    ["an element", matrix.slice(1, 2)],
    ["nothing", matrix.slice([0, 0])],
    ["bits", Tensor.from(new Uint8Array([0b10110]), [8], { dtype: "uint1" })],
    ["bools", Tensor.from(new Uint8Array([1, 0, 1]), [3], { dtype: "bool" })],
    ["bfloat16", matrix.astype("bfloat16").slice(1)],
  ] as const
) {
  tvmTest(`a DLTensor of ${what} is the prototype of a view`, () => {
    using source = objectOf(matrix);
    for (const lent of [tensor, tensor.__dlpack__({ maxVersion: [1, 0] })]) {
      check(tvm!.TVMFFITensorCreateUnsafeView(source.pointer, lent, out));
      using view = new Handle();
      assertEquals(source.references, 2);
      using seen = fromDlpack(exportOf(view));
      assertEquals(seen.dtype, tensor.dtype);
      assertEquals(seen.shape, tensor.shape);
      if (tensor.size > 1) assertEquals(seen.strides, tensor.strides);
      assertEquals(addressOf(seen), addressOf(tensor));
      assertEquals(seen.toArray(), tensor.toArray());
      if (lent instanceof DlpackCapsule) {
        assertEquals(lent.name, "dltensor_versioned");
        lent[Symbol.dispose]();
      }
    }
    assertEquals(source.references, 1);
  });
}

tvmTest("a view keeps the memory of its source, not what was lent", () => {
  const tensor = importFixture(floats([2, 3]));
  const source = objectOf(tensor);
  const column = tensor.slice(null, 2);
  check(tvm!.TVMFFITensorCreateUnsafeView(source.pointer, column, out));
  const view = new Handle();
  const deletedTooEarly = deletions(() => {
    tensor[Symbol.dispose]();
    source[Symbol.dispose]();
  });
  const seen = fromDlpack(exportOf(view));
  view[Symbol.dispose]();
  assertEquals([deletedTooEarly, seen.toArray()], [0, [2, 5]]);
  assertEquals(deletions(() => seen[Symbol.dispose]()), 1);
});

tvmTest("null is no DLTensor unless the table allows it", () => {
  using source = objectOf(matrix);
  assertThrows(
    () => tvm!.TVMFFITensorCreateUnsafeView(source.pointer, null as never, out),
    TypeError,
    '"DLTensor*?"',
  );
  assertEquals(source.references, 1);
});

tvmTest("padded elements are not lent as a DLTensor", () => {
  using source = objectOf(matrix);
  using padded = importFixture({
    dtype: [0, 4, 1],
    shape: [2],
    nbytes: 2,
    flags: 4,
  });
  assertBufferError(
    () => tvm!.TVMFFITensorCreateUnsafeView(source.pointer, padded, out),
    "dtype",
  );
  assertEquals(source.references, 1);
});

// --- filled in -----------------------------------------------------------------

for (const name of ["dltensor", "dltensor_versioned"] as const) {
  tvmTest(`an OutCapsule takes a ${name}, and gives it back once`, () => {
    const toDlpack = name === "dltensor"
      ? tvm!.TVMFFITensorToDLPack
      : tvm!.TVMFFITensorToDLPackVersioned;
    using source = objectOf(matrix);
    const out = new OutCapsule();
    check(toDlpack(source.pointer, out));
    assertEquals(source.references, 2);
    const capsule = out.take();
    assertEquals(capsule.name, name);
    assertEquals(capsule.readOnly, name === "dltensor");
    assertBufferError(() => out.take(), "data");

    const tensor = fromDlpack(capsule);
    assertEquals(tensor.toArray(), matrix.toArray());
    assertEquals(addressOf(tensor), addressOf(matrix));
    // A call empties it first, also where nobody took what it had.
    check(toDlpack(source.pointer, out));
    check(toDlpack(source.pointer, out));
    assertEquals(source.references, 3);
    out[Symbol.dispose]();
    assertEquals(source.references, 2);
    tensor[Symbol.dispose]();
    assertEquals(source.references, 1);
  });
}

tvmTest("of an array of OutCapsules, only the first is filled", () => {
  using source = objectOf(matrix);
  const outs = [new OutCapsule(), new OutCapsule()];
  check(tvm!.TVMFFITensorToDLPackVersioned(source.pointer, outs));
  assertBufferError(() => outs[1]!.take(), "data");
  using tensor = fromDlpack(outs[0]!.take());
  assertEquals(tensor.get(2, 3), 11);
});

tvmTest("calls on threads take over and fill in, too", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  using tensor = fromDlpack(
    DlpackCapsule.from(addressOf(matrix), {
      dtype: "float32",
      shape: [12],
      keepAlive: matrix,
      release: resolve,
    }),
  );
  const handle = new BigUint64Array(1);
  assertEquals(await tvm!.fromDlpackOnThread(tensor, 0, 1, handle), 0);
  const source = new Handle(handle[0]!);
  const outs = [new OutCapsule(), new OutCapsule()];
  const statuses = outs.map((out) =>
    tvm!.toDlpackOnThread(source.pointer, out)
  );
  assertBufferError(() => outs[0]!.take(), "data", "await it first");
  assertEquals(await Promise.all(statuses), [0, 0]);
  const seen = outs.map((out) => fromDlpack(out.take()));
  assertEquals(source.references, 3);
  source[Symbol.dispose]();
  for (const t of seen) {
    assertEquals(t.get(11), 11);
    t[Symbol.dispose]();
  }
  tensor[Symbol.dispose]();
  await promise;
});

// --- taken over ----------------------------------------------------------------

for (const name of ["dltensor", "dltensor_versioned"] as const) {
  const take = (
    from: Tensor | DlpackCapsule,
    alignment = 0,
    contiguous = 0,
  ): number =>
    name === "dltensor"
      ? tvm!.TVMFFITensorFromDLPack(from, alignment, contiguous, out)
      : tvm!.TVMFFITensorFromDLPackVersioned(from, alignment, contiguous, out);
  const spec = () => floats([2, 3], { versioned: name !== "dltensor" });

  tvmTest(`a ${name} that it takes over is deleted once, by it`, () => {
    const made = capsule(spec());
    check(take(made));
    assertEquals(made.name, `used_${name}`);
    assertThrows(() => take(made), BufferError, "used before");
    const object = new Handle();
    assertEquals(deletions(() => object[Symbol.dispose]()), 1);
  });

  for (
    const [what, cut, alignment, contiguous, message] of [
      [
        "is not contiguous",
        (t: Tensor) => t.transpose(),
        0,
        1,
        "not contiguous",
      ],
      [
        "is not aligned",
        (t: Tensor) => t.slice(0, [1, 3]),
        64,
        0,
        "not aligned",
      ],
    ] as const
  ) {
    tvmTest(`a ${name} that ${what} stays the caller's`, () => {
      const tensor = importFixture(floats([2, 3]));
      const part = cut(tensor);
      const expected = part.toArray();
      const given = part.__dlpack__({
        maxVersion: name === "dltensor" ? null : [1, 0],
      });
      tensor[Symbol.dispose]();
      const { pointer } = given;
      const deleted = deletions(() =>
        assertThrows(
          () => check(take(given, alignment, contiguous)),
          Error,
          message,
        )
      );
      assertEquals([deleted, given.name], [0, `used_${name}`]);
      const back = fromDlpack(new DlpackCapsule(pointer, name));
      assertEquals(back.toArray(), expected);
      assertEquals(deletions(() => back[Symbol.dispose]()), 1);
    });
  }
}

// --- in the arguments of packed functions ----------------------------------------

// TVMFFIAny: { int32_t type, uint32_t zero, an integer or a pointer }.
const NONE = 0;
const INT = 1;
const BOOL = 2;
const DL_TENSOR = 7;
const TENSOR = 70;
const ARRAY = 71;

type Any = readonly [type: number, value: bigint];

const none: Any = [NONE, 0n];

function object(type: number, { pointer }: Handle): Any {
  return [type, Deno.UnsafePointer.value(pointer)];
}

/** The DLTensor within a versioned struct, at byte 32. */
function dlTensor({ pointer }: DlpackCapsule): Any {
  return [DL_TENSOR, Deno.UnsafePointer.value(pointer) + 32n];
}

function anys(all: readonly Any[]): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(all.flatMap(([type, value]) => [
    BigInt(type),
    value,
  ]));
}

/** A function of the library by its name. */
function globalFunction(name: string): Handle {
  const text = Tensor.from(new TextEncoder().encode(name));
  using _held = text.hold();
  const bytes = BigUint64Array.of(addressOf(text), BigInt(text.size));
  check(tvm!.TVMFFIFunctionGetGlobal(bytes, out));
  assertNotEquals(out[0], 0n, name);
  return new Handle();
}

function call({ pointer }: Handle, ...args: readonly Any[]): Any {
  const result = anys([none]);
  check(tvm!.TVMFFIFunctionCall(pointer, anys(args), args.length, result));
  return [Number(result[0]), result[1]!];
}

tvmTest("an array of tensors gives each of them back", () => {
  using makeArray = globalFunction("ffi.Array");
  using getItem = globalFunction("ffi.ArrayGetItem");
  using first = objectOf(matrix);
  using second = objectOf(matrix.transpose());
  const elements = [object(TENSOR, first), none, object(TENSOR, second)];
  {
    using array = new Handle(call(makeArray, ...elements)[1]);
    assertEquals([first.references, second.references], [2, 2]);
    const items = elements.map((_, i) =>
      call(getItem, object(ARRAY, array), [INT, BigInt(i)])
    );
    assertEquals(items, elements);
    using _item0 = new Handle(items[0]![1]);
    using item2 = new Handle(items[2]![1]);
    using seen = fromDlpack(exportOf(item2));
    assertEquals(seen.toArray(), matrix.transpose().toArray());
  }
  assertEquals([first.references, second.references], [1, 1]);
});

tvmTest("a DLTensor is borrowed in a callback, and written to", () => {
  const seen: unknown[] = [];
  using end = new DisposableStack();
  const callback = new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer", "i32", "pointer"], result: "i32" },
    (_self, args, count) => {
      const view = new Deno.UnsafePointerView(args!);
      const types = [view.getInt32(0), view.getInt32(16)];
      const address = view.getBigUint64(8);
      const borrowed = DlpackCapsule.borrow(address, { writable: true });
      using tensor = fromDlpack(borrowed, { dtype: "float32" });
      seen.push(count, types, tensor.toArray());
      tensor.set(0, 1, 50);
      return 0;
    },
  );
  end.defer(() => callback.close());
  check(tvm!.TVMFFIFunctionCreate(null, callback.pointer, null, out));
  using f = new Handle();
  const tensor = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
  using struct = tensor.transpose().__dlpack__({ maxVersion: [1, 0] });
  assertEquals(call(f, dlTensor(struct), none), none);
  assertEquals(seen, [2, [DL_TENSOR, NONE], [[1, 3], [2, 4]]]);
  assertEquals(tensor.toArray(), [[1, 2], [50, 4]]);
});

// Beside the library is one of functions to test callers with.
const testing = path?.replace(/tvm_ffi(?=\.\w+$)/, "tvm_ffi_testing") ?? "";
const hasTesting = isFile(testing);
if (!hasTesting && path !== null) {
  skipped("optional tensors of tvm-ffi", "pip install apache-tvm-ffi");
}

Deno.test({
  name: "tvm-ffi: an optional tensor is a DLTensor, an object or nothing",
  ignore: !hasTesting,
  fn() {
    Deno.dlopen(testing, {});
    using hasValue = globalFunction("testing.optional_tensor_view_has_value");
    using struct = matrix.__dlpack__({ maxVersion: [1, 0] });
    using tensor = objectOf(matrix);
    assertEquals(call(hasValue, none), [BOOL, 0n]);
    assertEquals(call(hasValue, dlTensor(struct)), [BOOL, 1n]);
    assertEquals(call(hasValue, object(TENSOR, tensor)), [BOOL, 1n]);
    assertThrows(() => call(hasValue, [INT, 1n]), Error, "DLTensor");
  },
});

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
