#!/usr/bin/env bash
# A DLPack tensor of ONNX Runtime's OrtValue does not keep the memory that the
# OrtValue shows.
#
# A guess: OrtValue.ortvalue_from_numpy(a) shares a's memory on the CPU, and
# keeps a. So does whoever takes the OrtValue by DLPack: what a capsule refers to
# lives until its deleter is called.
#
# So it is not: a is kept by the Python object OrtValue, not by the OrtValue of C,
# which is all that the capsule holds. Once the Python object is gone, a is gone,
# while the array made of the capsule still points to its memory. An OrtValue whose
# memory is its own is kept as it should be, and so is NumPy's own array. Keep the
# OrtValue for as long as the tensor.
#
# Nothing here reads that memory.
#
# Seen, and compared with what comes now:
#   numpy 2.4.6: shares memory True, source kept True
#   onnxruntime 1.32.0: shares memory True, source kept False
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
  --no-cache-dir --no-deps numpy==2.4.6 onnxruntime==1.32.0

cat >"$folder/run.py" <<'EOF'
import gc
import weakref
from importlib.metadata import version

import numpy as np
from onnxruntime import OrtValue

for package, wrap in {
    "numpy": lambda a: a,
    "onnxruntime": OrtValue.ortvalue_from_numpy,
}.items():
    source = np.ones(1000, np.float32)
    producer = wrap(source)
    array = np.from_dlpack(producer)
    shares = array.ctypes.data == source.ctypes.data
    there = weakref.ref(source)
    del source, producer
    gc.collect()
    print(f"{package} {version(package)}: shares memory {shares}, "
          f"source kept {there() is not None}")
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
