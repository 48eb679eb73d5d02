import { TYPE } from "../../ffi/tvm_ffi/abi.ts";
import { Reference } from "../../ffi/tvm_ffi/reference.ts";
import { makeFunction, type TvmFfiFunction } from "./function.ts";
import { referenceOf, TvmFfiObject } from "./object.ts";
import { disposed, valuesOf } from "./values.ts";

/**
 * The functions of a module, by their names. Modules find a function by its name,
 * and have no list of them: `Object.keys` gives those that were found so far.
 */
export interface TvmFfiFunctions {
  /**
   * The function that the module exports as `__tvm_ffi_<name>`.
   *
   * @throws {TypeError} When it exports none by that name: `name in functions`
   * says so before.
   */
  readonly [name: string]: TvmFfiFunction;
}

const INSPECT = Symbol.for("Deno.customInspect");

let pathOf: (module: TvmFfiModule, path?: string) => string;

/**
 * A module: a library whose functions are found by their names.
 *
 * It stays open for as long as there are functions of it, and objects and tensors
 * that came out of calls; and to the end of the program, if it registered
 * functions or types of its own when it was loaded.
 */
export class TvmFfiModule extends TvmFfiObject {
  #path = "a module";
  #functions: TvmFfiFunctions | null = null;

  static {
    pathOf = (module, path) =>
      path === undefined ? module.#path : module.#path = path;
  }

  /**
   * Its functions: `mod.functions.add_one(x, y)`. Each is looked up once. A module
   * has no list of them: `nm -D` and `grep __tvm_ffi_` give that of a library.
   *
   * @throws {TypeError} When the module was disposed.
   */
  get functions(): TvmFfiFunctions {
    if (referenceOf(this)!.isOver) {
      throw disposed(`use the functions of ${this.#path}`, "module");
    }
    return this.#functions ??= functionsOf(this);
  }

  /** Gives the reference up. Functions that somebody has can still be called. */
  override [Symbol.dispose](): void {
    this.#functions = null;
    super[Symbol.dispose]();
  }

  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    const state = referenceOf(this)!.isOver ? ", disposed" : "";
    return `TvmFfiModule ${this.#path}${state}`;
  }
}

/** For other files of this folder: says where a module is. */
export function nameModule(module: TvmFfiModule, path: string): void {
  pathOf(module, path);
}

/**
 * An object that has the functions that were asked for as its own properties,
 * which are found faster than a proxy can say anything: that is its prototype.
 */
function functionsOf(module: TvmFfiModule): TvmFfiFunctions {
  const known: Record<string, TvmFfiFunction> = Object.create(
    new Proxy(Object.create(null), {
      get(_, name) {
        if (typeof name === "symbol") {
          return name === INSPECT
            ? () => inspectFunctions(pathOf(module), Object.keys(known))
            : undefined;
        }
        const found = find(module, name);
        if (found !== null) return known[name] = found;
        // What is asked of everything.
        if (["then", "toJSON", "constructor"].includes(name)) return undefined;
        throw new TypeError(
          `Cannot find the function "${name}" of ${
            pathOf(module)
          }: it exports ` +
            `no symbol __tvm_ffi_${name}; TVM_FFI_DLL_EXPORT_TYPED_FUNC(` +
            `${name}, …) exports a function of C++`,
        );
      },
      has(_, name) {
        if (typeof name === "symbol") return name === INSPECT;
        const found = find(module, name);
        if (found === null) return false;
        known[name] = found;
        return true;
      },
      // deno-lint-ignore no-explicit-any
      set(_, name, value, receiver: any) {
        return Reflect.defineProperty(receiver, name, {
          value,
          configurable: true,
          enumerable: true,
        });
      },
    }),
  );
  return known;
}

/** As many names are shown. */
const MOST = 100;

function inspectFunctions(path: string, found: readonly string[]): string {
  const all = `the functions of ${path}, each found by its name`;
  if (found.length === 0) return all;
  const names = found.slice(0, MOST).join(", ");
  const more = found.length - MOST;
  return `${all}; so far ${names}${more > 0 ? `, ... ${more} more` : ""}`;
}

function find(module: TvmFfiModule, name: string): TvmFfiFunction | null {
  const reference = referenceOf(module)!;
  if (reference.isOver) {
    throw disposed(`find "${name}" of ${pathOf(module)}`, "module");
  }
  const values = valuesOf(reference.runtime);
  const { runtime } = values;
  const frame = runtime.enter(3);
  try {
    frame.setHalves(0, TYPE.module, reference.low, reference.high);
    values.passTo(frame, 1, name, "functions");
    // Those of modules that it imports, too.
    frame.setHalves(2, TYPE.bool, 1, 0);
    const get = runtime.globalAddress("ffi.ModuleGetFunction");
    runtime.call(get, frame, 3);
    const { resultAt } = frame;
    if (frame.typeAt(resultAt) === TYPE.none) return null;
    const address = frame.wordAt(resultAt);
    // A function of a library has a reference to its module itself.
    const kind = values.call(
      runtime.globalAddress("ffi.ModuleGetKind"),
      "functions",
      [module],
    );
    const found = new Reference(
      runtime,
      address,
      TYPE.function,
      kind === "library" ? "ours" : "value",
    );
    return makeFunction(values, found, name);
  } finally {
    runtime.leave(frame);
  }
}
