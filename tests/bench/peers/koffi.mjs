// Imports DLPack tensors by hand with koffi.
//
// usage: node koffi.mjs KOFFI LIBRARY, with requests of serve.mjs on stdin

import { createRequire } from "node:module";
import { ELEMENT, serve, SHAPE } from "./serve.mjs";

const [, , koffiPath, libraryPath] = process.argv;
const koffi = createRequire(import.meta.url)(koffiPath);

const DLTensor = koffi.struct("DLTensor", {
  data: "void *",
  device: koffi.struct("DLDevice", { type: "int32_t", id: "int32_t" }),
  ndim: "int32_t",
  dtype: koffi.struct("DLDataType", {
    code: "uint8_t",
    bits: "uint8_t",
    lanes: "uint16_t",
  }),
  shape: "int64_t *",
  strides: "int64_t *",
  byte_offset: "uint64_t",
});
const Deleter = koffi.proto("void Deleter(void *self)");
const DLManagedTensorVersioned = koffi.struct("DLManagedTensorVersioned", {
  major: "uint32_t",
  minor: "uint32_t",
  manager_ctx: "void *",
  deleter: koffi.pointer(Deleter),
  flags: "uint64_t",
  dl_tensor: DLTensor,
});

const library = koffi.load(libraryPath);
const init = library.func(
  "void bench_init(uint64_t length, int32_t ndim, const int64_t *shape, void *data)",
);
const make = library.func("void *bench_make()");
const deleted = library.func("uint64_t bench_deleted()");

const memory = new Float32Array(SHAPE[0] * SHAPE[1]).fill(1);
init(1024, SHAPE.length, SHAPE, memory);

/** The Deleter that lies at an address: all tensors have the same. */
const deleters = new Map();
function deleterAt(address) {
  let deleter = deleters.get(address);
  if (deleter === undefined) {
    deleters.set(address, deleter = koffi.decode(address, Deleter));
  }
  return deleter;
}

function readAxes(address, ndim) {
  return Array.from(koffi.decode(address, "int64_t", ndim), Number);
}

function importTensor() {
  const pointer = make();
  const { major, deleter, dl_tensor } = koffi.decode(
    pointer,
    DLManagedTensorVersioned,
  );
  if (major !== 1) throw new Error(`Unknown version ${major}`);
  const { data, ndim, dtype, byte_offset } = dl_tensor;
  return {
    pointer,
    deleter,
    data,
    byteOffset: Number(byte_offset),
    dtype,
    shape: readAxes(dl_tensor.shape, ndim),
    strides: readAxes(dl_tensor.strides, ndim),
  };
}

function release({ pointer, deleter }) {
  deleterAt(deleter)(pointer);
}

function view({ data, byteOffset, shape }) {
  const bytes = 4 * shape.reduce((a, b) => a * b, 1);
  return new Float32Array(koffi.view(data, byteOffset + bytes), byteOffset);
}

let sum = 0;
const producer = (() => {
  const t = importTensor();
  release(t);
  return deleterAt(t.deleter);
})();

await serve({
  producer(count) {
    for (let i = 0; i < count; i++) producer(make());
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
if (!(sum > 0) || Number(deleted()) === 0) process.exit(1);
