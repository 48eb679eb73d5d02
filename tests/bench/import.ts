/**
 * Imports of small tensors: make, import, read shape and dtype, release.
 *
 * usage: deno run -A tests/bench/import.ts [--quick] [--json PATH]
 *
 * Times are given raw and net. Net of ours and of those who read the struct by
 * hand: less a loop that only makes a tensor and calls its deleter, in the
 * fastest way there is. Net of NumPy: less an empty loop; its producer is an
 * ndarray. Of ours, `using` and `dispose()` differ by what V8 takes for `using`.
 *
 * @module
 */

import { libc } from "../../ffi/libc.ts";
import { DlpackCapsule, fromDlpack, type Tensor } from "../../mod.ts";
import { compare, type Contender, PythonPeer, type Row } from "./harness.ts";
import { startPeers } from "./peers/install.ts";
import * as naive from "./peers/naive.ts";
import { initProducer, producer, producerLibrary } from "./producer.ts";
import {
  type Loop,
  measureLoop,
  printRows,
  sectionOptions,
  writeRows,
} from "./section.ts";

/** What is added up is looked at in the end, so that nothing is optimised away. */
let sum = 0;

function make(): Tensor {
  const pointer = producer.bench_make();
  return fromDlpack(new DlpackCapsule(pointer, "dltensor_versioned"));
}

/** The address of the deleter that all tensors of the producer have. */
function deleterAddress(): bigint {
  const view = new Deno.UnsafePointerView(producer.bench_make()!);
  return view.getBigUint64(16);
}

const ours: Record<string, Loop> = {
  producer(count) {
    const callDeleter = libc()!.callDeleter;
    for (let i = 0; i < count; i++) {
      const pointer = producer.bench_make();
      callDeleter(pointer, pointer, 1n, 1n, deleter);
    }
  },
  import(count) {
    for (let i = 0; i < count; i++) {
      using t = make();
      sum += t.shape.length + t.dtype.length;
    }
  },
  disposed(count) {
    for (let i = 0; i < count; i++) {
      const t = make();
      sum += t.shape.length + t.dtype.length;
      t[Symbol.dispose]();
    }
  },
  element(count) {
    for (let i = 0; i < count; i++) {
      using t = make();
      const { data, strides, offset } = t as Tensor<"float32">;
      sum += data[offset + strides[0]! + strides[1]!]!;
    }
  },
  elementDisposed(count) {
    for (let i = 0; i < count; i++) {
      const t = make();
      const { data, strides, offset } = t as Tensor<"float32">;
      sum += data[offset + strides[0]! + strides[1]!]!;
      t[Symbol.dispose]();
    }
  },
  get(count) {
    for (let i = 0; i < count; i++) {
      using t = make() as Tensor<"float32">;
      sum += t.get(1, 1);
    }
  },
  copy(count) {
    for (let i = 0; i < count; i++) {
      const capsule = new DlpackCapsule(
        producer.bench_make(),
        "dltensor_versioned",
      );
      const t = fromDlpack(capsule, { copy: true });
      sum += t.shape.length;
      t[Symbol.dispose]();
    }
  },
};

const naively: Record<string, Loop> = {
  import(count) {
    for (let i = 0; i < count; i++) {
      const t = naive.importTensor(producer.bench_make()!);
      sum += t.shape.length + t.dtype.bits;
      naive.release(t);
    }
  },
  element(count) {
    for (let i = 0; i < count; i++) {
      const t = naive.importTensor(producer.bench_make()!);
      const data = naive.viewOf(t);
      sum += data[t.strides[0]! + t.strides[1]!]!;
      naive.release(t);
    }
  },
  copy(count) {
    for (let i = 0; i < count; i++) {
      const t = naive.importTensor(producer.bench_make()!);
      sum += naive.viewOf(t).slice().length;
      naive.release(t);
    }
  },
};

let deleter = 0n;

/** The cases: our loop, and that of the others. */
const cases: [name: string, ours: string, theirs: string][] = [
  ["import, using", "import", "import"],
  ["import, dispose()", "disposed", "import"],
  ["one element of data, using", "element", "element"],
  ["one element of data, dispose()", "elementDisposed", "element"],
  ["one element by get(), using", "get", "element"],
  ["copy: true", "copy", "copy"],
];

async function main(args: readonly string[]): Promise<void> {
  const options = sectionOptions(args);
  const { isQuick } = options;
  const [rounds, turn] = isQuick ? [7, 0.02] : [31, 0.03];
  initProducer(1024, [4, 4]);
  deleter = deleterAddress();
  const library = decodeURIComponent(producerLibrary.pathname);
  const peers = await startPeers(library);
  await using python = await PythonPeer.start("numpy_import.py");
  const pythons = Object.keys(await python.ask<Record<string, string>>({}));

  const inPython = (library: string, task: string): Contender => async () =>
    (await python.ask<{ ns: number }>({ library, task, seconds: turn })).ns;
  const inProcess = (peer: string, task: string): Contender => async () =>
    (await peers[peer]!.ask<{ ns: number }>({ task, seconds: turn })).ns;
  const here = (loop: Loop): Contender => () => measureLoop(loop, turn);

  for (const loop of [...Object.values(ours), ...Object.values(naively)]) {
    loop(60_000); // V8 has compiled it by then
  }
  const raw: Row[] = [];
  const net: Row[] = [];
  for (const [name, our, their] of cases) {
    const contenders: Record<string, Contender> = {
      ours: here(ours[our]!),
      producer: here(ours["producer"]!),
      naive: here(naively[their]!),
      numpy: inPython("numpy", their),
      numpy_empty: inPython("numpy", "empty"),
      numpy_export: inPython("numpy", "export"),
    };
    if (pythons.includes("torch")) {
      contenders["torch"] = inPython("torch", their);
    }
    for (const peer of Object.keys(peers)) {
      contenders[peer] = inProcess(peer, their);
      contenders[`${peer}_producer`] = inProcess(peer, "producer");
    }
    const what = { group: "import, raw", name, bytes: 0 };
    const row = await compare(what, contenders, rounds, Infinity);
    raw.push(row);
    net.push(netOf(row));
  }
  for (const peer of Object.values(peers)) await peer[Symbol.asyncDispose]();
  if (!(sum > 0) || producer.bench_deleted() === 0n) {
    throw new Error("Nothing was imported");
  }
  const rows = [...net, ...raw];
  printRows(rows);
  await writeRows(rows, options);
}

/** Takes off from each what its loop costs without an import. */
function netOf({ ours_ns, ours_range, ...row }: Row): Row {
  const floors: Record<string, string> = {
    naive_ns: "producer_ns",
    numpy_ns: "numpy_empty_ns",
    torch_ns: "numpy_empty_ns",
    koffi_ns: "koffi_producer_ns",
    bun_ns: "bun_producer_ns",
  };
  const net: Row = {
    ...row,
    group: "import",
    ours_ns: ours_ns - row.peers["producer_ns"]!,
    ours_range: less(ours_range, row.peers["producer_ns"]!),
    peers: {},
    peers_range: {},
  };
  for (const [peer, floorName] of Object.entries(floors)) {
    if (!(peer in row.peers)) continue;
    const floor = row.peers[floorName]!;
    net.peers[peer] = row.peers[peer]! - floor;
    net.peers_range[peer] = less(row.peers_range[peer]!, floor);
  }
  // What NumPy as a consumer costs: less its share as the producer, too.
  const exported = row.peers["numpy_export_ns"]!;
  net.peers["numpy_consumer_ns"] = row.peers["numpy_ns"]! - exported;
  net.peers_range["numpy_consumer_ns"] = less(
    row.peers_range["numpy_ns"]!,
    exported,
  );
  return net;
}

function less(
  [least, most]: [number, number],
  floor: number,
): [number, number] {
  return [least - floor, most - floor];
}

if (import.meta.main) await main(Deno.args);
