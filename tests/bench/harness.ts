/**
 * What the benchmarks share: timing, medians, a peer in another process.
 *
 * @module
 */

import { pythonPath } from "../../examples/python.ts";

/** One line of a benchmark: times of one operation, in nanoseconds. */
export interface Row {
  /** What is compared. */
  group: string;
  /** The case. */
  name: string;
  /** Bytes that the operation writes. */
  bytes: number;
  /** Our median. */
  ours_ns: number;
  /** Our fastest and slowest round. */
  ours_range: [number, number];
  /** The medians of the others, `numpy_ns` and the like. */
  peers: Record<string, number>;
  /** The fastest and slowest rounds of the others. */
  peers_range: Record<string, [number, number]>;
}

/** Runs something for about so long, and gives the nanoseconds of one run. */
export function measure(run: () => void, seconds: number): number {
  const start = performance.now();
  for (let count = 1;; count++) {
    run();
    const elapsed = performance.now() - start;
    if (elapsed >= seconds * 1e3) return elapsed * 1e6 / count;
  }
}

/**
 * The same, of the fastest run: for what is over before the machine turns to
 * somebody else's work, which then does not count.
 */
export function measureFastest(run: () => void, seconds: number): number {
  const end = performance.now() + seconds * 1e3;
  let fastest = Infinity;
  for (let start = performance.now(); start < end;) {
    run();
    const now = performance.now();
    fastest = Math.min(fastest, now - start);
    start = now;
  }
  return fastest * 1e6;
}

/** The middle one. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The lowest and the highest. */
export function rangeOf(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

/** The geometric mean. */
export function geometricMean(values: readonly number[]): number {
  const logarithms = values.map(Math.log);
  return Math.exp(logarithms.reduce((a, b) => a + b, 0) / values.length);
}

/** Times one round of a contender: the nanoseconds of one operation. */
export type Contender = () => number | Promise<number>;

/**
 * Lets contenders take turns, so that what else the machine does hits all.
 *
 * @param contenders Ours is `ours`.
 * @param rounds How often each has its turn, at least 1.
 * @param seconds No further round begins after so long.
 */
export async function compare(
  what: { group: string; name: string; bytes: number },
  contenders: Record<string, Contender>,
  rounds: number,
  seconds: number,
): Promise<Row> {
  const times: Record<string, number[]> = {};
  const end = performance.now() + seconds * 1e3;
  for (let round = 0; round < rounds; round++) {
    // Three rounds at least for there to be a median.
    if (round >= 3 && performance.now() > end) break;
    // Each is the first one in its turn: the next finds caches that are warm.
    const order = Object.entries(contenders);
    order.push(...order.splice(0, round % order.length));
    for (const [name, contender] of order) {
      (times[name] ??= []).push(await contender());
    }
  }
  const { ours = [], ...others } = times;
  const each = <T>(of: (values: number[]) => T): Record<string, T> =>
    Object.fromEntries(
      Object.entries(others).map(([name, values]) => [
        `${name}_ns`,
        of(values),
      ]),
    );
  return {
    ...what,
    ours_ns: median(ours),
    ours_range: rangeOf(ours),
    peers: each(median),
    peers_range: each(rangeOf),
  };
}

/** A Python script that answers a line of JSON for each that it reads. */
export class PythonPeer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#writer = child.stdin.getWriter();
    this.#lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Starts a script that lies beside this file. */
  static async start(script: string): Promise<PythonPeer> {
    const path = await Deno.realPath(new URL(script, import.meta.url));
    // Settings that make NumPy start as it does for everybody.
    const env = Deno.env.toObject();
    delete env["OPENBLAS_CORETYPE"];
    delete env["OPENBLAS_L2_SIZE"];
    const command = new Deno.Command(pythonPath(), {
      args: [path],
      clearEnv: true,
      env,
      stdin: "piped",
      stdout: "piped",
    });
    return new PythonPeer(command.spawn());
  }

  /** Sends a request and waits for its answer. */
  async ask<T>(request: unknown): Promise<T> {
    const line = JSON.stringify(request) + "\n";
    await this.#writer.write(new TextEncoder().encode(line));
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) {
        const { code } = await this.#child.status;
        throw new Error(`The Python peer ended with exit status ${code}`);
      }
      this.#rest += value;
    }
    const end = this.#rest.indexOf("\n");
    const answer = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return JSON.parse(answer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#child.status;
  }
}
