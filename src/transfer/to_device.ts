/**
 * Copies tensors of the host into a device's memory step by step.
 *
 * @module
 */

import type {
  DeviceMemory,
  DeviceRuntime,
  DeviceWriter,
} from "../../ffi/devices/runtime.ts";
import { type Elements, moveElements } from "../copy/elements.ts";
import { allocate, giveBack } from "../copy/memory.ts";
import { bytesOf, packingOf } from "../dtype/packing.ts";
import type { TypedArray } from "../dtype/table.ts";
import { compactLayout, isContiguous, type Layout, sizeOf } from "../layout.ts";
import { type Piece, planTransfer, type TransferPlan } from "./plan.ts";
import { partOf, type Step, type Steps } from "./steps.ts";
import {
  checkOpened,
  openReader,
  putInOrder,
  synchronization,
} from "./to_host.ts";

/** The most memory for packed elements that share bytes with others. */
const SHARED_BYTES = 1024 * 1024;

/**
 * Copies elements of the host into the memory of a device. What lies between
 * those of the target stays as it is, and is not read; but of packed elements
 * that share bytes with others, those bytes are read and written.
 *
 * There is at most as much memory again as the source has; where the source lies
 * in the order of the target, a piece of it, as a script may take its memory away.
 *
 * @param runtime How the memory is reached: it can write.
 * @param memory Where it is.
 * @param target Which elements are written, no two at the same place.
 * @param source Which ones are copied, of the same dtype and shape.
 * @param pieceBytes The bytes of a step, about.
 */
export function* copyToDevice(
  runtime: DeviceRuntime,
  memory: DeviceMemory,
  target: Elements,
  source: Elements & { readonly data: TypedArray },
  pieceBytes: number,
): Steps<void> {
  const { info, isPacked } = target;
  const element = packingOf(info, isPacked);
  const { from, into } = alignAxes(source.layout, target.layout);
  using writer = openWriter(runtime, memory);
  const plan = planTransfer(into, element, {
    hasRows: writer.writeRows !== undefined,
    pieceBytes,
    spanBytes: SHARED_BYTES,
    isExact: true,
  });
  const open = { runtime, memory, writer };
  const there = sideBySide({ ...source, layout: from });
  if (there !== null) {
    yield synchronization(writer);
    return yield* writePieces(open, target, plan, there, true);
  }
  const copy = allocate(info, isPacked, plan.size);
  const elements = { ...source, layout: from };
  yield* partOf(0, 0.5, putInOrder(elements, source.data, copy, pieceBytes));
  const side = new Uint8Array(copy.buffer as ArrayBuffer);
  yield { ...synchronization(writer), done: 0.5 };
  yield* partOf(0.5, 1, writePieces(open, target, plan, side, false));
  giveBack(copy);
}

/** Opens the memory, and checks that a runtime of the user's is complete. */
function openWriter(
  runtime: DeviceRuntime,
  memory: DeviceMemory,
): DeviceWriter {
  const writer = runtime.openForWriting!(memory);
  checkOpened(writer, runtime, memory);
  return writer;
}

/**
 * The axes of source and target in the order in which those of the target lie
 * in memory, none of them backwards.
 */
function alignAxes(
  source: Layout,
  target: Layout,
): { from: Layout; into: Layout } {
  const axes = [...target.shape.keys()]
    .sort((a, b) =>
      Math.abs(target.strides[b]!) - Math.abs(target.strides[a]!)
    );
  const along = ({ shape, strides, offset }: Layout): Layout => {
    for (const axis of axes) {
      if (target.strides[axis]! < 0 && shape[axis]! > 1) {
        offset += (shape[axis]! - 1) * strides[axis]!;
      }
    }
    return {
      shape: axes.map((axis) => shape[axis]!),
      strides: axes.map((axis) =>
        target.strides[axis]! < 0 ? -strides[axis]! : strides[axis]!
      ),
      offset,
    };
  };
  return { from: along(source), into: along(target) };
}

/**
 * The bytes of elements that lie side by side already, in this order, and begin
 * on a byte; else `null`.
 */
function sideBySide(
  { info, isPacked, layout, data }: Elements & { readonly data: TypedArray },
): Uint8Array<ArrayBuffer> | null {
  const { shape, strides, offset } = layout;
  const element = packingOf(info, isPacked);
  if (!isContiguous(shape, strides) || offset % element.group !== 0) {
    return null;
  }
  return new Uint8Array(
    data.buffer as ArrayBuffer,
    data.byteOffset + bytesOf(element, offset),
    bytesOf(element, sizeOf(shape)),
  );
}

/** What pieces are written through. */
interface Open {
  readonly runtime: DeviceRuntime;
  readonly memory: DeviceMemory;
  readonly writer: DeviceWriter;
}

/** @param isShown Whether a script has the memory, too. */
function* writePieces(
  open: Open,
  elements: Elements,
  plan: TransferPlan,
  side: Uint8Array<ArrayBuffer>,
  isShown: boolean,
): Steps<void> {
  const { writer } = open;
  let staged = new Uint8Array(0);
  // While a runtime reads it on another thread, a script could transfer the
  // memory: what it reads then is a copy.
  const staying = (part: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> => {
    if (!isShown) return part;
    if (staged.length < part.length) staged = new Uint8Array(part.length);
    staged.set(part);
    return staged.subarray(0, part.length);
  };
  const element = packingOf(elements.info, elements.isPacked);
  for (const piece of plan.pieces()) {
    const at = bytesOf(element, piece.from);
    const to = bytesOf(element, piece.into);
    if (piece.kind === "run") {
      // The last byte may have others' bits in it.
      const rest = piece.length % element.group;
      const length = bytesOf(element, piece.length - rest);
      const part = side.subarray(to, to + length);
      const done = (piece.into + piece.length) / plan.size;
      if (length > 0) {
        yield {
          run: () => writer.write(at, part),
          runAsync: writer.writeAsync &&
            (() => writer.writeAsync!(at, staying(part))),
          done,
        };
      }
      if (rest === 0) continue;
      const last = piece.length - rest;
      yield writeShared(open, elements, plan, side, {
        from: piece.from + last,
        into: piece.into + last,
        length: rest,
        layout: compactLayout([rest]),
      });
    } else if (piece.kind === "rows") {
      const rowBytes = bytesOf(element, piece.length);
      const pitch = bytesOf(element, piece.pitch);
      const rows = { byteOffset: at, pitch, rowBytes, count: piece.count };
      const part = side.subarray(to, to + rowBytes * piece.count);
      yield {
        run: () => writer.writeRows!(rows, part),
        runAsync: writer.writeRowsAsync &&
          (() => writer.writeRowsAsync!(rows, staying(part))),
        done: (piece.into + piece.length * piece.count) / plan.size,
      };
    } else yield writeShared(open, elements, plan, side, piece);
  }
}

/** Writes packed elements to bytes that others have a part of. */
function writeShared(
  { runtime, memory, writer }: Open,
  { info, isPacked }: Elements,
  plan: TransferPlan,
  side: Uint8Array<ArrayBuffer>,
  { from, into, length, layout }: Omit<
    Extract<Piece, { kind: "span" }>,
    "kind"
  >,
): Step {
  const element = packingOf(info, isPacked);
  const at = bytesOf(element, from);
  const elements = { ...compactLayout(layout.shape), offset: into };
  return {
    run() {
      const bytes = new Uint8Array(bytesOf(element, length));
      {
        using reader = openReader(runtime, { ...memory, access: "read" });
        reader.synchronize();
        reader.read(at, bytes);
      }
      moveElements(info, isPacked, side, elements, bytes, layout);
      writer.write(at, bytes);
    },
    done: (into + sizeOf(layout.shape)) / plan.size,
  };
}
