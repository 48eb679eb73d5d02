/**
 * Reads and writes NumPy's files: `.npy`, of all versions, in C and Fortran
 * order, of either byte order.
 *
 *   deno run -A examples/npy.ts            # writes one, and reads it
 *   deno run -A examples/npy.ts some.npy   # shows yours
 *
 * The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */

import { type DType, Tensor } from "@dlpack/deno";

/** The dtypes by NumPy's letter and bytes. Dates and time spans are int64. */
const dtypes = {
  b1: "bool",
  i1: "int8",
  i2: "int16",
  i4: "int32",
  i8: "int64",
  u1: "uint8",
  u2: "uint16",
  u4: "uint32",
  u8: "uint64",
  f2: "float16",
  f4: "float32",
  f8: "float64",
  c8: "complex64",
  c16: "complex128",
  M8: "int64",
  m8: "int64",
} as const satisfies Record<string, DType>;
const names = Object.keys(dtypes) as (keyof typeof dtypes)[];
const MAGIC = [0x93, ...new TextEncoder().encode("NUMPY")];
const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Reads a file into JavaScript's memory. */
export async function readNpy(path: string | URL): Promise<Tensor> {
  using file = await Deno.open(path);
  const start = await fill(file, new Uint8Array(8));
  if (MAGIC.some((byte, i) => start[i] !== byte)) {
    throw new TypeError(`${path} is no .npy file`);
  }
  const field = await fill(file, new Uint8Array(start[6] === 1 ? 2 : 4));
  const length = field.reduceRight((sum, byte) => sum * 256 + byte);
  const header = new TextDecoder().decode(
    await fill(file, new Uint8Array(length)),
  );
  // A dictionary of Python's: {'descr': '<f4', 'shape': (2, 3), …}
  const [, descr = "a structure"] = /['"]descr['"]: *['"](.*?)['"]/
    .exec(header) ?? [];
  const [, axes = ""] = /['"]shape['"]: *\((.*?)\)/.exec(header) ?? [];
  const shape = [...axes.matchAll(/\d+/g)].map(Number);
  const isFortran = /['"]fortran_order['"]: *True/.test(header);
  const [, order, type] = /^([<>|=])(.+?)(?:\[.*\])?$/.exec(descr) ?? [];
  const dtype = dtypes[type as keyof typeof dtypes];
  if (dtype === undefined) {
    throw new TypeError(`Cannot read ${descr} elements of ${path} as a tensor`);
  }
  // Fortran's order is that of C with the axes reversed.
  const t = Tensor.empty(isFortran ? shape.toReversed() : shape, dtype);
  await fill(file, t.bytes);
  if (order === (isLittleEndian ? ">" : "<")) {
    swapBytes(t.bytes, dtype.startsWith("c") ? t.itemsize / 2 : t.itemsize);
  }
  return isFortran ? t.transpose() : t;
}

/** Writes a tensor, of any strides, to a file. */
export async function writeNpy(path: string | URL, t: Tensor): Promise<void> {
  const name = names.find((name) => dtypes[name] === t.dtype);
  if (name === undefined) {
    throw new TypeError(
      `NumPy has no ${t.dtype}: convert it, as with astype("float32")`,
    );
  }
  const isFortran = !t.isContiguous && t.transpose().isContiguous;
  const whole = t.isContiguous || isFortran ? t : t.copy();
  const order = t.itemsize === 1 ? "|" : isLittleEndian ? "<" : ">";
  const header = `{'descr': '${order}${name}', ` +
    `'fortran_order': ${isFortran ? "True" : "False"}, ` +
    `'shape': (${t.shape.map((n) => `${n},`).join(" ")}), }`;
  // Version 1.0. Elements begin on a multiple of 64 bytes, after a new line.
  const length = Math.ceil((10 + header.length + 1) / 64) * 64 - 10;
  const start = new Uint8Array(10 + length).fill(0x20);
  start.set([...MAGIC, 1, 0, length & 255, length >> 8]);
  start.set(new TextEncoder().encode(header), 10);
  start[start.length - 1] = 0x0a;
  const from = whole.offset * whole.itemsize;
  const elements = whole.bytes.subarray(from, from + whole.nbytes);

  using file = await Deno.create(path);
  // The memory may be a library's, and file.write reads it later.
  await whole.during((async () => {
    for (let rest of [start, elements]) {
      while (rest.length > 0) rest = rest.subarray(await file.write(rest));
    }
  })());
}

async function fill(
  file: Deno.FsFile,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  for (let done = 0; done < bytes.length;) {
    const read = await file.read(bytes.subarray(done));
    if (read === null) throw new TypeError("The file ends too early");
    done += read;
  }
  return bytes;
}

function swapBytes(bytes: Uint8Array, width: number): void {
  for (let i = 0; i < bytes.length; i += width) {
    bytes.subarray(i, i + width).reverse();
  }
}

if (import.meta.main) {
  let [path] = Deno.args;
  if (path === undefined) {
    path = await Deno.makeTempFile({ suffix: ".npy" });
    const t = Tensor.from(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
    await writeNpy(path, t.transpose());
    console.log(`Wrote ${path}, for NumPy's load() as well`);
  }
  console.log(await readNpy(path));
}
