"""NumPy's str() of arrays, for tests/tensor_format_test.ts.

stdin: a JSON list of {"dtype", "shape", "hex"}; hex is the array's bytes,
little-endian, in C order. stdout: a JSON list of strings.

Exit status 77: there is no NumPy from 2.3 on.
"""

import json
import sys

NO_ORACLE = 77

try:
    import numpy as np
    from numpy.lib import NumpyVersion
except ImportError:
    sys.exit(NO_ORACLE)
if NumpyVersion(np.__version__) < "2.3.0":
    sys.exit(NO_ORACLE)


def text(case):
    dtype = np.dtype(case["dtype"]).newbyteorder("<")
    flat = np.frombuffer(bytes.fromhex(case["hex"]), dtype)
    return str(flat.reshape(case["shape"]))


json.dump([text(case) for case in json.load(sys.stdin)], sys.stdout)
