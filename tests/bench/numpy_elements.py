"""Times NumPy at elements and conversions, as elements.ts asks for it.

usage: python numpy_elements.py, with one JSON request a line on stdin

{"task", "seconds"} answers {"ns"} of one pass; {"from", "to", "size",
"seconds"} converts so many elements and answers {"ns"} of one conversion.

Exit status 77: NumPy or ml_dtypes is missing.
"""

import json
import sys
import time

try:
    import ml_dtypes
    import numpy as np
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

SIDE = 512
x = np.ones((SIDE, SIDE), np.float32)


def get():
    sum = 0.0
    for i in range(SIDE):
        for j in range(SIDE):
            sum += x[i, j]
    return sum


def iterate():
    sum = 0.0
    for row in x:
        for value in row:
            sum += value
    return sum


TASKS = {"get": get, "iterate": iterate, "tolist": x.tolist}


def measure(run, seconds):
    """Nanoseconds of one run."""
    count = 0
    start = time.perf_counter_ns()
    while True:
        run()
        count += 1
        elapsed = time.perf_counter_ns() - start
        if elapsed >= seconds * 1e9:
            return elapsed / count


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


sources = {}
for line in sys.stdin:
    request = json.loads(line)
    if "task" in request:
        run = TASKS[request["task"]]
    else:
        name, size = request["from"], request["size"]
        if (name, size) not in sources:
            values = (np.arange(size) % 200 - 100).astype(np.float32)
            sources[name, size] = values.astype(dtype_of(name))
        source, to = sources[name, size], dtype_of(request["to"])
        run = lambda: source.astype(to)
    print(json.dumps({"ns": measure(run, request["seconds"])}), flush=True)
