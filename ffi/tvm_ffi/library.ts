/**
 * Opens libtvm_ffi, if its ABI is one that this module knows.
 *
 * @module
 */

import { requirePermission } from "../libc.ts";
import { addressOf } from "../memory.ts";
import { openLibrary } from "../open_library.ts";
import { ABI_VERSION, FIRST_PATCH, VERSION } from "./abi.ts";

const versionSymbols = {
  TVMFFIGetVersion: {
    parameters: [
      "buffer", // TVMFFIVersion *out_version
    ],
    result: "void",
  },
  /** Where that function is: of the same library always the same. */
  identity: { name: "TVMFFIGetVersion", type: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

// Handles and addresses are u64: a BigInt that is there already costs nothing.
const symbols = {
  incRef: {
    name: "TVMFFIObjectIncRef",
    parameters: [
      "u64", // TVMFFIObjectHandle obj
    ],
    result: "i32",
  },
  decRef: {
    name: "TVMFFIObjectDecRef",
    parameters: [
      "u64", // TVMFFIObjectHandle obj
    ],
    result: "i32",
  },
  call: {
    name: "TVMFFIFunctionCall",
    parameters: [
      "u64", // TVMFFIObjectHandle func
      "u64", // TVMFFIAny *args
      "i32", // int32_t num_args
      "u64", // TVMFFIAny *result
    ],
    result: "i32",
  },
  getGlobal: {
    name: "TVMFFIFunctionGetGlobal",
    parameters: [
      "u64", // const TVMFFIByteArray *name
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  createFunction: {
    name: "TVMFFIFunctionCreate",
    parameters: [
      "u64", // void *self
      "function", // TVMFFISafeCallType safe_call
      "function", // void (*deleter)(void *self)
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  toOwned: {
    name: "TVMFFIAnyViewToOwnedAny",
    parameters: [
      "u64", // const TVMFFIAny *any_view
      "u64", // TVMFFIAny *out
    ],
    result: "i32",
  },
  makeString: {
    name: "TVMFFIStringFromByteArray",
    parameters: [
      "u64", // const TVMFFIByteArray *input
      "u64", // TVMFFIAny *out
    ],
    result: "i32",
  },
  makeBytes: {
    name: "TVMFFIBytesFromByteArray",
    parameters: [
      "u64", // const TVMFFIByteArray *input
      "u64", // TVMFFIAny *out
    ],
    result: "i32",
  },
  takeError: {
    name: "TVMFFIErrorMoveFromRaised",
    parameters: [
      "buffer", // TVMFFIObjectHandle *result
    ],
    result: "void",
  },
  raise: {
    name: "TVMFFIErrorSetRaised",
    parameters: [
      "u64", // TVMFFIObjectHandle error
    ],
    result: "void",
  },
  createError: {
    name: "TVMFFIErrorCreate",
    parameters: [
      "u64", // const TVMFFIByteArray *kind
      "u64", // const TVMFFIByteArray *message
      "u64", // const TVMFFIByteArray *backtrace
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  tensorFromDlpack: {
    name: "TVMFFITensorFromDLPackVersioned",
    parameters: [
      "pointer", // DLManagedTensorVersioned *from
      "i32", // int32_t require_alignment
      "i32", // int32_t require_contiguous
      "buffer", // TVMFFIObjectHandle *out
    ],
    result: "i32",
  },
  tensorToDlpack: {
    name: "TVMFFITensorToDLPackVersioned",
    parameters: [
      "u64", // TVMFFIObjectHandle from
      "buffer", // DLManagedTensorVersioned **out
    ],
    result: "i32",
  },
  typeByKey: {
    name: "TVMFFITypeKeyToIndex",
    parameters: [
      "u64", // const TVMFFIByteArray *type_key
      "buffer", // int32_t *out_tindex
    ],
    result: "i32",
  },
  typeInfo: {
    name: "TVMFFIGetTypeInfo",
    parameters: [
      "i32", // int32_t type_index
    ],
    result: "u64",
  },
  typeAttribute: {
    name: "TVMFFIGetTypeAttrColumn",
    parameters: [
      "u64", // const TVMFFIByteArray *attr_name
    ],
    result: "u64",
  },
  getAllocator: {
    name: "TVMFFIEnvGetDLPackManagedTensorAllocator",
    parameters: [],
    result: "u64",
  },
  setAllocator: {
    name: "TVMFFIEnvSetDLPackManagedTensorAllocator",
    parameters: [
      "function", // DLPackManagedTensorAllocator allocator
      "i32", // int write_to_global_context
      "u64", // DLPackManagedTensorAllocator *opt_out_original_allocator
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of libtvm_ffi. */
export type Library = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** A libtvm_ffi that is open. */
export interface OpenLibrary {
  /** Its functions. */
  readonly library: Library;
  /** The version of its ABI. */
  readonly version: string;
  /** What tells it from another one, by whatever path it was opened. */
  readonly identity: bigint;
}

/**
 * Opens libtvm_ffi, for good: other libraries are linked to it.
 *
 * @throws {Error} When it cannot be opened, is another library, or one of a
 * version whose ABI this module does not know.
 * @throws {Deno.errors.NotCapable} Without full permission for FFI.
 */
export function openTvmFfi(path: string | URL): OpenLibrary {
  requirePermission();
  const { TVMFFIGetVersion, identity } =
    openLibrary(path, versionSymbols).symbols;
  const out = new Uint32Array(VERSION.size / 4);
  (TVMFFIGetVersion as (out: BufferSource) => void)(out);
  const major = out[VERSION.major / 4]!;
  const minor = out[VERSION.minor / 4]!;
  const patch = out[VERSION.patch / 4]!;
  const version = `${major}.${minor}.${patch}`;
  const [knownMajor, knownMinor] = ABI_VERSION;
  const known = `${knownMajor}.${knownMinor}`;
  if (major !== knownMajor || minor !== knownMinor || patch < FIRST_PATCH) {
    throw new Error(
      `Cannot use ${path}: its version of TVM-FFI's ABI is ${version}, and ` +
        `this module knows ${known}.${FIRST_PATCH} and newer ones of ${known}; ` +
        'pip install "apache-tvm-ffi>=0.1.11,<0.2"',
    );
  }
  const { symbols: library } = openLibrary(path, symbols);
  return {
    library: library as unknown as Library,
    version,
    identity: addressOf(identity as Deno.PointerObject),
  };
}
