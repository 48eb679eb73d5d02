#!/usr/bin/env bash
# NumPy and ONNX Runtime refuse MXNet 1.9.1's bool, and MXNet refuses theirs.
#
# A guess: bool came late to DLPack, so MXNet raises, or exports a uint8. Where
# the export works, somebody reads it.
#
# So it is: MXNet exports bool as a uint of 1 bit, with a byte for each element,
# in the legacy struct. NumPy and ONNX Runtime refuse that type, though they
# take a bool of DLPack's own code in the same struct. apache-tvm-ffi takes it
# as uint1: by DLPack's rules of today six of those fit in one byte, but there
# are six bytes. The other way round MXNet refuses DLPack's own bool.
#
# MXNet's Python module does not start with a NumPy of today, so its C functions
# are called. They need the system's libgomp and libquadmath.
#
# Seen, and compared with what comes now:
#   MXNet 1.9.1 code 1 bits 1 bytes [1, 0, 1, 1, 1, 0]
#   numpy 2.4.6 - MXNet's bool: RuntimeError - NumPy's: bool
#   onnxruntime 1.32.0 - MXNet's bool: RuntimeError - NumPy's: bool
#   apache-tvm-ffi 0.1.15.post2 - MXNet's bool: uint1 - NumPy's: bool
#   MXNet with NumPy's: status -1 - dtype known: False
set -euo pipefail

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
  [[ "$(uname -sm)" != "Linux x86_64" ]]; then
  echo "The pinned wheels need CPython 3.11 on Linux x86-64. Set PYTHON." >&2
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  --no-cache-dir --no-deps \
  numpy==2.4.6 mxnet==1.9.1 onnxruntime==1.32.0 apache-tvm-ffi==0.1.15.post2 \
  typing_extensions==4.16.0

cat >"$folder/run.py" <<'EOF'
import ctypes
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tvm_ffi
from onnxruntime import OrtValue

c = ctypes.CDLL(Path(find_spec("mxnet").origin).parent / "libmxnet.so")
c.MXGetLastError.restype = ctypes.c_char_p
py = ctypes.pythonapi
py.PyCapsule_New.restype = ctypes.py_object
py.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
py.PyCapsule_GetPointer.restype = ctypes.c_void_p
py.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

values = np.array([[1, 0, 1], [1, 1, 0]], np.bool_)
made, shape = ctypes.c_void_p(), (ctypes.c_uint32 * 2)(2, 3)
# 1, 0 is the CPU, and 7 is MXNet's number for bool.
assert not c.MXNDArrayCreateEx(shape, 2, 1, 0, 0, 7, ctypes.byref(made))
data = values.ctypes.data_as(ctypes.c_void_p)
assert not c.MXNDArraySyncCopyFromCPU(made, data, ctypes.c_size_t(6))


def of_mxnet():
    out = ctypes.c_void_p()
    assert not c.MXNDArrayToDLPack(made, ctypes.byref(out))
    return py.PyCapsule_New(out, b"dltensor", None)


def attempt(read, capsule):
    class Producer:
        __dlpack__ = lambda self, **_: capsule
        __dlpack_device__ = lambda self: (1, 0)

    try:
        return str(read(Producer()).dtype)
    except RuntimeError:
        return "RuntimeError"


struct = py.PyCapsule_GetPointer(of_mxnet(), b"dltensor")
code, bits, lanes = ctypes.string_at(struct + 20, 3)
seen = ctypes.string_at(ctypes.c_void_p.from_address(struct).value, 6)
print("MXNet", version("mxnet"), "code", code, "bits", bits, "bytes", [*seen])
for name, read in {
    "numpy": np.from_dlpack,
    "onnxruntime": lambda p: OrtValue.from_dlpack(p).numpy(),
    "apache-tvm-ffi": tvm_ffi.from_dlpack,
}.items():
    print(name, version(name), "- MXNet's bool:", attempt(read, of_mxnet()),
          "- NumPy's:", attempt(read, values.__dlpack__()))
capsule = values.__dlpack__()
theirs = ctypes.c_void_p(py.PyCapsule_GetPointer(capsule, b"dltensor"))
status = c.MXNDArrayFromDLPackEx(theirs, False, ctypes.byref(ctypes.c_void_p()))
known = b"Unknown DLDataType" not in c.MXGetLastError()
print("MXNet with NumPy's: status", status, "- dtype known:", known)
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
