import type { DlpackCapsule } from "@dlpack/deno";

/** Heat on a plate, in C's memory: degrees in float32, rows by columns. */
export interface Plate {
  /** The library's own memory, whose rows are padded. */
  tensor(): DlpackCapsule;
  /** Columns by rows. */
  transposed(): DlpackCapsule;
  /** From the bottom row up. */
  upwards(): DlpackCapsule;
  /** A picture of it: uint8, rows by columns by red, green and blue. */
  image(): DlpackCapsule;
  /** The same memory in the struct from before DLPack 1.0. */
  legacy(): DlpackCapsule;
  /** One temperature, as C reads it. */
  at(row: number, column: number): number;
  /** Lets the heat spread for one unit of time. */
  step(): void;
  /** The plate goes; its tensors keep the memory. */
  free(): void;
}

/** A library that makes plates. */
export interface PlateLibrary {
  create(rows: number, columns: number): Plate;
  /** How many tensors' deleters have run. */
  deleted(): number;
  close(): void;
}
