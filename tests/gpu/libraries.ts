/** Tensors of a C library: all dtypes and layouts, and on to a second library. */

import {
  dlopen,
  type DlpackCapsule,
  fromDlpack,
  fromDlpackAsync,
  type Tensor,
} from "@dlpack/deno";
import { compile } from "../native/cc.ts";
import { dtypeByName, dtypeNames } from "../../src/dtype/table.ts";
import { driverPath } from "./cuda.ts";
import { head, rowWith, same, sameBytes } from "./table.ts";

const source = new URL("./library.c", import.meta.url);

function open(name: string) {
  const library = dlopen(compile(source, name), {
    cl_open: { parameters: ["buffer"], result: "i32" }, // int (const char *path)
    cl_deleted: { parameters: [], result: "u64" }, // uint64_t (void)
    cl_new: {
      parameters: ["buffer", "buffer", "buffer", "buffer"],
      result: "DLManagedTensorVersioned*",
    }, // DLManagedTensorVersioned *(const int64_t *, int64_t *, int64_t *, const uint8_t *)
    cl_copy: {
      parameters: ["const DLTensor*"],
      result: "DLManagedTensorVersioned*",
    }, // DLManagedTensorVersioned *(const DLTensor *)
    cl_take: {
      parameters: ["taken DLManagedTensorVersioned*"],
      result: "DLManagedTensorVersioned*",
    }, // DLManagedTensorVersioned *(DLManagedTensorVersioned *)
  });
  const { symbols } = library;
  const status = symbols.cl_open(new TextEncoder().encode(`${driverPath}\0`));
  if (status !== 0) throw new Error(`${name} cannot open CUDA: ${status}`);
  return symbols;
}

/** The library that makes tensors. */
export const first: ReturnType<typeof open> = open("gpu_library");
/** The library that gets them from the first, or from another. */
export const second: ReturnType<typeof open> = open("gpu_second_library");

/** What a tensor is to be. */
interface Spec {
  readonly dtype: readonly [code: number, bits: number, lanes: number];
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
  /** Of element [0, …, 0], in elements. */
  readonly start?: number;
}

/** A tensor of the first library's. */
export function tensorOf(
  { dtype, shape, strides, start = 0 }: Spec,
  bytes: Uint8Array<ArrayBuffer>,
): DlpackCapsule {
  const numbers = (list: readonly number[]): BigInt64Array<ArrayBuffer> =>
    BigInt64Array.from([...list, 0], BigInt);
  const byteOffset = start * dtype[1] / 8;
  const spec = [...dtype, shape.length, byteOffset, bytes.length];
  return first.cl_new(
    numbers(spec),
    numbers(shape),
    strides ? numbers(strides) : null,
    bytes,
  )!;
}

/** Prints the table. */
export async function testLibraries(): Promise<void> {
  const deleted = (): number =>
    Number(first.cl_deleted() + second.cl_deleted());
  const row = (name: string, times: number, run: () => unknown) =>
    rowWith(deleted, name, times, run);
  const cpu = { device: "cpu" } as const;
  const loads = [fromDlpack, fromDlpackAsync] as const;

  head("a C library's, by dtype: 24 elements, both functions");
  for (const name of dtypeNames) {
    const { code, bits } = dtypeByName(name)!;
    const bytes = Uint8Array.from(
      { length: 24 * bits / 8 },
      (_, i) => 37 * i + 11,
    );
    await row(name, 2, async () => {
      for (const load of loads) {
        const spec = { dtype: [code, bits, 1], shape: [4, 6] } as const;
        const t: Tensor = await load(tensorOf(spec, bytes), cpu);
        same([t.dtype, t.shape], [name, [4, 6]]);
        sameBytes(t.bytes, bytes);
      }
    });
  }

  head("by layout, of elements of 1, 2, 4, 8 and 16 bytes");
  const layouts: [string, Omit<Spec, "dtype">][] = [
    ["C order", { shape: [3, 4, 5] }],
    ["byte offset", { shape: [5], start: 40 }],
    ["transposed", { shape: [5, 4, 3], strides: [1, 5, 20] }],
    ["two axes swapped", { shape: [4, 3, 5], strides: [5, 20, 1] }],
    ["backwards", { shape: [4], strides: [-3], start: 50 }],
    ["every other", { shape: [6, 5], strides: [10, 2] }],
    ["rows", { shape: [6, 3], strides: [10, 1], start: 4 }],
    ["rows of rows", { shape: [2, 3, 2], strides: [30, 10, 1] }],
    ["repeated", { shape: [4, 3], strides: [0, 1] }],
    ["overlapping", { shape: [8, 4], strides: [1, 1] }],
    ["without axes", { shape: [] }],
    ["empty", { shape: [0, 4] }],
  ];
  for (const [name, layout] of layouts) {
    await row(name, 10, async () => {
      for (const [array, dtype] of arrays) {
        const bytes = Uint8Array.from(
          { length: 60 * array.BYTES_PER_ELEMENT * dtype[3] },
          (_, i) => 37 * i + 11,
        );
        const spec = { ...layout, dtype: [dtype[0], dtype[1], 1] } as const;
        for (const load of loads) {
          const t = await load(tensorOf(spec, bytes), cpu);
          sameBytes(t.bytes, expected(spec, bytes));
        }
      }
    });
  }
  await row("16 MiB of rows", 2, async () => {
    const bytes = Uint8Array.from({ length: 32 << 20 }, (_, i) => i * 7 >> 3);
    const spec = {
      dtype: [1, 8, 1],
      shape: [1 << 14, 1 << 10],
      strides: [1 << 11, 1],
    } as const;
    for (const load of loads) {
      const { data } = await load(tensorOf(spec, bytes), cpu);
      for (let at = 0; at < data.length; at++) {
        const from = (at >> 10) * 2048 + (at & 1023);
        if (data[at] !== bytes[from]) throw new Error(`byte ${at}`);
      }
    }
  });

  head("on to a second library, without the host");
  const floats = Float32Array.from({ length: 6 }, (_, i) => i);
  const spec = { dtype: [2, 32, 1], shape: [2, 3] } as const;
  const make = (): DlpackCapsule =>
    tensorOf(spec, new Uint8Array(floats.buffer));
  await row("lent for a call, and still ours", 2, () => {
    const mine = make();
    const copy = second.cl_copy(mine)!;
    same(mine.name, "dltensor_versioned");
    same(fromDlpack(copy, cpu).toArray(), [[0, 1, 2], [3, 4, 5]]);
    same(fromDlpack(mine, cpu).toArray(), [[0, 1, 2], [3, 4, 5]]);
  });
  await row("taken over, and back", 2, () => {
    const mine = make();
    const theirs = second.cl_take(mine)!;
    same(mine.name, "used_dltensor_versioned");
    same([theirs.device, theirs.shape], [{ type: "cuda", id: 0 }, [2, 3]]);
    same(fromDlpack(theirs, cpu).toArray(), [[0, 1, 2], [3, 4, 5]]);
  });
}

/** An array of elements of 1, 2, 4, 8 and 16 bytes; code, bits, and how many make one. */
const arrays = [
  [Uint8Array, [1, 8, 1, 1]],
  [Uint16Array, [1, 16, 1, 1]],
  [Uint32Array, [1, 32, 1, 1]],
  [BigUint64Array, [1, 64, 1, 1]],
  [Float64Array, [5, 128, 1, 2]],
] as const;

/** The elements in C order, one by one. */
function expected(
  { dtype, shape, strides, start = 0 }: Spec,
  bytes: Uint8Array,
): Uint8Array {
  const size = shape.reduce((product, length) => product * length, 1);
  const width = dtype[1] / 8;
  const found = new Uint8Array(size * width);
  for (let k = 0; k < size; k++) {
    let rest = k;
    let at = start;
    let step = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const index = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
      at += index * (strides?.[axis] ?? step);
      step *= shape[axis]!;
    }
    found.set(bytes.subarray(at * width, (at + 1) * width), k * width);
  }
  return found;
}
