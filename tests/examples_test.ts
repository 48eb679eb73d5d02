/** Runs every example as a user does, and looks at what it prints. */

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { compile } from "./native/cc.ts";

interface Run {
  readonly code: number;
  readonly out: string;
}

async function run(
  name: string,
  env: Record<string, string> = {},
): Promise<Run> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL(`../examples/${name}`, import.meta.url).href],
    env: { NO_COLOR: "1", ...env },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout) + text.decode(stderr) };
}

Deno.test("The demo shows tensors of a C library", async () => {
  const { code, out } = await run("demo.ts");
  assertEquals(code, 0, out);
  for (const expected of ["float32", "uint8", "strides", "BufferError"]) {
    assertStringIncludes(out, expected);
  }
});

Deno.test("examples/filter.ts wraps a library with status codes", async () => {
  const { code, out } = await run("filter.ts");
  assertEquals(code, 0, out);
  for (const expected of ["bad radius", "not an image"]) {
    assertStringIncludes(out, `FilterError "${expected}"`);
  }
});

Deno.test("A C compiler that is not there is named in one line", () => {
  const before = Deno.env.get("CC");
  Deno.env.set("CC", "/no/such/compiler");
  try {
    const source = new URL("./native/fixture.c", import.meta.url);
    const error = assertThrows(() => compile(source, "never"), Error);
    assertEquals(error.message, "No C compiler found at CC=/no/such/compiler");
  } finally {
    if (before === undefined) Deno.env.delete("CC");
    else Deno.env.set("CC", before);
  }
});

for (const name of ["tvm_ffi.ts", "metatensor.ts", "numpy.ts"]) {
  Deno.test(`examples/${name} runs, or says what to install`, async () => {
    const { code, out } = await run(name);
    if (code === 0) assertStringIncludes(out, "Tensor ");
    else assertStringIncludes(out, "pip install");
  });
}
