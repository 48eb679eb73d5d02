/**
 * Converts elements from one dtype to another.
 *
 * @module
 */

import { allocate, copyElements, entriesOf, walk } from "./copy.ts";
import {
  addImaginary16,
  addImaginary32,
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
  realParts32,
  realParts64,
  roundToBfloat16,
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
} from "./convert_kernels.ts";
import {
  type Complex,
  type DType,
  dtypeByName,
  type DTypeInfo,
  type ElementKind,
  type TypedArray,
} from "./dtype.ts";
import { elementAccess } from "./element.ts";
import { BufferError } from "./errors.ts";
import { isContiguous, type Layout, sizeOf } from "./layout.ts";

/** One side of a conversion: a dtype and how its elements lie. */
export interface Side {
  /** The dtype. */
  readonly info: DTypeInfo;
  /** Whether elements of fewer than 8 bits share bytes. */
  readonly isPacked: boolean;
  /** The elements. */
  readonly data: TypedArray;
}

/**
 * Converts the elements of a strided view to another dtype, in C order.
 *
 * Integers wrap around, floats are cut off towards zero on their way to
 * integers (NaN and infinities become 0) and rounded to the nearest value, ties
 * to even, on their way to narrower floats; a complex number loses its
 * imaginary part on its way to a real one; every non-zero value is `true`.
 *
 * @throws {BufferError} `"dtype"` to or from `handle`, which is no number.
 */
export function convertElements(from: Side, layout: Layout, into: Side): void {
  checkNumbers(from.info, into.info);
  const size = sizeOf(layout.shape);
  if (size === 0) return;
  if (from.isPacked || into.info.bits < 8) {
    convertOneByOne(from, layout, into);
    return;
  }
  const steps = stepsBetween(from.info, into.info);
  const data = compactOf(from, layout, size);
  const isCast = steps.length === 1 && steps[0]!.kernel === cast;
  if (isCast) return cast(data, into.data);
  for (let start = 0; start < size; start += CHUNK) {
    const end = Math.min(start + CHUNK, size);
    let chunk = partOf(from.info, data, start, end);
    for (const { kernel, scratch } of steps) {
      const next = scratch === undefined
        ? partOf(into.info, into.data, start, end)
        : scratch.subarray(0, end - start);
      kernel(chunk, next);
      chunk = next;
    }
  }
}

function checkNumbers(from: DTypeInfo, to: DTypeInfo): void {
  if (from === to || from.kind !== "handle" && to.kind !== "handle") return;
  throw new BufferError(
    "dtype",
    `Cannot convert ${from.name} to ${to.name}: an opaque handle is no number`,
  );
}

/** Some of elements that lie side by side. */
function partOf(
  info: DTypeInfo,
  data: TypedArray,
  start: number,
  end: number,
): TypedArray {
  return data.subarray(
    entriesOf(info, false, start),
    entriesOf(info, false, end),
  );
}

/** The elements side by side: a part of the data, or a copy. */
function compactOf(
  { info, data }: Side,
  layout: Layout,
  size: number,
): TypedArray {
  const { shape, strides, offset } = layout;
  if (isContiguous(shape, strides)) {
    return partOf(info, data, offset, offset + size);
  }
  const copy = allocate(info, false, size);
  copyElements(info, false, data, layout, copy);
  return copy;
}

/** A part of a conversion. */
interface Step {
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

const routes = new Map<string, readonly Step[]>();

/** How to get from one dtype to another: in one step where a kernel does it. */
function stepsBetween(from: DTypeInfo, to: DTypeInfo): readonly Step[] {
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
  return [...steps, { kernel: last, scratch: undefined }];
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
  "float64 float32": narrow,

  "float32 int32": truncate32,
  "float32 uint32": truncate32,
  "float64 int32": truncate64,
  "float64 uint32": truncate64,

  "int64 int32": lowWords,
  "int64 uint32": lowWords,
  "int64 float32": joinToFloat32(true),
  "int64 float64": joinToFloat64(true),
  "uint64 int32": lowWords,
  "uint64 uint32": lowWords,
  "uint64 float32": joinToFloat32(false),
  "uint64 float64": joinToFloat64(false),

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
  "complex64 float32": realParts32,
  "complex128 float64": realParts64,
  "float16 complex32": addImaginary16,
  "float32 complex64": addImaginary32,
  "float64 complex128": addImaginary64,
};

/** For numbers that another kernel will round to floats of 16 bits or fewer. */
const oddKernels: Readonly<Record<string, Kernel>> = {
  "float64 float32": narrowToOdd,
  "int64 float64": joinToOddFloat64(true),
  "uint64 float64": joinToOddFloat64(false),
};

function kernelBetween(from: DTypeInfo, to: DTypeInfo): Kernel | undefined {
  const key = `${from.name} ${to.name}`;
  if (kernels[key] !== undefined) return kernels[key];
  if (isCast(from, to)) return cast;
  const isFromSmall = from.decode !== undefined;
  if (isFromSmall && to.name === (from.kind === "int" ? "int32" : "float32")) {
    return kernels[key] = decoder(from);
  }
  if (to.encode !== undefined && from.name === "float32") {
    return kernels[key] = encoder(to);
  }
  return undefined;
}

/** Whether a typed array converts another's entries by the same rules. */
function isCast(from: DTypeInfo, to: DTypeInfo): boolean {
  if (from === to) return true;
  if (from.decode !== undefined || to.decode !== undefined) return false;
  // V8 is slow at float16, and at floats to integers.
  if (from.kind === "float") return to.kind === "float" && from.bits > 16;
  if (from.kind === "int") return to.kind === "int" || to.kind === "float";
  return from.kind === to.kind;
}

/** Where elements share bytes, on one side at least. */
function convertOneByOne(from: Side, layout: Layout, into: Side): void {
  const read = elementAccess(from.info, from.isPacked);
  const write = elementAccess(into.info, into.isPacked);
  const convert = conversion(from.info, into.info);
  let index = 0;
  walk(layout, (at) => {
    write.set(into.data, index++, convert(read.get(from.data, at)));
  });
}

function conversion(
  from: DTypeInfo,
  to: DTypeInfo,
): (value: unknown) => unknown {
  if (from.kind === "complex") {
    if (to.kind === "complex") return (value) => value;
    if (to.kind === "bool") {
      return (value) =>
        (value as Complex).re !== 0 || (value as Complex).im !== 0;
    }
    const real = conversion({ ...from, kind: "float" }, to);
    return (value) => real((value as Complex).re);
  }
  if (from.kind === "bigint" && to.array !== Float64Array) {
    if (to.kind === "float") return (value) => toOdd(value as bigint);
    if (to.kind === "complex") {
      return (value) => toComplex(toOdd(value as bigint));
    }
  }
  return scalars[from.kind as Real][to.kind as NumberKind];
}

/**
 * A 64-bit integer as a number that will be rounded to fewer bits: to the
 * nearest would round twice, so what does not fit sets the last bit instead.
 */
function toOdd(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  const top = value >> 11n;
  return Number((value & 2047n) === 0n ? top : top | 1n) * 2048;
}

type NumberKind = Exclude<ElementKind, "handle">;
type Real = Exclude<NumberKind, "complex">;

const same = (value: unknown): unknown => value;
const toNumber = (value: unknown): number => Number(value);
const toComplex = (value: unknown): Complex => ({ re: Number(value), im: 0 });
const notZero = (value: unknown): boolean => value !== 0;

const scalars: Record<
  Real,
  Record<NumberKind, (value: unknown) => unknown>
> = {
  bool: {
    bool: same,
    int: toNumber,
    bigint: (value) => value ? 1n : 0n,
    float: toNumber,
    complex: toComplex,
  },
  int: {
    bool: notZero,
    int: same,
    bigint: (value) => BigInt(value as number),
    float: same,
    complex: toComplex,
  },
  bigint: {
    bool: (value) => value !== 0n,
    // Wrapped before it is a number: a large bigint would be rounded.
    int: (value) => Number(BigInt.asIntN(32, value as bigint)),
    bigint: same,
    float: toNumber,
    complex: toComplex,
  },
  float: {
    bool: notZero,
    int: same,
    bigint: (value) =>
      Number.isFinite(value) ? BigInt(Math.trunc(value as number)) : 0n,
    float: same,
    complex: toComplex,
  },
};
