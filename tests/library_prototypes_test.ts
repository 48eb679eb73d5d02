/**
 * Every row of the table "C prototype, symbol table": what C sees, what comes
 * back, what is refused, and that nothing is left.
 */

import {
  addressOf,
  BufferError,
  dlopen,
  DlpackCapsule,
  fromDlpack,
  liveTensors,
  OutCapsule,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { addressOfArray } from "../ffi/memory.ts";
import {
  assertBufferError,
  capsule,
  collectGarbage,
  deletions,
  floats,
  importFixture,
  testBothPaths,
} from "./helpers.ts";
import { callsPath, openCalls } from "./native/calls.ts";
import { make } from "./native/fixture.ts";

// One library for all tests that do not close it.
const { lib, counts } = openCalls();
const c = lib.symbols;

/** What C sees of a managed struct that it borrows. */
function look(
  x: Tensor | DlpackCapsule,
  as: "legacy" | "versioned" = "legacy",
  ndim = x.shape.length,
) {
  const into = new BigInt64Array(13 + 2 * ndim);
  if (as === "legacy") c.calls_look(x, into);
  else c.calls_look_versioned(x, into);
  const [context, deleter, flags, data, type, id, seen, code, bits, lanes] =
    into;
  const [byteOffset, hasShape, hasStrides] = into.subarray(10);
  assertEquals([context, deleter], [0n, 0n], "nobody is to be called");
  return {
    flags: Number(flags!),
    data: data!,
    device: [Number(type), Number(id)],
    ndim: Number(seen),
    dtype: [code, bits, lanes].map(Number),
    byteOffset: Number(byteOffset),
    hasAxes: [hasShape === 1n, hasStrides === 1n],
    shape: [...into.subarray(13, 13 + ndim)].map(Number),
    strides: [...into.subarray(13 + ndim)].map(Number),
  };
}

/** Checks that nothing is held after a test. */
function test(name: string, run: () => void | Promise<void>): void {
  testBothPaths(name, async () => {
    const before = liveTensors();
    const { made, deleted } = counts();
    await run();
    assertEquals(liveTensors(), before);
    const after = counts();
    assertEquals(after.made - made, after.deleted - deleted, "C's own tensors");
  });
}

const isOpen = Int32Array.of(1);

// --- borrowed -----------------------------------------------------------------

test("A borrowed legacy struct has NULL strides in C order, else strides", () => {
  const data = new Float32Array([1, 2, 3, 4, 5, 6]);
  const t = Tensor.from(data, [2, 3]);
  assertEquals(look(t), {
    flags: 0,
    data: addressOfArray(data),
    device: [1, 0],
    ndim: 2,
    dtype: [2, 32, 1],
    byteOffset: 0,
    hasAxes: [true, false],
    shape: [2, 3],
    strides: [0, 0],
  });
  const turned = look(t.transpose());
  assertEquals([turned.hasAxes, turned.strides], [[true, true], [1, 3]]);
  assertEquals(c.calls_sum_borrowed(t.transpose()), 21);
});

test("A borrowed versioned struct says the version and the flags", () => {
  const data = new Float32Array([1, 2, 3, 4]);
  const t = Tensor.from(data, [2, 2]);
  const seen = look(t, "versioned");
  assertEquals([seen.flags, seen.hasAxes], [1000, [true, true]]);
  assertEquals(seen.strides, [2, 1]);
  const readOnly = Tensor.from(data, [4], { readOnly: true });
  assertEquals(look(readOnly, "versioned").flags, 1001);
  const padded = Tensor.from(new Uint8Array(2), [2], {
    dtype: "int4",
    padded: true,
  });
  assertEquals(look(padded, "versioned").flags, 1004);
});

test("Axes of length 1 are lent with the strides of C order", () => {
  const t = Tensor.from(new Float32Array(6), [2, 1, 3], {
    strides: [3, 77, 1],
  });
  assertEquals(look(t, "versioned").strides, [3, 3, 1]);
  assertEquals(look(t).hasAxes, [true, false], "so it is in C order");
});

test("A tensor without axes has shape and strides for who looks", () => {
  const t = Tensor.from(new Float32Array([7]), []);
  assertEquals(look(t, "versioned").hasAxes, [true, true]);
  assertEquals(look(t).hasAxes, [true, false]);
  assertEquals(c.calls_sum_borrowed(t), 7);
});

test("A tensor of a legacy struct goes on to whoever only borrows", () => {
  using t = fromDlpack(c.calls_make_legacy(4)!);
  assert(t.readOnly);
  assertEquals(c.calls_sum(t), 6);
  assertEquals(c.calls_sum_const(t), 6);
  assertEquals(c.calls_sum_borrowed(t), 6);
  assertEquals(c.calls_sum_all([t, t], 2), 12);
  assertEquals(c.calls_sum_memory(t, 4, 1), 6);
});

test("A capsule is lent as it is, and stays unconsumed", async () => {
  using legacy = c.calls_make_legacy(4)!;
  using versioned = c.calls_make(4)!;
  for (const x of [legacy, versioned]) {
    for (let i = 0; i < 3; i++) {
      assertEquals(c.calls_sum(x), 6);
      assertEquals(c.calls_sum_borrowed(x), 6);
      assertEquals(await c.calls_sum_borrowed_when(x, isOpen), 6);
      assertEquals(c.calls_sum_all([x], 1), 6);
      assertEquals(c.calls_sum_memory(x, 2, 2), 2);
    }
    assertEquals(look(x, "legacy", 1).shape, [4]);
    assertEquals(look(x, "versioned", 1).flags, x === legacy ? 1001 : 1000);
  }
  assertEquals([legacy.name, versioned.name], [
    "dltensor",
    "dltensor_versioned",
  ]);
  assertEquals(
    look(legacy.with({ writable: true }), "versioned", 1).flags,
    1000,
    "what is lent from then on says so",
  );
});

test("byte_offset becomes a part of data where that is an address", () => {
  const dtype = [2, 32, 1] as const;
  const spec = { dtype, shape: [2], byteOffset: 4, nbytes: 12 };
  for (const device of [[1, 0], [2, 1], [3, 0], [10, 0], [14, 0]] as const) {
    using x = capsule({ ...spec, device, handle: 0x7000_0000n });
    const seen = look(x);
    assertEquals([seen.data, seen.byteOffset], [0x7000_0004n, 0]);
    assertEquals(addressOf(x), 0x7000_0004n);
    assertEquals(c.calls_address(x), 0x7000_0004n);
  }
  // A handle has no bytes that could be counted.
  for (const device of [[4, 0], [8, 0], [7, 0]] as const) {
    using x = capsule({ ...spec, device, handle: 0x7000_0000n });
    const seen = look(x);
    assertEquals([seen.data, seen.byteOffset], [0x7000_0000n, 4]);
    assertBufferError(() => addressOf(x), "layout", "handle");
    assertBufferError(() => c.calls_address(x), "layout", "and no address");
    using whole = capsule({ ...spec, byteOffset: 0, device, handle: 64n });
    assertEquals(addressOf(whole), 64n);
  }
});

test("A capsule of what has no dtype here is lent and handed on", () => {
  const spec = { dtype: [2, 80, 3], shape: [2], nbytes: 60 } as const;
  const x = capsule({ ...spec, device: [2, 0], handle: 0x1000n });
  assertEquals(look(x, "versioned", 1).dtype, [2, 80, 3]);
  assertEquals(look(x, "legacy", 1).shape, [2]);
  assertBufferError(() => x.dtype, "dtype", "float (code 2), 80 bits, 3 lanes");
  assertStringIncludes(Deno.inspect(x), "float (code 2), 80 bits, 3 lanes");
  assertEquals(x.name, "dltensor_versioned");
  assertEquals(deletions(() => x[Symbol.dispose]()), 1);
});

// --- NULL -----------------------------------------------------------------------

test("null is NULL where the type says so, and nowhere else", () => {
  const t = Tensor.from(new Float32Array([1, 2]));
  assertEquals(c.calls_sum_maybe(null), -1);
  assertEquals(c.calls_sum_maybe(t), 3);
  const into = new BigInt64Array(20);
  c.calls_look(null, into);
  assertEquals(into[0], -1n);
  assertEquals(c.calls_sum_all_maybe(null, 0), -1);
  assertEquals(c.calls_sum_memory_maybe(null, 0, 1), -1);
  c.calls_make_many(null, 3);
  assertEquals(c.calls_consume_maybe(null), -1);
  assertEquals(c.calls_consume_maybe(t), 3);
  const refused: [() => unknown, string][] = [
    [() => c.calls_sum(null as never), '"DLTensor*?"'],
    [() => c.calls_sum_all(null as never, 0), '"DLTensor**?"'],
    [() => c.calls_sum_memory(null as never, 0, 0), '"data*?"'],
    [
      () => c.calls_sum_borrowed(null as never),
      '"borrowed DLManagedTensor*?"',
    ],
    [() => c.calls_consume_legacy(null as never), '"taken DLManagedTensor*?"'],
    [() => c.calls_fill(1, null as never), '"out DLManagedTensor*?"'],
    [() => c.calls_make_out_legacy(1, null as never), '"DLManagedTensor**?"'],
  ];
  for (const [call, form] of refused) {
    const error = assertThrows(call, TypeError);
    assertStringIncludes(error.message, `for NULL, write ${form}`);
  }
  // What a function returned for no tensor, or forgot to.
  assertThrows(
    () => c.calls_sum_maybe(undefined as never),
    TypeError,
    "Cannot pass undefined to parameter 1",
  );
});

// --- arrays ------------------------------------------------------------------------

test("An array of tensors and capsules is an array of DLTensor*", async () => {
  const t = Tensor.from(new Float32Array([1, 2]));
  using x = c.calls_make(3)!;
  assertEquals(c.calls_sum_all([t, x, t], 3), 9);
  assertEquals(await c.calls_sum_all_when([t, x], 2, isOpen), 6);
  assertEquals(c.calls_sum_all([], 0), -1, "an empty one is NULL");
  const wrong: [unknown, string][] = [
    [t, "a Tensor to parameter 1"],
    ["t", '"t" to parameter 1'],
    [[t, 5], "5 to element 1 of parameter 1"],
    [[null], "null to element 0 of parameter 1"],
    [[t, new Float32Array(1)], "a Float32Array to element 1"],
  ];
  for (const [value, message] of wrong) {
    assertThrows(
      () => c.calls_sum_all(value as Tensor[], 1),
      TypeError,
      message,
    );
  }
});

// --- bare memory ----------------------------------------------------------------------

test('"data*" is the address of the first element, whatever the strides', async () => {
  const data = Float32Array.from({ length: 12 }, (_, i) => i);
  const t = Tensor.from(data, [3, 4]);
  assertEquals(c.calls_address(t), addressOfArray(data));
  const column = t.slice(null, 1);
  assertEquals(c.calls_sum_memory(column, 3, 4), 1 + 5 + 9);
  const backwards = t.slice(2, [null, null, -1]);
  assertEquals(c.calls_address(backwards), addressOfArray(data) + 44n);
  assertEquals(c.calls_sum_memory(backwards, 4, -1), 8 + 9 + 10 + 11);
  assertEquals(await c.calls_sum_memory_when(t, 4, isOpen), 6);
  assertEquals(c.calls_address(Tensor.zeros([0], "int8")), 0n);
  assertEquals(addressOf(backwards), addressOfArray(data) + 44n);
});

test('"contiguous data*" refuses what is not in C order', () => {
  const t = Tensor.from(new Float32Array([1, 2, 3, 4]), [2, 2]);
  assertEquals(c.calls_sum_in_order(t, 4, 1), 10);
  assertThrows(
    () => c.calls_sum_in_order(t.transpose(), 4, 1),
    TypeError,
    'not in C order to parameter 1 of "calls_sum_in_order", a contiguous ' +
      "data*: pass copy()",
  );
  assertEquals(c.calls_sum_in_order(t.transpose().copy(), 4, 1), 10);
});

test("Memory that is lent stays, if it is disposed while the call goes on", async () => {
  const gate = Int32Array.of(0);
  const deleted = counts().deleted;
  const t = fromDlpack(c.calls_make(1000)!);
  const x = c.calls_make(1000)!;
  const sums = [
    c.calls_sum_memory_when(t, 1000, gate),
    c.calls_sum_all_when([t, x], 2, gate),
    c.calls_sum_borrowed_when(x, gate),
  ];
  t[Symbol.dispose]();
  x[Symbol.dispose]();
  assertEquals(counts().deleted, deleted);
  assertBufferError(() => c.calls_sum(t), "released");
  assertBufferError(() => c.calls_sum(x), "consumed");
  gate[0] = 1;
  assertEquals(await Promise.all(sums), [499500, 999000, 499500]);
  assertEquals(counts().deleted, deleted + 2);
});

test("addressOf() refuses what is neither tensor nor capsule", () => {
  for (const wrong of [null, undefined, 5, "x", {}, new Float32Array(1)]) {
    assertThrows(() => addressOf(wrong as never), TypeError, "pass a Tensor");
  }
});

// --- the library's own ---------------------------------------------------------------

test("A DLTensor* result is the library's own, read-only, and keeps it open", async () => {
  using x = c.calls_own(1)!;
  assertEquals([x.name, x.readOnly, x.dtype], [
    "dltensor_versioned",
    true,
    "float32",
  ]);
  c.calls_own_set(1, 20);
  using t = fromDlpack(x);
  assertEquals(t.toArray(), [1, 20, 3]);
  assertBufferError(() => t.set(0, 5 as never), "readonly");
  c.calls_own_set(1, 2);
  assertEquals(t.get(1), 2);
  assertEquals(c.calls_own(0), null);
  using late = fromDlpack((await c.calls_own_when(isOpen))!);
  assertEquals(late.toArray(), [1, 2, 3]);
});

test("With writable, what cannot say so may be written to", () => {
  using own = fromDlpack(c.calls_own_writable(1)!, { dtype: "float32" });
  own.set(2, 30);
  assertEquals(c.calls_own_get(2), 30);
  own.set(2, 3);
  using legacy = fromDlpack(c.calls_make_writable(3)!, { dtype: "float32" });
  assertEquals(legacy.readOnly, false);
  legacy.assign(5);
  assertEquals(c.calls_sum(legacy), 15);
  // And exported again as a legacy struct.
  assertEquals(c.calls_consume_legacy(legacy), 15);
  const out = new OutCapsule();
  c.calls_fill_writable(1, out);
  using filled = fromDlpack(out.take());
  assertEquals(filled.readOnly, false);
  c.calls_fill_writable(1, out);
  using refused = fromDlpack(out.take({ writable: false }));
  assertEquals(refused.readOnly, true);
});

Deno.test("A library waits for the DLTensor that it lent out", () => {
  const { lib, counts } = openCalls();
  const t = fromDlpack(lib.symbols.calls_own(1)!);
  lib.close();
  assertEquals(t.toArray(), [1, 2, 3]);
  assertEquals(counts().unloaded, false);
  t[Symbol.dispose]();
  if (Deno.build.os === "linux") assertEquals(counts().unloaded, true);
});

// --- structs that the callee fills in place ---------------------------------------------

test("A struct that is filled in place is seen without a copy, deleted once", () => {
  const out = new OutCapsule();
  assertEquals(c.calls_fill(1, out), 0);
  const { deleted } = counts();
  {
    using t = fromDlpack(out.take());
    assertEquals(t.toArray(), [1, 2, 3]);
    assert(t.readOnly);
    assertEquals(counts().deleted, deleted);
  }
  assertEquals(counts().deleted, deleted + 1);
  assertEquals(c.calls_fill_versioned(4, out), 0);
  using u = fromDlpack(out.take());
  assertEquals([u.toArray(), u.readOnly], [[0, 1, 2, 3], false]);
});

test("A struct that the callee left zeroed is no tensor", async () => {
  const out = new OutCapsule();
  assertEquals(c.calls_fill(0, out), 1);
  assertBufferError(() => out.take(), "data", "no call wrote one");
  assertEquals(c.calls_fill_versioned(-1, out), 1);
  assertBufferError(() => out.take(), "data");
  const gate = Int32Array.of(0);
  const pending = c.calls_fill_when(out, gate);
  assertBufferError(() => out.take(), "data", "await it first");
  assertBufferError(() => c.calls_fill(1, out), "consumed", "not over");
  gate[0] = 1;
  assertEquals(await pending, 0);
  using t = fromDlpack(out.take());
  assertEquals(t.size, 3);
});

test("A struct filled in place is handed on as an export that runs its deleter", () => {
  const out = new OutCapsule();
  const { deleted } = counts();
  c.calls_fill(1, out);
  assertEquals(c.calls_consume_legacy(out.take()), 6);
  assertEquals(counts().deleted, deleted + 1);
  const sum = new Float64Array(1);
  c.calls_fill_versioned(4, out);
  c.calls_consume(out.take(), sum);
  assertEquals(sum[0], 6);
  assertEquals(counts().deleted, deleted + 2);
  // Taken by hand, too.
  c.calls_fill(1, out);
  const before = liveTensors().exported;
  const pointer = out.take().take();
  assertEquals(liveTensors().exported, {
    count: before.count + 1,
    bytes: before.bytes + 12,
  });
  using again = fromDlpack(new DlpackCapsule(pointer, "dltensor"));
  assertEquals(again.toArray(), [1, 2, 3]);
});

test("What nobody takes out of an OutCapsule is released by the next call", () => {
  const out = new OutCapsule();
  const { deleted } = counts();
  c.calls_fill(1, out);
  c.calls_fill(1, out);
  assertEquals(counts().deleted, deleted + 1);
  out[Symbol.dispose]();
  assertEquals(counts().deleted, deleted + 2);
});

// --- cells -----------------------------------------------------------------------------

test("An array of OutCapsules is as many cells side by side", () => {
  const outs = Array.from({ length: 3 }, () => new OutCapsule());
  c.calls_make_many(outs, 3);
  for (const [i, out] of outs.entries()) {
    using t = fromDlpack(out.take());
    assertEquals(t.size, i + 1);
  }
  c.calls_make_many(outs, 1);
  outs[0]!.take()[Symbol.dispose]();
  assertBufferError(() => outs[1]!.take(), "data");
  assertBufferError(
    () => c.calls_make_many([outs[0]!, outs[1]!, outs[0]!], 3),
    "consumed",
    "element 2 of parameter 1",
  );
  assertThrows(
    () => c.calls_make_many([outs[0]!, {} as OutCapsule], 2),
    TypeError,
    "an object to element 1 of parameter 1",
  );
  c.calls_make_many([], 0);
});

test("keepAlive of take() holds until the tensor is released", () => {
  const kept = importFixture(floats([2]));
  const out = new OutCapsule();
  c.calls_fill(1, out);
  const t = fromDlpack(out.take({ keepAlive: kept }));
  kept[Symbol.dispose]();
  assertEquals(deletions(() => t[Symbol.dispose]()), 1);
});

test("A status that is returned comes before what was left in the cells", () => {
  const [a, b] = [new OutCapsule(), new OutCapsule()];
  assertEquals(c.calls_fail_with(3n, a, b), -1);
  for (const out of [a, b]) {
    assertThrows(() => out.take(), TypeError, "Cannot wrap 0x3");
  }
  const pointer = make(floats([2], { versioned: false }));
  const address = BigInt(Deno.UnsafePointer.value(pointer));
  const deleted = deletions(() => {
    assertEquals(c.calls_fail_with(address, a, b), -1);
    // The struct has one owner, whichever of the two it is.
    assertBufferError(() => a.take(), "consumed", "owns the struct already");
    using t = fromDlpack(b.take());
    assertEquals(t.size, 2);
  });
  assertEquals(deleted, 1);
  // The next call empties them.
  assertEquals(c.calls_fail_with(0n, a, b), -1);
  assertBufferError(() => b.take(), "data");
});

test("What take() refuses stays to be taken", () => {
  const out = new OutCapsule();
  c.calls_fill(1, out);
  const gone = importFixture(floats([2]));
  gone[Symbol.dispose]();
  assertBufferError(() => out.take({ keepAlive: gone }), "released");
  const kept = importFixture(floats([2]));
  const wrong = { keepAlive: kept, writable: 1 as never };
  assertThrows(() => out.take(wrong), TypeError, "writable");
  assertEquals(deletions(() => kept[Symbol.dispose]()), 1, "it is not held");
  using t = fromDlpack(out.take());
  assertEquals(t.size, 3);
});

// --- what changes hands ------------------------------------------------------------------

test("Where anything is refused, nothing is called, consumed or emptied", () => {
  const out = new OutCapsule();
  c.calls_fill(1, out);
  const { called } = counts();
  using given = capsule(floats([3]));
  assertThrows(() => c.calls_make_out("x" as never, out), TypeError);
  assertThrows(() => c.calls_fill(0.5, out), TypeError, "fits into i32");
  assertThrows(
    () => c.calls_consume(given, "x" as never),
    TypeError,
    'parameter 2 of "calls_consume", a buffer: it takes a typed array',
  );
  assertEquals(given.name, "dltensor_versioned");
  assertEquals(counts().called, called);
  using still = fromDlpack(out.take());
  assertEquals(still.size, 3, "it was not emptied");
});

test("A capsule that is used is not given away, nor lent and given in one call", () => {
  using x = c.calls_make(3)!;
  const held = x.hold();
  const sum = new Float64Array(1);
  assertBufferError(
    () => c.calls_consume(x, sum),
    "consumed",
    "1 export, call",
  );
  assertEquals(x.name, "dltensor_versioned", "it is as it was");
  held[Symbol.dispose]();
  c.calls_consume(x, sum);
  assertEquals([sum[0], x.name], [3, "used_dltensor_versioned"]);
  using both = dlopen(callsPath, {
    calls_same: {
      parameters: ["DLTensor*", "taken DLManagedTensorVersioned*"],
      result: "i32",
    },
  });
  using y = c.calls_make(3)!;
  assertBufferError(() => both.symbols.calls_same(y, y), "consumed", "twice");
  assertEquals(y.name, "dltensor_versioned");
});

test("Of a wrong argument the message names function and parameter", () => {
  const t = Tensor.from(new Float32Array(1));
  assertThrows(
    () => c.calls_scale(t, "2" as never),
    TypeError,
    'Cannot pass "2" to parameter 2 of "calls_scale", an f32: it takes a number',
  );
  assertThrows(
    () => c.calls_describe(t, 5 as never),
    TypeError,
    'Cannot pass 5 to parameter 2 of "calls_describe", a buffer: it takes a ' +
      "typed array, an ArrayBuffer or null",
  );
});

// --- the table of types -----------------------------------------------------------------------

Deno.test("A type that there is not is named, with all that there are", () => {
  const open = (parameter: unknown, result: unknown = "void") => () =>
    dlopen(callsPath, {
      calls_sum: { parameters: [parameter], result } as never,
    });
  for (
    const wrong of [
      "DLTensor",
      "DLTensor***",
      "i33",
      "out DLTensor*",
      "borrowed DLTensor*",
      "i32?",
      "",
      5,
      null,
      undefined,
    ]
  ) {
    const error = assertThrows(open(wrong), TypeError);
    assertStringIncludes(error.message, 'Parameter 1 of "calls_sum"');
    assertStringIncludes(error.message, "isize");
    assertStringIncludes(error.message, "out DLManagedTensorVersioned*");
  }
  for (const bare of ["DLManagedTensor*", "DLManagedTensorVersioned *?"]) {
    const error = assertThrows(open(bare), TypeError);
    const name = /^\w+/.exec(bare)![0];
    for (const whose of ["borrowed", "taken", "out"]) {
      assertStringIncludes(error.message, `"${whose} ${name}*"`);
    }
  }
  for (const wrong of ["DLTensor**", "data*", "DLTensor*?", "buf", 5, null]) {
    const error = assertThrows(open("i32", wrong), TypeError);
    assertStringIncludes(error.message, 'The result of "calls_sum"');
  }
});

Deno.test("One misspelt type is one error, and the other symbols keep their types", () => {
  /** Only has to type check. */
  const _types = () => {
    const { symbols } = dlopen("x", {
      good: { parameters: ["DLTensor*", "i32"], result: "DLTensor*" },
      // @ts-expect-error: a misspelt type
      bad: { parameters: ["DLTenser*"], result: "i32" },
      fill: { parameters: ["out DLManagedTensor *?"], result: "i32" },
      all: { parameters: ["DLTensor **"], result: "void", nonblocking: true },
    });
    const t = Tensor.zeros([1], "int8");
    const made: DlpackCapsule | null = symbols.good(t, 1);
    const status: number = symbols.fill(null);
    symbols.fill(new OutCapsule());
    const done: Promise<void> = symbols.all([t, made!]);
    // @ts-expect-error: null only where the type says so
    symbols.good(null, 1);
    // @ts-expect-error: not one by itself
    symbols.all(t);
    return [status, done];
  };
  assert(typeof _types === "function");
  assertThrows(
    () =>
      dlopen(callsPath, {
        // @ts-expect-error: it must say whose the struct is
        calls_look: { parameters: ["DLManagedTensor*"], result: "void" },
      }),
    TypeError,
    "say whose it is",
  );
});

// --- leaks -------------------------------------------------------------------------------------

Deno.test("10^5 calls of each row leave memory as it was", async () => {
  const t = Tensor.from(new Float32Array([1, 2, 3]));
  using x = c.calls_make(3)!;
  const out = new OutCapsule();
  const into = new BigInt64Array(20);
  const rows: Record<string, () => unknown> = {
    "DLTensor*": () => c.calls_sum(t),
    "DLTensor* of a capsule": () => c.calls_sum(x),
    "borrowed DLManagedTensor*": () => c.calls_look(t, into),
    "borrowed DLManagedTensorVersioned*": () => c.calls_look_versioned(x, into),
    "data*": () => c.calls_address(t),
    "DLTensor**": () => c.calls_sum_all([t, x], 2),
    "taken DLManagedTensor*": () => c.calls_consume_legacy(t),
    "DLManagedTensor**": () => {
      c.calls_make_out_legacy(3, out);
      out.take()[Symbol.dispose]();
    },
    "out DLManagedTensor*": () => {
      c.calls_fill(1, out);
      out.take()[Symbol.dispose]();
    },
    "DLManagedTensor* result": () => c.calls_make_legacy(3)![Symbol.dispose](),
    "DLTensor* result": () => c.calls_own(1)![Symbol.dispose](),
  };
  const mebibytes = (): number => Deno.memoryUsage().rss / 2 ** 20;
  const before = liveTensors();
  const many = (call: () => unknown, count: number): void => {
    for (let i = 0; i < count; i++) call();
  };
  for (const [name, call] of Object.entries(rows)) {
    many(call, 5_000);
    let growth = Infinity;
    // What leaks does so again; other tests of this process may not.
    for (let round = 0; growth >= 24 && round < 4; round++) {
      await collectGarbage();
      const start = mebibytes();
      for (let part = 0; part < 10; part++) {
        many(call, 10_000);
        await new Promise((resolve) => setTimeout(resolve));
      }
      await collectGarbage();
      assertEquals(liveTensors(), before, name);
      growth = mebibytes() - start;
    }
    assert(growth < 24, `${name}: ${growth} MiB more`);
  }
  const { made, deleted } = counts();
  assertEquals(made - deleted, 1, "only the one that is lent");
});

Deno.test("A promise of a nonblocking call rejects with what it is refused for", async () => {
  await assertRejects(
    () => c.calls_sum_borrowed_when(null as never, isOpen),
    TypeError,
    "for NULL, write",
  );
  const error = await assertRejects(() =>
    c.calls_fill_when({} as OutCapsule, isOpen)
  );
  assertInstanceOf(error, TypeError);
  assert(!(error instanceof BufferError));
});
