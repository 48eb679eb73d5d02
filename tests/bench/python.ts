/**
 * Imports of Python's arrays through libpython in this process, against what
 * NumPy takes for its own; and those of a type with DLPack's C exchange API,
 * against the same struct from plain C.
 *
 * usage: deno run -A tests/bench/python.ts [--quick] [--json PATH]
 *
 * Python is that of the active virtual environment, or the repository's. NumPy's
 * loop is timed inside of it. `c_same` asks the type's own C function and wraps
 * what that returns, with Python's lock held all the time; `c_import` is
 * the producer of the section `import`.
 *
 * @module
 */

import { pythonPath } from "../../examples/python.ts";
import { exchangeOf } from "../../ffi/python/exchange.ts";
import { runningInterpreter } from "../../ffi/python/interpreter.ts";
import { libc } from "../../ffi/libc.ts";
import { addressOf, addressOfArray } from "../../ffi/memory.ts";
import { DlpackCapsule, fromDlpack } from "../../mod.ts";
import { Python } from "../../src/python/mod.ts";
import { compare, type Contender, type Row } from "./harness.ts";
import { initProducer, producer } from "./producer.ts";
import {
  type Loop,
  measureLoop,
  printRows,
  sectionOptions,
  writeRows,
} from "./section.ts";

/** Types with the C exchange API, and how an array of theirs is made. */
const exchanging: Record<string, string> = {
  torch: "torch.ones((4, 4))",
  paddle: "paddle.ones([4, 4])",
  "cuda.core.utils":
    "cuda.core.utils.StridedMemoryView.from_any_interface(a, -1)",
};

const timing = `
import numpy as np, time
from itertools import repeat

a = np.ones((4, 4), np.float32)

def timed(seconds):
    from_dlpack = np.from_dlpack
    done, start = 0, time.perf_counter_ns()
    while True:
        for _ in repeat(None, 1000):
            b = from_dlpack(a)
            del b
        done += 1000
        elapsed = time.perf_counter_ns() - start
        if elapsed >= seconds * 1e9:
            return elapsed / done
`;

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const [rounds, turn] = options.isQuick ? [7, 0.02] : [31, 0.03];
  using py = Deno.env.has("VIRTUAL_ENV")
    ? Python.open()
    : Python.open({ executable: pythonPath() });
  py.exec(timing);
  const here = (loop: Loop): Contender => () => measureLoop(loop, turn);
  const numpy: Contender = () => {
    using ns = py.eval(`timed(${turn})`);
    return Number(String(ns));
  };
  const rows: Row[] = [];

  using a = py.eval("a");
  const importOfA: Loop = (count) => {
    for (let i = 0; i < count; i++) fromDlpack(a)[Symbol.dispose]();
  };
  importOfA(60_000); // V8 has compiled it by then
  rows.push(
    await compare(
      { group: "Python", name: "a NumPy array, dispose()", bytes: 0 },
      { ours: here(importOfA), numpy },
      rounds,
      Infinity,
    ),
  );

  initProducer(1024, [4, 4]);
  const importOfC: Loop = (count) => {
    for (let i = 0; i < count; i++) {
      const pointer = producer.bench_make();
      const capsule = new DlpackCapsule(pointer, "dltensor_versioned");
      fromDlpack(capsule)[Symbol.dispose]();
    }
  };
  importOfC(60_000);
  for (const [module, expression] of Object.entries(exchanging)) {
    try {
      py.exec(`import ${module}`);
    } catch {
      console.log(`Not installed: ${module}`);
      continue;
    }
    using object = py.eval(expression);
    const loop: Loop = (count) => {
      for (let i = 0; i < count; i++) fromDlpack(object)[Symbol.dispose]();
    };
    loop(60_000);
    py.exec(`object = ${expression}`);
    const same = sameFromC();
    same(60_000);
    rows.push(
      await compare(
        { group: "Python", name: `the C API of ${module}`, bytes: 0 },
        { ours: here(loop), c_same: here(same), c_import: here(importOfC) },
        rounds,
        Infinity,
      ),
    );
  }
  printRows(rows);
  await writeRows(rows, options);
}

/** Takes structs out of Python's variable `object` by C alone. */
function sameFromC(): Loop {
  const interpreter = runningInterpreter()!;
  const object = interpreter.within(() => interpreter.run("object", "eval"));
  const { fromObject } = interpreter.within(() =>
    exchangeOf(interpreter, object)
  )!;
  const out = new BigUint64Array(1);
  const address = addressOfArray(out);
  const { callAccessor } = libc()!;
  const key = addressOf(object);
  return (count) => {
    interpreter.within(() => {
      for (let i = 0; i < count; i++) {
        callAccessor(key, address, 1n, 8n, fromObject);
        const capsule = new DlpackCapsule(out[0]!, "dltensor_versioned");
        fromDlpack(capsule)[Symbol.dispose]();
      }
    });
  };
}

if (import.meta.main) await main(Deno.args);
