/**
 * Feeds `fromDlpack` hostile structs: `deno task fuzz`.
 *
 * Each is made by the C fixture, many between guard pages, and imported; what
 * comes of it is compared with tests/fuzz_model.ts, and the tensor, if there is
 * one, is put to every use. `--runs` says how many (a million), `--seed` which,
 * `--guarded` how many of a hundred lie between guard pages (20).
 *
 * The work is done in child processes, so that one that crashes can be run
 * again, this time writing down each case before it is tried.
 *
 * @module
 */

import {
  BufferError,
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { usePortablePath } from "../ffi/libc.ts";
import {
  type Case,
  cases,
  elementAt,
  judge,
  type Meaning,
  originOf,
  patternOf,
  type Step,
  UNTHINKABLE,
} from "./fuzz_model.ts";
import { assertBufferError, bytesOf, collectGarbage } from "./helpers.ts";
import { counts, fixture, make } from "./native/fixture.ts";

/** How often each outcome was seen. */
export type Distribution = Record<string, number>;

/** What to run. */
export interface FuzzOptions {
  /** How many structs. */
  runs: number;
  /** Which: the same seed makes the same structs. */
  seed: number;
  /** How many of a hundred lie between guard pages. */
  guarded: number;
  /** Is told of each case before it is tried. */
  onCase?: (text: string) => void;
}

/** Cases between two turns of the event loop. */
const CHUNK = 4000;

/**
 * Tries so many structs, and says what came of them: a chunk on the fast path
 * through the C library, the next on the portable one, and so on.
 *
 * @throws {Error} With fast-check's smallest counterexample when one of them
 * did not do what the model says.
 */
export async function fuzz(options: FuzzOptions): Promise<Distribution> {
  const { runs, seed, guarded, onCase } = options;
  const seen: Distribution = {};
  const before = liveTensors();
  const nativeBefore = counts();
  const { warn } = console;
  // Some say that they are larger than any memory; no other warning is due.
  console.warn = (text) => assertMatch(text, /in one turn of the event loop/);
  try {
    for (let done = 0; done < runs; done += CHUNK) {
      const kept: Tensor[] = [];
      usePortablePath(done / CHUNK % 2 === 1);
      fc.assert(
        fc.property(cases(guarded), (from) => {
          onCase?.(fc.stringify(from));
          const outcome = tryCase(from, kept);
          seen[outcome] = (seen[outcome] ?? 0) + 1;
        }),
        { numRuns: Math.min(CHUNK, runs - done), seed: seed + done },
      );
      // A turn with the kept ones alive, then one in which they are garbage.
      await new Promise((resolve) => setTimeout(resolve));
      kept.length = 0;
      await collectGarbage();
      assertEquals(liveTensors(), before, "what was kept came back");
    }
  } finally {
    usePortablePath(false);
    console.warn = warn;
  }
  const { double, live } = counts();
  assertEquals([double, live], [nativeBefore.double, nativeBefore.live]);
  return seen;
}

/** Imports one struct, checks what comes of it, and names the outcome. */
function tryCase(from: Case, kept: Tensor[]): string {
  const verdict = judge(from);
  const { meaning, extent } = verdict;
  const isHonest = meaning?.isHonest ?? false;
  const nbytes = isHonest ? meaning!.nbytes : 64;
  const data = patternOf(nbytes);
  const origin = isHonest ? Number(originOf(from, extent!)) : 0;
  const pointer = make({
    versioned: from.versioned,
    version: from.version,
    flags: from.flags,
    device: from.device,
    ndim: from.ndim,
    dtype: from.dtype,
    shape: from.shape,
    strides: from.strides,
    byteOffset: from.byteOffset,
    nbytes,
    origin,
    place: from.place,
    nullData: from.nullData,
    deleter: from.nullDeleter ? "null" : "normal",
    data,
  });
  // Where the lowest element is; a byte offset that wraps around is far beyond.
  const start = BigInt.asUintN(
    64,
    fixture.fx_data_address(pointer) + BigInt(origin),
  ) + from.byteOffset + (extent?.firstByte ?? 0n);
  const end = start + (extent?.bytes ?? 0n);

  const before = { ...liveTensors(), ...counts() };
  const deleted = (): number => {
    const now = counts();
    assertEquals(now.double, before.double, "a deleter was called twice");
    return now.deleted - before.deleted;
  };
  let tensor: Tensor;
  const isVersioned = from.versioned !== from.asOther;
  const name = isVersioned ? "dltensor_versioned" : "dltensor";
  const capsule = new DlpackCapsule(pointer, name);
  try {
    tensor = fromDlpack(capsule, from.options);
  } catch (error) {
    assert(error instanceof BufferError, `not a BufferError: ${error}`);
    const { code } = error;
    const isBeyond = code === "shape" && end > start &&
      (start <= 0n || end > UNTHINKABLE);
    assert(
      verdict.refused.includes(code) || isBeyond,
      `refused as "${code}", not as one of ${verdict.refused}: ${error}`,
    );
    // Refused by the options alone, it stays as it was.
    const isUnused = capsule.name === name;
    const stays = verdict.stays && verdict.refused.includes(code);
    assert(isUnused === stays, `${capsule.name} after "${code}"`);
    if (isUnused) assertEquals(deleted(), 0);
    capsule[Symbol.dispose]();
    const called = deleted();
    assert(verdict.calls.includes(called), `${called} calls of the deleter`);
    // What was not called is ours to free.
    if (from.nullDeleter) fixture.fx_free(pointer);
    else if (called === 0) fixture.fx_call_deleter_from_thread(pointer);
    const { count, bytes } = liveTensors();
    assertEquals({ count, bytes }, {
      count: before.count,
      bytes: before.bytes,
    });
    return from.asOther ? "refused, other struct" : `refused, "${code}"`;
  }

  assert(verdict.mayWork, `not refused as one of ${verdict.refused}`);
  assert(meaning !== null);
  const { isCopy } = meaning;
  const calls = from.nullDeleter ? 0 : 1;
  expect(deleted() === (isCopy ? calls : 0), "deleted too early or late");
  const { count, bytes } = liveTensors();
  expect(count - before.count === (isCopy ? 0 : 1), "live count");
  expect(bytes - before.bytes === (isCopy ? 0 : meaning.nbytes), "live bytes");

  checkLayout(tensor, meaning);
  // Of an empty one, too: toArray() of [1e9, 0] is a billion empty arrays.
  const isSmall = meaning.isHonest &&
    sizeOf(meaning.shape.map((length) => length || 1)) <= MAX_EXERCISED;
  if (isSmall) checkElements(tensor, meaning, data, rootOf(meaning));
  else checkSamples(tensor, meaning, data, from.steps.length);
  if (from.kept && !from.nullDeleter) {
    kept.push(tensor);
    return "kept over a turn";
  }
  if (isSmall) {
    const home = new Home(
      !isCopy,
      meaning.readOnly,
      rootOf(meaning),
      null,
      isCopy ? Math.ceil(meaning.size * meaning.itembits / 8) : meaning.nbytes,
    );
    const expectDeleted = (isOver: boolean): void =>
      expect(deleted() === (isOver || isCopy ? calls : 0), "deleter calls");
    exercise(tensor, meaning, data, home, from.steps, expectDeleted);
  } else exerciseLarge(tensor, meaning, from.steps.length);
  expect(deleted() === calls, "deleter calls at the end");
  const after = liveTensors();
  expect(
    after.count === before.count && after.bytes === before.bytes,
    "live at the end",
  );
  if (from.nullDeleter) fixture.fx_free(pointer);
  return isCopy ? "copied" : isSmall ? "viewed" : "viewed, large";
}

/** Tensors of more elements are looked at here and there only. */
const MAX_EXERCISED = 512;

/** Like assert, for what is run millions of times: no message is built. */
function expect(isTrue: boolean, what: string): asserts isTrue {
  if (!isTrue) throw new Error(`Not as it must be: ${what}`);
}

// ---- what a tensor says and holds ----

/** Which elements of the imported `data` a view is made of, in C order. */
interface View {
  shape: readonly number[];
  at: readonly number[];
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((size, length) => size * length, 1);
}

/** All of a tensor, as the struct describes it. */
function rootOf({ shape, strides, offset, size }: Meaning): View {
  let at = size === 0 ? [] : [offset];
  shape.forEach((length, axis) => {
    at = at.flatMap((start) =>
      Array.from({ length }, (_, i) => start + i * strides[axis]!)
    );
  });
  return { shape, at };
}

function checkLayout(tensor: Tensor, meaning: Meaning): void {
  const { dtype, shape, strides, size, isCopy, itembits } = meaning;
  assertEquals([...tensor.shape], shape);
  assertEquals(tensor.dtype, dtype.name);
  expect(tensor.bits === dtype.bits, "bits");
  expect(tensor.itemsize === itembits / 8, "itemsize");
  expect(tensor.size === size, "size");
  expect(tensor.ndim === shape.length, "ndim");
  expect(tensor.nbytes === Math.ceil(size * itembits / 8), "nbytes");
  expect(tensor.readOnly === meaning.readOnly, "readOnly");
  expect(tensor.strides.every(Number.isSafeInteger), "safe strides");
  if (isCopy) {
    expect(tensor.isContiguous && tensor.offset === 0, "a copy in C order");
    return;
  }
  expect(tensor.offset === meaning.offset, "offset");
  shape.forEach((length, axis) => {
    const matters = length > 1 && size > 0;
    expect(!matters || tensor.strides[axis] === strides[axis], "strides");
  });
}

function checkElements(
  tensor: Tensor,
  meaning: Meaning,
  data: Uint8Array<ArrayBuffer>,
  { shape, at }: View,
): void {
  expect(same([...tensor.shape], shape), "a view's shape");
  const step = Math.ceil(at.length / 64);
  for (let i = 0; i < at.length; i += step) {
    const found = tensor.get(...indexOf(i, shape));
    const wanted = elementAt(meaning, data, at[i]!);
    if (!same(found, wanted)) assertEquals<unknown>(found, wanted);
  }
}

/** The index of the i-th element in C order. */
function indexOf(i: number, shape: readonly number[]): number[] {
  const index: number[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = i % shape[axis]!;
    i = Math.floor(i / shape[axis]!);
  }
  return index;
}

/** Equal to the bit, NaN and nested arrays included. */
function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object") return false;
  if (a === null || b === null) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => same((a as Values)[key], (b as Values)[key]));
}

type Values = Record<string, unknown>;

/** A tensor too large to look at every element, or to look at any. */
function checkSamples(
  tensor: Tensor,
  meaning: Meaning,
  data: Uint8Array<ArrayBuffer>,
  count: number,
): void {
  const { shape, strides, offset, size, isHonest } = meaning;
  if (!isHonest || size === 0) return;
  for (let i = 0; i <= count; i++) {
    const index = shape.map((length) =>
      Math.floor(length * i / Math.max(count, 1)) - (i === 0 ? 0 : 1)
    ).map((i) => Math.max(i, 0));
    const at = index.reduce((at, i, axis) => at + i * strides[axis]!, offset);
    const found = tensor.get(...index);
    assert(same(found, elementAt(meaning, data, at)), `element ${index}`);
  }
}

// ---- what can be done with it ----

/** Whose memory a tensor is in. */
class Home {
  isAlive = true;
  /** Exports that are out. */
  holds = 0;

  /**
   * @param isNative Whether it is a managed tensor, not JavaScript's memory.
   * @param root What a new import of it shows.
   * @param from Of whose memory it is an export.
   * @param nbytes Of data, of the fixture's own tensor.
   */
  constructor(
    readonly isNative: boolean,
    readonly readOnly: boolean,
    readonly root: View,
    readonly from: Home | null = null,
    readonly nbytes: number | null = null,
  ) {
    if (from !== null) from.holds++;
  }

  /** Whether its memory has been given back. */
  get isOver(): boolean {
    return !this.isAlive && this.holds === 0;
  }

  end(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.letGo();
  }

  letGo(): void {
    if (!this.isOver || this.from === null) return;
    this.from.holds--;
    this.from.letGo();
  }
}

/** A tensor, the elements that it must show, and whose memory they are in. */
interface Handle {
  tensor: Tensor;
  view: View;
  home: Home;
}

/** Takes the steps, then disposes of whatever is left. */
function exercise(
  tensor: Tensor,
  meaning: Meaning,
  data: Uint8Array<ArrayBuffer>,
  first: Home,
  steps: readonly Step[],
  expectDeleted: (isOver: boolean) => void,
): void {
  const handles: Handle[] = [{ tensor, view: first.root, home: first }];
  // Whose end calls the deleter: release() may hand that on.
  let holder = first;
  for (const step of steps) {
    const handle = handles[step.a % handles.length]!;
    const made = handle.home.isAlive
      ? take(step, handle, meaning, data)
      : takeDead(step, handle);
    if (made !== null) {
      checkElements(made.tensor, meaning, data, made.view);
      handles.push(made);
      if (step.does === "release" && handle.home === holder) holder = made.home;
    }
    expectDeleted(holder.isOver);
  }
  for (const { tensor, home } of handles) {
    tensor[Symbol.dispose]();
    home.end();
    expectDeleted(holder.isOver);
  }
}

/** Takes a step with a living tensor; what it makes is still to be checked. */
function take(
  { does, a, b }: Step,
  handle: Handle,
  meaning: Meaning,
  data: Uint8Array<ArrayBuffer>,
): Handle | null {
  const { tensor, view, home } = handle;
  const { shape, at } = view;
  const values = (): unknown[] => at.map((i) => elementAt(meaning, data, i));
  const pick = (...axes: number[][]): number[] => {
    let picked = [0];
    axes.forEach((indices, axis) => {
      picked = picked.flatMap((i) =>
        indices.map((index) => i * shape[axis]! + index)
      );
    });
    return picked.map((i) => at[i]!);
  };
  switch (does) {
    case "slice": {
      const ranges = shape.map((length, axis) => rangeOf(a + axis, b, length));
      const kept = ranges.map((range, axis) => indicesOf(range, shape[axis]!));
      return {
        tensor: tensor.slice(...ranges),
        view: {
          shape: kept.map((indices) => indices.length)
            .filter((_, axis) => typeof ranges[axis] !== "number"),
          at: pick(...kept),
        },
        home,
      };
    }
    case "transpose": {
      const axes = [...shape.keys()];
      for (let i = 0; i < axes.length; i++) axes.push(...axes.splice(b % 3, 1));
      const order = b % 2 === 0 ? axes : [...shape.keys()].reverse();
      const lengths = order.map((axis) => shape[axis]!);
      const moved = at.map((_, i) => {
        const index = indexOf(i, lengths);
        return at[
          shape.reduce(
            (flat, length, axis) => flat * length + index[order.indexOf(axis)]!,
            0,
          )
        ]!;
      });
      return {
        tensor: b % 2 === 0 ? tensor.transpose(...order) : tensor.transpose(),
        view: { shape: lengths, at: moved },
        home,
      };
    }
    case "reshape": {
      const size = at.length;
      const half = size % 2 === 0 ? [2, size / 2] : [size, 1];
      const to = [[size], half, half.reverse(), [1, size, 1]][b % 4]!;
      // Of copies the model knows the values, not the order in memory.
      const isCompact = home.isNative && home.nbytes !== null &&
        at.every((i, n) => i === at[0]! + n);
      try {
        return { tensor: tensor.reshape(to), view: { shape: to, at }, home };
      } catch (error) {
        assert(error instanceof BufferError && error.code === "layout");
        assert(!isCompact, "refused to reshape what is contiguous");
        return null;
      }
    }
    case "copy": {
      const nbytes = Math.ceil(at.length * meaning.itembits / 8);
      const made = new Home(false, false, view, null, nbytes);
      const copied = tensor.copy();
      expect(copied.data.buffer.byteLength === nbytes, "a copy's own size");
      return { tensor: copied, view, home: made };
    }
    case "astype":
      checkConverted(tensor, meaning, values(), b % 2 === 0);
      return null;
    case "toArray":
      expect(
        same(([tensor.toArray()] as unknown[]).flat(shape.length), values()),
        "toArray",
      );
      return null;
    case "iterate": {
      if (shape.length === 0) return null;
      const elements = values();
      [...tensor].forEach((item, i) => {
        const rest = sizeOf(shape.slice(1));
        const row = {
          shape: shape.slice(1),
          at: at.slice(i * rest, (i + 1) * rest),
        };
        if (shape.length > 1) {
          checkElements(item as Tensor, meaning, data, row);
        } else expect(same(item, elements[i]), "iterator");
      });
      return null;
    }
    case "inspect": {
      // Six elements of an axis are printed, of as many axes as there are.
      const printed = sizeOf(shape.map((length) => Math.min(length, 7)));
      if (printed > 500) return null;
      const text = Deno.inspect(tensor);
      const head = `Tensor ${meaning.dtype.name} [${shape.join(", ")}]`;
      expect(text.startsWith(head), "inspect");
      return null;
    }
    case "set":
      checkSet(handle, a);
      return null;
    case "data": {
      const bytes = bytesOf(tensor.data);
      expect(tensor.slice().data === tensor.data, "a view's data");
      const { nbytes } = home;
      expect(nbytes === null || bytes.length === nbytes, "data's length");
      expect(tensor.data.buffer.byteLength === bytes.length, "its buffer");
      expect(bytes.slice().length === bytes.length, "readable"); // all read
      return null;
    }
    case "export":
    case "exportLegacy":
    case "exportCopy":
      return checkExport(does, b, handle, meaning);
    case "release": {
      if (!home.isNative || home.holds > 0) {
        const code = home.isNative ? "consumed" : "data";
        assertBufferError(() => tensor.release(), code);
        return null;
      }
      const { data } = tensor;
      const capsule = tensor.release();
      expect(data.length === 0, "released data is empty");
      // The managed tensor lives on, in another home.
      const { readOnly, root, from, nbytes } = home;
      const moved = new Home(true, readOnly, root, from, nbytes);
      home.end();
      return { tensor: fromDlpack(capsule), view: root, home: moved };
    }
    case "dispose": {
      const { data } = tensor;
      tensor[Symbol.dispose]();
      tensor[Symbol.dispose]();
      expect(!home.isNative || data.length === 0, "disposed data is empty");
      home.end();
      return null;
    }
  }
}

/** A step with a tensor that was disposed must be refused, and read nothing. */
function takeDead({ does }: Step, { tensor }: Handle): null {
  const tries: Partial<Record<Step["does"], () => unknown>> = {
    slice: () => tensor.slice(),
    transpose: () => tensor.transpose(),
    reshape: () => tensor.reshape([tensor.size]),
    copy: () => tensor.copy(),
    astype: () => tensor.astype("float64"),
    toArray: () => tensor.toArray(),
    data: () => tensor.data,
    export: () => tensor.__dlpack__({ maxVersion: [1, 0] }),
    exportLegacy: () => tensor.__dlpack__(),
    exportCopy: () => tensor.__dlpack__({ copy: true }),
    release: () => tensor.release(),
  };
  const refused = tries[does];
  if (refused !== undefined) assertBufferError(refused, "released");
  else if (does === "inspect") {
    expect(Deno.inspect(tensor).endsWith(", released"), "inspect");
  } else tensor[Symbol.dispose]();
  return null;
}

type RangeOfAxis = number | null | [number | null, number | null, number];

function rangeOf(a: number, b: number, length: number): RangeOfAxis {
  const bound = (n: number): number | null =>
    n % 5 === 0 ? null : n % (2 * length + 3) - length - 1;
  const kind = a % 4;
  if (kind === 0 && length > 0) return b % (2 * length) - length;
  if (kind === 1) return null;
  return [bound(a), bound(b), (b % 3 + 1) * (kind === 2 ? 1 : -1)];
}

/** What Python's `range(length)[range]` gives. */
function indicesOf(range: RangeOfAxis, length: number): number[] {
  const all = Array.from({ length }, (_, i) => i);
  if (range === null) return all;
  if (typeof range === "number") return [all.at(range)!];
  const [start, stop, step] = range;
  const place = (n: number): number => n < 0 ? n + length : n;
  const from = start === null ? null : place(start);
  const to = stop === null ? null : place(stop);
  const isForward = step > 0;
  // Backwards is forwards over the reversed list, from and to on its far side.
  const inside = isForward
    ? all.filter((i) => (from === null || i >= from) && (to === null || i < to))
    : all.reverse().filter((i) =>
      (from === null || i <= from) && (to === null || i > to)
    );
  return inside.filter((_, n) => n % Math.abs(step) === 0);
}

function checkConverted(
  tensor: Tensor,
  meaning: Meaning,
  values: unknown[],
  toBool: boolean,
): void {
  const dtype: DType = toBool ? "bool" : "float64";
  if (meaning.dtype.name === "handle") {
    assertBufferError(() => tensor.astype(dtype), "dtype");
    return;
  }
  const wanted = values.map((value) => {
    const { re, im } = typeof value === "object"
      ? value as { re: number; im: number }
      : { re: Number(value), im: 0 };
    return toBool ? re !== 0 || im !== 0 : re;
  });
  const found = tensor.astype(dtype);
  expect(found.data.length === values.length, "a conversion's size");
  expect(same([...found.reshape([values.length])], wanted), "astype");
}

/** Writes an element over itself: nothing may change. */
function checkSet({ tensor, view, home }: Handle, a: number): void {
  const { shape, at } = view;
  if (at.length === 0) return;
  const index = indexOf(a % at.length, shape);
  const value = tensor.get(...index) as never;
  if (home.readOnly) {
    assertBufferError(() => tensor.set(...index, value), "readonly");
    return;
  }
  tensor.set(...index, value);
  expect(same(tensor.get(...index), value), "set");
}

function checkExport(
  does: "export" | "exportLegacy" | "exportCopy",
  b: number,
  { tensor, view, home }: Handle,
  { itembits, dtype, isPadded }: Meaning,
): Handle | null {
  const isCopy = does === "exportCopy";
  const isLegacy = does === "exportLegacy" || isCopy && b % 3 === 0;
  const request = (): DlpackCapsule =>
    tensor.__dlpack__({
      maxVersion: isLegacy ? null : [1, b % 4],
      dlDevice: b % 2 === 0 ? null : [1, 0],
      copy: isCopy ? true : b % 5 === 0 ? false : null,
    });
  if (isLegacy && !isCopy && home.readOnly) {
    assertBufferError(request, "readonly");
    return null;
  }
  if (isLegacy && (isPadded || dtype.name === "uint1")) {
    assertBufferError(request, "dtype");
    return null;
  }
  const isEmpty = view.at.length === 0;
  const isPacked = dtype.bits < 8 && itembits < 8;
  if (!isCopy && isPacked && !isEmpty && tensor.offset * itembits % 8 !== 0) {
    assertBufferError(request, "layout");
    return null;
  }
  const capsule = request();
  assertEquals(capsule.name, isLegacy ? "dltensor" : "dltensor_versioned");
  if (b % 7 === 0) {
    capsule[Symbol.dispose]();
    return null;
  }
  const isShared = !isCopy && !isEmpty && home.isNative;
  const readOnly = isLegacy || home.readOnly && !isCopy;
  return {
    tensor: fromDlpack(capsule),
    view,
    home: new Home(true, readOnly, view, isShared ? home : null),
  };
}

/** What needs no element of a tensor that is too large to read: one thing each. */
function exerciseLarge(tensor: Tensor, meaning: Meaning, kind: number): void {
  const copied = Math.ceil(meaning.size * meaning.itembits / 8);
  const isWhole = meaning.size === 0 ||
    tensor.offset * meaning.itembits % 8 === 0;
  if (kind % 3 === 0 && copied >= UNTHINKABLE) {
    const copy = kind % 2 === 0
      ? () => tensor.copy()
      : () => tensor.__dlpack__({ maxVersion: [1, 3], copy: true });
    assertBufferError(copy, "copy");
  } else if (kind % 3 === 1 && isWhole) {
    using again = fromDlpack(tensor);
    assertEquals(again.shape, tensor.shape);
    if (kind % 2 === 0) tensor[Symbol.dispose]();
  } else {
    const { data } = tensor;
    const nbytes = meaning.isCopy ? copied : meaning.nbytes;
    expect(data.byteLength === nbytes, "data's length");
    tensor[Symbol.dispose]();
    expect(data.length === 0 || meaning.isCopy, "disposed data is empty");
  }
  tensor[Symbol.dispose]();
}

// ---- the command ----

/** Cases of one child process. */
const BATCH = 50_000;
/** How a child says that a case failed, and did not crash. */
const FAILED = 2;

if (import.meta.main) {
  const flag = (name: string): string | undefined => {
    const at = Deno.args.indexOf(`--${name}`);
    return at === -1 ? undefined : Deno.args[at + 1];
  };
  const options: FuzzOptions = {
    runs: Number(flag("runs") ?? 1_000_000),
    seed: Number(flag("seed") ?? Math.floor(Math.random() * 2 ** 31)),
    guarded: Number(flag("guarded") ?? 20),
  };
  if (Deno.args.includes("--child")) await runChild(options, flag("trace"));
  else await runAll(options);
}

/** Tries everything, one batch after the other, each in its own process. */
async function runAll(options: FuzzOptions): Promise<void> {
  const { runs, seed } = options;
  const started = performance.now();
  const sum: Distribution = {};
  console.log(`Seed ${seed}, ${runs} structs`);
  for (let done = 0; done < runs; done += BATCH) {
    const batch = {
      ...options,
      runs: Math.min(BATCH, runs - done),
      seed: seed + done,
    };
    const { code, seen } = await startChild(batch);
    if (code !== 0) {
      if (code !== FAILED) await reproduceCrash(batch);
      Deno.exit(1);
    }
    for (const [outcome, count] of Object.entries(seen)) {
      sum[outcome] = (sum[outcome] ?? 0) + count;
    }
    const seconds = Math.round((performance.now() - started) / 1000);
    console.log(`${done + batch.runs} done in ${seconds} s`);
  }
  printDistribution(sum);
}

/** Prints how often each outcome was seen, the most frequent first. */
export function printDistribution(seen: Distribution): void {
  const total = Object.values(seen).reduce((a, b) => a + b, 0);
  for (
    const [outcome, count] of Object.entries(seen).sort(([, a], [, b]) => b - a)
  ) {
    const percent = (100 * count / total).toFixed(1).padStart(5);
    console.log(`${String(count).padStart(8)} ${percent}%  ${outcome}`);
  }
  console.log(`${String(total).padStart(8)}         in all`);
}

async function startChild(
  { runs, seed, guarded }: FuzzOptions,
  trace?: string,
): Promise<{ code: number; seen: Distribution }> {
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-check", "--v8-flags=--expose-gc"],
      ...[import.meta.filename!, "--child", "--runs", `${runs}`],
      ...["--seed", `${seed}`, "--guarded", `${guarded}`],
      ...trace === undefined ? [] : ["--trace", trace],
    ],
    stdout: "piped",
    stderr: "inherit",
  }).output();
  const seen = code === 0 ? JSON.parse(new TextDecoder().decode(stdout)) : {};
  return { code, seen };
}

async function runChild(options: FuzzOptions, trace?: string): Promise<void> {
  const onCase = trace === undefined
    ? {}
    : { onCase: (text: string) => Deno.writeTextFileSync(trace, text) };
  try {
    console.log(JSON.stringify(await fuzz({ ...options, ...onCase })));
  } catch (error) {
    console.error(error);
    Deno.exit(FAILED);
  }
}

/** Runs a batch again, writing down each case, to show the one that crashes. */
async function reproduceCrash(batch: FuzzOptions): Promise<void> {
  const { seed, runs, guarded } = batch;
  console.error(
    `The process crashed with --seed ${seed} --runs ${runs} ` +
      `--guarded ${guarded}; once more, to see in which case:`,
  );
  const trace = await Deno.makeTempFile({ prefix: "fuzz-", suffix: ".txt" });
  const { code } = await startChild(batch, trace);
  const last = await Deno.readTextFile(trace);
  console.error(
    code === 0 || code === FAILED
      ? "This time it did not"
      : `In this one, which ${trace} keeps:\n${last}`,
  );
}
