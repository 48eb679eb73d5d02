#!/usr/bin/env bash
# MLX 0.32.4 turns float64 into float32 when it imports through DLPack.
#
# A guess: MLX has float64 on the CPU and exports it through DLPack, so
# `from_dlpack` of a float64 array is float64. A dtype that it does not take
# would raise, as DLPack describes memory and converts nothing.
#
# So it is: `from_dlpack` makes float32 of float64, and complex64 of complex128,
# without a word, also with `copy=True` and also of MLX's own float64. Large
# numbers become infinite. A CPU array is never shared on the CPU build:
# `copy=False` raises, even for float32.
#
# Seen, and compared with what comes now:
#   MLX 0.32.4 and NumPy 2.4.6
#   MLX's own: mlx.core.float64 exported as float64
#     imported by MLX as mlx.core.float32
#   float64 becomes mlx.core.float32 [16777216.0, inf]
#     with copy=True mlx.core.float32
#   complex128 becomes mlx.core.complex64
#   float32 becomes mlx.core.float32
#   float16 becomes mlx.core.float16
#   int64 becomes mlx.core.int64
#   copy=False: [convert] Cannot import a CPU array without a copy.
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
  numpy==2.4.6 mlx==0.32.4 mlx-cpu==0.32.4

cat >"$folder/run.py" <<'EOF'
from importlib.metadata import version

import mlx.core as mx
import numpy as np

print("MLX", version("mlx"), "and NumPy", np.__version__)
own = mx.array(np.array([0.5, 1e300]).tolist(), dtype=mx.float64)
print("MLX's own:", own.dtype, "exported as", np.from_dlpack(own).dtype)
print("  imported by MLX as", mx.from_dlpack(own).dtype)
values = np.array([16777217, 1e300])
taken = mx.from_dlpack(values)
print(values.dtype, "becomes", taken.dtype, taken.tolist())
print("  with copy=True", mx.from_dlpack(values, copy=True).dtype)
for dtype in ["complex128", "float32", "float16", "int64"]:
    print(dtype, "becomes", mx.from_dlpack(np.ones(2, dtype)).dtype)
try:
    mx.from_dlpack(np.ones(2, np.float32), copy=False)
    print("copy=False: shared")
except ValueError as error:
    print("copy=False:", error)
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
