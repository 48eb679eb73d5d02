// Two libraries that hand out DLPack through plain C: tvm-ffi and metatensor.

import {
  BufferError,
  DeviceType,
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { findLibrary } from "../examples/find_library.ts";
import { tvm } from "./peers_tvm_ffi.ts";
import { skipped } from "./skipped.ts";

const out = new BigUint64Array(1);

function pointer<T>(address: bigint): Deno.PointerObject<T> {
  return Deno.UnsafePointer.create<T>(address)!;
}

/** Where a typed array is; asking for its buffer pins it in place. */
function addressOf(view: ArrayBufferView<ArrayBuffer>): bigint {
  const bytes = new Uint8Array(view.buffer, view.byteOffset);
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
}

// --- tvm-ffi ---------------------------------------------------------------

type Name = "dltensor" | "dltensor_versioned";
const names: readonly Name[] = ["dltensor", "dltensor_versioned"];

function tvmTest(
  name: string,
  test: (t: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({
    name: `tvm-ffi: ${name}`,
    ignore: tvm === null,
    fn: test,
  });
}

/** A TVMFFIObject that is a tensor; its use count is watched by the tests. */
class TvmTensor implements Disposable {
  readonly handle: Deno.PointerObject;

  constructor(handle: Deno.PointerObject) {
    this.handle = handle;
  }

  /** Hands a struct to tvm-ffi; throws its error when it refuses. */
  static import(
    struct: Deno.PointerObject,
    name: Name,
    requireContiguous: boolean,
  ): TvmTensor {
    const take = name === "dltensor"
      ? tvm!.TVMFFITensorFromDLPack
      : tvm!.TVMFFITensorFromDLPackVersioned;
    tvmCheck(take(struct, 0, requireContiguous ? 1 : 0, out));
    return new TvmTensor(pointer(out[0]!));
  }

  static of(tensor: Tensor): TvmTensor {
    const capsule = tensor.__dlpack__({ maxVersion: [1, 0] });
    return TvmTensor.import(capsule.take(), "dltensor_versioned", false);
  }

  /** A tvm-ffi tensor over the same memory that keeps this one alive. */
  view(layout: {
    shape: readonly number[];
    strides: readonly number[];
    byteOffset?: number;
    dtype?: readonly [code: number, bits: number, lanes: number];
    device?: readonly [type: number, id: number];
  }): TvmTensor {
    const prototype = new DataView(new ArrayBuffer(48));
    // The object header has 24 bytes, then comes the DLTensor itself.
    new Deno.UnsafePointerView(this.handle)
      .copyInto(new Uint8Array(prototype.buffer), 24);
    if (layout.device !== undefined) {
      prototype.setInt32(8, layout.device[0], true);
      prototype.setInt32(12, layout.device[1], true);
    }
    prototype.setInt32(16, layout.shape.length, true);
    if (layout.dtype !== undefined) {
      prototype.setUint8(20, layout.dtype[0]);
      prototype.setUint8(21, layout.dtype[1]);
      prototype.setUint16(22, layout.dtype[2], true);
    }
    // One element more, since an empty array has no address.
    const shape = BigInt64Array.from([...layout.shape, 0], BigInt);
    const strides = BigInt64Array.from([...layout.strides, 0], BigInt);
    prototype.setBigUint64(24, addressOf(shape), true);
    prototype.setBigUint64(32, addressOf(strides), true);
    prototype.setBigUint64(40, BigInt(layout.byteOffset ?? 0), true);
    tvmCheck(
      tvm!.TVMFFITensorCreateUnsafeView(
        this.handle,
        new Uint8Array(prototype.buffer),
        out,
      ),
    );
    return new TvmTensor(pointer(out[0]!));
  }

  export(name: Name): DlpackCapsule {
    const give = name === "dltensor"
      ? tvm!.TVMFFITensorToDLPack
      : tvm!.TVMFFITensorToDLPackVersioned;
    tvmCheck(give(this.handle, out));
    return new DlpackCapsule(out[0]!, name);
  }

  get useCount(): number {
    return new Deno.UnsafePointerView(this.handle).getUint32(0);
  }

  [Symbol.dispose](): void {
    tvm!.TVMFFIObjectDecRef(this.handle);
  }
}

function tvmCheck(status: number): void {
  if (status === 0) return;
  tvm!.TVMFFIErrorMoveFromRaised(out);
  const error = pointer(out[0]!);
  const cell = new Deno.UnsafePointerView(error);
  const message = new Uint8Array(Number(cell.getBigUint64(48)));
  new Deno.UnsafePointerView(cell.getPointer(40)!).copyInto(message);
  tvm!.TVMFFIObjectDecRef(error);
  throw new Error(new TextDecoder().decode(message));
}

for (const name of names) {
  tvmTest(`a tensor shares its memory when it comes as ${name}`, () => {
    const memory = new Float32Array([1, 2, 3, 4, 5, 6]);
    using source = TvmTensor.of(Tensor.from(memory, [2, 3]));
    using tensor = fromDlpack(source.export(name));

    assertEquals(tensor.dtype, "float32");
    assertEquals(tensor.shape, [2, 3]);
    assertEquals(tensor.strides, [3, 1]);
    assertEquals(tensor.device, { type: "cpu", id: 0 });
    // A struct of before DLPack 1.0 cannot say that it may be written to.
    assertEquals(tensor.readOnly, name === "dltensor");
    assertEquals(tensor.toArray(), [[1, 2, 3], [4, 5, 6]]);

    memory[4] = -5;
    assertEquals(tensor.get(1, 1), -5);
    assert(tensor.is("float32"));
    tensor.data[0] = 7;
    assertEquals(memory[0], 7);
  });

  tvmTest(`the deleter runs once when it comes as ${name}`, async (t) => {
    using source = TvmTensor.of(Tensor.from(new Float32Array(6), [2, 3]));
    const before = liveTensors();

    await t.step("and the tensor is disposed, even twice", () => {
      const tensor = fromDlpack(source.export(name));
      assertEquals(source.useCount, 2);
      assertEquals(liveTensors(), {
        ...before,
        count: before.count + 1,
        bytes: before.bytes + 24,
      });
      tensor[Symbol.dispose]();
      assertEquals(source.useCount, 1);
      tensor[Symbol.dispose]();
      assertEquals(source.useCount, 1);
      assertEquals(liveTensors(), before);
    });

    await t.step("and a copy is asked for", () => {
      const tensor = fromDlpack(source.export(name), { copy: true });
      assertEquals(source.useCount, 1);
      assertEquals(tensor.shape, [2, 3]);
    });

    await t.step("and the capsule is disposed unconsumed", () => {
      const capsule = source.export(name);
      assertEquals(source.useCount, 2);
      capsule[Symbol.dispose]();
      capsule[Symbol.dispose]();
      assertEquals(source.useCount, 1);
    });

    await t.step("and the capsule is disposed after its tensor", () => {
      const capsule = source.export(name);
      fromDlpack(capsule)[Symbol.dispose]();
      capsule[Symbol.dispose]();
      assertEquals(source.useCount, 1);
    });
  });
}

tvmTest("the tensor lives on when tvm-ffi lets go of its handle", () => {
  using source = TvmTensor.of(
    Tensor.from(new Float64Array([1, 2, 3, 4]), [2, 2]),
  );
  const handle = source.view({ shape: [2, 2], strides: [1, 2] });
  const tensor = fromDlpack(handle.export("dltensor_versioned"));
  handle[Symbol.dispose]();
  assertEquals(source.useCount, 2);
  assertEquals(tensor.toArray(), [[1, 3], [2, 4]]);
  tensor[Symbol.dispose]();
  assertEquals(source.useCount, 1);
});

tvmTest(
  "strides and offsets are kept when the view is made by tvm-ffi",
  async (t) => {
    const memory = new Float32Array([0, 1, 2, 3, 4, 5]);
    using source = TvmTensor.of(Tensor.from(memory));
    const cases = [
      {
        what: "transposed",
        layout: { shape: [3, 2], strides: [1, 3] },
        expected: [[0, 3], [1, 4], [2, 5]],
      },
      {
        what: "backwards",
        layout: { shape: [6], strides: [-1], byteOffset: 20 },
        expected: [5, 4, 3, 2, 1, 0],
      },
      {
        what: "a column that starts at a byte offset",
        layout: { shape: [2], strides: [3], byteOffset: 4 },
        expected: [1, 4],
      },
      {
        what: "a row repeated with stride 0",
        layout: { shape: [2, 3], strides: [0, 1] },
        expected: [[0, 1, 2], [0, 1, 2]],
      },
      {
        what: "overlapping windows",
        layout: { shape: [3, 4], strides: [1, 1] },
        expected: [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]],
      },
      {
        what: "a scalar",
        layout: { shape: [], strides: [], byteOffset: 12 },
        expected: 3,
      },
      {
        what: "empty",
        layout: { shape: [0, 3], strides: [3, 1] },
        expected: [],
      },
    ];
    for (const { what, layout, expected } of cases) {
      for (const name of names) {
        await t.step(`${what}, ${name}`, () => {
          using handle = source.view(layout);
          using tensor = fromDlpack(handle.export(name));
          assertEquals(tensor.shape, layout.shape);
          if (tensor.size > 0) assertEquals(tensor.strides, layout.strides);
          assertEquals(tensor.toArray(), expected);
        });
      }
    }
    assertEquals(source.useCount, 1);
  },
);

tvmTest(
  "the dtype is kept when tvm-ffi reinterprets the memory",
  async (t) => {
    const memory = new Uint8Array([1, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    using source = TvmTensor.of(Tensor.from(memory));
    const cases = [
      { dtype: "uint8", code: [1, 8], expected: [1, 0, 128, 63, 0, 0, 0, 192] },
      { dtype: "int8", code: [0, 8], expected: [1, 0, -128, 63, 0, 0, 0, -64] },
      { dtype: "uint16", code: [1, 16], expected: [1, 16256, 0, 49152] },
      { dtype: "int32", code: [0, 32], expected: [1065353217, -1073741824] },
      { dtype: "int64", code: [0, 64], expected: [-4611686017362034687n] },
      { dtype: "uint64", code: [1, 64], expected: [13835058056347516929n] },
      { dtype: "bfloat16", code: [4, 16], expected: [2 ** -133, 1, 0, -2] },
      {
        dtype: "complex64",
        code: [5, 32 * 2],
        expected: [{ re: 1 + 2 ** -23, im: -2 }],
      },
    ];
    for (const { dtype, code, expected } of cases) {
      await t.step(dtype, () => {
        using handle = source.view({
          shape: [expected.length],
          strides: [1],
          dtype: [code[0]!, code[1]!, 1],
        });
        using tensor = fromDlpack(handle.export("dltensor_versioned"));
        assertEquals(tensor.dtype as string, dtype);
        assertEquals([...tensor], expected);
      });
    }
  },
);

tvmTest(
  "an error releases the tensor once when it cannot be viewed",
  async (t) => {
    using source = TvmTensor.of(Tensor.from(new Float32Array(4)));
    const cases = [
      { what: "on a GPU", code: "device", device: [DeviceType.cuda, 0] },
      { what: "of 3-bit floats", code: "dtype", dtype: [2, 3, 1] },
      { what: "of a negative shape", code: "shape", shape: [-1] },
    ] as const;
    for (const { what, code, ...layout } of cases) {
      for (const name of names) {
        await t.step(`${what}, ${name}`, () => {
          const handle = source.view({ shape: [1], strides: [1], ...layout });
          const capsule = handle.export(name);
          handle[Symbol.dispose]();
          assertEquals(source.useCount, 2);
          const error = assertThrows(() => fromDlpack(capsule), BufferError);
          assertEquals(error.code, code);
          // Refused only for the options, a capsule stays as it was.
          assertEquals(source.useCount, code === "device" ? 2 : 1);
          capsule[Symbol.dispose]();
          assertEquals(source.useCount, 1);
        });
      }
    }
  },
);

tvmTest("a capsule is refused when it was consumed before", () => {
  using source = TvmTensor.of(Tensor.from(new Float32Array(4)));
  const capsule = source.export("dltensor_versioned");
  using tensor = fromDlpack(capsule);
  const error = assertThrows(() => fromDlpack(capsule), BufferError);
  assertEquals(error.code, "consumed");
  assertEquals(source.useCount, 2);
  assertEquals(tensor.size, 4);
});

tvmTest("an imported tensor goes back to tvm-ffi and stays alive there", () => {
  const memory = new Float32Array([1, 2, 3, 4]);
  using source = TvmTensor.of(Tensor.from(memory));
  const tensor = fromDlpack(source.export("dltensor_versioned"));
  const again = TvmTensor.of(tensor);
  tensor[Symbol.dispose]();
  assertEquals(source.useCount, 2);
  {
    using back = fromDlpack(again.export("dltensor_versioned"));
    assertEquals(back.toArray(), [1, 2, 3, 4]);
  }
  again[Symbol.dispose]();
  assertEquals(source.useCount, 1);
});

for (const name of names) {
  tvmTest(
    `ownership stays with the caller when tvm-ffi refuses a ${name}`,
    () => {
      using source = TvmTensor.of(
        Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]),
      );
      const tensor = fromDlpack(source.export("dltensor_versioned"));
      const struct = tensor.transpose()
        .__dlpack__({ maxVersion: name === "dltensor" ? null : [1, 0] }).take();
      tensor[Symbol.dispose]();
      assertEquals(source.useCount, 2);

      const error = assertThrows(() => TvmTensor.import(struct, name, true));
      assertStringIncludes((error as Error).message, "not contiguous");
      assertEquals(source.useCount, 2);

      {
        using back = fromDlpack(new DlpackCapsule(struct, name));
        assertEquals(back.toArray(), [[1, 3], [2, 4]]);
      }
      assertEquals(source.useCount, 1);
    },
  );
}

// --- metatensor ------------------------------------------------------------

const metatensorPath = findLibrary({
  variable: "METATENSOR_LIBRARY",
  module: "metatensor",
  name: "metatensor",
});
if (metatensorPath === null) {
  skipped("metatensor", "pip install metatensor-core");
}
const metatensor = metatensorPath === null ? null : Deno.dlopen(
  metatensorPath,
  {
    mts_last_error: {
      parameters: ["buffer", "pointer", "pointer"],
      result: "i32",
    },
    mts_labels: {
      parameters: ["buffer", "usize", { struct: Array(13).fill("u64") }],
      result: "pointer",
    },
    mts_labels_load_buffer: {
      parameters: ["buffer", "usize"],
      result: "pointer",
    },
    mts_labels_values: { parameters: ["pointer", "buffer"], result: "i32" },
    mts_labels_position: {
      parameters: ["pointer", "buffer", "usize", "buffer"],
      result: "i32",
    },
    mts_labels_free: { parameters: ["pointer"], result: "i32" },
  },
).symbols;

function metatensorTest(
  name: string,
  test: (t: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({
    name: `metatensor: ${name}`,
    ignore: metatensor === null,
    fn: test,
  });
}

/** Labels of metatensor: a table of unique rows of int32. */
class Labels implements DlpackExporter, Disposable {
  readonly handle: Deno.PointerObject;
  /** An mts_array_t: the array, then the functions that work on it. */
  readonly array = new BigUint64Array(13);

  constructor(handle: Deno.PointerValue) {
    if (handle === null) throw lastError();
    this.handle = handle;
    metatensorCheck(metatensor!.mts_labels_values(handle, this.array));
  }

  /** Labels loaded from metatensor's file format: NumPy's, records of int32. */
  static load(dimensions: readonly string[], values: Int32Array): Labels {
    const count = values.length / dimensions.length;
    const fields = dimensions.map((name) => `('${name}', '<i4')`);
    const header = `{'descr': [${fields.join(", ")}], ` +
      `'fortran_order': False, 'shape': (${count},), }`;
    // Magic, version, length of the header; the values start at 64 * n.
    const start = 64 * Math.ceil((header.length + 11) / 64);
    const file = new Uint8Array(start + values.byteLength);
    const text = "\x93NUMPY\x01\x00\x00\x00" + header.padEnd(start - 11) + "\n";
    file.set(Array.from(text, (character) => character.charCodeAt(0)));
    new DataView(file.buffer).setUint16(8, start - 10, true);
    new Int32Array(file.buffer, start).set(values);
    return new Labels(
      metatensor!.mts_labels_load_buffer(file, BigInt(file.length)),
    );
  }

  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const asDlpack = new Deno.UnsafeFnPointer(pointer(this.array[5]!), {
      parameters: [
        "pointer",
        "buffer",
        { struct: ["i32", "i32"] }, // DLDevice
        "buffer",
        { struct: ["u32", "u32"] }, // DLPackVersion
      ],
      result: "i32",
    });
    const stream = request.stream ?? null;
    metatensorCheck(
      asDlpack.call(
        pointer(this.array[0]!),
        out,
        new Int32Array(request.dlDevice ?? this.__dlpack_device__()),
        stream === null ? null : new BigInt64Array([BigInt(stream)]),
        new Uint32Array(request.maxVersion ?? [1, 0]),
      ),
    );
    return new DlpackCapsule(out[0]!, "dltensor_versioned");
  }

  __dlpack_device__(): readonly [type: number, id: number] {
    const device = new Deno.UnsafeFnPointer(pointer(this.array[3]!), {
      parameters: ["pointer", "buffer"],
      result: "i32",
    });
    const result = new Int32Array(2);
    metatensorCheck(device.call(pointer(this.array[0]!), result));
    return [result[0]!, result[1]!];
  }

  [Symbol.dispose](): void {
    metatensor!.mts_labels_free(this.handle);
  }
}

function metatensorCheck(status: number): void {
  if (status !== 0) throw lastError();
}

function lastError(): Error {
  metatensor!.mts_last_error(out, null, null);
  return new Error(new Deno.UnsafePointerView(pointer(out[0]!)).getCString());
}

const atoms = new Int32Array([0, 8, 1, 1, 2, 1]);

metatensorTest("labels are viewed in place when imported", () => {
  using labels = Labels.load(["atom", "element"], atoms);
  using tensor = fromDlpack(labels);
  assertEquals(tensor.dtype, "int32");
  assertEquals(tensor.shape, [3, 2]);
  assertEquals(tensor.strides, [2, 1]);
  assertEquals(tensor.toArray(), [[0, 8], [1, 1], [2, 1]]);

  using again = fromDlpack(labels);
  assertEquals(addressOf(tensor.data), addressOf(again.data));
});

metatensorTest("a view is read-only when metatensor says so", () => {
  using labels = Labels.load(["atom", "element"], atoms);
  using tensor = fromDlpack(labels);
  assert(tensor.readOnly);
  assert(tensor.is("int32"));
  const error = assertThrows(() => tensor.set(0, 0, 9), BufferError);
  assertEquals(error.code, "readonly");
  assertEquals(tensor.get(0, 0), 0);

  const copy = fromDlpack(labels, { copy: true });
  assert(copy.is("int32"));
  copy.set(0, 0, 9);
  assertEquals(copy.get(0, 0), 9);
  assertEquals(tensor.get(0, 0), 0);
});

metatensorTest("labels without rows give an empty tensor", () => {
  using labels = Labels.load(["atom", "element"], new Int32Array(0));
  using tensor = fromDlpack(labels);
  assertEquals(tensor.shape, [0, 2]);
  assertEquals(tensor.toArray(), []);
});

metatensorTest(
  "the memory is freed when the tensor outlives the labels and is disposed",
  () => {
    const rows = 1 << 19;
    const values = new Int32Array(rows * 16);
    for (let row = 0; row < rows; row++) values[16 * row] = row;
    const dimensions = Array.from({ length: 16 }, (_, i) => `d${i}`);
    const before = liveTensors();

    const labels = Labels.load(dimensions, values);
    const tensor = fromDlpack(labels);
    const beforeFree = Deno.memoryUsage().rss;
    labels[Symbol.dispose]();
    assertEquals(tensor.get(rows - 1, 0), rows - 1);
    assertEquals(tensor.get(rows - 1, 15), 0);
    const held = Deno.memoryUsage().rss;
    assertEquals(liveTensors(), {
      ...before,
      count: before.count + 1,
      bytes: before.bytes + values.byteLength,
    });

    tensor[Symbol.dispose]();
    assertEquals(liveTensors(), before);
    const freed = beforeFree - Deno.memoryUsage().rss;
    assert(
      freed > values.byteLength / 2,
      `Only ${freed} of ${values.byteLength} bytes were freed`,
    );
    assert(
      beforeFree - held < freed,
      "The memory was freed before the tensor was disposed",
    );
  },
);

metatensorTest(
  "the error is metatensor's own when it refuses to export",
  () => {
    using labels = Labels.load(["atom", "element"], atoms);
    const before = liveTensors();
    for (
      const [request, message] of [
        [{ dlDevice: [DeviceType.cuda, 0] }, "only exist on CPU"],
        [{ maxVersion: [0, 8] }, "invalid `max_version`"],
        [{ stream: 1 }, "`stream` must be None for CPU"],
      ] as const
    ) {
      const asking: DlpackExporter = {
        __dlpack__: () => labels.__dlpack__(request),
        __dlpack_device__: () => labels.__dlpack_device__(),
      };
      assertThrows(() => fromDlpack(asking), Error, message);
    }
    assertEquals(liveTensors(), before);
  },
);

metatensorTest("a tensor made in JavaScript becomes labels", () => {
  using source = Labels.load(["atom", "element"], atoms);
  const fromStruct = new Deno.UnsafeFnPointer(pointer(source.array[6]!), {
    parameters: ["pointer", "pointer", "buffer"],
    result: "i32",
  });
  const tensor = Tensor.from(new Int32Array([4, 6, 5, 7]), [2, 2]);
  const array = new BigUint64Array(13);
  metatensorCheck(
    fromStruct.call(
      pointer(source.array[0]!),
      tensor.__dlpack__({ maxVersion: [1, 0] }).take(),
      array,
    ),
  );
  const text = new TextEncoder();
  const dimensions = [text.encode("atom\0"), text.encode("element\0")];
  using labels = new Labels(
    metatensor!.mts_labels(
      BigUint64Array.from(dimensions, addressOf),
      2n,
      new Uint8Array(array.buffer),
    ),
  );
  const position = new BigInt64Array(1);
  metatensorCheck(
    metatensor!.mts_labels_position(
      labels.handle,
      new Int32Array([5, 7]),
      2n,
      position,
    ),
  );
  assertEquals(position[0], 1n);
  using back = fromDlpack(labels);
  assertEquals(back.toArray(), [[4, 6], [5, 7]]);
});
