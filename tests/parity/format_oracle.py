"""NumPy's str() of arrays, for tests/format_test.ts.

stdin: a JSON list of {"dtype", "shape", "hex"}; hex is the array's bytes,
little-endian, in C order. stdout: a JSON list of strings.
"""

import json
import sys

import numpy as np


def text(case):
    dtype = np.dtype(case["dtype"]).newbyteorder("<")
    flat = np.frombuffer(bytes.fromhex(case["hex"]), dtype)
    return str(flat.reshape(case["shape"]))


json.dump([text(case) for case in json.load(sys.stdin)], sys.stdout)
