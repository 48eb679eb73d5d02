#!/usr/bin/env bash
# Through apache-tvm-ffi 0.1.15.post2 an immutable pyarrow array can be written.
#
# A guess: tvm-ffi writes DLPack 1.3 structs, so it asks producers for the
# versioned struct, keeps its read-only flag and hands it on. An Arrow array is
# then read-only in NumPy, with or without tvm-ffi in between.
#
# So it is: tvm-ffi asks without `max_version`. pyarrow 26.0.1 answers with the
# legacy struct, which has no flags; its DeprecationWarning says nothing of the
# lost one. tvm-ffi's own 1.3 struct has flags 0, and NumPy writes into the Arrow
# array. NumPy answers the same question with an error instead: so tvm-ffi
# refuses a read-only NumPy array and takes an immutable Arrow array.
#
# Seen:
#   tvm-ffi 0.1.15.post2 with pyarrow 26.0.1 and NumPy 2.4.6
#   read-only NumPy: BufferError
#   pyarrow to NumPy: writable False
#   pyarrow to tvm-ffi to NumPy: writable True
#   the Arrow array after a write: [99, 2, 3]
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
  numpy==2.4.6 pyarrow==26.0.1 apache-tvm-ffi==0.1.15.post2 \
  typing_extensions==4.16.0

cat >"$folder/run.py" <<'EOF'
import warnings
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import tvm_ffi

warnings.simplefilter("ignore", DeprecationWarning)
print("tvm-ffi", version("apache-tvm-ffi"), "with pyarrow", pa.__version__,
      "and NumPy", np.__version__)

fixed = np.array([1, 2, 3], np.int32)
fixed.flags.writeable = False
try:
    tvm_ffi.from_dlpack(fixed)
    print("read-only NumPy: taken")
except BufferError:
    print("read-only NumPy: BufferError")

column = pa.array([1, 2, 3], pa.int32())
print("pyarrow to NumPy: writable", np.from_dlpack(column).flags.writeable)
through = np.from_dlpack(tvm_ffi.from_dlpack(column))
print("pyarrow to tvm-ffi to NumPy: writable", through.flags.writeable)
through[0] = 99
print("the Arrow array after a write:", column.to_pylist())
EOF

cat >"$folder/expected" <<'EOF'
tvm-ffi 0.1.15.post2 with pyarrow 26.0.1 and NumPy 2.4.6
read-only NumPy: BufferError
pyarrow to NumPy: writable False
pyarrow to tvm-ffi to NumPy: writable True
the Arrow array after a write: [99, 2, 3]
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff "$folder/expected" "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
