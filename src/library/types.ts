/**
 * What may stand in the symbol table of a library that speaks DLPack, and what
 * its functions are in TypeScript.
 *
 * @module
 */

import type { DlpackCapsule } from "../capsule.ts";
import type { Tensor } from "../tensor/class.ts";
import type { OutCapsule } from "./out_capsule.ts";

/**
 * A parameter that is borrowed for the call: of a bare `DLTensor*`, of a managed
 * struct that stays the caller's, or of the memory itself. A `?` at the end
 * allows `null`, which is NULL; blanks before `*` do not matter.
 *
 * @category C functions
 */
export type LentType =
  | `${
    | "DLTensor"
    | "const DLTensor"
    | "borrowed DLManagedTensor"
    | "borrowed DLManagedTensorVersioned"
    | "data"
    | "contiguous data"}${"" | " "}*${"" | "?"}`
  | `DLTensor${"" | " "}**${"" | "?"}`;

/**
 * A parameter whose managed struct the callee takes over.
 *
 * @category C functions
 */
export type TakenType = `taken ${
  | "DLManagedTensor"
  | "DLManagedTensorVersioned"}${"" | " "}*${"" | "?"}`;

/**
 * A parameter that the callee fills: with a pointer to a struct of its own, or
 * a struct of the caller's in place.
 *
 * @category C functions
 */
export type OutType =
  | `${"DLManagedTensor" | "DLManagedTensorVersioned"}${"" | " "}**${"" | "?"}`
  | `out ${"DLManagedTensor" | "DLManagedTensorVersioned"}${"" | " "}*${
    | ""
    | "?"}`;

/**
 * The type of a parameter: Deno's, or one of DLPack's.
 *
 * @category C functions
 */
export type TensorParameterType =
  | Deno.NativeType
  | LentType
  | TakenType
  | OutType;

/**
 * A pointer to a tensor, as a result: managed, or the library's own.
 *
 * @category C functions
 */
export type TensorPointerType = `${
  | "DLManagedTensor"
  | "DLManagedTensorVersioned"
  | "DLTensor"}${"" | " "}*`;

/**
 * The type of a result: Deno's, or one of DLPack's.
 *
 * @category C functions
 */
export type TensorResultType = Deno.NativeResultType | TensorPointerType;

/**
 * A function of a library: `Deno.ForeignFunction` with DLPack's types.
 *
 * @category C functions
 */
export interface TensorFunction {
  /** The symbol's name in the library. Default: the key in the table. */
  readonly name?: string;
  /** The types of the parameters. */
  readonly parameters: readonly TensorParameterType[];
  /** The type of the result. */
  readonly result: TensorResultType;
  /**
   * `true`: it runs on another thread and gives a promise. What was lent to it
   * stays alive until that settles. Default: `false`.
   */
  readonly nonblocking?: boolean;
  /** `true`: when the library lacks it, it is `null`. Default: `false`. */
  readonly optional?: boolean;
  /**
   * `true`: legacy structs and `DLTensor`s that it returns or fills may be
   * written to, which they cannot say. Default: `false`.
   */
  readonly writable?: boolean;
}

/**
 * A function whose types are not checked yet: {@linkcode dlopen} does that.
 *
 * @category C functions
 */
export interface LooseFunction
  extends Omit<TensorFunction, "parameters" | "result"> {
  /** The types of the parameters. */
  readonly parameters: readonly unknown[];
  /** The type of the result. */
  readonly result: unknown;
}

/**
 * The symbol table that {@linkcode dlopen} takes.
 *
 * @category C functions
 */
export type TensorLibraryInterface = Readonly<
  Record<string, LooseFunction | Deno.ForeignStatic>
>;

/**
 * Makes a misspelt type the error of its own symbol alone.
 *
 * @category C functions
 */
export type Checked<S> = {
  readonly [K in keyof S]: S[K] extends TensorFunction | Deno.ForeignStatic
    ? S[K]
    : TensorFunction;
};

/**
 * What a parameter of a type takes.
 *
 * @category C functions
 */
export type TensorArgument<T extends TensorParameterType> = T extends
  Deno.NativeType ? Deno.ToNativeType<T>
  : T extends `${infer U extends LentType | TakenType | OutType}?`
    ? TensorArgument<U> | null
  : T extends `DLTensor${"" | " "}**` ? readonly (Tensor | DlpackCapsule)[]
  : T extends LentType | TakenType ? Tensor | DlpackCapsule
  : T extends `out ${string}` ? OutCapsule
  : T extends OutType ? OutCapsule | readonly OutCapsule[]
  : never;

/**
 * What a function takes.
 *
 * @category C functions
 */
export type TensorArguments<P extends readonly TensorParameterType[]> = {
  [K in keyof P]: TensorArgument<P[K]>;
};

/**
 * What a result of a type is.
 *
 * @category C functions
 */
export type TensorResult<T extends TensorResultType> = T extends
  TensorPointerType ? DlpackCapsule | null
  : T extends Deno.NativeResultType ? Deno.FromNativeResultType<T>
  : never;

/**
 * A function or a variable of a library, as TypeScript sees it.
 *
 * @category C functions
 */
export type TensorSymbol<T> = T extends TensorFunction ? (
    ...args: TensorArguments<T["parameters"]>
  ) => Deno.ConditionalAsync<T["nonblocking"], TensorResult<T["result"]>>
  : T extends Deno.ForeignStatic ? Deno.FromNativeType<T["type"]>
  : never;

/**
 * The functions and variables of a library.
 *
 * @category C functions
 */
export type TensorSymbols<S> = {
  readonly [K in keyof S]: S[K] extends { readonly optional: true }
    ? TensorSymbol<S[K]> | null
    : TensorSymbol<S[K]>;
};

/**
 * An open library, as {@linkcode dlopen} gives it.
 *
 * @category C functions
 */
export interface TensorLibrary<S> extends Disposable {
  /** Its functions and variables. */
  readonly symbols: TensorSymbols<S>;
  /**
   * Closes the library. Calls through `symbols` throw from here on; its code
   * goes once the last tensor that came out of it, and the last nonblocking
   * call, is over: both keep working until then. Idempotent.
   *
   * A tensor that was handed over to another library keeps this one open for
   * good, as nobody tells when it is released.
   */
  close(): void;
  /** Closes the library at the end of `using`: {@linkcode TensorLibrary.close}. */
  [Symbol.dispose](): void;
}
