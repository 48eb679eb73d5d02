// Arrays of NumPy, seen from Deno through libpython: no copy, no bridge.
//
//   pip install numpy          (2.1 or newer)
//   deno run -A examples/numpy.ts
//
// Python is that of the virtual environment .venv, or the first on PATH.

import {
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  fromDlpack,
} from "@dlpack/deno";
import { cString, openPython } from "./python.ts";

const python = openPython({
  Py_DecRef: { parameters: ["pointer"], result: "void" },
  PyRun_SimpleString: { parameters: ["buffer"], result: "i32" },
  PyImport_AddModule: { parameters: ["buffer"], result: "pointer" },
  PyObject_GetAttrString: {
    parameters: ["pointer", "buffer"],
    result: "pointer",
  },
  PyCapsule_GetPointer: {
    parameters: ["pointer", "buffer"],
    result: "pointer",
  },
  PyCapsule_SetName: { parameters: ["pointer", "pointer"], result: "i32" },
});

const versioned = cString("dltensor_versioned");
// A capsule keeps the pointer to its name, so this one stays for good.
const usedName = cString("used_dltensor_versioned").buffer;
const used = Deno.UnsafePointer.of(usedName);

/** The NumPy array that a variable of the Python program holds. */
class NumpyArray implements DlpackExporter {
  constructor(readonly variable: string) {}

  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const maxVersion = literal(request.maxVersion ?? [1, 0]);
    const device = literal(request.dlDevice);
    const copy = literal(request.copy);
    run(
      `capsule = ${this.variable}.__dlpack__(max_version=${maxVersion}, ` +
        `dl_device=${device}, copy=${copy})`,
    );
    const main = python.PyImport_AddModule(cString("__main__"));
    const capsule = python.PyObject_GetAttrString(main, cString("capsule"));
    const struct = python.PyCapsule_GetPointer(capsule, versioned)!;
    python.PyCapsule_SetName(capsule, used);
    python.Py_DecRef(capsule);
    return new DlpackCapsule(struct, "dltensor_versioned");
  }

  __dlpack_device__(): readonly [type: number, id: number] {
    return [1, 0];
  }
}

if (python.PyRun_SimpleString(cString("import numpy")) !== 0) {
  console.error("NumPy cannot be imported: pip install numpy");
  Deno.exit(1);
}
run(`

table = numpy.arange(6, dtype="float32").reshape(2, 3)
rows, columns = numpy.mgrid[0:32, 0:48]
image = numpy.stack([rows * 8, columns * 5, rows + columns], axis=-1).astype("uint8")
`);

// A transposed array is a view with its strides swapped, here as in NumPy.
using transposed = fromDlpack(new NumpyArray("table.T"));
console.log("table.T has strides", transposed.strides);
console.log(transposed);

transposed.set(2, 1, 500);
run("print('NumPy sees', table.tolist(), flush=True)");

// An image: rows x columns x channels.
using image = fromDlpack(new NumpyArray("image"));
console.log("Image of", image.shape, image.dtype);
const red = image.slice(null, null, 0);
console.log("Red, every 8th pixel of both axes:");
console.log(red.slice([null, null, 8], [null, null, 8]));
console.log("Upside down:", red.slice([null, null, -1], [0, 1]).get(0, 0));

// Python may forget an array that Deno still views.
run("shape = image.shape; del image, capsule");
console.log("Deleted in Python, still", image.get(31, 47, 1), "here");

/** Runs Python statements in the module __main__. */
function run(program: string): void {
  if (python.PyRun_SimpleString(cString(program)) !== 0) {
    throw new Error("Python raised the error printed above");
  }
}

/** The value as Python writes it. */
function literal(value?: boolean | readonly number[] | null): string {
  if (value == null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return `(${value.join(", ")})`;
}
