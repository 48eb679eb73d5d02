/**
 * Copies of strided tensors against NumPy's, and contiguous ones against
 * libc's memcpy.
 *
 * usage: deno run -A tests/bench/copy.ts [--quick] [--json PATH] [NAME...]
 *
 * --quick takes a few seconds and shows the 1 MiB copies only; NAMEs choose the
 * cases whose names contain one of them.
 *
 * @module
 */

import { type DType, fromDlpack, Tensor, type TypedArray } from "../../mod.ts";
import { entriesOf } from "../../src/dtype/packing.ts";
import { dtypeByName } from "../../src/dtype/table.ts";
import {
  cStrides,
  extentOf,
  type Layout,
  type Range,
  sliceLayout,
  transposeLayout,
} from "../../src/layout.ts";
import {
  compare,
  type Contender,
  geometricMean,
  measure,
  PythonPeer,
  type Row,
} from "./harness.ts";
import { producer } from "./producer.ts";

interface Case {
  name: string;
  dtype: DType;
  /** Of 64 MiB or a little more, and of about 1 MiB. */
  layouts: readonly [big: Layout, small: Layout];
}

function compact(shape: readonly number[]): Layout {
  return { shape, strides: cStrides(shape), offset: 0 };
}

function sliced(shape: readonly number[], ...ranges: Range[]): Layout {
  return sliceLayout(compact(shape), ranges);
}

function transposed(shape: readonly number[], ...axes: number[]): Layout {
  return transposeLayout(compact(shape), axes);
}

function strided(shape: number[], strides: number[]): Layout {
  return { shape, strides, offset: 0 };
}

const Mi = 2 ** 20;

const cases: readonly Case[] = [
  {
    name: "contiguous",
    dtype: "float32",
    layouts: [compact([16 * Mi]), compact([Mi / 4])],
  },
  {
    name: "padded rows",
    dtype: "float32",
    layouts: [
      sliced([4096, 8192], null, [0, 4096]),
      sliced([512, 1024], null, [0, 512]),
    ],
  },
  ...([
    ["uint8", 8192, 1024],
    ["uint16", 8192, 1024],
    ["float32", 4096, 512],
    ["float64", 4096, 512],
    ["complex128", 2048, 256],
  ] as const).flatMap(([dtype, big, small]): Case[] => [
    {
      name: `transpose ${dtype}`,
      dtype,
      layouts: [transposed([big, big]), transposed([small, small])],
    },
    {
      name: `transpose ${dtype}, odd`,
      dtype,
      layouts: [
        transposed([big + 3, big + 15]),
        transposed([small + 3, small + 15]),
      ],
    },
  ]),
  {
    name: "NCHW to NHWC, 64 channels",
    dtype: "float32",
    layouts: [
      transposed([16, 64, 128, 128], 0, 2, 3, 1),
      transposed([1, 64, 64, 64], 0, 2, 3, 1),
    ],
  },
  {
    name: "NHWC to NCHW, 64 channels",
    dtype: "float32",
    layouts: [
      transposed([16, 128, 128, 64], 0, 3, 1, 2),
      transposed([1, 64, 64, 64], 0, 3, 1, 2),
    ],
  },
  ...([["uint8", 4736, 592], ["float32", 2368, 296]] as const).flatMap(
    ([dtype, big, small]): Case[] => [
      {
        name: `HWC to CHW, 3 ${dtype}`,
        dtype,
        layouts: [
          transposed([big, big, 3], 2, 0, 1),
          transposed([small, small, 3], 2, 0, 1),
        ],
      },
      {
        name: `CHW to HWC, 3 ${dtype}`,
        dtype,
        layouts: [
          transposed([3, big, big], 1, 2, 0),
          transposed([3, small, small], 1, 2, 0),
        ],
      },
    ],
  ),
  {
    name: "all axes reversed, 3-D",
    dtype: "float32",
    layouts: [transposed([256, 256, 256]), transposed([64, 64, 64])],
  },
  {
    name: "all axes reversed, 3-D, odd",
    dtype: "float32",
    layouts: [transposed([251, 257, 263]), transposed([61, 65, 67])],
  },
  ...([["uint8", 64, 1], ["uint16", 32, 0.5], ["float32", 16, 0.25]] as const)
    .map(([dtype, big, small]): Case => ({
      name: `every other ${dtype}`,
      dtype,
      layouts: [
        sliced([2 * big * Mi], [null, null, 2]),
        sliced([2 * small * Mi], [null, null, 2]),
      ],
    })),
  ...([["uint8", 64, 1], ["float32", 16, 0.25], ["float64", 8, 0.125]] as const)
    .map(([dtype, big, small]): Case => ({
      name: `backwards ${dtype}`,
      dtype,
      layouts: [
        sliced([big * Mi], [null, null, -1]),
        sliced([small * Mi], [null, null, -1]),
      ],
    })),
  {
    name: "rows backwards",
    dtype: "float32",
    layouts: [
      sliced([4096, 4096], [null, null, -1]),
      sliced([512, 512], [null, null, -1]),
    ],
  },
  {
    name: "broadcast rows",
    dtype: "float32",
    layouts: [
      strided([4096, 4096], [0, 1]),
      strided([512, 512], [0, 1]),
    ],
  },
  {
    name: "broadcast columns",
    dtype: "float32",
    layouts: [
      strided([4096, 4096], [1, 0]),
      strided([512, 512], [1, 0]),
    ],
  },
  {
    name: "5-D, axes 0 3 1 4 2",
    dtype: "float32",
    layouts: [
      transposed([16, 32, 32, 32, 32], 0, 3, 1, 4, 2),
      transposed([8, 16, 8, 16, 16], 0, 3, 1, 4, 2),
    ],
  },
  {
    name: "5-D, axes 4 2 0 3 1",
    dtype: "float32",
    layouts: [
      transposed([16, 32, 32, 32, 32], 4, 2, 0, 3, 1),
      transposed([8, 16, 8, 16, 16], 4, 2, 0, 3, 1),
    ],
  },
  {
    name: "[N, 2] of [N, 3]",
    dtype: "float32",
    layouts: [
      sliced([8 * Mi, 3], null, [0, 2]),
      sliced([Mi / 8, 3], null, [0, 2]),
    ],
  },
  {
    name: "[N, 3] of [N, 4]",
    dtype: "float32",
    layouts: [
      sliced([6 * Mi, 4], null, [0, 3]),
      sliced([Mi / 12 | 0, 4], null, [0, 3]),
    ],
  },
];

/** The view of a case, over memory that has been written. */
function makeView({ dtype }: Case, layout: Layout): NativeView {
  const { shape, strides, offset } = layout;
  const { highest } = extentOf(shape, strides);
  const { bits, array } = dtypeByName(dtype)!;
  const bytes = (offset + highest + 1) * bits / 8;
  const memory = producer.bench_allocate(BigInt(bytes));
  if (memory === null) throw new Error(`Cannot allocate ${bytes} bytes`);
  const buffer = Deno.UnsafePointerView.getArrayBuffer(memory, bytes);
  const data = new array(buffer).fill(1 as never); // pages of zeros would be one page
  const exporter = Tensor.from(data, shape, { dtype, strides, offset });
  const capsule = exporter.__dlpack__({ maxVersion: [1, 0] });
  const tensor = fromDlpack(capsule);
  return {
    tensor,
    capacity: bytes / tensor.itemsize,
    [Symbol.dispose]() {
      tensor[Symbol.dispose]();
      producer.bench_free(memory);
    },
  };
}

/** A library's tensor. */
interface NativeView extends Disposable {
  tensor: Tensor;
  /** The elements that its memory has room for. */
  capacity: number;
}

/** Memory to copy into. */
function memoryFor(dtype: DType, size: number): TypedArray {
  const info = dtypeByName(dtype)!;
  const entries = entriesOf(info, false, size);
  return new info.array(entries).fill(1 as never);
}

/** libc's memcpy, or `null` where it is elsewhere than on Linux. */
function openMemcpy(): ((into: TypedArray, from: TypedArray) => void) | null {
  try {
    const { symbols } = Deno.dlopen("libc.so.6", {
      memcpy: { parameters: ["buffer", "buffer", "usize"], result: "pointer" },
    });
    return (into, from) => {
      symbols.memcpy(
        into as Uint8Array<ArrayBuffer>,
        from as Uint8Array<ArrayBuffer>,
        BigInt(into.byteLength),
      );
    };
  } catch {
    return null;
  }
}

interface Options {
  rounds: number;
  /** Seconds before the first turn. */
  warmUp: number;
  /** Seconds of one turn of a contender; at least one copy. */
  turn: number;
  /** Seconds of a case. */
  total: number;
}

/**
 * Where copies go: into memory that is used again and again; into new memory,
 * given back at once, as NumPy's is; into memory that the garbage collector
 * gives back; or the other way, from C order into the view.
 */
const WAYS = ["into out", "fresh", "left to the GC", "assigned"] as const;
type Way = typeof WAYS[number];

async function compareCase(
  numpy: PythonPeer,
  what: Case,
  layout: Layout,
  way: Way,
  { rounds, warmUp, turn, total }: Options,
): Promise<Row> {
  using native = makeView(what, layout);
  const { tensor: view, capacity } = native;
  const { itemsize } = view;
  await numpy.ask({ ...layout, capacity, itemsize });
  const out = memoryFor(what.dtype, view.size);
  const compactTensor = Tensor.from<TypedArray, DType>(out, view.shape, {
    dtype: what.dtype,
  });
  const ways: Record<Way, () => void> = {
    "into out": () => view.copy({ out }),
    fresh: () => view.copy()[Symbol.dispose](),
    "left to the GC": () => view.copy(),
    assigned: () => view.assign(compactTensor),
  };
  const fresh = way === "fresh" || way === "left to the GC";
  const contenders: Record<string, Contender> = {
    ours: () => measure(ways[way], turn),
    numpy: async () =>
      (await numpy.ask<{ ns: number }>({ seconds: turn, fresh, way })).ns,
  };
  if (what.name === "contiguous" && way === "into out") {
    const { data } = view;
    contenders["set"] = () => measure(() => out.set(data as never), turn);
    const memcpy = openMemcpy();
    if (memcpy !== null) {
      contenders["memcpy"] = () => measure(() => memcpy(out, data), turn);
    }
  }
  // Compiled before it counts.
  measure(ways[way], warmUp);
  const bytes = view.nbytes;
  const group = `copy ${bytes >= 32 * Mi ? "64 MiB" : "1 MiB"}, ${way}`;
  const row = { group, name: what.name, bytes };
  return await compare(row, contenders, rounds, total);
}

/** A time in the unit that suits it. */
function showTime(ns: number): string {
  return ns >= 1e6
    ? `${(ns / 1e6).toFixed(1)} ms`
    : `${(ns / 1e3).toFixed(1)} us`;
}

function showRow({ name, bytes, ours_ns, ours_range, ...others }: Row): string {
  const { numpy_ns, ...peers } = others.peers;
  const [least, most] = others.peers_range["numpy_ns"]!;
  const ratios = Object.entries(peers).map(([peer, ns]) =>
    `, ${peer.replace("_ns", "")} ${(ns / ours_ns).toFixed(2)}`
  );
  return name.padEnd(28) +
    `${(numpy_ns! / ours_ns).toFixed(2)}x`.padStart(7) +
    `${(bytes / ours_ns).toFixed(2)} GB/s`.padStart(12) +
    `  ${showTime(ours_ns)} (${ours_range.map(showTime).join("..")})`.padEnd(
      36,
    ) +
    `  ${showTime(numpy_ns!)} (${showTime(least)}..${showTime(most)})` +
    ratios.join("");
}

/** Compares all cases and prints a table for each group. */
async function main(args: readonly string[]): Promise<void> {
  const isQuick = args.includes("--quick");
  const jsonAt = args.indexOf("--json");
  const json = jsonAt === -1 ? undefined : args[jsonAt + 1];
  const names = args.filter((arg, at) =>
    !arg.startsWith("--") && (jsonAt === -1 || at !== jsonAt + 1)
  );
  const chosen = cases.filter(({ name }) =>
    names.length === 0 || names.some((part) => name.includes(part))
  );
  const options = isQuick
    ? { rounds: 5, warmUp: 0.1, turn: 0.02, total: 0.3 }
    : { rounds: 9, warmUp: 0.15, turn: 0.03, total: 0.8 };
  await using numpy = await PythonPeer.start("numpy_copy.py");
  const rows: Row[] = [];
  for (const isBig of isQuick ? [false] : [true, false]) {
    for (const way of WAYS) {
      const group: Row[] = [];
      for (const what of chosen) {
        const layout = what.layouts[isBig ? 0 : 1];
        const row = await compareCase(numpy, what, layout, way, options);
        if (group.length === 0) {
          console.log(`\n${row.group}: NumPy's time / ours (more is better)`);
        }
        group.push(row);
        console.log(showRow(row));
      }
      const ratios = group.map((row) => row.peers["numpy_ns"]! / row.ours_ns);
      const mean = geometricMean(ratios).toFixed(2);
      console.log("geometric mean".padEnd(28) + `${mean}x`.padStart(7));
      rows.push(...group);
    }
  }
  if (json !== undefined) {
    await Deno.writeTextFile(json, JSON.stringify(rows, null, 2) + "\n");
  }
}

if (import.meta.main) await main(Deno.args);
