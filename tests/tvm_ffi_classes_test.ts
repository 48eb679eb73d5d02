/** Objects of types that a library registered. */

import { Tensor } from "@dlpack/deno";
import { TvmFfiObject } from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { testModule } from "./native/tvm_ffi.ts";
import { assertTvmError, ffi, k, tvmTest } from "./tvm_ffi.ts";

const types = testModule("tvm_types.cc");
if (types !== null) ffi!.openLibrary(types);
const Counter = types === null ? null! : ffi!.type("deno.test.Counter")!;
const Named = types === null ? null! : ffi!.type("deno.test.NamedCounter")!;
/** How many objects there are. */
const live = (): bigint => Counter.live();

tvmTest(
  "a type is constructed, its fields read and set, its methods called",
  () => {
    using counter = new Counter(5, "five of these");
    assert(counter instanceof TvmFfiObject && counter instanceof Counter);
    assertEquals([counter.value, counter.label], [5n, "five of these"]);
    assertEquals(counter.add(3n), 8n);
    counter.value = 100;
    assertEquals(counter.value, 100n);
    counter.seen = [1, "a", [null]];
    assertEquals(counter.seen, [1n, "a", [null]]);
    assertEquals(live(), 1n);
    assertThrows(() => counter.label = "read-only", TypeError);
    assertTvmError(() => counter.value = "text", "TypeError", "");
    assertThrows(
      () => counter.value = undefined,
      TypeError,
      'argument 0 of "deno.test.Counter.value"',
    );
  },
);

tvmTest("console.log shows the type's name and the fields", () => {
  const counter = new Counter(5, "x");
  assertEquals(
    Deno.inspect(counter),
    'deno.test.Counter { value: 5n, label: "x", seen: [] }',
  );
  assertEquals(
    Deno.inspect([counter], { depth: 0 }),
    "[ [deno.test.Counter] ]",
  );
  // Objects may refer to each other.
  counter.seen = [[counter]];
  assertEquals(
    Deno.inspect(counter),
    'deno.test.Counter { value: 5n, label: "x", seen: [ [ [Circular] ] ] }',
  );
  counter.seen = [];
  using named = new Named(1, "one");
  assertEquals(
    Deno.inspect(named),
    'deno.test.NamedCounter { value: 1n, label: "one", seen: [] }',
  );
  counter[Symbol.dispose]();
  assertEquals(Deno.inspect(counter), "deno.test.Counter, disposed");
  assertEquals(Counter.typeKey, "deno.test.Counter");
  assertThrows(() => structuredClone(counter), DOMException, "A TvmFfiObject");
});

tvmTest("derived types have what they inherit", () => {
  using named = new Named(1, "one");
  assert(named instanceof Counter && named instanceof Named);
  assertEquals([named.name(), named.add(1), named.value], [
    "named one",
    2n,
    2n,
  ]);
});

tvmTest("every reference is one, and the object goes with the last", () => {
  const counter = new Counter(1, "a");
  const same = counter.self();
  assert(same instanceof Counter && same !== counter);
  assertEquals(k.strong_count(counter), 2n);
  counter[Symbol.dispose]();
  counter[Symbol.dispose]();
  assertEquals([live(), same.value], [1n, 1n]);
  assertThrows(() => counter.value, TypeError, "was disposed");
  assertThrows(() => counter.add(1), TypeError, "was disposed");
  assertThrows(() => k.identity([counter]), TypeError, "a disposed object");
  same[Symbol.dispose]();
  assertEquals(live(), 0n);
});

tvmTest("objects go into functions and containers, and come out", (ffi) => {
  using total = ffi.globalFunction("deno.test.total")!;
  using a = new Counter(1, "a");
  using b = new Named(20, "b");
  assertEquals(total([a, b, a]), 22n);
  const [out] = k.identity([b]);
  assert(out instanceof Named);
  out[Symbol.dispose]();
  assertTvmError(() => total([1]), "TypeError", "");
  assertEquals([k.strong_count(a), k.strong_count(b)], [1n, 1n]);
});

tvmTest("a constructor that throws leaves nothing", () => {
  assertTvmError(
    () => new Counter(-1, "a"),
    "ValueError",
    "must not be negative",
  );
  assertTvmError(() => new Counter(), "TypeError", "");
  assertEquals(live(), 0n);
});

tvmTest("garbage is given up", async () => {
  (() => {
    for (let i = 0; i < 100; i++) new Counter(i, "garbage");
    k.identity([new Counter(1, "more"), Tensor.zeros([2], "int8")]);
  })();
  assertEquals(live() > 50n, true);
  for (let i = 0; i < 20 && live() > 0n; i++) {
    (globalThis as unknown as { gc(): void }).gc();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals(live(), 0n);
});

tvmTest("types that cannot be constructed, or are not there, say so", (ffi) => {
  assertEquals(ffi.type("no.such.Type"), null);
  const Module = ffi.type("ffi.Module")!;
  assertThrows(() => new Module(), TypeError, "no constructor");
  const getter = Object.getOwnPropertyDescriptor(Counter.prototype, "value")!
    .get!;
  assertThrows(() => getter.call({}), TypeError, "no object");
  assertThrows(() => Counter.prototype.add.call(3), TypeError, "no object");
});

tvmTest("JavaScript may keep objects that callbacks get", () => {
  const kept: TvmFfiObject[] = [];
  using counter = new Counter(7, "kept");
  k.call((c: TvmFfiObject) => void kept.push(c), counter);
  counter[Symbol.dispose]();
  assertEquals([live(), kept[0]!.value], [1n, 7n]);
  kept[0]![Symbol.dispose]();
  assertEquals(live(), 0n);
});
