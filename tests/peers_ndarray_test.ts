// The n-d array classes of npm over an imported tensor's memory: no copy.

import {
  DlpackCapsule,
  type DType,
  fromDlpack,
  Tensor,
  type TypedArray,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { dtypeByName, dtypeNames } from "../src/dtype/table.ts";
import { fixture, type FixtureSpec, make } from "./native/fixture.ts";

/** What both classes have, as far as it is used here. */
interface NdArray {
  get(...index: number[]): number;
  set(...args: number[]): void;
  shape: ArrayLike<number>;
  data: unknown;
}

const { default: scijs } = await import("npm:ndarray@1.1.1") as {
  default: (
    data: unknown,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
  ) => NdArray;
};
const { default: Stdlib } = await import(
  "npm:@stdlib/ndarray-base-ctor@0.2.2"
) as {
  default: new (
    dtype: string,
    data: unknown,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
    order: "row-major",
  ) => NdArray;
};

const wrappers: Record<string, (t: Tensor) => NdArray> = {
  "ndarray of scijs": (t) => scijs(t.data, t.shape, t.strides, t.offset),
  "ndarray of stdlib": (t) =>
    new Stdlib(t.dtype, t.data, t.shape, t.strides, t.offset, "row-major"),
};

/** Bytes that float32 can hold and a single byte tells apart. */
const values = Float32Array.from({ length: 6 }, (_, i) => i + 1);
const float32: FixtureSpec = {
  dtype: [2, 32, 1],
  nbytes: values.byteLength,
  data: new Uint8Array(values.buffer),
};

const specs: Record<string, FixtureSpec> = {
  "a C-ordered tensor": { ...float32, shape: [2, 3] },
  "a transposed tensor": { ...float32, shape: [3, 2], strides: [1, 3] },
  "a tensor with negative strides": {
    ...float32,
    shape: [2, 3],
    strides: [-3, -1],
    origin: 20,
  },
  "a tensor with strides of both signs": {
    ...float32,
    shape: [3, 2],
    strides: [-1, 3],
    origin: 8,
  },
};

/** The element at a byte position of the fixture's memory, as C sees it. */
function peek(managed: Deno.PointerObject, index: number): number {
  const bytes = Uint8Array.from(
    { length: 4 },
    (_, i) => fixture.fx_peek(managed, BigInt(4 * index + i)),
  );
  return new Float32Array(bytes.buffer)[0]!;
}

for (const [wrapper, wrap] of Object.entries(wrappers)) {
  Deno.test(`${wrapper} shares an imported tensor's memory`, async (t) => {
    for (const [name, spec] of Object.entries(specs)) {
      await t.step(name, () => {
        const managed = make(spec);
        using t = fromDlpack(new DlpackCapsule(managed, "dltensor_versioned"));
        const array = wrap(t);
        assert(array.data === t.data, "no copy");
        assertEquals(Array.from(array.shape), [...t.shape]);

        const [rows, columns] = t.shape as [number, number];
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < columns; j++) {
            assertEquals(array.get(i, j), t.get(i, j));
            array.set(i, j, 100 + 10 * i + j);
            assertEquals(t.get(i, j), 100 + 10 * i + j);
            const [byRow, byColumn] = t.strides as [number, number];
            const index = t.offset + i * byRow + j * byColumn;
            assertEquals(peek(managed, index), 100 + 10 * i + j);
          }
        }
      });
    }
  });

  Deno.test(`${wrapper} shares a view's memory`, () => {
    const managed = make({ ...float32, shape: [2, 3] });
    using t = fromDlpack(new DlpackCapsule(managed, "dltensor_versioned"));
    // The second row backwards.
    const array = wrap(t.slice([1, 2], [null, null, -1]));
    assertEquals([0, 1, 2].map((j) => array.get(0, j)), [6, 5, 4]);
    array.set(0, 0, 7);
    assertEquals(peek(managed, 5), 7);
    assertEquals(t.toArray(), [[1, 2, 3], [4, 5, 7]]);
  });
}

// --- The table of the README: every dtype ------------------------------------------

/** Of each dtype, how the README says that these libraries take it. */
function rowOf(name: DType): "real" | "bigint" | "complex" | "raw" {
  const { kind, array, decode } = dtypeByName(name)!;
  if (kind === "complex") return "complex";
  if (decode !== undefined) return "raw";
  return array.name.startsWith("Big") ? "bigint" : "real";
}

/** A tensor that is no simple one, and its elements as numbers and bigints. */
function example(name: DType): Tensor {
  const info = dtypeByName(name)!;
  const entries = info.kind === "complex" ? 24 : 12;
  const data = new info.array(entries);
  for (let i = 0; i < entries; i++) {
    (data as unknown as unknown[])[i] = info.kind === "bool"
      ? i % 3 === 0 ? 1 : 0
      : data instanceof BigInt64Array || data instanceof BigUint64Array
      ? BigInt(i)
      : i;
  }
  const t = Tensor.from<TypedArray, DType>(data, [3, 4], { dtype: name });
  return t.slice([null, null, -1], [1, null, 2]).transpose();
}

/** Checks that a class sees the elements, and that both share the memory. */
function assertSees(t: Tensor, array: NdArray, name: string): void {
  assert(array.data === t.data, `${name}: no copy`);
  for (let i = 0; i < t.shape[0]!; i++) {
    for (let j = 0; j < t.shape[1]!; j++) {
      const element = t.get(i, j);
      if (typeof element === "object") {
        assertEquals(array.get(i, j, 0), element.re, name);
        assertEquals(array.get(i, j, 1), element.im, name);
      } else {
        const wanted = typeof element === "boolean" ? Number(element) : element;
        assertEquals<unknown>(array.get(i, j), wanted, name);
      }
    }
  }
}

/** Real and imaginary part as a last axis, as the README writes it. */
function parts(t: Tensor): [number[], number[], number] {
  return [
    [...t.shape, 2],
    [...t.strides.map((s) => 2 * s), 1],
    2 * t.offset,
  ];
}

Deno.test("scijs takes every dtype as the README says", () => {
  for (const name of dtypeNames) {
    const row = rowOf(name);
    if (row === "raw") continue;
    const t = example(name);
    const array = row === "complex"
      ? scijs(t.data, ...parts(t))
      : scijs(t.data, [...t.shape], [...t.strides], t.offset);
    assertSees(t, array, name);
    const scalar = t.slice(0, 0);
    if (row === "real") {
      const none = scijs(
        scalar.data,
        [...scalar.shape],
        [...scalar.strides],
        scalar.offset,
      );
      assertEquals(none.get(), Number(scalar.get()));
    }
  }
});

Deno.test("stdlib takes every dtype as the README says", () => {
  for (const name of dtypeNames) {
    const row = rowOf(name);
    if (row === "raw") continue;
    const t = example(name);
    const make = (
      dtype: string,
      shape: readonly number[],
      strides: readonly number[],
      offset: number,
    ): NdArray =>
      new Stdlib(dtype, t.data, shape, strides, offset, "row-major");
    const dtype = name === "bool"
      ? "uint8"
      : row === "bigint"
      ? "generic"
      : name;
    const part =
      { complex32: "float16", complex64: "float32" }[name as string] ??
        "float64";
    const array = row === "complex"
      ? make(part, ...parts(t))
      : make(dtype, t.shape, t.strides, t.offset);
    assertSees(t, array, name);
    const scalar = t.slice(0, 0);
    if (row === "real") {
      const none = make(dtype, [], [0], scalar.offset);
      assertEquals(none.get(), Number(scalar.get()), name);
    }
  }
});

Deno.test("What the README calls raw bits is right after astype()", () => {
  for (const name of dtypeNames.filter((name) => rowOf(name) === "raw")) {
    const { bits } = dtypeByName(name)!;
    const bytes = new Uint8Array(Math.max(bits, 8)).map((_, i) => i + 1);
    const data = bits === 16 ? new Uint16Array(bytes.buffer) : bytes;
    const raw = Tensor.from<TypedArray, DType>(data, undefined, {
      dtype: name,
    });
    const t = raw.astype("float32");
    const array = scijs(t.data, [...t.shape], [...t.strides], t.offset);
    assertEquals(
      Array.from({ length: t.size }, (_, i) => array.get(i)),
      raw.toArray() as number[],
      name,
    );
  }
});
