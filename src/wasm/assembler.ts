/**
 * Assembles WebAssembly functions that go through memory block by block: where
 * loops are long, its vector instructions do in one step what JavaScript does
 * element by element, with a check of every index.
 *
 * A function is written as what a block becomes: expressions over what was
 * loaded from it. They are nodes of a graph, so a constant in JavaScript that is
 * used twice is computed once.
 *
 * The instructions are those of https://webassembly.github.io/spec/core/binary,
 * under their own names.
 *
 * @module
 */

const types = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
} as const;
type Type = keyof typeof types;

/** A value at run time: an instruction, and what it takes from the stack. */
export interface Value {
  /** Its type. */
  readonly type: Type;
  /** The instruction with its immediates. */
  readonly code: readonly number[];
  /** Its operands. */
  readonly operands: readonly Value[];
  /** How it is stored, and in how many bytes, if not whole. */
  readonly narrow?: {
    readonly code: readonly number[];
    readonly bytes: number;
  };
}

/** Unsigned LEB128. */
function u32(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value >>>= 7) bytes.push(value & 127 | 128);
  return [...bytes, value];
}

/** Signed LEB128. */
function s64(value: bigint): number[] {
  const bytes: number[] = [];
  while (value < -64n || value > 63n) {
    bytes.push(Number(value & 127n) | 128);
    value >>= 7n;
  }
  return [...bytes, Number(value & 127n)];
}

type Operation = (...operands: Value[]) => Value;

function op(type: Type, ...code: number[]): Operation {
  return (...operands) => ({ type, code, operands });
}

function simd(opcode: number, type: Type = "v128"): Operation {
  return op(type, 0xfd, ...u32(opcode));
}

/** By a number of bits. */
type Shift = (value: Value, bits: number) => Value;

function shift(opcode: number): Shift {
  return (value, bits) => simd(opcode)(value, i32.const(bits));
}

/** A vector with another value in a lane. */
type Replace = (vector: Value, lane: number, value: Value) => Value;

function replacement(opcode: number): Replace {
  return (vector, lane, value) => op("v128", 0xfd, opcode, lane)(vector, value);
}

/** A vector of the same value in all lanes. */
type Splat = (value: number) => Value;

function splat(
  array: (value: number) => { readonly buffer: ArrayBufferLike },
): Splat {
  return (value) => v128.const([...new Uint8Array(array(value).buffer)]);
}

export const i32 = {
  const: (value: number): Value => op("i32", 0x41, ...s64(BigInt(value)))(),
  eq: op("i32", 0x46),
  ne: op("i32", 0x47),
  add: op("i32", 0x6a),
  sub: op("i32", 0x6b),
  and: op("i32", 0x71),
  or: op("i32", 0x72),
  shl: op("i32", 0x74),
  shr_u: op("i32", 0x76),
  reinterpret_f32: op("i32", 0xbc),
  /** From an address and a distance from it. */
  load: (address: Value, offset: number): Value =>
    op("i32", 0x28, 0, ...u32(offset))(address),
  load8_u: (address: Value, offset: number): Value =>
    op("i32", 0x2d, 0, ...u32(offset))(address),
  /** The lowest byte only. */
  store8: (value: Value): Value => ({
    ...value,
    narrow: { code: [0x3a], bytes: 1 },
  }),
} as const;

export const i64 = {
  const: (value: bigint): Value => op("i64", 0x42, ...s64(value))(),
  eqz: op("i32", 0x50),
  lt_u: op("i32", 0x54),
  add: op("i64", 0x7c),
  and: op("i64", 0x83),
  or: op("i64", 0x84),
} as const;

export const f32 = {
  convert_i64_s: op("f32", 0xb4),
  convert_i64_u: op("f32", 0xb5),
  demote_f64: op("f32", 0xb6),
} as const;

export const f64 = {
  const: (value: number): Value =>
    op("f64", 0x44, ...new Uint8Array(Float64Array.of(value).buffer))(),
  eq: op("i32", 0x61),
  ne: op("i32", 0x62),
  gt: op("i32", 0x64),
  abs: op("f64", 0x99),
  convert_i64_s: op("f64", 0xb9),
  convert_i64_u: op("f64", 0xba),
  promote_f32: op("f64", 0xbb),
} as const;

export const v128 = {
  const: (bytes: readonly number[]): Value =>
    op("v128", 0xfd, 0x0c, ...bytes)(),
  and: simd(0x4e),
  or: simd(0x50),
  xor: simd(0x51),
  any_true: simd(0x53, "i32"),
  /** Of the first where the third has ones, else of the second. */
  bitselect: simd(0x52),
} as const;

export const i8x16 = {
  shl: shift(0x6b),
  splat: splat((value) => new Uint8Array(16).fill(value)),
  /** Bytes of the first by their numbers, which the second has; 0 beyond 15. */
  swizzle: simd(0x0e),
  /** Bytes of two vectors, by their numbers from 0 to 31. */
  shuffle: (a: Value, b: Value, lanes: readonly number[]): Value =>
    op("v128", 0xfd, 0x0d, ...lanes)(a, b),
  ne: simd(0x24),
  /** Of two vectors, saturated. */
  narrow_i16x8_s: simd(0x65),
  narrow_i16x8_u: simd(0x66),
  shr_u: shift(0x6d),
} as const;

export const i16x8 = {
  splat: splat((value) => new Uint16Array(8).fill(value)),
  ne: simd(0x2e),
  narrow_i32x4_s: simd(0x85),
  narrow_i32x4_u: simd(0x86),
} as const;

export const i32x4 = {
  splat: splat((value) => new Int32Array(4).fill(value)),
  ne: simd(0x38),
  gt_s: simd(0x3b),
  extend_low_i16x8_s: simd(0xa7),
  extend_high_i16x8_s: simd(0xa8),
  extend_low_i16x8_u: simd(0xa9),
  extend_high_i16x8_u: simd(0xaa),
  shl: shift(0xab),
  shr_s: shift(0xac),
  shr_u: shift(0xad),
  add: simd(0xae),
  sub: simd(0xb1),
  trunc_sat_f32x4_s: simd(0xf8),
  /** Of what is in range: anything of others. */
  relaxed_trunc_f32x4_s: simd(0x101),
  trunc_sat_f32x4_u: simd(0xf9),
  trunc_sat_f64x2_s_zero: simd(0xfc),
  trunc_sat_f64x2_u_zero: simd(0xfd),
} as const;

export const i64x2 = {
  all_true: simd(0xc3, "i32"),
  sub: simd(0xd1),
  extend_low_i32x4_s: simd(0xc7),
  extend_high_i32x4_s: simd(0xc8),
  extend_low_i32x4_u: simd(0xc9),
  extend_high_i32x4_u: simd(0xca),
} as const;

export const f32x4 = {
  splat: splat((value) => new Float32Array(4).fill(value)),
  replace_lane: replacement(0x20),
  ne: simd(0x42),
  ge: simd(0x46),
  floor: simd(0x68),
  abs: simd(0xe0),
  add: simd(0xe4),
  sub: simd(0xe5),
  mul: simd(0xe6),
  demote_f64x2_zero: simd(0x5e),
  convert_i32x4_s: simd(0xfa),
  convert_i32x4_u: simd(0xfb),
} as const;

export const f64x2 = {
  splat: splat((value) => new Float64Array(2).fill(value)),
  replace_lane: replacement(0x22),
  lt: simd(0x49),
  ge: simd(0x4c),
  floor: simd(0x75),
  trunc: simd(0x7a),
  abs: simd(0xec),
  add: simd(0xf0),
  sub: simd(0xf1),
  mul: simd(0xf2),
  promote_low_f32x4: simd(0x5f),
  convert_low_i32x4_s: simd(0xfe),
  convert_low_i32x4_u: simd(0xff),
} as const;

/** The first if the third is not 0, else the second; both are computed. */
export function select(a: Value, b: Value, condition: Value): Value {
  return op(a.type, 0x1b)(a, b, condition);
}

/**
 * The first if the third is not 0, else the second. Only one is computed, but
 * for what is used at other places, too.
 */
export function choose(a: Value, b: Value, condition: Value): Value {
  return { type: a.type, code: [IF], operands: [a, b, condition] };
}

const [LOOP, IF, ELSE, END, BR_IF] = [0x03, 0x04, 0x05, 0x0b, 0x0d] as const;
const [DROP, LOCAL_GET, LOCAL_SET, LOCAL_TEE] = [
  0x1a,
  0x20,
  0x21,
  0x22,
] as const;
const NO_RESULT = 0x40;

/**
 * The parameters of a function: addresses of a block of each side, how many
 * blocks and rows of them there are, and two distances, for those that want
 * some.
 */
const [FROM, INTO, COUNT, ROWS, PITCH, APART] = [0, 1, 2, 3, 4, 5] as const;
const PARAMETERS = 6;

function parameter(local: number): Value {
  return { type: "i32", code: [LOCAL_GET, ...u32(local)], operands: [] };
}

const from = parameter(FROM);

/** The first distance that is given at the call, in bytes. */
export const pitch: Value = parameter(PITCH);
/** The second one. */
export const apart: Value = parameter(APART);

/** Addresses that lie so far apart, from one on. */
function addresses(first: Value, distance: Value, count: number): Value[] {
  const all = [first];
  while (all.length < count) all.push(i32.add(all.at(-1)!, distance));
  return all;
}

/** Loads a value of a block, a number of bytes behind its start. */
export const load = {
  i32: (at = 0): Value => i32.load(from, at),
  u8: (at = 0): Value => i32.load8_u(from, at),
  i64: (at = 0): Value => op("i64", 0x29, 0, ...u32(at))(from),
  f64: (at = 0): Value => op("f64", 0x2b, 0, ...u32(at))(from),
  v128: (at = 0): Value => op("v128", 0xfd, 0x00, 0, ...u32(at))(from),
  /** Rows of vectors side by side, a distance apart. */
  rows: (distance: Value, rows: number, columns: number): Value[][] =>
    addresses(from, distance, rows).map((address) =>
      Array.from(
        { length: columns },
        (_, i) => op("v128", 0xfd, 0x00, 0, ...u32(16 * i))(address),
      )
    ),
} as const;

const stores: Readonly<Record<Type, { code: number[]; bytes: number }>> = {
  i32: { code: [0x36], bytes: 4 },
  i64: { code: [0x37], bytes: 8 },
  f32: { code: [0x38], bytes: 4 },
  f64: { code: [0x39], bytes: 8 },
  v128: { code: [0xfd, 0x0b], bytes: 16 },
};

/** What a block becomes. */
export interface Block {
  /** From one block to the next, in bytes; negative: backwards. */
  readonly bytes: number | Value;
  /** The values that are stored, side by side. */
  readonly values: readonly Value[];
  /** How far apart they are stored instead, all of one type, in bytes. */
  readonly apart?: number | Value;
  /** How many of them lie side by side all the same; else one. */
  readonly group?: number;
  /** From one row of blocks to the next, in bytes, of both sides. */
  readonly rows?: { readonly from: Value; readonly into: Value };
}

/**
 * Goes through `count` blocks from one address, and stores at another; through
 * `rows` of so many if blocks have rows.
 */
export type BlockFunction = (
  from: number,
  into: number,
  count: number,
  rows?: number,
  pitch?: number,
  apart?: number,
) => void;

/** How a value is stored. */
function storeOf(
  { type, narrow }: Value,
): { code: readonly number[]; bytes: number } {
  return narrow ?? stores[type];
}

/** How many bytes are stored of a block. */
export function storedBytes({ values }: Block): number {
  return values.reduce((sum, value) => sum + storeOf(value).bytes, 0);
}

/** The bytes of a page of memory. */
export const PAGE = 65536;

/**
 * Makes a function that goes through a memory. That must not grow: V8 looks at
 * every address whether it is in the memory, and does so in half the time if it
 * knows its size.
 */
export function assemble(
  block: Block,
  memory: WebAssembly.Memory,
): BlockFunction {
  const type = [0x60, ...vector(Array(PARAMETERS).fill([types.i32])), 0];
  const pages = u32(memory.buffer.byteLength / PAGE);
  const limits = [...pages, ...pages];
  const module = new WebAssembly.Module(Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, type),
    ...section(2, [...text("js"), ...text("memory"), 0x02, 0x01, ...limits]),
    ...section(3, [0]),
    ...section(7, [...text("run"), 0x00, 0]),
    ...section(10, functionOf(block)),
  ]));
  const { exports } = new WebAssembly.Instance(module, { js: { memory } });
  return exports.run as BlockFunction;
}

function text(name: string): number[] {
  return [...u32(name.length), ...new TextEncoder().encode(name)];
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...u32(items.length), ...items.flat()];
}

/** A section with one item. */
function section(id: number, item: readonly number[]): number[] {
  const content = vector([item]);
  return [id, ...u32(content.length), ...content];
}

/** How often each value is used by some values, which are used once each time. */
function usesIn(values: readonly Value[]): Map<Value, number> {
  const uses = new Map<Value, number>();
  const count = (value: Value): void => {
    const before = uses.get(value) ?? 0;
    uses.set(value, before + 1);
    if (before === 0) value.operands.forEach(count);
  };
  values.forEach(count);
  return uses;
}

/** A loop over blocks, and perhaps one over rows of them. */
function functionOf(
  { bytes, values, apart, group = 1, rows }: Block,
): number[] {
  const to = parameter(INTO);
  const groups = typeof apart === "object"
    ? addresses(to, apart, values.length / group)
    : [];
  const targets = values.map((_, i) => groups[Math.floor(i / group)] ?? to);
  const uses = usesIn([...values, ...targets]);
  const locals: Type[] = [];
  const places = new Map<Value, number>();
  /** Whether it is worth a local: small constants and parameters are not. */
  const isKept = (value: Value): boolean =>
    uses.get(value)! > 1 && value.operands.length > 0;
  const keep = (value: Value): number => {
    const place = PARAMETERS + locals.push(value.type) - 1;
    places.set(value, place);
    return place;
  };
  const body: number[] = [];
  const emit = (value: Value): void => {
    const place = places.get(value);
    if (place !== undefined) return void body.push(LOCAL_GET, ...u32(place));
    if (value.code[0] === IF) emitChoice(value);
    else {
      value.operands.forEach(emit);
      body.push(...value.code);
    }
    if (isKept(value)) body.push(LOCAL_TEE, ...u32(keep(value)));
  };
  /** What is used elsewhere, too, must be there whichever way is taken. */
  const emitShared = (
    value: Value,
    inside: ReadonlyMap<Value, number>,
  ): void => {
    if (places.has(value)) return;
    const isShared = isKept(value) && inside.get(value)! < uses.get(value)!;
    if (isShared) {
      emit(value);
      body.push(DROP);
    } else value.operands.forEach((operand) => emitShared(operand, inside));
  };
  const emitChoice = ({ type, operands }: Value): void => {
    const [a, b, condition] = operands as [Value, Value, Value];
    for (const value of [a, b]) emitShared(value, usesIn([value]));
    emit(condition);
    body.push(IF, types[type]);
    emit(a);
    body.push(ELSE);
    emit(b);
    body.push(END);
  };
  const add = (local: number, by: number | Value): void =>
    emit(
      i32.add(parameter(local), typeof by === "number" ? i32.const(by) : by),
    );

  // Constant vectors take V8 several instructions: it makes them once, before.
  const constants = new Map<string, number>();
  for (const value of uses.keys()) {
    if (value.type !== "v128" || value.operands.length > 0) continue;
    const known = constants.get(`${value.code}`);
    if (known !== undefined) {
      places.set(value, known);
      continue;
    }
    const place = keep(value);
    constants.set(`${value.code}`, place);
    body.push(...value.code, LOCAL_SET, ...u32(place));
  }

  /** Where a row begins, and how many blocks it has. */
  const starts = rows === undefined ? [] : [FROM, INTO, COUNT].map((local) => ({
    local,
    kept: u32(PARAMETERS + locals.push("i32") - 1),
  }));
  if (rows !== undefined) body.push(LOOP, NO_RESULT);
  for (const { local, kept } of starts) {
    body.push(LOCAL_GET, local, LOCAL_SET, ...kept);
  }
  body.push(LOOP, NO_RESULT);
  let into = 0;
  values.forEach((value, i) => {
    const { code, bytes } = storeOf(value);
    const at = apart === undefined
      ? into
      : typeof apart === "number"
      ? Math.floor(i / group) * apart + i % group * bytes
      : i % group * bytes;
    into = apart === undefined ? into + bytes : group * bytes;
    emit(targets[i]!);
    emit(value);
    body.push(...code, 0, ...u32(at));
  });
  add(FROM, bytes);
  body.push(LOCAL_SET, FROM);
  add(INTO, into);
  body.push(LOCAL_SET, INTO);
  add(COUNT, -1);
  body.push(LOCAL_TEE, COUNT, BR_IF, 0, END);
  if (rows !== undefined) {
    for (const { local, kept } of starts) {
      body.push(LOCAL_GET, ...kept, LOCAL_SET, local);
    }
    add(FROM, rows.from);
    body.push(LOCAL_SET, FROM);
    add(INTO, rows.into);
    body.push(LOCAL_SET, INTO);
    add(ROWS, -1);
    body.push(LOCAL_TEE, ROWS, BR_IF, 0, END);
  }
  const code = [
    ...vector(locals.map((type) => [1, types[type]])),
    ...body,
    END,
  ];
  return [...u32(code.length), ...code];
}
