// A model run by ONNX Runtime, whose C API knows no DLPack: it reads tensors
// where they are, and its output is seen where that is.
//
//   pip install onnxruntime
//   deno run -A examples/onnxruntime.ts
//
// ONNXRUNTIME_LIBRARY=<path of libonnxruntime> skips the search for the library.

import {
  addressOf,
  DlpackCapsule,
  type DType,
  fromDlpack,
  Tensor,
} from "@dlpack/deno";
import { foldersOf } from "./find_library.ts";
import { onnxModel } from "./onnx_model.ts";
import { cString } from "./python.ts";

const path = findOnnxRuntime();
if (path === null) {
  console.error("ONNX Runtime is not installed: pip install onnxruntime");
  Deno.exit(1);
}

// ---- the C API: one function, which leads to a struct of functions ----

const { OrtGetApiBase } = Deno.dlopen(path, {
  OrtGetApiBase: { parameters: [], result: "pointer" },
}).symbols;
const getApi = functionAt(OrtGetApiBase()!, 0, ["u32"]);
// Of version 1: later ones have the same functions in the same places, and more.
const api = getApi(1)!;

/** A function in a struct of functions. */
function functionAt<
  const P extends Deno.NativeType[],
  const R extends "pointer" | "void" = "pointer",
>(struct: Deno.PointerObject, index: number, parameters: P, result?: R) {
  const pointer = new Deno.UnsafePointerView(struct).getPointer(8 * index);
  const definition = { parameters, result: result ?? "pointer" as R };
  const callee = new Deno.UnsafeFnPointer(pointer as never, definition);
  return callee.call.bind(callee) as typeof callee.call;
}

/** A function of OrtApi that returns a status; indices as in its header. */
function at<const P extends Deno.NativeType[]>(
  index: number,
  ...parameters: P
) {
  return functionAt(api, index, parameters);
}

const [ptr, buf, size, int] = ["pointer", "buffer", "usize", "i32"] as const;
const ort = {
  GetErrorMessage: at(2, ptr),
  CreateEnv: at(3, int, buf, buf),
  CreateSessionFromArray: at(8, ptr, buf, size, ptr, buf),
  Run: at(9, ptr, ptr, buf, buf, size, buf, size, buf),
  CreateTensorWithDataAsOrtValue: at(49, ptr, "u64", size, buf, size, int, buf),
  GetTensorMutableData: at(51, ptr, buf),
  GetTensorElementType: at(60, ptr, buf),
  GetDimensionsCount: at(61, ptr, buf),
  GetDimensions: at(62, ptr, buf, size),
  GetTensorTypeAndShape: at(65, ptr, buf),
  CreateCpuMemoryInfo: at(69, int, int, buf),
  ReleaseEnv: functionAt(api, 92, [ptr], "void"),
  ReleaseStatus: functionAt(api, 93, [ptr], "void"),
  ReleaseMemoryInfo: functionAt(api, 94, [ptr], "void"),
  ReleaseSession: functionAt(api, 95, [ptr], "void"),
  ReleaseValue: functionAt(api, 96, [ptr], "void"),
  ReleaseTensorTypeAndShapeInfo: functionAt(api, 99, [ptr], "void"),
};

/** Throws what ONNX Runtime says of a call that failed. */
function check(status: Deno.PointerValue): void {
  if (status === null) return;
  const text = Deno.UnsafePointerView.getCString(ort.GetErrorMessage(status)!);
  ort.ReleaseStatus(status);
  throw new Error(text);
}

/** What a function puts where its last argument points. */
function made(create: (out: BigUint64Array<ArrayBuffer>) => Deno.PointerValue) {
  const out = new BigUint64Array(1);
  check(create(out));
  return Deno.UnsafePointer.create(out[0]!)!;
}

// ---- tensors in and out ----

/** The dtypes by ONNX Runtime's numbers; two of them are no tensor's. */
const dtypes = [
  ..."undefined float32 uint8 int8 uint16 int16 int32 int64 string".split(" "),
  ..."bool float16 float64 uint32 uint64 complex64 complex128".split(" "),
  "bfloat16",
] as DType[];

/** An OrtValue over a tensor's own memory. Both are kept until `end`. */
function lend(tensor: Tensor, end: DisposableStack): Deno.PointerObject {
  // ONNX Runtime takes a shape, but no strides.
  const x = tensor.isContiguous ? tensor : tensor.copy();
  end.use(x.hold());
  const shape = BigInt64Array.from(x.shape, BigInt);
  const value = made((out) =>
    ort.CreateTensorWithDataAsOrtValue(
      memory,
      addressOf(x),
      BigInt(x.nbytes),
      shape,
      BigInt(x.ndim),
      dtypes.indexOf(x.dtype),
      out,
    )
  );
  return end.adopt(value, ort.ReleaseValue);
}

/** A tensor over the memory of an OrtValue, which is given back with it. */
function view(value: Deno.PointerObject): Tensor {
  using untaken = new DisposableStack();
  untaken.adopt(value, ort.ReleaseValue);
  const [type, ndim] = [new Int32Array(1), new BigUint64Array(1)];
  const info = made((out) => ort.GetTensorTypeAndShape(value, out));
  check(ort.GetTensorElementType(info, type));
  check(ort.GetDimensionsCount(info, ndim));
  const shape = new BigInt64Array(Number(ndim[0]));
  check(ort.GetDimensions(info, shape, ndim[0]!));
  ort.ReleaseTensorTypeAndShapeInfo(info);
  const data = made((out) => ort.GetTensorMutableData(value, out));
  const capsule = DlpackCapsule.from(data, {
    dtype: dtypes[type[0]!]!,
    shape: [...shape],
    release: () => {
      ort.ReleaseValue(value);
      released++;
    },
  });
  untaken.move(); // the capsule has it
  return fromDlpack(capsule);
}

/** Runs the model. */
function matmul(a: Tensor, b: Tensor): Tensor {
  using end = new DisposableStack();
  const inputs = pointersTo(lend(a, end), lend(b, end));
  const inputNames = pointersTo(names.a, names.b);
  const outputNames = pointersTo(names.c);
  const c = made((outputs) =>
    ort.Run(session, null, inputNames, inputs, 2n, outputNames, 1n, outputs)
  );
  return view(c);
}

const names = { a: cString("a"), b: cString("b"), c: cString("c") };

/** An array of pointers to C strings, or to objects. */
function pointersTo(...all: (Uint8Array<ArrayBuffer> | Deno.PointerObject)[]) {
  return BigUint64Array.from(all, (one) =>
    Deno.UnsafePointer.value(
      one instanceof Uint8Array ? Deno.UnsafePointer.of(one) : one,
    ));
}

// ---- its use ----

const model = onnxModel("MatMul", dtypes.indexOf("float32"));

let released = 0;
const silent = 4; // errors are thrown here
const env = made((out) => ort.CreateEnv(silent, cString("example"), out));
const memory = made((out) => ort.CreateCpuMemoryInfo(0, 0, out));
const session = made((out) =>
  ort.CreateSessionFromArray(env, model, BigInt(model.length), null, out)
);

const a = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
const b = Tensor.from(new Float32Array([1, 0, 0, 1, 1, 1]), [3, 2]);
console.log("a", a);
console.log("b", b);
{
  using end = new DisposableStack();
  const value = lend(a, end);
  const data = made((out) => ort.GetTensorMutableData(value, out));
  const isThere = Deno.UnsafePointer.value(data) === addressOf(a);
  console.log("ONNX Runtime has a where it is:", isThere);
}
{
  using c = matmul(a, b);
  console.log("c = MatMul(a, b)", c);
  console.log("Outputs given back:", released);
}
console.log("Out of scope, outputs given back:", released);

try {
  matmul(a, a);
} catch (error) {
  console.log("Refused by ONNX Runtime:", (error as Error).message);
}

// An output outlives its session. A view that is not in C order is copied.
using c = matmul(a, a.transpose());
ort.ReleaseMemoryInfo(memory);
ort.ReleaseSession(session);
ort.ReleaseEnv(env);
console.log("The session is gone, its output is not", c);

function findOnnxRuntime(): string | null {
  const override = Deno.env.get("ONNXRUNTIME_LIBRARY");
  if (override !== undefined) return override;
  for (const folder of foldersOf("onnxruntime")) {
    for (const { name } of Deno.readDirSync(`${folder}/capi`)) {
      // libonnxruntime.so.1.32.0, libonnxruntime.1.32.0.dylib, onnxruntime.dll
      if (/^(lib)?onnxruntime\.(.*dylib|so|dll)/.test(name)) {
        return `${folder}/capi/${name}`;
      }
    }
  }
  return null;
}
