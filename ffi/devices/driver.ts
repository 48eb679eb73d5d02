/**
 * Opens the library of a device's runtime, and says what went wrong with it.
 *
 * @module
 */

import { DeviceType, isHost } from "../../src/device.ts";
import { BufferError } from "../../src/errors.ts";
import { requirePermission } from "../libc.ts";
import type { DeviceMemory } from "./runtime.ts";

/** Where a runtime's library is. */
export interface DriverPlace {
  /** What it is, for messages: `"the CUDA driver"`. */
  readonly name: string;
  /** The environment variable that names it, instead of all the rest. */
  readonly variable: string;
  /** Its names by system, the first that opens counts. */
  readonly sonames: Partial<
    Record<typeof Deno.build.os, readonly string[]>
  >;
}

/** Libraries that are open, by path and by table of symbols. */
const opened = new WeakMap<object, Map<string, unknown>>();

/**
 * Opens a runtime's library, or gives the one that is open. It stays open: a
 * driver cannot be taken out of a process safely.
 *
 * @param place Where it is.
 * @param symbols What is needed of it, always the same object.
 * @param memory What it is needed for.
 * @returns The symbols.
 * @throws {BufferError} `"device"` when there is no such library.
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function openDriver<const S extends Deno.ForeignLibraryInterface>(
  place: DriverPlace,
  symbols: S,
  memory: DeviceMemory,
): Deno.DynamicLibrary<S>["symbols"] {
  const { library, paths, cause } = find(place, symbols);
  if (library !== null) return library;
  const tried = paths.length === 0
    ? `there is none for ${Deno.build.os}`
    : `${paths.join(" and ")} cannot be opened`;
  throw deviceError(
    memory,
    `${place.name} is not here (${tried}); install it, or name the library ` +
      `in the environment variable ${place.variable}`,
    cause,
  );
}

/**
 * Whether a runtime's library is here, and open from now on.
 *
 * @param place Where it is.
 * @param symbols What is needed of it, always the same object.
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function hasDriver(
  place: DriverPlace,
  symbols: Deno.ForeignLibraryInterface,
): boolean {
  return findDriver(place, symbols) !== null;
}

/**
 * A runtime's library where it is here, open from now on.
 *
 * @param place Where it is.
 * @param symbols What is needed of it, always the same object.
 * @returns The symbols, or `null`.
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function findDriver<const S extends Deno.ForeignLibraryInterface>(
  place: DriverPlace,
  symbols: S,
): Deno.DynamicLibrary<S>["symbols"] | null {
  return find(place, symbols).library;
}

function find<const S extends Deno.ForeignLibraryInterface>(
  place: DriverPlace,
  symbols: S,
): {
  library: Deno.DynamicLibrary<S>["symbols"] | null;
  paths: readonly string[];
  cause: unknown;
} {
  requirePermission();
  const named = variable(place.variable);
  const paths = named === undefined
    ? place.sonames[Deno.build.os] ?? []
    : [named];
  let libraries = opened.get(symbols);
  if (libraries === undefined) opened.set(symbols, libraries = new Map());
  let cause: unknown;
  for (const path of paths) {
    let library = libraries.get(path) as
      | Deno.DynamicLibrary<S>["symbols"]
      | undefined;
    try {
      library ??= Deno.dlopen(path, symbols).symbols;
      libraries.set(path, library);
      return { library, paths, cause };
    } catch (error) {
      cause ??= error;
    }
  }
  return { library: null, paths, cause };
}

/** An environment variable, where it may be read without asking. */
function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) || undefined : undefined;
}

/**
 * An error about the memory of a device.
 *
 * @param memory What was to be read or written.
 * @param reason What went wrong, with the runtime's own name and number of the
 * error, and the way out.
 * @param cause What was thrown, if it was.
 */
export function deviceError(
  { type, id, access }: DeviceMemory,
  reason: string,
  cause?: unknown,
): BufferError {
  const where = `a tensor on ${type}:${id}`;
  const action = access === "write"
    ? `upload to ${where}`
    : isHost(DeviceType[type])
    ? `view ${where}`
    : `copy ${where} to the host`;
  return new BufferError(
    "device",
    `Cannot ${action}: ${reason}`,
    cause === undefined ? undefined : { cause },
  );
}
