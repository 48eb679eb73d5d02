/** PyTorch and CuPy in this process, where python3 has them. */

import { DlpackCapsule } from "@dlpack/deno";
import { cString, openPython } from "../../examples/python.ts";

const prelude = `
import ctypes, hashlib, time
_api = ctypes.pythonapi
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_names = [b"dltensor_versioned", b"dltensor"]
_used = [b"used_" + name for name in _names]
def give(x):
    capsule = x.__dlpack__(max_version=(1, 3))
    i = 0 if _api.PyCapsule_IsValid(capsule, _names[0]) else 1
    pointer = _api.PyCapsule_GetPointer(capsule, _names[i])
    _api.PyCapsule_SetName(capsule, _used[i])
    return f"{pointer} {_names[i].decode()}"
def taken(pointer, i=0):
    return _api.PyCapsule_New(pointer, _names[i], None)
def best(rounds, run, before=lambda: None):
    least = 1e9
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        made = run()
        least = min(least, time.perf_counter() - start)
        del made
    return least * 1000
def _eval(text):
    global _result
    try: _result = "=" + str(eval(text))
    except Exception as e: _result = f"{type(e).__name__}: {e}".splitlines()[0]
`;

/** The interpreter, started; it stays. */
export class Python {
  readonly #api;

  /** @throws {Error} Where there is none, or it cannot be started. */
  constructor() {
    this.#api = openPython({
      PyRun_SimpleString: { parameters: ["buffer"], result: "i32" },
      PyImport_AddModule: { parameters: ["buffer"], result: "pointer" },
      PyObject_GetAttrString: {
        parameters: ["pointer", "buffer"],
        result: "pointer",
      },
      PyUnicode_AsUTF8: { parameters: ["pointer"], result: "pointer" },
      Py_DecRef: { parameters: ["pointer"], result: "void" },
    });
    this.run(prelude);
  }

  /** Whether a library is here and sees the GPU; it is imported then. */
  has(library: "torch" | "cupy"): boolean {
    const device = library === "torch" ? ", device='cuda'" : "";
    const program = `import ${library}\n${library}.zeros(1${device})`;
    try {
      this.ask(`exec(${JSON.stringify(program)}, globals())`);
      return true;
    } catch {
      return false;
    }
  }

  /** Runs a program; what goes wrong, Python prints. */
  run(code: string): boolean {
    return this.#api.PyRun_SimpleString(cString(code)) === 0;
  }

  /**
   * What an expression is, as text.
   *
   * @throws {Error} What Python raised.
   */
  ask(expression: string): string {
    this.run(`_eval(${JSON.stringify(expression)})`);
    const api = this.#api;
    const main = api.PyImport_AddModule(cString("__main__"));
    const result = api.PyObject_GetAttrString(main, cString("_result"));
    const text = Deno.UnsafePointerView.getCString(
      api.PyUnicode_AsUTF8(result)!,
    );
    api.Py_DecRef(result);
    if (!text.startsWith("=")) throw new Error(text);
    return text.slice(1);
  }

  /** The capsule that an array gives. */
  give(expression: string): DlpackCapsule {
    const [address, name] = this.ask(`give(${expression})`).split(" ");
    return new DlpackCapsule(BigInt(address!), name as "dltensor_versioned");
  }
}
