#!/usr/bin/env bash
# pyarrow 26.0.1 and IREE 3.13.0 refuse NumPy arrays that NumPy calls contiguous.
#
# A guess: strides along an axis of length 0 or 1 mean nothing, so a consumer
# that wants contiguous memory takes every empty array and every single element.
# NumPy's flag says "contiguous" for them.
#
# So it is: NumPy 2.4.6 writes strides of 0 for an empty array, and keeps the
# stride of the slice for a single element. `pyarrow.Array.from_dlpack` compares
# them with 1, and IREE compares those of the empty array with the compact ones.
# Both say that they want contiguous memory. `np.empty(0)` cannot be passed to
# either. The same arrays with compact strides are taken (JAX and MLX write those
# for empty arrays; here `Compact` does).
#
# Seen:
#   todo
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
  numpy==2.4.6 pyarrow==26.0.1 iree-base-runtime==3.13.0

cat >"$folder/run.py" <<'EOF'
import warnings
from importlib.metadata import version

import iree.runtime as iree
import numpy as np
import pyarrow as pa

warnings.simplefilter("ignore", DeprecationWarning)
print("pyarrow", pa.__version__, "and IREE", version("iree-base-runtime"),
      "with NumPy", np.__version__)
EOF

cat >"$folder/expected" <<'EOF'
todo
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff "$folder/expected" "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
