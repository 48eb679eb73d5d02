#!/usr/bin/env bash
# Paddle calls the deleter of a tensor only if its manager_ctx is not NULL.
#
# A guess: manager_ctx is the producer's own business; who needs no context, as
# its deleter finds all in the struct, leaves it NULL. dlpack.h says that it can
# be NULL. A consumer calls the deleter, if there is one.
#
# So it is with NumPy. Paddle 3.3.1 takes the struct, works on its memory, lets
# go of it, and never calls the deleter: the memory of every such tensor is lost.
# With any other value in manager_ctx the deleter is called, once.
#
# Seen, and compared with what comes now:
#   numpy 2.4.6 manager_ctx 0 deleter calls 1
#   numpy 2.4.6 manager_ctx 1 deleter calls 1
#   paddlepaddle 3.3.1 manager_ctx 0 deleter calls 0
#   paddlepaddle 3.3.1 manager_ctx 1 deleter calls 1
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
  --no-cache-dir paddlepaddle==3.3.1 numpy==2.4.6

cat >"$folder/run.py" <<'EOF'
import ctypes
import gc
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
import numpy as np
import paddle


class Tensor(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


calls = []
deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(calls.append)
memory = (ctypes.c_float * 3)(1, 2, 3)
shape, strides = (ctypes.c_int64 * 1)(3), (ctypes.c_int64 * 1)(1)
new = ctypes.pythonapi.PyCapsule_New
new.restype = ctypes.py_object
new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
name = b"dltensor_versioned"
kept = []


class Producer:
    def __init__(self, manager_ctx):
        self.struct = Tensor(
            (1, 0), manager_ctx, ctypes.cast(deleter, ctypes.c_void_p), 0,
            ctypes.addressof(memory), (1, 0), 1, 2, 32, 1, shape, strides, 0,
        )
        kept.append(self.struct)

    def __dlpack__(self, **_):
        return new(ctypes.addressof(self.struct), name, None)

    def __dlpack_device__(self):
        return (1, 0)


for package, take in [
    ("numpy", np.from_dlpack),
    ("paddlepaddle", paddle.utils.dlpack.from_dlpack),
]:
    for manager_ctx in 0, 1:
        calls.clear()
        array = take(Producer(manager_ctx))
        assert float(array.sum()) == 6
        del array
        gc.collect()
        print(package, version(package), "manager_ctx", manager_ctx,
              "deleter calls", len(calls))
EOF

"$folder/venv/bin/python" "$folder/run.py" 2>"$folder/errors" |
  tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  cat "$folder/errors" >&2
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
