/**
 * Decides by which kernels a conversion is made.
 *
 * @module
 */

import {
  type DType,
  dtypeByName,
  type DTypeInfo,
  type ElementKind,
  type TypedArray,
} from "../dtype/table.ts";
import {
  addImaginary16,
  addImaginary64,
  cast,
  CHUNK,
  decoder,
  encoder,
  extendSigned,
  extendUnsigned,
  joinToFloat32,
  joinToFloat64,
  joinToOddFloat64,
  type Kernel,
  lowWords,
  narrow,
  narrowToOdd,
  realParts16,
  realParts64,
  roundToBfloat16,
  roundToFloat16,
  testBytes,
  testComplex128,
  testHalves,
  testPairs,
  testWords,
  truncate32,
  truncate64,
  truncateToPairs32,
  truncateToPairs64,
  widenBfloat16,
  widenFloat16,
  wrapper,
} from "./kernels.ts";

/** A part of a conversion. */
export interface Step {
  /** What makes the elements. */
  readonly kernel: Kernel;
  /** Where they stay in between; `undefined`: they are the result. */
  readonly scratch: TypedArray | undefined;
}

/** Elements on their way between two dtypes, of those that are stops. */
const scratches = {
  uint8: new Uint8Array(CHUNK),
  int32: new Int32Array(CHUNK),
  float16: new Float16Array(CHUNK),
  float32: new Float32Array(CHUNK),
  float64: new Float64Array(CHUNK),
};
type Stop = keyof typeof scratches;
/** Elements of fewer than 8 bits, before they share bytes. */
export const encoded: Uint8Array<ArrayBuffer> = new Uint8Array(CHUNK);

const routes = new Map<string, readonly Step[]>();

/** How to get from one dtype to another: in one step where a kernel does it. */
export function stepsBetween(
  from: DTypeInfo,
  to: DTypeInfo,
): readonly Step[] {
  const key = `${from.name} ${to.name}`;
  let steps = routes.get(key);
  if (steps === undefined) routes.set(key, steps = planSteps(from, to));
  return steps;
}

function planSteps(from: DTypeInfo, to: DTypeInfo): Step[] {
  const real = dtypeByName(realParts[to.name] ?? to.name)!;
  const isNarrow = real.kind === "float" && real.bits < 32;
  const steps: Step[] = [];
  let at = from;
  let last: Kernel | undefined;
  while ((last = kernelBetween(at, to)) === undefined) {
    const stop = stopBetween(at, to);
    const next = dtypeByName(stop)!;
    const odd = isNarrow ? oddKernels[`${at.name} ${stop}`] : undefined;
    const kernel = odd ?? kernelBetween(at, next)!;
    steps.push({ kernel, scratch: scratches[stop] });
    at = next;
  }
  const scratch = to.bits < 8 ? encoded : undefined;
  return [...steps, { kernel: last, scratch }];
}

/** The next dtype on the way between two that no kernel joins. */
function stopBetween(from: DTypeInfo, to: DTypeInfo): Stop {
  const part = realParts[to.name];
  if (part !== undefined) {
    const real = dtypeByName(part)!;
    return kernelBetween(from, real) ? part : stopBetween(from, real);
  }
  const { name, kind, bits, decode } = from;
  if (kind === "complex") return realParts[name]!;
  if (kind === "bool") return "uint8";
  if (kind === "float" && (decode || bits === 16)) return "float32";
  if (to.kind === "int" || to.kind === "bigint" || decode) return "int32";
  if (kind === "bigint") return "float64";
  return kind === "int" && bits > 16 ? "float64" : "float32";
}

/** What the parts of complex numbers are. */
const realParts: { readonly [name in DType]?: Stop } = {
  complex32: "float16",
  complex64: "float32",
  complex128: "float64",
};

/** By the names of both dtypes. Those of tables are added when needed. */
const kernels: Record<string, Kernel> = {
  "bfloat16 float32": widenBfloat16,
  "float32 bfloat16": roundToBfloat16,
  "float16 float32": widenFloat16,
  "float32 float16": roundToFloat16,
  "float64 float32": narrow,

  "float32 int32": truncate32,
  "float32 uint32": truncate32,
  "float64 int32": truncate64,
  "float64 uint32": truncate64,

  "int64 int32": lowWords,
  "int64 uint32": lowWords,
  "int64 float32": joinToFloat32.int64,
  "int64 float64": joinToFloat64.int64,
  "uint64 int32": lowWords,
  "uint64 uint32": lowWords,
  "uint64 float32": joinToFloat32.uint64,
  "uint64 float64": joinToFloat64.uint64,

  "int32 int64": extendSigned,
  "int32 uint64": extendSigned,
  "uint32 int64": extendUnsigned,
  "uint32 uint64": extendUnsigned,
  "float32 int64": truncateToPairs32,
  "float32 uint64": truncateToPairs32,
  "float64 int64": truncateToPairs64,
  "float64 uint64": truncateToPairs64,

  "bool bool": testBytes,
  "bool uint8": testBytes,
  "int8 bool": testBytes,
  "uint8 bool": testBytes,
  "int16 bool": testHalves(0xffff),
  "uint16 bool": testHalves(0xffff),
  "float16 bool": testHalves(0x7fff),
  "bfloat16 bool": testHalves(0x7fff),
  "int32 bool": testWords(-1),
  "uint32 bool": testWords(-1),
  "float32 bool": testWords(0x7fffffff),
  "complex32 bool": testWords(0x7fff7fff),
  "int64 bool": testPairs(-1, -1),
  "uint64 bool": testPairs(-1, -1),
  "float64 bool": testPairs(-1, 0x7fffffff),
  "complex64 bool": testPairs(0x7fffffff, 0x7fffffff),
  "complex128 bool": testComplex128,

  "complex32 float16": realParts16,
  "complex64 float32": lowWords,
  "complex128 float64": realParts64,
  "float16 complex32": addImaginary16,
  "float32 complex64": extendUnsigned,
  "float64 complex128": addImaginary64,
};

/** For numbers that another kernel will round to floats of 16 bits or fewer. */
const oddKernels: Readonly<Record<string, Kernel>> = {
  "float64 float32": narrowToOdd,
  "int64 float64": joinToOddFloat64.int64,
  "uint64 float64": joinToOddFloat64.uint64,
};

function kernelBetween(from: DTypeInfo, to: DTypeInfo): Kernel | undefined {
  const key = `${from.name} ${to.name}`;
  if (kernels[key] !== undefined) return kernels[key];
  if (isCast(from, to)) return cast;
  const stop = (kind: ElementKind): Stop =>
    kind === "int" ? "int32" : "float32";
  if (from.decode && to.name === stop(from.kind)) {
    return kernels[key] = decoder(from);
  }
  if (to.encode && from.name === stop(to.kind)) {
    return kernels[key] = to.kind === "int" ? wrapper(to.bits) : encoder(to);
  }
  return undefined;
}

/** Whether a typed array converts another's entries by the same rules. */
function isCast(from: DTypeInfo, to: DTypeInfo): boolean {
  // A byte of its own may have more than the bits of such an element.
  if (from === to) return from.bits >= 8;
  if (from.decode !== undefined || to.decode !== undefined) return false;
  // V8 is slow at float16, and at floats to integers.
  if (from.kind === "float") return to.kind === "float" && from.bits > 16;
  if (from.kind === "int") return to.kind === "int" || to.kind === "float";
  return from.kind === to.kind;
}
