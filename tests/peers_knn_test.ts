/**
 * A library with the prototypes and the habits of NVIDIA cuVS, which needs a
 * GPU: examples/native/knn.c. It keeps what it was lent, works on after a call,
 * ignores byte_offset, and looks at the strides of every axis.
 */

import {
  addressOf,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
  deletions,
  importFixture,
  runScript,
  testBothPaths,
} from "./helpers.ts";
import { compile } from "./native/cc.ts";
import { counts as fixtureCounts, type FixtureSpec } from "./native/fixture.ts";
import { Random } from "./random.ts";

const tensor = "borrowed DLManagedTensor*";
const optional = "borrowed DLManagedTensor*?";
const filterType = { struct: ["usize", "i32"] } as const;

const path = compile(
  new URL("../examples/native/knn.c", import.meta.url),
  "knn",
);

const c = dlopen(
  path,
  {
    knnGetLastErrorText: { parameters: [], result: "pointer" },
    knnResourcesCreate: { parameters: ["buffer"], result: "i32" },
    knnResourcesDestroy: { parameters: ["usize"], result: "i32" },
    knnStreamSync: { parameters: ["usize"], result: "i32" },
    syncLater: {
      name: "knnStreamSync",
      parameters: ["usize"],
      result: "i32",
      nonblocking: true,
    },
    knnCounts: { parameters: ["buffer", "buffer"], result: "void" },
    knnRMMAlloc: { parameters: ["usize", "buffer", "usize"], result: "i32" },
    knnRMMFree: { parameters: ["usize", "usize", "usize"], result: "i32" },
    knnMatrixSliceRows: {
      parameters: ["usize", tensor, "i64", "i64", "out DLManagedTensor*"],
      result: "i32",
    },
    knnBruteForceIndexCreate: { parameters: ["buffer"], result: "i32" },
    knnBruteForceIndexDestroy: { parameters: ["usize"], result: "i32" },
    knnBruteForceBuild: {
      parameters: ["usize", tensor, "i32", "f32", "usize"],
      result: "i32",
    },
    buildOptional: {
      name: "knnBruteForceBuild",
      parameters: ["usize", optional, "i32", "f32", "usize"],
      result: "i32",
    },
    knnBruteForceBuildOwned: {
      parameters: ["usize", "taken DLManagedTensor*", "i32", "f32", "usize"],
      result: "i32",
    },
    knnIndexGetDataset: {
      parameters: ["usize", "out DLManagedTensor*"],
      result: "i32",
    },
    getOptional: {
      name: "knnIndexGetDataset",
      parameters: ["usize", "out DLManagedTensor*?"],
      result: "i32",
    },
    getWritable: {
      name: "knnIndexGetDataset",
      parameters: ["usize", "out DLManagedTensor*"],
      result: "i32",
      writable: true,
    },
    knnBruteForceSearch: {
      parameters: ["usize", "usize", tensor, tensor, tensor, filterType],
      result: "i32",
    },
    searchOptional: {
      name: "knnBruteForceSearch",
      parameters: ["usize", "usize", optional, optional, optional, filterType],
      result: "i32",
    },
  },
).symbols;

type Lent = Tensor | DlpackCapsule;

const L2 = 0;
const INNER_PRODUCT = 6;
const FLT_MAX = 3.4028234663852886e38;

// ---- the library, in JavaScript ----

/** The text of the last error; null when the last call did not fail. */
function errorText(): string | null {
  const text = c.knnGetLastErrorText();
  return text && Deno.UnsafePointerView.getCString(text);
}

function succeeds(status: number): void {
  assertEquals([status, errorText()], [1, null]);
}

function fails(status: number, text: string): void {
  assertEquals(status, 0);
  assertStringIncludes(errorText()!, text);
}

function written(call: (cell: BigUint64Array<ArrayBuffer>) => number): bigint {
  const cell = new BigUint64Array(1);
  succeeds(call(cell));
  return cell[0]!;
}

const res = written(c.knnResourcesCreate);

/** Bytes, and tensors that it filled in, that the library did not get back. */
function counts(): { bytes: number; views: number } {
  const [bytes, views] = [new BigInt64Array(1), new BigInt64Array(1)];
  c.knnCounts(bytes, views);
  return { bytes: Number(bytes[0]), views: Number(views[0]) };
}

/** What must be as it was when a test is over. */
function state(): unknown {
  return [counts(), liveTensors(), fixtureCounts().live];
}

/** Memory of the library's. */
function allocate(
  shape: readonly number[],
  dtype: "float32" | "int64" | "uint32",
): DlpackCapsule {
  const size = shape.reduce((size, length) => size * length, 1);
  const bytes = BigInt(size * (dtype === "int64" ? 8 : 4));
  const data = written((cell) => c.knnRMMAlloc(res, cell, bytes));
  return DlpackCapsule.from(data, {
    dtype,
    shape,
    byteLength: bytes,
    release: () => succeeds(c.knnRMMFree(res, data, bytes)),
  });
}

/** JavaScript's memory. */
function zeros(shape: readonly number[], dtype: "int64" | "float32"): Tensor {
  const size = shape.reduce((size, length) => size * length, 1);
  return dtype === "int64"
    ? Tensor.from(new BigInt64Array(size), shape)
    : Tensor.from(new Float32Array(size), shape);
}

/** An index over a dataset, which it holds unless it is told not to. */
class Index implements Disposable {
  readonly handle = written(c.knnBruteForceIndexCreate);
  #hold: Disposable | null = null;

  build(dataset: Lent, metric = L2, holds = true): this {
    succeeds(c.knnBruteForceBuild(res, dataset, metric, 0, this.handle));
    this.#hold?.[Symbol.dispose]();
    this.#hold = holds ? dataset.hold() : null;
    return this;
  }

  [Symbol.dispose](): void {
    succeeds(c.knnBruteForceIndexDestroy(this.handle));
    this.#hold?.[Symbol.dispose]();
  }
}

const NO_FILTER = new BigUint64Array(2);

/** { uintptr_t addr; enum type } of bits that are in a struct already. */
function bitset(bits: DlpackCapsule): BigUint64Array<ArrayBuffer> {
  return BigUint64Array.of(Deno.UnsafePointer.value(bits.pointer), 1n);
}

/** What the searches use that were begun. */
const inUse: Disposable[] = [];

/** Begins a search. */
function begin(
  { handle }: Index,
  queries: Lent,
  neighbors: Lent,
  distances: Lent,
  filter: BigUint64Array<ArrayBuffer> = NO_FILTER,
): number {
  const all = [queries, neighbors, distances] as const;
  const status = c.knnBruteForceSearch(res, handle, ...all, filter);
  if (status === 1) inUse.push(...all.map((lent) => lent.hold()));
  return status;
}

/** Waits for searches. */
function sync(): void {
  succeeds(c.knnStreamSync(res));
  for (const hold of inUse.splice(0)) hold[Symbol.dispose]();
}

interface Found {
  readonly neighbors: unknown;
  readonly distances: unknown;
}

/** Searches, and waits for what is found. */
function search(index: Index, queries: Lent, k: number, bits?: Tensor): Found {
  const shape = [queries.shape[0]!, k];
  const neighbors = zeros(shape, "int64");
  const distances = zeros(shape, "float32");
  using struct = bits?.__dlpack__();
  const filter = struct === undefined ? NO_FILTER : bitset(struct);
  succeeds(begin(index, queries, neighbors, distances, filter));
  sync();
  return { neighbors: neighbors.toArray(), distances: distances.toArray() };
}

// ---- a naive search ----

type Rows = number[][];

function naive(
  dataset: Rows,
  queries: Rows,
  k: number,
  metric: typeof L2 | typeof INNER_PRODUCT = L2,
  isLetIn: (row: number) => boolean = () => true,
): Found {
  const none = metric === L2 ? FLT_MAX : -FLT_MAX;
  const found = queries.map((query) => {
    const all = dataset.map((values, row) => ({
      row: BigInt(row),
      distance: values.reduce(
        (sum, value, i) =>
          sum +
          (metric === L2 ? (value - query[i]!) ** 2 : value * query[i]!),
        0,
      ),
    })).filter(({ row }) => isLetIn(Number(row)));
    // A sort is stable: of equals, the first row comes first.
    all.sort((a, b) =>
      metric === L2 ? a.distance - b.distance : b.distance - a.distance
    );
    while (all.length < k) all.push({ row: -1n, distance: none });
    return all.slice(0, k);
  });
  return {
    neighbors: found.map((query) => query.map(({ row }) => row)),
    distances: found.map((query) => query.map(({ distance }) => distance)),
  };
}

const random = new Random();

/** Integers, so that sums of floats are exact, and few, so that some are equal. */
function randomRows(rows: number, columns: number): Rows {
  return Array.from(
    { length: rows },
    () => Array.from({ length: columns }, () => random.below(9) - 4),
  );
}

function shapeOf(rows: Rows): [number, number] {
  return [rows.length, rows[0]!.length];
}

function bytesIn(rows: Rows): number {
  return 4 * rows.flat().length;
}

function tensorOf(rows: Rows): Tensor<"float32"> {
  return Tensor.from(Float32Array.from(rows.flat()), shapeOf(rows));
}

/** Rows as the fixture makes them: between guard pages, its deleter counted. */
function specOf(rows: Rows, changes: Partial<FixtureSpec> = {}): FixtureSpec {
  const data = bytesOf(Float32Array.from(rows.flat()));
  const nbytes = data.length;
  return { dtype: [2, 32, 1], shape: shapeOf(rows), nbytes, data, ...changes };
}

/** The same behind 8 bytes of others. */
function shiftedSpecOf(rows: Rows): FixtureSpec {
  const data = bytesOf(Float32Array.from([99, 99, ...rows.flat()]));
  const nbytes = data.length;
  return specOf(rows, { data, nbytes, byteOffset: 8, versioned: false });
}

/** A test on both paths, after which nothing is left. */
function test(
  name: string,
  run: (t: Deno.TestContext) => void | Promise<void>,
): void {
  testBothPaths(name, async (t) => {
    const before = state();
    await run(t);
    assertEquals(state(), before);
  });
}

// ---- results ----

test("A search finds what a naive one does", async (t) => {
  for (
    const [rows, columns, count, k] of [
      [1, 1, 1, 1],
      [7, 3, 2, 7],
      [33, 16, 5, 4],
      [500, 8, 40, 10],
    ] as const
  ) {
    const dataset = randomRows(rows, columns);
    const queries = randomRows(count, columns);
    const words = new Uint32Array(Math.ceil(rows / 32))
      .map(() => random.below(2 ** 32));
    const filters: readonly [
      Uint32Array<ArrayBuffer>,
      (row: number) => boolean,
    ][] = [
      [words, (row) => (words[row >>> 5]! >>> (row & 31) & 1) === 1],
      [words.map(() => 0), () => false],
      [words.map(() => 2 ** 32 - 1), () => true],
    ];
    for (const metric of [L2, INNER_PRODUCT] as const) {
      const name = metric === L2 ? "L2" : "inner product";
      await t.step(`${name}, ${rows} by ${columns}, k = ${k}`, () => {
        using native = importFixture(specOf(dataset));
        using index = new Index().build(native, metric);
        assertEquals(
          search(index, tensorOf(queries), k),
          naive(dataset, queries, k, metric),
        );
        for (const [bits, isLetIn] of filters) {
          assertEquals(
            search(index, tensorOf(queries), k, Tensor.from(bits)),
            naive(dataset, queries, k, metric, isLetIn),
          );
        }
      });
    }
  }
});

// ---- arguments ----

const rows = randomRows(6, 4);
const asked = randomRows(3, 4);

/** A float32 matrix, in every way that a borrowed argument can be one. */
const matrices: Record<string, (rows: Rows) => Lent> = {
  "a Tensor over a typed array": tensorOf,
  "rows from the middle of a Tensor": (rows) =>
    tensorOf([rows[0]!, ...rows, rows[0]!]).slice([1, -1]),
  "a typed array that begins inside its ArrayBuffer": (rows) => {
    const { buffer } = Float32Array.from([99, ...rows.flat()]);
    return Tensor.from(new Float32Array(buffer, 4), shapeOf(rows));
  },
  "shared memory": (rows) => {
    const data = new Float32Array(new SharedArrayBuffer(bytesIn(rows)));
    data.set(rows.flat());
    return Tensor.from(data, shapeOf(rows));
  },
  "a Tensor of a library": (rows) => importFixture(specOf(rows)),
  "a Tensor of a library, legacy": (rows) =>
    importFixture(specOf(rows, { versioned: false })),
  "a Tensor of a library, with a byte offset": (rows) =>
    importFixture(shiftedSpecOf(rows)),
  "a capsule": (rows) => capsule(specOf(rows)),
  "a capsule, legacy": (rows) => capsule(specOf(rows, { versioned: false })),
  "a capsule, with a byte offset": (rows) => capsule(shiftedSpecOf(rows)),
  "a capsule that a Tensor released": (rows) =>
    importFixture(specOf(rows)).release(),
  "memory of the library's": (rows) => {
    const given = allocate(shapeOf(rows), "float32");
    const at = Deno.UnsafePointer.create(addressOf(given))!;
    const memory = Deno.UnsafePointerView.getArrayBuffer(at, bytesIn(rows));
    new Float32Array(memory).set(rows.flat());
    return given;
  },
  "a struct that the library filled in": (rows) => {
    using dataset = importFixture(specOf(rows));
    using index = new Index().build(dataset);
    const out = new OutCapsule();
    succeeds(c.knnIndexGetDataset(index.handle, out));
    return out.take({ keepAlive: dataset });
  },
};

for (const [name, make] of Object.entries(matrices)) {
  test(`A dataset and queries may be ${name}`, () => {
    using dataset = make(rows);
    using queries = make(asked);
    using index = new Index().build(dataset);
    for (let time = 0; time < 2; time++) {
      assertEquals(search(index, queries, 3), naive(rows, asked, 3));
    }
    // They are the caller's, as before.
    using imported = dataset instanceof Tensor ? dataset : fromDlpack(dataset);
    assertEquals(imported.toArray(), rows);
  });
}

const oddStrides: Record<string, [values: Rows, strides: number[]]> = {
  "one row": [[[1, 2, 3]], [1000, 1]],
  "one row, backwards": [[[1, 2, 3]], [-3, 1]],
  "one column": [[[1], [2], [3]], [1, 50]],
  "one element": [[[5]], [0, 0]],
};

for (const [name, [values, strides]] of Object.entries(oddStrides)) {
  test(`Strides that no element takes do not matter: ${name}`, () => {
    using dataset = capsule(specOf(values, { strides, versioned: false }));
    using queries = importFixture(specOf(values, { strides }));
    using index = new Index().build(dataset);
    const k = values.length;
    assertEquals(search(index, queries, k), naive(values, values, k));
  });
}

/** What a search can write to, in every way, and how to read it. */
const outputs: Record<string, (dtype: "int64" | "float32") => Lent> = {
  "JavaScript's": (dtype) => zeros([3, 2], dtype),
  "rows of a larger one": (dtype) => zeros([5, 2], dtype).slice([1, 4]),
  "a library's": (dtype) => importFixture(outputSpec(dtype)),
  "a capsule, legacy": (dtype) =>
    capsule(outputSpec(dtype, { versioned: false })),
  "a capsule, with a byte offset": (dtype) =>
    capsule(outputSpec(dtype, { byteOffset: 16, nbytes: 6 * 8 + 16 })),
  "memory of the library's": (dtype) => allocate([3, 2], dtype),
};

function outputSpec(
  dtype: "int64" | "float32",
  changes: Partial<FixtureSpec> = {},
): FixtureSpec {
  const [code, bits] = dtype === "int64" ? [0, 64] : [2, 32];
  return { dtype: [code, bits, 1], shape: [3, 2], nbytes: 6 * 8, ...changes };
}

for (const [name, make] of Object.entries(outputs)) {
  test(`Neighbors and distances may be ${name}`, () => {
    using index = new Index().build(tensorOf(rows));
    using neighbors = make("int64");
    using distances = make("float32");
    succeeds(begin(index, tensorOf(asked), neighbors, distances));
    sync();
    using first = fromDlpack(neighbors);
    using second = fromDlpack(distances);
    assertEquals(
      { neighbors: first.toArray(), distances: second.toArray() },
      naive(rows, asked, 2),
    );
  });
}

test("A search writes to nothing beside its outputs", () => {
  using index = new Index().build(tensorOf(rows));
  const all = Tensor.from(new BigInt64Array(10).fill(77n), [5, 2]);
  const distances = zeros([3, 2], "float32");
  succeeds(begin(index, tensorOf(asked), all.slice([1, 4]), distances));
  sync();
  assertEquals(all.toArray(), [
    [77n, 77n],
    ...naive(rows, asked, 2).neighbors as bigint[][],
    [77n, 77n],
  ]);
});

/** Bits of a filter: all rows but 0 and 3. */
const bits = 0b110110;
const bitsSpec: FixtureSpec = {
  dtype: [1, 32, 1],
  shape: [1],
  nbytes: 8,
  byteOffset: 4,
  data: bytesOf(Uint32Array.of(0, bits)),
};

const filters: Record<string, () => Tensor> = {
  "JavaScript's": () => Tensor.from(Uint32Array.of(bits)),
  "the middle of a Tensor": () =>
    Tensor.from(Uint32Array.of(0, bits, 0)).slice([1, 2]),
  "a library's": () => importFixture(bitsSpec),
  "a library's, legacy": () => {
    const given = capsule({ ...bitsSpec, versioned: false });
    return fromDlpack(given.with({ writable: true }));
  },
};

for (const [name, make] of Object.entries(filters)) {
  test(`The bits of a filter may be ${name}`, () => {
    using index = new Index().build(tensorOf(rows));
    using given = make();
    assertEquals(
      search(index, tensorOf(asked), 3, given),
      naive(rows, asked, 3, L2, (row) => row !== 0 && row !== 3),
    );
  });
}

test("The memory behind a filter's address stays with its capsule", () => {
  using index = new Index().build(tensorOf(rows));
  const given = importFixture(bitsSpec);
  const struct = given.__dlpack__();
  const neighbors = zeros([3, 3], "int64");
  const distances = zeros([3, 3], "float32");
  assertEquals(deletions(() => given[Symbol.dispose]()), 0);
  const filter = bitset(struct);
  succeeds(begin(index, tensorOf(asked), neighbors, distances, filter));
  sync();
  assertEquals(
    neighbors.toArray(),
    naive(rows, asked, 3, L2, (row) => row !== 0 && row !== 3).neighbors,
  );
  assertEquals(deletions(() => struct[Symbol.dispose]()), 1);
});

// ---- memory that C goes on using ----

const held: Record<string, () => Lent> = {
  "a Tensor": () => importFixture(specOf(rows)),
  "a view": () => importFixture(specOf(rows)).slice([0, 6]),
  "a capsule": () => capsule(specOf(rows)),
};

for (const [name, make] of Object.entries(held)) {
  test(`A held dataset, ${name}, stays until the hold is over`, () => {
    const dataset = make();
    const index = new Index().build(dataset, L2, false);
    const hold = dataset.hold();
    assertEquals(deletions(() => dataset[Symbol.dispose]()), 0);
    // The fixture unmaps what it is given back: C would crash.
    for (const k of [1, 6]) {
      assertEquals(
        search(index, tensorOf(asked), k),
        naive(rows, asked, k),
      );
    }
    assertBufferError(
      () => index.build(dataset),
      dataset instanceof Tensor ? "released" : "consumed",
    );
    assertEquals(deletions(() => index[Symbol.dispose]()), 0);
    assertEquals(deletions(() => hold[Symbol.dispose]()), 1);
  });
}

Deno.test("A held dataset stays when it is garbage", async () => {
  const before = state();
  const index = new Index();
  const hold = (() => {
    const dataset = importFixture(specOf(rows));
    index.build(dataset, L2, false);
    return dataset.hold();
  })();
  const { deleted } = fixtureCounts();
  await collectGarbage();
  assertEquals(fixtureCounts().deleted, deleted);
  assertEquals(search(index, tensorOf(asked), 3), naive(rows, asked, 3));
  index[Symbol.dispose]();
  hold[Symbol.dispose]();
  await collectGarbage();
  assertEquals(fixtureCounts().deleted, deleted + 1);
  assertEquals(state(), before);
});

test("A dataset that nobody holds is given back at once", () => {
  const dataset = importFixture(specOf(rows));
  using _index = new Index().build(dataset, L2, false);
  assertEquals(deletions(() => dataset[Symbol.dispose]()), 1);
});

test("What a search was given stays until the sync is over", async () => {
  const many = randomRows(2000, 16);
  const queries = randomRows(50, 16);
  using index = new Index().build(tensorOf(many));
  const given = importFixture(specOf(queries));
  const neighbors = zeros([50, 3], "int64");
  const distances = allocate([50, 3], "float32");
  const all = [given, neighbors, distances] as const;
  succeeds(c.knnBruteForceSearch(res, index.handle, ...all, NO_FILTER));
  const pending = given.during(c.syncLater(res));
  const hold = distances.hold();
  using _neighbors = neighbors.hold();
  const { deleted } = fixtureCounts();
  given[Symbol.dispose]();
  distances[Symbol.dispose]();
  assertEquals(fixtureCounts().deleted, deleted);
  assertEquals(counts().bytes, 50 * 3 * 4);
  assertEquals(await pending, 1);
  await Promise.resolve();
  assertEquals(fixtureCounts().deleted, deleted + 1);
  hold[Symbol.dispose]();
  assertEquals(counts().bytes, 0);
  assertEquals(neighbors.toArray(), naive(many, queries, 3).neighbors);
});

test("Searches that are begun together run one after the other", async () => {
  using index = new Index().build(tensorOf(rows));
  const found = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const queries = importFixture(specOf([rows[i % 6]!]));
      const distances = zeros([1, 1], "float32");
      succeeds(begin(index, queries, zeros([1, 1], "int64"), distances));
      const pending = c.syncLater(res);
      queries[Symbol.dispose]();
      assertEquals(await pending, 1);
      return distances.get(0, 0);
    }),
  );
  sync();
  assertEquals(found, found.map(() => 0));
});

// ---- memory as a bare pointer ----

test("Memory of the library's is given back once", () => {
  const made = allocate([2, 3], "float32");
  assertEquals(counts().bytes, 24);
  const t = fromDlpack(made);
  assert(t.is("float32"));
  t.data.fill(1);
  assertEquals([t.readOnly, t.device], [false, { type: "cpu", id: 0 }]);
  const view = t.slice(1);
  t[Symbol.dispose]();
  assertBufferError(() => view.data, "released");
  t[Symbol.dispose]();
  made[Symbol.dispose]();
  assertEquals(counts().bytes, 0);
});

test("Memory of the library's that was refused is still the caller's", () => {
  const data = written((cell) => c.knnRMMAlloc(res, cell, 24n));
  assertThrows(
    () =>
      DlpackCapsule.from(data, {
        dtype: "float32",
        shape: [2, 4],
        byteLength: 24,
        release: () => succeeds(c.knnRMMFree(res, data, 24n)),
      }),
    RangeError,
  );
  assertEquals(counts().bytes, 24);
  succeeds(c.knnRMMFree(res, data, 24n));
});

Deno.test("Memory of the library's that is garbage is given back", async () => {
  const before = state();
  (() => {
    allocate([2, 3], "float32");
    fromDlpack(allocate([2, 3], "float32"));
  })();
  assertEquals(counts().bytes, 48);
  await collectGarbage();
  assertEquals(state(), before);
});

// ---- structs that the library fills in ----

test("A struct that was filled in is seen without a copy", () => {
  using dataset = importFixture(specOf(rows));
  using index = new Index().build(dataset);
  const out = new OutCapsule();
  succeeds(c.knnIndexGetDataset(index.handle, out));
  using seen = fromDlpack(out.take({ keepAlive: dataset }));
  assertEquals(addressOf(seen), addressOf(dataset));
  assertEquals([seen.dtype, seen.readOnly], ["float32", true]);
  dataset.set(0, 0, 55);
  assertEquals(seen.get(0, 0), 55);
  assertEquals(seen.slice([1]).toArray(), rows.slice(1));
  // Where the caller knows better, it is written to.
  succeeds(c.getWritable(index.handle, out));
  using writable = fromDlpack(out.take());
  writable.set(1, 1, 66);
  assertEquals(dataset.get(1, 1), 66);
});

test("A struct that was filled in is released once", () => {
  using index = new Index().build(tensorOf(rows));
  const out = new OutCapsule();
  const views = (run: () => void): number => {
    run();
    return counts().views;
  };
  const get = () => succeeds(c.knnIndexGetDataset(index.handle, out));
  assertEquals(views(get), 1);
  assertEquals(views(get), 1, "the next call releases what nobody took");
  assertEquals(views(() => out[Symbol.dispose]()), 0);
  assertEquals(views(() => out[Symbol.dispose]()), 0);
  get();
  const taken = out.take();
  assertEquals(views(() => out[Symbol.dispose]()), 1);
  assertEquals(views(() => taken[Symbol.dispose]()), 0);
  get();
  const t = fromDlpack(out.take());
  const view = t.slice(0);
  assertEquals(views(() => t[Symbol.dispose]()), 0);
  assertEquals(views(() => view[Symbol.dispose]()), 0);
});

Deno.test("A struct that was filled in is released when it is garbage", async () => {
  const before = state();
  using index = new Index().build(tensorOf(rows));
  (() => {
    const out = new OutCapsule();
    succeeds(c.knnIndexGetDataset(index.handle, out));
    fromDlpack(out.take());
    succeeds(c.knnIndexGetDataset(index.handle, out));
  })();
  assertEquals(counts().views, 2);
  await collectGarbage();
  assertEquals(state(), before);
});

test("What keeps the memory of a struct that was filled in lives as long", () => {
  const dataset = importFixture(specOf(rows));
  const index = new Index().build(dataset);
  const out = new OutCapsule();
  succeeds(c.knnIndexGetDataset(index.handle, out));
  const seen = fromDlpack(out.take({ keepAlive: dataset }));
  index[Symbol.dispose]();
  assertEquals(deletions(() => dataset[Symbol.dispose]()), 0);
  assertEquals(seen.toArray(), rows);
  assertEquals(deletions(() => seen[Symbol.dispose]()), 1);
});

test("A tensor that is borrowed may be seen in part", () => {
  const src = importFixture(specOf(rows));
  const out = new OutCapsule();
  for (const [start, end] of [[0, 6], [2, 5], [6, 6]] as const) {
    const { data, strides } = src;
    succeeds(
      c.knnMatrixSliceRows(res, src, BigInt(start), BigInt(end), out),
    );
    using part = fromDlpack(out.take({ keepAlive: src }));
    assertEquals(part.shape, [end - start, 4]);
    assertEquals(part.strides, strides);
    assertEquals(part.toArray(), rows.slice(start, end));
    if (part.size > 0) {
      assertEquals(addressOf(part), addressOf(src.slice([start])));
      assertEquals(part.data.length, data.length * (end - start) / 6);
    }
  }
  succeeds(c.knnMatrixSliceRows(res, src, 5n, 6n, out));
  const last = fromDlpack(out.take({ keepAlive: src }));
  assertEquals(deletions(() => src[Symbol.dispose]()), 0);
  assertEquals(last.toArray(), rows.slice(5));
  assertEquals(deletions(() => last[Symbol.dispose]()), 1);
});

test("Where nothing was written, there is nothing to take", () => {
  const index = new Index();
  const out = new OutCapsule();
  fails(c.knnIndexGetDataset(index.handle, out), "not built");
  assertBufferError(() => out.take(), "data", "no call wrote one");
  index.build(tensorOf(rows));
  succeeds(c.knnIndexGetDataset(index.handle, out));
  // A call that fails leaves nothing of the one before.
  fails(c.knnMatrixSliceRows(res, tensorOf(rows), 4n, 7n, out), "no such rows");
  assertBufferError(() => out.take(), "data");
  assertEquals(counts().views, 0);
  succeeds(c.knnIndexGetDataset(index.handle, out));
  out.take()[Symbol.dispose]();
  index[Symbol.dispose]();
});

test("A struct that was filled in can be handed on", () => {
  const dataset = importFixture(specOf(rows));
  const first = new Index().build(dataset);
  const out = new OutCapsule();
  succeeds(c.knnIndexGetDataset(first.handle, out));
  const given = out.take({ keepAlive: dataset });
  const second = new Index();
  succeeds(c.knnBruteForceBuildOwned(res, given, L2, 0, second.handle));
  assertEquals(given.name, "used_dltensor");
  assertEquals(liveTensors().exported.count, 1);
  first[Symbol.dispose]();
  assertEquals(deletions(() => dataset[Symbol.dispose]()), 0);
  assertEquals(counts().views, 1);
  assertEquals(search(second, tensorOf(asked), 3), naive(rows, asked, 3));
  assertEquals(deletions(() => second[Symbol.dispose]()), 1);
  assertEquals(counts().views, 0);
});

const taken: Record<string, () => Lent> = {
  "a Tensor of JavaScript's": () => tensorOf(rows),
  "a Tensor of a library": () => importFixture(specOf(rows)),
  "a capsule": () => capsule(specOf(rows, { versioned: false })),
};

for (const [name, make] of Object.entries(taken)) {
  test(`A dataset, ${name}, that is taken over goes with the index`, () => {
    const dataset = make();
    const index = new Index();
    const isNative = !name.includes("JavaScript");
    succeeds(c.knnBruteForceBuildOwned(res, dataset, L2, 0, index.handle));
    assertEquals(deletions(() => dataset[Symbol.dispose]()), 0);
    assertEquals(search(index, tensorOf(asked), 3), naive(rows, asked, 3));
    const out = new OutCapsule();
    succeeds(c.knnIndexGetDataset(index.handle, out));
    using seen = fromDlpack(out.take());
    assertEquals(seen.toArray(), rows);
    assertEquals(deletions(() => index[Symbol.dispose]()), isNative ? 1 : 0);
  });
}

// ---- bad input ----

// deno-lint-ignore no-explicit-any
const NULL = null as any;

test("NULL is refused before the call, unless the type has a ?", () => {
  using index = new Index().build(tensorOf(rows));
  const queries = tensorOf(asked);
  const neighbors = zeros([3, 2], "int64");
  const distances = zeros([3, 2], "float32");
  const all = [queries, neighbors, distances] as const;
  assertThrows(
    () => c.knnBruteForceBuild(res, NULL, L2, 0, index.handle),
    TypeError,
    '"borrowed DLManagedTensor*?"',
  );
  assertThrows(
    () => c.knnIndexGetDataset(index.handle, NULL),
    TypeError,
    '"out DLManagedTensor*?"',
  );
  assertThrows(
    () => c.knnBruteForceBuildOwned(res, NULL, L2, 0, index.handle),
    TypeError,
    '"taken DLManagedTensor*?"',
  );
  for (const [i, name] of ["queries", "neighbors", "distances"].entries()) {
    const [q, n, d] = all.with(i, NULL) as [Lent, Lent, Lent];
    assertThrows(
      () => begin(index, q, n, d),
      TypeError,
      `parameter ${i + 3} of "knnBruteForceSearch"`,
    );
    fails(
      c.searchOptional(res, index.handle, q, n, d, NO_FILTER),
      `${name} is NULL`,
    );
  }
  fails(c.buildOptional(res, null, L2, 0, index.handle), "dataset is NULL");
  fails(c.getOptional(index.handle, null), "out is NULL");
  fails(
    begin(index, ...all, BigUint64Array.of(0n, 1n)),
    "filter is NULL",
  );
  // What was built is still there.
  assertEquals(search(index, queries, 2), naive(rows, asked, 2));
});

/** Arguments that C refuses: which one, and why. */
const refused: Record<string, [Partial<Record<Name, () => Lent>>, string]> = {
  "a dataset of float64": [
    { dataset: () => Tensor.from(new Float64Array(24), [6, 4]) },
    "dataset: dtype code 2, 64 bits",
  ],
  "a dataset in Fortran order": [
    { dataset: () => tensorOf(rows).transpose() },
    "dataset: not contiguous",
  ],
  "every second row of a dataset": [
    { dataset: () => tensorOf(rows).slice([null, null, 2]) },
    "dataset: not contiguous",
  ],
  "a dataset with one axis": [
    { dataset: () => tensorOf(rows).slice(0) },
    "dataset: 1 axes",
  ],
  "a dataset without rows": [
    { dataset: () => tensorOf(rows).slice([0, 0]) },
    "dataset: no rows",
  ],
  "a dataset on a device": [
    { dataset: () => capsule(specOf(rows, { device: [2, 0] })) },
    "dataset: device type 2",
  ],
  "queries of int32": [
    { queries: () => importFixture(specOf(asked, { dtype: [0, 32, 1] })) },
    "queries: dtype code 0, 32 bits",
  ],
  "queries of 2 lanes": [
    {
      queries: () =>
        capsule(specOf(asked, { dtype: [2, 32, 2], shape: [3, 2] })),
    },
    "32 bits, 2 lanes",
  ],
  "queries with other columns": [
    { queries: () => tensorOf(rows).reshape([3, 8]) },
    "not as many columns",
  ],
  "neighbors of uint32, as cuVS's header has them": [
    { neighbors: () => Tensor.from(new Uint32Array(6), [3, 2]) },
    "neighbors: dtype code 1, 32 bits",
  ],
  "neighbors for another number of queries": [
    { neighbors: () => zeros([2, 2], "int64") },
    "not k for each query",
  ],
  "more neighbors than rows": [
    { neighbors: () => zeros([3, 7], "int64") },
    "no such k",
  ],
  "neighbors that lie apart": [
    { neighbors: () => zeros([3, 4], "int64").slice(null, [null, null, 2]) },
    "neighbors: not contiguous",
  ],
  "distances of float64": [
    { distances: () => Tensor.from(new Float64Array(6), [3, 2]) },
    "distances: dtype code 2, 64 bits",
  ],
  "distances in Fortran order": [
    { distances: () => zeros([2, 3], "float32").transpose() },
    "distances: not contiguous",
  ],
  "a filter of uint8": [
    { filter: () => Tensor.from(new Uint8Array(4)) },
    "filter: dtype code 1, 8 bits",
  ],
  "a filter without bits": [
    { filter: () => Tensor.from(new Uint32Array(0)) },
    "filter: too short",
  ],
  "a filter that lies apart": [
    { filter: () => Tensor.from(new Uint32Array(4)).slice([null, null, 2]) },
    "filter: not contiguous",
  ],
};

type Name = "dataset" | "queries" | "neighbors" | "distances" | "filter";

for (const [name, [changes, text]] of Object.entries(refused)) {
  test(`C refuses ${name}, and says so`, () => {
    const given = {
      dataset: () => importFixture(specOf(rows)),
      queries: () => importFixture(specOf(asked)),
      neighbors: () => zeros([3, 2], "int64"),
      distances: () => zeros([3, 2], "float32"),
      filter: () => Tensor.from(Uint32Array.of(bits)),
      ...changes,
    };
    using dataset = given.dataset();
    using queries = given.queries();
    using neighbors = given.neighbors();
    using distances = given.distances();
    using filter = given.filter();
    using struct = filter.__dlpack__();
    using index = new Index();
    const status = c.knnBruteForceBuild(res, dataset, L2, 0, index.handle);
    if (changes.dataset !== undefined) {
      fails(status, text);
      // Taken over, it is deleted all the same.
      if (dataset instanceof Tensor) {
        fails(
          c.knnBruteForceBuildOwned(res, dataset, L2, 0, index.handle),
          text,
        );
      }
      fails(begin(index, queries, neighbors, distances), "not built");
      return;
    }
    using _held = dataset.hold();
    succeeds(status);
    fails(begin(index, queries, neighbors, distances, bitset(struct)), text);
    // Nothing was begun: nothing is written.
    sync();
    if (neighbors instanceof Tensor && neighbors.is("int64")) {
      assert(neighbors.data.every((row) => row === 0n));
    }
    assertEquals(search(index, tensorOf(asked), 2), naive(rows, asked, 2));
  });
}

test("Handles that are NULL, and metrics that are not there, are refused", () => {
  using index = new Index().build(tensorOf(rows));
  const dataset = tensorOf(rows);
  fails(c.knnBruteForceBuild(res, dataset, 3, 0, index.handle), "metric 3");
  fails(c.knnBruteForceBuild(res, dataset, L2, 0, 0n), "index is NULL");
  fails(c.knnBruteForceBuild(0n, dataset, L2, 0, index.handle), "res");
  fails(c.knnRMMAlloc(0n, new BigUint64Array(1), 8n), "res is NULL");
  fails(c.knnStreamSync(0n), "res is NULL");
  fails(c.knnBruteForceBuildOwned(res, dataset, 3, 0, index.handle), "metric");
});

test("A capsule that is taken over by a call that fails is deleted", () => {
  using index = new Index();
  const given = capsule(specOf(rows, { dtype: [0, 32, 1], versioned: false }));
  assertEquals(
    deletions(() =>
      fails(
        c.knnBruteForceBuildOwned(res, given, L2, 0, index.handle),
        "dataset: dtype",
      )
    ),
    1,
  );
  assertEquals(given.name, "used_dltensor");
});

Deno.test("Resources that are given back wait for their searches", () => {
  const other = written(c.knnResourcesCreate);
  using index = new Index().build(tensorOf(rows));
  const queries = tensorOf(asked);
  const neighbors = zeros([3, 2], "int64");
  const distances = zeros([3, 2], "float32");
  const all = [queries, neighbors, distances] as const;
  const holds = all.map((tensor) => tensor.hold());
  succeeds(c.knnBruteForceSearch(other, index.handle, ...all, NO_FILTER));
  succeeds(c.knnResourcesDestroy(other));
  for (const hold of holds) hold[Symbol.dispose]();
  assertEquals(neighbors.toArray(), naive(rows, asked, 2).neighbors);
});

// ---- memory ----

Deno.test("100,000 borrowed calls leave the process as small as it was", async () => {
  const { code, out, err } = await runScript(
    `
    import { dlopen, DlpackCapsule, liveTensors, Tensor } from "@dlpack/deno";
    const tensor = "borrowed DLManagedTensor*";
    const { symbols: c } = dlopen(${JSON.stringify(path.href)}, {
      knnResourcesCreate: { parameters: ["buffer"], result: "i32" },
      knnStreamSync: { parameters: ["usize"], result: "i32" },
      knnRMMAlloc: { parameters: ["usize", "buffer", "usize"], result: "i32" },
      knnRMMFree: { parameters: ["usize", "usize", "usize"], result: "i32" },
      knnBruteForceIndexCreate: { parameters: ["buffer"], result: "i32" },
      knnBruteForceBuild: {
        parameters: ["usize", tensor, "i32", "f32", "usize"],
        result: "i32",
      },
      knnBruteForceSearch: {
        parameters: [
          ...["usize", "usize", tensor, tensor, tensor],
          { struct: ["usize", "i32"] },
        ],
        result: "i32",
      },
    });
    const cell = new BigUint64Array(3);
    c.knnResourcesCreate(cell);
    c.knnBruteForceIndexCreate(cell.subarray(1));
    const [res, index] = cell;
    const columns = 1024; // so that 100,000 have 400 MB
    const bytes = BigInt(4 * columns);
    const shape = [1, columns];
    let failed = 0;
    function check(status) {
      if (status !== 1) failed++;
    }
    function make(i) {
      if (i % 2 === 0) return Tensor.from(new Float32Array(columns), shape);
      check(c.knnRMMAlloc(res, cell.subarray(2), bytes));
      const data = cell[2];
      const release = () => check(c.knnRMMFree(res, data, bytes));
      return DlpackCapsule.from(data, { dtype: "float32", shape, release });
    }
    const neighbors = Tensor.from(new BigInt64Array(1), [1, 1]);
    const distances = Tensor.from(new Float32Array(1), [1, 1]);
    const bits = Tensor.from(Uint32Array.of(1));
    async function loop() {
      for (let i = 0; i < 10_000; i++) {
        using dataset = make(i);
        check(c.knnBruteForceBuild(res, dataset, 0, 0, index));
        if (i % 10 !== 0) continue;
        using queries = make(i + 1);
        using filter = bits.__dlpack__();
        const address = Deno.UnsafePointer.value(filter.pointer);
        const prefilter = BigUint64Array.of(address, 1n);
        const all = [queries, neighbors, distances];
        check(c.knnBruteForceSearch(res, index, ...all, prefilter));
        check(c.knnStreamSync(res));
      }
      gc();
      await new Promise((resolve) => setTimeout(resolve));
      return Deno.memoryUsage().rss;
    }
    const first = await loop();
    let last = first;
    for (let turn = 0; turn < 10; turn++) last = await loop();
    const { count, exported } = liveTensors();
    console.log((last - first) / 2 ** 20);
    console.log(failed, count, exported.count);
    `,
    // Else it is the collector's young generation that grows.
    ["-A", "--v8-flags=--expose-gc,--max-semi-space-size=1"],
  );
  assertEquals([code, err], [0, ""]);
  assertEquals(out[1], "0 0 0");
  assert(Number(out[0]) < 32, `${out[0]} MiB more`);
});

// ---- the example ----

Deno.test("examples/knn.ts prints neighbors", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("../examples/knn.ts", import.meta.url).href],
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  const out = text.decode(stdout);
  assertEquals([code, text.decode(stderr)], [0, ""]);
  assertStringIncludes(out, "Tensor float32 [6, 3]");
  assertStringIncludes(out, "  white, coral, gray\n  black, teal, gray\n");
  assertStringIncludes(out, "  coral, gold, teal\n  teal, coral, gold\n");
});
