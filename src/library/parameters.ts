/**
 * The types of a symbol table, and what Deno is told of them.
 *
 * @module
 */

import type { ManagedName } from "../../ffi/header.ts";
import { describe, withArticle } from "../errors.ts";

/** What becomes of an argument. */
export type Parameter = Readonly<
  & {
    /** As messages name it. */
    where: string;
    /** Whether `null` is NULL. */
    isOptional: boolean;
  }
  & (
    | { kind: "native"; type: Deno.NativeType }
    | { kind: "lent"; as: "tensor" | "versioned" | "legacy" }
    | { kind: "data"; isInOrder: boolean }
    | { kind: "tensors" }
    | { kind: "taken"; name: ManagedName }
    | { kind: "cells"; name: ManagedName }
    | { kind: "struct"; name: ManagedName }
  )
>;

/** What becomes of a result. */
export type Result =
  | { readonly kind: "native" }
  | { readonly kind: "owned"; readonly name: ManagedName }
  | { readonly kind: "borrowed" };

/** A part of {@linkcode Parameter}, by DLPack's spelling. */
const kinds: Readonly<Record<string, object>> = {
  "DLTensor*": { kind: "lent", as: "tensor" },
  "const DLTensor*": { kind: "lent", as: "tensor" },
  "borrowed DLManagedTensor*": { kind: "lent", as: "legacy" },
  "borrowed DLManagedTensorVersioned*": { kind: "lent", as: "versioned" },
  "data*": { kind: "data", isInOrder: false },
  "contiguous data*": { kind: "data", isInOrder: true },
  "DLTensor**": { kind: "tensors" },
  "taken DLManagedTensor*": { kind: "taken", name: "dltensor" },
  "taken DLManagedTensorVersioned*": {
    kind: "taken",
    name: "dltensor_versioned",
  },
  "DLManagedTensor**": { kind: "cells", name: "dltensor" },
  "DLManagedTensorVersioned**": { kind: "cells", name: "dltensor_versioned" },
  "out DLManagedTensor*": { kind: "struct", name: "dltensor" },
  "out DLManagedTensorVersioned*": {
    kind: "struct",
    name: "dltensor_versioned",
  },
};

const results: Readonly<Record<string, Result>> = {
  "DLManagedTensor*": { kind: "owned", name: "dltensor" },
  "DLManagedTensorVersioned*": { kind: "owned", name: "dltensor_versioned" },
  "DLTensor*": { kind: "borrowed" },
};

const natives = [
  ...["bool", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"],
  ...["usize", "isize", "f32", "f64", "pointer", "buffer", "function"],
];

/** C's spelling with no more blanks than it needs. */
function normalized(type: string): string {
  return type.trim().replace(/\s*\*/g, "*").replace(/\s+/g, " ");
}

/**
 * What becomes of the arguments of a function.
 *
 * @param symbol Its name in the table.
 * @throws {TypeError} When a type is none.
 */
export function parseParameters(
  symbol: string,
  types: unknown,
): readonly Parameter[] {
  if (!Array.isArray(types)) {
    throw new TypeError(
      `The parameters of "${symbol}" must be an array of types, not ` +
        describe(types),
    );
  }
  return Array.from(types, (type, i) => parseParameter(symbol, type, i));
}

function parseParameter(symbol: string, type: unknown, i: number): Parameter {
  const isStruct = isStructOf(type);
  const name = isStruct
    ? "struct"
    : typeof type === "string"
    ? normalized(type)
    : "";
  const where = `parameter ${i + 1} of "${symbol}", ${withArticle(name)}`;
  if (isStruct || natives.includes(name)) {
    const native = (isStruct ? type : name) as Deno.NativeType;
    return { where, isOptional: false, kind: "native", type: native };
  }
  const base = name.replace(/\?$/, "");
  if (Object.hasOwn(kinds, base) && typeof type === "string") {
    const isOptional = base !== name;
    return { where, isOptional, ...kinds[base] } as Parameter;
  }
  const managed = /^(DLManagedTensor(?:Versioned)?)\*\??$/.exec(name)?.[1];
  throw new TypeError(
    managed !== undefined
      ? `Parameter ${i + 1} of "${symbol}" is a ${name}: say whose it is, ` +
        `"borrowed ${managed}*" where it stays the caller's, "taken ` +
        `${managed}*" where the callee takes it over, "out ${managed}*" where ` +
        "the callee fills it"
      : `Parameter ${i + 1} of "${symbol}" has the type ${describe(type)}, ` +
        `which there is not: it is one of ${
          [...natives, ...Object.keys(kinds)].join(", ")
        }, or a struct; a "?" behind a type of DLPack's allows null`,
  );
}

/**
 * What becomes of the result of a function.
 *
 * @throws {TypeError} When the type is none.
 */
export function parseResult(symbol: string, type: unknown): Result {
  if (isStructOf(type)) return { kind: "native" };
  const name = typeof type === "string" ? normalized(type) : "";
  if (name === "void" || natives.includes(name)) return { kind: "native" };
  if (Object.hasOwn(results, name)) return results[name]!;
  throw new TypeError(
    `The result of "${symbol}" has the type ${describe(type)}, which there ` +
      `is not: it is one of void, ${
        [...natives, ...Object.keys(results)].join(", ")
      }, or a struct`,
  );
}

/**
 * The type of a variable.
 *
 * @throws {TypeError} When it is none.
 */
export function parseVariable(symbol: string, type: unknown): Deno.NativeType {
  if (isStructOf(type)) return type;
  const name = typeof type === "string" ? normalized(type) : "";
  if (natives.includes(name)) return name as Deno.NativeType;
  throw new TypeError(
    `The variable "${symbol}" has the type ${describe(type)}, which there is ` +
      `not: it is one of ${natives.join(", ")}, or a struct`,
  );
}

/** Whether it is Deno's type of a struct, and all in it are types. */
function isStructOf(
  type: unknown,
): type is { readonly struct: readonly Deno.NativeType[] } {
  if (typeof type !== "object" || type === null) return false;
  const { struct } = type as { struct?: unknown };
  return Array.isArray(struct) && Object.keys(type).length === 1 &&
    Array.from(struct).every((field) =>
      isStructOf(field) || natives.includes(field as string)
    );
}

/** What Deno is told of a parameter. */
export function nativeType(parameter: Parameter): Deno.NativeType {
  switch (parameter.kind) {
    case "native":
      return parameter.type;
    case "taken":
      return "pointer";
    case "tensors":
    case "cells":
      return "buffer";
    default:
      // An address as a bigint is what Deno passes fastest.
      return "u64";
  }
}
