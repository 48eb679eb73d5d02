/** Asks NumPy what it makes of the parity cases. */

import type { ParityCase, StructKind } from "./cases.ts";

/** What numpy.from_dlpack did with one case, in one struct, with one set of options. */
export type OracleResult = OracleRun & (OracleOk | OracleError | OracleCrash);

/** Which run a result belongs to. */
export interface OracleRun {
  /** Of the case. */
  name: string;
  kind: StructKind;
  /** The keyword arguments; the producer ignores what is asked of it. */
  options: { copy?: boolean; device?: "cpu" };
}

/** An array came out. */
export interface OracleOk {
  outcome: "ok";
  array: OracleArray;
  /** Deleter calls while the array was alive. */
  deletedAfterImport: number;
  /** Deleter calls once the array was deleted. */
  deletedAtEnd: number;
}

/** An exception came out. */
export interface OracleError {
  outcome: "error";
  /** Its class, e.g. "BufferError". */
  class: string;
  message: string;
  /** Deleter calls once the exception and the capsule were gone. */
  deletedAfterImport: number;
  /** The same number: there was nothing left to delete. */
  deletedAtEnd: number;
}

/** The process died. */
export interface OracleCrash {
  outcome: "crash";
  /** Number of the signal, 11 for a segmentation fault. */
  signal: number;
}

/** An array as NumPy describes it. */
export interface OracleArray {
  /** NumPy's name, e.g. "complex64". */
  dtype: string;
  shape: number[];
  /** In elements. */
  strides: number[];
  /**
   * From the first byte of the data region to the first element, in bytes; null
   * when the memory is not the producer's.
   */
  distance: number | null;
  /**
   * As tolist(), but with what JSON cannot hold as strings: integers beyond
   * 2 ** 53, "nan", "inf". Fresh memory may hold anything.
   */
  values: OracleValue;
  /** The elements in C order, in hexadecimal. */
  bytes: string;
  writeable: boolean;
}

/** An element, or nested arrays of elements. */
export type OracleValue =
  | boolean
  | number
  | string
  | { re: number | string; im: number | string }
  | OracleValue[];

/** Why numpyOracle returned null, and the way out. */
export const NO_NUMPY =
  "The NumPy oracle needs Python with NumPy >= 2.1 on a " +
  "system with fork: python3 -m venv .venv && .venv/bin/pip install numpy";

/** Exit status of numpy_oracle.py when it has not got what it needs. */
const NO_ORACLE = 77;

/**
 * Runs numpy_oracle.py over the cases, with `.venv/bin/python` below the root of
 * the repository or else `python3`; null (see NO_NUMPY) when that cannot do it.
 */
export async function numpyOracle(
  cases: readonly ParityCase[],
): Promise<OracleResult[] | null> {
  const script = new URL("./numpy_oracle.py", import.meta.url);
  const venv = new URL("../../.venv/bin/python", import.meta.url);
  let child: Deno.ChildProcess | undefined;
  for (const python of [venv, "python3"]) {
    try {
      child = new Deno.Command(python, {
        args: [await Deno.realPath(script)],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      break;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  if (child === undefined) return null;

  const input = new Blob([JSON.stringify(cases)]).stream();
  // Python may end before it has read all of it, when NumPy is missing.
  const [output] = await Promise.all([
    child.output(),
    input.pipeTo(child.stdin).catch(() => {}),
  ]);
  if (output.code === NO_ORACLE) return null;
  const text = new TextDecoder();
  if (!output.success) {
    throw new Error(`The NumPy oracle failed:\n${text.decode(output.stderr)}`);
  }
  return JSON.parse(text.decode(output.stdout));
}
