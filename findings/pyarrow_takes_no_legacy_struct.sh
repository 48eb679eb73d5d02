#!/usr/bin/env bash
# pyarrow 26.0.1 does not import the legacy struct, which it exports itself.
#
# A guess: `Tensor.from_dlpack` takes any `DLManagedTensor`, and asks once more
# without `max_version` if the producer does not know that keyword. NumPy does
# both, and pyarrow's own export still has a legacy path.
#
# So it is: the import takes the versioned struct only. What nanoarrow 0.9.0, of
# the same Apache Arrow project, and Dr.Jit 1.5.0 offer is a TypeError, as they
# do not know `max_version`. MLX 0.32.4 knows it and answers with a legacy
# struct, which is a ValueError about a wrong name. pyarrow's own legacy capsule
# fails in the same way. NumPy 2.4.6 reads them all.
#
# Seen, and compared with what comes now:
#   pyarrow 26.0.1 imports through DLPack:
#   NumPy 2.4.6: pyarrow [1.0, 2.0], NumPy [1.0, 2.0]
#   nanoarrow 0.9.0: pyarrow TypeError, NumPy [1.0, 2.0]
#   Dr.Jit 1.5.0: pyarrow TypeError, NumPy [1.0, 2.0]
#   MLX 0.32.4: pyarrow ValueError, NumPy [1.0, 2.0]
#   pyarrow's own legacy capsule: pyarrow ValueError, NumPy [1.0, 2.0]
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
  numpy==2.4.6 pyarrow==26.0.1 nanoarrow==0.9.0 typing_extensions==4.16.0 \
  drjit==1.5.0 mlx==0.32.4 mlx-cpu==0.32.4

cat >"$folder/run.py" <<'EOF'
import warnings
from importlib.metadata import version

import mlx.core as mx
import nanoarrow
import numpy as np
import pyarrow as pa
from drjit.scalar import ArrayXf

warnings.simplefilter("ignore", DeprecationWarning)


class Legacy:
    """A pyarrow array, as it answers who does not say `max_version`."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def attempt(read, producer):
    try:
        return read(producer)
    except (TypeError, ValueError) as error:
        return type(error).__name__


buffer = nanoarrow.c_array([1.0, 2.0], nanoarrow.float32()).view().buffer(1)
producers = {
    "NumPy " + np.__version__: np.array([1, 2], np.float32),
    "nanoarrow " + version("nanoarrow"): buffer,
    "Dr.Jit " + version("drjit"): ArrayXf([1, 2]),
    "MLX " + version("mlx"): mx.array([1.0, 2.0]),
    "pyarrow's own legacy capsule": Legacy(pa.array([1, 2], pa.float32())),
}
print("pyarrow", pa.__version__, "imports through DLPack:")
for name, producer in producers.items():
    by_numpy = attempt(lambda p: np.from_dlpack(p).tolist(), producer)
    by_arrow = attempt(
        lambda p: pa.Tensor.from_dlpack(p).to_numpy().tolist(), producer
    )
    print(f"{name}: pyarrow {by_arrow}, NumPy {by_numpy}")
EOF

"$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
