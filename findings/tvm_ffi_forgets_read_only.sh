#!/usr/bin/env bash
# apache-tvm-ffi 0.1.15.post2 takes a read-only tensor, and hands it out writable.
#
# A guess: `from_dlpack` refuses a read-only NumPy array with NumPy's own
# BufferError, since it asks for the struct of before DLPack 1.0, which cannot say
# that it is read-only. So a tensor of TVM-FFI is always one that may be written.
#
# So it is in Python. But whoever asks NumPy for the versioned struct and hands that
# to the C function TVMFFITensorFromDLPackVersioned gets a tensor of the same
# memory. The flag READ_ONLY is not looked at, a tensor object has no place for it,
# and what is exported again says that it may be written. A consumer of such tensors
# has to keep the flag itself. Nothing is written here.
#
# Seen, and compared with what comes now:
#   apache-tvm-ffi 0.1.15.post2 and NumPy 2.4.6
#   read-only array: BufferError
#   its versioned struct: flags 1
#   taken: status 0
#   exported again: flags 0
#   the same address: True
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
  numpy==2.4.6 apache-tvm-ffi==0.1.15.post2 typing_extensions==4.16.0

cat >"$folder/run.py" <<'EOF'
import ctypes
from importlib.metadata import version

import numpy as np
import tvm_ffi

print("apache-tvm-ffi", version("apache-tvm-ffi"), "and NumPy", np.__version__)
array = np.array([1, 2, 3], np.float32)
array.flags.writeable = False
try:
    tvm_ffi.from_dlpack(array)
    print("read-only array: taken")
except BufferError as error:
    print("read-only array:", type(error).__name__)


NAME, USED = b"dltensor_versioned", b"used_dltensor_versioned"
python = ctypes.pythonapi
python.PyCapsule_GetPointer.restype = ctypes.c_void_p
python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
tvm = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())


def flags(address):  # DLManagedTensorVersioned.flags
    return ctypes.c_uint64.from_address(address + 24).value


class Exporter:
    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return (1, 0)


capsule = array.__dlpack__(max_version=(1, 0))
struct = python.PyCapsule_GetPointer(capsule, NAME)
print("its versioned struct: flags", flags(struct))
tensor, again = ctypes.c_void_p(), ctypes.c_void_p()
status = tvm.TVMFFITensorFromDLPackVersioned(
    ctypes.c_void_p(struct), 0, 0, ctypes.byref(tensor)
)
python.PyCapsule_SetName(capsule, USED)
print("taken: status", status)
tvm.TVMFFITensorToDLPackVersioned(tensor, ctypes.byref(again))
print("exported again: flags", flags(again.value))
seen = np.from_dlpack(Exporter(python.PyCapsule_New(again, NAME, None)))
print("the same address:", seen.ctypes.data == array.ctypes.data)
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
