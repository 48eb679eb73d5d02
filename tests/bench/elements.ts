/**
 * Elements of an imported tensor one by one, against a plain typed array, and
 * conversions to other dtypes, against NumPy's and ml_dtypes'.
 *
 * usage: deno run -A tests/bench/elements.ts [--quick] [--json PATH]
 *
 * The times of single elements are those of one element of a [512, 512] tensor
 * of float32; of conversions, those of a whole tensor.
 *
 * @module
 */

import { DlpackCapsule, type DType, fromDlpack, Tensor } from "../../mod.ts";
import { dtypeByName } from "../../src/dtype/table.ts";
import {
  compare,
  type Contender,
  measure,
  PythonPeer,
  type Row,
} from "./harness.ts";
import { initProducer, producer } from "./producer.ts";
import { printRows, sectionOptions, writeRows } from "./section.ts";

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

const conversions = ["bfloat16", "float16", "float8_e4m3fn", "int64"] as const;

async function compareElements(
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
  for (const [name, loop, task] of cases) await add(name, loop, task);
  useManyDTypes();
  await add("get(i, j), after 8 dtypes", "get", "get");
  return rows;
}

/** So that `get` has seen typed arrays of many kinds, as in a large program. */
function useManyDTypes(): void {
  const dtypes: DType[] = [
    "int8",
    "uint8",
    "int32",
    "int64",
    "float64",
    "bfloat16",
    "bool",
    "complex64",
  ];
  for (let i = 0; i < 20_000; i++) {
    for (const dtype of dtypes) {
      const t = Tensor.from(new Float32Array([1])).astype(dtype);
      t.get(0);
    }
  }
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
  const rows = [
    ...await compareElements(numpy, t as Tensor<"float32">, rounds, turn),
    ...await compareConversions(numpy, 2 ** 20, rounds, turn),
  ];
  printRows(rows);
  await writeRows(rows, options);
}

if (import.meta.main) await main(Deno.args);
