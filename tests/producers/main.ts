/**
 * Prints what each library that is installed does: `deno task matrix`. With
 * names as arguments, only these; with `--python=PATH`, those of that Python.
 */

import type { Row } from "./one.ts";
import { installedIn, pythons, tryOut } from "./run.ts";
import { checks, producers } from "./table.ts";

const named = Deno.args.filter((argument) => !argument.startsWith("--"));
const own = Deno.args.flatMap((argument) =>
  argument.startsWith("--python=") ? [argument.slice(9)] : []
);
const isWanted = (name: string): boolean =>
  named.length === 0 || named.includes(name);

const rows: Row[] = [];
const seen = new Set<string>();
for (const python of own.length > 0 ? own : pythons) {
  for (const producer of installedIn(python)) {
    if (!isWanted(producer.name)) continue;
    seen.add(producer.name);
    try {
      rows.push(await tryOut(producer, python));
    } catch (error) {
      console.error((error as Error).message);
      Deno.exitCode = 1;
    }
  }
}

const head = ["library", "version", "Python", ...checks];
const table = [
  head,
  head.map(() => "---"),
  ...rows.map(({ name, version, python, cells }) => [
    name,
    version,
    python,
    ...checks.map((check) => cells[check]),
  ]),
];
for (const line of table) console.log(`| ${line.join(" | ")} |`);
for (const { name, failures } of rows) {
  for (const failure of failures) {
    console.error(`${name}: ${failure}`);
    Deno.exitCode = 1;
  }
}
for (const { name, install } of producers) {
  if (isWanted(name) && !seen.has(name)) {
    console.log(`Not installed: ${name}; pip install ${install}`);
  }
}
