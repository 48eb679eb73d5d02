/**
 * Libraries of before DLPack 1.0 through their C APIs, both ways: DGL, decord
 * and MXNet. The last two write a bool as a uint of 1 bit, with a byte each.
 */

import {
  addressOf,
  dlopen,
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import { assertEquals, assertThrows } from "@std/assert";
import { foldersOf } from "../examples/find_library.ts";
import { skipped } from "./skipped.ts";

/** The library that a Python package brings, or `null`. */
function libraryOf(name: string, version: string): string | null {
  for (const folder of foldersOf(name)) {
    const path = `${folder}/lib${name}.so`;
    if (!isFile(path)) continue;
    try {
      Deno.dlopen(path, {});
      return path;
    } catch {
      skipped(name, "apt-get install libgomp1 libquadmath0");
      return null;
    }
  }
  skipped(name, `pip install --no-deps ${name}==${version}`);
  return null;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

const out = new BigUint64Array(1);

/** The pointer that a function wrote into `out`. */
function written(): Deno.PointerObject {
  return Deno.UnsafePointer.create(out[0]!)!;
}

/** The dtype that a legacy struct says, and whether it has strides. */
function said(struct: Deno.PointerObject) {
  const view = new Deno.UnsafePointerView(struct);
  return {
    dtype: [view.getUint8(20), view.getUint8(21), view.getUint16(22)],
    hasStrides: view.getPointer(32) !== null,
  };
}

/** The numbers 1 to 12, and how often their memory was given back. */
class Numbers {
  released = 0;

  tensor<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
    const memory = dtype === "float32"
      ? Float32Array.from({ length: 12 }, (_, i) => i + 1)
      : Uint8Array.from({ length: 12 }, (_, i) => i % 2);
    const capsule = DlpackCapsule.from(Deno.UnsafePointer.of(memory), {
      dtype,
      shape,
      byteLength: memory.byteLength,
      keepAlive: memory,
      release: () => this.released++,
    });
    return fromDlpack(capsule, { dtype });
  }
}

const compact: readonly [what: string, of: (n: Numbers) => Tensor][] = [
  ["a matrix", (n) => n.tensor("float32", [3, 4])],
  ["a row", (n) => n.tensor("float32", [3, 4]).slice(1)],
  ["a number", (n) => n.tensor("float32", [12]).slice(5)],
];
const strided: typeof compact = [
  ["a transposed matrix", (n) => n.tensor("float32", [3, 4]).transpose()],
  ["a vector backwards", (n) => n.tensor("float32", [12]).slice([8, 2, -2])],
  ["a part of rows", (n) => n.tensor("float32", [3, 4]).slice(null, [1, 3])],
];

/** Registers a test that leaves no tensor behind. */
function register(
  library: string,
  isThere: boolean,
  name: string,
  run: () => void,
): void {
  Deno.test({
    name: `${library}: ${name}`,
    ignore: !isThere,
    fn() {
      const before = liveTensors();
      run();
      assertEquals(liveTensors(), before);
    },
  });
}

// --- DGL and decord: each has TVM's runtime of its time ------------------------

function openRuntime(path: string, prefix: string) {
  const { symbols } = dlopen(path, {
    lastError: {
      name: `${prefix}GetLastError`,
      parameters: [],
      result: "pointer",
    },
    alloc: {
      name: `${prefix}ArrayAlloc`,
      parameters: [
        "buffer", // const int64_t *shape
        "i32", // int ndim
        "i32", // int dtype_code
        "i32", // int dtype_bits
        "i32", // int dtype_lanes
        "i32", // int device_type
        "i32", // int device_id
        "buffer", // DLTensor **out
      ],
      result: "i32",
    },
    free: {
      name: `${prefix}ArrayFree`,
      parameters: [
        "pointer", // DLTensor *handle
      ],
      result: "i32",
    },
    fromDlpack: {
      name: `${prefix}ArrayFromDLPack`,
      parameters: [
        "taken DLManagedTensor*", // from
        "buffer", // DLTensor **out
      ],
      result: "i32",
    },
    toDlpack: {
      name: `${prefix}ArrayToDLPack`,
      parameters: [
        "pointer", // DLTensor *from
        "DLManagedTensor**", // out
        "i32", // int alignment, of DGL only
      ],
      result: "i32",
      writable: true,
    },
    copyFromTo: {
      name: `${prefix}ArrayCopyFromTo`,
      parameters: [
        "DLTensor*", // from
        "DLTensor*", // to
        "pointer", // a stream, of decord only
      ],
      result: "i32",
    },
  });
  return symbols;
}

for (
  const [library, prefix, version] of [
    ["dgl", "DGL", "2.1.0"],
    ["decord", "DECORD", "0.6.0"],
  ] as const
) {
  const path = libraryOf(library, version);
  const c = path === null ? null : openRuntime(path, prefix);
  const test = (name: string, run: () => void): void =>
    register(library, c !== null, name, run);
  const check = (status: number): void => {
    if (status === 0) return;
    throw new Error(Deno.UnsafePointerView.getCString(c!.lastError()!));
  };
  const alloc = (
    [code, bits, lanes]: readonly [number, number, number],
    shape: readonly number[],
  ): Deno.PointerObject => {
    const dims = BigInt64Array.from(shape, BigInt);
    check(c!.alloc(dims, shape.length, code, bits, lanes, 1, 0, out));
    return written();
  };
  const exported = new OutCapsule();
  const exportOf = (array: Deno.PointerObject): DlpackCapsule => {
    check(c!.toDlpack(array, exported, 0));
    return exported.take();
  };

  test("an array is seen where it is, and outlives its handle", () => {
    const array = alloc([2, 32, 1], [2, 3]);
    using tensor = fromDlpack(exportOf(array), { dtype: "float32" });
    assertEquals([tensor.shape, tensor.strides], [[2, 3], [3, 1]]);
    assertEquals(tensor.readOnly, false);
    tensor.data.set([1, 2, 3, 4, 5, 6]);
    {
      // The handle is a DLTensor, too.
      using borrowed = fromDlpack(DlpackCapsule.borrow(array));
      assertEquals(addressOf(borrowed), addressOf(tensor));
      assertEquals(borrowed.toArray(), [[1, 2, 3], [4, 5, 6]]);
    }
    check(c!.free(array));
    assertEquals(tensor.toArray(), [[1, 2, 3], [4, 5, 6]]);
  });

  for (
    const [dtype, type, shape] of [
      ["uint8", [1, 8, 1], [2, 3]],
      ["int64", [0, 64, 1], [2, 3]],
      ["float16", [2, 16, 1], [2, 3]],
      ["float64", [2, 64, 1], [2, 3]],
      ["float32", [2, 32, 4], [2, 3, 4]],
    ] as const
  ) {
    test(`the dtype of ${type} is ${dtype}`, () => {
      const array = alloc(type, [2, 3]);
      using capsule = exportOf(array);
      assertEquals(said(capsule.pointer).dtype, [...type]);
      assertEquals(capsule.dtype, dtype);
      assertEquals(capsule.shape, shape);
      check(c!.free(array));
    });
  }

  for (const [what, tensorOf] of [...compact, ...strided]) {
    test(`${what} goes in and comes back`, () => {
      const numbers = new Numbers();
      const tensor = tensorOf(numbers);
      const expected = tensor.toArray();
      const { shape, strides } = tensor;
      const address = addressOf(tensor);
      check(c!.fromDlpack(tensor, out));
      const array = written();
      tensor[Symbol.dispose]();

      const first = fromDlpack(exportOf(array));
      const second = fromDlpack(exportOf(array));
      check(c!.free(array));
      first[Symbol.dispose]();
      assertEquals(numbers.released, 0);
      assertEquals([second.shape, second.strides], [shape, strides]);
      assertEquals(addressOf(second), address);
      assertEquals(second.toArray(), expected);
      second[Symbol.dispose]();
      assertEquals(numbers.released, 1);
    });
  }

  test("a tensor outlives the array over its memory", () => {
    const numbers = new Numbers();
    const tensor = numbers.tensor("float32", [12]);
    check(c!.fromDlpack(tensor, out));
    const array = written();
    check(c!.free(array));
    assertEquals(numbers.released, 0);
    assertEquals(tensor.get(11), 12);
    tensor[Symbol.dispose]();
    assertEquals(numbers.released, 1);
  });

  test("what nobody took of an OutCapsule is given back", () => {
    const numbers = new Numbers();
    const tensor = numbers.tensor("float32", [12]);
    check(c!.fromDlpack(tensor, out));
    const array = written();
    tensor[Symbol.dispose]();
    check(c!.toDlpack(array, exported, 0));
    check(c!.toDlpack(array, exported, 0));
    check(c!.free(array));
    assertEquals(numbers.released, 0);
    exported[Symbol.dispose]();
    assertEquals(numbers.released, 1);
  });

  test("a bool of ours has a byte each", () => {
    const numbers = new Numbers();
    const tensor = numbers.tensor("bool", [2, 2]);
    check(c!.fromDlpack(tensor, out));
    const array = written();
    using back = fromDlpack(exportOf(array), { dtype: "bool" });
    check(c!.free(array));
    assertEquals(back.toArray(), [[false, true], [false, true]]);
    tensor[Symbol.dispose]();
  });

  test("bare tensors are lent to be read and written", () => {
    const from = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
    const to = new Float32Array(6).fill(-1);
    const rows = Tensor.from(to, [3, 2]).slice([1]);
    check(c!.copyFromTo(from, rows, null));
    assertEquals([...to], [-1, -1, 1, 2, 3, 4]);

    const array = alloc([2, 32, 1], [4]);
    using borrowed = DlpackCapsule.borrow(array, { writable: true });
    const wrong = c!.copyFromTo(
      Tensor.from(new Float32Array(3)),
      borrowed,
      null,
    );
    assertThrows(() => check(wrong), Error, "size");
    check(c!.copyFromTo(from, borrowed, null));
    using seen = fromDlpack(borrowed);
    assertEquals(seen.toArray(), [1, 2, 3, 4]);
    seen[Symbol.dispose]();
    check(c!.free(array));
  });

  if (library === "decord") {
    test("a uint of 1 bit is a bool, with a byte each", () => {
      const array = alloc([1, 1, 1], [2, 3]);
      const capsule = exportOf(array);
      check(c!.free(array));
      assertEquals(said(capsule.pointer), {
        dtype: [1, 1, 1],
        hasStrides: false,
      });
      // decord itself has as many bytes.
      const bytes = Tensor.from(new Uint8Array([1, 0, 1, 1, 1, 0]));
      check(c!.copyFromTo(bytes, capsule, null));
      using tensor = fromDlpack(capsule, { dtype: "bool" });
      assertEquals([tensor.nbytes, tensor.itemsize], [6, 1]);
      assertEquals(tensor.toArray(), [[true, false, true], [
        true,
        true,
        false,
      ]]);
      tensor.set(0, 1, true);
      const copy = new Uint8Array(6);
      check(c!.copyFromTo(tensor, Tensor.from(copy), null));
      assertEquals([...copy], [1, 1, 1, 1, 1, 0]);
    });
  }
}

// --- MXNet -------------------------------------------------------------------

const mxnetPath = libraryOf("mxnet", "1.9.1");
const mxnet = mxnetPath === null ? null : openMxnet(mxnetPath);

function openMxnet(path: string) {
  const { symbols } = dlopen(path, {
    MXGetLastError: { parameters: [], result: "pointer" },
    MXNDArrayCreateEx: {
      parameters: [
        "buffer", // const uint32_t *shape
        "u32", // uint32_t ndim
        "i32", // int dev_type
        "i32", // int dev_id
        "i32", // int delay_alloc
        "i32", // int dtype
        "buffer", // NDArrayHandle *out
      ],
      result: "i32",
    },
    MXNDArrayFree: {
      parameters: [
        "pointer", // NDArrayHandle handle
      ],
      result: "i32",
    },
    MXNDArrayGetData: {
      parameters: [
        "pointer", // NDArrayHandle handle
        "buffer", // void **out_pdata
      ],
      result: "i32",
    },
    MXNDArraySyncCopyFromCPU: {
      parameters: [
        "pointer", // NDArrayHandle handle
        "contiguous data*", // const void *data
        "usize", // size_t size, in elements
      ],
      result: "i32",
    },
    MXNDArraySyncCopyToCPU: {
      parameters: [
        "pointer", // NDArrayHandle handle
        "contiguous data*", // void *data
        "usize", // size_t size, in elements
      ],
      result: "i32",
    },
    MXNDArrayToDLPack: {
      parameters: [
        "pointer", // NDArrayHandle handle
        "DLManagedTensor**", // out_dlpack
      ],
      result: "i32",
      writable: true,
    },
    MXNDArrayFromDLPackEx: {
      parameters: [
        "taken DLManagedTensor*", // dlpack
        "bool", // const bool transient_handle
        "buffer", // NDArrayHandle *out_handle
      ],
      result: "i32",
    },
  });
  return symbols;
}

function mxnetTest(name: string, run: () => void): void {
  register("mxnet", mxnet !== null, name, run);
}

/** Throws the first line of what MXNet says. */
function mxnetCheck(status: number): void {
  if (status === 0) return;
  const text = Deno.UnsafePointerView.getCString(mxnet!.MXGetLastError()!);
  throw new Error(text.split("\n")[0]);
}

const CPU = 1;

function mxnetArray(dtype: number, shape: readonly number[]) {
  const dims = new Uint32Array(shape);
  mxnetCheck(
    mxnet!.MXNDArrayCreateEx(dims, dims.length, CPU, 0, 0, dtype, out),
  );
  return written();
}

const mxnetOut = new OutCapsule();

function mxnetExport(array: Deno.PointerObject): DlpackCapsule {
  mxnetCheck(mxnet!.MXNDArrayToDLPack(array, mxnetOut));
  return mxnetOut.take();
}

/** Where an array's elements are. */
function mxnetAddress(array: Deno.PointerObject): bigint {
  mxnetCheck(mxnet!.MXNDArrayGetData(array, out));
  return out[0]!;
}

for (
  const [dtype, number, type] of [
    ["float32", 0, [2, 32, 1]],
    ["float64", 1, [2, 64, 1]],
    ["float16", 2, [2, 16, 1]],
    ["uint8", 3, [1, 8, 1]],
    ["int32", 4, [0, 32, 1]],
    ["int8", 5, [0, 8, 1]],
    ["int64", 6, [0, 64, 1]],
    ["bool", 7, [1, 1, 1]],
    ["bfloat16", 12, [4, 16, 1]],
  ] as const
) {
  mxnetTest(`an array of ${dtype} is seen where it is`, () => {
    const array = mxnetArray(number, [2, 3]);
    const address = mxnetAddress(array);
    const values = Tensor.from(new Uint8Array([1, 0, 1, 1, 1, 0]), [2, 3])
      .astype(dtype as DType);
    mxnetCheck(mxnet!.MXNDArraySyncCopyFromCPU(array, values, 6n));
    const capsule = mxnetExport(array);
    assertEquals(said(capsule.pointer), {
      dtype: [...type],
      hasStrides: false,
    });
    using tensor = fromDlpack(capsule);
    mxnetCheck(mxnet!.MXNDArrayFree(array));

    assertEquals(tensor.dtype, dtype);
    assertEquals([tensor.shape, tensor.strides], [[2, 3], [3, 1]]);
    assertEquals(tensor.itemsize, values.itemsize);
    assertEquals(addressOf(tensor), address);
    assertEquals(tensor.readOnly, false);
    assertEquals(tensor.toArray(), values.toArray());
  });
}

for (const transient of [true, false]) {
  const how = transient ? "copied" : "kept";
  for (const [what, tensorOf] of compact) {
    mxnetTest(`${what} goes in, its struct ${how}, and comes back`, () => {
      const numbers = new Numbers();
      const tensor = tensorOf(numbers);
      const [address, { shape, strides }] = [addressOf(tensor), tensor];
      const expected = tensor.copy();
      mxnetCheck(mxnet!.MXNDArrayFromDLPackEx(tensor, transient, out));
      const array = written();
      tensor[Symbol.dispose]();
      assertEquals(mxnetAddress(array), address);

      const seen = Tensor.zeros(shape, "float32");
      mxnetCheck(
        mxnet!.MXNDArraySyncCopyToCPU(array, seen, BigInt(seen.size)),
      );
      assertEquals(seen.toArray(), expected.toArray());

      const back = fromDlpack(mxnetExport(array));
      mxnetCheck(mxnet!.MXNDArrayFree(array));
      assertEquals(numbers.released, 0);
      assertEquals([back.shape, back.strides], [shape, strides]);
      assertEquals(addressOf(back), address);
      assertEquals(back.toArray(), expected.toArray());
      back[Symbol.dispose]();
      assertEquals(numbers.released, 1);
    });
  }
}

for (
  const [what, tensorOf, message] of [
    ...strided.map(([what, of]) => [what, of, "compact tensor"] as const),
    [
      "a bool of DLPack's",
      (numbers: Numbers) => numbers.tensor("bool", [4]),
      "Unknown DLDataType",
    ],
  ] as const
) {
  mxnetTest(`${what} stays the caller's when MXNet refuses it`, () => {
    const numbers = new Numbers();
    const tensor = tensorOf(numbers);
    const expected = tensor.toArray();
    const capsule = tensor.__dlpack__();
    tensor[Symbol.dispose]();
    const { pointer } = capsule;
    const status = mxnet!.MXNDArrayFromDLPackEx(capsule, true, out);
    assertThrows(() => mxnetCheck(status), Error, message);
    assertEquals(capsule.name, "used_dltensor");
    assertEquals(numbers.released, 0);
    const back = fromDlpack(new DlpackCapsule(pointer, "dltensor"));
    assertEquals(back.toArray(), expected);
    back[Symbol.dispose]();
    assertEquals(numbers.released, 1);
  });
}
