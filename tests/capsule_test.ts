import { DlpackCapsule, fromDlpack, liveTensors } from "@dlpack/deno";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertBufferError, capsule, deletions, floats } from "./helpers.ts";
import { counts, fixture, make } from "./native/fixture.ts";

Deno.test("DlpackCapsule takes a pointer or its address", () => {
  assertEquals(
    deletions(() => {
      const pointer = make(floats([2]));
      const name = "dltensor_versioned";
      using a = new DlpackCapsule(pointer, name);
      assert(Deno.UnsafePointer.equals(a.pointer, pointer));
      const address = BigInt(Deno.UnsafePointer.value(make(floats([2]))));
      using b = new DlpackCapsule(address, name);
      assertEquals(BigInt(Deno.UnsafePointer.value(b.pointer)), address);
    }),
    2,
  );
});

Deno.test("DlpackCapsule refuses what is no pointer, and names the way out", () => {
  type Pointer = Deno.PointerObject;
  const wrap = (pointer: unknown, name: unknown = "dltensor") => () =>
    new DlpackCapsule(pointer as Pointer, name as "dltensor");
  const before = liveTensors();
  assertThrows(wrap(null), TypeError, "Cannot wrap NULL");
  assertThrows(wrap(0n), TypeError, "Cannot wrap NULL");
  assertThrows(wrap(undefined), TypeError, "pass the Deno.PointerObject");
  assertThrows(wrap(140737488355328), TypeError, "address as a bigint");
  assertThrows(
    wrap(new Uint8Array(80)),
    TypeError,
    "Cannot wrap a Uint8Array: pass",
  );
  const pointer = make(floats([2]));
  assertThrows(wrap(pointer, "tensor"), TypeError, '"dltensor_versioned" for');
  assertThrows(wrap(pointer, "used_dltensor"), TypeError, "used_dltensor");
  assertEquals(liveTensors(), before, "nothing was taken");
  new DlpackCapsule(pointer, "dltensor_versioned")[Symbol.dispose]();
});

Deno.test("DlpackCapsule calls the deleter when nobody consumed it", () => {
  for (const versioned of [true, false]) {
    assertEquals(
      deletions(() => {
        const c = capsule(floats([2], { versioned }));
        const name = versioned ? "dltensor_versioned" : "dltensor";
        assertEquals(c.name, name);
        c[Symbol.dispose]();
        c[Symbol.dispose]();
        assertEquals(c.name, `used_${name}`);
        assertBufferError(() => c.pointer, "consumed");
        assertBufferError(() => c.take(), "consumed");
        assertBufferError(() => fromDlpack(c), "consumed");
      }),
      1,
    );
  }
});

Deno.test("DlpackCapsule.take() leaves the deleter to the caller", () => {
  const before = liveTensors().count;
  assertEquals(
    deletions(() => {
      const c = capsule(floats([2]));
      assertEquals(liveTensors().count, before + 1);
      const pointer = c.take();
      assertEquals(liveTensors().count, before);
      assertEquals(c.name, "used_dltensor_versioned");
      assertBufferError(() => c.take(), "consumed");
      c[Symbol.dispose]();
      assertEquals(counts().live > 0, true);
      fixture.fx_call_deleter_from_thread(pointer);
    }),
    1,
  );
});

Deno.test("DlpackCapsule says where the memory is without consuming it", () => {
  using gpu = capsule(floats([2], { device: [2, 3] }));
  assertEquals(gpu.__dlpack_device__(), [2, 3]);
  using legacy = capsule(floats([2], { device: [13, 0], versioned: false }));
  assertEquals(legacy.__dlpack_device__(), [13, 0]);
  assertEquals(legacy.name, "dltensor");
  using other = capsule(floats([2], { version: [2, 0] }));
  assertBufferError(() => other.__dlpack_device__(), "version", "2.0");
  assertEquals(other.name, "dltensor_versioned");
});

Deno.test("DlpackCapsule is its own exporter, once", () => {
  const c = capsule(floats([2]));
  assertEquals(c.__dlpack__() === c, true);
  assertEquals(c.__dlpack__({ copy: true }) === c, true);
  using _t = fromDlpack(c);
  assertBufferError(() => c.__dlpack__(), "consumed");
  assertBufferError(() => c.__dlpack_device__(), "consumed");
});
