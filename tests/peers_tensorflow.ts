/** The C API of TensorFlow, for the test that uses it; `null` when it is missing. */

import { foldersOf } from "../examples/find_library.ts";
import { cString } from "../examples/python.ts";
import { skipped } from "./skipped.ts";

const symbols = {
  TF_NewStatus: { parameters: [], result: "pointer" },
  TF_DeleteStatus: {
    parameters: [
      "pointer", // TF_Status *
    ],
    result: "void",
  },
  TF_GetCode: {
    parameters: [
      "pointer", // const TF_Status *
    ],
    result: "i32",
  },
  TF_Message: {
    parameters: [
      "pointer", // const TF_Status *
    ],
    result: "pointer", // const char *
  },
  TFE_NewContextOptions: { parameters: [], result: "pointer" },
  TFE_DeleteContextOptions: {
    parameters: [
      "pointer", // TFE_ContextOptions *
    ],
    result: "void",
  },
  TFE_NewContext: {
    parameters: [
      "pointer", // const TFE_ContextOptions *
      "pointer", // TF_Status *
    ],
    result: "pointer", // TFE_Context *
  },
  TFE_DeleteTensorHandle: {
    parameters: [
      "pointer", // TFE_TensorHandle *
    ],
    result: "void",
  },
  TFE_NewOp: {
    parameters: [
      "pointer", // TFE_Context *
      "buffer", // const char *name
      "pointer", // TF_Status *
    ],
    result: "pointer", // TFE_Op *
  },
  TFE_OpAddInput: {
    parameters: [
      "pointer", // TFE_Op *
      "pointer", // TFE_TensorHandle *
      "pointer", // TF_Status *
    ],
    result: "void",
  },
  TFE_Execute: {
    parameters: [
      "pointer", // TFE_Op *
      "buffer", // TFE_TensorHandle **results
      "buffer", // int *result_count
      "pointer", // TF_Status *
    ],
    result: "void",
  },
  TFE_DeleteOp: {
    parameters: [
      "pointer", // TFE_Op *
    ],
    result: "void",
  },
  // The two of DLPack are C++, but take and give nothing but pointers.
  TFE_HandleFromDLPack: {
    name: "_ZN10tensorflow20TFE_HandleFromDLPackEPvP10TSL_StatusP11TFE_Context",
    parameters: [
      "pointer", // DLManagedTensor *
      "pointer", // TF_Status *
      "pointer", // TFE_Context *
    ],
    result: "pointer", // TFE_TensorHandle *
  },
  TFE_HandleToDLPack: {
    name:
      "_ZN10tensorflow18TFE_HandleToDLPackEP16TFE_TensorHandleP10TSL_Status",
    parameters: [
      "pointer", // TFE_TensorHandle *
      "pointer", // TF_Status *
    ],
    result: "pointer", // DLManagedTensor *
  },
} as const;

const path = findTensorFlow();
if (path === null) {
  skipped("TensorFlow", "pip install --no-deps tensorflow-cpu");
}

/** Its functions. */
export const tensorflow: Deno.DynamicLibrary<typeof symbols>["symbols"] | null =
  path === null ? null : open(path);

// Its library lies in the package's own folder, with a version in its name.
function findTensorFlow(): string | null {
  const override = Deno.env.get("TENSORFLOW_LIBRARY");
  if (override !== undefined) return override;
  for (const folder of foldersOf("tensorflow")) {
    for (const { name } of Deno.readDirSync(folder)) {
      if (name.startsWith("libtensorflow_cc.")) return `${folder}/${name}`;
    }
  }
  return null;
}

function open(
  path: string,
): Deno.DynamicLibrary<typeof symbols>["symbols"] {
  // Nothing but errors in the log, and no word about its use of oneDNN.
  Deno.env.set("TF_CPP_MIN_LOG_LEVEL", "2");
  Deno.env.set("TF_ENABLE_ONEDNN_OPTS", "0");
  keepLoaded(path);
  return Deno.dlopen(path, symbols).symbols;
}

/**
 * Deno closes a library at the end of the test file. TensorFlow is not made for
 * that: at exit the process would call what is not there any more.
 */
function keepLoaded(path: string): void {
  if (Deno.build.os !== "linux") return;
  const { dlopen } = Deno.dlopen("", {
    dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
  }).symbols;
  dlopen(cString(path), 0x1002); // RTLD_NOW | RTLD_NODELETE
}
