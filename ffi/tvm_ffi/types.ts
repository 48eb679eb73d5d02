/**
 * What TVM-FFI knows of the types of objects: their names, fields and methods.
 *
 * @module
 */

import { libc } from "../libc.ts";
import {
  ANY,
  ATTRIBUTE_COLUMN,
  FIELD_INFO,
  MEMBER_FLAG,
  METHOD_INFO,
  TYPE,
  TYPE_INFO,
} from "./abi.ts";
import type { Anys } from "./anys.ts";
import { readBytes, readElements, readName, readString } from "./read.ts";
import type { Frame, Runtime } from "./runtime.ts";
import { showText } from "./text.ts";

/** A field of a type. */
export interface FieldInfo {
  /** Its name. */
  readonly name: string;
  /** Where in the object it is, in bytes. */
  readonly offset: bigint;
  /** `int (*)(void *field, TVMFFIAny *result)`. */
  readonly getter: bigint;
  /** `int (*)(void *field, const TVMFFIAny *value)`, or a function object. */
  readonly setter: bigint;
  /** Whether the setter is a function object. */
  readonly setterIsFunction: boolean;
  /** Whether it may be set. */
  readonly isWritable: boolean;
}

/** A method of a type. */
export interface MethodInfo {
  /** Its name. */
  readonly name: string;
  /** Whether it takes no object. */
  readonly isStatic: boolean;
  /** The function object, which the type's table has for good. */
  readonly address: bigint;
}

/** A type of objects. */
export interface TypeInfo {
  /** Its number in this process. */
  readonly index: number;
  /** Its name, `ffi.Array` for example. */
  readonly key: string;
  /** The number of the type that it is derived from; -1 for none. */
  readonly parent: number;
  /** Its own fields. */
  readonly fields: readonly FieldInfo[];
  /** Its own methods. */
  readonly methods: readonly MethodInfo[];
}

/** Reads structs that lie side by side. */
function readStructs(
  address: bigint,
  count: number,
  size: number,
): { readonly words: BigUint64Array; readonly halves: Int32Array }[] {
  const { buffer } = readBytes(address, BigInt(count * size));
  return Array.from({ length: count }, (_, i) => ({
    words: new BigUint64Array(buffer, i * size, size / 8),
    halves: new Int32Array(buffer, i * size, size / 4),
  }));
}

/** Reads what is known of a type that is registered. */
export function readType({ library }: Runtime, index: number): TypeInfo {
  const address = library.typeInfo(index);
  const [info] = readStructs(address, 1, TYPE_INFO.size);
  const { words, halves } = info!;
  const depth = halves[TYPE_INFO.depth / 4]!;
  const fields = readStructs(
    words[TYPE_INFO.fields / 8]!,
    halves[TYPE_INFO.fieldCount / 4]!,
    FIELD_INFO.size,
  );
  const methods = readStructs(
    words[TYPE_INFO.methods / 8]!,
    halves[TYPE_INFO.methodCount / 4]!,
    METHOD_INFO.size,
  );
  return {
    index,
    key: readName(words, TYPE_INFO.key),
    parent: depth === 0 ? -1 : parentOf(words[TYPE_INFO.ancestors / 8]!, depth),
    fields: fields.map(({ words }) => {
      const flags = Number(words[FIELD_INFO.flags / 8]!);
      return {
        name: readName(words, FIELD_INFO.name),
        offset: words[FIELD_INFO.offset / 8]!,
        getter: words[FIELD_INFO.getter / 8]!,
        setter: words[FIELD_INFO.setter / 8]!,
        setterIsFunction: (flags & MEMBER_FLAG.setterIsFunction) !== 0,
        isWritable: (flags & MEMBER_FLAG.writable) !== 0,
      };
    }),
    methods: methods.map(({ words }) => ({
      name: readName(words, METHOD_INFO.name),
      isStatic: (Number(words[METHOD_INFO.flags / 8]!) &
        MEMBER_FLAG.isStatic) !== 0,
      address: words[(METHOD_INFO.method + ANY.value) / 8]!,
    })),
  };
}

/** The last of the ancestors, which begin with the root. */
function parentOf(ancestors: bigint, depth: number): number {
  const [last] = readStructs(ancestors + BigInt(8 * (depth - 1)), 1, 8);
  const [info] = readStructs(last!.words[0]!, 1, TYPE_INFO.size);
  return info!.halves[TYPE_INFO.typeIndex / 4]!;
}

/** The number of a type: `null` when none has the name. */
export function typeIndexOf(runtime: Runtime, key: string): number | null {
  if (!typeKeys(runtime).includes(key)) return null;
  const out = new Int32Array(1);
  const name = showText(key);
  runtime.check(runtime.library.typeByKey(name, out));
  return out[0]!;
}

/** The names of all types that are registered. */
export function typeKeys(runtime: Runtime): string[] {
  return collectStrings(runtime, (frame) =>
    runtime.call(
      runtime.globalAddress("ffi.GetRegisteredTypeKeys"),
      frame,
      0,
    ));
}

/** The names of all functions in the library's table. */
export function functionNames(runtime: Runtime): string[] {
  const frame = runtime.enter(1);
  try {
    const list = "ffi.FunctionListGlobalNamesFunctor";
    runtime.call(runtime.globalAddress(list), frame, 0);
    const functor = frame.wordAt(frame.resultAt);
    frame.temporary.push(functor);
    const ask = (i: number): void => {
      frame.setWord(0, TYPE.int, BigInt(i));
      runtime.call(functor, frame, 1);
    };
    ask(-1);
    const count = Number(frame.intAt(frame.resultAt));
    return Array.from({ length: count }, (_, i) => {
      ask(i);
      return takeString(runtime, frame);
    });
  } finally {
    runtime.leave(frame);
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A result that is a string. */
function takeString({ library }: Runtime, frame: Frame): string {
  const { resultAt } = frame;
  if (frame.typeAt(resultAt) === TYPE.smallString) {
    return decoder.decode(frame.smallAt(resultAt));
  }
  const object = frame.wordAt(resultAt);
  const text = decoder.decode(readString(object));
  library.decRef(object);
  return text;
}

function collectStrings(
  runtime: Runtime,
  call: (frame: Frame) => void,
): string[] {
  const frame = runtime.enter(0);
  try {
    call(frame);
    const array = frame.wordAt(frame.resultAt);
    frame.temporary.push(array);
    const { length, elements } = readElements(array);
    return Array.from({ length }, (_, i) => stringAt(elements, i));
  } finally {
    runtime.leave(frame);
  }
}

/** A string among values, borrowed. */
function stringAt(values: Anys, i: number): string {
  const bytes = values.typeAt(i) === TYPE.smallString
    ? values.smallAt(i)
    : readString(values.wordAt(i));
  return decoder.decode(bytes);
}

/**
 * How much is registered: functions, types, their fields and methods. What a
 * module added must not be called when its code is gone.
 */
export function countRegistered(runtime: Runtime): number {
  const { library } = runtime;
  let count = functionNames(runtime).length;
  const out = new Int32Array(1);
  for (const key of typeKeys(runtime)) {
    const name = showText(key);
    if (library.typeByKey(name, out) !== 0) continue;
    const [info] = readStructs(library.typeInfo(out[0]!), 1, TYPE_INFO.size);
    count += 1 + info!.halves[TYPE_INFO.fieldCount / 4]! +
      info!.halves[TYPE_INFO.methodCount / 4]!;
  }
  return count;
}

/** The function object that a type has by the name of an attribute; 0 for none. */
export function typeAttribute(
  { library }: Runtime,
  type: number,
  name: string,
): bigint {
  const key = showText(name);
  const address = library.typeAttribute(key);
  if (address === 0n) return 0n;
  const [column] = readStructs(address, 1, ATTRIBUTE_COLUMN.size);
  const { words, halves } = column!;
  const at = type - halves[ATTRIBUTE_COLUMN.first / 4]!;
  if (at < 0 || at >= halves[ATTRIBUTE_COLUMN.length / 4]!) return 0n;
  const data = words[ATTRIBUTE_COLUMN.data / 8]! + BigInt(ANY.size * at);
  const [any] = readStructs(data, 1, ANY.size);
  return any!.halves[ANY.typeIndex / 4] === TYPE.function
    ? any!.words[ANY.value / 8]!
    : 0n;
}

const accessorType = {
  parameters: ["u64", "u64"], // void *field, TVMFFIAny *value
  result: "i32",
} as const;

/** Calls a getter or setter of a field, with a value of a frame. */
export function callAccessor(
  accessor: bigint,
  object: bigint,
  { offset }: FieldInfo,
  value: bigint,
): number {
  const field = object + offset;
  const c = libc();
  // bsearch gives NULL where the function gave anything but 0.
  if (c !== null) {
    return c.callAccessor(field, value, 1n, 1n, accessor) === 0n ? -1 : 0;
  }
  const pointer = Deno.UnsafePointer.create(accessor) as Deno.PointerObject<
    typeof accessorType
  >;
  return new Deno.UnsafeFnPointer(pointer, accessorType).call(field, value);
}
