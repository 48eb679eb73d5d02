import { setAllocator } from "../../ffi/tvm_ffi/callbacks.ts";
import { TYPE } from "../../ffi/tvm_ffi/abi.ts";
import { openLibrary } from "../../ffi/open_library.ts";
import { Reference } from "../../ffi/tvm_ffi/reference.ts";
import { type OpenLibrary, openTvmFfi } from "../../ffi/tvm_ffi/library.ts";
import { Runtime } from "../../ffi/tvm_ffi/runtime.ts";
import { allocateTensor, readPrototype } from "../../ffi/tvm_ffi/tensors.ts";
import { countRegistered, functionNames } from "../../ffi/tvm_ffi/types.ts";
import { deviceName, DeviceType } from "../device.ts";
import { BufferError, describe } from "../errors.ts";
import { Classes, type TvmFfiType } from "./classes.ts";
import { errorOf, failureOf } from "./error.ts";
import { findTvmFfi } from "./find.ts";
import { makeFunction, type TvmFfiFunction } from "./function.ts";
import { nameModule, type TvmFfiModule } from "./module.ts";
import { disposed, Values } from "./values.ts";

/** What there is of one libtvm_ffi in this program. */
class Binding {
  readonly runtime: Runtime;
  readonly values: Values;
  readonly classes: Classes;
  /** Libraries that were opened, by their paths. */
  readonly libraries = new Set<string>();

  constructor(path: string, library: OpenLibrary) {
    this.runtime = new Runtime(path, library);
    this.runtime.throws = (failure) => {
      throw errorOf(failure);
    };
    this.values = new Values(this.runtime, {
      function: (reference, name) => makeFunction(this.values, reference, name),
      object: (reference) => this.classes.make(reference),
    });
    this.classes = new Classes(this.values);
    setAllocator(this.runtime, allocate, failureOf);
  }
}

/** Makes a tensor that native code asks for: zeros would take longer. */
function allocate(pointer: Deno.PointerObject): Deno.PointerObject {
  const prototype = readPrototype(pointer);
  const [type, id] = prototype.device;
  if (type !== DeviceType.cpu) {
    throw new BufferError(
      "device",
      `Cannot allocate a tensor on ${
        deviceName(type) ?? type
      }:${id}: pass one ` +
        "of that device to the function, for its result",
    );
  }
  const owner = allocateTensor(prototype);
  if (owner !== null) return owner.moveAway();
  throw new BufferError(
    "copy",
    "Cannot allocate a tensor: this system's C library was not found",
  );
}

/** Those that were opened, by path, and by what tells one library from another. */
const bindings = new Map<string | bigint, Binding>();

function bindingAt(path: string): Binding {
  const place = keyOf(path);
  const known = bindings.get(place);
  if (known !== undefined) return known;
  const library = openTvmFfi(path);
  const binding = bindings.get(library.identity) ?? new Binding(path, library);
  bindings.set(library.identity, binding);
  bindings.set(place, binding);
  return binding;
}

/**
 * Functions of libraries that speak TVM-FFI, the ABI for calls with tensors of
 * DLPack's own makers.
 *
 * Their modules, types and functions are called with tensors of this module, of
 * which no copy is made. Python is not needed.
 *
 * @example Call functions that every libtvm_ffi has
 * ```ts ignore
 * import { Tensor } from "@dlpack/deno";
 * import { TvmFfi } from "@dlpack/deno/tvm_ffi";
 *
 * using ffi = TvmFfi.open();
 * const x = Tensor.from(new Float32Array([1, 2, 3]));
 * const array = ffi.globalFunction("ffi.Array")!;
 * const [same, two] = array(x, 2);
 * console.log(same.toArray(), two); // [1, 2, 3] 2n
 * ```
 */
export class TvmFfi implements Disposable {
  readonly #binding: Binding;
  #isDisposed = false;

  private constructor(binding: Binding) {
    this.#binding = binding;
  }

  /**
   * Opens libtvm_ffi, or gives what is open already.
   *
   * The library stays in the process, since others are linked to it; what `dispose`
   * ends is the use of this object.
   *
   * @param path Where it is. Default: what the environment variable
   * TVM_FFI_LIBRARY names, or what the Python package apache-tvm-ffi has, if it is
   * installed: `--allow-env`, `--allow-run` and `--allow-read` let it look.
   * @throws {Error} When it is not found or cannot be opened: the message lists
   * what was tried. When its ABI is of a version that this module does not know.
   * @throws {Deno.errors.NotCapable} Without full `--allow-ffi`.
   */
  static open(path?: string | URL): TvmFfi {
    return new TvmFfi(bindingAt(pathOf(path ?? findTvmFfi(), "TvmFfi.open()")));
  }

  /** The version of the library's ABI: `"0.1.16"`. */
  get version(): string {
    return this.#binding.runtime.version;
  }

  /** Where the library is. */
  get path(): string {
    return this.#binding.runtime.path;
  }

  /**
   * Opens a library that registers global functions and types when it is opened.
   * It stays open to the end of the program: nobody can tell when they are not
   * needed any more.
   *
   * @param path Where it is.
   * @throws {Error} When it cannot be opened.
   */
  openLibrary(path: string | URL): void {
    const { libraries } = this.#alive("open a library");
    const place = pathOf(path, "openLibrary()");
    const known = keyOf(place);
    if (libraries.has(known)) return;
    openLibrary(place, {});
    libraries.add(known);
  }

  /**
   * Loads a module: a library that exports functions as `__tvm_ffi_<name>`.
   *
   * @param path Where it is; `add_one.so` without a folder is looked for where
   * the system looks.
   * @returns The module. Best declared with `using`.
   * @throws {TvmFfiError} When it cannot be loaded.
   */
  loadModule(path: string | URL): TvmFfiModule {
    const binding = this.#alive("load a module");
    const { runtime, values } = binding;
    const place = pathOf(path, "loadModule()");
    const before = countRegistered(runtime);
    const load = runtime.globalAddress("ffi.ModuleLoadFromFile");
    const module = values.call(load, "loadModule", [place]) as TvmFfiModule;
    nameModule(module, place);
    // What it registered is its code: it must never be closed.
    if (countRegistered(runtime) !== before) {
      values.call(runtime.globalAddress("ffi.ModuleGlobalsAdd"), "loadModule", [
        module,
      ]);
    }
    return module;
  }

  /**
   * A function that a library registered by a name.
   *
   * @param name The name: `"ffi.Array"`, `"xgrammar.…"`.
   * @returns The function; `null` when there is none by that name.
   */
  globalFunction(name: string): TvmFfiFunction | null {
    const { runtime, values } = this.#alive("find a function");
    checkName(name, "function");
    const address = runtime.findGlobal(name);
    if (address === 0n) return null;
    const reference = new Reference(runtime, address, TYPE.function, "ours");
    return makeFunction(values, reference, name);
  }

  /** The names of all functions that libraries have registered, in order. */
  globalFunctions(): string[] {
    return functionNames(this.#alive("list functions").runtime).sort();
  }

  /**
   * The class of a type that a library registered by a name.
   *
   * @param key The name: `"xgrammar.tvm_ffi_binding.GrammarCompiler"`.
   * @returns The class; `null` when there is none by that name.
   */
  type(key: string): TvmFfiType | null {
    const { classes } = this.#alive("find a type");
    checkName(key, "type");
    return classes.byKey(key);
  }

  /** Ends the use of this object. What was got from it stays. Idempotent. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
  }

  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    return `TvmFfi ${this.version} ${this.path}`;
  }

  #alive(action: string): Binding {
    if (this.#isDisposed) throw disposed(action, "TvmFfi");
    return this.#binding;
  }
}

function checkName(name: unknown, what: string): void {
  if (typeof name === "string") return;
  throw new TypeError(
    `Cannot find a ${what} by ${describe(name)}: pass its name`,
  );
}

/** A path as the system has it. */
function pathOf(path: unknown, where: string): string {
  if (typeof path === "string" && path !== "") return path;
  if (path instanceof URL && path.protocol === "file:") {
    const text = decodeURIComponent(path.pathname);
    return Deno.build.os === "windows" ? text.slice(1) : text;
  }
  throw new TypeError(
    `Cannot take ${
      path instanceof URL ? path : describe(path)
    } as a library in ` + `${where}: pass a path or a file: URL`,
  );
}

/** What a file is known by: the same one may be named in several ways. */
function keyOf(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    // Not to be read, or not a file's path: what was said, then.
    return path;
  }
}

/** For tests: what there is of a library that is open. */
export function countsOf(
  ffi: TvmFfi,
): { references: number; callbacks: number } {
  const { runtime, values } = bindingAt(ffi.path);
  return { references: runtime.liveCount, callbacks: values.callbackCount };
}
