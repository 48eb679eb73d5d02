#!/usr/bin/env bash
# OpenBLAS 0.3.34: gemv with beta 0 leaves y as it was when A has no columns.
#
# A guess: y = alpha A x + beta y with beta 0 writes zeros, as a sum of nothing
# is 0. So a result may be put into memory that was never set, as with gemm.
#
# So it is: gemm over an axis of length 0 writes zeros. gemv returns at once and
# writes nothing, whatever beta is: an empty tensor times an empty vector leaves
# what was in y. NumPy 2.4.6 answers zeros, since it does not ask BLAS then.
#
# Seen, and compared with what comes now:
#   OpenBLAS 0.3.34.0.0 and NumPy 2.4.6
#   one column, beta 0: gemv [1.0, 1.0]
#   no column, beta 0 gemm [0.0, 0.0]
#   no column, beta 0 gemv [7.0, 8.0]
#   no column, beta 2 gemm [14.0, 16.0]
#   no column, beta 2 gemv [7.0, 8.0]
#   NumPy [0.0, 0.0]
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
  numpy==2.4.6 scipy-openblas32==0.3.34.0.0

cat >"$folder/run.py" <<'EOF'
import ctypes
from importlib.metadata import version

import numpy as np
import scipy_openblas32

c = ctypes.CDLL(scipy_openblas32.get_lib_dir() + "/libscipy_openblas.so")
ROWS, AS_IS = 101, 111  # CblasRowMajor and CblasNoTrans


def at(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def gemv(a, x, beta, y):
    c.scipy_cblas_dgemv(
        ROWS, AS_IS, a.shape[0], a.shape[1], ctypes.c_double(1), at(a),
        max(1, a.shape[1]), at(x), 1, ctypes.c_double(beta), at(y), 1,
    )
    return y.tolist()


def gemm(a, b, beta, y):
    c.scipy_cblas_dgemm(
        ROWS, AS_IS, AS_IS, a.shape[0], b.shape[1], a.shape[1],
        ctypes.c_double(1), at(a), max(1, a.shape[1]), at(b), b.shape[1],
        ctypes.c_double(beta), at(y), b.shape[1],
    )
    return y.tolist()


print("OpenBLAS", version("scipy-openblas32"), "and NumPy", np.__version__)
a, x = np.ones((2, 1)), np.ones(1)
print("one column, beta 0: gemv", gemv(a, x, 0, np.array([7.0, 8.0])))
a, x = np.ones((2, 0)), np.ones(0)
for beta in (0, 2):
    y = np.array([7.0, 8.0])
    print("no column, beta", beta, "gemm", gemm(a, x.reshape(0, 1), beta, y))
    y = np.array([7.0, 8.0])
    print("no column, beta", beta, "gemv", gemv(a, x, beta, y))
print("NumPy", (a @ x).tolist())
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
