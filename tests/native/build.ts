/**
 * Compiles what the tests open: `deno run -A tests/native/build.ts`.
 *
 * The README names its library as Linux does. Deno opens any name, so that
 * elsewhere a copy of that name lets its code run there, too.
 */

import { compile } from "./cc.ts";

try {
  compile(new URL("./fixture.c", import.meta.url), "fixture");
  const field = new URL("../../examples/native/field.c", import.meta.url);
  const library = compile(field, "field");
  const asInReadme = new URL("./field.so", library);
  if (library.href !== asInReadme.href) Deno.copyFileSync(library, asInReadme);
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
