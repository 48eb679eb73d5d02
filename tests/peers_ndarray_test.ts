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

Deno.test("What is raw bits in JavaScript is right after astype()", () => {
  for (const name of dtypeNames) {
    const { bits, decode } = dtypeByName(name)!;
    if (decode === undefined) continue;
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
