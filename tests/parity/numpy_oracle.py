"""Prints what numpy.from_dlpack makes of the cases of cases.ts.

usage: python numpy_oracle.py < CASES.json > RESULTS.json

CASES.json is an array of ParityCase (cases.ts); RESULTS.json an array of
OracleResult (oracle.ts), one for each case, struct and set of options. Every one
is run in a child process of its own, so that a crash is an outcome as well.

Exit status 77: NumPy >= 2.1 or os.fork is missing.
"""

import ctypes
import gc
import json
import math
import os
import sys

NO_ORACLE = 77

try:
    import numpy as np
except ImportError:
    sys.exit(NO_ORACLE)
if np.lib.NumpyVersion(np.__version__) < "2.1.0" or not hasattr(os, "fork"):
    sys.exit(NO_ORACLE)

OPTIONS = ({}, {"copy": True}, {"copy": False}, {"device": "cpu"})
ALIGNMENT = 4096


class DLDevice(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class DLDataType(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class DLManagedTensor(ctypes.Structure):
    _fields_ = [
        ("dl_tensor", DLTensor),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", DELETER),
    ]


class DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("dl_tensor", DLTensor),
    ]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule_is_valid = ctypes.pythonapi.PyCapsule_IsValid
capsule_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]


def int64s(values):
    """A pointer to the values, or None; with one more, so never NULL."""
    if values is None:
        return None
    array = (ctypes.c_int64 * (len(values) + 1))(*values, -1)
    return ctypes.cast(array, ctypes.POINTER(ctypes.c_int64))


class Exporter:
    """Hands one case out, whatever it is asked for, and counts deleter calls."""

    def __init__(self, case, kind):
        self.deleted = 0
        self.device = tuple(case["device"])

        data = bytes(case["data"])
        self.size = len(data)
        self.memory = ctypes.create_string_buffer(self.size + ALIGNMENT)
        start = ctypes.addressof(self.memory)
        self.address = start + -start % ALIGNMENT
        ctypes.memmove(self.address, data, self.size)

        tensor = DLTensor(
            data=None if case["nullData"] else self.address + case["origin"],
            device=DLDevice(*case["device"]),
            ndim=case["ndim"],
            dtype=DLDataType(*case["dtype"]),
            shape=int64s(case["shape"]),
            strides=int64s(case["strides"]),
            byte_offset=case["byteOffset"],
        )
        deleter = DELETER() if case["deleter"] == "null" else DELETER(self.delete)
        if kind == "versioned":
            self.name = b"dltensor_versioned"
            self.managed = DLManagedTensorVersioned(
                *case["version"],
                deleter=deleter,
                flags=int(case["flags"]),
                dl_tensor=tensor,
            )
        else:
            self.name = b"dltensor"
            self.managed = DLManagedTensor(dl_tensor=tensor, deleter=deleter)
        self.capsule = new_capsule(ctypes.addressof(self.managed), self.name, None)

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return self.device

    def delete(self, managed):
        assert managed == ctypes.addressof(self.managed)
        self.deleted += 1

    def drop_capsule(self):
        """What a capsule's destructor does: delete what nobody took over."""
        if capsule_is_valid(self.capsule, self.name) and self.managed.deleter:
            self.managed.deleter(ctypes.addressof(self.managed))


def plain(value):
    """tolist()'s values as JSON can hold them: complex numbers as re and im,
    integers beyond 2**53, nan and inf as strings."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, complex):
        return {"re": plain(value.real), "im": plain(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**53 else str(value)
    return value


def run(case, kind, options):
    exporter = Exporter(case, kind)
    result = {"outcome": "ok"}
    array = None
    try:
        array = np.from_dlpack(exporter, **options)
    except Exception as error:
        result = {
            "outcome": "error",
            "class": type(error).__name__,
            "message": str(error),
        }
    gc.collect()
    exporter.drop_capsule()
    result["deletedAfterImport"] = exporter.deleted
    if array is not None:
        first = array.__array_interface__["data"][0]
        distance = first - exporter.address
        result["array"] = {
            "dtype": array.dtype.name,
            "shape": array.shape,
            "strides": [stride // array.itemsize for stride in array.strides],
            "distance": distance if 0 <= distance <= exporter.size else None,
            "values": plain(array.tolist()),
            "bytes": array.tobytes().hex(),
            "writeable": array.flags.writeable,
        }
        del array
        gc.collect()
    result["deletedAtEnd"] = exporter.deleted
    return result


def run_in_child(case, kind, options):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(run(case, kind, options), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return {"outcome": "crash", "signal": -status}
    return json.loads(answer)


results = []
gc.freeze()  # the modules: what each child collects is only its own
for case in json.load(sys.stdin):
    for kind in case["kinds"]:
        for options in OPTIONS:
            head = {"name": case["name"], "kind": kind, "options": options}
            results.append({**head, **run_in_child(case, kind, options)})
json.dump(results, sys.stdout)
