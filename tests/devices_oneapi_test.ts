// oneAPI, in a process of its own: SYCL finds its devices once, by what is in
// the environment and which OpenCL loader is open, which other tests open.

import { assert, assertEquals } from "@std/assert";
import { askPython } from "../examples/python.ts";
import { skipped } from "./skipped.ts";

/** Where dpctl's library and Intel's OpenCL device are, or why they are not. */
function find(): { folder: string; prefix: string } | string {
  try {
    // Without importing it: with too old libraries that ends the process.
    return JSON.parse(askPython(`
import importlib.util, json, os, sys
spec = importlib.util.find_spec("dpctl")
assert spec is not None, "there is no dpctl"
lib = os.path.join(sys.prefix, "lib")
assert os.path.exists(os.path.join(lib, "libintelocl.so")), "there is no libintelocl.so"
print(json.dumps({"folder": os.path.dirname(spec.origin), "prefix": lib}))
`));
  } catch (error) {
    return (error as Error).message.split("\n")[0]!;
  }
}

const found = Deno.build.os === "linux"
  ? find()
  : "its CPU device is for Linux";
if (typeof found === "string") {
  skipped(
    `oneAPI (${found})`,
    "pip install dpnp intel-opencl-rt (2.9 GB)",
  );
}

Deno.test({
  name: "oneAPI's memory on the CPU (tests/devices_oneapi_cases.ts)",
  ignore: typeof found === "string",
  async fn() {
    const { folder, prefix } = found as Exclude<typeof found, string>;
    const cases = new URL("./devices_oneapi_cases.ts", import.meta.url);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "test",
        "-A",
        "--no-check",
        "--v8-flags=--expose-gc",
        cases.pathname,
      ],
      env: {
        NO_COLOR: "1",
        // What Python's extensions find by where they lie.
        LD_LIBRARY_PATH: prefix,
        DLPACK_ONEAPI_LIBRARY: `${folder}/libDPCTLSyclInterface.so`,
        OCL_ICD_FILENAMES: `${prefix}/libintelocl.so`,
      },
    }).output();
    const text = new TextDecoder();
    const out = text.decode(stdout) + text.decode(stderr);
    assertEquals(code, 0, out);
    assert(/ok \| [1-9][0-9]* passed.* 0 failed/.test(out), out);
  },
});
