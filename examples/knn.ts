// A vector search library, native/knn.c, with the prototypes and habits of
// NVIDIA cuVS: tensors that stay ours, memory that C uses after a call. In cuVS
// all of the memory is a GPU's. Needs a C compiler.
//
//   deno run -A examples/knn.ts

import {
  dlopen,
  DlpackCapsule,
  fromDlpack,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import { compile } from "../tests/native/cc.ts";

// ---- the library ----

const tensor = "borrowed DLManagedTensor*";
const filter = { struct: ["usize", "i32"] } as const; // addr, type
const library = dlopen(
  compile(new URL("./native/knn.c", import.meta.url), "knn"),
  {
    knnGetLastErrorText: { parameters: [], result: "pointer" },
    knnResourcesCreate: { parameters: ["buffer"], result: "i32" },
    knnResourcesDestroy: { parameters: ["usize"], result: "i32" },
    knnStreamSync: { parameters: ["usize"], result: "i32", nonblocking: true },
    knnRMMAlloc: { parameters: ["usize", "buffer", "usize"], result: "i32" },
    knnRMMFree: { parameters: ["usize", "usize", "usize"], result: "i32" },
    knnBruteForceIndexCreate: { parameters: ["buffer"], result: "i32" },
    knnBruteForceIndexDestroy: { parameters: ["usize"], result: "i32" },
    knnBruteForceBuild: {
      parameters: ["usize", tensor, "i32", "f32", "usize"],
      result: "i32",
    },
    knnBruteForceSearch: {
      parameters: ["usize", "usize", tensor, tensor, tensor, filter],
      result: "i32",
    },
    knnIndexGetDataset: {
      parameters: ["usize", "out DLManagedTensor*"],
      result: "i32",
    },
  },
);
const c = library.symbols;

function check(status: number): void {
  if (status === 1) return;
  const text = c.knnGetLastErrorText(); // each thread's own
  throw new Error(text ? Deno.UnsafePointerView.getCString(text) : "Failed");
}

/** The handle or address that C writes through a pointer. */
function written(call: (cell: BigUint64Array<ArrayBuffer>) => number): bigint {
  const cell = new BigUint64Array(1);
  check(call(cell));
  return cell[0]!;
}

const res = written(c.knnResourcesCreate);

/** A matrix in memory of the library's. */
function allocate(
  shape: readonly [number, number],
  dtype: "float32" | "int64",
): DlpackCapsule {
  const bytes = BigInt(shape[0] * shape[1] * (dtype === "int64" ? 8 : 4));
  const data = written((cell) => c.knnRMMAlloc(res, cell, bytes));
  return DlpackCapsule.from(data, {
    dtype,
    shape,
    device: { type: "cpu", id: 0 },
    release: () => check(c.knnRMMFree(res, data, bytes)),
  });
}

/** Prints the k nearest rows of each query: of those whose bit is 1. */
async function search(queries: Tensor, k: number, bits: Tensor): Promise<void> {
  const rows = allocate([queries.shape[0]!, k], "int64");
  using distances = allocate([queries.shape[0]!, k], "float32");

  // An address in a struct is ours to keep: with the capsule, its memory stays.
  using capsule = bits.__dlpack__();
  const address = Deno.UnsafePointer.value(capsule.pointer);
  const bitset = BigUint64Array.of(address, 1n);

  // C goes on after the call: to the end of the sync, the memory stays.
  using holds = new DisposableStack();
  for (const used of [queries, rows, distances]) holds.use(used.hold());
  check(c.knnBruteForceSearch(res, index, queries, rows, distances, bitset));
  check(await c.knnStreamSync(res));

  using nearest = fromDlpack(rows, { device: "cpu" }); // a copy, off a GPU
  for (const row of nearest.toArray() as bigint[][]) {
    console.log("  " + row.map((i) => names[Number(i)]).join(", "));
  }
}

// ---- its use ----

const names = ["black", "gray", "white", "coral", "gold", "teal"];
const colors = [0x000000, 0x808080, 0xffffff, 0xff7f50, 0xffd700, 0x008080];
const rgb = (color: number) => [color >> 16, color >> 8 & 255, color & 255];

const dataset = fromDlpack(allocate([6, 3], "float32")) as Tensor<"float32">;
dataset.data.set(colors.flatMap(rgb));

const index = written(c.knnBruteForceIndexCreate);
check(c.knnBruteForceBuild(res, dataset, 0, 0, index)); // L2
const held = dataset.hold(); // C has no copy: until the index is destroyed
{
  const out = new OutCapsule();
  check(c.knnIndexGetDataset(index, out)); // fills in a struct of ours
  using seen = fromDlpack(out.take({ keepAlive: dataset }));
  console.log("What C searches, where it is:", seen);
}
dataset[Symbol.dispose]();

const wanted = new Float32Array([0xfffff0, 0x141414].flatMap(rgb));
const queries = Tensor.from(wanted, [2, 3]);
console.log("Nearest to ivory, and to soot:");
await search(queries, 3, Tensor.from(Uint32Array.of(0b111111)));
console.log("Of those that are not gray:");
await search(queries, 3, Tensor.from(Uint32Array.of(0b111000)));

check(c.knnBruteForceIndexDestroy(index));
held[Symbol.dispose]();
check(c.knnResourcesDestroy(res));
library.close();
