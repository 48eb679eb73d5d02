"""Writes .npy files, and compares them with what was made of them.

usage: python npy_oracle.py write  < FOLDER.json > FILES.json
       python npy_oracle.py compare < FOLDER.json > DIFFERENT.json

FOLDER.json is the path of a folder. FILES.json says for each file, 0.npy and so
on, its "dtype", "shape" and "values", as tolist() gives them, bigints as text and
complex numbers as {re, im}. DIFFERENT.json are the names of those files i.npy
that i.out.npy differs from.

Exit status 77: NumPy is missing.
"""

import json
import os
import sys

try:
    import numpy as np
    from numpy.lib import format as npy
except ImportError:
    sys.exit(77)

DTYPES = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8",
          "c8", "c16", "M8[ns]", "m8[s]"]
SHAPES = [(), (3,), (2, 3), (4, 1, 3), (0, 2), (3, 2, 2, 2)]


def plain(value):
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, complex):
        return {"re": value.real, "im": value.imag}
    return value


def write(folder):
    random = np.random.default_rng(1)
    files = []
    for dtype in DTYPES:
        for order in "<>":
            for shape in SHAPES:
                for fortran in (False, True):
                    kind = np.dtype(order + dtype)
                    size = int(np.prod(shape))
                    raw = random.integers(0, 100, (size, kind.itemsize), np.uint8)
                    if kind.kind == "b":
                        raw %= 2
                    x = raw.view(kind).reshape(shape)
                    x = np.asarray(x, order="F" if fortran else "C")
                    version = [(1, 0), (2, 0), (3, 0)][len(files) % 3]
                    path = os.path.join(folder, f"{len(files)}.npy")
                    with open(path, "wb") as file:
                        npy.write_array(file, x, version)
                    if kind.kind in "Mm":
                        x = x.view(order + "i8")
                    values = plain(x.tolist())
                    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
                        values = plain(x.astype(str).tolist())
                    files.append({"dtype": x.dtype.newbyteorder("=").name,
                                  "shape": shape, "values": values})
    np.save(os.path.join(folder, "text.npy"), np.array(["a", "bc"]))
    np.save(os.path.join(folder, "structure.npy"), np.zeros(2, "i4,f4"))
    return files


def compare(folder):
    different = []
    for name in os.listdir(folder):
        if not name.endswith(".out.npy"):
            continue
        out = np.load(os.path.join(folder, name))
        x = np.load(os.path.join(folder, name.replace(".out", "")))
        if x.dtype.kind in "Mm":
            x = x.view(x.dtype.byteorder + "i8")
        same = (out.shape == x.shape and out.dtype == x.dtype.newbyteorder("=")
                and x.astype(out.dtype).tobytes() == out.tobytes()
                and out.flags.f_contiguous == x.flags.f_contiguous)
        if not same:
            different.append(name)
    return different


folder = json.load(sys.stdin)
print(json.dumps(write(folder) if sys.argv[1] == "write" else compare(folder)))
