/**
 * How fast the least that an operation must do is: the floors of the targets that
 * are missed. None of this is safe: nothing is checked that need not be to see
 * what the rest takes.
 *
 * usage: deno run -A tests/bench/floors.ts [--quick]
 *
 * @module
 */

import { TENSOR, VERSIONED } from "../../ffi/abi.ts";
import { libc } from "../../ffi/libc.ts";
import { addressOfArray } from "../../ffi/memory.ts";
import {
  compare,
  type Contender,
  measure,
  measureFastest,
  PythonPeer,
  type Row,
} from "./harness.ts";
import { loadNdArray } from "./peers/ndarray.ts";
import { initProducer, producer, producerLibrary } from "./producer.ts";
import { measureLoop, printRows, sectionOptions } from "./section.ts";

const [rounds, turn] = sectionOptions(Deno.args).isQuick
  ? [7, 0.02]
  : [31, 0.03];

/** What is added up, so that nothing is optimised away. */
let sum = 0;
const rows: Row[] = [];

async function row(
  name: string,
  contenders: Record<string, Contender>,
): Promise<void> {
  const what = { group: "floors", name, bytes: 0 };
  rows.push(await compare(what, contenders, rounds, Infinity));
}

/** All of an import that a script could see: the numbers, and the deleter. */
class Imported {
  #pointer: Deno.PointerValue;

  constructor(
    pointer: Deno.PointerValue,
    readonly deleter: bigint,
    readonly data: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    this.#pointer = pointer;
  }

  dispose(): void {
    const pointer = this.#pointer as Deno.PointerObject;
    this.#pointer = null;
    libc()!.callDeleter(pointer, pointer, 1n, 1n, this.deleter);
  }
}

const struct = new Uint8Array(new ArrayBuffer(VERSIONED.size));
const axes = new Int32Array(new ArrayBuffer(512));
const u32 = new Uint32Array(struct.buffer);
const u64 = new BigUint64Array(struct.buffer);
const toStruct = addressOfArray(struct);
const toAxes = addressOfArray(axes);

const DATA = (VERSIONED.tensor + TENSOR.data) / 4;
const SHAPE = (VERSIONED.tensor + TENSOR.shape) / 8;
const DELETER = VERSIONED.deleter / 8;
const STRUCT_BYTES = BigInt(VERSIONED.size);
/** Of the producer's lengths, and of the strides behind them. */
const AXES_BYTES = 80n;

function importByHand(): Imported {
  const c = libc()!;
  const pointer = producer.bench_make() as Deno.PointerObject;
  c.copyFromPointer(toStruct, pointer, STRUCT_BYTES);
  c.copyFromAddress(toAxes, u64[SHAPE]!, AXES_BYTES);
  const data = u32[DATA + 1]! * 2 ** 32 + u32[DATA]!;
  const [shape, strides] = [[axes[0]!, axes[2]!], [axes[16]!, axes[18]!]];
  return new Imported(pointer, u64[DELETER]!, data, shape, strides);
}

const first = Deno.UnsafePointer.create(1n)!;

const imports: Record<string, (count: number) => void> = {
  import(count) {
    for (let i = 0; i < count; i++) {
      const t = importByHand();
      sum += t.shape.length;
      t.dispose();
    }
  },
  element(count) {
    for (let i = 0; i < count; i++) {
      const t = importByHand();
      const buffer = Deno.UnsafePointerView.getArrayBuffer(
        first,
        64,
        t.data - 1,
      );
      const data = new Float32Array(buffer);
      sum += data[t.strides[0]! + t.strides[1]!]!;
      buffer.transfer(0);
      t.dispose();
    }
  },
};

async function measureImports(): Promise<void> {
  initProducer(1024, [4, 4]);
  await using python = await PythonPeer.start("numpy_import.py");
  for (const [task, loop] of Object.entries(imports)) {
    loop(60_000);
    const name = task === "import"
      ? "struct and axes read, an object made, the deleter called"
      : "the same, an ArrayBuffer and an array made, detached";
    await row(name, {
      ours: () => measureLoop(loop, turn),
      numpy: async () =>
        (await python.ask<{ ns: number }>({
          library: "numpy",
          task,
          seconds: turn,
        })).ns,
    });
  }
}

const three = Deno.dlopen(producerLibrary, {
  arrays: {
    name: "bench_three",
    parameters: ["buffer", "buffer", "buffer"],
    result: "i32",
  },
  addresses: {
    name: "bench_three",
    parameters: ["u64", "u64", "u64"],
    result: "i32",
  },
}).symbols;

async function measureCalls(): Promise<void> {
  const [a, b, c] = [4, 4, 4].map((n) => new Float32Array(n));
  const lent = [a, b, c].map((array) => ({
    address: addressOfArray(array!),
    uses: 0,
  }));
  const call = (x: typeof lent[0], y: typeof x, z: typeof x): number => {
    try {
      x.uses++;
      y.uses++;
      z.uses++;
      return three.addresses(x.address, y.address, z.address);
    } finally {
      x.uses--;
      y.uses--;
      z.uses--;
    }
  };
  const byHand = (count: number): void => {
    const [x, y, z] = lent;
    for (let i = 0; i < count; i++) sum += call(x!, y!, z!);
  };
  const withArrays = (count: number): void => {
    for (let i = 0; i < count; i++) sum += three.arrays(a!, b!, c!);
  };
  for (const loop of [byHand, withArrays]) loop(60_000);
  await row("a call with three addresses, each counted in and out", {
    ours: () => measureLoop(byHand, turn),
    arrays: () => measureLoop(withArrays, turn),
  });
}

const SIZE = 2 ** 18;
let texts = 0;

/** A loop over what it is passed, of a text of its own. */
function loopOf(code: string, over: unknown): () => void {
  const loop = new Function("t", `// floor ${++texts}\n${code}`);
  return () => loop(over);
}

async function compareLoops(
  name: string,
  ours: () => void,
  peers: Record<string, () => void>,
): Promise<void> {
  const contenders: Record<string, Contender> = {};
  for (const [who, loop] of Object.entries({ ours, ...peers })) {
    for (let i = 0; i < 40; i++) loop();
    contenders[who] = () => measureFastest(loop, turn) / SIZE;
  }
  await row(name, contenders);
}

async function measureElements(): Promise<void> {
  const ndarray = await loadNdArray();
  if (ndarray === null) return;
  const data = new Float32Array(SIZE).fill(1);
  const inside = "if (i < 0 || i >= this.n || j < 0 || j >= this.n) throw 1;";
  const Checked = new Function(`return class {
    constructor(data, n) {
      this.data = data;
      this.offset = 0;
      this.n = this.s = n;
    }
    get(i, j) { ${inside} return this.data[this.offset + i * this.s + j]; }
    set(i, j, v) { ${inside} this.data[this.offset + i * this.s + j] = v; }
  };`)();
  const double = (body: string): string =>
    `let sum = 0;
    for (let i = 0; i < 512; i++) for (let j = 0; j < 512; j++) ${body}
    return sum;`;
  const codes = {
    "get(i, j), passed in, bounds checked": double("sum += t.get(i, j);"),
    "set(i, j, v), passed in, bounds checked": double("t.set(i, j, 1);"),
  };
  for (const [name, code] of Object.entries(codes)) {
    await compareLoops(name, loopOf(code, new Checked(data, 512)), {
      ndarray: loopOf(code, ndarray(data, [512, 512], [512, 1], 0)),
    });
  }
  const Counter = new Function(`return class {
    constructor(n) { this.n = n; }
    [Symbol.iterator]() { this.i = 0; return this; }
    next() {
      return this.i < this.n
        ? { value: this.i++, done: false }
        : { value: undefined, done: true };
    }
  };`)();
  const over = "let sum = 0; for (const v of t) sum += v; return sum;";
  await compareLoops(
    "for … of, passed in, an iterator that counts",
    loopOf(over, new Counter(SIZE)),
    { typed_array: loopOf(over, data) },
  );
}

const MiB = 2 ** 20;

/** Memory of V8's own that takes as long to read as any. */
function filled(bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes).fill(1);
}

async function measureCopies(): Promise<void> {
  await using python = await PythonPeer.start("numpy_copy.py");
  const view = { shape: [MiB / 4], strides: [1], offset: 0 };
  await python.ask({ capacity: MiB / 4, itemsize: 4, ...view });
  const source = filled(MiB);
  let kept = source;
  await row("1 MiB copied by slice(), left to the garbage collector", {
    ours: () => measure(() => kept = source.slice(), turn),
    numpy: async () =>
      (await python.ask<{ ns: number }>({
        seconds: turn,
        fresh: true,
        way: "fresh",
      })).ns,
  });
  sum += kept[0]!;
}

/** Elements of so many bytes, before and after. */
const conversions = [["int64", "float32"], ["float32", "int64"], [
  "bfloat16",
  "float32",
]] as const;

async function measureConversions(): Promise<void> {
  await using python = await PythonPeer.start("numpy_elements.py");
  const bytesOf = { bfloat16: 2, float32: 4, int64: 8 };
  const CHUNK = 65536;
  const stage = filled(CHUNK);
  for (const [from, to] of conversions) {
    const source = filled(bytesOf[from] * MiB);
    const into = filled(bytesOf[to] * MiB);
    const byHand = (): void => {
      for (let at = 0; at < source.length; at += CHUNK) {
        stage.set(source.subarray(at, at + CHUNK));
      }
      for (let at = 0; at < into.length; at += CHUNK) into.set(stage, at);
    };
    await row(`${from} to ${to}: into WebAssembly's memory, and out of it`, {
      ours: () => measure(byHand, turn),
      numpy: async () =>
        (await python.ask<{ ns: number }>({
          from,
          to,
          size: MiB,
          seconds: turn,
        })).ns,
    });
  }
}

await measureImports();
await measureCopies();
await measureConversions();
await measureCalls();
await measureElements();
printRows(rows);
if (!(sum > 0)) throw new Error("Nothing was done");
