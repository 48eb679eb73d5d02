/**
 * What comes of mistakes: every function of the module with arguments of every
 * wrong kind, and the mistakes that new users made, each with the message that
 * gets them on.
 */

import * as dlpack from "@dlpack/deno";
import {
  addressOf,
  BufferError,
  DeviceType,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  fromDlpackAsync,
  liveTensors,
  OutCapsule,
  registerDevice,
  Tensor,
  type TensorParameterType,
  uploadTo,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
} from "./helpers.ts";
import { callsPath } from "./native/calls.ts";
import { counts, make } from "./native/fixture.ts";

// ---- every function, with every kind of argument ----

type Call = (...args: unknown[]) => unknown;

/** A function, and arguments that it takes. */
interface Subject {
  readonly call: Call;
  /** Made for each call, as some are used up. */
  readonly args: () => unknown[];
}

/** A value of each kind, made for each call. */
const kinds: Readonly<Record<string, () => unknown>> = {
  undefined: () => undefined,
  null: () => null,
  "an empty string": () => "",
  "a string": () => "a string",
  "a numeral": () => "1",
  zero: () => 0,
  "a number": () => 3,
  "a fraction": () => 1.5,
  "a negative number": () => -1,
  NaN: () => NaN,
  Infinity: () => Infinity,
  "an unsafe number": () => 2 ** 53,
  "a bigint": () => 3n,
  "a negative bigint": () => -1n,
  "a huge bigint": () => 2n ** 70n,
  true: () => true,
  false: () => false,
  "an empty array": () => [],
  "an array of numbers": () => [1, 2],
  "an array of fractions": () => [1.5],
  "an array of strings": () => ["1"],
  "an array of arrays": () => [[1], [2]],
  "an array of nothing": () => new Array(2),
  "an array of symbols": () => [Symbol("a symbol")],
  "an object": () => ({}),
  "an object without a prototype": () => Object.create(null),
  "a Date": () => new Date(0),
  "a Float32Array": () => new Float32Array(6),
  "a BigInt64Array": () => new BigInt64Array(2),
  "an empty Uint8Array": () => new Uint8Array(0),
  "a detached Uint8Array": () => {
    const data = new Uint8Array(8);
    data.buffer.transfer();
    return data;
  },
  "a DataView": () => new DataView(new ArrayBuffer(8)),
  "an ArrayBuffer": () => new ArrayBuffer(8),
  "a Tensor": matrix,
  "a Tensor of int64": () => Tensor.from(new BigInt64Array(2)),
  "a Tensor of a library": () => importFixture(floats([2, 3])),
  "a disposed Tensor": () => {
    using t = importFixture(floats([2, 3]));
    return t;
  },
  "a capsule": () => capsule(floats([2, 3])),
  "a used capsule": () => {
    using used = capsule(floats([2, 3]));
    return used;
  },
  "an OutCapsule": () => new OutCapsule(),
  "a symbol": () => Symbol("a symbol"),
  "a function": () => () => {},
  "a class": () => class {},
  "a promise": () => Promise.resolve(),
};

function matrix(): Tensor<"float32"> {
  return Tensor.from(new Float32Array(6), [2, 3]);
}

/** Structs without deleters, which nobody has to give back. */
const pointer = make(floats([2, 3], { deleter: "null" }));
const bare = Deno.UnsafePointer.offset(pointer, 32)!;
const memory = new Float32Array(6);

/** A method of what `of` makes, and arguments that it takes. */
function method<T extends Disposable>(
  of: () => T,
  name: keyof T,
  args: () => unknown[] = () => [],
): Subject {
  const call: Call = (...given) => {
    const object = of();
    try {
      return (object[name] as Call)(...given);
    } finally {
      if (!(object instanceof Tensor)) object[Symbol.dispose]();
    }
  };
  return { call, args };
}

/** What has to be given back of a capsule that was taken. */
function giveBack(pointer: unknown): void {
  const name = "dltensor_versioned";
  new DlpackCapsule(pointer as Deno.PointerObject, name)[Symbol.dispose]();
}

/** A function that does nothing, in a symbol table. */
const refuse = (type: string) => ({
  name: "calls_refuse",
  parameters: [type as TensorParameterType],
  result: "i32" as const,
});

/** Types whose structs stay the caller's, and arguments for them. */
const lent: Readonly<Record<string, () => unknown>> = {
  "DLTensor*": matrix,
  "borrowed DLManagedTensor*": matrix,
  "borrowed DLManagedTensorVersioned*": () => capsule(floats([2, 3])),
  "data*": () => capsule(floats([2, 3])),
  "contiguous data*": matrix,
  "DLTensor**": () => [matrix(), capsule(floats([2, 3]))],
  "DLManagedTensor**": () => new OutCapsule(),
  "DLManagedTensorVersioned**": () => [new OutCapsule(), new OutCapsule()],
  "out DLManagedTensor*": () => new OutCapsule(),
  "out DLManagedTensorVersioned*": () => new OutCapsule(),
};

const library = dlopen(callsPath, {
  fill: {
    name: "calls_make_out",
    parameters: ["i32", "DLManagedTensorVersioned**"],
    result: "i32",
  },
  sum: {
    name: "calls_sum_five",
    parameters: ["DLTensor*", "DLTensor*", "f64", "DLTensor*", "DLTensor*"],
    result: "f64",
  },
  addWhen: {
    name: "calls_add_when",
    parameters: ["i32", "i32", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  consume: {
    name: "calls_consume_with",
    parameters: [
      "taken DLManagedTensorVersioned*",
      ...["u8", "i16", "u64", "f32", "bool", "pointer", "buffer"] as const,
      { struct: ["f64", "i32"] },
    ],
    result: "void",
  },
  consumeLegacy: {
    name: "calls_consume_legacy",
    parameters: ["taken DLManagedTensor*"],
    result: "f64",
  },
  consumeTwo: {
    name: "calls_consume_two",
    parameters: [
      "taken DLManagedTensorVersioned*",
      "taken DLManagedTensorVersioned*",
    ],
    result: "f64",
    nonblocking: true,
  },
});
const lending = dlopen(
  callsPath,
  Object.fromEntries(
    Object.keys(lent).flatMap((type) => [
      [type, refuse(type)],
      [`${type}?`, refuse(`${type}?`)],
      [`nonblocking ${type}`, { ...refuse(type), nonblocking: true }],
    ]),
  ),
).symbols as Readonly<Record<string, Call>>;

const filled = (): OutCapsule => {
  const out = new OutCapsule();
  library.symbols.fill(3, out);
  return out;
};

const ofTensor = (name: keyof Tensor, args?: () => unknown[]): Subject =>
  method<Tensor>(matrix, name, args);
const ofCapsule = (
  name: keyof DlpackCapsule,
  args?: () => unknown[],
): Subject => method(() => capsule(floats([2, 3])), name, args);

/** Everything that can be called. */
const subjects: Readonly<Record<string, Subject>> = {
  fromDlpack: {
    call: fromDlpack as Call,
    args: () => [
      capsule(floats([2, 3])),
      { device: "cpu", copy: null, dtype: "float32" },
    ],
  },
  uploadTo: {
    call: async (...given) => {
      const nothing = { synchronize() {}, [Symbol.dispose]() {} };
      registerDevice(DeviceType.extDev, {
        name: "a device that forgets",
        open: () => ({ ...nothing, read() {} }),
        openForWriting: () => ({ ...nothing, write() {} }),
      });
      try {
        await (uploadTo as Call)(...given);
      } finally {
        registerDevice(DeviceType.extDev, null);
      }
    },
    args: () => [
      capsule(floats([2, 3], { device: [DeviceType.extDev, 0] })),
      matrix(),
      { signal: null, onProgress: null },
    ],
  },
  fromDlpackAsync: {
    call: fromDlpackAsync as Call,
    args: () => [
      capsule(floats([2, 3])),
      {
        device: "cpu",
        copy: true,
        dtype: "float32",
        signal: null,
        onProgress: null,
      },
    ],
  },
  liveTensors: { call: liveTensors, args: () => [] },
  addressOf: { call: addressOf as Call, args: () => [matrix()] },
  registerDevice: {
    call: (...args) => {
      registerDevice(...args as Parameters<typeof registerDevice>);
      registerDevice(DeviceType.extDev, null);
    },
    args: () => [DeviceType.extDev, { name: "none", open: () => ({}) }],
  },
  dlopen: {
    call: dlopen as Call,
    args: () => [
      callsPath,
      {
        f: {
          name: "calls_make",
          parameters: ["i32"],
          result: "DLManagedTensorVersioned*",
          nonblocking: false,
          optional: false,
          writable: false,
        },
        g: refuse("DLTensor*"),
        calls_version: { type: "i32" },
      },
    ],
  },

  "new DlpackCapsule": {
    call: (...args) => Reflect.construct(DlpackCapsule, args),
    args: () => [
      pointer,
      "dltensor_versioned",
      { stream: 1, writable: true },
    ],
  },
  "DlpackCapsule.borrow": {
    call: DlpackCapsule.borrow as Call,
    args: () => [bare, { keepAlive: memory, writable: true, stream: 1 }],
  },
  "DlpackCapsule.from": {
    call: DlpackCapsule.from as Call,
    args: () => [
      Deno.UnsafePointer.of(memory),
      {
        dtype: "float32",
        shape: [2, 3],
        strides: [3, 1],
        byteLength: 24,
        padded: false,
        device: { type: "cpu", id: 0 },
        readOnly: false,
        stream: 1,
        keepAlive: memory,
        release: () => {},
      },
    ],
  },
  "DlpackCapsule.from of bytes": {
    call: DlpackCapsule.from as Call,
    args: () => [0n, {
      dtype: "int4",
      shape: [0],
      byteStrides: [4],
      padded: true,
    }],
  },
  "DlpackCapsule.prototype.with": ofCapsule(
    "with",
    () => [{ stream: 1, writable: true }],
  ),
  "DlpackCapsule.prototype.hold": ofCapsule("hold"),
  "DlpackCapsule.prototype.take": {
    call: () => giveBack(capsule(floats([2, 3])).take()),
    args: () => [],
  },
  "DlpackCapsule.prototype.__dlpack__": ofCapsule("__dlpack__"),
  "DlpackCapsule.prototype.__dlpack_device__": ofCapsule("__dlpack_device__"),
  "DlpackCapsule.prototype.[Symbol.dispose]": ofCapsule(Symbol.dispose),

  "new OutCapsule": {
    call: (...args) => Reflect.construct(OutCapsule, args),
    args: () => [],
  },
  "OutCapsule.prototype.take": method(
    filled,
    "take",
    () => [{ keepAlive: memory, writable: true, stream: 1 }],
  ),
  "OutCapsule.prototype.[Symbol.dispose]": method(filled, Symbol.dispose),

  "Tensor.from": {
    call: Tensor.from as Call,
    args: () => [
      new Float32Array(6),
      [2, 3],
      { dtype: "float32", strides: [3, 1], offset: 0, readOnly: true },
    ],
  },
  "Tensor.from of packed elements": {
    call: Tensor.from as Call,
    args: () => [new Uint8Array(6), [6], { dtype: "int4", padded: true }],
  },
  "Tensor.empty": {
    call: Tensor.empty as Call,
    args: () => [[2, 3], "float32"],
  },
  "Tensor.zeros": {
    call: Tensor.zeros as Call,
    args: () => [[2, 3], "float32"],
  },
  "Tensor.prototype.get": ofTensor("get", () => [1, 2]),
  "Tensor.prototype.set": ofTensor("set", () => [1, 2, 0.5]),
  "Tensor.prototype.set of bool": method(
    () => Tensor.from(new Uint8Array(2), [2], { dtype: "bool" }),
    "set",
    () => [1, true],
  ),
  "Tensor.prototype.set of int64": method(
    () => Tensor.from(new BigInt64Array(2)),
    "set",
    () => [1n, 5n],
  ),
  "Tensor.prototype.set of complex64": method(
    () => Tensor.from(new Float32Array(4), [2], { dtype: "complex64" }),
    "set",
    () => [1, { re: 1, im: 2 }],
  ),
  "Tensor.prototype.set of int4": method(
    () => Tensor.from(new Uint8Array(2), [4], { dtype: "int4" }),
    "set",
    () => [1, 2],
  ),
  "Tensor.prototype.slice": ofTensor("slice", () => [1, [0, 2, 1]]),
  "Tensor.prototype.slice of all": ofTensor("slice", () => [null, 1n]),
  "Tensor.prototype.transpose": ofTensor("transpose", () => [1, 0]),
  "Tensor.prototype.reshape": ofTensor("reshape", () => [[3, 2]]),
  "Tensor.prototype.assign": ofTensor("assign", () => [new Float32Array(6)]),
  "Tensor.prototype.assign of complex64": method(
    () => Tensor.from(new Float32Array(4), [2], { dtype: "complex64" }),
    "assign",
    () => [{ re: 1, im: 2 }],
  ),
  "Tensor.prototype.copy": ofTensor(
    "copy",
    () => [{ out: new Float32Array(6) }],
  ),
  "Tensor.prototype.astype": ofTensor(
    "astype",
    () => ["float64", { out: new Float64Array(6) }],
  ),
  "Tensor.prototype.toArray": ofTensor("toArray"),
  "Tensor.prototype.toJSON": ofTensor("toJSON"),
  "Tensor.prototype.toString": ofTensor("toString"),
  "Tensor.prototype.[Symbol.iterator]": {
    call: () => [...matrix()],
    args: () => [],
  },
  "Tensor.prototype.is": ofTensor("is", () => ["float32"]),
  "Tensor.prototype.hold": ofTensor("hold"),
  "Tensor.prototype.during": ofTensor("during", () => [Promise.resolve()]),
  "Tensor.prototype.release": {
    call: () => importFixture(floats([2, 3])).release(),
    args: () => [],
  },
  "Tensor.prototype.__dlpack__": ofTensor(
    "__dlpack__",
    () => [{ stream: null, maxVersion: [1, 3], dlDevice: [1, 0], copy: true }],
  ),
  "Tensor.prototype.__dlpack_device__": ofTensor("__dlpack_device__"),
  "Tensor.prototype.[Symbol.dispose]": ofTensor(Symbol.dispose),

  "a function that takes numbers, too": {
    call: library.symbols.sum as Call,
    args: () => [matrix(), matrix(), 0.5, matrix(), matrix()],
  },
  "a nonblocking function that takes numbers": {
    call: (a, b) =>
      library.symbols.addWhen(a as number, b as number, Int32Array.of(1)),
    args: () => [1, 2],
  },
  "a function that takes over": {
    call: library.symbols.consume as Call,
    args: () => [
      capsule(floats([2, 3])),
      ...[1, -1, 2n, 0.5, true, null, null, new Uint8Array(16)],
    ],
  },
  "a function that takes over a legacy struct": {
    call: library.symbols.consumeLegacy as Call,
    args: () => [capsule(floats([2, 3], { versioned: false }))],
  },
  "a nonblocking function that takes over": {
    call: library.symbols.consumeTwo as Call,
    args: () => [matrix(), capsule(floats([2, 3]))],
  },
  ...Object.fromEntries(
    Object.entries(lending).map(([type, call]) => {
      const make = lent[type.replace(/^nonblocking |\?$/g, "")]!;
      return [`a function of ${type}`, { call, args: () => [make()] }];
    }),
  ),
};

/** What V8, Deno or Rust say where a check is missing. */
const foreign = new RegExp(
  [
    "is not iterable|is not a (?:function|constructor)|Cannot (?:read|set) prop",
    "Cannot (?:convert|destructure|mix BigInt)|undefined \\(reading|undefined or",
    "called on incompatible|detached|resizable|private member|is not defined",
    "Invalid (?:array|typed array|DataView|FFI|attempt)|out of bounds|too large",
    "[Mm]ust be an object$|must be less than|Start offset|must be a multiple",
    "should be a multiple|[Ee]xpected (?:an? |null|one|external|pointer|integer)",
    "Maximum call stack|Converting circular|not valid JSON|invalid type|variant",
    "\\[object |#<|read only|not extensible|Found non-callable|NaN, NaN",
  ].join("|"),
);

/** What is wrong with an error, if anything. */
function faultOf(error: unknown): string | null {
  if (!(error instanceof Error)) return "it is no error";
  const { message } = error;
  if (foreign.test(message)) return "it is not ours";
  if (!/^[A-Z]/.test(message) || /[.!]$/.test(message) || message.length < 20) {
    return "it is not written as ours are";
  }
  const isOurs = error instanceof TypeError || error instanceof RangeError ||
    error instanceof BufferError ||
    Object.values(Deno.errors).some((Class) => error instanceof Class);
  // What a system says of a library has no class of its own.
  const isOfLibrary = error.constructor === Error &&
    /^Cannot (open the|find) /.test(message);
  return isOurs || isOfLibrary ? null : `it is a ${error.constructor.name}`;
}

/** Every place in arguments, and how to put something else there. */
function* placesIn(
  values: unknown,
  path: string,
): Generator<[place: string, replace: (by: unknown) => unknown]> {
  yield [path, (by) => by];
  const isPlain = typeof values === "object" && values !== null &&
    Object.getPrototypeOf(values) === Object.prototype;
  if (!Array.isArray(values) && !isPlain) return;
  for (const [key, value] of Object.entries(values)) {
    const at = Array.isArray(values) ? `${path}[${key}]` : `${path}.${key}`;
    for (const [place, replace] of placesIn(value, at)) {
      const put = (by: unknown): unknown =>
        Array.isArray(values)
          ? values.with(Number(key), replace(by))
          : { ...values, [key]: replace(by) };
      yield [place, put];
    }
  }
}

function dispose(value: unknown): void {
  if (Array.isArray(value)) return value.forEach(dispose);
  const dispose_ = (value as Partial<Disposable> | null)?.[Symbol.dispose];
  if (typeof dispose_ === "function") dispose_.call(value);
}

/** Calls, and says what was thrown, if anything. */
async function attempt(call: Call, args: unknown[]): Promise<unknown> {
  try {
    const result = call(...args);
    dispose(result instanceof Promise ? await result : result);
    return undefined;
  } catch (error) {
    return error ?? new Error("Nothing");
  } finally {
    dispose(args);
    for (const arg of args) {
      if (typeof arg === "object" && arg !== null) {
        dispose(Object.values(arg));
      }
    }
  }
}

Deno.test("Everything that can be called is among the subjects", () => {
  const names = new Set(
    Object.keys(subjects).map((name) => name.replace(/^new | of .*$/, "")),
  );
  const missing: string[] = [];
  const look = (name: string): void => {
    if (!names.has(name)) missing.push(name);
  };
  for (const [name, value] of Object.entries(dlpack)) {
    // An error of the module is nobody's to make.
    if (typeof value !== "function" || (value as unknown) === BufferError) {
      continue;
    }
    if (!/^class /.test(String(value))) {
      look(name);
      continue;
    }
    for (
      const [of, prefix] of [
        [value, `${name}.`],
        [value.prototype, `${name}.prototype.`],
      ]
    ) {
      for (const key of Reflect.ownKeys(of)) {
        const { value: method } = Object.getOwnPropertyDescriptor(of, key)!;
        if (typeof method !== "function" || key === "constructor") continue;
        // How console.log and other copies of the module see it.
        if (typeof key === "symbol" && Symbol.keyFor(key) !== undefined) {
          continue;
        }
        look(prefix + (typeof key === "symbol" ? `[${key.description}]` : key));
      }
    }
  }
  assertEquals(missing, []);
});

/** What takes anything: it is only kept, compared, or not looked at. */
const takesAnything = ["Tensor.prototype.is[0]"];

Deno.test("What is passed in any place is taken, or refused in our words", async (t) => {
  for (const [name, subject] of Object.entries(subjects)) {
    await t.step(name, () => sweep(name, subject));
  }
});

async function sweep(name: string, { call, args }: Subject): Promise<void> {
  const before = { ...liveTensors(), ...counts(), deleted: 0 };
  /** The kinds that are refused in other words than ours, by place and words. */
  const faults = new Map<string, string[]>();
  const look = (error: unknown, place: string, kind: string): void => {
    const fault = faultOf(error);
    if (fault === null) return;
    const key = `${name}${place}: ${fault}: ${error}`;
    faults.set(key, [...faults.get(key) ?? [], kind]);
  };
  const own = await attempt(call, args());
  assertEquals(own, undefined, `${name} refuses its own arguments`);

  const example = args();
  const places = [...placesIn(example, "")].slice(1);
  dispose(example);
  for (const [i, [place]] of places.entries()) {
    let isOpen = true;
    for (const [kind, make] of Object.entries(kinds)) {
      const given = args();
      const [, replace] = [...placesIn(given, "")][i + 1]!;
      const error = await attempt(call, replace(make()) as unknown[]);
      dispose(given);
      if (error === undefined) continue;
      isOpen = false;
      look(error, place, kind);
    }
    if (isOpen && !takesAnything.includes(name + place)) {
      faults.set(`${name}${place} takes anything`, []);
    }
  }
  for (let count = 0; count < example.length; count++) {
    const given = args();
    const error = await attempt(call, given.slice(0, count));
    dispose(given);
    if (error !== undefined) look(error, "", `${count} arguments`);
  }
  const found = [...faults].map(([fault, of]) => `${fault}\n    ${of.join()}`);
  assertEquals(found, []);
  const now = () => ({ ...liveTensors(), ...counts(), deleted: 0 });
  if (!equal(now(), before)) await collectGarbage();
  assertEquals(now(), before, "what is left");
}

function equal(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

// ---- the mistakes that new users made ----

// deno-lint-ignore no-explicit-any
type Untyped = any;

/** A mistake, and what it says: all of it, or what it begins with. */
function mistake(
  name: string,
  make: () => unknown,
  Class: new (...args: Untyped[]) => Error,
  message: string,
): void {
  Deno.test(`A mistake: ${name}`, () => {
    const error = assertThrows(make, Class);
    const length = message.endsWith("…") ? message.length - 1 : undefined;
    assertEquals(
      error.message.slice(0, length),
      message.slice(0, length),
      error.message,
    );
  });
}

const table: Untyped = Tensor.from(new Float32Array(48), [6, 8]);

for (const status of [3n, 8n, 4095n, 4096n + 4n]) {
  const wrong = `Cannot wrap 0x${status.toString(16)}: no struct can be ` +
    "there; is it the pointer, not a status, that the function returned?";
  mistake(
    `the number ${status} taken for a pointer`,
    () => new DlpackCapsule(status, "dltensor_versioned"),
    TypeError,
    wrong,
  );
  mistake(
    `the number ${status} taken for a pointer to a bare DLTensor`,
    () => DlpackCapsule.borrow(status),
    TypeError,
    wrong,
  );
}
mistake(
  "a pointer of Deno that holds a status",
  () => new DlpackCapsule(Deno.UnsafePointer.create(3n), "dltensor_versioned"),
  TypeError,
  "Cannot wrap 0x3: no struct can be there; …",
);
mistake(
  "a negative status taken for a pointer",
  () => new DlpackCapsule(-8n, "dltensor_versioned"),
  TypeError,
  "Cannot wrap 0xfffffffffffffff8: no struct can be there; …",
);
mistake(
  "a negative status taken for the address of memory",
  () => DlpackCapsule.from(-1n, { dtype: "int8", shape: [1] }),
  TypeError,
  "Cannot wrap 0xffffffffffffffff: no memory can be there; …",
);

mistake(
  "reshape(8, 6)",
  () => table.reshape(8, 6),
  TypeError,
  "The shape must be an array, not 8: pass reshape([2, -1])",
);
mistake(
  "Tensor.from(data, 4)",
  () => Tensor.from(new Float32Array(4), 4 as Untyped),
  TypeError,
  "The shape must be an array, not 4: pass [2, 3]",
);
mistake(
  "Tensor.zeros(2, 3)",
  () => Tensor.zeros(2 as Untyped, "float32"),
  TypeError,
  "The shape must be an array, not 2: pass [2, 3]",
);

const typesOfParameters =
  "bool, u8, i8, u16, i16, u32, i32, u64, i64, usize, isize, f32, f64, " +
  "pointer, buffer, function, DLTensor*, const DLTensor*, borrowed " +
  "DLManagedTensor*, borrowed DLManagedTensorVersioned*, data*, contiguous " +
  "data*, DLTensor**, taken DLManagedTensor*, taken " +
  "DLManagedTensorVersioned*, DLManagedTensor**, DLManagedTensorVersioned**, " +
  "out DLManagedTensor*, out DLManagedTensorVersioned*, or a struct; a " +
  '"?" behind a type of DLPack\'s allows null';
const open = (type: unknown, result: unknown = "i32") => () =>
  dlopen(callsPath, {
    calls_refuse: { parameters: [type as "i32"], result: result as "i32" },
  });
Deno.test("No mistake: blanks as C writes them, and const", () => {
  for (
    const type of [
      "DLTensor *",
      "const DLTensor*",
      "const  DLTensor  *",
      " data *",
    ]
  ) {
    using lib = open(type)();
    assertEquals(lib.symbols.calls_refuse(table as never), 1, type);
  }
});
for (const type of ["DLTensor", "DLManagedTensor", "float*", "DLTensor&", ""]) {
  mistake(
    `a parameter of the type "${type}"`,
    open(type),
    TypeError,
    `Parameter 1 of "calls_refuse" has the type "${type}", which there is ` +
      `not: it is one of ${typesOfParameters}`,
  );
}
for (const struct of ["DLManagedTensor", "DLManagedTensorVersioned"]) {
  mistake(
    `a parameter that is just a ${struct}*`,
    open(`${struct} *`),
    TypeError,
    `Parameter 1 of "calls_refuse" is a ${struct}*: say whose it is, ` +
      `"borrowed ${struct}*" where it stays the caller's, "taken ${struct}*" ` +
      `where the callee takes it over, "out ${struct}*" where the callee fills ` +
      "it",
  );
}
mistake(
  "a result that is no pointer",
  open("i32", "DLManagedTensor"),
  TypeError,
  'The result of "calls_refuse" has the type "DLManagedTensor", which there ' +
    "is not: it is one of void, bool, u8, i8, u16, i16, u32, i32, u64, i64, " +
    "usize, isize, f32, f64, pointer, buffer, function, DLManagedTensor*, " +
    "DLManagedTensorVersioned*, DLTensor*, or a struct",
);
for (
  const [name, definition, message] of [
    [
      "a tensor in the place of a type",
      { parameters: [table], result: "i32" },
      'Parameter 1 of "calls_refuse" has the type a Tensor, which there is ' +
      "not: it is one of …",
    ],
    [
      "a variable of a type that there is not",
      { type: "int" },
      'The variable "calls_refuse" has the type "int", which there is not: …',
    ],
    [
      "a symbol with neither parameters nor type",
      {},
      'The symbol "calls_refuse" must be { parameters, result } or { type }, …',
    ],
    [
      "a name that is no string",
      { name: Symbol("calls_refuse"), parameters: [], result: "i32" },
      'The name of "calls_refuse" must be a string, not Symbol(calls_refuse)',
    ],
    [
      "writable that is no boolean",
      { parameters: [], result: "DLTensor*", writable: "yes" },
      'The option "writable" of "calls_refuse" must be true or false, not "yes"',
    ],
    [
      "nonblocking that is no boolean",
      { parameters: [], result: "i32", nonblocking: 1 },
      'The option "nonblocking" of "calls_refuse" must be true or false, not 1',
    ],
  ] as const
) {
  mistake(
    `${name}, in a symbol table`,
    () => dlopen(callsPath, { calls_refuse: definition as Untyped }),
    TypeError,
    message,
  );
}

mistake(
  "data that is longer than the shape",
  () => Tensor.from(new Float32Array(6), [2, 2]),
  RangeError,
  "Cannot make a tensor of shape [2, 2]: it takes 4 entries of data, which " +
    "has 6; for a part of data, pass an offset or strides, or a subarray",
);
mistake(
  "a dtype that does not lie in the typed array",
  () =>
    // @ts-expect-error: nor does it for the compiler
    Tensor.from(new Float32Array(4), [4], { dtype: "int32" }),
  TypeError,
  "Cannot make an int32 tensor of a Float32Array: its elements lie in an " +
    "Int32Array, and astype() converts",
);
mistake(
  "an array instead of a typed array",
  () => Tensor.from([[1, 2], [3, 4]] as Untyped),
  TypeError,
  "Cannot make a tensor of an array: pass a typed array, such as " +
    "Float32Array.from(values.flat(Infinity))",
);

mistake(
  'get("1", 0)',
  () => table.get("1", 0),
  TypeError,
  'The index for axis 0 must be an integer, not "1"',
);
mistake(
  "get(1.5, 0)",
  () => table.get(1.5, 0),
  RangeError,
  "The index for axis 0 must be an integer, not 1.5",
);
mistake(
  "get([1, 0])",
  () => table.get([1, 0]),
  RangeError,
  "Cannot index a tensor of 2 axes with 1 index: pass one for each axis, or slice() for a part",
);
Deno.test("No mistake: an element of an int64 tensor as an index", () => {
  const data = Int32Array.from({ length: 6 }, (_, i) => i);
  const t = Tensor.from(data, [2, 3]);
  assertEquals([t.get(1n, 2n), t.get(-1n, -3n)], [5, 3]);
  t.set(-2n, -1n, 9);
  assertEquals(data[2], 9);
  assertEquals(t.slice(-1n, [-2n]).toArray(), [4, 5]);
  assertEquals(t.reshape([3n, -1n]).shape, [3, 2]);
  assertEquals(t.transpose(...[-1n, 0n] as Untyped[]).shape, [3, 2]);
  assertThrows(
    () => t.get(-3n, 0),
    RangeError,
    "Index -3 is out of range for axis 0 of length 2",
  );
});
mistake(
  'slice(":", 0)',
  () => table.slice(":", 0),
  TypeError,
  'Cannot slice axis 0 by ":": pass an index, null, or [start, stop, step]',
);
Deno.test("slice(0, 3) is element [0, 3], not rows 0 to 3: NumPy's x[0, 3]", () => {
  assertEquals(table.slice(0, 3).shape, []);
  assertEquals(table.slice([0, 3]).shape, [3, 8]);
});
mistake(
  "transpose([1, 0])",
  () => table.transpose([1, 0]),
  TypeError,
  "An axis must be an integer, not an array",
);

Deno.test("No mistake: copy({ out: tensor }) writes to it, and returns it", () => {
  const t = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
  const data = new Float32Array(4);
  const out = Tensor.from(data, [2, 2]).transpose();
  assertEquals(t.copy({ out }) === out, true);
  assertEquals([...data], [1, 3, 2, 4]);
});
mistake(
  "copy({ out }) of another kind",
  () => table.copy({ out: [] }),
  TypeError,
  "Cannot copy into an array: pass a Float32Array, …",
);
mistake(
  "copy(out)",
  () => table.copy(new Float32Array(48)),
  TypeError,
  "The options of copy() must be an object, not a Float32Array",
);
mistake(
  "astype(dtype, out)",
  () => table.astype("float32", Tensor.zeros([6, 8], "float32")),
  TypeError,
  "The options of astype() must be an object, not a Tensor",
);
mistake(
  "a dtype of another library",
  () => table.astype("float"),
  TypeError,
  'There is no dtype "float": it is one of int1, int2, int4, int8, …',
);
mistake(
  "a number in the place of a bigint",
  () => Tensor.from(new BigInt64Array(2)).set(0, 1 as Untyped),
  TypeError,
  "Cannot set an element of an int64 tensor to a number: pass a bigint",
);

const { sum } = library.symbols;
mistake(
  "a text where a function of a library takes a number",
  () => sum(table, table, "0.5" as Untyped, table, table),
  TypeError,
  'Cannot pass "0.5" to parameter 3 of "sum", an f64: it takes a number',
);
mistake(
  "a typed array where it takes a tensor",
  () => sum(table, new Float32Array(3) as Untyped, 0, table, table),
  TypeError,
  'Cannot pass a Float32Array to parameter 2 of "sum", a DLTensor*: it takes ' +
    "a Tensor or a DlpackCapsule; make one with Tensor.from()",
);
mistake(
  "null where it takes no NULL",
  () => sum(table, table, 0, null as Untyped, table),
  TypeError,
  'Cannot pass null to parameter 4 of "sum", a DLTensor*: it takes a Tensor ' +
    'or a DlpackCapsule; for NULL, write "DLTensor*?"',
);
mistake(
  "undefined where it takes NULL",
  () => lending["DLTensor*?"]!(undefined),
  TypeError,
  'Cannot pass undefined to parameter 1 of "DLTensor*?", a DLTensor*?: it ' +
    "takes a Tensor or a DlpackCapsule",
);
mistake(
  "a hole in an array of tensors",
  () => lending["DLTensor**"]!([table, , table]),
  TypeError,
  'Cannot pass undefined to element 1 of parameter 1 of "DLTensor**", a ' +
    "DLTensor**: it takes a Tensor or a DlpackCapsule",
);
mistake(
  "a hole in an array of OutCapsules",
  () => lending["DLManagedTensor**"]!([new OutCapsule(), , new OutCapsule()]),
  TypeError,
  'Cannot pass undefined to element 1 of parameter 1 of "DLManagedTensor**", ' +
    "a DLManagedTensor**: it takes an OutCapsule",
);
Deno.test("A mistake: a text for a number of a nonblocking function", async () => {
  const error = await assertRejects(
    async () =>
      await library.symbols.addWhen("1" as Untyped, 2, Int32Array.of(1)),
    TypeError,
  );
  assertEquals(
    error.message,
    'Cannot pass "1" to parameter 1 of "addWhen", an i32: it takes an ' +
      "integer that fits into i32",
  );
});
Deno.test("A mistake: a struct without its bytes, and nothing is handed over", () => {
  for (const bytes of [new Uint8Array(0), new ArrayBuffer(0)]) {
    using given = capsule(floats([2, 3]));
    const error = assertThrows(
      () =>
        library.symbols.consume(
          ...[given, 1, -1, 2n, 0.5, true, null, null, bytes] as const,
        ),
      TypeError,
    );
    assert(
      error.message.startsWith(
        `Cannot pass ${
          bytes instanceof ArrayBuffer ? "an ArrayBuffer" : "a Uint8Array"
        } to parameter 9 of "consume", a struct: `,
      ),
      error.message,
    );
    assertEquals(given.name, "dltensor_versioned");
  }
});
Deno.test("No mistake: more arguments than there are parameters", () => {
  const call: Untyped = sum;
  assertEquals(call(table, table, 0.5, table, table, "more"), 0.5);
  assertEquals(table.get(0, 0), 0);
});

Deno.test("A take() that is refused leaves the OutCapsule as it was", () => {
  using out = filled();
  using gone = importFixture(floats([2]));
  gone[Symbol.dispose]();
  for (
    const options of [
      { keepAlive: gone },
      { writable: 1 as Untyped },
      { stream: "1" as Untyped },
    ]
  ) assertThrows(() => out.take(options), Error);
  using taken = out.take();
  assertEquals(taken.shape, [3]);
});
Deno.test("A during() that is refused keeps nothing", async () => {
  const t = importFixture(floats([2]));
  {
    const then = () => {
      throw new RangeError("Not today");
    };
    const pending = { then } as Untyped;
    await assertRejects(() => t.during(pending), RangeError, "Not today");
  }
  assertEquals(deletions(() => t[Symbol.dispose]()), 1);
});

mistake(
  "fromDlpack(typed array)",
  () => fromDlpack(new Float32Array(3) as Untyped),
  TypeError,
  "Cannot import a Float32Array: make a tensor of it with Tensor.from()",
);
mistake(
  "fromDlpack(pointer)",
  () => fromDlpack(pointer as Untyped),
  TypeError,
  "Cannot import a bare pointer: wrap it in new DlpackCapsule(pointer, " +
    '"dltensor" for a DLManagedTensor*, "dltensor_versioned" for a ' +
    "DLManagedTensorVersioned*), or a DLTensor* by DlpackCapsule.borrow()",
);
mistake(
  'fromDlpack(t, "cpu")',
  () => fromDlpack(table, "cpu" as Untyped),
  TypeError,
  'The options of fromDlpack() must be an object, not "cpu"',
);
mistake(
  "fromDlpack(t, { device: 1 })",
  () => fromDlpack(table, { device: 1 as Untyped }),
  TypeError,
  'The option "device" must be "cpu" or null, not 1',
);
mistake(
  "new Tensor(data)",
  () => Reflect.construct(Tensor, [new Float32Array(3), [3]]),
  TypeError,
  "Cannot construct a Tensor: use Tensor.from() or fromDlpack()",
);
mistake(
  "readOnly that is no boolean",
  () => Tensor.from(new Float32Array(3), [3], { readOnly: "no" as Untyped }),
  TypeError,
  'The option "readOnly" must be true or false, not "no"',
);
mistake(
  "memory whose readOnly is no boolean",
  () =>
    DlpackCapsule.from(0n, {
      dtype: "int8",
      shape: [0],
      readOnly: 1 as Untyped,
    }),
  TypeError,
  'The option "readOnly" must be true or false, not 1',
);
mistake(
  "a device id that no struct can say",
  () =>
    DlpackCapsule.from(0n, {
      dtype: "int8",
      shape: [0],
      device: { type: "cuda", id: 2 ** 32 },
    }),
  RangeError,
  "The id of a device must be …",
);
mistake(
  "a device by name",
  () => registerDevice("cuda" as Untyped, null),
  TypeError,
  'Cannot register a runtime for device type "cuda": …',
);
mistake(
  "a device type as a text",
  () => registerDevice("2" as Untyped, null),
  TypeError,
  'Cannot register a runtime for device type "2": …',
);

// ---- what JavaScript does to objects ----

/** What `postMessage` throws. */
function posted(message: unknown): unknown {
  const { port1, port2 } = new MessageChannel();
  try {
    port1.postMessage(message);
  } finally {
    port1.close();
    port2.close();
  }
  return undefined;
}

Deno.test("What cannot be cloned says what to send", async (t) => {
  using given = capsule(floats([2]));
  using out = new OutCapsule();
  using imported = importFixture(floats([2]));
  const cases: Readonly<Record<string, [unknown, string]>> = {
    "a Tensor": [
      table,
      "A Tensor, of which the memory would be lost: send its data, or the " +
      "address of release().take()",
    ],
    "a Tensor of a library": [imported, "send its data, or the address of"],
    "a DlpackCapsule": [given, "A DlpackCapsule: send the address of take()"],
    "an OutCapsule": [out, "An OutCapsule: send the address of take().take()"],
    "an object with one": [{ deep: [table] }, "send its data"],
  };
  for (const [name, [value, words]] of Object.entries(cases)) {
    for (const [how, send] of Object.entries({ structuredClone, posted })) {
      await t.step(`${name}, ${how}`, () => {
        const error = assertThrows(() => send(value), DOMException);
        assertEquals(error.name, "DataCloneError");
        assertStringIncludes(error.message, words);
      });
    }
  }
  assertEquals([given.name, imported.get(1)], ["dltensor_versioned", 1]);
});

Deno.test("JSON.stringify gives nested arrays, bigints as strings", () => {
  const bits = new BigInt64Array([1n, -(2n ** 63n)]);
  const t = Tensor.from(new Float32Array([1, 2.5, -3, 0]), [2, 2]);
  const cases: [unknown, string][] = [
    [t, "[[1,2.5],[-3,0]]"],
    [t.transpose(), "[[1,-3],[2.5,0]]"],
    [t.slice(0, 1), "2.5"],
    [Tensor.from(bits), '["1","-9223372036854775808"]'],
    [Tensor.from(bits).slice(0), '"1"'],
    [Tensor.from(new Uint8Array(2), [2], { dtype: "bool" }), "[false,false]"],
    [
      Tensor.from(new Float32Array([1, 2]), [1], { dtype: "complex64" }),
      '[{"re":1,"im":2}]',
    ],
    [{ weights: Tensor.from(new Uint8Array(0)) }, '{"weights":[]}'],
  ];
  for (const [value, text] of cases) assertEquals(JSON.stringify(value), text);
  const gone = importFixture(floats([2]));
  gone[Symbol.dispose]();
  const error = assertThrows(() => JSON.stringify(gone), BufferError);
  assertEquals(error.code, "released");
});
