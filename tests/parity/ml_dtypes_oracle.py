"""Writes what ml_dtypes and numpy make of small floats into a folder.

usage: python ml_dtypes_oracle.py FOLDER

Files, all little-endian:
  inputs            float32: values to encode (every bfloat16, every float16,
                    random bit patterns, midpoints of each format and the
                    float32 on either side of them)
  KIND.decoded      float64: value of every bit pattern of KIND
  KIND.encoded      uint8 (uint16 for bfloat16 and float16): `inputs` as KIND
Prints JSON: the values of every pattern of the small integers that this
ml_dtypes has, {"int4": [0, 1, ...], ...}.

Exit status 77: ml_dtypes is missing, or too old to have every kind.
"""

import json
import pathlib
import sys

NO_ORACLE = 77

FLOATS = {
    "float16": 16,
    "bfloat16": 16,
    "float8_e3m4": 8,
    "float8_e4m3": 8,
    "float8_e4m3b11fnuz": 8,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
    "float4_e2m1fn": 4,
}
INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "int1": 1, "uint1": 1}

try:
    import ml_dtypes
    import numpy as np

    DTYPES = {
        kind: np.dtype(np.float16 if kind == "float16" else getattr(ml_dtypes, kind))
        for kind in FLOATS
    }
except (ImportError, AttributeError) as error:
    print(error, file=sys.stderr)
    sys.exit(NO_ORACLE)


def unsigned(dtype):
    """The unsigned integer that holds one element's bits."""
    return np.dtype(f"<u{dtype.itemsize}")


def patterns(dtype, bits):
    """An array with every bit pattern of the dtype, in order."""
    return np.arange(1 << bits).astype(unsigned(dtype)).view(dtype)


def around_midpoints(values):
    """Midpoints of adjacent finite values, with their float32 neighbours."""
    finite = np.unique(values[np.isfinite(values)])
    middle = ((finite[1:] + finite[:-1]) / 2).astype("<f4")
    below = np.nextafter(middle, np.float32(-np.inf))
    above = np.nextafter(middle, np.float32(np.inf))
    return [below, middle, above]


def beyond_largest(values):
    """Where rounding leaves the format: the tie above the largest value."""
    finite = np.unique(values[np.isfinite(values)])
    tie = (finite[-1] + (finite[-1] - finite[-2]) / 2).astype("<f4")
    near = [np.nextafter(tie, np.float32(0)), tie, np.nextafter(tie, np.float32(np.inf))]
    return np.array([near, [-value for value in near]], "<f4").ravel()


def main(folder):
    np.seterr(all="ignore")  # overflow is what is asked for
    decoded = {
        kind: patterns(DTYPES[kind], bits).astype("<f8")
        for kind, bits in FLOATS.items()
    }
    random_bits = np.random.default_rng(2024).integers(
        0, 1 << 32, 100_000, dtype=np.uint32
    )
    inputs = [random_bits.astype("<u4").view("<f4")]
    inputs += [decoded["bfloat16"].astype("<f4"), decoded["float16"].astype("<f4")]
    for values in decoded.values():
        inputs += around_midpoints(values)
        inputs.append(beyond_largest(values))
    inputs = np.concatenate(inputs)

    inputs.tofile(folder / "inputs")
    for kind, dtype in DTYPES.items():
        decoded[kind].tofile(folder / f"{kind}.decoded")
        encoded = inputs.astype(dtype).view(unsigned(dtype))
        encoded.tofile(folder / f"{kind}.encoded")

    integers = {}
    for kind, bits in INTEGERS.items():
        if hasattr(ml_dtypes, kind):
            dtype = np.dtype(getattr(ml_dtypes, kind))
            integers[kind] = patterns(dtype, bits).astype(np.int64).tolist()
    print(json.dumps(integers))


main(pathlib.Path(sys.argv[1]))
