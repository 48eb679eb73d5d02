import { DlpackCapsule, fromDlpack } from "@dlpack/deno";
import { c } from "../c_memory.ts";
import type { PlateLibrary } from "./plate.ts";

/** Floats of a cache line: rows are padded to whole ones. */
const LINE = 16;

/**
 * The same with what every system has: memory from the C library's `calloc`, given
 * back by its `free`, and read and written by its `memcpy`.
 */
export function openCLibrary(): PlateLibrary {
  let deleted = 0;
  return {
    create(rows, columns) {
      const pitch = Math.ceil(columns / LINE) * LINE;
      const memory = new Memory(rows * pitch * 4);

      /** A struct of its own for each tensor, over memory that they share. */
      const view = (shape: number[], strides: number[], first = 0) =>
        DlpackCapsule.from(memory.at(4 * first), {
          dtype: "float32",
          shape,
          strides,
          release: shareOf(memory),
        });
      const shareOf = (memory: Memory) => {
        memory.owners++;
        return () => {
          memory.drop();
          deleted++;
        };
      };

      return {
        tensor: () => view([rows, columns], [pitch, 1]),
        transposed: () => view([columns, rows], [1, pitch]),
        upwards: () => view([rows, columns], [-pitch, 1], (rows - 1) * pitch),
        image() {
          const cells = memory.read();
          const pixels = new Uint8Array(rows * columns * 3);
          for (let row = 0, at = 0; row < rows; row++) {
            for (let column = 0; column < columns; column++, at += 3) {
              const degrees = cells[row * pitch + column]!;
              const isHot = degrees >= 100;
              pixels[at] = isHot ? 255 : 2.55 * Math.max(0, degrees);
              pixels[at + 2] = 255 - pixels[at]!;
            }
          }
          const copy = new Memory(pixels.length);
          copy.write(pixels);
          const capsule = DlpackCapsule.from(copy.at(0), {
            dtype: "uint8",
            shape: [rows, columns, 3],
            release: shareOf(copy),
          });
          copy.drop();
          return capsule;
        },
        legacy() {
          using tensor = fromDlpack(view([rows, columns], [pitch, 1]));
          return tensor.__dlpack__(); // without a version: the old struct
        },
        at: (row, column) => memory.read()[row * pitch + column]!,
        step() {
          const now = memory.read();
          const next = now.slice();
          for (let row = 1; row < rows - 1; row++) {
            for (let column = 1; column < columns - 1; column++) {
              const i = row * pitch + column;
              const sum = now[i - pitch]! + now[i + pitch]! + now[i - 1]! +
                now[i + 1]!;
              next[i] = sum / 4;
            }
          }
          memory.write(next);
        },
        free: () => memory.drop(),
      };
    },
    deleted: () => deleted,
    close() {},
  };
}

/** Memory that goes when its last owner lets go of it. */
class Memory {
  owners = 1;
  readonly #start: Deno.PointerObject;

  constructor(private readonly bytes: number) {
    const start = c.calloc(BigInt(bytes), 1n);
    if (start === null) throw new Error("No memory for the plate");
    this.#start = start;
  }

  at(offset: number): Deno.PointerValue {
    return Deno.UnsafePointer.offset(this.#start, offset);
  }

  read(): Float32Array {
    const floats = new Float32Array(this.bytes / 4);
    c.read(floats, this.#start, BigInt(this.bytes));
    return floats;
  }

  write(content: Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>): void {
    c.write(this.#start, content, BigInt(content.byteLength));
  }

  drop(): void {
    if (--this.owners === 0) c.free(this.#start);
  }
}
