/**
 * Calls of functions of TVM-FFI.
 *
 * usage: deno run -A tests/bench/tvm_ffi.ts [--quick] [--json PATH]
 *
 * The function does nothing with its arguments. It is called by Python's tvm_ffi,
 * with tensors of its own, and by hand: arguments are packed in the loop, by
 * addresses that are known before, and passed by address or as typed arrays.
 *
 * @module
 */

import { TYPE } from "../../ffi/tvm_ffi/abi.ts";
import { Tensor } from "../../mod.ts";
import { referenceOfFunction } from "../../src/tvm_ffi/object.ts";
import { TvmFfi } from "../../src/tvm_ffi/mod.ts";
import { testModule, tvmFfiPath } from "../native/tvm_ffi.ts";
import { compare, type Contender, PythonPeer, type Row } from "./harness.ts";
import {
  type Loop,
  measureLoop,
  printRows,
  sectionOptions,
  writeRows,
} from "./section.ts";

let sum = 0;

/** Calls by hand: three tensor objects, whose addresses are known. */
function byHand(
  path: string,
  callee: bigint,
  [a, b, c]: readonly [bigint, bigint, bigint],
): { addresses: Loop; arrays: Loop } {
  const symbols = Deno.dlopen(path, {
    byAddress: {
      name: "TVMFFIFunctionCall",
      parameters: ["u64", "u64", "i32", "u64"],
      result: "i32",
    },
    byArray: {
      name: "TVMFFIFunctionCall",
      parameters: ["u64", "buffer", "i32", "buffer"],
      result: "i32",
    },
  }).symbols;
  const args = new BigUint64Array(new ArrayBuffer(48));
  const result = new BigUint64Array(new ArrayBuffer(16));
  const type = BigInt(TYPE.tensor);
  const pack = (): void => {
    args[0] = type;
    args[1] = a;
    args[2] = type;
    args[3] = b;
    args[4] = type;
    args[5] = c;
    result[0] = 0n;
  };
  const argsAt = Deno.UnsafePointer.value(Deno.UnsafePointer.of(args));
  const resultAt = Deno.UnsafePointer.value(Deno.UnsafePointer.of(result));
  return {
    addresses(count) {
      for (let i = 0; i < count; i++) {
        pack();
        sum += symbols.byAddress(callee, argsAt, 3, resultAt);
      }
    },
    arrays(count) {
      for (let i = 0; i < count; i++) {
        pack();
        sum += symbols.byArray(callee, args, 3, result);
      }
    },
  };
}

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const [rounds, turn] = options.isQuick ? [7, 0.02] : [15, 0.06];
  const module = testModule("tvm_plain.c");
  if (module === null) {
    console.log("Nothing to call: pip install apache-tvm-ffi");
    return await writeRows([], options);
  }
  await using python = await PythonPeer.start("tvm_calls.py");
  const { tvm_ffi: version } = await python.ask<{ tvm_ffi: string | null }>({
    module,
  });
  const byPython = (task: string): Record<string, Contender> =>
    version === null ? {} : {
      python: async () =>
        (await python.ask<{ ns: number }>({ task, seconds: turn })).ns,
    };

  using ffi = TvmFfi.open(tvmFfiPath!);
  const empty = ffi.loadModule(module).functions.empty!;
  const three = [0, 1, 2].map(() => Tensor.zeros([3], "float32"));
  const [a, b, c] = three as [Tensor, Tensor, Tensor];
  const callee = referenceOfFunction(empty)!.address;
  const loops: Record<string, Loop> = {
    three(count) {
      for (let i = 0; i < count; i++) empty(a, b, c);
    },
    none(count) {
      for (let i = 0; i < count; i++) empty();
    },
    ints(count) {
      for (let i = 0; i < count; i++) empty(1, 2, 3);
    },
    text(count) {
      for (let i = 0; i < count; i++) empty("a name of more than seven bytes");
    },
  };
  const hand = byHand(tvmFfiPath!, callee, [callee, callee, callee]);
  for (const loop of [...Object.values(loops), ...Object.values(hand)]) {
    loop(100_000);
  }

  const rows: Row[] = [];
  for (
    const [name, task, peers] of [
      ["a call with three tensors", "three", {
        hand: () => measureLoop(hand.addresses, turn),
        hand_arrays: () => measureLoop(hand.arrays, turn),
      }],
      ["a call without arguments", "none", {}],
      ["a call with three integers", "ints", {}],
      ["a call with a string", "text", {}],
    ] as const
  ) {
    rows.push(
      await compare(
        { group: "tvm-ffi", name, bytes: 0 },
        {
          ours: () => measureLoop(loops[task]!, turn),
          ...byPython(task),
          ...peers,
        },
        rounds,
        Infinity,
      ),
    );
  }
  if (sum !== 0) throw new Error("A call failed");
  printRows(rows);
  await writeRows(rows, options);
}

if (import.meta.main) await main(Deno.args);
