#!/usr/bin/env bash
# decord 0.6.0 accepts strided tensors and copies them out as if compact.
#
# A guess: `decord.ndarray.from_dlpack` of every second element, or of a
# transposed matrix, either keeps the strides or raises. `asnumpy()` then gives
# what NumPy had.
#
# So it is: the import keeps the strides, and the export hands them on, so a
# round trip is right. `asnumpy()` of the same array copies as many bytes as
# there are elements from its start, and gives other elements, without an error.
#
# Seen, and compared with what comes now:
#   decord 0.6.0 and NumPy 2.4.6
#   compact [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#     to_dlpack() [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#     asnumpy()   [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   every second [0.0, 2.0, 4.0]
#     to_dlpack() [0.0, 2.0, 4.0]
#     asnumpy()   [0.0, 1.0, 2.0]
#   transposed [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#     to_dlpack() [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#     asnumpy()   [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
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
  numpy==2.4.6 decord==0.6.0

cat >"$folder/run.py" <<'EOF'
import decord
import numpy as np
from decord import ndarray


class Exporter:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.to_dlpack()

    def __dlpack_device__(self):
        return (1, 0)


print("decord", decord.__version__, "and NumPy", np.__version__)
matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
for name, array in {
    "compact": matrix,
    "every second": matrix.ravel()[::2],
    "transposed": matrix.T,
}.items():
    taken = ndarray.from_dlpack(array.__dlpack__())
    back = np.from_dlpack(Exporter(taken))
    print(name, array.tolist())
    print("  to_dlpack()", back.tolist())
    print("  asnumpy()  ", taken.asnumpy().tolist())
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
