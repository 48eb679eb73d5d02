#!/usr/bin/env bash
# dpnp 0.20.0 hands out arrays through DLPack that it has not computed yet.
#
# A guess: who asks `x.__dlpack__()` without a stream, as a consumer does that
# knows none of SYCL, gets memory that is ready, or that becomes ready before
# what the consumer then starts: so it is of CUDA's arrays in PyTorch and CuPy,
# and the array API has `stream` for whoever wants less.
#
# So it is: dpnp waits for nothing, whether no stream is given or None, and
# SYCL's queues do not wait for each other. What reads the struct's memory at
# once, by another queue or as the host, reads what was there before. Only a copy
# to the host, by `dl_device=(1, 0)`, waits. Else `x.sycl_queue` must be waited
# for, or be known to the consumer.
#
# Seen, and compared with what comes now:
#   dpnp 0.20.0, dpctl 0.22.1
#   __dlpack__(), read at once: before the kernels were done
#   __dlpack__(stream=None), read at once: before the kernels were done
#   __dlpack__(), after sycl_queue.wait(): 31.0
#   __dlpack__(dl_device=(1, 0)): 31.0
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
packages=(numpy==2.4.6 dpnp==0.20.0 dpctl==0.22.1 tbb==2023.2.0 umf==1.2.0
  mkl==2026.2.0)
for package in intel-sycl-rt intel-opencl-rt intel-cmplr-lib-rt \
  intel-cmplr-lib-ur onemkl-sycl-blas onemkl-sycl-dft onemkl-sycl-lapack \
  onemkl-sycl-rng onemkl-sycl-vm; do
  packages+=("$package==2026.2.0")
done
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  --no-cache-dir --no-deps "${packages[@]}"

cat >"$folder/run.py" <<'EOF'
import ctypes
from importlib.metadata import version

import dpnp
import numpy as np

# Shared memory of SYCL, which the host may read when no kernel writes it.
ones = dpnp.ones(8 << 20, dtype="float32", usm_type="shared")
api = ctypes.pythonapi
api.PyCapsule_GetPointer.restype = ctypes.c_void_p


def compute():
    x = ones
    for _ in range(30):
        x = x * 1.0 + 1.0
    return x


def last_of(capsule, name=b"dltensor_versioned"):
    """The last element, where the struct says that the memory is."""
    struct = api.PyCapsule_GetPointer(ctypes.py_object(capsule), name)
    data = ctypes.c_void_p.from_address(struct + 32).value
    return ctypes.c_float.from_address(data + 4 * ones.size - 4).value


compute().sycl_queue.wait()  # kernels are compiled once
print(f"dpnp {version('dpnp')}, dpctl {version('dpctl')}")
for text, options in (("", {}), ("stream=None", {"stream": None})):
    x = compute()
    value = last_of(x.__dlpack__(max_version=(1, 3), **options))
    x.sycl_queue.wait()
    when = "before" if value != 31 else "after"
    print(f"__dlpack__({text}), read at once: {when} the kernels were done")
x = compute()
capsule = x.__dlpack__(max_version=(1, 3))
x.sycl_queue.wait()
print("__dlpack__(), after sycl_queue.wait():", last_of(capsule))
x = compute()
host = x.__dlpack__(max_version=(1, 3), dl_device=(1, 0))
print("__dlpack__(dl_device=(1, 0)):", last_of(host))
EOF

# The device is Intel's OpenCL for the CPU, which pip does not register.
OCL_ICD_FILENAMES=$folder/venv/lib/libintelocl.so \
  "$folder/venv/bin/python" "$folder/run.py" | tee "$folder/seen"
if ! diff <(sed -n 's/^#   //p' "$0") "$folder/seen"; then
  echo "The behaviour is no longer as described." >&2
  exit 1
fi
