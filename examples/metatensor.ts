// The labels of metatensor, a library for atomistic data, seen from Deno.
//
//   pip install metatensor-core
//   deno run -A examples/metatensor.ts
//
// METATENSOR_LIBRARY=<path of libmetatensor> skips the search for the library.

import {
  DlpackCapsule,
  type DlpackExporter,
  type DlpackRequest,
  fromDlpack,
} from "@dlpack/deno";
import { findLibrary } from "./find_library.ts";

const path = findLibrary({
  variable: "METATENSOR_LIBRARY",
  module: "metatensor",
  name: "metatensor",
});
if (path === null) {
  console.error("metatensor is not installed: pip install metatensor-core");
  Deno.exit(1);
}

// From <metatensor.h>.
const metatensor = Deno.dlopen(path, {
  mts_version: { parameters: [], result: "pointer" },
  mts_last_error: {
    parameters: ["buffer", "pointer", "pointer"],
    result: "i32",
  },
  mts_labels_load_buffer: {
    parameters: ["buffer", "usize"],
    result: "pointer",
  },
  mts_labels_union: {
    parameters: [
      "pointer",
      "pointer",
      "buffer",
      "buffer",
      "usize",
      "buffer",
      "usize",
    ],
    result: "i32",
  },
  mts_labels_values: { parameters: ["pointer", "buffer"], result: "i32" },
  mts_labels_free: { parameters: ["pointer"], result: "i32" },
}).symbols;

/** Labels of metatensor: a table of unique rows of int32, never written to. */
class Labels implements DlpackExporter, Disposable {
  readonly #handle: Deno.PointerObject;
  /** An mts_array_t: the array, then the functions that work on it. */
  readonly #array = new BigUint64Array(13);

  constructor(handle: Deno.PointerValue) {
    this.#handle = handle ?? fail();
    check(metatensor.mts_labels_values(this.#handle, this.#array));
  }

  /** Builds labels from rows. */
  static from(dimensions: string[], rows: number[][]): Labels {
    const file = npy(dimensions, rows);
    return new Labels(
      metatensor.mts_labels_load_buffer(file, BigInt(file.length)),
    );
  }

  /** Every row of this or of the other. */
  union(other: Labels): Labels {
    const out = new BigUint64Array(1);
    check(
      metatensor.mts_labels_union(
        this.#handle,
        other.#handle,
        out,
        null,
        0n,
        null,
        0n,
      ),
    );
    return new Labels(Deno.UnsafePointer.create(out[0]!));
  }

  // The two methods that make anything a source for fromDlpack. Here they pass
  // on to mts_array_t.as_dlpack and mts_array_t.device.

  __dlpack__(request: DlpackRequest = {}): DlpackCapsule {
    const asDlpack = new Deno.UnsafeFnPointer(pointer(this.#array[5]!), {
      parameters: [
        "pointer",
        "buffer",
        { struct: ["i32", "i32"] }, // DLDevice
        "buffer",
        { struct: ["u32", "u32"] }, // DLPackVersion
      ],
      result: "i32",
    });
    const out = new BigUint64Array(1);
    check(
      asDlpack.call(
        pointer(this.#array[0]!),
        out,
        new Int32Array(request.dlDevice ?? this.__dlpack_device__()),
        null,
        new Uint32Array(request.maxVersion ?? [1, 0]),
      ),
    );
    return new DlpackCapsule(out[0]!, "dltensor_versioned");
  }

  __dlpack_device__(): readonly [type: number, id: number] {
    const device = new Deno.UnsafeFnPointer(pointer(this.#array[3]!), {
      parameters: ["pointer", "buffer"],
      result: "i32",
    });
    const out = new Int32Array(2);
    check(device.call(pointer(this.#array[0]!), out));
    return [out[0]!, out[1]!];
  }

  [Symbol.dispose](): void {
    metatensor.mts_labels_free(this.#handle);
  }
}

const version = metatensor.mts_version()!;
console.log("metatensor", new Deno.UnsafePointerView(version).getCString());

using water = Labels.from(["atom", "element"], [[0, 8], [1, 1], [2, 1]]);
using ammonia = Labels.from(["atom", "element"], [[0, 7], [1, 1], [3, 1]]);

// A view of what metatensor computed: nothing is copied.
using either = water.union(ammonia);
using rows = fromDlpack(either);
console.log(rows);

console.log("Elements, every second number of the same memory:");
console.log(rows.slice(null, 1));

// Labels cannot be written to, and metatensor says so in the struct.
console.log("Read-only:", rows.readOnly);
try {
  rows.set(0, 0, 5);
} catch (error) {
  console.log(`${(error as Error).name}: ${(error as Error).message}`);
}

// A copy is ours.
using ours = fromDlpack(either, { copy: true });
ours.set(0, 0, 5);
console.log("Copied and written:", ours.get(0, 0), "not", rows.get(0, 0));

/** Labels in metatensor's file format, which is NumPy's for records of int32. */
function npy(dimensions: string[], rows: number[][]): Uint8Array<ArrayBuffer> {
  const fields = dimensions.map((name) => `('${name}', '<i4')`);
  const header = `{'descr': [${fields.join(", ")}], ` +
    `'fortran_order': False, 'shape': (${rows.length},), }`;
  const prefix = "\x93NUMPY\x01\x00v\x00" + header.padEnd(117) + "\n";
  const file = new Uint8Array(128 + 4 * rows.length * dimensions.length);
  file.set(Array.from(prefix, (character) => character.charCodeAt(0)));
  file.set(new Uint8Array(new Int32Array(rows.flat()).buffer), 128);
  return file;
}

function pointer<T>(address: bigint): Deno.PointerObject<T> {
  return Deno.UnsafePointer.create<T>(address)!;
}

function check(status: number): void {
  if (status !== 0) fail();
}

/** Throws the last error of metatensor. */
function fail(): never {
  const message = new BigUint64Array(1);
  metatensor.mts_last_error(message, null, null);
  throw new Error(
    new Deno.UnsafePointerView(pointer(message[0]!)).getCString(),
  );
}
