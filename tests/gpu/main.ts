/**
 * CUDA tensors on a real GPU: what is right, with tensors of a C library,
 * PyTorch and CuPy, and how fast copies to the host are beside the driver's own
 * and PyTorch's.
 *
 * usage: tests/gpu/run [--bytes N]
 *
 * `--bytes` is the largest copy, 8 GiB by default, or half of what the GPU has
 * free.
 *
 * @module
 */

import { cuda, made, start } from "./cuda.ts";
import { testLibraries } from "./libraries.ts";
import { testCupy, testTorch } from "./peers.ts";
import { Python } from "./python.ts";
import { testRules } from "./rules.ts";
import { measureAll } from "./speed.ts";
import { failed } from "./table.ts";
import { measureUploads, testUploads } from "./uploads.ts";

console.log(`On ${start()}; Deno ${Deno.version.deno}`);
let py: Python | null = null;
try {
  py = new Python();
} catch (error) {
  console.log(`Without PyTorch and CuPy: ${error}`);
}

await testRules();
await testLibraries();
await testUploads();
if (py !== null) {
  await testTorch(py);
  await testCupy(py);
}

const available = made((into) =>
  cuda.cuMemGetInfo_v2(into, new BigUint64Array(1))
);
const at = Deno.args.indexOf("--bytes");
const wanted = at === -1 ? 2 ** 33 : Number(Deno.args[at + 1]);
const largest = Math.min(wanted, Number(available) / 2);
await measureAll(largest, py);
await measureUploads(largest);
console.log(
  failed() === 0 ? "\nAll is right" : `\n${failed()} rows are wrong`,
);
Deno.exit(failed() === 0 ? 0 : 1);
