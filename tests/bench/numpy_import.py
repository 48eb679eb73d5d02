"""Times imports by NumPy, and by PyTorch where it is installed.

usage: python numpy_import.py, with one JSON request a line on stdin

{} is answered with the versions of the libraries. {"library", "task",
"seconds"} runs a task for about so long and answers {"ns"}, of one import.

Exit status 77: NumPy is missing.
"""

import json
import sys
import time
from itertools import repeat

try:
    import numpy as np
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

x = np.ones((4, 4), np.float32)
libraries = {"numpy": np}
try:
    import torch

    libraries["torch"] = torch
except ImportError:
    pass


def empty(_, count):
    for _ in repeat(None, count):
        pass


def export(_, count):
    """NumPy's share as the producer."""
    for _ in repeat(None, count):
        x.__dlpack__(max_version=(1, 0), dl_device=None, copy=None)


def import_(library, count):
    from_dlpack = library.from_dlpack
    for _ in repeat(None, count):
        y = from_dlpack(x)
        y.shape
        y.dtype
        del y


def element(library, count):
    from_dlpack = library.from_dlpack
    for _ in repeat(None, count):
        y = from_dlpack(x)
        y[1, 1]
        del y


def copy(library, count):
    from_dlpack = library.from_dlpack
    for _ in repeat(None, count):
        y = from_dlpack(x, copy=True)
        del y


TASKS = {
    "empty": empty,
    "export": export,
    "import": import_,
    "element": element,
    "copy": copy,
}


def measure(task, library, seconds):
    """Nanoseconds of one import."""
    done = 0
    start = time.perf_counter_ns()
    while True:
        task(library, 1000)
        done += 1000
        elapsed = time.perf_counter_ns() - start
        if elapsed >= seconds * 1e9:
            return elapsed / done


for line in sys.stdin:
    request = json.loads(line)
    if "task" in request:
        task = TASKS[request["task"]]
        library = libraries[request.get("library", "numpy")]
        answer = {"ns": measure(task, library, request["seconds"])}
    else:
        answer = {name: library.__version__ for name, library in libraries.items()}
    print(json.dumps(answer), flush=True)
