// tests/gpu on the stand-in for CUDA's driver: that it runs, before a GPU is had.

import { assert, assertEquals } from "@std/assert";

Deno.test({
  name: "tests/gpu passes on the stand-in for CUDA's driver",
  ignore: Deno.build.os === "windows",
  async fn() {
    const { driverPath } = await import("./native/cuda_driver.ts");
    const main = new URL("./gpu/main.ts", import.meta.url);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", main.href, "--bytes", "300000"],
      env: { NO_COLOR: "1", DLPACK_CUDA_LIBRARY: driverPath },
    }).output();
    const text = new TextDecoder();
    const out = text.decode(stdout);
    assertEquals(code, 0, out + text.decode(stderr));
    assert(out.includes("All is right"), out);
    assert(out.includes("| 256 KiB |"), out);
  },
  sanitizeResources: false, // the stand-in stays open
});
