/**
 * The Python that runs in this process: its start and end, its lock, and the
 * calls that everything else here is made of.
 *
 * Whoever calls into Python holds its lock, from {@linkcode Interpreter.enter} to
 * {@linkcode Interpreter.leave}. Between them JavaScript must not wait for
 * anything. At all other times the lock is free, so that Python's threads run.
 *
 * @module
 */

import { addressOf, addressOfArray, writeAddress } from "../memory.ts";
import { afterExit, type Gate } from "../owner.ts";
import { PythonError } from "./error.ts";
import { cString, openLibpython } from "./library.ts";
import type { PythonSymbols } from "./symbols.ts";
import { alone, isMainThread } from "./threads.ts";

/** `Py_file_input`: how `Py_CompileString` is to read a program. */
const FILE_INPUT = 257;

/** As many programs keep their lines when others are forgotten. */
const MOST_PROGRAMS = 1000;

/** What this module needs of Python, in Python. */
const TOOLS = `
import itertools, sys

def describe(error):
    import traceback
    _cache().update(_programs)
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = kind.__module__ + "." + name
    try:
        message = str(error)
    except Exception:
        message = ""
    lines = traceback.format_exception(kind, error, error.__traceback__)
    parts = name, message.replace("\\0", "\\\\0"), "".join(lines)
    return "\\0".join(parts).encode("utf-8", "backslashreplace")

def text(value):
    return str(value).encode("utf-8", "backslashreplace")

def name(value):
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__.encode()
    return (kind.__module__ + "." + kind.__qualname__).encode()

def about():
    parts = sys.executable or "", sys.prefix, sys.version.split()[0]
    return "\\0".join(parts).encode("utf-8", "backslashreplace")

def pair(values):
    kind, number = values
    kind = getattr(kind, "value", kind)
    # Paddle has no id for the CPU.
    return b"%d,%d" % (kind, 0 if number is None else number)

def same(one, other):
    import os
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False

def join():
    sys._dlpack_deno_joined = True

def end():
    if not hasattr(sys, "_dlpack_deno_joined"):
        return b"alone"
    # Another thread of Deno's may be in the middle of Python: no finalisation.
    import atexit
    atexit._run_exitfuncs()
    for stream in sys.stdout, sys.stderr:
        if stream is not None:
            stream.flush()
    return b""

def begin():
    # Lines come in order with those that Deno prints.
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)

# One for all that have joined.
_count = sys.__dict__.setdefault("_dlpack_deno_count", itertools.count(1))
# By their file names, as linecache has them.
_programs = {}
_latest = None
_enough = 64

def _cache():
    # It takes milliseconds to import, which few programs need; and another
    # thread may be importing it.
    return getattr(sys.modules.get("linecache"), "cache", {})

def remember(program, kind):
    """Gives a program a file name by which tracebacks find its lines."""
    global _latest, _enough
    if _latest is not None and _is_over(_latest):
        _forget(_latest)
    if len(_programs) >= _enough:
        for entry in [entry for entry in _programs.values() if _is_over(entry)]:
            _forget(entry)
        for entry in list(_programs.values())[:-${MOST_PROGRAMS}]:
            _forget(entry)
        _enough = 64 + 2 * len(_programs)
    name = "<%s %d>" % (kind, next(_count))
    _latest = len(program), None, program.splitlines(True), name
    _programs[name] = _cache()[name] = _latest
    return name

def _forget(entry):
    _programs.pop(entry[3], None)
    _cache().pop(entry[3], None)

def _users(entry):
    return sys.getrefcount(entry[3])

# What that says of a name that is only in its entry and a key.
_ALONE = _users((0, None, [], "<%d>" % id(sys))) + 1

def _is_over(entry):
    """Whether no code of a program is left, which would have its name, too."""
    return _users(entry) <= _ALONE + (entry[3] in _cache())

tools = (
    describe, text, name, about, join, end, begin, same,
    pair, remember, compile,
    TypeError, BufferError, None, True, False,
)
`;

/** One interpreter, which runs from its start to the end of the process. */
export class Interpreter implements Gate {
  /** The functions of its C API. */
  readonly py: PythonSymbols;
  /** Its shared library. */
  readonly library: string;
  /** `sys.executable`. */
  readonly executable: string;
  /** `sys.prefix`. */
  readonly prefix: string;
  /** The version: `"3.13.1"`. */
  readonly version: string;
  /** Python's `None`. */
  readonly none: Deno.PointerObject;
  /** Python's `True`. */
  readonly isTrue: Deno.PointerObject;
  /** Python's `False`. */
  readonly isFalse: Deno.PointerObject;
  /** Python's `TypeError`. */
  readonly typeError: Deno.PointerObject;
  /** Python's `BufferError`. */
  readonly bufferError: Deno.PointerObject;
  /**
   * Called, without the lock, when a program has run, and when an object or a
   * tensor of Python's was let go.
   */
  afterwards: ((what: "program" | "release") => void) | null = null;
  /** The thread state of who started it and is to end it; `null`: nobody here. */
  readonly #started: Deno.PointerObject | null;
  readonly #globals: Deno.PointerObject;
  readonly #describe: Deno.PointerObject;
  readonly #text: Deno.PointerObject;
  readonly #name: Deno.PointerObject;
  readonly #end: Deno.PointerObject;
  readonly #same: Deno.PointerObject;
  readonly #pair: Deno.PointerObject;
  readonly #remember: Deno.PointerObject;
  readonly #compile: Deno.PointerObject;
  readonly #modes: Record<"exec" | "eval", Deno.PointerObject>;
  #isOver = false;
  /** Of the {@linkcode Gate} that was entered last, and of those around it. */
  #state = -1;
  readonly #outerStates: number[] = [];
  readonly #lastActions: (() => void)[] = [];

  /**
   * Joins or starts the interpreter of a shared library. The lock is held when
   * this begins, unless the caller is to get a state of its own.
   */
  constructor(py: PythonSymbols, library: string, isOurs: boolean) {
    this.py = py;
    this.library = library;
    // Of a thread that has the lock all the time, this changes nothing.
    const isHeld = py.PyGILState_Check() === 1;
    if (!isHeld) py.PyGILState_Ensure(); // and the thread keeps its state
    const main = py.PyImport_AddModule(cString("__main__"))!;
    this.#globals = py.PyModule_GetDict(main)!;
    py.Py_IncRef(this.#globals);
    const tools = this.moduleOf(TOOLS, "tools");
    const at = (index: number): Deno.PointerObject => {
      const tool = py.PyTuple_GetItem(tools, BigInt(index))!;
      py.Py_IncRef(tool);
      return tool;
    };
    this.#describe = at(0);
    this.#text = at(1);
    this.#name = at(2);
    this.#end = at(5);
    this.#same = at(7);
    this.#pair = at(8);
    this.#remember = at(9);
    this.#compile = at(10);
    this.#modes = { exec: this.name("exec"), eval: this.name("eval") };
    this.typeError = at(11);
    this.bufferError = at(12);
    this.none = at(13);
    this.isTrue = at(14);
    this.isFalse = at(15);
    const [executable, prefix, version] = this.#decode(this.call(at(3)))
      .split("\0");
    this.executable = executable!;
    this.prefix = prefix!;
    this.version = version!;
    py.Py_DecRef(this.call(isOurs ? at(6) : at(4)));
    py.Py_DecRef(tools);
    const state = isOurs || !isHeld ? py.PyEval_SaveThread() : null;
    // Another thread ends before the process does: in `deno test`, that of a file,
    // and the next file needs Python again.
    this.#started = isOurs && isMainThread() ? state : null;
    afterExit(() => this.#finalise());
  }

  /** Runs a program of ours in a place of its own, and takes a variable out of it. */
  moduleOf(program: string, variable: string): Deno.PointerObject {
    const { py } = this;
    const globals = py.PyDict_New()!;
    const builtins = cString("__builtins__");
    py.PyDict_SetItemString(globals, builtins, py.PyEval_GetBuiltins()!);
    const file = cString("<@dlpack/deno>");
    const code = py.Py_CompileString(cString(program), file, FILE_INPUT);
    if (code === null) throw this.error();
    py.Py_DecRef(this.#evaluate(code, globals));
    const object = py.PyDict_GetItemString(globals, cString(variable))!;
    py.Py_IncRef(object);
    py.Py_DecRef(globals);
    return object;
  }

  /** Does something at exit, with the lock held, before the end of Python. */
  beforeEnd(action: () => void): void {
    this.#lastActions.push(action);
  }

  /** Whether it was finalised: nothing of it may be called then. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /**
   * Takes the lock.
   *
   * @returns What {@linkcode leave} takes.
   * @throws {Error} When the program is ending.
   */
  take(): number {
    if (this.#isOver) {
      throw new Error(
        "Cannot use Python at the end of the program: it was finalised",
      );
    }
    return this.py.PyGILState_Ensure();
  }

  /** Gives the lock back. */
  give(state: number): void {
    this.py.PyGILState_Release(state);
  }

  /** Does something with the lock held. */
  within<T>(action: () => T): T {
    const state = this.take();
    try {
      return action();
    } finally {
      this.give(state);
    }
  }

  /** Before a deleter of Python's: takes the lock. */
  enter(): boolean {
    if (this.#isOver) return false;
    if (this.#state !== -1) this.#outerStates.push(this.#state);
    this.#state = this.py.PyGILState_Ensure();
    return true;
  }

  /** After a deleter of Python's: reports what it raised. */
  leave(): void {
    const { py } = this;
    if (py.PyErr_Occurred() !== null) py.PyErr_WriteUnraisable(null);
    const state = this.#state;
    this.#state = this.#outerStates.length === 0
      ? -1
      : this.#outerStates.pop()!;
    py.PyGILState_Release(state);
  }

  /** Of a deleter that somebody else is to call. */
  moved(): void {}

  /** Runs a program in the module `__main__`: tracebacks show its lines. */
  run(program: string, kind: "exec" | "eval"): Deno.PointerObject {
    const { py } = this;
    const source = this.string(program);
    const mode = this.#modes[kind];
    const file = this.call(this.#remember, source, mode);
    try {
      // Not with what a program that is running has imported from __future__.
      const args = [source, file, mode, this.isFalse, this.isTrue];
      const code = this.call(this.#compile, ...args);
      return this.#evaluate(code, this.#globals);
    } finally {
      py.Py_DecRef(source);
      py.Py_DecRef(file);
    }
  }

  /** Runs code, which is let go, with these globals. */
  #evaluate(
    code: Deno.PointerObject,
    globals: Deno.PointerObject,
  ): Deno.PointerObject {
    const { py } = this;
    const result = py.PyEval_EvalCode(code, globals, globals);
    py.Py_DecRef(code);
    if (result === null) throw this.error();
    return result;
  }

  /** Binds a variable of the module `__main__`. */
  setVariable(name: string, object: Deno.PointerObject): void {
    const { py } = this;
    if (py.PyDict_SetItemString(this.#globals, cString(name), object) !== 0) {
      throw this.error();
    }
  }

  /** Calls a function; the result is a new reference. */
  call(
    callable: Deno.PointerObject,
    ...args: readonly Deno.PointerObject[]
  ): Deno.PointerObject {
    const { py } = this;
    for (const argument of args) py.Py_IncRef(argument);
    const tuple = this.tuple(...args);
    const result = py.PyObject_Call(callable, tuple, null);
    py.Py_DecRef(tuple);
    if (result === null) throw this.error();
    return result;
  }

  /** Python's `str` of an object. */
  textOf(object: Deno.PointerObject): string {
    return this.#decode(this.call(this.#text, object));
  }

  /** The name of an object's type, or of the type that it is. */
  nameOf(object: Deno.PointerObject): string {
    return this.#decode(this.call(this.#name, object));
  }

  /** What a pair of integers is. */
  pairOf(object: Deno.PointerObject): [number, number] {
    const [first, second] = this.#decode(this.call(this.#pair, object))
      .split(",").map(Number);
    return [first!, second!];
  }

  /** Whether two paths are those of one file or folder. */
  isSameFile(one: string, other: string): boolean {
    return this.within(() => {
      const args = [this.string(one), this.string(other)];
      const result = this.call(this.#same, ...args);
      for (const object of [...args, result]) this.py.Py_DecRef(object);
      return addressOf(result) === addressOf(this.isTrue);
    });
  }

  /** An integer as Python's. */
  integer(value: number | bigint): Deno.PointerObject {
    const { py } = this;
    const integer = BigInt(value);
    return integer < 0n
      ? py.PyLong_FromLongLong(integer)!
      : py.PyLong_FromUnsignedLongLong(integer)!;
  }

  /** A tuple of objects, whose references it takes over. */
  tuple(...items: readonly Deno.PointerObject[]): Deno.PointerObject {
    const { py } = this;
    const tuple = py.PyTuple_New(BigInt(items.length))!;
    for (const [index, item] of items.entries()) {
      py.PyTuple_SetItem(tuple, BigInt(index), item);
    }
    return tuple;
  }

  /** Text as Python's. */
  string(text: string): Deno.PointerObject {
    return this.py.PyUnicode_FromString(cString(text))!;
  }

  /** A name as Python has it: one string for all that say it, which is found sooner. */
  name(name: string): Deno.PointerObject {
    return this.py.PyUnicode_InternFromString(cString(name))!;
  }

  /** What is in an object of `bytes`, which is let go. */
  bytesOf(object: Deno.PointerObject): Uint8Array<ArrayBuffer> {
    const { py } = this;
    const bytes = new Uint8Array(Number(py.PyBytes_Size(object)));
    const start = py.PyBytes_AsString(object);
    if (start !== null) Deno.UnsafePointerView.copyInto(start, bytes);
    py.Py_DecRef(object);
    return bytes;
  }

  #decode(object: Deno.PointerObject): string {
    return new TextDecoder().decode(this.bytesOf(object));
  }

  /** What Python has raised, which is then over. */
  error(): PythonError {
    const exception = this.#raised();
    if (exception === null) {
      const message = "a function failed without an exception";
      return new PythonError({ type: "SystemError", message, traceback: "" });
    }
    const described = this.#describe as Deno.PointerObject | undefined;
    let parts: string[] = [];
    if (described !== undefined) {
      try {
        parts = this.#decode(this.call(described, exception)).split("\0");
      } catch {
        // An exception that cannot be described.
      }
    }
    this.py.Py_DecRef(exception);
    const [type = "Exception", message = "", traceback = ""] = parts;
    return new PythonError({ type, message, traceback });
  }

  #raised(): Deno.PointerObject | null {
    const { py } = this;
    if (py.PyErr_Occurred() === null) return null;
    if (py.PyErr_GetRaisedException !== null) {
      return py.PyErr_GetRaisedException();
    }
    // Type, value and traceback.
    const parts = new BigUint64Array(3);
    const start = addressOfArray(parts);
    const addresses = [start, start + 8n, start + 16n] as const;
    py.PyErr_Fetch!(...addresses);
    py.PyErr_NormalizeException!(...addresses);
    const [type, value, traceback] = [...parts].map((address) =>
      Deno.UnsafePointer.create(address)
    );
    if (traceback) {
      py.PyException_SetTraceback(value!, traceback);
      py.Py_DecRef(traceback);
    }
    if (type) py.Py_DecRef(type);
    return value ?? null;
  }

  /** At exit, when all tensors are released. */
  #finalise(): void {
    try {
      const isAlone = this.within(() => {
        for (const action of this.#lastActions) action();
        return this.#started !== null &&
          this.#decode(this.call(this.#end)) === "alone";
      });
      this.#isOver = true;
      if (this.#started === null || !isAlone) return;
      this.py.PyEval_RestoreThread(this.#started);
      // Or else its variables would stay: files that nobody closed, unwritten.
      this.py.Py_DecRef(this.#globals);
      this.py.Py_FinalizeEx();
    } catch (error) {
      console.error("The end of Python threw:", error);
    } finally {
      this.#isOver = true;
    }
  }
}

/** The one that runs, once this module has started or joined it. */
let running: Interpreter | null = null;

/** The interpreter that this module has started or joined, if any. */
export function runningInterpreter(): Interpreter | null {
  return running;
}

/**
 * Joins the interpreter of a shared library, if it runs.
 *
 * @returns `null` when it does not.
 */
export function joinInterpreter(library: string): Interpreter | null {
  const py = openLibpython(library);
  return running = alone(() =>
    py.Py_IsInitialized() === 0 ? null : new Interpreter(py, library, false)
  );
}

/**
 * Starts the interpreter of a shared library, or joins it if it runs.
 *
 * @param library The path of libpython.
 * @param executable Which program it is: Python finds its own files, and those of
 * a virtual environment, from there.
 * @param isUtf8 Whether all text is UTF-8, whatever the locale.
 */
export function startInterpreter(
  library: string,
  executable: string,
  isUtf8: boolean,
): Interpreter {
  const py = openLibpython(library);
  return running = alone(() => {
    if (py.Py_IsInitialized() !== 0) return new Interpreter(py, library, false);
    if (py.PyInitConfig_Create !== null) initialise(py, executable, isUtf8);
    else {
      if (isUtf8 && py.Py_UTF8Mode !== null) {
        writeAddress(addressOf(py.Py_UTF8Mode), Uint8Array.of(1, 0, 0, 0), 4n);
      }
      const name = py.Py_DecodeLocale(cString(executable), null);
      py.Py_SetProgramName!(name);
      py.Py_InitializeEx(0);
    }
    return new Interpreter(py, library, true);
  });
}

/** As `Py_InitializeEx(0)` of older Pythons does, where that takes no program name. */
const settings: readonly (readonly [name: string, value: bigint])[] = [
  ["isolated", 0n],
  ["configure_locale", 1n],
  ["use_environment", 1n],
  ["user_site_directory", 1n],
  ["site_import", 1n],
  ["install_signal_handlers", 0n],
  ["parse_argv", 0n],
];

function initialise(
  py: PythonSymbols,
  executable: string,
  isUtf8: boolean,
): void {
  const config = py.PyInitConfig_Create!();
  const all = isUtf8 ? [...settings, ["utf8_mode", 1n] as const] : settings;
  try {
    const isDone = all.every(([name, value]) =>
      py.PyInitConfig_SetInt!(config, cString(name), value) === 0
    ) &&
      py.PyInitConfig_SetStr!(
          config,
          cString("program_name"),
          cString(executable),
        ) === 0 &&
      py.Py_InitializeFromInitConfig!(config) === 0;
    if (isDone) {
      return;
    }
    const message = new BigUint64Array(1);
    py.PyInitConfig_GetError!(config, message);
    const text = Deno.UnsafePointer.create(message[0]!);
    const reason = text === null
      ? "it does not say why"
      : Deno.UnsafePointerView.getCString(text);
    throw new Error(`Cannot start Python ${executable}: ${reason}`);
  } finally {
    py.PyInitConfig_Free!(config);
  }
}
