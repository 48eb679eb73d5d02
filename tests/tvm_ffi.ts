/** What the tests of `./tvm_ffi` share. */

import { liveTensors } from "@dlpack/deno";
import { TvmFfi, TvmFfiError, type TvmFfiModule } from "@dlpack/deno/tvm_ffi";
import { assertEquals } from "@std/assert";
import { countsOf } from "../src/tvm_ffi/binding.ts";
import { collectGarbage } from "./helpers.ts";
import { testModule, tvmFfiPath } from "./native/tvm_ffi.ts";

/** `null` where the Python package is not installed. */
export const ffi: TvmFfi | null = tvmFfiPath === null
  ? null
  : TvmFfi.open(tvmFfiPath);

const kernelsPath = testModule("tvm_kernels.cc");

/** Functions in C++: `null` where these cannot be compiled. */
export const kernels: TvmFfiModule | null = kernelsPath === null
  ? null
  : ffi!.loadModule(kernelsPath);

/** Those functions, any of which there is if tests run. */
// deno-lint-ignore no-explicit-any
export const k: Record<string, any> = kernels?.functions ?? {};
// Each is looked up at its first use: before the tests count references.
if (kernelsPath !== null) {
  const source = new URL("native/tvm_kernels.cc", import.meta.url);
  const exported = Deno.readTextFileSync(source)
    .matchAll(/^TVM_FFI_DLL_EXPORT_TYPED_FUNC\((\w+),/gm);
  for (const [, name] of exported) void k[name!];
}

/** Registers a test that leaves nothing behind when garbage was collected. */
export function tvmTest(
  name: string,
  run: (ffi: TvmFfi) => void | Promise<void>,
  { ignore = kernels === null }: { ignore?: boolean } = {},
): void {
  Deno.test({
    name: `tvm-ffi: ${name}`,
    ignore,
    async fn() {
      const counts = () => JSON.stringify([liveTensors(), countsOf(ffi!)]);
      const before = counts();
      await run(ffi!);
      if (counts() !== before) await collectGarbage();
      assertEquals(counts(), before);
    },
  });
}

/** Checks that something throws an error of native code, and gives it. */
export function assertTvmError(
  run: () => unknown,
  kind: string,
  message: string,
): TvmFfiError {
  try {
    run();
  } catch (error) {
    if (!(error instanceof TvmFfiError)) throw error;
    assertEquals([error.kind, error.message.includes(message)], [kind, true]);
    return error;
  }
  throw new Error("Nothing was thrown");
}

/** The parts of files that are mapped into this process: whether a library is open. */
export function isOpen(path: string): boolean {
  return Deno.readTextFileSync("/proc/self/maps").includes(path);
}
