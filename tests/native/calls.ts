/** The library calls.c opened: functions that take and return tensors. */

import { dlopen, type TensorLibrary } from "@dlpack/deno";
import { compile } from "./cc.ts";

const pair = { struct: ["f64", "i32"] } as const;

const symbols = {
  calls_count: { parameters: ["buffer"], result: "void" },
  calls_make: { parameters: ["i32"], result: "DLManagedTensorVersioned*" },
  calls_make_legacy: { parameters: ["i32"], result: "DLManagedTensor*" },
  calls_make_when: {
    parameters: ["i32", "buffer"],
    result: "DLManagedTensorVersioned*",
    nonblocking: true,
  },
  calls_make_out: {
    parameters: ["i32", "DLManagedTensorVersioned**"],
    result: "i32",
  },
  calls_make_out_legacy: {
    parameters: ["i32", "DLManagedTensor**"],
    result: "i32",
  },
  calls_make_out_when: {
    parameters: ["i32", "DLManagedTensorVersioned**", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  calls_make_two: {
    parameters: [
      "DLManagedTensorVersioned**",
      "DLManagedTensor**",
      "function",
    ],
    result: "void",
  },
  calls_sum: { parameters: ["DLTensor*"], result: "f64" },
  calls_sum_when: {
    parameters: ["DLTensor*", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  calls_sum_after: { parameters: ["DLTensor*", "function"], result: "f64" },
  calls_sum_five: {
    parameters: ["DLTensor*", "DLTensor*", "f64", "DLTensor*", "DLTensor*"],
    result: "f64",
  },
  calls_scale: { parameters: ["DLTensor*", "f32"], result: "void" },
  calls_describe: { parameters: ["DLTensor*", "buffer"], result: "void" },
  calls_same: { parameters: ["DLTensor*", "DLTensor*"], result: "i32" },
  calls_consume: {
    parameters: ["taken DLManagedTensorVersioned*", "buffer"],
    result: "i64",
  },
  calls_consume_legacy: {
    parameters: ["taken DLManagedTensor*"],
    result: "f64",
  },
  calls_consume_two: {
    parameters: [
      "taken DLManagedTensorVersioned*",
      "taken DLManagedTensorVersioned*",
    ],
    result: "f64",
  },
  calls_consume_when: {
    parameters: ["taken DLManagedTensorVersioned*", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  calls_consume_then: {
    parameters: ["taken DLManagedTensorVersioned*", "function"],
    result: "void",
  },
  calls_refuse: {
    parameters: ["taken DLManagedTensorVersioned*"],
    result: "i32",
  },
  calls_keep: {
    parameters: ["taken DLManagedTensorVersioned*"],
    result: "void",
  },
  calls_drop: { parameters: [], result: "void" },
  calls_consume_with: {
    parameters: [
      "taken DLManagedTensorVersioned*",
      "u8",
      "i16",
      "u64",
      "f32",
      "bool",
      "pointer",
      "buffer",
      pair,
    ],
    result: "void",
  },
  calls_version: { type: "i32" },
  calls_add: { parameters: ["i32", "i32"], result: "i32" },
  addition: {
    name: "calls_add",
    parameters: ["i32", "i32"],
    result: "i32",
  },
  calls_add_when: {
    parameters: ["i32", "i32", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  calls_swap: { parameters: [pair], result: pair },
  calls_apply: { parameters: ["function", "i32"], result: "i32" },
  calls_no_such: {
    parameters: ["DLTensor*"],
    result: "DLManagedTensor*",
    optional: true,
  },
  // Every row of the table of C prototypes.
  calls_look: {
    parameters: ["borrowed DLManagedTensor*?", "buffer"],
    result: "void",
  },
  calls_look_versioned: {
    parameters: ["borrowed DLManagedTensorVersioned *", "buffer"],
    result: "void",
  },
  calls_sum_const: {
    name: "calls_sum",
    parameters: ["const DLTensor *"],
    result: "f64",
  },
  calls_sum_maybe: { parameters: ["DLTensor*?"], result: "f64" },
  calls_sum_borrowed: {
    parameters: ["borrowed DLManagedTensor*"],
    result: "f64",
  },
  calls_sum_borrowed_when: {
    parameters: ["borrowed DLManagedTensor*", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  calls_sum_all: { parameters: ["DLTensor**", "i32"], result: "f64" },
  calls_sum_all_maybe: {
    name: "calls_sum_all",
    parameters: ["DLTensor**?", "i32"],
    result: "f64",
  },
  calls_sum_all_when: {
    parameters: ["DLTensor**", "i32", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  calls_sum_memory: { parameters: ["data*", "i32", "i32"], result: "f64" },
  calls_sum_memory_maybe: {
    name: "calls_sum_memory",
    parameters: ["data*?", "i32", "i32"],
    result: "f64",
  },
  calls_sum_in_order: {
    name: "calls_sum_memory",
    parameters: ["contiguous data*", "i32", "i32"],
    result: "f64",
  },
  calls_sum_memory_when: {
    parameters: ["data*", "i32", "buffer"],
    result: "f64",
    nonblocking: true,
  },
  calls_address: { parameters: ["data*"], result: "u64" },
  calls_own: { parameters: ["i32"], result: "DLTensor*" },
  calls_own_writable: {
    name: "calls_own",
    parameters: ["i32"],
    result: "DLTensor *",
    writable: true,
  },
  calls_own_when: {
    parameters: ["buffer"],
    result: "DLTensor*",
    nonblocking: true,
  },
  calls_remember: { parameters: ["DLTensor*"], result: "void" },
  calls_remembered_ndim: { parameters: [], result: "i32" },
  calls_fail_with: {
    parameters: ["u64", "DLManagedTensor**", "DLManagedTensor**"],
    result: "i32",
  },
  calls_own_set: { parameters: ["i32", "f32"], result: "void" },
  calls_own_get: { parameters: ["i32"], result: "f32" },
  calls_make_writable: {
    name: "calls_make_legacy",
    parameters: ["i32"],
    result: "DLManagedTensor*",
    writable: true,
  },
  calls_fill: { parameters: ["i32", "out DLManagedTensor*"], result: "i32" },
  calls_fill_writable: {
    name: "calls_fill",
    parameters: ["i32", "out DLManagedTensor*"],
    result: "i32",
    writable: true,
  },
  calls_fill_versioned: {
    parameters: ["i32", "out DLManagedTensorVersioned*"],
    result: "i32",
  },
  calls_fill_when: {
    parameters: ["out DLManagedTensor*", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  calls_make_many: {
    parameters: ["DLManagedTensor**?", "i32"],
    result: "void",
  },
  calls_consume_maybe: {
    parameters: ["taken DLManagedTensor*?"],
    result: "f64",
  },
} as const;

/** The compiled library. */
export const callsPath: URL = compile(
  new URL("./calls.c", import.meta.url),
  "calls",
);

/** What the library has counted. */
export interface Counts {
  /** Tensors that it made. */
  made: number;
  /** Of those, how many its deleters have freed. */
  deleted: number;
  /** Tensors that were handed over to it. */
  consumed: number;
  /** Calls that summed a tensor. */
  called: number;
  /** Whether its code is gone. */
  unloaded: boolean;
}

/** Opens a copy of the library, which nobody else keeps open. */
export function openCalls(): {
  lib: TensorLibrary<typeof symbols>;
  counts: () => Counts;
} {
  const unique = `-${crypto.randomUUID()}$1`;
  const copy = new URL(callsPath.href.replace(/(\.\w+)$/, unique));
  Deno.copyFileSync(callsPath, copy);
  copies.push(copy);
  const lib = dlopen(copy, symbols);
  const memory = new BigInt64Array(new ArrayBuffer(8 * 5));
  memories.push(memory); // C writes to it until the process ends
  lib.symbols.calls_count(memory);
  const counts = () => {
    const [made, deleted, consumed, called, unloaded] = [...memory].map(Number);
    return {
      made: made!,
      deleted: deleted!,
      consumed: consumed!,
      called: called!,
      unloaded: unloaded === 1,
    };
  };
  return { lib, counts };
}

const memories: BigInt64Array[] = [];
const copies: URL[] = [];

addEventListener("unload", () => {
  for (const copy of copies) {
    try {
      Deno.removeSync(copy);
    } catch {
      // Windows keeps the file of a library that is open.
    }
  }
});
