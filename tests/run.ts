/**
 * Runs the tests, and says at the end which ones were skipped, and why:
 * `deno task test`, with the arguments of `deno test`.
 */

import { preload } from "./preload.ts";

const list = Deno.makeTempFileSync({ prefix: "skipped-" });
const { code } = await new Deno.Command(Deno.execPath(), {
  args: [
    "test",
    "--allow-all",
    "--v8-flags=--expose-gc",
    ...preload,
    ...Deno.args.length === 0 ? ["--doc"] : Deno.args,
  ],
  env: { DLPACK_SKIPPED: list },
}).spawn().status;

// Some tests are in more files than one, and some in a process of their own.
const lines = new Set(Deno.readTextFileSync(list).trim().split("\n"));
Deno.removeSync(list);
if (!lines.has("")) console.log([...lines].join("\n") + "\n");
Deno.exit(code);
