/**
 * Classes for the types that libraries of TVM-FFI register, made of what its
 * reflection says.
 *
 * @module
 */

import { pointerTo } from "../../ffi/memory.ts";
import { TYPE } from "../../ffi/tvm_ffi/abi.ts";
import { readLength } from "../../ffi/tvm_ffi/read.ts";
import { Reference } from "../../ffi/tvm_ffi/reference.ts";
import {
  callAccessor,
  type FieldInfo,
  type MethodInfo,
  readType,
  typeAttribute,
  typeIndexOf,
  type TypeInfo,
} from "../../ffi/tvm_ffi/types.ts";
import {
  inspectContainer,
  type InspectContext,
  inspectObject,
  limitOf,
} from "./inspect.ts";
import { TvmFfiModule } from "./module.ts";
import { KEY, referenceOf, TvmFfiObject } from "./object.ts";
import { disposeAll, disposed, type Values } from "./values.ts";

/**
 * The class of a registered type: `new` calls what the library registered as its
 * constructor, and its static methods are there by their names.
 */
export interface TvmFfiType {
  /**
   * Constructs an object.
   *
   * @throws {TypeError} When the library registered no constructor.
   * @throws {TvmFfiError} When that one raises an error.
   */
  // deno-lint-ignore no-explicit-any
  new (...args: any[]): TvmFfiObject;
  /** The name that the type was registered by. */
  readonly typeKey: string;
  /** Static methods, by their names. */
  // deno-lint-ignore no-explicit-any
  readonly [method: string]: any;
}

const DICT_ITERATOR = "ffi.DictForwardIterFunctor";

/** Gives the text of an object, with that of values that lie so many levels deeper. */
type Show = (
  object: TvmFfiObject,
  context: InspectContext,
  inspect: (value: unknown, depth: number) => string,
) => string;

type ObjectClass = new (...args: unknown[]) => TvmFfiObject;

/** The classes of one runtime. */
export class Classes {
  readonly #values: Values;
  readonly #all = new Map<number, ObjectClass>();
  /** The names of fields, those of the types that each is derived from included. */
  readonly #shown = new Map<number, ReadonlySet<string>>();

  /** @param values What calls methods. */
  constructor(values: Values) {
    this.#values = values;
  }

  /** The class of a type by its name: `null` when there is none. */
  byKey(key: string): TvmFfiType | null {
    const index = typeIndexOf(this.#values.runtime, key);
    return index === null ? null : this.#of(index) as unknown as TvmFfiType;
  }

  /** What stands for an object. */
  make(reference: Reference): TvmFfiObject {
    return new (this.#of(reference.type))(KEY, reference);
  }

  #of(index: number): ObjectClass {
    const known = this.#all.get(index);
    if (known !== undefined) return known;
    const info = readType(this.#values.runtime, index);
    const made = this.#define(info);
    this.#all.set(index, made);
    return made;
  }

  #define(info: TypeInfo): ObjectClass {
    const { index, key, parent } = info;
    const Base = index === TYPE.module
      ? TvmFfiModule as unknown as ObjectClass
      : parent < 0
      ? TvmFfiObject as unknown as ObjectClass
      : this.#of(parent);
    const construct = (args: readonly unknown[]): Reference =>
      this.#construct(info, args);
    const name = key.slice(key.lastIndexOf(".") + 1);
    const made = {
      [name]: class extends Base {
        constructor(...args: unknown[]) {
          super(KEY, args[0] === KEY ? args[1] : construct(args));
        }
      },
    }[name]!;
    define(made, "typeKey", { value: key });
    for (const method of info.methods) {
      if (method.name === "constructor") continue;
      const target = method.isStatic ? made : made.prototype;
      define(target, method.name, { value: this.#method(method, key) });
    }
    for (const field of info.fields) {
      if (field.name === "constructor") continue;
      define(made.prototype, field.name, {
        get: this.#getter(field, key),
        ...field.isWritable ? { set: this.#setter(field, key) } : {},
      });
    }
    const isContainer = index === TYPE.list || index === TYPE.dict;
    const shown = new Set(this.#shown.get(parent));
    for (const { name } of info.fields) shown.add(name);
    shown.delete("constructor");
    this.#shown.set(index, shown);
    if (index !== TYPE.module) {
      define(made.prototype, Symbol.for("Deno.customInspect"), {
        value: this.#inspector(
          key,
          isContainer
            ? this.#showElements(index, key)
            : this.#showFields(key, [...shown]),
        ),
      });
    }
    if (isContainer) {
      define(made.prototype, Symbol.iterator, { value: this.#iterator(index) });
    }
    return made;
  }

  #construct(
    { index, key, methods }: TypeInfo,
    args: readonly unknown[],
  ): Reference {
    const values = this.#values;
    const { runtime } = values;
    const init = methods.find(({ name }) => name === "__ffi_init__")?.address ??
      typeAttribute(runtime, index, "__ffi_init__");
    if (init === 0n) {
      throw new TypeError(
        `Cannot construct a ${key}: the library registered no constructor; ` +
          "call the function of it that makes one",
      );
    }
    const address = values.construct(init, `new ${key}`, args);
    return new Reference(runtime, address, index, "value");
  }

  #method({ name, isStatic, address }: MethodInfo, key: string) {
    const values = this.#values;
    const full = `${key}.${name}`;
    const method = isStatic
      ? (...args: unknown[]) => values.call(address, full, args)
      : function (this: unknown, ...args: unknown[]) {
        aliveOf(this, full);
        return values.call(address, full, [this, ...args]);
      };
    define(method, "name", { value: name });
    return method;
  }

  #getter(field: FieldInfo, key: string) {
    const values = this.#values;
    const { runtime } = values;
    return function (this: unknown): unknown {
      const { address } = aliveOf(this, `${key}.${field.name}`);
      const frame = runtime.enter(0);
      try {
        frame.setNone(frame.resultAt);
        const { getter } = field;
        runtime.check(callAccessor(getter, address, field, frame.result));
        return values.take(frame, frame.resultAt);
      } finally {
        runtime.leave(frame);
      }
    };
  }

  #setter(field: FieldInfo, key: string) {
    const values = this.#values;
    const { runtime } = values;
    const full = `${key}.${field.name}`;
    return function (this: unknown, value: unknown): void {
      const { address } = aliveOf(this, full);
      if (field.setterIsFunction) {
        const at = pointerTo(address + field.offset);
        values.call(field.setter, full, [at, value]);
        return;
      }
      const frame = runtime.enter(1);
      try {
        values.passTo(frame, 0, value, full);
        runtime.check(
          callAccessor(field.setter, address, field, frame.address),
        );
      } finally {
        runtime.leave(frame);
      }
    };
  }

  /** What `console.log` shows: the type's name, and fields or elements. */
  #inspector(key: string, show: Show) {
    return function (
      this: TvmFfiObject,
      inspect: typeof Deno.inspect,
      context: InspectContext,
    ): string {
      const reference = referenceOf(this);
      if (reference?.isOver !== false) return `${key}, disposed`;
      return inspectObject(
        key,
        reference.address,
        context,
        (levels) =>
          show(this, context, (value, depth) => {
            const text = inspect(value, { ...context, depth: levels - depth });
            disposeAll([value]);
            return text;
          }),
      );
    };
  }

  #showFields(key: string, names: readonly string[]): Show {
    return (object, _context, inspect) => {
      const shown = names.map((name) => {
        try {
          return `${name}: ${inspect(object[name], 1)}`;
        } catch {
          return `${name}: ?`;
        }
      });
      return shown.length === 0
        ? `${key} {}`
        : `${key} { ${shown.join(", ")} }`;
    };
  }

  #showElements(index: number, key: string): Show {
    const values = this.#values;
    return (object, context, inspect) => {
      const { address } = referenceOf(object)!;
      const length = index === TYPE.list
        ? readLength(address)
        : values.dictSize(address);
      const most = limitOf(context);
      try {
        const all = index === TYPE.list
          ? values.elements(address, most)
          : new Map(values.entries(address, DICT_ITERATOR, most));
        return inspectContainer(key, length, inspect(all, 0), context);
      } catch {
        return `${key}(${length}) ?`;
      }
    };
  }

  /** What a list or dict has, at that time. */
  #iterator(index: number) {
    const values = this.#values;
    return function (this: unknown): Iterator<unknown> {
      const { address } = aliveOf(this, "Symbol.iterator");
      const all = index === TYPE.list
        ? values.elements(address)
        : values.entries(address, DICT_ITERATOR);
      return all[Symbol.iterator]();
    };
  }
}

/** The reference of the object that something was called on. */
function aliveOf(value: unknown, action: string): Reference {
  const reference = referenceOf(value);
  if (reference === null) {
    throw new TypeError(`Cannot use "${action}" of what is no object of it`);
  }
  if (reference.isOver) throw disposed(`use "${action}"`, "object");
  return reference;
}

function define(
  target: object,
  name: string | symbol,
  descriptor: PropertyDescriptor,
): void {
  const isAccessor = "get" in descriptor;
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: false,
    ...isAccessor ? {} : { writable: false },
    ...descriptor,
  });
}
