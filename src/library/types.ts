/**
 * What may stand in the symbol table of a library that speaks DLPack, and what
 * its functions are in TypeScript.
 *
 * @module
 */

import type { DlpackCapsule } from "../capsule.ts";
import type { Tensor } from "../tensor/class.ts";
import type { OutCapsule } from "./out_capsule.ts";

/** A pointer to a managed tensor, legacy or versioned, as C spells it. */
export type ManagedTensorType =
  | "DLManagedTensor*"
  | "DLManagedTensorVersioned*";

/** The address of such a pointer: a parameter that the callee fills. */
export type OutTensorType =
  | "DLManagedTensor**"
  | "DLManagedTensorVersioned**";

/** The type of a parameter: Deno's, or one of DLPack's. */
export type TensorParameterType =
  | Deno.NativeType
  | "DLTensor*"
  | ManagedTensorType
  | OutTensorType;

/** The type of a result: Deno's, or one of DLPack's. */
export type TensorResultType = Deno.NativeResultType | ManagedTensorType;

/** A function of a library: `Deno.ForeignFunction` with DLPack's types. */
export interface TensorFunction {
  /** The symbol's name in the library; none: the key in the table. */
  readonly name?: string;
  /** The types of the parameters. */
  readonly parameters: readonly TensorParameterType[];
  /** The type of the result. */
  readonly result: TensorResultType;
  /**
   * `true`: it runs on another thread and gives a promise. What was lent to it
   * stays alive until that settles.
   */
  readonly nonblocking?: boolean;
  /** `true`: when the library lacks it, it is `null`. */
  readonly optional?: boolean;
}

/** The symbol table that {@linkcode dlopen} takes. */
export interface TensorLibraryInterface {
  /** A function, or a variable, by the name it is to have in `symbols`. */
  readonly [name: string]: TensorFunction | Deno.ForeignStatic;
}

/** What a parameter of a type takes. */
export type TensorArgument<T extends TensorParameterType> = T extends
  "DLTensor*" ? Tensor
  : T extends ManagedTensorType ? Tensor | DlpackCapsule
  : T extends OutTensorType ? OutCapsule
  : T extends Deno.NativeType ? Deno.ToNativeType<T>
  : never;

/** What a function takes. */
export type TensorArguments<P extends readonly TensorParameterType[]> = {
  [K in keyof P]: TensorArgument<P[K]>;
};

/** What a result of a type is. */
export type TensorResult<T extends TensorResultType> = T extends
  ManagedTensorType ? DlpackCapsule | null
  : T extends Deno.NativeResultType ? Deno.FromNativeResultType<T>
  : never;

/** A function or a variable of a library, as TypeScript sees it. */
export type TensorSymbol<T extends TensorFunction | Deno.ForeignStatic> =
  T extends TensorFunction ? (
      ...args: TensorArguments<T["parameters"]>
    ) => Deno.ConditionalAsync<T["nonblocking"], TensorResult<T["result"]>>
    : T extends Deno.ForeignStatic ? Deno.FromNativeType<T["type"]>
    : never;

/** The functions and variables of a library. */
export type TensorSymbols<S extends TensorLibraryInterface> = {
  readonly [K in keyof S]: S[K]["optional"] extends true
    ? TensorSymbol<S[K]> | null
    : TensorSymbol<S[K]>;
};

/** An open library, as {@linkcode dlopen} gives it. */
export interface TensorLibrary<S extends TensorLibraryInterface>
  extends Disposable {
  /** Its functions and variables. */
  readonly symbols: TensorSymbols<S>;
  /**
   * Closes the library. Calls through `symbols` throw from here on; its code
   * goes once the last tensor that came out of it, and the last nonblocking
   * call, is over: both keep working until then. Idempotent.
   *
   * A synchronous function without DLPack's types is Deno's own: one that was
   * taken out of `symbols` into a variable must not be called any more, nor may
   * a callback of such a function close the library that calls it.
   *
   * A tensor that was handed over to another library keeps this one open for
   * good, as nobody tells when it is released.
   */
  close(): void;
  /** Closes the library at the end of `using`: {@linkcode TensorLibrary.close}. */
  [Symbol.dispose](): void;
}
