#!/usr/bin/env bash
# pyarrow 26.0.1 and IREE 3.13.0 refuse some empty NumPy arrays as strided.
#
# A guess: strides mean nothing where there is no element, so whoever wants
# contiguous memory takes each empty array. NumPy's own flag says "contiguous"
# for all of those here.
#
# So it is: NumPy 2.4.6 writes strides of 0 for an array that was made empty. A
# slice that is empty keeps its parent's strides. The first counts as strided:
# `pyarrow.Array.from_dlpack` refuses `np.zeros(0)`, and IREE refuses
# `np.zeros((0, 3))`, while each takes an empty slice of the same shape. pyarrow
# also refuses a single element that comes from a slice with a step.
#
# Seen, and compared with what comes now:
#   NumPy 2.4.6
#   pyarrow 26.0.1, vector[:0] (0,) [1]: taken
#   pyarrow 26.0.1, made_empty (0,) [0]: Only contiguous one dimensional tensor can be imported as arrays
#   pyarrow 26.0.1, vector[::3][:1] (1,) [3]: Only contiguous one dimensional tensor can be imported as arrays
#   IREE 3.13.0, matrix[:0] (0, 3) [3, 1]: taken
#   IREE 3.13.0, made_empty_matrix (0, 3) [0, 0]: Unsupported strided tensor
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
  numpy==2.4.6 pyarrow==26.0.1 iree-base-runtime==3.13.0 ml_dtypes==0.6.0

cat >"$folder/run.py" <<'EOF'
from importlib.metadata import version

import iree.runtime as iree
import numpy as np
import pyarrow as pa

device = iree.get_driver("local-sync").create_default_device()
vector = np.zeros(24)
vector = vector[-vector.ctypes.data % 64 // 8 :][:9]  # IREE wants 64 bytes.
matrix = vector.reshape(3, 3)
made_empty = np.zeros(0)
made_empty_matrix = np.zeros((0, 3))


def by_iree(array):
    device.from_dlpack_capsule(array.__dlpack__())


def attempt(name, read, *arrays):
    for text in arrays:
        array = eval(text)
        assert array.flags.c_contiguous
        strides = [s // 8 for s in np.from_dlpack(array).strides]
        try:
            read(array)
            answer = "taken"
        except ValueError as error:  # pyarrow's ArrowInvalid is one, too.
            answer = str(error).split(".")[0]
        print(f"{name}, {text} {array.shape} {strides}: {answer}")


print("NumPy", np.__version__)
attempt("pyarrow " + pa.__version__, pa.Array.from_dlpack,
        "vector[:0]", "made_empty", "vector[::3][:1]")
attempt("IREE " + version("iree-base-runtime"), by_iree,
        "matrix[:0]", "made_empty_matrix")
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
