/**
 * Out to native: exports, and calls that borrow a tensor.
 *
 * usage: deno run -A tests/bench/export.ts [--quick] [--json PATH]
 *
 * An export is made and its deleter called, as by a consumer that takes it and
 * lets it go. A borrowing call is compared with Deno's own call of the same
 * function, given pointers to structs made beforehand, and with one that is
 * given typed arrays. The function that takes three does nothing with them.
 *
 * @module
 */

import { VERSIONED } from "../../ffi/abi.ts";
import { dlopen, DlpackCapsule, fromDlpack, Tensor } from "../../mod.ts";
import { compile } from "../native/cc.ts";
import { compare, type Contender, PythonPeer, type Row } from "./harness.ts";
import { initProducer, producer, producerLibrary } from "./producer.ts";
import {
  type Loop,
  manyKinds,
  measureLoop,
  printRows,
  sectionOptions,
  writeRows,
} from "./section.ts";

/** What is added up is looked at in the end, so that nothing is optimised away. */
let sum = 0;

const library = compile(
  new URL("../native/calls.c", import.meta.url),
  "calls",
);
const plain = Deno.dlopen(library, {
  calls_sum: { parameters: ["u64"], result: "f64" },
}).symbols.calls_sum;
const borrowing = dlopen(library, {
  calls_sum: { parameters: ["DLTensor*"], result: "f64" },
}).symbols.calls_sum;

const plainThree = Deno.dlopen(producerLibrary, {
  pointers: {
    name: "bench_three",
    parameters: ["pointer", "pointer", "pointer"],
    result: "i32",
  },
  arrays: {
    name: "bench_three",
    parameters: ["buffer", "buffer", "buffer"],
    result: "i32",
  },
}).symbols;

/** What three tensors are lent as. */
const lent = [
  "DLTensor*",
  "borrowed DLManagedTensor*",
  "borrowed DLManagedTensorVersioned*",
  "data*",
] as const;

/** Lends the same three tensors again and again. */
function callerOfThree(
  type: (typeof lent)[number],
  [a, b, c]: readonly [Tensor, Tensor, Tensor],
): Loop {
  const three = dlopen(producerLibrary, {
    bench_three: { parameters: [type, type, type], result: "i32" },
  }).symbols.bench_three;
  return (count) => {
    for (let i = 0; i < count; i++) sum += three(a, b, c);
  };
}

function exporter(tensor: Tensor, copy: boolean): Loop {
  const request = { maxVersion: [1, 0], copy: copy ? true : null } as const;
  return (count) => {
    for (let i = 0; i < count; i++) {
      tensor.__dlpack__(request)[Symbol.dispose]();
    }
  };
}

function caller(tensor: Tensor): Loop {
  return (count) => {
    for (let i = 0; i < count; i++) sum += borrowing(tensor);
  };
}

/** So that calls have seen tensors of many kinds, as in a large program. */
function lendManyKinds(): void {
  const many = manyKinds().flatMap((own) => [own, fromDlpack(own)]);
  const { symbols } = dlopen(producerLibrary, {
    bench_three: {
      parameters: ["DLTensor*", "DLTensor*", "DLTensor*"],
      result: "i32",
    },
  });
  for (let i = 0; i < 1000; i++) {
    for (const tensor of many) {
      sum += symbols.bench_three(tensor, tensor, tensor);
    }
  }
}

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const [rounds, turn] = options.isQuick ? [7, 0.02] : [15, 0.06];
  initProducer(1024, [4, 4]);
  await using python = await PythonPeer.start("numpy_import.py");
  const numpyExport: Contender = async () =>
    (await python.ask<{ ns: number }>({
      library: "numpy",
      task: "export",
      seconds: turn,
    })).ns;

  const pointer = producer.bench_make()!;
  const native = fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
  const own = Tensor.from(new Float32Array(16).fill(1), [4, 4]);
  const struct = BigInt(Deno.UnsafePointer.value(pointer));
  const address = struct + BigInt(VERSIONED.tensor);
  const plainly: Loop = (count) => {
    for (let i = 0; i < count; i++) sum += plain(address);
  };

  const exports: [name: string, loop: Loop][] = [
    ["export and release, native memory", exporter(native, false)],
    ["export and release, JavaScript's memory", exporter(own, false)],
    ["export and release, a copy", exporter(own, true)],
  ];
  const calls: [name: string, loop: Loop][] = [
    ["a call with a DLTensor*, native memory", caller(native)],
    ["a call with a DLTensor*, JavaScript's memory", caller(own)],
  ];
  const three = [native, own, Tensor.from(new Float32Array(3))] as const;
  const callsOfThree = lent.map((type): [name: string, loop: Loop] => [
    `a call with three ${type}`,
    callerOfThree(type, three),
  ]);
  const arrays = [native.data, own.data, new Float32Array(3)] as const;
  const withPointers: Loop = (count) => {
    const { pointers } = plainThree;
    for (let i = 0; i < count; i++) sum += pointers(pointer, pointer, pointer);
  };
  const withArrays: Loop = (count) => {
    const [a, b, c] = arrays;
    for (let i = 0; i < count; i++) {
      sum += plainThree.arrays(a as BufferSource, b, c);
    }
  };
  const loops = [...exports, ...calls, ...callsOfThree].map(([, loop]) => loop);
  for (const loop of [...loops, plainly, withPointers, withArrays]) {
    loop(30_000);
  }

  const rows: Row[] = [];
  const row = async (
    group: string,
    name: string,
    loop: Loop,
    peer: Record<string, Contender>,
  ): Promise<void> => {
    const contenders = { ours: () => measureLoop(loop, turn), ...peer };
    rows.push(
      await compare({ group, name, bytes: 0 }, contenders, rounds, Infinity),
    );
  };
  for (const [name, loop] of exports) {
    await row("export", name, loop, { numpy: numpyExport });
  }
  for (const [name, loop] of calls) {
    await row("call", name, loop, { deno: () => measureLoop(plainly, turn) });
  }
  for (const [name, loop] of callsOfThree) {
    await row("call", name, loop, {
      deno: () => measureLoop(withPointers, turn),
      deno_arrays: () => measureLoop(withArrays, turn),
    });
  }
  lendManyKinds();
  const after = "after 8 dtypes and 4 ranks";
  for (const [name, loop] of callsOfThree) {
    await row("call", `${name}, ${after}`, loop, {
      deno_arrays: () => measureLoop(withArrays, turn),
    });
  }
  native[Symbol.dispose]();
  if (!(sum > 0)) throw new Error("Nothing was called");
  printRows(rows);
  await writeRows(rows, options);
}

if (import.meta.main) await main(Deno.args);
