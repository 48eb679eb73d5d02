/**
 * Tries one library, in a process of its own: they do not all bear each other.
 * Its arguments are the library's name and the Python; it prints a {@linkcode Row}
 * as JSON.
 */

import {
  addressOf,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import { Python } from "@dlpack/deno/python";
import { type Check, checks, producers } from "./table.ts";

/** What was seen of one library. */
export interface Row {
  readonly name: string;
  readonly version: string;
  readonly python: string;
  /** `"yes"` and the like, or why not. */
  readonly cells: Record<Check, string>;
  /** What should not be so. */
  readonly failures: string[];
}

if (import.meta.main) {
  const [name, executable] = Deno.args;
  console.log(JSON.stringify(await rowOf(name!, executable!)));
  // All that it holds goes with the process.
}

async function rowOf(name: string, executable: string): Promise<Row> {
  const producer = producers.find((one) => one.name === name)!;
  const { setup, version, dtypes, isReadOnly } = producer;
  const py = Python.open({ executable });
  py.exec("import gc, json, warnings; import numpy as np");
  py.exec("warnings.simplefilter('ignore')");
  py.exec(setup);
  const has = (variable: string): boolean =>
    String(py.eval(`"${variable}" in globals()`)) === "True";
  const valuesOf = (variable: string): unknown =>
    JSON.parse(String(py.eval(
      `json.dumps(np.asarray(values(${variable})).astype("float64").tolist())`,
    )));
  const expected = [[0, 1, 2], [3, 4, 5]];
  const six = `np.arange(6, dtype="float32").reshape(2, 3)`;

  const run: Record<Check, () => string | Promise<string>> = {
    view() {
      py.exec(`a = make(${six})`);
      using a = py.eval("a");
      const capsule = a.__dlpack__({ maxVersion: [1, 3] });
      const struct = capsule.name;
      capsule[Symbol.dispose]();
      using t = fromDlpack(a);
      using again = fromDlpack(a, { copy: false });
      same([t.shape, numbers(t)], [[2, 3], expected], "shape and values");
      same(addressOf(t), addressOf(again), "the address");
      same(a.__dlpack_device__(), [1, 0], "the device");
      if (isReadOnly) return struct;
      t.assign(7 as never);
      same(valuesOf("a"), [[7, 7, 7], [7, 7, 7]], "what Python sees");
      return struct;
    },
    copy() {
      py.exec(`a = make(${six})`);
      using a = py.eval("a");
      using t = fromDlpack(a, { copy: true });
      same(t.readOnly, false, "read-only");
      t.assign(7 as never);
      same(valuesOf("a"), expected, "what Python sees");
      return "yes";
    },
    dtypes() {
      const wrong: string[] = [];
      for (const [dtype, theirs] of Object.entries(dtypes)) {
        try {
          py.exec(`a = make_as(np.array([0, 1, 1, 0]), "${theirs}")`);
          using a = py.eval("a");
          using t = fromDlpack(a, { dtype: dtype as DType });
          same(numbers(t), [0, 1, 1, 0], "values");
        } catch (error) {
          wrong.push(`${dtype} (${firstLine(error)})`);
        }
      }
      if (wrong.length > 0) throw new Error(wrong.join(", "));
      return String(Object.keys(dtypes).length);
    },
    "read-only"() {
      py.exec(`a = make(${six})`);
      using a = py.eval("a");
      using t = fromDlpack(a);
      same(t.readOnly, isReadOnly, "read-only");
      return isReadOnly ? "yes" : "no";
    },
    strided() {
      if (!has("transpose")) return "–";
      py.exec(`a = make(${six}); b = transpose(a)`);
      using b = py.eval("b");
      using t = fromDlpack(b);
      same(t.strides, [1, 3], "the strides");
      same(numbers(t), [[0, 3], [1, 4], [2, 5]], "values");
      return "yes";
    },
    "0-d"() {
      py.exec("a = make(np.array(5, dtype='float32'))");
      using a = py.eval("a");
      using t = fromDlpack(a);
      same([t.shape, numbers(t)], [[], 5], "shape and value");
      return "yes";
    },
    empty() {
      py.exec("a = make(np.zeros((0, 3), dtype='float32'))");
      using a = py.eval("a");
      using t = fromDlpack(a);
      same([t.shape, numbers(t)], [[0, 3], []], "shape and values");
      return "yes";
    },
    kept() {
      py.exec(`a = make(${six})`);
      const a = py.eval("a");
      using t = fromDlpack(a);
      a[Symbol.dispose]();
      py.exec("del a; gc.collect()");
      py.exec(
        `others = [make(${six} * 0 - 1) for _ in range(100)]; del others`,
      );
      same(numbers(t), expected, "values");
      return "yes";
    },
    async freed() {
      // If arrays stayed, each round would take 4 MiB more.
      const round = (): void => {
        py.exec("a = make(np.ones(1 << 20, dtype='float32'))");
        using a = py.eval("a");
        for (const copy of [false, true]) {
          using t = fromDlpack(a, { copy });
          same(t.size, 1 << 20, "the size");
        }
        py.exec("del a");
      };
      const growth = async (): Promise<number> => {
        const before = Deno.memoryUsage().rss;
        for (let i = 0; i < 60; i++) {
          round();
          await new Promise((resolve) => setTimeout(resolve));
        }
        return (Deno.memoryUsage().rss - before) / 2 ** 20;
      };
      const more = [await growth(), await growth(), await growth()];
      if (Math.min(...more) > 60) {
        throw new Error(`${more.map(Math.round).join(" and ")} MiB are left`);
      }
      return "yes";
    },
    back() {
      if (!has("back")) return "–";
      const before = liveTensors();
      const memory = Float32Array.from(expected.flat());
      py.set("x", Tensor.from(memory, [2, 3]));
      py.exec("b = back(x)");
      same(valuesOf("b"), expected, "what Python sees");
      memory[1] = 70;
      const seen = (valuesOf("b") as number[][])[0]![1]!;
      if (!producer.copiesBack) same(seen, 70, "a change");
      py.exec("del b, x; gc.collect()");
      same(liveTensors(), before, "what is held");
      if (producer.hasExchange) {
        py.exec(`a = make(${six})`);
        py.set("b", Tensor.from(memory, [2, 3]), { as: py.eval("type(a)") });
        memory[1] = 1;
        same(valuesOf("b"), expected, "what Python sees by the C API");
        py.exec("del a, b; gc.collect()");
        same(liveTensors(), before, "what is held");
      }
      return seen === 70 ? "shared" : "copied";
    },
  };

  const cells = {} as Record<Check, string>;
  const failures: string[] = [];
  for (const check of checks) {
    try {
      cells[check] = producer.lacks?.includes(check) ? "–" : await run[check]();
    } catch (error) {
      cells[check] = "fails";
      failures.push(`${check}: ${firstLine(error)}`);
    }
  }
  return {
    name,
    version: String(py.eval(version)),
    python: py.version,
    cells,
    failures,
  };
}

function firstLine(error: unknown): string {
  return String((error as Error)?.message ?? error).split("\n")[0]!;
}

/** The elements as plain numbers, nested. */
function numbers(t: Tensor): unknown {
  const plain = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(plain)
      : typeof value === "object"
      ? (value as { re: number }).re
      : Number(value);
  return plain(t.toArray());
}

function same(actual: unknown, expected: unknown, what: string): void {
  const text = (value: unknown): string =>
    typeof value === "bigint" ? `${value}` : JSON.stringify(value);
  if (text(actual) === text(expected)) return;
  throw new Error(`${what}: ${text(actual)}, not ${text(expected)}`);
}
