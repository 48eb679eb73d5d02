/** Python in this process: tensors in and out, and all that can go wrong. */

import { DlpackCapsule, fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
import { Python, PythonError, PythonObject } from "@dlpack/deno/python";
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { pythonPath } from "../examples/python.ts";
import {
  assertBufferError,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  testBothPaths,
} from "./helpers.ts";
import { skipped } from "./skipped.ts";

const python = openPython();

/** The Python of the tests, in which NumPy is imported. */
function openPython(): Python | null {
  try {
    const python = Python.open({ executable: pythonPath() });
    python.exec(`
      import ctypes, gc, json, sys, threading
      import numpy as np
      assert np.lib.NumpyVersion(np.__version__) >= "2.1.0", np.__version__
    `);
    return python;
  } catch (error) {
    skipped(
      `Python in this process (${(error as Error).message})`,
      "pip install 'numpy>=2.1', in a Python that has a shared libpython",
    );
    return null;
  }
}

/** A test of what Python does. */
function pythonTest(
  name: string,
  run: (py: Python) => void | Promise<void>,
): void {
  Deno.test({ name, ignore: python === null, fn: () => run(python!) });
}

/** The same, on the fast path and on the portable one. */
function pythonTestBothPaths(
  name: string,
  run: (py: Python) => void | Promise<void>,
): void {
  if (python === null) return;
  testBothPaths(name, () => run(python));
}

/** What an expression gives, by way of JSON. */
function evaluate(expression: string): unknown {
  using json = python!.eval(`json.dumps(${expression})`);
  return JSON.parse(String(json));
}

/** The tensor of an expression. */
function tensorOf(expression: string): Tensor {
  using object = python!.eval(expression);
  return fromDlpack(object);
}

// ---- there and back ---------------------------------------------------------

pythonTestBothPaths(
  "A matrix is inverted by NumPy, and nothing stays",
  (py) => {
    const before = liveTensors();
    py.set("x", Tensor.from(new Float64Array([1, 2, 3, 4]), [2, 2]));
    {
      using y = tensorOf("np.linalg.inv(np.from_dlpack(x))");
      assertEquals([...y.data].map((value) => Math.round(Number(value) * 2)), [
        -4,
        2,
        3,
        -1,
      ]);
    }
    py.exec("del x");
    assertEquals(liveTensors(), before);
  },
);

pythonTestBothPaths("Both sides write to one memory", (py) => {
  py.exec("a = np.arange(6, dtype='float32').reshape(2, 3)");
  using a = fromDlpack(py.eval("a.T"), { dtype: "float32" });
  assertEquals([a.shape, a.strides], [[3, 2], [1, 3]]);
  a.set(2, 1, 500);
  assertEquals(evaluate("a.tolist()"), [[0, 1, 2], [3, 4, 500]]);

  const memory = new Int32Array([1, 2, 3]);
  py.set("x", Tensor.from(memory));
  py.exec("b = np.from_dlpack(x); b *= 2");
  assertEquals([...memory], [2, 4, 6]);
  py.exec("del a, b, x");
});

pythonTest("A view of Deno's own memory goes through Python and back", (py) => {
  const memory = Float32Array.from({ length: 24 }, (_, i) => i);
  const views: Record<string, Tensor> = {
    "all": Tensor.from(memory, [4, 6]),
    "a transpose": Tensor.from(memory, [4, 6]).transpose(),
    "backwards": Tensor.from(memory, [4, 6]).slice([null, null, -1], [
      null,
      null,
      -2,
    ]),
    "a scalar": Tensor.from(memory, [4, 6]).slice(3, 5),
    "nothing": Tensor.from(memory, [4, 6]).slice([2, 2]),
  };
  for (const [name, view] of Object.entries(views)) {
    py.set("x", view);
    for (const expression of ["x", "np.from_dlpack(x)"]) {
      using back = tensorOf(expression);
      assertEquals(back.toArray(), view.toArray(), name);
      assertEquals(back.shape, view.shape, name);
    }
    using back = tensorOf("np.from_dlpack(x, copy=True)");
    assertEquals(back.toArray(), view.toArray(), name);
  }
  py.exec("del x");
});

pythonTest("Read-only arrays stay so, and copies are one's own", (py) => {
  py.exec("a = np.zeros(3); a.flags.writeable = False");
  using view = tensorOf("a");
  assert(view.is("float64") && view.readOnly);
  assertBufferError(() => view.set(0, 1), "readonly");
  using object = py.eval("a");
  using copy = fromDlpack(object, { copy: true, dtype: "float64" });
  copy.set(0, 1);
  assertEquals([copy.readOnly, evaluate("a.tolist()")], [false, [0, 0, 0]]);

  py.set("x", Tensor.from(new Float64Array(2), [2], { readOnly: true }));
  assertEquals(evaluate("np.from_dlpack(x).flags.writeable"), false);
  assertEquals(
    evaluate("np.from_dlpack(x, copy=True).flags.writeable"),
    true,
  );
  py.exec("del a, x");
});

// ---- the protocol, Python's side --------------------------------------------

pythonTest("__dlpack__ is asked with all keywords, as NumPy asks", (py) => {
  py.exec(`
    class Exporter:
        def __dlpack__(self, **keywords):
            global asked
            asked = keywords
            return np.zeros(2).__dlpack__(max_version=(1, 0))
        def __dlpack_device__(self):
            return (3, 7)
  `);
  using exporter = py.eval("Exporter()");
  const askedBy = (run: () => Disposable): unknown => {
    run()[Symbol.dispose]();
    return evaluate("asked");
  };
  const none = { max_version: [1, 3], dl_device: null, copy: null };
  assertEquals(askedBy(() => fromDlpack(exporter)), none);
  assertEquals(
    askedBy(() => fromDlpack(exporter, { copy: true, device: "cpu" })),
    { ...none, dl_device: [1, 0], copy: true },
  );
  assertEquals(askedBy(() => fromDlpack(exporter, { copy: false })), {
    ...none,
    copy: false,
  });
  assertEquals(
    askedBy(() => exporter.__dlpack__({ maxVersion: [2, 1], stream: -1n })),
    { ...none, max_version: [2, 1], stream: -1 },
  );
  assertEquals(askedBy(() => exporter.__dlpack__()), {
    ...none,
    max_version: null,
  });
  assertEquals(exporter.__dlpack_device__(), [3, 7]);
});

pythonTest("A producer that knows no keywords is asked without", (py) => {
  py.exec(`
    class Old:
        def __init__(self): self.array = np.arange(3.)
        def __dlpack__(self, stream=None): return self.array.__dlpack__()
        def __dlpack_device__(self): return (1, 0)
    old = Old()
  `);
  using old = py.eval("old");
  using legacy = old.__dlpack__();
  assertEquals([legacy.name, legacy.shape], ["dltensor", [3]]);
  for (const copy of [null, true, false]) {
    using t = fromDlpack(old, { copy, dtype: "float64" });
    assertEquals([t.toArray(), t.readOnly], [[0, 1, 2], copy !== true]);
    if (copy === true) t.set(0, 5);
  }
  assertEquals(evaluate("old.array.tolist()"), [0, 1, 2]);
});

pythonTest("A capsule is renamed when it is consumed, and used once", (py) => {
  py.exec(`
    class Keeper:
        def __init__(self, version):
            self.capsule = np.zeros(2).__dlpack__(max_version=version)
        def __dlpack__(self, **keywords): return self.capsule
        def __dlpack_device__(self): return (1, 0)
  `);
  for (
    const [version, name] of [
      ["(1, 0)", "dltensor_versioned"],
      ["None", "dltensor"],
    ]
  ) {
    py.exec(`keeper = Keeper(${version})`);
    assertStringIncludes(String(py.eval("keeper.capsule")), `"${name}"`);
    using keeper = py.eval("keeper");
    fromDlpack(keeper)[Symbol.dispose]();
    assertStringIncludes(String(py.eval("keeper.capsule")), `"used_${name}"`);
    assertBufferError(() => fromDlpack(keeper), "consumed", "used before");
  }
  py.exec("keeper.capsule = 5");
  const error = assertThrows(() => tensorOf("keeper"), TypeError);
  assertStringIncludes(error.message, "returned int, not a capsule");
});

// ---- what cannot be exchanged -----------------------------------------------

pythonTest("What is no array is named, with the way out", (py) => {
  for (
    const [expression, kind] of [
      ["3", "int"],
      ["[1, 2]", "list"],
      ["None", "NoneType"],
      ["np", "module"],
    ] as const
  ) {
    const error = assertThrows(() => tensorOf(expression), TypeError);
    assertStringIncludes(
      error.message,
      `Cannot import a Python object of type ${kind}: it has no __dlpack__()`,
    );
    assert(error.cause instanceof PythonError);
  }
  py.exec(
    "class Half:\n  def __dlpack__(self, **k): raise AttributeError('no')",
  );
  const error = assertThrows(() => tensorOf("Half()"), PythonError);
  assertEquals(error.type, "AttributeError");
  assertThrows(
    () => py.eval("3").__dlpack_device__(),
    TypeError,
    "no __dlpack__()",
  );
});

pythonTest("Arrays that DLPack cannot say are BufferErrors", (py) => {
  for (
    const [expression, code, words] of [
      ["np.array(['a', 'b'])", "dtype", "dtypes"],
      ["np.array([1, 2], dtype='>i4')", "dtype", "native byte order"],
      ["np.zeros(3, dtype='f4,i2')['f0']", "layout", "multiple of itemsize"],
      ["np.zeros(2, dtype='M8[s]')", "dtype", "dtypes"],
      ["np.array([object()])", "dtype", "dtypes"],
    ] as const
  ) {
    const error = assertBufferError(() => tensorOf(expression), code, words);
    assert(error.cause instanceof PythonError, expression);
    assertStringIncludes(error.cause.traceback, "BufferError: ");
  }
  py.exec("a = np.zeros(2); a.flags.writeable = False");
  using a = py.eval("a");
  // Only the versioned struct can say that it is read-only.
  assertBufferError(() => a.__dlpack__(), "readonly", "readonly");
  assertBufferError(() => a.__dlpack__({ maxVersion: [0, 8] }), "readonly");
  a.__dlpack__({ maxVersion: [1, 0] })[Symbol.dispose]();
  assertBufferError(
    () => a.__dlpack__({ maxVersion: [1, 0], dlDevice: [2, 0] }),
    "device",
  );
});

pythonTest(
  "What Python raises comes with type, message and traceback",
  (py) => {
    const error = assertThrows(
      () => py.exec("def f():\n  return {}['key']\nf()"),
      PythonError,
    );
    assertEquals(error.name, "PythonError");
    assertEquals(error.type, "KeyError");
    assertEquals(error.message, "KeyError: 'key'");
    assertMatch(
      error.traceback,
      /^Traceback .*\n.*line 3, in <module>\n +f\(\)\n( +[~^]+\n)?.*line 2, in f\n +return {}\['key'\]\n( +[~^]+\n)?KeyError: 'key'\n$/,
    );
    for (
      const [expression, type, message] of [
        ["1 / 0", "ZeroDivisionError", "division by zero"],
        ["np.zeros(3).sum(axis=5)", "numpy.exceptions.AxisError", "axis 5"],
        ["1 +", "SyntaxError", "invalid syntax"],
        ["sys.exit(3)", "SystemExit", "3"],
        ["(_ for _ in ()).throw(KeyboardInterrupt())", "KeyboardInterrupt", ""],
        ["unknown", "NameError", "unknown"],
      ] as const
    ) {
      const error = assertThrows(() => py.eval(expression), PythonError);
      assertEquals(error.type, type);
      assertStringIncludes(error.message, message);
    }
    py.exec(`
    class Odd(Exception):
        def __str__(self): raise ValueError("no text")
    class Text(Exception): pass
  `);
    assertEquals(
      assertThrows(() => py.exec("raise Odd()"), PythonError).message,
      "Odd",
    );
    assertEquals(
      assertThrows(() => py.exec("raise Text('a\\0b \\ud800 ä')"), PythonError)
        .message,
      "Text: a\\0b \\ud800 ä",
    );
    // The cause is part of what Python prints.
    const chained = assertThrows(
      () =>
        py.exec(
          "try: 1/0\nexcept Exception as e: raise ValueError('v') from e",
        ),
      PythonError,
    );
    assertStringIncludes(chained.traceback, "ZeroDivisionError");
    assertStringIncludes(Deno.inspect(chained), "ValueError: v");
  },
);

pythonTest(
  "A traceback shows the lines of the programs it goes through",
  (py) => {
    py.exec(`
    def inverse(x):
        # Of zero there is none.
        return 1 / x
  `);
    py.exec("def inverse_of_zero(): return inverse(0)");
    const tracebackOf = (run: () => unknown): string =>
      assertThrows(run, PythonError).traceback;
    // After many others, and more than once.
    for (let i = 0; i < 300; i++) py.exec(`value = ${i}`);
    for (let i = 0; i < 2; i++) {
      const traceback = tracebackOf(() => py.eval("[inverse_of_zero()]"));
      for (
        const line of [
          "    [inverse_of_zero()]",
          "    def inverse_of_zero(): return inverse(0)",
          "    return 1 / x",
        ]
      ) assertStringIncludes(traceback, `\n${line}\n`);
    }
    assertStringIncludes(tracebackOf(() => py.exec("x = 1\n1 +")), "    1 +\n");
    using source = py.eval("__import__('inspect').getsource(inverse)");
    assertStringIncludes(String(source), "# Of zero there is none.");
    // What imports from __future__ is a program of its own.
    py.exec("from __future__ import annotations");
    py.exec("def typed(x: int): pass");
    assertEquals(evaluate("typed.__annotations__['x'] is int"), true);

    // What cannot be called any more is forgotten, however many there were.
    py.exec("import linecache");
    const kept = () =>
      evaluate(
        "sum(name.startswith('<e') for name in linecache.cache)",
      ) as number;
    const before = kept();
    for (let i = 0; i < 300; i++) {
      py.exec(`def f(): return ${i} / 0`);
      assertStringIncludes(
        tracebackOf(() => py.eval("f()")),
        `return ${i} / 0`,
      );
      assertThrows(() => py.exec(`1 / 0 # ${i}`), PythonError);
      py.eval(`${i}`)[Symbol.dispose]();
    }
    assert(kept() < before + 200, `${before} and ${kept()}`);
    py.exec("del f, typed, inverse, inverse_of_zero, value");
  },
);

pythonTest("A program runs while another thread imports linecache", (py) => {
  py.exec(`
    import linecache, sys, types
    sys.modules["linecache"] = types.ModuleType("linecache") # as far as it is
  `);
  py.exec("def half(x): return x / 0");
  for (let i = 0; i < 200; i++) py.exec(`value = ${i}`);
  py.exec("sys.modules['linecache'] = linecache");
  const { traceback } = assertThrows(() => py.eval("half(1)"), PythonError);
  assertStringIncludes(traceback, "def half(x): return x / 0");
  py.exec("del half, value, linecache, types");
});

pythonTest("An exception in a deleter is reported, and stops nothing", (py) => {
  py.exec(`
    reports = []
    sys.unraisablehook = lambda report: reports.append(str(report.exc_value))
    class Bad:
        def __init__(self): self.__array_interface__ = {
            "shape": (2,), "typestr": "<f8", "version": 3,
            "data": (ctypes.addressof(memory), False)}
        def __del__(self): raise ValueError("in __del__")
    memory = (ctypes.c_double * 2)(1, 2)
  `);
  try {
    const live = liveTensors();
    const t = tensorOf("np.asarray(Bad())");
    assertEquals(t.toArray(), [1, 2]);
    t[Symbol.dispose]();
    assertEquals(evaluate("reports"), ["in __del__"]);

    // A deleter that leaves an exception behind: it would come out of the next call.
    py.exec(`
      struct = np.ones(2).__dlpack__()
      place = ctypes.pythonapi.PyCapsule_GetPointer
      place.restype, place.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
      at = place(struct, b"dltensor")
      set_string = ctypes.PYFUNCTYPE(None, ctypes.py_object, ctypes.c_char_p)(
          ("PyErr_SetString", ctypes.pythonapi))
      @ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
      def deleter(self):
          raise RuntimeError("in the deleter")
      ctypes.c_void_p.from_address(at + 56).value = ctypes.cast(
          deleter, ctypes.c_void_p).value
      class Holder:
          def __dlpack__(self): return struct
          def __dlpack_device__(self): return (1, 0)
    `);
    const u = tensorOf("Holder()");
    assertEquals(u.toArray(), [1, 1]);
    u[Symbol.dispose]();
    assertEquals(evaluate("reports"), ["in __del__", "in the deleter"]);
    assertEquals(evaluate("1 + 1"), 2);
    assertEquals(liveTensors(), live);
  } finally {
    py.exec("sys.unraisablehook = sys.__unraisablehook__");
  }
});

pythonTest("A struct without a deleter lets go of its object, too", (py) => {
  py.exec(`
    memory = np.arange(3.)
    class Holder:
        def __dlpack__(self):
            capsule = memory.__dlpack__()
            get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
                ("PyCapsule_GetPointer", ctypes.pythonapi))
            ctypes.c_void_p.from_address(get(capsule, b"dltensor") + 56).value = None
            return capsule
        def __dlpack_device__(self): return (1, 0)
    holder = Holder()
  `);
  const before = evaluate("sys.getrefcount(holder)");
  const t = tensorOf("holder");
  assertEquals(t.toArray(), [0, 1, 2]);
  t[Symbol.dispose]();
  assertEquals(evaluate("sys.getrefcount(holder)"), before);
});

// ---- objects ----------------------------------------------------------------

pythonTest("An object owns one reference, until it is disposed", (py) => {
  py.exec("a = np.zeros(3)");
  const count = (): number => evaluate("sys.getrefcount(a)") as number;
  const before = count();
  const a = py.eval("a");
  assertEquals(count(), before + 1);
  assertEquals(String(a), "[0. 0. 0.]");
  const t = fromDlpack(a);
  a[Symbol.dispose]();
  a[Symbol.dispose]();
  assert(count() > before, "the tensor keeps the array");
  t[Symbol.dispose]();
  assertEquals(count(), before);
  for (
    const use of [
      () => fromDlpack(a),
      () => String(a),
      () => a.__dlpack_device__(),
      () => py.set("b", a),
    ]
  ) assertBufferError(use, "released", "was disposed: evaluate it again");
  assertEquals(Deno.inspect(a), "PythonObject, disposed");
});

pythonTest("console.log shows the type, and Python's text", (py) => {
  assertEquals(Deno.inspect(py.eval("'text'")), "PythonObject str text");
  assertEquals(
    Deno.inspect(py.eval("np.eye(2)")),
    "PythonObject numpy.ndarray\n[[1. 0.]\n [0. 1.]]",
  );
  py.exec("class Mute:\n  def __str__(self): raise ValueError");
  assertEquals(
    Deno.inspect(py.eval("Mute()")),
    "PythonObject that has no text",
  );
  assertThrows(() => String(py.eval("Mute()")), PythonError, "ValueError");
  assertMatch(Deno.inspect(py), /^Python 3\.\d+\.\d+\S* \/.*python/);
});

pythonTest(
  "What is garbage lets go of its object, and of its array",
  async (py) => {
    py.exec("a = np.zeros(1000)");
    const before = evaluate("sys.getrefcount(a)");
    (() => {
      for (let i = 0; i < 100; i++) fromDlpack(py.eval("a"));
    })();
    await collectGarbage();
    assertEquals(evaluate("sys.getrefcount(a)"), before);
  },
);

pythonTest("An object of another bridge is taken by its pointer", (py) => {
  py.exec("a = np.arange(3.); count = sys.getrefcount(a)");
  const address = BigInt(String(py.eval("id(a)")));
  {
    using object = new PythonObject(address);
    using t = fromDlpack(object);
    assertEquals(t.toArray(), [0, 1, 2]);
    using same = new PythonObject(Deno.UnsafePointer.create(address));
    assertEquals(String(same), "[0. 1. 2.]");
  }
  assertEquals(evaluate("sys.getrefcount(a) - count"), 0);
  for (const wrong of [null, 0n, 3n, "a", 5, {}, undefined]) {
    assertThrows(() => new PythonObject(wrong as unknown as bigint), TypeError);
  }
});

// ---- tensors of Deno's in Python --------------------------------------------

pythonTest("A tensor in Python answers as the array API says", (py) => {
  py.set("x", Tensor.from(new Float32Array(6), [2, 3]));
  assertEquals(String(py.eval("x")), "<Tensor of Deno: float32 [2, 3]>");
  assertEquals(evaluate("x.__dlpack_device__()"), [1, 0]);
  const name = (request: string): string => {
    using capsule = py.eval(`x.__dlpack__(${request})`);
    return /"(\w+)"/.exec(String(capsule))![1]!;
  };
  assertEquals(name(""), "dltensor");
  assertEquals(name("max_version=None"), "dltensor");
  assertEquals(name("max_version=(0, 8)"), "dltensor");
  assertEquals(name("max_version=(1, 0)"), "dltensor_versioned");
  assertEquals(name("max_version=(2, 0), copy=True"), "dltensor_versioned");
  assertEquals(name("dl_device=(1, 0), copy=False"), "dltensor");
  for (
    const [request, type, words] of [
      ["stream=1", "ValueError", "host memory has no streams"],
      ["dl_device=(2, 0)", "BufferError", "(1, 0) to device (2, 0)"],
      ["unknown=1", "TypeError", "unexpected keyword"],
    ] as const
  ) {
    const error = assertThrows(
      () => py.eval(`x.__dlpack__(${request})`),
      PythonError,
    );
    assertEquals(error.type, type);
    assertStringIncludes(error.message, words);
  }
  py.exec("del x");
});

pythonTest(
  "What a legacy struct cannot say is refused, with the way out",
  (py) => {
    const cases: [Tensor, string][] = [
      [Tensor.from(new Float32Array(2), [2], { readOnly: true }), "read-only"],
      [Tensor.zeros([16], "uint1"), "uint1"],
      [
        Tensor.from(new Uint8Array(4), [4], { dtype: "int4", padded: true }),
        "padded",
      ],
    ];
    for (const [tensor, words] of cases) {
      py.set("x", tensor);
      const error = assertThrows(() => py.eval("x.__dlpack__()"), PythonError);
      assertEquals(error.type, "BufferError");
      assertStringIncludes(error.message, words);
      using back = tensorOf("x");
      assertEquals([back.dtype, back.readOnly], [
        tensor.dtype,
        tensor.readOnly,
      ]);
    }
    py.set("x", cases[0]![0]);
    py.exec("c = x.__dlpack__(copy=True); del x, c");
  },
);

pythonTest("Every dtype goes to Python and comes back", (py) => {
  for (
    const dtype of [
      "bool",
      "int8",
      "uint64",
      "float16",
      "bfloat16",
      "complex64",
      "complex128",
      "float8_e4m3fn",
      "float4_e2m1fn",
      "int4",
    ] as const
  ) {
    const t = Tensor.from(Uint8Array.of(1, 0, 1, 1)).astype(dtype);
    py.set("x", t);
    for (const copy of [false, true]) {
      using object = py.eval("x");
      using back = fromDlpack(object, { copy });
      assertEquals([back.dtype, back.toArray()], [dtype, t.toArray()]);
    }
  }
  py.exec("del x");
});

pythonTest("NumPy's functions take a tensor as it is, by its rules", (py) => {
  const before = liveTensors();
  const memory = new Float32Array([1, 2, 3, 4, 5, 6]);
  const x = Tensor.from(memory, [2, 3]);
  py.set("x", x.transpose());
  py.set("r", Tensor.from(memory, [2, 3], { readOnly: true }));
  /** What the array is: dtype, values, whether shared, whether writable. */
  const made = (expression: string): unknown =>
    evaluate(`(lambda a: [a.dtype.str, a.tolist(),
      np.may_share_memory(a, np.from_dlpack(x)), a.flags.writeable])(
      ${expression})`);
  const transposed = [[1, 4], [2, 5], [3, 6]];
  const rows = [[1, 2, 3], [4, 5, 6]];
  for (
    const [expression, expected] of [
      ["np.asarray(x)", ["<f4", transposed, true, true]],
      ["np.asarray(x, copy=False)", ["<f4", transposed, true, true]],
      ["np.array(x)", ["<f4", transposed, false, true]],
      ["np.asarray(x, copy=True)", ["<f4", transposed, false, true]],
      ["np.asarray(x, dtype='f4', copy=False)", [
        "<f4",
        transposed,
        true,
        true,
      ]],
      ["np.asarray(x, dtype='f8')", ["<f8", transposed, false, true]],
      ["np.array(x, dtype='>i2')", [">i2", transposed, false, true]],
      ["x.__array__()", ["<f4", transposed, true, true]],
      ["x.__array__('f8', True)", ["<f8", transposed, false, true]],
      ["np.asarray(r)", ["<f4", rows, true, false]],
      ["np.asarray(r, copy=False)", ["<f4", rows, true, false]],
      ["np.array(r)", ["<f4", rows, false, true]],
      ["np.asarray(r, dtype='i4')", ["<i4", rows, false, true]],
      ["np.zeros((3, 2), 'f4') + x", ["<f4", transposed, false, true]],
      ["np.concatenate([r, r])", ["<f4", [...rows, ...rows], false, true]],
    ] as const
  ) assertEquals(made(expression), expected, expression);
  assertEquals(evaluate("float(np.sum(r))"), 21);
  assertThrows(
    () => py.eval("np.asarray(x, dtype='f8', copy=False)"),
    PythonError,
    "ValueError: cannot convert float32 to float64 without a copy",
  );
  py.exec("a = np.asarray(x); a[2, 1] = 60; del x");
  assertEquals(memory[5], 60);
  assertEquals(liveTensors().exported.count, before.exported.count + 2);
  py.exec("del r");
  assertEquals(liveTensors().exported.count, before.exported.count + 1);
  py.exec("del a");
  assertEquals(liveTensors(), before);

  // What NumPy has no dtype for is an error, not an array of objects.
  py.set("x", Tensor.zeros([4], "bfloat16"));
  assertThrows(() => py.eval("np.asarray(x)"), PythonError, "dtype");
  py.exec("del x");
  assertEquals(liveTensors(), before);
});

pythonTest("A NumPy that cannot take read-only tensors gets a copy", (py) => {
  const before = liveTensors();
  // As NumPy before 2.1 asks.
  py.exec(`
    class Legacy:
        def __init__(self, tensor): self.tensor = tensor
        def __dlpack__(self, **keywords): return self.tensor.__dlpack__()
        def __dlpack_device__(self): return self.tensor.__dlpack_device__()
    from_dlpack = np.from_dlpack
    np.from_dlpack = lambda tensor: from_dlpack(Legacy(tensor))
  `);
  try {
    const values = new Float32Array([1, 2]);
    py.set("x", Tensor.from(values));
    py.set("r", Tensor.from(values, [2], { readOnly: true }));
    for (
      const expression of ["np.asarray(x)", "np.asarray(r)", "np.array(r)"]
    ) {
      assertEquals(evaluate(`${expression}.tolist()`), [1, 2]);
    }
    assertEquals(evaluate("np.array(r).flags.writeable"), true);
    assertThrows(
      () => py.eval("np.asarray(r, copy=False)"),
      PythonError,
      "BufferError: Cannot export a read-only tensor as a legacy struct",
    );
  } finally {
    py.exec("np.from_dlpack = from_dlpack; del x, r");
  }
  assertEquals(liveTensors(), before);
});

pythonTest("Python's copies are its own, on any layout", (py) => {
  const memory = Float64Array.from({ length: 24 }, (_, i) => i);
  const all = Tensor.from(memory, [2, 3, 4]);
  const views = [
    all,
    all.transpose(2, 0, 1),
    all.slice([null, null, -1], null, [null, null, 2]),
    all.slice(1, 2, 3),
    all.slice([0, 0]),
  ];
  for (const view of views) {
    py.set("x", view);
    py.exec("a = np.from_dlpack(x, copy=True)");
    using a = tensorOf("a");
    assertEquals(a.toArray(), view.toArray());
    assert(a.isContiguous);
    py.exec("a[...] = -1");
  }
  assertEquals(memory, Float64Array.from({ length: 24 }, (_, i) => i));
  py.set("x", Tensor.zeros([4], "int4").slice([null, null, 3]));
  const error = assertThrows(
    () => py.eval("x.__dlpack__(copy=True)"),
    PythonError,
  );
  assertStringIncludes(error.message, "begin on a byte");
  py.exec("del a, x");
});

pythonTest("The memory stays while Python has a part of it", (py) => {
  const out = (): number => liveTensors().exported.count;
  const before = out();
  const deleted = deletions(() => {
    const t = importFixture(floats([4, 6]));
    py.set("x", t);
    t[Symbol.dispose]();
    py.exec("a = np.from_dlpack(x); part = a[1:, ::2]; del x, a");
    assertEquals([out(), evaluate("float(part.sum())")], [before + 1, 126]);
  });
  assertEquals(deleted, 0);
  assertEquals(deletions(() => py.exec("del part")), 1);
  assertEquals(out(), before);
});

pythonTest("A capsule of Python's that nobody consumes is given back", (py) => {
  const out = (): number => liveTensors().exported.count;
  const before = out();
  for (const request of ["", "max_version=(1, 0)", "copy=True"]) {
    py.set("x", Tensor.from(new Float32Array(3)));
    py.exec(`c = x.__dlpack__(${request}); del x`);
    // A copy needs the tensor no more.
    assertEquals(out(), request === "copy=True" ? before : before + 1);
    py.exec("del c");
    assertEquals(out(), before, request);
  }
});

pythonTest("A tensor that a consumer refuses is given back", (py) => {
  const before = liveTensors();
  py.set("x", Tensor.zeros([4], "bfloat16"));
  const error = assertThrows(
    () => py.exec("np.from_dlpack(x)"),
    PythonError,
  );
  assertStringIncludes(error.message, "Unsupported dtype");
  py.exec("del x");
  assertEquals(liveTensors(), before);
});

pythonTest(
  "An array that goes while an exception is raised leaves it as it is",
  (py) => {
    py.set("x", Tensor.from(new Float32Array(3)));
    py.exec("def both(a, b): pass");
    const error = assertThrows(
      () => py.exec("both(np.from_dlpack(x), 1 / 0)"),
      PythonError,
    );
    assertEquals(error.type, "ZeroDivisionError");
    py.exec("del x");
  },
);

pythonTest("set() takes capsules, objects, and whatever exports", (py) => {
  const given = Tensor.from(new Float32Array([1, 2])).__dlpack__();
  py.set("x", given);
  assertEquals(given.name, "used_dltensor");
  // A legacy struct cannot say that it may be written.
  assertEquals(evaluate("np.from_dlpack(x).flags.writeable"), false);
  py.set(
    "x",
    Tensor.from(new Float32Array(2)).__dlpack__().with({ writable: true }),
  );
  assertEquals(evaluate("np.from_dlpack(x).flags.writeable"), true);

  py.set("y", py.eval("np.arange(3)"));
  assertEquals(evaluate("y.tolist()"), [0, 1, 2]);
  py.set("z", {
    __dlpack__: (request) => Tensor.from(Int8Array.of(7)).__dlpack__(request),
    __dlpack_device__: () => [1, 0],
  });
  assertEquals(evaluate("np.from_dlpack(z).tolist()"), [7]);
  py.set("größe", Tensor.from(Int8Array.of(9)), {
    as: py.eval("np.from_dlpack"),
  });
  assertEquals(evaluate("größe.tolist()"), [9]);
  py.set("y", py.eval("[1, 2]"), { as: py.eval("tuple") });
  assertEquals(String(py.eval("y")), "(1, 2)");
  py.exec("del x, y, z, größe");
});

pythonTest("Wrong arguments are named, and nothing is lost", (py) => {
  const live = liveTensors();
  const t = Tensor.from(new Float32Array(2));
  const wrong: [() => unknown, string][] = [
    [
      () => py.set("x", 3 as never),
      "Cannot set a variable to 3: pass a Tensor",
    ],
    [() => py.set("x", new Float32Array(2) as never), "by Tensor.from()"],
    [() => py.set("x", null as never), "Cannot set a variable to null"],
    [() => py.set("1x", t), 'Cannot set the variable "1x"'],
    [() => py.set("a b", t), 'Cannot set the variable "a b"'],
    [() => py.set(5 as never, t), "Cannot set the variable 5"],
    [() => py.set("x", t, { as: "np" as never }), 'The option "as"'],
    [() => py.set("x", t, "np" as never), "The options of set()"],
    [() => py.exec(5 as never), "The program must be text, not 5"],
    [() => py.exec("a\0b"), "must not have a NUL"],
    [() => py.eval(null as never), "The expression must be text, not null"],
    [() => Python.open("python3" as never), "The options of Python.open()"],
    [() => Python.open({ executable: 5 as never }), 'The option "executable"'],
    [
      () => new (Python as unknown as new () => unknown)(),
      "Cannot construct a Python: use Python.open()",
    ],
  ];
  for (const [run, message] of wrong) {
    assertThrows(run, TypeError, message);
  }
  assertThrows(
    () => py.set("x", t, { as: py.eval("int") }),
    PythonError,
  );
  assertThrows(
    () => py.set("x", t, { as: py.eval("np.zeros(1)") }),
    PythonError,
  );
  t[Symbol.dispose]();
  assertBufferError(() => py.set("x", t), "released");
  // A struct of another major version is refused, and the capsule stays.
  {
    using bad = capsule({ ...floats([2]), version: [2, 0] });
    assertBufferError(() => py.set("x", bad), "version");
    assertEquals(bad.name, "dltensor_versioned");
    const deleted = deletions(() =>
      assertBufferError(
        () =>
          py.set("x", {
            __dlpack__: () => capsule({ ...floats([2]), version: [2, 0] }),
            __dlpack_device__: () => [1, 0],
          }),
        "version",
      )
    );
    assertEquals(deleted, 1);
  }
  assertEquals(liveTensors(), live);
});

pythonTest(
  "A program may be indented, an expression have spaces around",
  (py) => {
    py.exec(`
    value = 0
    for i in range(3):
        value += i
    text = """
    two
    """
  `);
    assertEquals(evaluate("[value, text]"), [3, "\ntwo\n"]);
    py.exec("\t if True:\n\t  value = 5");
    assertEquals(String(py.eval("  value + \n 1".replace("\n", ""))), "6");
    py.exec("");
    py.exec("# ä 🐍");
    assertEquals(String(py.eval("'ä 🐍'")), "ä 🐍");
  },
);

// ---- threads ----------------------------------------------------------------

pythonTest(
  "Python's threads run while JavaScript works, and while it waits",
  async (py) => {
    py.exec(`
    import time
    ticks, goes_on = 0, True
    def work():
        global ticks
        while goes_on:
            ticks += 1
            time.sleep(0.001)
    thread = threading.Thread(target=work)
    thread.start()
  `);
    const ticks = (): number => evaluate("ticks") as number;
    const first = ticks();
    const start = performance.now();
    while (performance.now() - start < 50);
    const second = ticks();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const third = ticks();
    py.exec("goes_on = False; thread.join()");
    assert(second > first && third > second, `${first}, ${second}, ${third}`);
  },
);

pythonTest(
  "Threads use and drop a tensor while this thread waits for them",
  (py) => {
    const out = (): number => liveTensors().exported.count;
    const before = out();
    const memory = new Float64Array(1000);
    py.set("x", Tensor.from(memory));
    py.exec(`
    from concurrent.futures import ThreadPoolExecutor
    def add(i):
        a = np.from_dlpack(x)
        a[i] += i
        c = np.from_dlpack(x, copy=True)
        return float(c[i])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(add, range(1000)))
    def drop():
        global x
        del x
    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
  `);
    assertEquals(memory, Float64Array.from({ length: 1000 }, (_, i) => i));
    assertEquals(evaluate("results"), [...memory]);
    assertEquals(out(), before);
  },
);

pythonTest(
  "What Python drops while JavaScript is idle comes back with the garbage",
  async (py) => {
    const before = liveTensors();
    py.set("x", Tensor.from(new Float64Array(1000)));
    py.exec(`
    import time
    def drop_later():
        global x
        time.sleep(0.02)
        del x
    threading.Thread(target=drop_later).start()
  `);
    assertEquals(liveTensors().exported.count, before.exported.count + 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await collectGarbage();
    assertEquals(liveTensors(), before);
  },
);

pythonTest(
  "Many arrays that Python keeps cost the calls after them little",
  (py) => {
    const before = liveTensors();
    py.set("x", Tensor.from(new Float64Array(4)));
    py.exec("kept = [np.from_dlpack(x) for _ in range(20_000)]; del x");
    const start = performance.now();
    for (let i = 0; i < 100; i++) py.exec("pass");
    const each = (performance.now() - start) / 100;
    assert(each < 5, `${each} ms`);
    assertEquals(liveTensors().exported.count, before.exported.count + 1);
    py.exec("del kept");
    // A few at each call, so that none takes long.
    for (let i = 0; i < 20_000 / 64 + 2; i++) py.exec("pass");
    assertEquals(liveTensors(), before);
  },
);

// ---- counts -----------------------------------------------------------------

pythonTest(
  "A hundred thousand imports leave the counts where they were",
  (py) => {
    py.exec("a = np.arange(12.).reshape(3, 4)");
    const counts = (): unknown =>
      evaluate("[sys.getrefcount(a), sys.getrefcount(None) < 0 or 0]");
    const before = [counts(), liveTensors()];
    using a = py.eval("a");
    for (let i = 0; i < 100_000; i++) {
      using _t = fromDlpack(a, i % 10 === 0 ? { copy: true } : undefined);
    }
    a[Symbol.dispose]();
    assertEquals([counts(), liveTensors()], before);
  },
);

pythonTest(
  "Exports, errors and refusals leave the counts where they were",
  (py) => {
    py.exec("a = np.arange(12.); bad = np.array(['a']); gc.collect()");
    const counts = (): unknown =>
      evaluate(
        "[sys.getrefcount(a), sys.getrefcount(bad), len(gc.get_objects())]",
      );
    const round = (): void => {
      for (let i = 0; i < 200; i++) {
        py.set("x", Tensor.from(new Float64Array(4)));
        py.exec("b = np.from_dlpack(x)");
        assertBufferError(() => tensorOf("bad"), "dtype");
        assertThrows(() => tensorOf("3"), TypeError);
        assertThrows(() => py.exec("1/0"), PythonError);
        using a = py.eval("a");
        using _t = fromDlpack(a.__dlpack__());
        assertEquals(a.__dlpack_device__(), [1, 0]);
        assertStringIncludes(Deno.inspect(a), "PythonObject");
      }
      py.exec("del x, b; gc.collect()");
    };
    round();
    const before = [counts(), liveTensors()];
    round();
    assertEquals([counts(), liveTensors()], before);
  },
);

// ---- the C exchange API -----------------------------------------------------

pythonTestBothPaths(
  "A type with the C exchange API is asked by C alone",
  (py) => {
    py.exec(`
    calls = []
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    rename = ctypes.PYFUNCTYPE(
        ctypes.c_int, ctypes.py_object, ctypes.c_char_p
    )(("PyCapsule_SetName", ctypes.pythonapi))
    used = b"used_dltensor_versioned"
    address = ctypes.c_void_p

    @ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(address))
    def from_object(self, out):
        calls.append("from")
        if self.array is None:
            return -1
        capsule = self.array.__dlpack__(max_version=(1, 0))
        out[0] = get(capsule, b"dltensor_versioned")
        rename(capsule, used)
        return 0

    new = ctypes.PYFUNCTYPE(
        ctypes.py_object, address, ctypes.c_char_p, address
    )(("PyCapsule_New", ctypes.pythonapi))
    increase = ctypes.PYFUNCTYPE(None, ctypes.py_object)(
        ("Py_IncRef", ctypes.pythonapi))
    versioned = b"dltensor_versioned"

    class Given:
        def __init__(self, struct): self.struct = struct
        def __dlpack__(self, **keywords): return new(self.struct, versioned, None)

    @ctypes.PYFUNCTYPE(ctypes.c_int, address, ctypes.POINTER(address))
    def to_object(struct, out):
        calls.append("to")
        made = Quick(np.from_dlpack(Given(struct)))
        increase(made)
        out[0] = id(made)
        return 0

    table = (ctypes.c_uint64 * 7)(
        1 | 3 << 32, 0, 0,
        ctypes.cast(from_object, address).value,
        ctypes.cast(to_object, address).value, 0, 0)
    # A later major version, which refers to the one that is known.
    newer = (ctypes.c_uint64 * 7)(2, ctypes.addressof(table), 0, 0, 0, 0, 0)
    unknown = (ctypes.c_uint64 * 7)(2, 0, 0, 0, 0, 0, 0)
    api_name = b"dlpack_exchange_api"

    class Quick:
        __dlpack_c_exchange_api__ = new(ctypes.addressof(newer), api_name, None)
        def __init__(self, array): self.array = array
        def __dlpack__(self, **keywords):
            calls.append("__dlpack__")
            return self.array.__dlpack__(**keywords)
        def __dlpack_device__(self): return (1, 0)

    class Unknown(Quick):
        __dlpack_c_exchange_api__ = new(ctypes.addressof(unknown), api_name, None)

    class Wrong(Quick):
        __dlpack_c_exchange_api__ = 5

    quick = Quick(np.arange(6.))
  `);
    const called = (run: () => unknown): unknown => {
      py.exec("calls.clear()");
      run();
      return evaluate("calls");
    };
    const before = evaluate("sys.getrefcount(quick.array)");
    using quick = py.eval("quick");
    assertEquals(
      called(() => {
        using t = fromDlpack(quick, { dtype: "float64" });
        assertEquals(t.toArray(), [0, 1, 2, 3, 4, 5]);
        t.set(0, 9);
      }),
      ["from"],
    );
    assertEquals(evaluate("quick.array[0]"), 9);
    // What C cannot ask.
    assertEquals(
      called(() => fromDlpack(quick, { copy: true })[Symbol.dispose]()),
      ["__dlpack__"],
    );
    assertEquals(called(() => quick.__dlpack__()[Symbol.dispose]()), [
      "__dlpack__",
    ]);
    for (const type of ["Unknown", "Wrong"]) {
      assertEquals(called(() => tensorOf(`${type}(np.zeros(2))`)), [
        "__dlpack__",
      ]);
    }
    assertEquals(evaluate("sys.getrefcount(quick.array)"), before);
    assertThrows(() => tensorOf("Quick(None)"), PythonError, "SystemError");

    const live = liveTensors();
    const memory = new Float32Array([1, 2]);
    assertEquals(
      called(() => py.set("x", Tensor.from(memory), { as: py.eval("Quick") })),
      ["to"],
    );
    py.exec("x.array[0] = 5");
    assertEquals([...memory], [5, 2]);
    py.exec("del x");
    assertEquals(liveTensors(), live);
  },
);

pythonTest("A handle that was disposed says so; another one goes on", (py) => {
  const other = Python.open();
  assertEquals([other.version, other.executable], [py.version, py.executable]);
  other.exec("shared = 5");
  other[Symbol.dispose]();
  other[Symbol.dispose]();
  for (
    const use of [
      () => other.exec("1"),
      () => other.eval("1"),
      () => other.set("x", Tensor.zeros([1], "int8")),
    ]
  ) {
    assertThrows(use, Deno.errors.BadResource, "call Python.open() again");
  }
  assertStringIncludes(Deno.inspect(other), "disposed");
  assertEquals(String(py.eval("shared")), "5");
});

pythonTest("A capsule of Python's goes to another consumer", (py) => {
  py.exec("a = np.arange(3.); count = sys.getrefcount(a)");
  using object = py.eval("a");
  const given = object.__dlpack__({ maxVersion: [1, 3] });
  const { name } = given;
  assert(name === "dltensor_versioned");
  const pointer = given.take();
  using again = fromDlpack(new DlpackCapsule(pointer, name));
  assertEquals(again.toArray(), [0, 1, 2]);
  again[Symbol.dispose]();
  object[Symbol.dispose]();
  assertEquals(evaluate("sys.getrefcount(a) - count"), 0);
});

pythonTest(
  "exec() takes away only the indentation that all lines have",
  (py) => {
    py.exec("    text = '''\n      a\n    b'''");
    assertEquals(evaluate("text"), "\n  a\nb");
    py.exec("\n\tif True:\n\t\ttext = 1\n\n\telse:\n\t\ttext = 2\n");
    assertEquals(evaluate("text"), 1);
    assertThrows(() => py.exec("  x = 1\ny = 2"), PythonError, "indent");
    assertThrows(() => py.exec("s = '\ud800'"), TypeError, "surrogate");
    assertThrows(() => py.eval("'\udc00'"), TypeError, "surrogate");
  },
);
