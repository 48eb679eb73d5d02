/**
 * The counterpart of every test in NumPy's test_dlpack.py, under its name.
 * Where NumPy's test is about an exporter, ours exports a tensor of our own.
 */

import {
  BufferError,
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { dtypeByName } from "../src/dtype/table.ts";
import {
  assertBufferError,
  bytesOf,
  capsule,
  deletions,
  floats,
  importFixture,
} from "./helpers.ts";

const arange = (n: number): Float64Array<ArrayBuffer> =>
  Float64Array.from({ length: n }, (_, i) => i);

Deno.test("test_dunder_dlpack_refcount: an unconsumed export is released once", () => {
  for (
    const maxVersion of [[0, 0], null, [1, 0], [100, 3]] as const
  ) {
    const before = liveTensors().count;
    const deleted = deletions(() => {
      const t = importFixture(floats([5]));
      const exported = t.__dlpack__({ maxVersion });
      assertEquals(
        exported.name,
        (maxVersion?.[0] ?? 0) >= 1 ? "dltensor_versioned" : "dltensor",
      );
      t[Symbol.dispose]();
      assertEquals(liveTensors().count, before + 2, "the export keeps it");
      exported[Symbol.dispose]();
      exported[Symbol.dispose]();
      assertEquals(liveTensors().count, before);
    });
    assertEquals(deleted, 1);
  }
});

Deno.test("test_dunder_dlpack_stream: host memory has no streams", () => {
  const t = Tensor.from(arange(5));
  t.__dlpack__({ stream: null })[Symbol.dispose]();
  assertThrows(() => t.__dlpack__({ stream: 1 }), TypeError, "stream 1");
});

Deno.test("test_dunder_dlpack_copy: copy is true, false or null", () => {
  const t = Tensor.from(arange(5));
  for (const copy of [true, false, null]) {
    t.__dlpack__({ copy })[Symbol.dispose]();
  }
  assertThrows(
    () => t.__dlpack__({ copy: "always" as unknown as boolean }),
    TypeError,
    'The option "copy"',
  );
});

Deno.test("test_strides_not_multiple_of_itemsize: strides count elements", () => {
  // A field of a record cannot be said in DLPack, and not in Tensor.from().
  assertThrows(
    () => Tensor.from(arange(5), [2], { strides: [1.5] }),
    RangeError,
    "must be an integer, not 1.5",
  );
});

Deno.test("test_from_dlpack_refcount: a disposed import calls the deleter once", () => {
  for (const versioned of [true, false]) {
    assertEquals(
      deletions(() => {
        const t = importFixture(floats([4], { versioned }));
        assertEquals(t.toArray(), [0, 1, 2, 3]);
        t[Symbol.dispose]();
      }),
      1,
    );
  }
});

const dtypes: readonly DType[] = [
  "bool",
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "float16",
  "float32",
  "float64",
  "complex64",
  "complex128",
];

Deno.test("test_dtype_passthrough: every dtype comes back as it was", async (t) => {
  for (const dtype of dtypes) {
    for (const maxVersion of [[1, 0], null] as const) {
      await t.step(`${dtype} ${maxVersion === null ? "old" : "new"}`, () => {
        const x = Tensor.from(arange(5)).astype(dtype);
        using y = fromDlpack(x.__dlpack__({ maxVersion }));
        assertEquals(y.dtype, dtype);
        assertEquals(y.toArray(), x.toArray());
      });
    }
  }
});

Deno.test("test_invalid_dtype: what no dtype is, is refused", () => {
  assertBufferError(
    () => importFixture(floats([2], { dtype: [2, 31, 1] })),
    "dtype",
    "float (code 2), 31 bits",
  );
});

Deno.test("test_invalid_byte_swapping: data is a typed array, in native order", () => {
  assertThrows(
    () =>
      Tensor.from(new DataView(new ArrayBuffer(8)) as unknown as TypedArray),
    TypeError,
    "a DataView: pass a typed array",
  );
});

Deno.test("test_non_contiguous: rows, columns, steps and a diagonal", () => {
  const x = Tensor.from(arange(25), [5, 5]);
  const parts = [
    x.slice(0),
    x.slice(null, 0),
    x.slice(null, 1),
    x.slice(1),
    x.slice(null, [null, null, 2]),
    x.slice([null, null, -1], [3, 0, -2]),
    x.transpose(),
    Tensor.from(x.data, [5], { strides: [6] }),
  ];
  for (const part of parts) {
    using same = fromDlpack(part);
    assertEquals(same.toArray(), part.toArray());
    assertEquals(same.strides, part.strides);
  }
});

Deno.test("test_higher_dims: 0 to 64 axes", () => {
  for (let ndim = 0; ndim <= 64; ndim++) {
    const shape = new Array<number>(ndim).fill(1);
    using t = fromDlpack(Tensor.from(arange(1), shape));
    assertEquals(t.shape, shape);
    assertEquals(t.get(...shape.map(() => 0)), 0);
  }
});

Deno.test("test_dlpack_device: views are where their memory is", () => {
  const x = Tensor.from(arange(5));
  assertEquals(x.__dlpack_device__(), [1, 0]);
  using y = fromDlpack(x);
  assertEquals(y.__dlpack_device__(), [1, 0]);
  assertEquals(y.slice([null, null, 2]).__dlpack_device__(), [1, 0]);
  using pinned = importFixture(floats([4], { device: [3, 1] }));
  assertEquals(pinned.slice([1, 3]).__dlpack_device__(), [3, 1]);
  assertEquals(pinned.device, { type: "cudaHost", id: 1 });
});

Deno.test("test_dlpack_destructor_exception: a throwing deleter hides no error", () => {
  const bad = new Deno.UnsafeCallback(
    { parameters: ["pointer"], result: "void" },
    () => {
      throw new Error("The deleter threw");
    },
  );
  const { error } = console;
  const reported: unknown[] = [];
  console.error = (...args) => reported.push(...args);
  try {
    // An exported struct of an impossible dtype, with that deleter.
    const exported = Tensor.from(arange(5)).__dlpack__({ maxVersion: [1, 0] });
    const address = Deno.UnsafePointer.value(exported.pointer);
    const struct = new Uint8Array(
      Deno.UnsafePointerView.getArrayBuffer(exported.pointer, 80),
    );
    const view = new DataView(struct.buffer);
    view.setUint8(53, 7);
    const deleter = view.getBigUint64(16, true);
    const name = exported.name;
    assert(name === "dltensor_versioned");
    exported.take();
    view.setBigUint64(16, BigInt(Deno.UnsafePointer.value(bad.pointer)), true);
    assertBufferError(
      () => fromDlpack(new DlpackCapsule(address, name)),
      "dtype",
    );
    assert(reported.some((item) => String(item).includes("The deleter threw")));
    view.setBigUint64(16, deleter, true);
    new DlpackCapsule(address, name)[Symbol.dispose]();
  } finally {
    console.error = error;
    bad.close();
  }
});

Deno.test("test_readonly: a legacy struct cannot say so", () => {
  const x = Tensor.from(arange(5), [5], { readOnly: true });
  assertBufferError(() => x.__dlpack__(), "readonly");
  assertBufferError(() => x.__dlpack__({ maxVersion: [0, 8] }), "readonly");
  using y = fromDlpack(x);
  assertEquals(y.readOnly, true);
  using copied = fromDlpack(x, { copy: true });
  assertEquals(copied.readOnly, false);
});

Deno.test("test_writeable: versioned as it says, legacy never", () => {
  const x = Tensor.from(arange(5));
  using versioned = fromDlpack(x);
  assertEquals(versioned.readOnly, false);
  assert(versioned.is("float64"));
  versioned.set(0, 42);
  assertEquals(x.get(0), 42);
  using legacy = fromDlpack(x.__dlpack__());
  assert(legacy.is("float64"));
  assertEquals(legacy.readOnly, true);
  assertBufferError(() => legacy.set(0, 1), "readonly");
});

Deno.test("test_ndim0: a tensor without axes", () => {
  using t = fromDlpack(Tensor.from(Float64Array.of(1), []));
  assertEquals([t.shape, t.get(), t.toArray()], [[], 1, 1]);
});

Deno.test("test_size1dims_arrays: the stride of a single element is anything", () => {
  const x = Tensor.from(Uint8Array.from(arange(50)), [10, 5, 1], {
    strides: [5, 1, 4],
  });
  using y = fromDlpack(x);
  assertEquals(y.toArray(), x.toArray());
  assert(y.isContiguous);
});

Deno.test("test_copy: null and false share the memory, true does not", () => {
  const x = Tensor.from(arange(5));
  const first = (t: Tensor): bigint =>
    BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(t.data)));
  for (const copy of [null, false, undefined]) {
    using y = fromDlpack(x, copy === undefined ? {} : { copy });
    assertEquals(first(y), first(x));
  }
  using y = fromDlpack(x, { copy: true });
  assert(first(y) !== first(x));
  assertEquals(y.toArray(), x.toArray());
});

Deno.test("test_device: the CPU or where it is", () => {
  const x = Tensor.from(arange(5));
  x.__dlpack__({ dlDevice: [1, 0] })[Symbol.dispose]();
  fromDlpack(x, { device: "cpu" })[Symbol.dispose]();
  fromDlpack(x, { device: null })[Symbol.dispose]();
  assertBufferError(
    () => x.__dlpack__({ dlDevice: [10, 0] }),
    "device",
    "rocm:0",
  );
  assertThrows(
    () => fromDlpack(x, { device: "gpu" as "cpu" }),
    TypeError,
    'The option "device"',
  );
});

Deno.test("TestRegisterDlpackDtype: bfloat16 and float8 need no registering", () => {
  for (const dtype of ["bfloat16", "float8_e4m3fn", "float4_e2m1fn"] as const) {
    const info = dtypeByName(dtype)!;
    const x = Tensor.from(arange(4)).astype(dtype);
    using y = fromDlpack(x);
    assertEquals(y.dtype, dtype);
    assertEquals(bytesOf(y.data), bytesOf(x.data));
    assertEquals(y.bits, info.bits);
  }
});

Deno.test("TestScalarDLPack: a single element keeps dtype and device", () => {
  for (const dtype of dtypes) {
    const x = Tensor.from(arange(1), []).astype(dtype);
    assertEquals(x.__dlpack_device__(), [1, 0]);
    using y = fromDlpack(x);
    assertEquals([y.dtype, y.shape, y.get()], [dtype, [], x.get()]);
  }
});

Deno.test("test_from_dlpack_twice: a capsule has one consumer", () => {
  assertEquals(
    deletions(() => {
      const once = capsule(floats([3]));
      using _t = fromDlpack(once);
      assertEquals(once.name, "used_dltensor_versioned");
      const error = assertBufferError(() => fromDlpack(once), "consumed");
      assert(error instanceof BufferError);
    }),
    1,
  );
});
