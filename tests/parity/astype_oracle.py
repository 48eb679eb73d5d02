"""Prints what NumPy's astype, with ml_dtypes' dtypes, makes of arrays.

usage: python astype_oracle.py < CASES.json > RESULTS.json

CASES.json is an array of {"from", "to", "hex"}: two dtypes and the elements'
bytes, little-endian; elements of fewer than 8 bits have a byte each.
RESULTS.json is an array of the converted elements' bytes, in hexadecimal, or
null where NumPy has no such conversion, or no such dtype.

Exit status 77: NumPy or ml_dtypes is missing.
"""

import json
import sys
import warnings

NO_ORACLE = 77

try:
    import ml_dtypes
    import numpy as np
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(NO_ORACLE)


def dtype_of(name):
    """The dtype of that name, little-endian; None where there is none."""
    try:
        return np.dtype(getattr(ml_dtypes, name, name)).newbyteorder("<")
    except TypeError:
        return None


def convert(case):
    source, target = dtype_of(case["from"]), dtype_of(case["to"])
    if source is None or target is None:
        return None
    elements = np.frombuffer(bytes.fromhex(case["hex"]), source)
    try:
        return elements.astype(target).tobytes().hex()
    except TypeError:
        return None


np.seterr(all="ignore")  # overflow to infinity is what is asked for
warnings.simplefilter("ignore")  # imaginary parts that are discarded
json.dump([convert(case) for case in json.load(sys.stdin)], sys.stdout)
