"""Times NumPy's copies of strided views, as copy.ts asks for them.

usage: python numpy_copy.py, with one JSON request a line on stdin

{"capacity", "itemsize", "shape", "strides", "offset"} makes a view, strides
and offset in elements, and answers {}. {"seconds", "fresh", "way"} copies it
in C order for about that long, into a given array or into new ones, or an array
in C order into it where the way is "assigned", and answers {"ns"}, of one copy.

Exit status 77: NumPy is missing.
"""

import json
import sys
import time

try:
    import numpy as np
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

DTYPES = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}


def make_view(request):
    dtype = np.dtype(DTYPES[request["itemsize"]])
    memory = np.zeros(request["capacity"], dtype)
    memory.view("u1")[:] = 1  # pages of zeros would be one page
    return np.lib.stride_tricks.as_strided(
        memory[request["offset"] :],
        request["shape"],
        [stride * dtype.itemsize for stride in request["strides"]],
    )


def measure(copy, seconds):
    """Nanoseconds of one copy."""
    count = 0
    start = time.perf_counter_ns()
    while True:
        copy()
        count += 1
        elapsed = time.perf_counter_ns() - start
        if elapsed >= seconds * 1e9:
            return elapsed / count


view = out = None
for line in sys.stdin:
    request = json.loads(line)
    answer = {}
    if "shape" in request:
        view = out = None
        view = make_view(request)
        out = np.ones(view.shape, view.dtype)
    elif request["way"] == "assigned":
        answer["ns"] = measure(lambda: np.copyto(view, out), request["seconds"])
    elif request["fresh"]:
        # ascontiguousarray() would give a contiguous array back.
        answer["ns"] = measure(lambda: view.copy(order="C"), request["seconds"])
    else:
        answer["ns"] = measure(lambda: np.copyto(out, view), request["seconds"])
    print(json.dumps(answer), flush=True)
