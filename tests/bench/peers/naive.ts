/**
 * Imports DLPack tensors by hand with Deno's pointer API, a getter for each
 * field: what one would write without this module.
 *
 * @module
 */

/** A tensor that was read by hand. */
export interface NaiveTensor {
  /** Its `DLManagedTensorVersioned`. */
  pointer: Deno.PointerObject;
  /** Its deleter. */
  deleter: Deno.PointerObject<typeof deleterType>;
  /** `DLTensor.data`. */
  data: Deno.PointerObject;
  /** The bytes from `data` to the first element. */
  byteOffset: number;
  /** `DLTensor.dtype`. */
  dtype: { code: number; bits: number; lanes: number };
  /** The lengths. */
  shape: number[];
  /** In elements. */
  strides: number[];
}

const deleterType = { parameters: ["pointer"], result: "void" } as const;

/** Reads a versioned struct. */
export function importTensor(pointer: Deno.PointerObject): NaiveTensor {
  const view = new Deno.UnsafePointerView(pointer);
  const major = view.getUint32(0);
  if (major !== 1) throw new Error(`Unknown version ${major}`);
  const ndim = view.getInt32(48);
  return {
    pointer,
    deleter: view.getPointer(16) as Deno.PointerObject<typeof deleterType>,
    data: view.getPointer(32)!,
    dtype: {
      code: view.getUint8(52),
      bits: view.getUint8(53),
      lanes: view.getUint16(54),
    },
    shape: readAxes(view.getPointer(56)!, ndim),
    strides: readAxes(view.getPointer(64)!, ndim),
    byteOffset: Number(view.getBigUint64(72)),
  };
}

function readAxes(pointer: Deno.PointerObject, ndim: number): number[] {
  const view = new Deno.UnsafePointerView(pointer);
  return Array.from(
    { length: ndim },
    (_, axis) => Number(view.getBigInt64(8 * axis)),
  );
}

/** The elements, over the producer's memory. */
export function viewOf({ data, byteOffset, shape }: NaiveTensor): Float32Array {
  const bytes = 4 * shape.reduce((a, b) => a * b, 1);
  return new Float32Array(
    Deno.UnsafePointerView.getArrayBuffer(data, bytes, byteOffset),
  );
}

/** Calls the deleter. */
export function release({ pointer, deleter }: NaiveTensor): void {
  new Deno.UnsafeFnPointer(deleter, deleterType).call(pointer);
}
