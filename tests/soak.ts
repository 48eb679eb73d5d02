/**
 * Ten minutes of everything at once: `deno task soak`.
 *
 * Imports, copies, views, exports, Workers, disposals, garbage and failures in
 * random order, of tensors from a byte to 16 MiB. At the end every counter must
 * be at zero, and the process no larger than it was after the first minute:
 * within 10 % and 16 MiB. `--minutes` says how long, `--seed` in which order.
 *
 * Run it by the task: MALLOC_ARENA_MAX=1 makes glibc allocate from one arena.
 * By default each thread has its own, and with hundreds of Workers RSS shows
 * their fragments, not what is held.
 *
 * @module
 */

import { DlpackCapsule, fromDlpack, liveTensors, Tensor } from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import {
  assertBufferError,
  bytesOf,
  capsule,
  collectGarbage,
} from "./helpers.ts";
import { counts, fixture, type FixtureSpec, make } from "./native/fixture.ts";
import type { Answer, Task } from "./soak_worker.ts";

const MiB = 2 ** 20;
/** Of a tensor, in bytes. */
const MAX_BYTES = 16 * MiB;
/** What may be kept for later, in bytes. */
const MAX_KEPT = 64 * MiB;
/** Activities between two turns of the event loop. */
const PER_TURN = 20;
const WORKERS = 2;
/** Messages that a Worker gets before it has to go. */
const TASKS = 300;

const flag = (name: string): string | undefined => {
  const at = Deno.args.indexOf(`--${name}`);
  return at === -1 ? undefined : Deno.args[at + 1];
};
const seconds = 60 * Number(flag("minutes") ?? 10);
const seed = Number(flag("seed") ?? Math.floor(Math.random() * 2 ** 31));

// ---- chance ----

let state = seed;

/** A number from 0 to below 1, by the seed (mulberry32). */
function random(): number {
  state = state + 0x6d2b79f5 | 0;
  let bits = Math.imul(state ^ state >>> 15, 1 | state);
  bits = bits + Math.imul(bits ^ bits >>> 7, 61 | bits) ^ bits;
  return ((bits ^ bits >>> 14) >>> 0) / 2 ** 32;
}

function chance(percent: number): boolean {
  return random() * 100 < percent;
}

function pick<T>(values: readonly T[]): T {
  return values[Math.floor(random() * values.length)]!;
}

// ---- tensors ----

let made = 0;
let withoutDeleter = 0;

/** The spec of a tensor of bytes; all sizes are as likely on a log scale. */
function someSpec(): FixtureSpec & { nbytes: number } {
  const nbytes = Math.round(MAX_BYTES ** random());
  const rows = pick([1, 2, 3, 16].filter((rows) => nbytes % rows === 0));
  const isSmall = nbytes < MiB;
  return {
    versioned: chance(50),
    dtype: [1, 8, 1],
    shape: [rows, nbytes / rows],
    nbytes,
    // The kernel allows only so many guard pages, and they cost time.
    place: isSmall && chance(20) ? pick(["start", "end"]) : "heap",
    deleter: chance(0.02) ? "slow" : chance(5) ? "callback" : "normal",
  };
}

function someCapsule(spec: FixtureSpec = someSpec()): DlpackCapsule {
  made++;
  return capsule(spec);
}

function someTensor(): Tensor {
  return fromDlpack(someCapsule());
}

/** Writes a byte other than 0 at the start, and gives it. */
function mark(tensor: Tensor): number {
  const byte = 1 + Math.floor(random() * 255);
  tensor.data[0] = byte;
  return byte;
}

/** Things that keep memory alive, for a while; what is dropped is garbage. */
const kept: { holds: unknown; nbytes: number }[] = [];
let keptBytes = 0;

function keep(holds: unknown, nbytes: number): void {
  kept.push({ holds, nbytes });
  keptBytes += nbytes;
  while (keptBytes > MAX_KEPT || kept.length > 200) {
    const [dropped] = kept.splice(Math.floor(random() * kept.length), 1);
    keptBytes -= dropped!.nbytes;
  }
}

// ---- activities ----

const activities: Record<string, () => void> = {
  view(): void {
    using tensor = someTensor();
    const byte = mark(tensor);
    const view = pick([
      () => tensor.slice(0, [null, 1]),
      () => tensor.transpose(),
      () => tensor.reshape([tensor.size]),
    ])();
    assertEquals(view.get(...view.shape.map(() => 0)), byte);
    if (tensor.nbytes < MiB) bytesOf(tensor.data).fill(byte);
    view[Symbol.dispose]();
    assertBufferError(() => tensor.data, "released");
  },

  copy(): void {
    if (chance(50)) {
      const copied = fromDlpack(someCapsule(), { copy: true });
      assertEquals(copied.data.buffer.byteLength, copied.nbytes);
      return;
    }
    using tensor = someTensor();
    const byte = mark(tensor);
    const copied = tensor.transpose().copy();
    assertEquals(copied.get(0, 0), byte);
    keep(copied, copied.nbytes);
  },

  garbage(): void {
    const tensor = someTensor();
    const byte = mark(tensor);
    const holder = pick<() => unknown>([
      () => tensor,
      () => tensor.slice(0),
      () => tensor.data,
      () => tensor.data.subarray(0, 1),
      () => tensor.data.buffer,
      () => null,
    ])();
    assertEquals(tensor.data[0], byte);
    keep(holder, tensor.nbytes);
  },

  capsule(): void {
    const unused = someCapsule();
    const [kind] = unused.__dlpack_device__();
    assertEquals(kind, 1);
    if (chance(50)) unused[Symbol.dispose]();
    else keep(unused, 0);
  },

  export(): void {
    const tensor = someTensor();
    const byte = mark(tensor);
    const copy = chance(25);
    const exported = tensor.__dlpack__({ maxVersion: [1, 0], copy });
    if (chance(50)) tensor[Symbol.dispose]();
    else keep(tensor, tensor.nbytes);
    if (chance(20)) return keep(exported, 0);
    const again = fromDlpack(exported);
    assertEquals(again.get(0, 0), byte);
    if (chance(50)) again[Symbol.dispose]();
    else keep(again, again.nbytes);
  },

  exportOwn(): void {
    const own = Tensor.from(new Uint8Array(Math.round(MiB ** random())));
    const byte = mark(own);
    const copy = chance(50);
    const exported = own.__dlpack__({
      maxVersion: chance(50) ? [1, 3] : null,
      copy,
    });
    if (chance(20)) return keep(exported, own.nbytes);
    const again = fromDlpack(exported);
    assertEquals(again.get(0), byte);
    if (chance(50)) again[Symbol.dispose]();
    else keep(again, again.nbytes);
  },

  release(): void {
    const tensor = someTensor();
    const byte = mark(tensor);
    const { data } = tensor;
    using again = fromDlpack(tensor.release());
    assertEquals([data.length, again.data[0]], [0, byte]);
    assertBufferError(() => tensor.data, "released");
  },

  failure(): void {
    const spec = someSpec();
    const [change, code] = pick(
      [
        [{ shape: [-1, 1] }, "shape"],
        [{ dtype: [1, 7, 1] }, "dtype"],
        [{ device: [2, 0] }, "device"],
        [{ nullData: true }, "data"],
        [{ ndim: 65 }, "shape"],
        [{ versioned: true, version: [2, 0] }, "version"],
      ] as const,
    );
    const refused = someCapsule({ ...spec, ...change });
    assertBufferError(() => fromDlpack(refused), code);
    // What is refused for the options alone stays as it was.
    if (code === "device") refused[Symbol.dispose]();
    assertBufferError(() => refused.take(), "consumed");
  },

  /** Nothing foreign is called: it is ours to free. */
  otherStruct(): void {
    made++;
    const spec = someSpec();
    const pointer = make(spec);
    const name = spec.versioned ? "dltensor" : "dltensor_versioned";
    const wrong = new DlpackCapsule(pointer, name);
    assertBufferError(() => fromDlpack(wrong), "version");
    using right = fromDlpack(
      new DlpackCapsule(
        pointer,
        spec.versioned ? "dltensor_versioned" : "dltensor",
      ),
    );
    assertEquals(right.nbytes, spec.nbytes);
  },

  nullDeleter(): void {
    made++;
    withoutDeleter++;
    const pointer = make({ ...someSpec(), versioned: true, deleter: "null" });
    {
      using tensor = fromDlpack(
        new DlpackCapsule(pointer, "dltensor_versioned"),
      );
      mark(tensor);
    }
    fixture.fx_free(pointer);
  },

  handOver(): void {
    const crew = pick(crews);
    if (!crew.isFree) return;
    // The callback of a deleter would wait for this thread.
    const tensor = fromDlpack(
      someCapsule({ ...someSpec(), deleter: "normal" }),
    );
    const byte = mark(tensor);
    const released = tensor.release();
    const { name } = released;
    assert(name === "dltensor" || name === "dltensor_versioned");
    const address = Deno.UnsafePointer.value(released.take());
    const then = pick(["dispose", "dispose", "forget", "hold"] as const);
    crew.send({ address, name, mark: byte, then });
  },
};

// ---- Workers ----

/** A Worker, and what it was given. */
class Crew {
  readonly #worker = new Worker(
    new URL("./soak_worker.ts", import.meta.url).href,
    { type: "module" },
  );
  /** Whether all that it had is accounted for. */
  isGone = false;
  /** What it holds until its end. */
  readonly #held: Task[] = [];
  #sent = 0;
  #answered = 0;
  #isLeaving = false;
  readonly #gone = Promise.withResolvers<void>();

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#onAnswer(data);
  }

  /** Whether it takes tasks. */
  get isFree(): boolean {
    return !this.#isLeaving && this.#sent - this.#answered < 20;
  }

  send(task: Task): void {
    this.#worker.postMessage(task);
    if (task.then === "hold") this.#held.push(task);
    if (++this.#sent === TASKS) this.leave();
  }

  /** No more tasks: it collects its garbage, and is ended after all answers. */
  leave(): Promise<void> {
    if (!this.#isLeaving) {
      this.#isLeaving = true;
      this.#worker.postMessage("collect");
      this.#sent++;
    }
    return this.#gone.promise;
  }

  #onAnswer({ error, live }: Answer): void {
    if (error !== null) failures.push(`In a Worker: ${error}`);
    if (++this.#answered < this.#sent || !this.#isLeaving) return;
    if (live !== this.#held.length) {
      failures.push(`A Worker has ${live} tensors, not ${this.#held.length}`);
    }
    if (chance(50)) this.#worker.terminate();
    else this.#worker.postMessage("close");
    // A Worker that ends releases nothing: what it held is ours again.
    for (const { address, name, mark } of this.#held) {
      using tensor = fromDlpack(new DlpackCapsule(address, name));
      assertEquals(tensor.data[0], mark);
    }
    workersDone++;
    this.isGone = true;
    this.#gone.resolve();
  }
}

const crews: Crew[] = [];
let workersDone = 0;

// ---- the run ----

const failures: string[] = [];
console.warn = console.error = (...text) => failures.push(text.join(" "));

let inCallback = 0;
const callback = new Deno.UnsafeCallback(
  { parameters: ["pointer"], result: "void" },
  () => {
    inCallback++;
    using tensor = fromDlpack(
      someCapsule({ dtype: [1, 8, 1], shape: [3], nbytes: 3, place: "heap" }),
    );
    assertEquals(tensor.toArray(), [0, 0, 0]);
  },
);
fixture.fx_set_callback(callback.pointer);

const done: Record<string, number> = {};
const inMiB = (bytes: number): string => `${(bytes / MiB).toFixed(1)} MiB`;

function report(): void {
  const { rss, external } = Deno.memoryUsage();
  const { live } = counts();
  const bytes = Number(fixture.fx_live_bytes());
  const ours = liveTensors();
  console.log(
    `${elapsed().toFixed(0).padStart(4)} s: RSS ${inMiB(rss)}, external ` +
      `${inMiB(external)}, in C ${live} tensors of ${inMiB(bytes)}, here ` +
      `${ours.count} of ${inMiB(ours.bytes)}, ${made} made`,
  );
}

/** glibc keeps what is free, unless it is told to give it back. */
const glibc = openGlibc();

function openGlibc() {
  if (Deno.build.os !== "linux") return null;
  try {
    return Deno.dlopen("libc.so.6", {
      malloc_trim: { parameters: ["usize"], result: "i32" }, // int (size_t pad)
    });
  } catch {
    return null; // another C library
  }
}

/** Lets go of everything, and says how large the process is then, in bytes. */
async function settle(): Promise<number> {
  kept.length = 0;
  keptBytes = 0;
  await Promise.all(crews.splice(0).map((crew) => crew.leave()));
  // The threads of Workers end in their own time.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await collectGarbage();
  glibc?.symbols.malloc_trim(0n);
  return Deno.memoryUsage().rss;
}

console.log(`Seed ${seed}, ${seconds} s`);
const names = Object.keys(activities);
const started = performance.now();
const elapsed = (): number => (performance.now() - started) / 1000;
const interval = Math.min(60, seconds / 4);
/** How large the process was, all let go, after each minute. */
const sizes: number[] = [];
let reported = 0;
while (elapsed() < seconds && failures.length === 0) {
  while (crews.length < WORKERS) crews.push(new Crew());
  for (let i = 0; i < PER_TURN; i++) {
    const name = pick(names);
    activities[name]!();
    done[name] = (done[name] ?? 0) + 1;
  }
  await new Promise((resolve) => setTimeout(resolve));
  for (const crew of crews.filter((crew) => crew.isGone)) {
    crews.splice(crews.indexOf(crew), 1);
  }
  if (elapsed() - reported >= 10) {
    reported = elapsed();
    report();
  }
  if (elapsed() > interval * (sizes.length + 1)) {
    sizes.push(await settle());
    console.log(`All let go: RSS ${inMiB(sizes.at(-1)!)}`);
  }
}

const rss = await settle();
report();
callback.close();
console.log(done, { inCallback, workersDone });
const { live, deleted, double } = counts();
assertEquals(failures, []);
assertEquals(liveTensors(), {
  count: 0,
  bytes: 0,
  exported: { count: 0, bytes: 0 },
});
assertEquals([live, double, fixture.fx_live_bytes()], [0, 0, 0n]);
assertEquals(deleted, made - withoutDeleter);
const most = sizes[0]! * 1.1 + 16 * MiB;
console.log(
  `${made} tensors made, all given back; RSS ${inMiB(rss)} at the end, ` +
    `${inMiB(sizes[0]!)} after the first minute`,
);
assert(rss <= most, `RSS is more than ${inMiB(most)}`);
