/**
 * Runs the whole benchmark, and writes results.json, results.svg, the tables of
 * README.md beside this file, and the few lines of the first page.
 *
 * usage: deno task bench [--quick | --report] [SECTION...]
 *
 * --quick takes about a minute, and writes nothing; --report runs nothing, and
 * writes again what results.json says. SECTIONs run alone, and their results
 * take the place of the old ones.
 *
 * @module
 */

import { cpus } from "node:os";
import { PythonPeer, type Row } from "./harness.ts";
import { peerVersions } from "./peers/install.ts";
import {
  judge,
  markdownOf,
  printJudgements,
  type Results,
  summaryOf,
  svgOf,
  withBlock,
} from "./report.ts";

const json = new URL("./results.json", import.meta.url);
const svg = new URL("./results.svg", import.meta.url);
const tables = new URL("./README.md", import.meta.url);
const firstPage = new URL("../../README.md", import.meta.url);

/** Each in a process of its own: what one compiles must not help another. */
const sections = [
  "import",
  "export",
  "python",
  "tvm_ffi",
  "copy",
  "elements",
  "growth",
];

async function run(
  chosen: readonly string[],
  isQuick: boolean,
): Promise<Results> {
  const rows: Row[] = [];
  for (const section of chosen) {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    const script = new URL(`./${section}.ts`, import.meta.url).href;
    await deno(
      "run",
      "-A",
      script,
      ...(isQuick ? ["--quick"] : []),
      "--json",
      path,
    );
    rows.push(...JSON.parse(await Deno.readTextFile(path)));
    await Deno.remove(path);
  }
  return { machine: await describeMachine(), rows };
}

async function describeMachine(): Promise<Record<string, string>> {
  await using python = await PythonPeer.start("numpy_import.py");
  const libraries = await python.ask<Record<string, string>>({});
  const cores = cpus();
  return {
    processor: cores[0]?.model ?? Deno.build.arch,
    cores: `${cores.length}`,
    deno: Deno.version.deno,
    ...libraries,
    ...await peerVersions(),
  };
}

async function deno(...args: string[]): Promise<void> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    stdout: "inherit",
    stderr: "inherit",
  });
  const { success } = await command.output();
  if (!success) throw new Error(`deno ${args.join(" ")} failed`);
}

/** Writes the picture, the tables and the few lines. */
async function report(results: Results): Promise<void> {
  await Deno.writeTextFile(svg, svgOf(results));
  await replaceBlock(tables, markdownOf(results));
  await replaceBlock(firstPage, summaryOf(results));
  const written = [tables, firstPage, svg, json].map(({ pathname }) =>
    pathname
  );
  await deno("fmt", "--quiet", ...written);
}

async function replaceBlock(page: URL, block: string): Promise<void> {
  const text = await Deno.readTextFile(page);
  await Deno.writeTextFile(page, withBlock(text, block));
}

/** Four digits are more than the machine can repeat. */
function rounded(_: string, value: unknown): unknown {
  return typeof value === "number" ? Number(value.toPrecision(4)) : value;
}

async function main(args: readonly string[]): Promise<void> {
  const isQuick = args.includes("--quick");
  if (args.includes("--report")) {
    await report(await readResults());
    return;
  }
  const chosen = sections.filter((section) => args.includes(section));
  const results = await run(chosen.length > 0 ? chosen : sections, isQuick);
  if (chosen.length > 0) {
    const groups = new Set(results.rows.map(({ group }) => group));
    const { rows } = await readResults();
    results.rows.unshift(...rows.filter(({ group }) => !groups.has(group)));
  }
  printJudgements(judge(results.rows));
  if (isQuick) return;
  const text = JSON.stringify(results, rounded, 2) + "\n";
  await Deno.writeTextFile(json, text);
  await report(results);
}

async function readResults(): Promise<Results> {
  return JSON.parse(await Deno.readTextFile(json));
}

if (import.meta.main) await main(Deno.args);
