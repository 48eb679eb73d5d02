/**
 * Converts elements from one dtype to another.
 *
 * @module
 */

import { allocate, giveBack } from "../copy/memory.ts";
import { copyOf, elementsOf, walk } from "../copy/elements.ts";
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
  packers,
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
  unpackers,
  widenBfloat16,
  widenFloat16,
  wrapper,
} from "./kernels.ts";
import {
  type DType,
  dtypeByName,
  type DTypeInfo,
  type ElementKind,
  type TypedArray,
} from "../dtype/table.ts";
import { readBits, writeBits } from "../dtype/element.ts";
import { BufferError } from "../errors.ts";
import { isContiguous, type Layout, sizeOf } from "../layout.ts";

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
 * @param into Where to; elements of fewer than 8 bits will share bytes.
 * @throws {BufferError} `"dtype"` to or from `handle`, which is no number.
 */
export function convertElements(from: Side, layout: Layout, into: Side): void {
  checkNumbers(from.info, into.info);
  const size = sizeOf(layout.shape);
  if (size === 0) return;
  const data = compactOf(from, layout, size);
  convertCompact(from.info, data, size, into);
  if (data.buffer !== from.data.buffer) giveBack(data);
}

/** Converts elements that lie side by side in whole bytes. */
function convertCompact(
  info: DTypeInfo,
  data: TypedArray,
  size: number,
  into: Side,
): void {
  const steps = stepsBetween(info, into.info);
  if (steps.length === 1 && into.info.bits >= 8) {
    return steps[0]!.kernel(data, into.data);
  }
  for (let start = 0; start < size; start += CHUNK) {
    const end = Math.min(start + CHUNK, size);
    let chunk = elementsOf(info, data, start, end);
    for (const { kernel, scratch } of steps) {
      const next = scratch?.subarray(0, end - start) ??
        elementsOf(into.info, into.data, start, end);
      kernel(chunk, next);
      chunk = next;
    }
    if (into.info.bits < 8) pack(into, start, end);
  }
}

function checkNumbers(from: DTypeInfo, to: DTypeInfo): void {
  if (from === to || from.kind !== "handle" && to.kind !== "handle") return;
  throw new BufferError(
    "dtype",
    `Cannot convert ${from.name} to ${to.name}: an opaque handle is no number`,
  );
}

/** The elements side by side in whole bytes: a part of the data, or a copy. */
function compactOf(
  { info, isPacked, data }: Side,
  layout: Layout,
  size: number,
): TypedArray {
  const { shape, strides, offset } = layout;
  if (!isPacked && isContiguous(shape, strides)) {
    return elementsOf(info, data, offset, offset + size);
  }
  if (!isPacked) return copyOf(info, false, data, layout);
  const copy = allocate(info, false, size);
  unpack(data as Uint8Array, info.bits, layout, copy);
  return copy;
}

/** Gives each element a byte of its own. */
function unpack(
  data: Uint8Array,
  bits: number,
  layout: Layout,
  into: TypedArray,
): void {
  const { shape, strides, offset } = layout;
  const unpacker = unpackers[bits];
  const at = offset * bits / 8;
  if (unpacker && isContiguous(shape, strides) && Number.isInteger(at)) {
    const bytes = Math.ceil(into.length * bits / 8);
    return unpacker(data.subarray(at, at + bytes), into);
  }
  let index = 0;
  walk(layout, (at) => into[index++] = readBits(data, at, bits));
}

/** Lets the elements in `encoded` share bytes; `start` begins on a byte. */
function pack(
  { info: { bits }, data }: Side,
  start: number,
  end: number,
): void {
  const bytes = data as Uint8Array;
  const count = end - start;
  const packer = packers[bits];
  if (packer === undefined) {
    for (let i = 0; i < count; i++) {
      writeBits(bytes, start + i, bits, encoded[i]!);
    }
    return;
  }
  const at = start * bits / 8;
  const whole = Math.ceil(count * bits / 8) * 8 / bits;
  encoded.fill(0, count, whole);
  packer(encoded.subarray(0, whole), bytes.subarray(at));
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
/** Elements of fewer than 8 bits, before they share bytes. */
const encoded = new Uint8Array(CHUNK);

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
