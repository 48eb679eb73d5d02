import { runtimeOf } from "../../ffi/devices/registry.ts";
import { requirePermission } from "../../ffi/libc.ts";
import { exchangeOfType } from "../../ffi/python/exchange.ts";
import { giveAs, giveTensor } from "../../ffi/python/give.ts";
import {
  type Interpreter,
  runningInterpreter,
  startInterpreter,
} from "../../ffi/python/interpreter.ts";
import { Reference } from "../../ffi/python/reference.ts";
import { VERSION } from "../../ffi/abi.ts";
import {
  adopt,
  consume,
  DlpackCapsule,
  type DlpackExporter,
  isOfOtherCopy,
  isWritable,
  ownerIn,
  streamOf,
} from "../capsule.ts";
import { isHost } from "../device.ts";
import { describeDataType, dtypeByCode } from "../dtype/table.ts";
import { checkOptions, describe } from "../errors.ts";
import { describeShape } from "../layout.ts";
import { checkStruct } from "../struct/check.ts";
import { memoryOf } from "../struct/memory.ts";
import { specToLend } from "../struct/make.ts";
import { runSteps } from "../transfer/steps.ts";
import { synchronize } from "../transfer/to_host.ts";
import { findPython, isUtf8, type Wanted } from "./find.ts";
import { joinPython } from "./join.ts";
import { objectOf, PythonObject, referenceOf } from "./object.ts";

/** Which Python {@linkcode Python.open} is to open. */
export interface PythonOptions {
  /**
   * The program: `".venv/bin/python"` for a virtual environment. Default: what
   * the environment says, else the first `python3` on PATH.
   */
  executable?: string;
  /** Its shared library: `"/usr/lib/libpython3.13.so"`. Default: the program's own. */
  library?: string;
}

/** What a tensor becomes in Python. */
export interface SetOptions {
  /**
   * A type with DLPack's C exchange API, such as `torch.Tensor`, or a function
   * that takes an array, such as `numpy.from_dlpack`: the variable gets what it
   * makes of the tensor. Default: an object with `__dlpack__`,
   * `__dlpack_device__`, and `__array__` for NumPy's functions.
   */
  as?: PythonObject;
}

/** Only this file makes handles. */
const KEY = Symbol("Python.open()");

/**
 * A handle to the Python in this process. Programs run in its module `__main__`,
 * one for all handles.
 *
 * @example Invert a matrix
 * ```ts ignore
 * import { fromDlpack, Tensor } from "@dlpack/deno";
 * import { Python } from "@dlpack/deno/python";
 *
 * using py = Python.open({ executable: ".venv/bin/python" });
 * py.exec("import numpy as np");
 * py.set("x", Tensor.from(new Float64Array([1, 2, 3, 4]), [2, 2]));
 * using inverse = py.eval("np.linalg.inv(np.from_dlpack(x))");
 * using y = fromDlpack(inverse);
 * console.log(y.toArray()); // [[-2, 1], [1.5, -0.5]]
 * ```
 */
export class Python implements Disposable {
  readonly #interpreter: Interpreter;
  #isOpen = true;

  /** @ignore */
  private constructor(key: symbol, interpreter: Interpreter) {
    if (key !== KEY) {
      throw new TypeError("Cannot construct a Python: use Python.open()");
    }
    this.#interpreter = interpreter;
  }

  /**
   * Opens the Python of this process: joins the one that runs, whoever started
   * it, or starts one, which then runs to the end of the program.
   *
   * It is, in this order: the one that the options name; that of
   * `DENO_PYTHON_PATH` (its shared library, as for `@denosaurs/python`, or its
   * program); that of the active virtual environment (`VIRTUAL_ENV`,
   * `CONDA_PREFIX`); the first `python3` on PATH; and where installers put it.
   * Python finds its own files, and the environment's packages, from that program.
   *
   * @param options Which Python.
   * @returns A handle.
   * @throws {Error} When there is no Python, or it cannot run here: with every
   * place that was tried, and what Python said; when another Python runs
   * already; or in a Worker, where Python can be joined but not started.
   * @throws {TypeError} When an option is of the wrong kind.
   * @throws {Deno.errors.NotCapable} Without full `--allow-ffi`, or `--allow-run`.
   */
  static open(options: PythonOptions = {}): Python {
    checkOptions("Python.open()", options);
    const executable = checkPath("executable", options.executable);
    const library = checkPath("library", options.library);
    const wanted = { executable, library };
    requirePermission();
    const running = runningInterpreter() ?? joinPython();
    if (running !== null) {
      checkSame(running, wanted);
      return new Python(KEY, running);
    }
    if (isInWorker()) {
      throw new Error(
        "Cannot start Python in a Worker, which may end before Python does: call " +
          "Python.open() in the main program first, then the Worker can join",
      );
    }
    const found = findPython(wanted);
    const { library: path, executable: program } = found;
    return new Python(KEY, startInterpreter(path, program, isUtf8()));
  }

  /** The program that Python takes itself for: `sys.executable`. */
  get executable(): string {
    return this.#interpreter.executable;
  }

  /** The version of Python: `"3.13.1"`. */
  get version(): string {
    return this.#interpreter.version;
  }

  /**
   * Runs a program. What it defines stays: the next one has it.
   *
   * @param program Statements. Indentation that all lines have is taken away.
   * @throws {PythonError} When Python raises an exception.
   * @throws {TypeError} When it is no text, or has a NUL in it.
   * @throws {Deno.errors.BadResource} When this handle was disposed.
   */
  exec(program: string): void {
    const interpreter = this.#open("run a program");
    const text = dedent(checkText("program", program));
    try {
      interpreter.within(() => {
        interpreter.py.Py_DecRef(interpreter.run(text, "exec"));
      });
    } finally {
      interpreter.afterwards?.("program");
    }
  }

  /**
   * Evaluates an expression.
   *
   * @param expression An expression.
   * @returns Its value.
   * @throws {PythonError} When Python raises an exception.
   * @throws {TypeError} When it is no text, or has a NUL in it.
   * @throws {Deno.errors.BadResource} When this handle was disposed.
   */
  eval(expression: string): PythonObject {
    const interpreter = this.#open("evaluate an expression");
    const text = checkText("expression", expression).trim();
    try {
      return objectOf(
        interpreter.within(() =>
          new Reference(interpreter, interpreter.run(text, "eval"))
        ),
      );
    } finally {
      interpreter.afterwards?.("program");
    }
  }

  /**
   * Binds a variable to a tensor, which is shared and not copied: Python sees an
   * object that all libraries take which speak DLPack.
   *
   * The memory stays until Python has forgotten the object and all arrays made
   * of it. That is noticed at the next call of this module into Python, or when
   * garbage is collected. Python may use the tensor in any of its threads. A
   * capsule is consumed. In a Worker, whose memory ends when it does, the
   * variable gets a copy of a tensor.
   *
   * @param name The variable.
   * @param tensor A tensor, a capsule, or an object of Python's.
   * @param options What it is to become.
   * @throws {TypeError} When the name is none, or the value no tensor.
   * @throws {BufferError} When the tensor cannot be exported.
   * @throws {PythonError} When Python raises an exception.
   * @throws {Deno.errors.BadResource} When this handle was disposed.
   *
   * @example As a tensor of PyTorch's
   * ```ts ignore
   * import { Tensor } from "@dlpack/deno";
   * import { Python } from "@dlpack/deno/python";
   *
   * const py = Python.open();
   * py.exec("import torch");
   * const x = Tensor.zeros([2, 2], "float32");
   * py.set("x", x, { as: py.eval("torch.Tensor") });
   * py.exec("x += 1");
   * console.log(x.get(0, 0)); // 1
   * ```
   */
  set(name: string, tensor: DlpackExporter, options: SetOptions = {}): void {
    const interpreter = this.#open("set a variable");
    checkName(name);
    checkOptions("set()", options);
    const { as } = options;
    if (as !== undefined && !(as instanceof PythonObject)) {
      throw new TypeError(
        `The option "as" must be a PythonObject, not ${describe(as)}: pass ` +
          'py.eval("numpy.from_dlpack")',
      );
    }
    const capsule = tensor instanceof PythonObject ? null : exportOf(tensor);
    try {
      interpreter.within(() => {
        const { py } = interpreter;
        using held = new DisposableStack();
        const own = (object: Deno.PointerObject): Deno.PointerObject =>
          held.adopt(object, (object) => py.Py_DecRef(object));
        let object = capsule === null
          ? referenceOf(tensor as PythonObject).pointer
          : own(give(interpreter, capsule));
        if (as !== undefined) {
          const { pointer } = referenceOf(as);
          const exchange = exchangeOfType(interpreter, pointer);
          object = own(
            capsule === null || exchange === null
              ? interpreter.call(pointer, object)
              : giveAs(exchange, object),
          );
        }
        interpreter.setVariable(name, object);
      });
    } catch (error) {
      // One that was made here is given back, another stays the caller's.
      if (capsule !== tensor) capsule?.[Symbol.dispose]();
      throw error;
    } finally {
      interpreter.afterwards?.("program");
    }
  }

  /** Drops this handle. Python stays, and what it holds. Idempotent. */
  [Symbol.dispose](): void {
    this.#isOpen = false;
  }

  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    const state = this.#isOpen ? "" : ", disposed";
    return `Python ${this.version} ${this.executable}${state}`;
  }

  #open(action: string): Interpreter {
    if (this.#isOpen) return this.#interpreter;
    throw new Deno.errors.BadResource(
      `Cannot ${action}: the handle was disposed, call Python.open() again`,
    );
  }
}

/** Checks that the Python that runs is the one that is wanted. */
function checkSame(running: Interpreter, wanted: Wanted): void {
  if (wanted.executable === undefined && wanted.library === undefined) return;
  const { executable, library, prefix } = findPython(wanted);
  if (
    running.isSameFile(prefix, running.prefix) &&
    running.isSameFile(library, running.library)
  ) return;
  throw new Error(
    `Cannot open Python ${executable}: ${running.executable} (${running.prefix}) ` +
      "runs in this process already, and a process has one Python",
  );
}

function isInWorker(): boolean {
  return "WorkerGlobalScope" in globalThis &&
    // deno-lint-ignore no-explicit-any
    globalThis instanceof (globalThis as any).WorkerGlobalScope;
}

/** A tensor in a capsule of the newest version. */
function exportOf(tensor: unknown): DlpackCapsule {
  const exporter = tensor as Partial<DlpackExporter> | null | undefined;
  if (typeof exporter?.__dlpack__ !== "function") {
    throw new TypeError(
      `Cannot set a variable to ${describe(tensor)}: pass a Tensor, a ` +
        "DlpackCapsule or a PythonObject; numbers and text are written into " +
        "the program, and a typed array becomes a tensor by Tensor.from()",
    );
  }
  // A Worker may end at any time, and its memory with it: native memory stays.
  const copy = isInWorker() && !(tensor instanceof DlpackCapsule) ? true : null;
  const capsule: unknown = exporter.__dlpack__({ maxVersion: VERSION, copy });
  if (capsule instanceof DlpackCapsule) return capsule;
  if (isOfOtherCopy(capsule, "capsule")) return adopt(capsule);
  throw new TypeError(
    "Cannot set a variable: __dlpack__() must return a DlpackCapsule, not " +
      describe(capsule),
  );
}

/** An object of Python's over the memory of a capsule, which is consumed. */
function give(
  interpreter: Interpreter,
  capsule: DlpackCapsule,
): Deno.PointerObject {
  const owner = ownerIn(capsule);
  const { name } = owner;
  const { spec, bytes } = specToLend(owner.peek(), name);
  const readOnly = name === "dltensor" ? !isWritable(capsule) : spec.readOnly;
  const { code, bits, lanes, shape, device: [deviceType] } = spec;
  const info = lanes === 1 ? dtypeByCode(code, bits) : undefined;
  const dtype = info?.name ?? describeDataType(code, bits, lanes);
  if (!isHost(deviceType)) {
    // Consumers order their streams after nothing, so nothing may be left to do.
    const runtime = runtimeOf(deviceType);
    const struct = checkStruct(owner.peek(), name, true);
    const memory = memoryOf(struct, streamOf(capsule), "read");
    if (runtime !== undefined) runSteps(synchronize(runtime, memory));
  }
  owner.checkUnused();
  return giveTensor(interpreter, consume(capsule), {
    spec: { ...spec, readOnly },
    bytes,
    text: `${dtype} ${describeShape(shape)}`,
  });
}

function checkPath(name: string, path: unknown): string | undefined {
  if (path === undefined || typeof path === "string" && path !== "") {
    return path;
  }
  throw new TypeError(
    `The option "${name}" must be a path, not ${describe(path)}`,
  );
}

function checkText(what: string, text: unknown): string {
  if (typeof text !== "string") {
    throw new TypeError(`The ${what} must be text, not ${describe(text)}`);
  }
  if (text.includes("\0")) {
    throw new TypeError(`The ${what} must not have a NUL in it`);
  }
  if (!text.isWellFormed()) {
    throw new TypeError(
      `The ${what} must not have half of a surrogate pair in it, which Python ` +
        "takes in no program",
    );
  }
  return text;
}

function checkName(name: unknown): void {
  if (
    typeof name === "string" && /^[\p{ID_Start}_]\p{ID_Continue}*$/u.test(name)
  ) return;
  throw new TypeError(
    `Cannot set the variable ${describe(name)}: it is no name in Python`,
  );
}

/** Takes the indentation of the first line away from all lines that have it. */
function dedent(program: string): string {
  const lines = program.split("\n");
  let common: string | null = null;
  for (const line of lines) {
    if (line.trim() === "") continue;
    const [own] = /^[ \t]*/.exec(line)!;
    common ??= own;
    while (!own.startsWith(common)) common = common.slice(0, -1);
  }
  const length = common?.length ?? 0;
  return lines.map((line) => line.slice(length)).join("\n");
}
