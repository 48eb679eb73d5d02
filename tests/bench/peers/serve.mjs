// Answers requests for measurements: {"task", "seconds"} with {"ns"}, one line
// of JSON each. For Node.js and bun.

import { createInterface } from "node:readline";

/** Serves loops by name; each does its operation `count` times. */
export async function serve(loops) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { task, seconds } = JSON.parse(line);
    const ns = measure(loops[task], seconds);
    process.stdout.write(JSON.stringify({ ns }) + "\n");
  }
}

function measure(loop, seconds) {
  const start = performance.now();
  for (let done = 1000;; done += 1000) {
    loop(1000);
    const elapsed = performance.now() - start;
    if (elapsed >= seconds * 1e3) return elapsed * 1e6 / done;
  }
}

/** The shape of the tensors, and the element that is read. */
export const SHAPE = [4, 4];
export const ELEMENT = [1, 1];
