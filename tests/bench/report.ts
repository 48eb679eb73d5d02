/**
 * Judges the results of the benchmark, draws them, and puts them into words.
 *
 * @module
 */

import { geometricMean, type Row } from "./harness.ts";
import { showTime } from "./section.ts";

/** What results.json holds. */
export interface Results {
  /** The processor, its cores, and the versions of all that ran. */
  machine: Record<string, string>;
  /** All sections. */
  rows: Row[];
}

/** A target, and whether it is met. */
export interface Judgement {
  /** What was aimed at. */
  target: string;
  /** What was found. */
  found: string;
  /** Whether that is enough. */
  isMet: boolean;
}

/** Compares the results with the targets, as far as there are rows for them. */
export function judge(rows: readonly Row[]): Judgement[] {
  const judgements: Judgement[] = [];
  const atMost = (target: string, found: number, limit: number): void => {
    judgements.push({ target, found: times(found), isMet: found <= limit });
  };
  const atLeast = (target: string, { ratio, row }: Ratio): void => {
    const limit = Number(/at least ([\d.]+)/.exec(target)![1]);
    const where = row === null ? "" : `: ${row.name}, ${row.group}`;
    judgements.push({
      target,
      found: times(ratio) + where,
      isMet: ratio >= limit,
    });
  };

  const row = (group: string, name: string): Row =>
    rows.find((row) => row.group === group && row.name === name)!;
  for (const way of ["using", "dispose()"]) {
    const imported = row("import", `import, ${way}`);
    atMost(
      `import and release with ${way}: at most 0.5x NumPy's time`,
      imported.ours_ns / imported.peers["numpy_ns"]!,
      0.5,
    );
    const read = row("import", `one element of data, ${way}`);
    atMost(
      `import with ${way}, one element of data read: at most 2x`,
      read.ours_ns / read.peers["numpy_ns"]!,
      2,
    );
  }

  // NumPy's own copies are given back at once: what is left to the garbage
  // collector is shown, and not judged.
  const copies = rows.filter(({ group }) =>
    group.startsWith("copy ") && !group.endsWith("left to the GC") &&
    !group.endsWith("assigned")
  );
  const ratios = copies.filter(isAgainstNumpy).map(ratioOf);
  atLeast("every copy: at least 0.8x NumPy's speed", slowest(ratios));
  atLeast(
    "2-D transposes of 4-byte elements: at least 4x",
    slowest(
      ratios.filter(({ row }) => row!.name.startsWith("transpose float32")),
    ),
  );
  atLeast("copies, geometric mean: at least 2x", {
    ratio: meanOf(ratios),
    row: null,
  });
  const assigned = rows.filter(({ group }) => group.endsWith("assigned"));
  if (assigned.length > 0) {
    atLeast("assign(), geometric mean: at least 1x NumPy's copyto", {
      ratio: meanOf(assigned.map(ratioOf)),
      row: null,
    });
  }
  const overMemcpy = copies.filter(({ peers }) => "memcpy_ns" in peers)
    .map(({ ours_ns, peers }) => ours_ns / peers["memcpy_ns"]!);
  if (overMemcpy.length > 0) {
    atMost(
      "contiguous copies: at most 1.1x the time of memcpy",
      Math.max(...overMemcpy),
      1.1,
    );
  }

  const get = row("element", "get(i, j)");
  judgements.push({
    target: "get(): less than 10 ns",
    found: showTime(get.ours_ns),
    isMet: get.ours_ns < 10,
  });
  const loop = row("element", "data with strides");
  atMost(
    "a loop over data: at most 1.1x that over a plain typed array",
    loop.ours_ns / loop.peers["plain_ns"]!,
    1.1,
  );

  for (const { target, limit, of } of ndarrayTargets) {
    const found = rows.filter(of).map(timesPeer);
    if (found.length > 0) {
      atMost(`${target}: at most ${limit}x`, Math.max(...found), limit);
    }
  }
  const exporting: [name: string, limit: number][] = [
    ["native memory", 3],
    ["JavaScript's memory", 3],
    ["a copy", 5],
  ];
  for (const [what, limit] of exporting) {
    const name = `export and release, ${what}`;
    atMost(
      `${name}: at most ${limit}x NumPy's time`,
      timesPeer(row("export", name)),
      limit,
    );
  }

  const ofThree = rows.filter(({ group, name }) =>
    group === "call" && name.startsWith("a call with three")
  );
  for (const after of ["", ", after 8 dtypes and 4 ranks"]) {
    const found = ofThree.filter(({ name }) =>
      name.includes("after") === (after !== "")
    );
    if (found.length === 0) continue;
    atMost(
      `a call with three tensors${after}: at most 1.1x of one with typed arrays`,
      Math.max(
        ...found.map(({ ours_ns, peers }) =>
          ours_ns / peers["deno_arrays_ns"]!
        ),
      ),
      1.1,
    );
  }

  const calls = rows.find((row) =>
    row.group === "tvm-ffi" && row.name === "a call with three tensors"
  );
  if (calls !== undefined) {
    const { ours_ns, peers } = calls;
    for (
      const [peer, what, limit] of [
        ["python_ns", "Python's tvm_ffi", 0.5],
        ["hand_arrays_ns", "a call packed by hand, with typed arrays", 1.5],
        ["hand_ns", "a call packed by hand, with addresses known before", 1.5],
      ] as const
    ) {
      if (peers[peer] === undefined) continue;
      atMost(
        `a TVM-FFI function with three tensors: at most ${limit}x of ${what}`,
        ours_ns / peers[peer],
        limit,
      );
    }
  }

  const bySize = rows.filter(({ group }) => group === "import by elements")
    .map(({ ours_ns }) => ours_ns);
  atMost(
    "an import of any size: the slowest at most 1.25x the fastest",
    Math.max(...bySize) / Math.min(...bySize),
    1.25,
  );
  const [small, large] = rows.filter(({ group }) =>
    group === "copy by elements"
  ).slice(-2).map(({ ours_ns, bytes }) => ours_ns / bytes);
  atMost(
    "copies are linear: ten times as much takes at most 12.5x as long",
    large! / small! * 10,
    12.5,
  );
  return judgements;
}

/** What is aimed at beside the peers of JavaScript, wherever that is the slowest. */
const ndarrayTargets: {
  target: string;
  limit: number;
  of: (row: Row) => boolean;
}[] = [
  {
    target: "get() and set(), against ndarray, of a constant",
    limit: 3,
    of: ({ group, name }) => group === ACCESS && name.endsWith("constant"),
  },
  {
    target: "get() and set(), against ndarray, of what is passed in",
    limit: 1.5,
    of: ({ group, name }) => group === ACCESS && name.endsWith("passed in"),
  },
  {
    target: "the same after 8 dtypes and 4 ranks",
    limit: 1.5,
    of: ({ group, name }) =>
      group === ACCESS_AFTER && name.endsWith("passed in"),
  },
  {
    target: "for … of along one axis, against that over a typed array",
    limit: 1.2,
    of: ({ group, name }) =>
      group === "iteration" && name.startsWith("one axis"),
  },
  {
    target: "for … of over rows that are a constant, against ndarray's loop",
    limit: 5,
    of: ({ group, name }) => group === "iteration" && name === "rows, constant",
  },
  {
    target: "for … of over rows that are passed in, against ndarray's loop",
    limit: 2,
    of: ({ group, name }) =>
      group === "iteration" && name === "rows, passed in",
  },
];

/** Our time divided by that of the one peer. */
function timesPeer({ ours_ns, peers }: Row): number {
  return ours_ns / Object.values(peers)[0]!;
}

/** How many times as fast as NumPy. */
interface Ratio {
  ratio: number;
  /** Of which row, if of one. */
  row: Row | null;
}

function isAgainstNumpy({ peers }: Row): boolean {
  return "numpy_ns" in peers;
}

function ratioOf(row: Row): Ratio {
  return { ratio: row.peers["numpy_ns"]! / row.ours_ns, row };
}

function slowest(ratios: readonly Ratio[]): Ratio {
  return ratios.reduce((a, b) => a.ratio < b.ratio ? a : b);
}

function fastest(ratios: readonly Ratio[]): Ratio {
  return ratios.reduce((a, b) => a.ratio > b.ratio ? a : b);
}

function meanOf(ratios: readonly Ratio[]): number {
  return geometricMean(ratios.map(({ ratio }) => ratio));
}

/** A factor. */
function times(factor: number): string {
  return `${factor.toFixed(factor < 10 ? 2 : 1)}x`;
}

/** Prints the targets. */
export function printJudgements(judgements: readonly Judgement[]): void {
  console.log("\ntargets");
  for (const { target, found, isMet } of judgements) {
    console.log(`  ${isMet ? "met    " : "NOT MET"}  ${target}: ${found}`);
  }
}

/** The groups of `get` and `set` against ndarray. */
const ACCESS = "element access";
const ACCESS_AFTER = "element access, after 8 dtypes and 4 ranks";

/** Calls of TVM-FFI. */
function callTable(rows: readonly Row[]): string {
  return `${
    table(
      [
        "a function of TVM-FFI",
        "Python's tvm_ffi",
        "packed by hand, typed arrays",
        "packed by hand, addresses known before",
      ],
      rows.map(({ name, ours_ns, peers }) => [
        name,
        ratioTo(ours_ns, peers["python_ns"]),
        ratioTo(ours_ns, peers["hand_arrays_ns"]),
        ratioTo(ours_ns, peers["hand_ns"]),
      ]),
    )
  }

`;
}

/** The peers of the imports, as the tables name them. */
const importers: [peer: string, title: string][] = [
  ["numpy_ns", "NumPy"],
  ["torch_ns", "PyTorch"],
  ["naive_ns", "Deno's pointers"],
  ["bun_ns", "bun:ffi"],
  ["koffi_ns", "koffi"],
];

/** The few lines of the first page, in Markdown. */
export function summaryOf({ machine, rows }: Results): string {
  const find = (group: string, name: string): Row =>
    rows.find((row) => row.group === group && row.name === name)!;
  const numpy = (row: Row): string => times(ratioOf(row).ratio);
  const copies = (size: string): string =>
    times(
      meanOf(
        rows.filter(({ group }) => group === `copy ${size}, into out`).filter(
          isAgainstNumpy,
        ).map(ratioOf),
      ),
    );
  const conversions = rows.filter(({ group }) => group.startsWith("astype"))
    .map(ratioOf);
  const calls = rows.filter(({ peers }) => "deno_arrays_ns" in peers)
    .map(({ ours_ns, peers }) => ours_ns / peers["deno_arrays_ns"]!);
  // Older results have none.
  const lending = calls.length === 0
    ? ""
    : `, and a call with three tensors takes ${times(Math.max(...calls))}
of one with typed arrays`;
  return `
How many times as fast as NumPy ${machine["numpy"]}, on an ${
    machine["processor"]?.replace(/ @.*$/, "")
  } with
Deno ${machine["deno"]}: importing a small tensor and giving it back
${numpy(find("import", "import, dispose()"))}, strided copies
${copies("64 MiB")} for 64 MiB and ${
    copies("1 MiB")
  } for 1 MiB (geometric means of
33 layouts), \`get()\` ${numpy(find("element", "get(i, j)"))}, \`astype\`
${times(slowest(conversions).ratio)} to ${
    times(fastest(conversions).ratio)
  }, exporting
${
    numpy(find("export", "export and release, native memory"))
  }. A loop over \`data\` is as fast
as over any typed array${lending}.
[All figures](tests/bench/README.md): \`deno task bench\`.
`;
}

/** The tables of the bench's own page, in Markdown. */
export function markdownOf({ machine, rows }: Results): string {
  const imports = rows.filter(({ group }) => group === "import");
  const found = importers.filter(([peer]) =>
    imports.every(({ peers }) => peer in peers)
  );
  const elements = rows.filter(({ group }) => group === "element");
  const access = rows.filter(({ group }) => group === ACCESS);
  const accessAfter = rows.filter(({ group }) => group === ACCESS_AFTER);
  const iteration = rows.filter(({ group }) => group === "iteration");
  const conversions = rows.filter(({ group }) => group.startsWith("astype"));
  const exports = rows.filter(({ group }) =>
    ["export", "call"].includes(group)
  );
  const calls = rows.filter(({ group }) => group === "tvm-ffi");
  const copies = Map.groupBy(
    rows.filter((row) => row.group.startsWith("copy ") && isAgainstNumpy(row)),
    ({ group }) => group,
  );
  const { processor, cores, ...versions } = machine;
  const software = Object.entries(versions).map((pair) => pair.join(" "));
  return `
![Each operation against its peers](results.svg)

Medians of \`deno task bench\` on ${cores} cores of an ${processor}, shared with
others, with ${software.join(", ")}. Every contender had its turn in every
round. All figures are ratios: the time of the others divided by that of this
module, which is the faster one above 1.

${
    table(
      ["import of a small tensor", ...found.map(([, of]) => of)],
      imports.map(({ name, ours_ns, peers }) => [
        name,
        ...found.map(([peer]) => times(peers[peer]! / ours_ns)),
      ]),
    )
  }

Excluding what the producer costs. NumPy imports an ndarray; the others read the
struct by hand, without a check.

${
    table(
      [
        "to native code",
        "NumPy",
        "a plain call with pointers",
        "a plain call with typed arrays",
      ],
      exports.map(({ name, ours_ns, peers }) => [
        name,
        ratioTo(ours_ns, peers["numpy_ns"]),
        ratioTo(ours_ns, peers["deno_ns"]),
        ratioTo(ours_ns, peers["deno_arrays_ns"]),
      ]),
    )
  }

${calls.length > 0 ? callTable(calls) : ""}${
    table(
      ["copy, against NumPy", "geometric mean", "slowest", "fastest"],
      [...copies].map(([group, rows]) => {
        const ratios = rows.map(ratioOf);
        const show = ({ ratio, row }: Ratio): string =>
          `${times(ratio)} (${row!.name})`;
        return [
          `${group.replace("copy ", "")}, ${rows.length} layouts`,
          times(meanOf(ratios)),
          show(slowest(ratios)),
          show(fastest(ratios)),
        ];
      }),
    )
  }

Of a library's memory, as NumPy would have allocated it. Fresh copies are
disposed, as NumPy's are freed, and their memory is used for the next one; what
is left to the garbage collector comes from new pages.

${
    table(
      ["one element", "plain typed array", "NumPy"],
      elements.map(({ name, ours_ns, peers }) => [
        name,
        ratioTo(ours_ns, peers["plain_ns"]),
        ratioTo(ours_ns, peers["numpy_ns"]),
      ]),
    )
  }

${access.length > 0 ? accessTables(access, accessAfter, iteration) : ""}
${
    table(
      ["astype, 2^20 elements", "NumPy"],
      conversions.map((row) => [row.name, times(ratioOf(row).ratio)]),
    )
  }

${
    table(
      ["target", "found", "met"],
      judge(rows).map(({ target, found, isMet }) => [
        target,
        found,
        isMet ? "yes" : "no",
      ]),
    )
  }
`;
}

/** Elements against scijs ndarray. */
function accessTables(
  access: readonly Row[],
  after: readonly Row[],
  iteration: readonly Row[],
): string {
  const ranks = [1, 2, 3, 4].map((ndim) => `${ndim}-D`);
  const lines = (rows: readonly Row[], then: string): string[][] =>
    ["get", "set"].flatMap((method) =>
      ["constant", "passed in"].map((way) => [
        `${method}, ${way}${then}`,
        ...ranks.map((rank) => {
          const name = `${method}, ${rank}, ${way}`;
          const row = rows.find((row) => row.name === name)!;
          return ratioTo(row.ours_ns, row.peers["ndarray_ns"]);
        }),
      ])
    );
  return `${
    table(["one element, against scijs ndarray", ...ranks], [
      ...lines(access, ""),
      ...lines(after, ", after 8 dtypes and 4 ranks"),
    ])
  }

The array is a constant of the loop, or is passed to it: V8 compiles more into
the loop where it is a constant.

${
    table(
      ["for … of", "that of the typed array", "two loops over ndarray's get"],
      iteration.map(({ name, ours_ns, peers }) => [
        name,
        ratioTo(ours_ns, peers["plain_ns"]),
        ratioTo(ours_ns, peers["ndarray_ns"]),
      ]),
    )
  }
`;
}

function ratioTo(ours: number, theirs: number | undefined): string {
  return theirs === undefined ? "" : times(theirs / ours);
}

function table(head: string[], body: string[][]): string {
  const lines = [head, head.map(() => "---"), ...body];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** One bar of the picture. */
interface Bar {
  label: string;
  ratio: number;
}

const WIDTH = 800;
const LEFT = 300;
const RIGHT = 740;
const LINE = 16;
const [LEAST, MOST] = [0.01, 50];

/** The picture: a bar for each row, to the right where this module is faster. */
export function svgOf({ rows }: Results): string {
  const groups: [title: string, bars: Bar[]][] = [
    ["Import", rows.filter(({ group }) => group === "import").flatMap(barsOf)],
    ...["copy 64 MiB, into out", "copy 1 MiB, into out"].map(
      (wanted): [string, Bar[]] => [
        `C${wanted.slice(1)}, against NumPy`,
        rows.filter(({ group }) => group === wanted).map(numpyBar),
      ],
    ),
    [
      "Elements, against NumPy",
      rows.filter((row) => row.group === "element" && isAgainstNumpy(row))
        .map(numpyBar),
    ],
    [
      "Conversions, against NumPy",
      rows.filter(({ group }) => group.startsWith("astype")).map(numpyBar),
    ],
  ];
  const parts: string[] = [];
  let y = 44;
  for (const [title, bars] of groups) {
    if (bars.length === 0) continue;
    parts.push(`<text class="title" x="12" y="${y + 12}">${title}</text>`);
    y += 1.5 * LINE;
    for (const bar of bars) {
      parts.push(drawBar(bar, y));
      y += LINE;
    }
    y += LINE / 2;
  }
  const marks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].map((mark) => {
    const x = xOf(mark);
    return `<path class="${mark === 1 ? "one" : "grid"}" d="M${x} 40V${y}"/>` +
      `<text class="mark" x="${x}" y="32">${mark}x</text>`;
  });
  const height = y + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img">
<title>The time of others divided by that of this module</title>
<style>
  text { font: 11px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: bold }
  .label { text-anchor: end }
  .mark { text-anchor: middle; fill: #59636e }
  .grid { stroke: #8b949e; stroke-opacity: .3 }
  .one { stroke: #8b949e }
  .faster { fill: #2f81f7 }
  .slower { fill: #db6d28 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .mark { fill: #9198a1 }
  }
</style>
<text x="12" y="16">Times as fast as the others: to the right of 1x this module is faster</text>
${[...marks, ...parts].join("\n")}
</svg>
`;
}

function barsOf({ name, ours_ns, peers }: Row): Bar[] {
  return importers.filter(([peer]) => peer in peers).map(([peer, title]) => ({
    label: `${name}: ${title}`,
    ratio: peers[peer]! / ours_ns,
  }));
}

function numpyBar(row: Row): Bar {
  return { label: row.name, ratio: ratioOf(row).ratio };
}

function drawBar({ label, ratio }: Bar, y: number): string {
  const [from, to] = [xOf(1), xOf(ratio)];
  const isFaster = ratio >= 1;
  const x = Math.min(from, to);
  const width = (Math.max(from, to) - x).toFixed(1);
  const middle = y + LINE * 0.7;
  const anchor = isFaster ? "start" : "end";
  const edge = (isFaster ? to + 4 : to - 4).toFixed(1);
  return `<text class="label" x="${LEFT - 8}" y="${middle}">${label}</text>` +
    `<rect class="${isFaster ? "faster" : "slower"}" x="${x}" y="${y + 2}"` +
    ` width="${width}" height="${LINE - 4}"/>` +
    `<text x="${edge}" y="${middle}" text-anchor="${anchor}">` +
    `${times(ratio)}</text>`;
}

/** Where a ratio is on the axis, which is logarithmic. */
function xOf(ratio: number): number {
  const within = Math.min(Math.max(ratio, LEAST), MOST);
  const share = Math.log(within / LEAST) / Math.log(MOST / LEAST);
  return Number((LEFT + share * (RIGHT - LEFT)).toFixed(1));
}

const START = "<!-- bench:start -->";
const END = "<!-- bench:end -->";

/** A page with a block in it, where its markers are. */
export function withBlock(page: string, block: string): string {
  const start = page.indexOf(START) + START.length;
  const end = page.indexOf(END);
  if (end < start) throw new Error(`The page has no ${START} and ${END}`);
  return page.slice(0, start) + "\n" + block + "\n" + page.slice(end);
}
