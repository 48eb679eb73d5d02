/**
 * Two C libraries that know nothing of DLPack, BLAS and FFTW: both are lent bare
 * memory as `"data*"`, and memory of FFTW's own is wrapped with
 * `DlpackCapsule.from`.
 */

import {
  addressOf,
  type Complex,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import { collectGarbage } from "./helpers.ts";
import { skipped } from "./skipped.ts";

function isInstalled(library: string): boolean {
  try {
    Deno.dlopen(library, {});
    return true;
  } catch {
    return false;
  }
}

// --- BLAS --------------------------------------------------------------------

const hasBlas = isInstalled("libopenblas.so.0");
if (!hasBlas) skipped("BLAS", "apt-get install libopenblas0-pthread");
const blas = hasBlas ? openBlas() : null;

function openBlas() {
  const gemm = <T extends "f32" | "f64">(scalar: T) =>
    [
      "i32", // the order of C
      "i32", // whether A is transposed
      "i32", // whether B is transposed
      "i32", // rows of C
      "i32", // columns of C
      "i32", // columns of A
      scalar, // alpha
      "data*", // A
      "i32", // lda
      "data*", // B
      "i32", // ldb
      scalar, // beta
      "data*", // C
      "i32", // ldc
    ] as const;
  const { symbols } = dlopen("libopenblas.so.0", {
    cblas_sgemm: { parameters: gemm("f32"), result: "void" },
    cblas_dgemm: { parameters: gemm("f64"), result: "void" },
    dgemmOnThread: {
      name: "cblas_dgemm",
      parameters: gemm("f64"),
      result: "void",
      nonblocking: true,
    },
    cblas_dgemv: {
      parameters: [
        "i32", // the order of A
        "i32", // whether A is transposed
        "i32", // rows of A
        "i32", // columns of A
        "f64", // alpha
        "data*", // A
        "i32", // lda
        "data*", // x
        "i32", // incx
        "f64", // beta
        "data*", // y
        "i32", // incy
      ],
      result: "void",
    },
    cblas_ddot: {
      parameters: ["i32", "data*", "i32", "data*", "i32"],
      result: "f64",
    },
  });
  return symbols;
}

const ROW_MAJOR = 101;
const COLUMN_MAJOR = 102;
const AS_IT_IS = 111;
const TRANSPOSED = 112;

function blasTest(name: string, fn: () => void | Promise<void>): void {
  Deno.test({ name: `BLAS: ${name}`, ignore: blas === null, fn });
}

type Real = "float32" | "float64";

/** A matrix of small integers within a larger one of NaN. */
interface Inner<D extends Real> {
  readonly outer: Tensor<D>;
  readonly inner: Tensor<D>;
}

function makeInner<D extends Real>(
  dtype: D,
  [rows, columns]: readonly [number, number],
  { transposed = false, seed = 0 } = {},
): Inner<D> {
  const [r, c] = transposed ? [columns, rows] : [rows, columns];
  const data = dtype === "float32"
    ? new Float32Array((r + 3) * (c + 4))
    : new Float64Array((r + 3) * (c + 4));
  const outer = Tensor.from(data.fill(NaN), [r + 3, c + 4]) as Tensor<D>;
  const inner = innerOf(outer, [rows, columns], transposed);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      (inner as Tensor<Real>).set(i, j, (seed + 7 * i + 5 * j) % 11 - 5);
    }
  }
  return { outer, inner };
}

function innerOf<D extends Real>(
  outer: Tensor<D>,
  [rows, columns]: readonly [number, number],
  transposed: boolean,
): Tensor<D> {
  const [r, c] = transposed ? [columns, rows] : [rows, columns];
  const inner = outer.slice([1, 1 + r], [2, 2 + c]);
  return transposed ? inner.transpose() : inner;
}

/** `alpha * A * B + beta * C`, one element after the other. */
function product(
  alpha: number,
  a: Tensor<Real>,
  b: Tensor<Real>,
  beta: number,
  c: Tensor<Real>,
): number[][] {
  return (c.toArray() as number[][]).map((row, i) =>
    row.map((value, j) => {
      let sum = 0;
      for (let k = 0; k < a.shape[1]!; k++) sum += a.get(i, k) * b.get(k, j);
      return alpha * sum + beta * value;
    })
  );
}

/** How BLAS is told of a matrix, of which one stride must be 1. */
function layoutOf(matrix: Tensor, unitAxis: number): [number, number] {
  const unit = matrix.strides[unitAxis]!;
  const other = matrix.strides[1 - unitAxis]!;
  return unit === 1 ? [AS_IT_IS, other] : [TRANSPOSED, unit];
}

/** C = alpha * A * B + beta * C. */
function gemm<D extends Real>(
  alpha: number,
  a: Tensor<D>,
  b: Tensor<D>,
  beta: number,
  c: Tensor<D>,
): void {
  const unitAxis = c.strides[1] === 1 ? 1 : 0;
  const [transposeA, lda] = layoutOf(a, unitAxis);
  const [transposeB, ldb] = layoutOf(b, unitAxis);
  const [, ldc] = layoutOf(c, unitAxis);
  const run = c.dtype === "float32" ? blas!.cblas_sgemm : blas!.cblas_dgemm;
  run(
    unitAxis === 1 ? ROW_MAJOR : COLUMN_MAJOR,
    transposeA,
    transposeB,
    c.shape[0]!,
    c.shape[1]!,
    a.shape[1]!,
    alpha,
    a,
    lda,
    b,
    ldb,
    beta,
    c,
    ldc,
  );
}

for (const dtype of ["float32", "float64"] as const) {
  for (let which = 0; which < 8; which++) {
    const [ofA, ofB, ofC] = [which & 1, which & 2, which & 4].map(Boolean);
    const names = [ofA ? "Aᵀ" : "A", ofB ? "Bᵀ" : "B", ofC ? "Cᵀ" : "C"];
    blasTest(`${names.join(", ")} of ${dtype} within larger ones`, () => {
      const a = makeInner(dtype, [5, 7], { transposed: ofA!, seed: 1 });
      const b = makeInner(dtype, [7, 6], { transposed: ofB!, seed: 2 });
      const c = makeInner(dtype, [5, 6], { transposed: ofC!, seed: 3 });
      const [beforeA, beforeB] = [a.outer.toArray(), b.outer.toArray()];
      // What is to come of all that C lies in.
      const expected = c.outer.copy();
      const sum = product(2, a.inner, b.inner, -3, c.inner);
      const inner: Tensor<Real> = innerOf(expected, [5, 6], ofC!);
      sum.forEach((row, i) => row.forEach((x, j) => inner.set(i, j, x)));

      gemm(2, a.inner, b.inner, -3, c.inner);
      assertEquals(c.inner.toArray(), sum);
      assertEquals(c.outer.toArray(), expected.toArray());
      assertEquals(a.outer.toArray(), beforeA);
      assertEquals(b.outer.toArray(), beforeB);
    });
  }
}

blasTest("every second row is a leading dimension, no column is", () => {
  const a = Tensor.from(Float64Array.from({ length: 24 }, (_, i) => i), [4, 6]);
  const three = new Float64Array([1, 0, 0, 0, 1, 0, 0, 0, 1]);
  const identity = Tensor.from(three, [3, 3]);
  const rows = a.slice([null, null, 2], [1, 4]);
  assertEquals(rows.strides, [12, 1]);
  const c = Tensor.from(new Float64Array(6), [2, 3]);
  gemm(1, rows, identity, 0, c);
  assertEquals(c.toArray(), [[1, 2, 3], [13, 14, 15]]);

  // Neither stride is 1: BLAS cannot be told of it.
  const columns = a.slice([0, 2], [null, null, 2]);
  assertEquals(columns.strides, [6, 2]);
  gemm(1, columns.copy(), identity, 0, c);
  assertEquals(c.toArray(), [[0, 2, 4], [6, 8, 10]]);
});

blasTest("vectors are columns of one matrix and rows of another", () => {
  const a = makeInner("float64", [4, 3], { seed: 4 }).inner;
  const x = makeInner("float64", [3, 5], { seed: 5 }).inner.slice(null, 2);
  const y = makeInner("float64", [2, 4], { seed: 6 });
  const row = y.inner.slice(1);
  const expected = y.outer.copy();
  product(1, a, x.copy().reshape([3, 1]), 2, row.copy().reshape([4, 1]))
    .forEach(([value], i) => expected.set(2, 2 + i, value!));
  blas!.cblas_dgemv(
    ROW_MAJOR,
    AS_IT_IS,
    4,
    3,
    1,
    a,
    a.strides[0]!,
    x,
    x.strides[0]!,
    2,
    row,
    1,
  );
  assertEquals(y.outer.toArray(), expected.toArray());
});

blasTest("a negative stride begins at the lowest address", () => {
  const x = Tensor.from(new Float64Array([1, 2, 3, 4]));
  const y = Tensor.from(new Float64Array([1, 10, 100, 1000]));
  const reversed = x.slice([null, null, -1]);
  assertEquals(reversed.strides, [-1]);
  // DLPack's element 0 is the last one in memory: turn the view round for it.
  const lowest = reversed.slice([null, null, -1]);
  assertEquals(blas!.cblas_ddot(4, lowest, reversed.strides[0]!, y, 1), 1234);
});

blasTest(
  "what a call on a thread was lent is given back after it",
  async () => {
    const n = 400;
    const before = liveTensors();
    let released = 0;
    const make = (value: number) => {
      const memory = new Float64Array(n * n).fill(value);
      return fromDlpack(
        DlpackCapsule.from(Deno.UnsafePointer.of(memory), {
          dtype: "float64",
          shape: [n, n],
          keepAlive: memory,
          release: () => released++,
        }),
      );
    };
    const c = new Float64Array(n * n).fill(NaN);
    const [a, b] = [make(2), make(3)];
    const done = blas!.dgemmOnThread(
      ROW_MAJOR,
      AS_IT_IS,
      AS_IT_IS,
      n,
      n,
      n,
      1,
      a,
      n,
      b,
      n,
      0,
      Tensor.from(c, [n, n]),
      n,
    );
    a[Symbol.dispose]();
    b[Symbol.dispose]();
    assertEquals(released, 0);
    await done;
    assertEquals(released, 2);
    assert(c.every((value) => value === 6 * n));
    assertEquals(liveTensors(), before);
  },
);

// --- FFTW --------------------------------------------------------------------

const FORWARD = -1;
const BACKWARD = 1;
const ESTIMATE = 64; // plans without writing to the arrays

const precisions = [
  { library: "libfftw3f.so.3", prefix: "fftwf", complex: "complex64" },
  { library: "libfftw3.so.3", prefix: "fftw", complex: "complex128" },
] as const;

function openFftw(library: string, prefix: string) {
  return dlopen(library, {
    malloc: {
      name: `${prefix}_malloc`,
      parameters: ["usize"],
      result: "pointer",
    },
    free: { name: `${prefix}_free`, parameters: ["pointer"], result: "void" },
    plan1d: {
      name: `${prefix}_plan_dft_1d`,
      parameters: [
        "i32", // n
        "data*", // in
        "data*", // out
        "i32", // sign
        "u32", // flags
      ],
      result: "pointer",
    },
    planRealRows: {
      name: `${prefix}_plan_many_dft_r2c`,
      parameters: [
        "i32", // rank
        "buffer", // const int *n
        "i32", // how many
        "data*", // in
        "buffer", // const int *inembed
        "i32", // istride
        "i32", // idist
        "data*", // out
        "buffer", // const int *onembed
        "i32", // ostride
        "i32", // odist
        "u32", // flags
      ],
      result: "pointer",
    },
    planGuru: {
      name: `${prefix}_plan_guru_dft`,
      parameters: [
        "i32", // rank
        "buffer", // const iodim *dims
        "i32", // howmany_rank
        "buffer", // const iodim *howmany_dims
        "data*", // in
        "data*", // out
        "i32", // sign
        "u32", // flags
      ],
      result: "pointer",
    },
    execute: {
      name: `${prefix}_execute`,
      parameters: ["pointer"],
      result: "void",
    },
    executeOnThread: {
      name: `${prefix}_execute`,
      parameters: ["pointer"],
      result: "void",
      nonblocking: true,
    },
    destroy: {
      name: `${prefix}_destroy_plan`,
      parameters: ["pointer"],
      result: "void",
    },
  }).symbols;
}

/** exp(-2πi jk / n) of all elements, added up. */
function transform(values: readonly Complex[], sign = FORWARD): Complex[] {
  const n = values.length;
  return values.map((_, k) => {
    const sum = { re: 0, im: 0 };
    values.forEach(({ re, im }, j) => {
      const angle = sign * 2 * Math.PI * j * k / n;
      sum.re += re * Math.cos(angle) - im * Math.sin(angle);
      sum.im += re * Math.sin(angle) + im * Math.cos(angle);
    });
    return sum;
  });
}

function elements(vector: Tensor): Complex[] {
  return vector.toArray() as Complex[];
}

function assertClose(vector: Tensor, expected: readonly Complex[]): void {
  assertEquals(vector.shape, [expected.length]);
  elements(vector).forEach(({ re, im }, i) => {
    assertAlmostEquals(re, expected[i]!.re, 1e-4);
    assertAlmostEquals(im, expected[i]!.im, 1e-4);
  });
}

function signal(n: number, seed = 0): Complex[] {
  return Array.from({ length: n }, (_, i) => ({
    re: (seed + 7 * i) % 11 - 5,
    im: (seed + 3 * i) % 5 - 2,
  }));
}

for (const { library, prefix, complex } of precisions) {
  const real = complex === "complex64" ? "float32" : "float64";
  const itemsize = complex === "complex64" ? 8 : 16;
  const has = isInstalled(library);
  if (!has) {
    const debian = prefix === "fftwf" ? "libfftw3-single3" : "libfftw3-double3";
    skipped(`FFTW for ${complex}`, `apt-get install ${debian}`);
  }
  const fftw = has ? openFftw(library, prefix) : null;
  /** How often memory was given back to FFTW. */
  let freed = 0;

  const test = (
    name: string,
    run: (c: NonNullable<typeof fftw>) => void | Promise<void>,
  ): void =>
    Deno.test({
      name: `FFTW, ${complex}: ${name}`,
      ignore: fftw === null,
      async fn() {
        freed = 0;
        const before = liveTensors();
        await run(fftw!);
        assertEquals(liveTensors(), before);
      },
    });

  const make = (bytes: number) => {
    const pointer = fftw!.malloc(BigInt(bytes));
    const release = () => {
      fftw!.free(pointer);
      freed++;
    };
    return { pointer, release };
  };
  /** A vector in FFTW's own memory. */
  const vector = (n: number) => {
    const { pointer, release } = make(n * itemsize);
    const byteLength = n * itemsize;
    const options = { dtype: complex, shape: [n], byteLength, release };
    return fromDlpack(DlpackCapsule.from(pointer, options), { dtype: complex });
  };

  test("a result is seen without a copy and given back once", (c) => {
    const values = signal(12);
    {
      const { pointer, release } = make(12 * itemsize);
      using x = fromDlpack(
        DlpackCapsule.from(pointer, {
          dtype: complex,
          shape: [12],
          byteLength: 12 * itemsize,
          release,
        }),
        { dtype: complex },
      );
      assertEquals(addressOf(x), Deno.UnsafePointer.value(pointer));
      assertEquals(x.readOnly, false);
      const { data } = x;
      const plan = c.plan1d(12, x, x, FORWARD, ESTIMATE);
      values.forEach((value, i) => x.set(i, value));
      c.execute(plan);
      c.destroy(plan);
      const expected = transform(values);
      assertClose(x, expected);
      assertAlmostEquals(data[1]!, expected[0]!.im, 1e-4);
      assertAlmostEquals(data[2]!, expected[1]!.re, 1e-4);
      assertEquals(freed, 0);
      x[Symbol.dispose]();
      assertEquals([freed, data.length], [1, 0]);
    }
    assertEquals(freed, 1);
  });

  test("a capsule that nobody imported gives the memory back once", () => {
    const { pointer, release } = make(4 * itemsize);
    const options = { dtype: complex, shape: [4], release };
    const capsule = DlpackCapsule.from(pointer, options);
    capsule[Symbol.dispose]();
    capsule[Symbol.dispose]();
    assertEquals(freed, 1);
  });

  test("refused memory stays the caller's", () => {
    const { pointer, release } = make(4 * itemsize);
    const byteLength = 4 * itemsize;
    const options = { dtype: complex, shape: [5], byteLength, release };
    assertThrows(() => DlpackCapsule.from(pointer, options), RangeError);
    assertEquals(freed, 0);
    release();
  });

  test("a view alone keeps the memory, then garbage gives it back", async (c) => {
    let part: Tensor<typeof complex> | null = (() => {
      const x = vector(6);
      signal(6).forEach((value, i) => x.set(i, value));
      const plan = c.plan1d(6, x, x, FORWARD, ESTIMATE);
      c.execute(plan);
      c.destroy(plan);
      return x.slice([4, 1, -1]);
    })();
    await collectGarbage();
    assertEquals(freed, 0);
    assertClose(part!, transform(signal(6)).slice(2, 5).reverse());
    part = null;
    await collectGarbage();
    assertEquals(freed, 1);
  });

  test("hold() keeps what a plan remembers over dispose", async (c) => {
    const n = 1 << 14;
    const x = vector(n);
    using out = vector(n);
    const plan = c.plan1d(n, x, out, BACKWARD, ESTIMATE);
    x.data.fill(0);
    x.set(0, { re: 3, im: -2 });
    const held = x.hold();
    const done = c.executeOnThread(plan);
    x[Symbol.dispose]();
    assertEquals(freed, 0);
    await done;
    assertEquals(freed, 0);
    c.destroy(plan);
    held[Symbol.dispose]();
    assertEquals(freed, 1);
    // All of the backward transform of one value at 0 are that value.
    assert(elements(out).every(({ re, im }) => re === 3 && im === -2));
  });

  test("padded rows are seen as real and as complex numbers", (c) => {
    const [rows, n] = [3, 8];
    const pitch = (n / 2 + 1) * itemsize;
    const { pointer, release } = make(rows * pitch);
    const capsule = DlpackCapsule.from(pointer, {
      dtype: real,
      shape: [rows, n],
      byteStrides: [pitch, itemsize / 2],
      byteLength: rows * pitch,
      release,
    });
    const input = fromDlpack(capsule, { dtype: real });
    assertEquals(input.strides, [n + 2, 1]);
    // The same memory: it goes when neither is used any more.
    const output = fromDlpack(
      DlpackCapsule.from(pointer, {
        dtype: complex,
        shape: [rows, n / 2 + 1],
        keepAlive: input,
      }),
      { dtype: complex },
    );
    const plan = c.planRealRows(
      1,
      new Int32Array([n]),
      rows,
      input,
      null,
      1,
      input.strides[0]!,
      output,
      null,
      1,
      output.strides[0]!,
      ESTIMATE,
    );
    const values: Complex[][] = [];
    for (let i = 0; i < rows; i++) {
      values.push(signal(n, i).map(({ re }) => ({ re, im: 0 })));
      values[i]!.forEach(({ re }, j) => input.set(i, j, re));
    }
    c.execute(plan);
    c.destroy(plan);
    input[Symbol.dispose]();
    assertEquals(freed, 0);
    values.forEach((row, i) => {
      const expected = transform(row).slice(0, n / 2 + 1);
      assertClose(output.slice(i), expected);
    });
    output[Symbol.dispose]();
    assertEquals(freed, 1);
  });

  test("the guru interface takes a tensor's own strides", (c) => {
    const x = vector(5 * 4);
    const grid = x.reshape([5, 4]);
    const repeated = DlpackCapsule.from(addressOf(x), {
      dtype: complex,
      shape: [3, 4],
      strides: [0, 1],
      keepAlive: x,
    });
    const layouts = [
      grid.transpose(),
      grid.slice([null, null, -1], [null, null, -1]),
      grid.slice([null, null, 2]),
      fromDlpack(repeated, { dtype: complex }),
    ];
    signal(20).forEach((value, i) => x.set(i, value));
    for (const [i, input] of layouts.entries()) {
      const [rows, n] = input.shape as [number, number];
      // Out of place, into the columns of a matrix.
      using output = vector(rows * n);
      const columns = output.reshape([n, rows]).transpose();
      const iodim = (axis: number) =>
        new Int32Array([
          input.shape[axis]!,
          input.strides[axis]!,
          columns.strides[axis]!,
        ]);
      const plan = c.planGuru(
        1,
        iodim(1),
        1,
        iodim(0),
        input,
        columns,
        FORWARD,
        ESTIMATE,
      );
      c.execute(plan);
      c.destroy(plan);
      for (let row = 0; row < rows; row++) {
        assertClose(columns.slice(row), transform(elements(input.slice(row))));
      }
      assertEquals(freed, i);
    }
    x[Symbol.dispose]();
    layouts[3]![Symbol.dispose]();
    assertEquals(freed, layouts.length + 1);
  });
}
