/**
 * Python and the process: which one is found, what is said when there is none,
 * Workers, other bridges, and the end. Each in a process of its own.
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { askPython } from "../examples/python.ts";
import { runScript, type ScriptRun } from "./helpers.ts";
import { skipped } from "./skipped.ts";

/** What the Python of the tests says of itself. */
interface Ours {
  readonly executable: string;
  readonly prefix: string;
  readonly library: string;
}

const ours = findOurs();

function findOurs(): Ours | null {
  try {
    return JSON.parse(askPython(`
import json, numpy, os, sys
from sysconfig import get_config_var as get
paths = [os.path.join(get("LIBDIR"), get(n)) for n in ("INSTSONAME", "LDLIBRARY")]
print(json.dumps({
    "executable": sys.executable, "prefix": sys.prefix,
    "library": [p for p in paths if os.path.isfile(p) and ".so" in p][0],
}))
`));
  } catch (error) {
    skipped(
      `Python in processes of their own (${(error as Error).message})`,
      "pip install 'numpy>=2.1', in a Python that has a shared libpython",
    );
    return null;
  }
}

function processTest(name: string, run: (ours: Ours) => Promise<void>): void {
  const ignore = ours === null || Deno.build.os === "windows";
  Deno.test({ name, ignore, fn: () => run(ours!) });
}

const imports = `
import { fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
import { Python, PythonError, PythonObject } from "@dlpack/deno/python";
`;

/** Runs a script that has all names, and `py`, the Python of the tests. */
function runWithPython(
  script: string,
  env: Record<string, string> = {},
): Promise<ScriptRun> {
  const { executable } = ours!;
  return runScript(
    `${imports}
const py = Python.open({ executable: ${JSON.stringify(executable)} });
${script}`,
    undefined,
    env,
  );
}

/** Runs a script with nothing but these variables. */
function runAlone(
  script: string,
  env: Record<string, string>,
): Promise<ScriptRun> {
  // Where Deno has its caches, which must not be made again for each.
  const cache = ["HOME", "DENO_DIR"].map((name) =>
    [name, Deno.env.get(name)] as const
  );
  const known = Object.fromEntries(cache.filter(([, value]) => value));
  const all = { ...known as Record<string, string>, ...env };
  return runScript(imports + script, undefined, all, true);
}

function assertRun(run: ScriptRun, out: readonly string[]): void {
  assertEquals([run.code, run.out], [0, out], run.err);
  assertEquals(run.err, "");
}

// ---- the end ----------------------------------------------------------------

processTest(
  "At exit Python is finalised, when all tensors are released",
  async () => {
    const run = await runWithPython(`
py.exec(\`
import atexit, numpy as np, sys, weakref
class Owner: pass
owner = Owner()
a = np.zeros(3)
class Base(np.ndarray): pass
b = np.zeros(3).view(Base)
weakref.finalize(b, print, "the array went")
atexit.register(lambda: print("atexit"))
sys.stdout.write("not flushed, ")
\`);
const t = fromDlpack(py.eval("b"));
const object = py.eval("a");
py.exec("del b");
const mine = Tensor.from(new Float32Array(2));
py.set("x", mine);
py.exec("kept = np.from_dlpack(x)");
addEventListener("unload", () => console.log("live", liveTensors().count));
`);
    assertRun(run, ["not flushed, the array went", "atexit", "live 0"]);
  },
);

processTest("After the end everything of Python says so", async () => {
  const run = await runWithPython(`
py.exec("import numpy as np");
const object = py.eval("np.zeros(3)");
addEventListener("unload", () => {
  for (const use of [
    () => py.exec("1"), () => py.eval("1"), () => fromDlpack(object),
    () => String(object), () => py.set("x", Tensor.zeros([1], "int8")),
  ]) {
    try { use(); console.log("no error"); } catch (error) { console.log(error.message.slice(0, 60)); }
  }
  object[Symbol.dispose]();
  console.log(Deno.inspect(object));
});
`);
  const message =
    "Cannot use Python at the end of the program: it was finalise";
  const released =
    "Cannot use a Python object that was disposed: evaluate it ag";
  assertRun(run, [
    message,
    message,
    released,
    released,
    message,
    "PythonObject, disposed",
  ]);
});

processTest("Threads that Python keeps are no trouble at exit", async () => {
  for (const daemon of ["False", "True"]) {
    const run = await runWithPython(`
py.exec(\`
import threading, time
def work():
    for _ in range(50):
        time.sleep(0.01)
    print("done")
threading.Thread(target=work, daemon=${daemon}).start()
\`);
`);
    assertRun(run, daemon === "True" ? [] : ["done"]);
  }
});

processTest(
  "At exit the variables of Python's programs go, so that files are written",
  async () => {
    const path = await Deno.makeTempFile();
    const exit = await runWithPython(`
py.exec(${
      JSON.stringify(`
class Last:
    def __del__(self): print("deleted", flush=True)
last = Last()
file = open(${JSON.stringify(path)}, "w")
file.write("written")
`)
    });`);
    assertEquals([exit.code, exit.out], [0, ["deleted"]], exit.err);
    assertEquals(await Deno.readTextFile(path), "written");
    await Deno.remove(path);
  },
);

processTest("The exit code stays, and an uncaught error", async () => {
  const exit = await runWithPython(`
py.exec("import atexit; atexit.register(lambda: print('atexit'))");
Deno.exit(7);`);
  assertEquals([exit.code, exit.out], [7, ["atexit"]], exit.err);
  const failed = await runWithPython(`
py.exec("raise ValueError('why')");`);
  assertEquals(failed.code, 1);
  assertStringIncludes(failed.err, "PythonError: ValueError: why");
  assertStringIncludes(failed.err, "traceback");
});

// ---- which one --------------------------------------------------------------

const show = `console.log(String(py.eval("__import__('sys').prefix")));`;

processTest(
  "Its packages are the environment's, whatever is on PATH",
  async ({ executable, prefix }) => {
    const { stdout } = await new Deno.Command("getconf", { args: ["PATH"] })
      .output();
    const PATH = new TextDecoder().decode(stdout).trim();
    const named = JSON.stringify(executable);
    const script = `
py.exec("import numpy, sysconfig, ctypes, ssl");
${show}
console.log(String(py.eval("numpy.arange(3)")));
`;
    const out = [prefix, "[0 1 2]"];
    // env -i PATH="$(getconf PATH)": that has a Python of another build.
    assertRun(
      await runAlone(
        `const py = Python.open({ executable: ${named} });${script}`,
        { PATH },
      ),
      out,
    );
    assertRun(
      await runAlone(`const py = Python.open();${script}`, {
        PATH,
        VIRTUAL_ENV: prefix,
      }),
      out,
    );
    assertRun(
      await runAlone(`const py = Python.open();${script}`, {
        PATH,
        DENO_PYTHON_PATH: executable,
      }),
      out,
    );
  },
);

processTest(
  "Text is UTF-8 where no locale says otherwise",
  async ({ prefix }) => {
    const script = `
const py = Python.open();
py.exec("import sys; print('ä 🐍', sys.flags.utf8_mode)");`;
    for (const locale of [{}, { LC_ALL: "C" }, { LANG: "POSIX" }]) {
      const run = await runAlone(script, { VIRTUAL_ENV: prefix, ...locale });
      assertRun(run, ["ä 🐍 1"]);
    }
    const env = { VIRTUAL_ENV: prefix, LC_ALL: "C.UTF-8" };
    assertRun(await runAlone(script, env), ["ä 🐍 0"]);
  },
);

processTest(
  "A shared library is opened with the Python that it is of",
  async ({ executable, library, prefix }) => {
    const open = `const py = Python.open();${show}`;
    // The active environment's, if it is of that library.
    assertRun(
      await runAlone(open, {
        PATH: "/nowhere",
        VIRTUAL_ENV: prefix,
        DENO_PYTHON_PATH: library,
      }),
      [prefix],
    );
    const base = askPython("import sys; print(sys.base_prefix)");
    assertRun(
      await runAlone(open, { PATH: "/nowhere", DENO_PYTHON_PATH: library }),
      [base],
    );
    const both = JSON.stringify({ executable, library });
    assertRun(
      await runAlone(`const py = Python.open(${both});${show}`, {
        PATH: "/nowhere",
      }),
      [prefix],
    );
  },
);

processTest("Without Python, every place that was tried is named", async () => {
  const home = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${home}/bin`);
    for (const name of ["python3", "python"]) {
      await Deno.writeTextFile(
        `${home}/bin/${name}`,
        "#!/bin/sh\necho 'pyenv: no version is set' >&2\nexit 127\n",
        { mode: 0o755 },
      );
    }
    // As on a machine where nobody has installed one.
    const script = `
const { Command } = Deno;
Deno.Command = function (program, options) {
  if (program.startsWith("/")) throw new Deno.errors.NotFound(program);
  return new Command(program, options);
};
try { Python.open() } catch (error) { console.log(error.message) }`;
    const { out } = await runAlone(script, {
      PATH: `${home}/bin`,
      HOME: home,
      DENO_DIR: Deno.env.get("DENO_DIR") ??
        `${Deno.env.get("HOME")}/.cache/deno`,
    });
    for (
      const words of [
        "Cannot find Python: tried python3 on PATH (pyenv: no version is set), " +
        "python on PATH (pyenv: no version is set), ",
        `${home}/miniconda3/bin/python (it is not there)`,
        'Python.open({ executable: ".venv/bin/python" })',
        "DENO_PYTHON_PATH",
      ]
    ) assertStringIncludes(out[0]!, words);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

processTest("What cannot be opened says what it is", async ({ executable }) => {
  const folder = await Deno.makeTempDir();
  const program = async (name: string, text: string): Promise<string> => {
    const path = `${folder}/${name}`;
    await Deno.writeTextFile(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    return path;
  };
  const answer = (changes: Record<string, unknown>): string =>
    `echo '${
      JSON.stringify({
        executable: "/x/python",
        prefix: "/x",
        version: [3, 12],
        implementation: "cpython",
        expected: ["/x/lib/libpython3.12.so.1.0"],
        libraries: [],
        resolved: [],
        wanted: "",
        ...changes,
      })
    }'`;
  const cases: [string, string][] = [
    [`${folder}/none`, "none (it is not there)"],
    [folder, "it is not there"],
    [await program("silent", "exit 3"), "silent (it says nothing)"],
    [
      await program("other", "echo hello"),
      'it says "hello", which is no Python',
    ],
    [
      await program("static", answer({})),
      "/x/python has no shared library: there is no /x/lib/libpython3.12.so.1.0",
    ],
    [
      await program("old", answer({ version: [3, 8] })),
      "is Python 3.8: 3.9 or newer is needed",
    ],
    [
      await program("pypy", answer({ implementation: "pypy" })),
      "is pypy, not CPython",
    ],
    [
      await program("broken", answer({ libraries: ["/x/libpython.so"] })),
      "Cannot open /x/libpython.so",
    ],
  ];
  try {
    const script = cases.map(([path]) =>
      `try { Python.open({ executable: ${
        JSON.stringify(path)
      } }); console.log("opened") } catch (error) { console.log(error.message) }`
    ).join("\n");
    const { out, err } = await runScript(
      imports + script + `
try { Python.open({ library: "/x/libpython3.12.so" }); } catch (error) { console.log(error.message) }
try { Python.open({ library: "/x/lib.so", executable: ${
        JSON.stringify(executable)
      } }); } catch (error) { console.log(error.message) }
try { new PythonObject(8192n); } catch (error) { console.log(error.message) }
`,
    );
    assertEquals(out.length, cases.length + 3, err);
    for (const [index, [, words]] of cases.entries()) {
      assertStringIncludes(out[index]!, words);
    }
    const [library, both, object] = out.slice(-3);
    assertStringIncludes(
      library!,
      "Cannot tell which Python the library /x/libpython3.12.so is of: tried ",
    );
    assertStringIncludes(
      both!,
      "Cannot tell which Python the library /x/lib.so",
    );
    assertStringIncludes(object!, "no Python runs in this process");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

processTest(
  "A PYTHONHOME of another Python is named",
  async ({ executable }) => {
    const PYTHONHOME = await Deno.makeTempDir();
    try {
      const { code, err } = await runScript(
        `${imports}Python.open({ executable: ${JSON.stringify(executable)} });`,
        undefined,
        { PYTHONHOME },
      );
      assertEquals(code, 1);
      assertStringIncludes(err, "No module named 'encodings'");
      assertStringIncludes(err, `PYTHONHOME is ${PYTHONHOME}: unset it`);
    } finally {
      await Deno.remove(PYTHONHOME);
    }
  },
);

processTest("A Python without NumPy says so", async () => {
  const folder = await Deno.makeTempDir();
  try {
    askPython("import sys, venv; venv.create(sys.argv[1])", folder);
    const run = await runScript(`${imports}
const py = Python.open({ executable: "${folder}/bin/python" });
try { py.exec("import numpy"); } catch (error) { console.log(error.type, error.message); }
py.set("x", Tensor.from(new Float32Array([1, 2])));
using x = fromDlpack(py.eval("x"));
console.log(x.toArray());
`);
    assertRun(run, [
      "ModuleNotFoundError ModuleNotFoundError: No module named 'numpy'",
      "[ 1, 2 ]",
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

processTest(
  "A second Python is refused, the same one joined",
  async ({ executable, library, prefix }) => {
    const folder = await Deno.makeTempDir();
    try {
      askPython("import sys, venv; venv.create(sys.argv[1])", folder);
      const run = await runWithPython(`
for (const options of [
  {},
  { executable: ${JSON.stringify(executable)} },
  { library: ${JSON.stringify(library)}, executable: ${
        JSON.stringify(executable)
      } },
  { executable: "${folder}/bin/python" },
]) {
  try { console.log(Python.open(options).executable) } catch (error) { console.log(error.message) }
}
`);
      assertRun(run, [
        executable,
        executable,
        executable,
        `Cannot open Python ${folder}/bin/python: ${executable} (${prefix}) runs ` +
        "in this process already, and a process has one Python",
      ]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

// ---- others in the process --------------------------------------------------

processTest(
  "A Python that another bridge has started is joined",
  async ({ library }) => {
    for (const holdsLock of [true, false]) {
      const run = await runScript(`${imports}
const lib = Deno.dlopen(${JSON.stringify(library)}, {
  Py_Initialize: { parameters: [], result: "void" },
  PyEval_SaveThread: { parameters: [], result: "pointer" },
  PyRun_SimpleString: { parameters: ["buffer"], result: "i32" },
  PyImport_AddModule: { parameters: ["buffer"], result: "pointer" },
  PyObject_GetAttrString: { parameters: ["pointer", "buffer"], result: "pointer" },
  PyGILState_Check: { parameters: [], result: "i32" },
}).symbols;
const c = (text) => new TextEncoder().encode(text + "\\0");
lib.Py_Initialize();
lib.PyRun_SimpleString(c("theirs = [1, 2]; import atexit; atexit.register(print, 'atexit')"));
const handle = lib.PyObject_GetAttrString(lib.PyImport_AddModule(c("__main__")), c("theirs"));
if (${!holdsLock}) lib.PyEval_SaveThread();
const object = new PythonObject(handle);
console.log(String(object));
const py = Python.open();
console.log(String(py.eval("theirs.append(3) or theirs")));
py.set("x", Tensor.from(new Float32Array([1, 2])));
using x = fromDlpack(py.eval("x"));
console.log(x.toArray(), lib.PyGILState_Check());
`);
      // Whoever started it ends it.
      assertRun(run, [
        "[1, 2]",
        "[1, 2, 3]",
        `[ 1, 2 ] ${holdsLock ? 1 : 0}`,
      ]);
    }
  },
);

processTest("A Worker joins Python, but does not start it", async () => {
  const run = await runWithPython(`
py.exec("value = 5");
const url = URL.createObjectURL(new Blob([\`
import { fromDlpack, Tensor } from "@dlpack/deno";
import { Python } from "@dlpack/deno/python";
const py = Python.open();
py.exec("import numpy as np; value += 1");
py.set("w", Tensor.from(new Float32Array([1, 2, 3])));
using t = fromDlpack(py.eval("np.from_dlpack(w) * value"));
for (let i = 0; i < 1000; i++) { using _ = fromDlpack(py.eval("np.arange(3.)")); }
postMessage(t.toArray());
self.close();
\`], { type: "text/javascript" }));
const worker = new Worker(url, { type: "module" });
const answer = new Promise((resolve, reject) => {
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = reject;
});
for (let i = 0; i < 1000; i++) {
  py.exec("import numpy as np; np.arange(3.)");
  if (i % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
}
console.log(await answer);
await new Promise((resolve) => setTimeout(resolve, 20));
console.log(String(py.eval("value")));
// The Worker's memory is gone, this is a copy of it.
console.log(String(py.eval("np.from_dlpack(w).tolist()")));
py.exec("import atexit; atexit.register(print, 'atexit')");
`);
  assertRun(run, ["[ 6, 12, 18 ]", "6", "[1.0, 2.0, 3.0]", "atexit"]);

  const alone = await runScript(`
const url = URL.createObjectURL(new Blob([\`
import { Python } from "@dlpack/deno/python";
try { Python.open(); postMessage("opened") } catch (error) { postMessage(error.message) }
\`], { type: "text/javascript" }));
const worker = new Worker(url, { type: "module" });
worker.onmessage = ({ data }) => { console.log(data); worker.terminate(); };
`);
  assertRun(alone, [
    "Cannot start Python in a Worker, which may end before Python does: call " +
    "Python.open() in the main program first, then the Worker can join",
  ]);
});

processTest(
  "Permissions that are missing are named",
  async ({ executable }) => {
    const open = `${imports}
try { Python.open({ executable: ${JSON.stringify(executable)} }); }
catch (error) { console.log(error.name, error.message.slice(0, 60)); }`;
    const noRun = await runScript(open, ["--allow-ffi", "--allow-env"]);
    assertEquals(noRun.code, 0, noRun.err);
    assertStringIncludes(noRun.out[0]!, "NotCapable");
    assertStringIncludes(noRun.out[0]!, "run access");
    const noFfi = await runScript(open, ["--allow-run", "--allow-env"]);
    assertEquals(noFfi.code, 0, noFfi.err);
    assertStringIncludes(noFfi.out[0]!, "NotCapable");
    assertStringIncludes(noFfi.out[0]!, "full FFI permission");
    const enough = await runScript(open, ["--allow-ffi", "--allow-run"]);
    assertRun(enough, []);
    assert(enough.code === 0);
  },
);
