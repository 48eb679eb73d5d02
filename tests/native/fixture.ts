/** The C fixture (fixture.c) opened: managed tensors between guard pages. */

import { compile } from "./cc.ts";

const symbols = {
  fx_new: {
    parameters: ["buffer", "buffer", "buffer", "buffer"],
    result: "pointer",
  }, // void *(const int64_t *spec, const int64_t *shape, const int64_t *strides, const uint8_t *data)
  fx_set_callback: { parameters: ["function"], result: "void" }, // void (void (*)(void *))
  fx_deleted: { parameters: [], result: "u64" }, // uint64_t (void)
  fx_double: { parameters: [], result: "u64" }, // uint64_t (void)
  fx_live: { parameters: [], result: "u64" }, // uint64_t (void)
  fx_live_bytes: { parameters: [], result: "u64" }, // uint64_t (void)
  fx_data_address: { parameters: ["pointer"], result: "u64" }, // uint64_t (void *managed)
  fx_poke: { parameters: ["pointer", "u64", "u8"], result: "void" }, // void (void *managed, uint64_t index, uint8_t value)
  fx_peek: { parameters: ["pointer", "u64"], result: "u8" }, // uint8_t (void *managed, uint64_t index)
  fx_free: { parameters: ["pointer"], result: "void" }, // void (void *managed)
  fx_call_deleter_from_thread: { parameters: ["pointer"], result: "void" }, // void (void *managed)
  fx_layout: { parameters: ["buffer"], result: "void" }, // void (uint64_t *out)
} as const;

/** The compiled fixture: its path can be opened a second time. */
export const fixturePath: URL = compile(
  new URL("./fixture.c", import.meta.url),
  "fixture",
);

/** The functions of fixture.c; what each does is said there. */
export const fixture: Deno.DynamicLibrary<typeof symbols>["symbols"] = Deno
  .dlopen(fixturePath, symbols).symbols;

/** A managed tensor to make: the fields of its struct, and where things lie. */
export interface FixtureSpec {
  /** DLManagedTensorVersioned (the default) or the legacy DLManagedTensor. */
  versioned?: boolean;
  /** major and minor; [1, 3] by default. */
  version?: readonly [major: number, minor: number];
  /** 0 by default. */
  flags?: number | bigint;
  /** Device type and id; [1, 0], the CPU, by default. */
  device?: readonly [type: number, id: number];
  /** As written into the struct; the length of shape by default. */
  ndim?: number;
  dtype: readonly [code: number, bits: number, lanes: number];
  /** NULL when null, which is the default. */
  shape?: readonly (number | bigint)[] | null;
  /** In elements; NULL when null, which is the default. */
  strides?: readonly (number | bigint)[] | null;
  /** 0 by default. */
  byteOffset?: number | bigint;
  /** Bytes of the data region; 0 is allowed. */
  nbytes: number;
  /** Byte position in the region that tensor.data points at; 0 by default. */
  origin?: number;
  /**
   * Which end of the data region touches a guard page: its last byte ("end",
   * the default) or its first ("start"); "heap" has no guard pages, for more
   * tensors than a kernel allows mappings.
   */
  place?: "end" | "start" | "heap";
  /** Whether tensor.data is NULL; false by default. */
  nullData?: boolean;
  /** What tensor.data is instead of an address in the region: a device's. */
  handle?: bigint;
  /**
   * What the deleter does: free everything ("normal", the default), not exist
   * ("null"), take 100 ms before ("slow"), call the function given to
   * fx_set_callback before ("callback"), or fill the data with 0xDB and leave
   * it mapped instead of freeing it ("poison").
   */
  deleter?: "normal" | "null" | "slow" | "callback" | "poison";
  /** nbytes bytes; zeros by default. */
  data?: Uint8Array<ArrayBuffer>;
}

const places = { end: 0, start: 1, heap: 2 };
const deleters = { normal: 0, null: 1, slow: 2, callback: 3, poison: 4 };

/** Makes a managed tensor; whoever gets it owes it one call of its deleter. */
export function make(spec: FixtureSpec): Deno.PointerObject {
  const { shape = null, strides = null, data = null } = spec;
  if (data !== null && data.length !== spec.nbytes) {
    throw new RangeError(
      `The data must be nbytes = ${spec.nbytes} bytes, not ${data.length}`,
    );
  }
  const [major, minor] = spec.version ?? [1, 3];
  const [deviceType, deviceId] = spec.device ?? [1, 0];
  const [code, bits, lanes] = spec.dtype;
  const managed = fixture.fx_new(
    int64s([
      spec.versioned ?? true ? 1 : 0,
      major,
      minor,
      spec.flags ?? 0,
      deviceType,
      deviceId,
      spec.ndim ?? shape?.length ?? 0,
      code,
      bits,
      lanes,
      spec.byteOffset ?? 0,
      spec.nbytes,
      spec.origin ?? 0,
      places[spec.place ?? "end"],
      spec.nullData ? 1 : spec.handle !== undefined ? 2 : 0,
      deleters[spec.deleter ?? "normal"],
      shape?.length ?? 0,
      strides?.length ?? 0,
      BigInt.asIntN(64, spec.handle ?? 0n),
    ]),
    shape && int64s(shape),
    strides && int64s(strides),
    data,
  );
  if (managed === null) {
    throw new Error(
      `The fixture is out of memory or mappings at ${fixture.fx_live()} ` +
        'live tensors: free some, or pass place: "heap"',
    );
  }
  return managed;
}

/** Deleter calls ever, wrong ones among them, and tensors not yet freed. */
export function counts(): { deleted: number; double: number; live: number } {
  return {
    deleted: Number(fixture.fx_deleted()),
    double: Number(fixture.fx_double()),
    live: Number(fixture.fx_live()),
  };
}

/** At least one number long, since an empty buffer may arrive as NULL. */
function int64s(
  values: readonly (number | bigint)[],
): BigInt64Array<ArrayBuffer> {
  const array = new BigInt64Array(Math.max(values.length, 1));
  values.forEach((value, i) => array[i] = BigInt(value));
  return array;
}
