import { runningInterpreter } from "../../ffi/python/interpreter.ts";
import { Reference, referenceTo } from "../../ffi/python/reference.ts";
import { deviceOfObject, takeTensor } from "../../ffi/python/take.ts";
import {
  capsuleOf,
  type DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
} from "../capsule.ts";
import { joinPython } from "./join.ts";

let referenceIn: (object: PythonObject) => Reference;

/**
 * An object of Python's: what {@linkcode Python.eval} gives. If it has
 * `__dlpack__`, as arrays have, {@linkcode fromDlpack} takes it.
 *
 * It owns one reference, until it is disposed or garbage. Tensors that were made
 * of it keep the array by themselves.
 *
 * @example An array, and what is no array
 * ```ts ignore
 * import { fromDlpack } from "@dlpack/deno";
 * import { Python } from "@dlpack/deno/python";
 *
 * const py = Python.open();
 * py.exec("import numpy as np");
 * using eye = py.eval("np.eye(3)"); // keeps the array, as x does
 * using x = fromDlpack(eye, { dtype: "float64" });
 * console.log(x.get(1, 1)); // 1
 *
 * console.log(`NumPy ${py.eval("np.__version__")}`);
 * ```
 */
export class PythonObject implements DlpackExporter, Disposable {
  readonly #reference: Reference;

  static {
    referenceIn = (object) => object.#reference;
  }

  /**
   * Takes an object of another bridge to Python, such as the `handle` of a
   * `PyObject` of `@denosaurs/python`: its reference stays the bridge's own, and
   * this has another.
   *
   * @param handle The `PyObject*`, or its address.
   * @throws {TypeError} When it is no pointer of an object.
   * @throws {Error} When no Python runs in this process.
   */
  constructor(handle: Deno.PointerValue | bigint) {
    if ((handle as unknown) instanceof Reference) {
      this.#reference = handle as unknown as Reference; // of objectOf()
      return;
    }
    const interpreter = runningInterpreter() ?? joinPython();
    if (interpreter === null) {
      throw new Error(
        "Cannot take an object of Python: no Python runs in this process, call " +
          "Python.open() first",
      );
    }
    this.#reference = referenceTo(interpreter, handle);
  }

  /**
   * Asks the object for its tensor: calls its `__dlpack__`, with the keywords
   * that it knows. If its type has DLPack's C exchange API, as PyTorch's has,
   * that is used instead.
   *
   * A producer that cannot copy, or an older one that knows no keywords, gives
   * what it has, where it is: {@linkcode fromDlpack} then copies what is to be a
   * copy.
   *
   * @param request What the consumer understands and wants.
   * @returns A capsule of the struct. Its deleter is called with Python's lock
   * held.
   * @throws {TypeError} When the object has no `__dlpack__`.
   * @throws {BufferError} When Python raises `BufferError`: the array cannot be
   * exchanged. The code is read from Python's words; the cause is the
   * {@linkcode PythonError}. `"released"` when the object was disposed.
   * @throws {PythonError} When Python raises something else.
   */
  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const { owner, stream } = takeTensor(this.#reference, request);
    return capsuleOf(owner, stream === null ? undefined : { stream });
  }

  /**
   * Where the object says that its memory is.
   *
   * @returns A `DLDeviceType` and an id.
   * @throws {TypeError} When the object has no `__dlpack_device__`.
   * @throws {BufferError} `"released"` when the object was disposed.
   */
  __dlpack_device__(): readonly [type: number, id: number] {
    return deviceOfObject(this.#reference);
  }

  /**
   * Python's `str` of the object.
   *
   * @returns The text.
   * @throws {PythonError} When Python raises an exception.
   * @throws {BufferError} `"released"` when the object was disposed.
   */
  toString(): string {
    const { interpreter, pointer } = this.#reference;
    return interpreter.within(() => interpreter.textOf(pointer));
  }

  /** Lets go of the object. Idempotent. */
  [Symbol.dispose](): void {
    this.#reference.release();
  }

  /** What `console.log` shows: the type, and Python's `str`. */
  [Symbol.for("Deno.customInspect")](): string {
    const { interpreter, isThere } = this.#reference;
    if (!isThere) return "PythonObject, disposed";
    if (interpreter.isOver) return "PythonObject, of a Python that is over";
    const { pointer } = this.#reference;
    try {
      return interpreter.within(() => {
        const name = interpreter.nameOf(pointer);
        const text = interpreter.textOf(pointer);
        return `PythonObject ${name}${text.includes("\n") ? "\n" : " "}${text}`;
      });
    } catch {
      return "PythonObject that has no text";
    }
  }
}

/** For other files of this module: the reference that an object owns. */
export function referenceOf(object: PythonObject): Reference {
  return referenceIn(object);
}

/** For other files of this module: an object that owns a reference. */
export function objectOf(reference: Reference): PythonObject {
  return new PythonObject(reference as never);
}
