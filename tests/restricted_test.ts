/**
 * Where V8 makes no code at run time: without WebAssembly, as on systems that
 * forbid pages that are written and then run, and without code from strings, as
 * programs ask for that trust nobody. All works there, by slower paths.
 */

import { assert, assertEquals } from "@std/assert";
import { preload } from "./preload.ts";

const root = new URL("../", import.meta.url);

/** Which tests are run: those that take longer without a compiler are left out. */
const runs: readonly {
  readonly files: readonly string[];
  readonly filter?: string;
  readonly least: number;
}[] = [
  { files: ["library", "tensor", "from_dlpack", "capsule"], least: 90 },
  {
    files: ["copy", "convert"],
    filter: "/^(walk|copy|planCopy (drops|leaves|repeats)|astype (agrees|" +
      "copies|gives|goes|ignores|of|reads|refuses|rounds 64|converts (as|to|" +
      "64|these)))/",
    least: 25,
  },
];

async function deno(...args: readonly string[]): Promise<string> {
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: root,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  const output = text.decode(stdout) + text.decode(stderr);
  const bad = output.split("\n").filter((line) => !/\.\.\. ok \(/.test(line));
  assert(success, `deno ${args.join(" ")}\n${bad.join("\n")}`);
  return output;
}

for (
  const [flag, what] of [
    ["--jitless", "no WebAssembly"],
    ["--disallow-code-generation-from-strings", "no code from strings"],
  ] as const
) {
  Deno.test(`All works where there is ${what}`, async (t) => {
    await t.step("which is what the flag does", async () => {
      const script = `
        let made = "made";
        try { new Function("return 1")(); } catch (error) { made = error.name; }
        console.log(made, typeof WebAssembly);`;
      assertEquals(
        (await deno("eval", `--v8-flags=${flag}`, script)).trim(),
        flag === "--jitless" ? "made undefined" : "EvalError object",
      );
    });
    // At the same time, as each of them takes some seconds.
    const outputs = await Promise.all(runs.map(({ files, filter }) =>
      deno(
        "test",
        "-A",
        "--no-check",
        `--v8-flags=--expose-gc,${flag}`,
        ...preload,
        ...filter === undefined ? [] : [`--filter=${filter}`],
        ...files.map((file) => `tests/${file}_test.ts`),
      )
    ));
    for (const [i, { files, least }] of runs.entries()) {
      const [, passed] = /^ok \| (\d+) passed/m.exec(outputs[i]!) ?? [];
      assert(Number(passed) >= least, `${files}: ${outputs[i]}`);
    }
  });
}
