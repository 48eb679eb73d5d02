/** The libraries of the producer matrix, and how each makes its arrays. */

import type { DType } from "@dlpack/deno";

/** What is tried of each. */
export const checks = [
  "view",
  "copy",
  "dtypes",
  "read-only",
  "strided",
  "0-d",
  "empty",
  "kept",
  "freed",
  "back",
] as const;

/** One of them. */
export type Check = typeof checks[number];

/** A Python library that makes arrays. */
export interface Producer {
  readonly name: string;
  /** What `import` knows it by. */
  readonly module: string;
  /** What `pip install` takes. */
  readonly install: string;
  /** An expression, once `setup` has run. */
  readonly version: string;
  /**
   * A program that has `np`, and defines `make(array)`: the library's array of
   * the elements of NumPy's, in memory of its own; and where it can,
   * `make_as(array, dtype)`, `transpose(a)`, and `back(x)`: the library's array
   * over a tensor of Deno's. `values(a)` are its elements as NumPy's.
   */
  readonly setup: string;
  /** An expression without `setup`: whether it is new enough. Default: any is. */
  readonly needs?: string;
  /** Whether its arrays must not be written to: of legacy structs always. */
  readonly isReadOnly: boolean;
  /** The dtypes that go, by the names that `make_as` takes. */
  readonly dtypes: Partial<Record<DType, string>>;
  /** What it has no arrays for. */
  readonly lacks?: readonly Check[];
  /** What is a copy on the way back, so that no change is seen. */
  readonly copiesBack?: boolean;
  /** Whether its type has the C exchange API. */
  readonly hasExchange?: boolean;
}

/** Names that are the same on both sides. */
function same(...names: DType[]): Partial<Record<DType, string>> {
  return Object.fromEntries(names.map((name) => [name, name]));
}

const integers = same(
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
);

const floats = same("float32", "float64");

export const producers: readonly Producer[] = [
  {
    name: "NumPy",
    module: "numpy",
    install: "numpy",
    version: "np.__version__",
    setup: `
make = np.array
make_as = lambda a, dtype: a.astype(dtype)
transpose = lambda a: a.T
values = lambda a: a
back = np.from_dlpack
`,
    isReadOnly: false,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "complex64", "complex128"),
    },
  },
  {
    name: "ml_dtypes in NumPy",
    module: "ml_dtypes",
    install: "ml_dtypes 'numpy>=2.5'",
    version: "ml_dtypes.__version__",
    needs: "hasattr(__import__('numpy').dtypes, 'register_dlpack_dtype')",
    // NumPy from 2.5 on can be told which dtype of DLPack one of theirs is.
    setup: `
import ml_dtypes
np.dtypes.register_dlpack_dtype((4, 16), np.dtype(ml_dtypes.bfloat16))
make = lambda a: a.astype(ml_dtypes.bfloat16)
make_as = lambda a, dtype: a.astype(dtype)
transpose = lambda a: a.T
values = lambda a: a.astype("float32")
back = lambda x: np.from_dlpack(x)
`,
    isReadOnly: false,
    dtypes: { bfloat16: "bfloat16" },
  },
  {
    name: "PyTorch",
    module: "torch",
    install: "torch",
    version: "torch.__version__",
    setup: `
import torch
make = lambda a: torch.tensor(a)
make_as = lambda a, dtype: torch.tensor(a).to(getattr(torch, dtype))
transpose = lambda a: a.T
values = lambda a: a.to(torch.float64).numpy()
back = torch.from_dlpack
`,
    isReadOnly: false,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "bfloat16", "complex64", "complex128"),
      ...same("float8_e4m3fn", "float8_e5m2"),
    },
    hasExchange: true,
  },
  {
    name: "JAX",
    module: "jax",
    install: "jax",
    version: "jax.__version__",
    setup: `
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
make = jnp.array
make_as = lambda a, dtype: jnp.array(a).astype(dtype)
values = np.asarray
back = jnp.from_dlpack
`,
    isReadOnly: true,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "bfloat16", "complex64", "complex128"),
      ...same("float8_e4m3fn", "float8_e5m2"),
    },
    // Whether memory is taken or copied depends on its alignment.
    copiesBack: true,
  },
  {
    name: "TensorFlow",
    module: "tensorflow",
    install: "tensorflow-cpu",
    version: "tf.__version__",
    // Its library alone may be there, for other tests.
    needs: "__import__('importlib.util').util.find_spec('absl') is not None",
    setup: `
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
make = tf.constant
make_as = lambda a, dtype: tf.cast(tf.constant(a), dtype)
values = lambda a: a.numpy()
back = lambda x: tf.experimental.dlpack.from_dlpack(x.__dlpack__())
`,
    isReadOnly: true,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "bfloat16", "complex64", "complex128"),
    },
  },
  {
    name: "pyarrow",
    module: "pyarrow",
    install: "pyarrow",
    version: "pa.__version__",
    setup: `
import pyarrow as pa
# A tensor over NumPy's memory, which it keeps; an array of its own.
make = lambda a: pa.Tensor.from_numpy(np.array(a))
make_as = lambda a, dtype: pa.array(a.ravel().astype(dtype))
transpose = lambda a: pa.Tensor.from_numpy(a.to_numpy().T)
values = lambda a: a.to_numpy()
back = pa.Tensor.from_dlpack
`,
    isReadOnly: false,
    dtypes: { ...integers, ...floats, ...same("float16") },
  },
  {
    name: "Paddle",
    module: "paddle",
    install: "paddlepaddle",
    version: "paddle.__version__",
    setup: `
import paddle
make = lambda a: paddle.to_tensor(np.array(a))
make_as = lambda a, dtype: paddle.to_tensor(a).astype(dtype)
# Its transpose() makes a copy; as_strided() does not.
transpose = lambda a: paddle.as_strided(a, a.shape[::-1], a.strides[::-1])
values = lambda a: a.numpy()
back = paddle.utils.dlpack.from_dlpack
`,
    isReadOnly: false,
    dtypes: {
      ...floats,
      ...same("int8", "int16", "int32", "int64", "uint8"),
      ...same("bool", "float16", "bfloat16", "complex64", "complex128"),
    },
    hasExchange: true,
  },
  {
    name: "MLX",
    module: "mlx.core",
    install: "mlx mlx-cpu",
    version: "__import__('importlib.metadata').metadata.version('mlx')",
    setup: `
import mlx.core as mx
def made(a):
    a = mx.array(a)
    mx.eval(a)
    return a
def made_as(a, dtype):
    a = mx.array(a).astype(getattr(mx, "bool_" if dtype == "bool" else dtype))
    mx.eval(a)
    return a
make, make_as = made, made_as
def transpose(a):
    a = a.T
    mx.eval(a)
    return a
values = lambda a: np.array(a.tolist()).reshape(a.shape)
back = mx.array
`,
    isReadOnly: true,
    dtypes: {
      ...integers,
      ...same("float32", "bool", "float16", "bfloat16", "complex64"),
    },
    copiesBack: true,
  },
  {
    name: "ONNX Runtime",
    module: "onnxruntime",
    install: "onnxruntime",
    version: "ort.__version__",
    setup: `
import onnxruntime as ort
make = ort.OrtValue.ortvalue_from_numpy
make_as = lambda a, dtype: make(a.astype(dtype))
values = lambda a: a.numpy()
back = ort.OrtValue.from_dlpack
`,
    isReadOnly: true,
    dtypes: { ...integers, ...floats, ...same("bool", "float16") },
  },
  {
    name: "Open3D",
    module: "open3d",
    install: "open3d-cpu",
    version: "o3d.__version__",
    setup: `
import open3d as o3d
make = lambda a: o3d.core.Tensor(np.array(a))
make_as = lambda a, dtype: o3d.core.Tensor(a.astype(dtype))
transpose = lambda a: a.T()
values = lambda a: a.numpy()
back = lambda x: o3d.core.Tensor.from_dlpack(x.__dlpack__())
`,
    isReadOnly: true,
    dtypes: { ...integers, ...floats, ...same("bool") },
  },
  {
    name: "Warp",
    module: "warp",
    install: "warp-lang",
    version: "wp.__version__",
    setup: `
import warp as wp
wp.config.quiet = True
make = lambda a: wp.array(
    a, dtype=wp.dtype_from_numpy(a.dtype), device="cpu")
make_as = lambda a, dtype: make(a.astype(dtype))
transpose = lambda a: a.transpose()
values = lambda a: a.numpy()
back = wp.from_dlpack
`,
    // A single element has an axis there.
    lacks: ["0-d"],
    isReadOnly: true,
    dtypes: { ...integers, ...floats, ...same("bool", "float16") },
  },
  {
    name: "nanobind",
    module: "nanobind",
    install: "nanobind",
    version: "nanobind.__version__",
    setup: `
import nanobind, os, sys
sys.path.insert(0, os.environ["NANOBIND_MODULE"])
import nanobind_producer as producer
dtypes = "float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
def make_as(a, dtype):
    a = a.astype(dtype)
    return producer.make(a.tobytes(), list(a.shape), dtypes.split().index(dtype))
make = lambda a: make_as(a, str(a.dtype))
transpose = producer.transpose
values = lambda a: np.from_dlpack(a)
back = producer.take
`,
    isReadOnly: false,
    dtypes: { ...integers, ...floats, ...same("bool") },
  },
  {
    name: "apache-tvm-ffi",
    module: "tvm_ffi",
    install: "apache-tvm-ffi",
    version: "tvm_ffi.__version__",
    setup: `
import tvm_ffi
make = lambda a: tvm_ffi.from_dlpack(np.array(a))
make_as = lambda a, dtype: make(a.astype(dtype))
transpose = lambda a: tvm_ffi.from_dlpack(np.from_dlpack(a).T)
values = lambda a: np.from_dlpack(a)
back = tvm_ffi.from_dlpack
`,
    isReadOnly: false,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "complex64", "complex128"),
    },
  },
  {
    name: "cuda.core",
    module: "cuda.core",
    install: "cuda-core cuda-bindings",
    version: "__import__('importlib.metadata').metadata.version('cuda-core')",
    setup: `
from cuda.core.utils import StridedMemoryView
make = lambda a: StridedMemoryView.from_any_interface(np.array(a), -1)
make_as = lambda a, dtype: make(a.astype(dtype))
transpose = lambda a: StridedMemoryView.from_any_interface(
    np.from_dlpack(a).T, -1)
values = lambda a: np.from_dlpack(a)
back = lambda x: StridedMemoryView.from_dlpack(x, stream_ptr=-1)
`,
    isReadOnly: false,
    dtypes: {
      ...integers,
      ...floats,
      ...same("bool", "float16", "complex64", "complex128"),
    },
    hasExchange: true,
  },
];
