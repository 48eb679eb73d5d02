// examples/npy.ts, with NumPy on the other side.

import { fromDlpack, Tensor } from "@dlpack/deno";
import { assertEquals, assertRejects } from "@std/assert";
import { readNpy, writeNpy } from "../examples/npy.ts";
import { askOracle } from "./parity/python.ts";
import { skipped } from "./skipped.ts";

/** A file that NumPy wrote. */
interface File {
  readonly dtype: string;
  readonly shape: number[];
  readonly values: unknown;
}

const folder = await Deno.makeTempDir();
globalThis.addEventListener(
  "unload",
  () => Deno.removeSync(folder, { recursive: true }),
);

Deno.test("Every dtype that NumPy knows comes from its files, and goes back", async () => {
  const files = await askOracle<File[]>("npy_oracle.py", folder, ["write"]);
  if (files === null) return skipped(".npy files", "pip install numpy");
  assertEquals(files.length, 16 * 2 * 6 * 2);
  for (const [i, { dtype, shape, values }] of files.entries()) {
    const t = await readNpy(`${folder}/${i}.npy`);
    assertEquals([t.dtype, t.shape], [dtype as never, shape]);
    assertEquals(plain(t.toArray()), values);
    await writeNpy(`${folder}/${i}.out.npy`, t);
  }
  const compared = await askOracle("npy_oracle.py", folder, ["compare"]);
  assertEquals(compared, []);

  for (const name of ["text", "structure"]) {
    await assertRejects(
      () => readNpy(`${folder}/${name}.npy`),
      TypeError,
      "as a tensor",
    );
  }
});

/** Bigints as text, which JSON has no exact numbers for. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  return typeof value === "bigint" ? String(value) : value;
}

Deno.test("A view of a library's memory is written as it is seen", async () => {
  const path = `${folder}/view.npy`;
  const data = Int16Array.from({ length: 24 }, (_, i) => i);
  using t = fromDlpack(Tensor.from(data, [4, 6]));
  const views = [
    t.slice(2),
    t.slice([1, 3]),
    t.slice([1, 3]).transpose(),
    t.slice([null, null, -1], [null, null, 2]),
    t.slice(1, 1),
  ];
  for (const view of views) {
    await writeNpy(path, view);
    const again = await readNpy(path);
    assertEquals(again.shape, view.shape);
    assertEquals(again.toArray(), view.toArray());
    const { size } = await Deno.stat(path);
    assertEquals(size % 64, view.nbytes % 64);
  }
});

Deno.test("What is no such file, or none of NumPy's dtypes, is named", async () => {
  const path = `${folder}/other.npy`;
  await Deno.writeTextFile(path, "PK\x03\x04 or something else");
  await assertRejects(() => readNpy(path), TypeError, "is no .npy file");
  await assertRejects(
    () => writeNpy(path, Tensor.zeros([2], "bfloat16")),
    TypeError,
    'NumPy has no bfloat16: convert it, as with astype("float32")',
  );
  await writeNpy(path, Tensor.zeros([2], "float64"));
  const bytes = await Deno.readFile(path);
  await Deno.writeFile(path, bytes.subarray(0, -1));
  await assertRejects(() => readNpy(path), TypeError, "ends too early");
});
