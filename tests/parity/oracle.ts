/** Asks NumPy what it makes of the parity cases. */

import type { ParityCase, StructKind } from "./cases.ts";
import { askOracle } from "./python.ts";

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

/**
 * What NumPy makes of the cases; `null` where there is no NumPy from 2.1 on, or
 * no `fork`.
 */
export function numpyOracle(
  cases: readonly ParityCase[],
): Promise<OracleResult[] | null> {
  return askOracle("numpy_oracle.py", cases);
}
