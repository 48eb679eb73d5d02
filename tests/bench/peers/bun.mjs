// Imports DLPack tensors by hand with bun:ffi.
//
// usage: bun bun.mjs LIBRARY, with requests of serve.mjs on stdin

import { ELEMENT, serve, SHAPE } from "./serve.mjs";

const [, , libraryPath] = process.argv;
const { CFunction, dlopen, ptr, read, toArrayBuffer } = await import("bun:ffi");

const { symbols: c } = dlopen(libraryPath, {
  bench_init: { args: ["u64", "i32", "ptr", "ptr"], returns: "void" },
  bench_make: { args: [], returns: "ptr" },
  bench_deleted: { args: [], returns: "u64" },
});

const memory = new Float32Array(SHAPE[0] * SHAPE[1]).fill(1);
const shape = BigInt64Array.from(SHAPE, BigInt);
c.bench_init(1024, SHAPE.length, ptr(shape), ptr(memory));

/** The deleter that lies at an address: all tensors have the same. */
const deleters = new Map();
function deleterAt(address) {
  let deleter = deleters.get(address);
  if (deleter === undefined) {
    deleter = CFunction({ ptr: address, args: ["ptr"], returns: "void" });
    deleters.set(address, deleter);
  }
  return deleter;
}

function readAxes(address, ndim) {
  const values = new Array(ndim);
  for (let axis = 0; axis < ndim; axis++) {
    values[axis] = Number(read.i64(address, 8 * axis));
  }
  return values;
}

function importTensor() {
  const pointer = c.bench_make();
  const major = read.u32(pointer, 0);
  if (major !== 1) throw new Error(`Unknown version ${major}`);
  const ndim = read.i32(pointer, 48);
  return {
    pointer,
    deleter: read.ptr(pointer, 16),
    flags: read.u64(pointer, 24),
    data: read.ptr(pointer, 32),
    device: [read.i32(pointer, 40), read.i32(pointer, 44)],
    dtype: {
      code: read.u8(pointer, 52),
      bits: read.u8(pointer, 53),
      lanes: read.u16(pointer, 54),
    },
    shape: readAxes(read.ptr(pointer, 56), ndim),
    strides: readAxes(read.ptr(pointer, 64), ndim),
    byteOffset: Number(read.u64(pointer, 72)),
  };
}

function release({ pointer, deleter }) {
  deleterAt(deleter)(pointer);
}

function view({ data, byteOffset, shape }) {
  const bytes = 4 * shape.reduce((a, b) => a * b, 1);
  return new Float32Array(toArrayBuffer(data, byteOffset, bytes));
}

let sum = 0;
const producer = (() => {
  const t = importTensor();
  release(t);
  return deleterAt(t.deleter);
})();

await serve({
  producer(count) {
    for (let i = 0; i < count; i++) producer(c.bench_make());
  },
  import(count) {
    for (let i = 0; i < count; i++) {
      const t = importTensor();
      sum += t.shape.length + t.dtype.bits;
      release(t);
    }
  },
  element(count) {
    for (let i = 0; i < count; i++) {
      const t = importTensor();
      const [i0, i1] = ELEMENT;
      sum += view(t)[i0 * t.strides[0] + i1 * t.strides[1]];
      release(t);
    }
  },
  copy(count) {
    for (let i = 0; i < count; i++) {
      const t = importTensor();
      sum += view(t).slice().length;
      release(t);
    }
  },
});
if (!(sum > 0) || Number(c.bench_deleted()) === 0) process.exit(1);
