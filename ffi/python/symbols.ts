/**
 * The functions of Python's C API that are used here, from Python 3.9 on.
 *
 * Objects and strings are `"pointer"` where the caller has one, `"u64"` where it
 * has an address, which is as fast.
 *
 * @module
 */

const reference = { result: "pointer" } as const;
const status = { result: "i32" } as const;
const nothing = { result: "void" } as const;

export const symbols = {
  // ---- start and end ----
  Py_IsInitialized: { parameters: [], ...status },
  Py_InitializeEx: {
    parameters: [
      "i32", // int initsigs
    ],
    ...nothing,
  },
  Py_FinalizeEx: { parameters: [], ...status },
  Py_DecodeLocale: {
    parameters: [
      "buffer", // const char *arg
      "pointer", // size_t *size
    ],
    ...reference,
  },
  /** Until Python 3.14. */
  Py_SetProgramName: {
    parameters: [
      "pointer", // const wchar_t *name
    ],
    ...nothing,
    optional: true,
  },
  /** Until Python 3.14: `int`, whether all text is UTF-8, whatever the locale. */
  Py_UTF8Mode: { type: "pointer", optional: true },
  /** From Python 3.14 on, as all of its kind. */
  PyInitConfig_Create: { parameters: [], ...reference, optional: true },
  PyInitConfig_SetInt: {
    parameters: [
      "pointer", // PyInitConfig *config
      "buffer", // const char *name
      "i64", // int64_t value
    ],
    ...status,
    optional: true,
  },
  PyInitConfig_SetStr: {
    parameters: [
      "pointer", // PyInitConfig *config
      "buffer", // const char *name
      "buffer", // const char *value
    ],
    ...status,
    optional: true,
  },
  PyInitConfig_GetError: {
    parameters: [
      "pointer", // PyInitConfig *config
      "buffer", // const char **err_msg
    ],
    ...status,
    optional: true,
  },
  PyInitConfig_Free: {
    parameters: [
      "pointer", // PyInitConfig *config
    ],
    ...nothing,
    optional: true,
  },
  Py_InitializeFromInitConfig: {
    parameters: [
      "pointer", // PyInitConfig *config
    ],
    ...status,
    optional: true,
  },

  // ---- the global interpreter lock ----
  PyGILState_Check: { parameters: [], ...status },
  PyGILState_Ensure: { parameters: [], ...status },
  PyGILState_Release: {
    parameters: [
      "i32", // PyGILState_STATE state
    ],
    ...nothing,
  },
  PyEval_SaveThread: { parameters: [], ...reference },
  PyEval_RestoreThread: {
    parameters: [
      "pointer", // PyThreadState *tstate
    ],
    ...nothing,
  },

  // ---- objects ----
  Py_IncRef: {
    parameters: [
      "pointer", // PyObject *o
    ],
    ...nothing,
  },
  Py_DecRef: {
    parameters: [
      "pointer", // PyObject *o
    ],
    ...nothing,
  },
  PyObject_Type: {
    parameters: [
      "pointer", // PyObject *o
    ],
    ...reference,
  },
  PyObject_GetAttr: {
    parameters: [
      "pointer", // PyObject *o
      "pointer", // PyObject *attr_name
    ],
    ...reference,
  },
  PyObject_HasAttr: {
    parameters: [
      "pointer", // PyObject *o
      "pointer", // PyObject *attr_name
    ],
    ...status,
  },
  PyObject_Call: {
    parameters: [
      "pointer", // PyObject *callable
      "pointer", // PyObject *args
      "pointer", // PyObject *kwargs
    ],
    ...reference,
  },
  PyObject_VectorcallMethod: {
    parameters: [
      "pointer", // PyObject *name
      "u64", // PyObject *const *args
      "usize", // size_t nargsf
      "pointer", // PyObject *kwnames
    ],
    ...reference,
  },

  // ---- programs ----
  PyImport_AddModule: {
    parameters: [
      "buffer", // const char *name
    ],
    ...reference, // borrowed
  },
  PyModule_GetDict: {
    parameters: [
      "pointer", // PyObject *module
    ],
    ...reference, // borrowed
  },
  PyEval_GetBuiltins: { parameters: [], ...reference }, // borrowed
  Py_CompileString: {
    parameters: [
      "buffer", // const char *str
      "buffer", // const char *filename
      "i32", // int start
    ],
    ...reference,
  },
  PyEval_EvalCode: {
    parameters: [
      "pointer", // PyObject *co
      "pointer", // PyObject *globals
      "pointer", // PyObject *locals
    ],
    ...reference,
  },
  PyDict_New: { parameters: [], ...reference },
  PyDict_GetItemString: {
    parameters: [
      "pointer", // PyObject *p
      "buffer", // const char *key
    ],
    ...reference, // borrowed
  },
  PyDict_SetItemString: {
    parameters: [
      "pointer", // PyObject *p
      "buffer", // const char *key
      "pointer", // PyObject *val
    ],
    ...status,
  },

  // ---- errors ----
  PyErr_Occurred: { parameters: [], ...reference }, // borrowed
  PyErr_Clear: { parameters: [], ...nothing },
  PyErr_WriteUnraisable: {
    parameters: [
      "pointer", // PyObject *obj
    ],
    ...nothing,
  },
  PyErr_ExceptionMatches: {
    parameters: [
      "pointer", // PyObject *exc
    ],
    ...status,
  },
  /** From Python 3.12 on. */
  PyErr_GetRaisedException: { parameters: [], ...reference, optional: true },
  PyErr_Fetch: {
    parameters: [
      "u64", // PyObject **ptype
      "u64", // PyObject **pvalue
      "u64", // PyObject **ptraceback
    ],
    ...nothing,
    optional: true,
  },
  PyErr_NormalizeException: {
    parameters: [
      "u64", // PyObject **exc
      "u64", // PyObject **val
      "u64", // PyObject **tb
    ],
    ...nothing,
    optional: true,
  },
  PyException_SetTraceback: {
    parameters: [
      "pointer", // PyObject *ex
      "pointer", // PyObject *tb
    ],
    ...status,
  },

  // ---- values ----
  PyLong_FromLongLong: {
    parameters: [
      "i64", // long long v
    ],
    ...reference,
  },
  PyLong_FromUnsignedLongLong: {
    parameters: [
      "u64", // unsigned long long v
    ],
    ...reference,
  },
  PyUnicode_FromString: {
    parameters: [
      "buffer", // const char *str
    ],
    ...reference,
  },
  PyUnicode_InternFromString: {
    parameters: [
      "buffer", // const char *str
    ],
    ...reference,
  },
  PyTuple_New: {
    parameters: [
      "isize", // Py_ssize_t len
    ],
    ...reference,
  },
  PyTuple_SetItem: {
    parameters: [
      "pointer", // PyObject *p
      "isize", // Py_ssize_t pos
      "pointer", // PyObject *o: taken over
    ],
    ...status,
  },
  PyTuple_GetItem: {
    parameters: [
      "pointer", // PyObject *p
      "isize", // Py_ssize_t pos
    ],
    ...reference, // borrowed
  },
  PyBytes_FromStringAndSize: {
    parameters: [
      "buffer", // const char *v
      "isize", // Py_ssize_t len
    ],
    ...reference,
  },
  PyLong_AsUnsignedLongLong: {
    parameters: [
      "pointer", // PyObject *pylong
    ],
    result: "u64",
  },
  PyBytes_AsString: {
    parameters: [
      "pointer", // PyObject *o
    ],
    ...reference,
  },
  PyBytes_Size: {
    parameters: [
      "pointer", // PyObject *o
    ],
    result: "isize",
  },

  // ---- capsules ----
  PyCapsule_IsValid: {
    parameters: [
      "pointer", // PyObject *capsule
      "u64", // const char *name
    ],
    ...status,
  },
  PyCapsule_GetPointer: {
    parameters: [
      "pointer", // PyObject *capsule
      "u64", // const char *name
    ],
    ...reference,
  },
  PyCapsule_SetName: {
    parameters: [
      "pointer", // PyObject *capsule
      "u64", // const char *name
    ],
    ...status,
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of Python's C API. */
export type PythonSymbols = Deno.DynamicLibrary<typeof symbols>["symbols"];
