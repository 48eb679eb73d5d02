"""Times calls of Python's tvm_ffi, for the benchmark: a line of JSON for each.

It does nothing, and says so, where the package is not installed.
"""

import json
import sys
import time

try:
    import numpy as np
    import tvm_ffi
except ImportError:
    tvm_ffi = None


def measure(run, seconds):
    count = 1000
    start = time.perf_counter()
    done = 0
    while True:
        run(count)
        done += count
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / done * 1e9


functions = {}
for line in sys.stdin:
    request = json.loads(line)
    if "module" in request:
        if tvm_ffi is not None:
            empty = tvm_ffi.load_module(request["module"]).empty
            a, b, c = (tvm_ffi.from_dlpack(np.zeros(3, np.float32)) for _ in range(3))

            def three(count):
                for _ in range(count):
                    empty(a, b, c)

            def none(count):
                for _ in range(count):
                    empty()

            def ints(count):
                for _ in range(count):
                    empty(1, 2, 3)

            def text(count):
                for _ in range(count):
                    empty("a name of more than seven bytes")

            functions = {"three": three, "none": none, "ints": ints, "text": text}
        version = None if tvm_ffi is None else tvm_ffi.__version__
        answer = {"tvm_ffi": version}
    else:
        answer = {"ns": measure(functions[request["task"]], request["seconds"])}
    print(json.dumps(answer), flush=True)
