/**
 * Python's arrays in Deno, without a copy: NumPy, PyTorch, JAX and all others that
 * speak DLPack, through the libpython of this very process.
 *
 * ```ts ignore
 * import { fromDlpack, Tensor } from "@dlpack/deno";
 * import { Python } from "@dlpack/deno/python";
 *
 * const py = Python.open();
 * py.exec("import numpy as np");
 * py.set("x", Tensor.from(new Float64Array([1, 2, 3, 4]), [2, 2]));
 * using inverse = py.eval("np.linalg.inv(np.from_dlpack(x))");
 * using y = fromDlpack(inverse);
 * console.log(y);
 * ```
 *
 * It is an exchange of tensors, not a bridge of objects: programs are Python's
 * own text, and only tensors go in and out. It requires full `--allow-ffi`,
 * `--allow-run` for the Python that is asked what it is, and `--allow-env`.
 *
 * Python runs from the first {@linkcode Python.open} to the end of the program,
 * on the main thread. While JavaScript runs, Python's own threads do, too.
 *
 * @module
 */

export { PythonError } from "../../ffi/python/error.ts";
export { PythonObject } from "./object.ts";
export { Python, type PythonOptions, type SetOptions } from "./handle.ts";
