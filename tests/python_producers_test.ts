/**
 * What Python's libraries make, seen from Deno, and what they make of Deno's
 * tensors: `deno task matrix` shows the table.
 */

import { assertEquals } from "@std/assert";
import { installedIn, pythons, tryOut } from "./producers/run.ts";
import { producers } from "./producers/table.ts";
import { skipped } from "./skipped.ts";

const found = pythons.map((python) => ({
  python,
  here: new Set(installedIn(python)),
}));

for (const producer of producers) {
  const places = found.filter(({ here }) => here.has(producer));
  if (places.length === 0) {
    const { name, install } = producer;
    skipped(`arrays of ${name}`, `pip install ${install}`);
  }
  for (const { python } of places) {
    const which = python === pythons[0] ? "" : ", in a newer Python";
    Deno.test(`Arrays of ${producer.name} go both ways${which}`, async () => {
      const { failures } = await tryOut(producer, python);
      assertEquals(failures, []);
    });
  }
}
