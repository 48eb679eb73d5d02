/**
 * Compiles what the tests open: `deno run -A tests/native/build.ts`.
 *
 * README and doc comments name libraries as Linux does. Deno opens any name, so
 * that elsewhere copies of those names let their code run there, too.
 */

import { compile } from "./cc.ts";

try {
  compile(new URL("./fixture.c", import.meta.url), "fixture");
  for (const name of ["field", "filter", "matrix"]) {
    const source = `../../examples/native/${name}.c`;
    const library = compile(new URL(source, import.meta.url), name);
    const asInDocs = new URL(`./${name}.so`, library);
    if (library.href !== asInDocs.href) Deno.copyFileSync(library, asInDocs);
  }
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
