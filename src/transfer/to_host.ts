/**
 * Copies tensors into the host's memory step by step: out of a device, and into
 * C order.
 *
 * @module
 */

import type {
  DeviceMemory,
  DeviceReader,
  DeviceRuntime,
  DeviceWriter,
} from "../../ffi/devices/runtime.ts";
import { copyElements, type Elements } from "../copy/elements.ts";
import { allocate, giveBack } from "../copy/memory.ts";
import { bytesOf, packingOf } from "../dtype/packing.ts";
import type { TypedArray } from "../dtype/table.ts";
import { type Layout, sizeOf } from "../layout.ts";
import { elementsIn, planTransfer, type TransferPlan } from "./plan.ts";
import { partOf, type Step, type Steps } from "./steps.ts";

/**
 * The most memory for pieces of which not all is wanted, in bytes: long enough
 * that calls do not count, short enough for the CPU's cache.
 */
const SPAN_BYTES = 16 * 1024 * 1024;

/** The most packed elements of a step; a multiple of what begins on a byte. */
const PACKED_ELEMENTS = 2 * 1024 * 1024;

/**
 * Copies the memory of a device to the host, in C order. At no time there is
 * more than twice the tensor's own size of memory for it.
 *
 * @param runtime How the memory is reached.
 * @param memory Where it is.
 * @param elements What it holds.
 * @param pieceBytes The bytes of a step, about.
 */
export function* copyFromDevice(
  runtime: DeviceRuntime,
  memory: DeviceMemory,
  elements: Elements,
  pieceBytes: number,
): Steps<TypedArray> {
  const { info, isPacked, layout } = elements;
  const element = packingOf(info, isPacked);
  const bytes = bytesOf(element, sizeOf(layout.shape));
  let plan: TransferPlan;
  let side: TypedArray;
  let share = 1;
  {
    using reader = openReader(runtime, memory);
    plan = planTransfer(layout, element, {
      hasRows: reader.readRows !== undefined,
      pieceBytes,
      spanBytes: Math.min(SPAN_BYTES * Math.min(element.bits / 8, 1), bytes),
    });
    side = allocate(info, isPacked, plan.size);
    const read = bytesOf(element, plan.size);
    if (!plan.isInOrder) share = read / (read + bytes);
    yield synchronization(reader);
    yield* partOf(0, share, readPieces(reader, elements, plan, side));
  }
  if (plan.isInOrder) return side;
  const inOrder = allocate(info, isPacked, sizeOf(layout.shape));
  const there = { info, isPacked, layout: plan.layout };
  yield* partOf(share, 1, putInOrder(there, side, inOrder, pieceBytes));
  giveBack(side);
  return inOrder;
}

/** Opens the memory, and checks that a runtime of the user's is complete. */
export function openReader(
  runtime: DeviceRuntime,
  memory: DeviceMemory,
): DeviceReader {
  const reader = runtime.open(memory);
  checkOpened(reader, runtime, memory);
  return reader;
}

/** Checks that what a runtime has opened is complete. */
export function checkOpened(
  opened: DeviceReader | DeviceWriter | undefined,
  runtime: DeviceRuntime,
  { type, id, access }: DeviceMemory,
): void {
  for (const name of ["synchronize", access, Symbol.dispose]) {
    const method = opened?.[name as keyof typeof opened];
    if (typeof method === "function") continue;
    const open = access === "read" ? "open" : "openForWriting";
    throw new TypeError(
      `Cannot ${access} a tensor on ${type}:${id} through ${runtime.name}: ` +
        `what its ${open}() returns has no ${String(name)}()`,
    );
  }
}

/** Only waits for what writes the memory. */
export function* synchronize(
  runtime: DeviceRuntime,
  memory: DeviceMemory,
): Steps<void> {
  using reader = openReader(runtime, memory);
  yield synchronization(reader);
}

/** The step that waits for what uses the memory. */
export function synchronization(opened: DeviceReader | DeviceWriter): Step {
  return {
    run: () => opened.synchronize(),
    runAsync: opened.synchronizeAsync?.bind(opened),
    done: 0,
  };
}

/**
 * Copies elements of the host's memory into C order.
 *
 * @param elements Which ones.
 * @param from Where they are.
 * @param into Where to.
 * @param pieceBytes The bytes of a step, about.
 */
export function* putInOrder(
  { info, isPacked, layout }: Elements,
  from: TypedArray,
  into: TypedArray,
  pieceBytes: number,
): Steps<void> {
  const size = sizeOf(layout.shape);
  const element = packingOf(info, isPacked);
  // Packed ones may have to be moved bit by bit: then it is their number that
  // takes time, not their bytes.
  const most = Math.min(
    elementsIn(element, pieceBytes),
    isPacked && pieceBytes < Infinity ? PACKED_ELEMENTS : Infinity,
  );
  let start = 0;
  for (const part of partsOf(layout, most, element.group)) {
    const to = start;
    start += sizeOf(part.shape);
    yield {
      run: () => copyElements(info, isPacked, from, part, into, to),
      done: start / size,
    };
  }
}

/** Parts of at most `most` elements, in C order. */
function* partsOf(
  layout: Layout,
  most: number,
  group: number,
): Generator<Layout> {
  const { shape, strides, offset } = layout;
  const axis = shape.findIndex((length) => length > 1);
  if (sizeOf(shape) <= most || axis === -1) return yield layout;
  const length = shape[axis]!;
  let atOnce = Math.max(1, Math.floor(most / (sizeOf(shape) / length)));
  // Parts that begin within a byte are slow to copy.
  if (atOnce > group) atOnce -= atOnce % group;
  for (let k = 0; k < length; k += atOnce) {
    yield* partsOf(
      {
        shape: shape.with(axis, Math.min(atOnce, length - k)),
        strides,
        offset: offset + k * strides[axis]!,
      },
      most,
      group,
    );
  }
}

function* readPieces(
  reader: DeviceReader,
  { info, isPacked }: Elements,
  plan: TransferPlan,
  side: TypedArray,
): Steps<void> {
  const element = packingOf(info, isPacked);
  const into = new Uint8Array(side.buffer as ArrayBuffer);
  let span = new Uint8Array(0);
  for (const piece of plan.pieces()) {
    const at = bytesOf(element, piece.from);
    const length = bytesOf(element, piece.length);
    const to = bytesOf(element, piece.into);
    if (piece.kind === "run") {
      const part = into.subarray(to, to + length);
      yield {
        run: () => reader.read(at, part),
        runAsync: reader.readAsync?.bind(reader, at, part),
        done: (piece.into + piece.length) / plan.size,
      };
    } else if (piece.kind === "rows") {
      const rows = {
        byteOffset: at,
        pitch: bytesOf(element, piece.pitch),
        rowBytes: length,
        count: piece.count,
      };
      const part = into.subarray(to, to + length * piece.count);
      yield {
        run: () => reader.readRows!(rows, part),
        runAsync: reader.readRowsAsync?.bind(reader, rows, part),
        done: (piece.into + piece.length * piece.count) / plan.size,
      };
    } else {
      const { layout } = piece;
      if (span.length < length) {
        span.buffer.transfer(0);
        span = new Uint8Array(length);
      }
      const part = span.subarray(0, length);
      const gather = (): void => {
        copyElements(info, isPacked, part, layout, side, piece.into);
      };
      yield {
        run() {
          reader.read(at, part);
          gather();
        },
        runAsync: reader.readAsync && (async () => {
          await reader.readAsync!(at, part);
          gather();
        }),
        done: (piece.into + sizeOf(layout.shape)) / plan.size,
      };
    }
  }
  // At once, not when the garbage collector comes: there is more to allocate.
  span.buffer.transfer(0);
  // A run may have brought bits from beyond the last element.
  const rest = plan.size * element.bits % 8;
  if (rest > 0) into[into.length - 1]! &= (1 << rest) - 1;
}
