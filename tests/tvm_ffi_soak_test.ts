// The million calls of tvm_ffi_soak_cases.ts in a process of their own: what a
// process takes of memory is not a file's alone.

import { assertEquals } from "@std/assert";
import { kernels } from "./tvm_ffi.ts";

Deno.test({
  name: "tvm-ffi: a million calls leave nothing",
  ignore: kernels === null,
  async fn() {
    const cases = new URL("./tvm_ffi_soak_cases.ts", import.meta.url);
    const { success, stdout, stderr } = await new Deno.Command(
      Deno.execPath(),
      {
        args: [
          ...["test", "-A", "--no-check", "--v8-flags=--expose-gc"],
          cases.href,
        ],
        env: { NO_COLOR: "1" },
      },
    ).output();
    const text = new TextDecoder();
    const said = text.decode(stdout) + text.decode(stderr);
    assertEquals(success, true, said);
    assertEquals(/ \d+ passed/.exec(said)?.[0], " 2 passed", said);
  },
});
