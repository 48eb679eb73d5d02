/** PyTorch and CuPy in this process, where python3 has them. */

import type { DlpackCapsule, DlpackExporter } from "@dlpack/deno";
import { Python as Interpreter } from "@dlpack/deno/python";

const prelude = `
import hashlib, time
def best(rounds, run, before=lambda: None):
    least = 1e9
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        made = run()
        least = min(least, time.perf_counter() - start)
        del made
    return least * 1000
`;

/** The interpreter, started; it stays. */
export class Python {
  readonly #python = Interpreter.open();

  /** @throws {Error} Where there is none, or it cannot be started. */
  constructor() {
    this.run(prelude);
  }

  /** Whether a library is here and sees the GPU; it is imported then. */
  has(library: "torch" | "cupy"): boolean {
    const device = library === "torch" ? ", device='cuda'" : "";
    try {
      this.run(`import ${library}; ${library}.zeros(1${device})`);
      return true;
    } catch {
      return false;
    }
  }

  /** Runs a program. */
  run(code: string): void {
    this.#python.exec(code);
  }

  /** Gives a capsule to a variable. */
  set(name: string, x: DlpackExporter): void {
    this.#python.set(name, x);
  }

  /** What an expression is, as text. */
  ask(expression: string): string {
    using value = this.#python.eval(expression);
    return String(value);
  }

  /** The capsule that an array gives, where it is. */
  give(expression: string): DlpackCapsule {
    using array = this.#python.eval(expression);
    return array.__dlpack__({ maxVersion: [1, 3] });
  }
}
