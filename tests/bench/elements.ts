/**
 * Elements of an imported tensor one by one, against a plain typed array and
 * scijs ndarray, and conversions to other dtypes, against NumPy's and
 * ml_dtypes'.
 *
 * usage: deno run -A tests/bench/elements.ts [--quick] [--json PATH]
 *
 * The times of single elements are those of one element of a tensor of float32
 * with 2^18 of them, of shape [512, 512] where nothing else is said; of
 * conversions, those of a whole tensor.
 *
 * @module
 */

import { DlpackCapsule, fromDlpack, Tensor } from "../../mod.ts";
import { dtypeByName } from "../../src/dtype/table.ts";
import {
  compare,
  type Contender,
  measure,
  measureFastest,
  PythonPeer,
  type Row,
} from "./harness.ts";
import {
  loadNdArray,
  type MakeNdArray,
  type NdArray,
} from "./peers/ndarray.ts";
import { initProducer, producer } from "./producer.ts";
import { manyKinds, printRows, sectionOptions, writeRows } from "./section.ts";

const SIDE = 512;
const SIZE = SIDE * SIDE;

/** What the loop over `data` needs: a tensor, or a plain typed array in its place. */
interface Strided {
  data: Float32Array;
  shape: readonly number[];
  strides: readonly number[];
  offset: number;
}

/** Each adds up all elements. */
const loops = {
  get(t: Tensor<"float32">): number {
    let sum = 0;
    for (let i = 0; i < SIDE; i++) {
      for (let j = 0; j < SIDE; j++) sum += t.get(i, j);
    }
    return sum;
  },
  data({ data, shape, strides, offset }: Strided): number {
    const [rows = 0, columns = 0] = shape;
    const [rowStride = 0, columnStride = 0] = strides;
    let sum = 0;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        sum += data[offset + i * rowStride + j * columnStride]!;
      }
    }
    return sum;
  },
  iterate(t: Tensor<"float32">): number {
    let sum = 0;
    for (const row of t) {
      for (const value of row as Tensor<"float32">) sum += value as number;
    }
    return sum;
  },
  toArray(t: Tensor<"float32">): number {
    let sum = 0;
    for (const row of t.toArray() as number[][]) {
      for (let j = 0; j < row.length; j++) sum += row[j]!;
    }
    return sum;
  },
};

/** The cases: what is measured, ours, and NumPy's. */
const cases: [
  name: string,
  loop: keyof typeof loops,
  task: string | null,
][] = [
  ["get(i, j)", "get", "get"],
  ["data with strides", "data", null],
  ["iteration", "iterate", "iterate"],
  ["toArray()", "toArray", "tolist"],
];
const casesAfter: typeof cases = [["get(i, j), after 8 dtypes", "get", "get"]];

const conversions = ["bfloat16", "float16", "float8_e4m3fn", "int64"] as const;

async function compareElements(
  chosen: typeof cases,
  numpy: PythonPeer,
  t: Tensor<"float32">,
  rounds: number,
  turn: number,
): Promise<Row[]> {
  // Same code, memory of JavaScript: V8's luck with a loop is not compared.
  const plain: Strided = {
    data: new Float32Array(SIZE).fill(1),
    shape: [SIDE, SIDE],
    strides: [SIDE, 1],
    offset: 0,
  };
  const inTurn = (run: () => number): Contender => () =>
    measure(() => {
      const sum = run();
      if (sum !== SIZE) throw new Error(`The sum is ${sum}, not ${SIZE}`);
    }, turn) / SIZE;
  const rows: Row[] = [];
  const add = async (
    name: string,
    loop: keyof typeof loops,
    task: string | null,
  ): Promise<void> => {
    const run = loops[loop] as (t: Tensor<"float32">) => number;
    const contenders: Record<string, Contender> = {
      ours: inTurn(() => run(t)),
      plain: inTurn(() => loops.data(plain)),
    };
    if (task !== null) {
      contenders["numpy"] = async () =>
        (await numpy.ask<{ ns: number }>({ task, seconds: turn })).ns / SIZE;
    }
    measure(() => run(t), 0.2); // compiled before it counts
    const what = { group: "element", name, bytes: 4 };
    rows.push(await compare(what, contenders, rounds, Infinity));
  };
  for (const [name, loop, task] of chosen) await add(name, loop, task);
  return rows;
}

/**
 * So that `get` and `set` have seen elements of many kinds, along one axis to
 * four, as in a large program: ours, and those of ndarray.
 */
function useManyDTypes(ndarray: MakeNdArray | null): void {
  for (let i = 0; i < 5_000; i++) {
    for (const t of manyKinds()) {
      useOne(t as NdArray, t.shape);
      if (ndarray !== null) useOne(ndarrayOf(t, ndarray), t.shape);
    }
  }
}

function useOne(array: NdArray, shape: readonly number[]): void {
  const index = shape.map(() => 0);
  array.set(...index, array.get(...index));
}

/** A loop over the elements of a tensor, or of what stands in its place. */
type ElementLoop = (over: unknown) => void;

/**
 * A loop over what is a constant of it, or is passed in: V8 knows where the
 * former is when it compiles the loop. Each is code of its own, as loops in a
 * program are, and its text is, too: V8 takes equal texts for one function, and
 * what it learns of ours would slow theirs down.
 */
function loopOf(code: string, over: unknown, isConstant: boolean): () => void {
  const text = `/* loop ${++loopsMade} */ ${code}`;
  if (!isConstant) {
    const loop = new Function("t", text) as ElementLoop;
    return () => loop(over);
  }
  return new Function("over", `const t = over; return () => { ${text} }`)(over);
}

let loopsMade = 0;

const names = ["i", "j", "k", "l"];

/** Does something at each index of a shape. */
function loopCode(shape: readonly number[], body: string): string {
  return shape.reduceRight(
    (inner, length, axis) => {
      const i = names[axis];
      return `for (let ${i} = 0; ${i} < ${length}; ${i}++) { ${inner} }`;
    },
    body,
  );
}

/** Adds all elements up, and looks that it was all. */
function sumCode(loop: string): string {
  return `let sum = 0; ${loop} if (sum !== ${SIZE}) throw new Error("" + sum);`;
}

/** Of 2^18 elements each. */
const shapes = [[SIZE], [SIDE, SIDE], [64, 64, 64], [32, 32, 16, 16]];

/** Native memory full of ones. */
function ones(shape: readonly number[]): Tensor {
  return fromDlpack(Tensor.from(new Float32Array(SIZE).fill(1), shape));
}

/** Whether what is looped over is a constant of the loop. */
const ways: [way: string, isConstant: boolean][] = [
  ["constant", true],
  ["passed in", false],
];

async function compareLoops(
  what: { group: string; name: string },
  loops: Record<string, () => void>,
  rounds: number,
  turn: number,
): Promise<Row> {
  const contenders: Record<string, Contender> = {};
  for (const [who, loop] of Object.entries(loops)) {
    measure(loop, 0.1); // compiled before it counts
    contenders[who] = () => measureFastest(loop, turn) / SIZE;
  }
  return await compare({ ...what, bytes: 4 }, contenders, rounds, Infinity);
}

/** `get` and `set` against those of ndarray. */
async function compareAccess(
  group: string,
  ndarray: MakeNdArray,
  rounds: number,
  turn: number,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const shape of shapes) {
    const index = names.slice(0, shape.length).join(", ");
    const codes = {
      get: sumCode(loopCode(shape, `sum += t.get(${index});`)),
      set: loopCode(shape, `t.set(${index}, 1);`),
    };
    for (const [method, code] of Object.entries(codes)) {
      for (const [way, isConstant] of ways) {
        using t = ones(shape);
        const name = `${method}, ${shape.length}-D, ${way}`;
        const loops = {
          ours: loopOf(code, t, isConstant),
          ndarray: loopOf(code, ndarrayOf(t, ndarray), isConstant),
        };
        rows.push(await compareLoops({ group, name }, loops, rounds, turn));
      }
    }
  }
  return rows;
}

/** `for … of` against that over a typed array, and against a loop of ndarray's. */
async function compareIteration(
  ndarray: MakeNdArray,
  rounds: number,
  turn: number,
): Promise<Row[]> {
  const group = "iteration";
  const rows: Row[] = [];
  const one = sumCode("for (const v of t) sum += v;");
  const two = sumCode("for (const row of t) for (const v of row) sum += v;");
  const double = sumCode(loopCode([SIDE, SIDE], "sum += t.get(i, j);"));
  for (const [way, isConstant] of ways) {
    using line = ones([SIZE]);
    using matrix = ones([SIDE, SIDE]);
    const overLine = {
      ours: loopOf(one, line, isConstant),
      plain: loopOf(one, line.data, isConstant),
    };
    const overMatrix = {
      ours: loopOf(two, matrix, isConstant),
      ndarray: loopOf(double, ndarrayOf(matrix, ndarray), isConstant),
    };
    const cases = { "one axis": overLine, "rows": overMatrix };
    for (const [name, loops] of Object.entries(cases)) {
      const what = { group, name: `${name}, ${way}` };
      rows.push(await compareLoops(what, loops, rounds, turn));
    }
  }
  return rows;
}

/** The same memory, as ndarray has it. */
function ndarrayOf(t: Tensor, ndarray: MakeNdArray): NdArray {
  return ndarray(t.data, t.shape, t.strides, t.offset);
}

async function compareConversions(
  numpy: PythonPeer,
  size: number,
  rounds: number,
  turn: number,
): Promise<Row[]> {
  const values = Tensor.from(
    Float32Array.from({ length: size }, (_, i) => i % 200 - 100),
  );
  const rows: Row[] = [];
  for (const dtype of conversions) {
    for (
      const [from, to] of [[dtype, "float32"], ["float32", dtype]] as const
    ) {
      const source: Tensor = values.astype(from);
      const bytes = size * dtypeByName(to)!.bits / 8;
      const row = await compare(
        { group: "astype, 1 Mi elements", name: `${from} to ${to}`, bytes },
        {
          ours: () => measure(() => source.astype(to)[Symbol.dispose](), turn),
          numpy: async () =>
            (await numpy.ask<{ ns: number }>({ from, to, size, seconds: turn }))
              .ns,
        },
        rounds,
        Infinity,
      );
      rows.push(row);
    }
  }
  return rows;
}

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const [rounds, turn] = options.isQuick ? [5, 0.02] : [15, 0.04];
  initProducer(1, [SIDE, SIDE]);
  const capsule = new DlpackCapsule(
    producer.bench_make(),
    "dltensor_versioned",
  );
  using t = fromDlpack(capsule);
  await using numpy = await PythonPeer.start("numpy_elements.py");
  const ndarray = await loadNdArray();
  const tensor = t as Tensor<"float32">;
  const rows = await compareElements(cases, numpy, tensor, rounds, turn);
  const addAccess = async (group: string): Promise<void> => {
    if (ndarray === null) return;
    rows.push(...await compareAccess(group, ndarray, rounds, turn));
  };
  await addAccess("element access");
  if (ndarray !== null) {
    rows.push(...await compareIteration(ndarray, rounds, turn));
  }
  useManyDTypes(ndarray);
  rows.push(
    ...await compareElements(casesAfter, numpy, tensor, rounds, turn),
  );
  await addAccess("element access, after 8 dtypes and 4 ranks");
  rows.push(
    ...await compareConversions(numpy, 2 ** 20, rounds, turn),
  );
  printRows(rows);
  await writeRows(rows, options);
}

if (import.meta.main) await main(Deno.args);
