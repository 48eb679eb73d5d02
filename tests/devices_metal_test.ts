// Metal's buffers by a stand-in for the Objective-C runtime (native/objc.c).
// Metal itself is not tested.

import { DeviceType, type Tensor } from "@dlpack/deno";
import { assertEquals } from "@std/assert";
import {
  assertBufferError,
  bytesOf,
  deletions,
  floats,
  importFixture,
} from "./helpers.ts";
import { compile } from "./native/cc.ts";
import type { FixtureSpec } from "./native/fixture.ts";

const library = compile(new URL("./native/objc.c", import.meta.url), "objc");
const { symbols: objc } = Deno.dlopen(library, {
  sim_object: { parameters: ["u64", "u64", "u64", "buffer"], result: "u64" }, // uint64_t (uint64_t type, uint64_t mode, uint64_t length, void *contents)
  sim_retained: { parameters: ["u64"], result: "u64" }, // uint64_t (uint64_t object)
});
const path = decodeURIComponent(library.pathname)
  .slice(Deno.build.os === "windows" ? 1 : 0);

const BUFFER = 1n;
const twelve = bytesOf(Float32Array.from({ length: 12 }, (_, i) => i));

function buffer(mode = 0n, contents: BufferSource | null = twelve): bigint {
  return objc.sim_object(BUFFER, mode, 48n, contents);
}

/** Imports; the deleter must be called once, with success and without. */
function importBuffer(changes: Partial<FixtureSpec>, handle: bigint): Tensor {
  const spec: FixtureSpec = {
    ...floats([1], { device: [DeviceType.metal, 0], handle }),
    ...changes,
  };
  let t: Tensor | undefined;
  let failure: unknown;
  Deno.env.set("DLPACK_METAL_LIBRARY", path);
  const deleted = deletions(() => {
    try {
      t = importFixture(spec, { device: "cpu" });
    } catch (error) {
      failure = error;
    }
  });
  Deno.env.delete("DLPACK_METAL_LIBRARY");
  assertEquals(deleted, 1);
  if (t === undefined) throw failure;
  return t;
}

// Once, outside of the tests, to which a library that they open seems a leak.
importBuffer({}, buffer());

Deno.test("Shared memory of Metal is copied, whatever its strides", () => {
  const handle = buffer();
  const cases: [Partial<FixtureSpec>, unknown][] = [
    [{ shape: [2, 3] }, [[0, 1, 2], [3, 4, 5]]],
    [{ shape: [2], byteOffset: 40 }, [10, 11]],
    [{ shape: [3, 2], strides: [1, 3] }, [[0, 3], [1, 4], [2, 5]]],
    [{ shape: [4], strides: [-3], byteOffset: 36 }, [9, 6, 3, 0]],
  ];
  for (const [changes, expected] of cases) {
    assertEquals(importBuffer(changes, handle).toArray(), expected);
    assertEquals(objc.sim_retained(handle), 1n);
  }
});

Deno.test("What a MTLBuffer does not share is refused", () => {
  const cases: [bigint, Partial<FixtureSpec>, string][] = [
    [buffer(), { shape: [13] }, "the bytes 0 to 52 of a MTLBuffer of 48 bytes"],
    [buffer(), { byteOffset: 45 }, "the bytes 45 to 49"],
    [buffer(), { shape: [2], strides: [-1] }, "the bytes -4 to 4"],
    [buffer(1n), {}, "its storage mode is managed; have the library copy it"],
    [buffer(2n), {}, "its storage mode is private"],
    [buffer(3n), {}, "its storage mode is memoryless"],
    [buffer(9n), {}, "its storage mode is unknown"],
    [buffer(0n, null), {}, "no contents for the CPU"],
    [objc.sim_object(2n, 0n, 48n, twelve), {}, "is no MTLBuffer"],
    // Blocks of malloc's that begin with bytes of some tensor.
    [objc.sim_object(0n, 0n, 48n, twelve), {}, "is no MTLBuffer"],
    [objc.sim_object(0x3f800000n, 0n, 48n, twelve), {}, "is no MTLBuffer"],
    [0x4000n, {}, "0x4000, is no MTLBuffer; if it is the address"],
  ];
  for (const [handle, changes, message] of cases) {
    const run = (): unknown => importBuffer(changes, handle);
    assertBufferError(run, "device", message);
    if (handle !== 0x4000n) assertEquals(objc.sim_retained(handle), 1n);
  }
});

Deno.test({
  name: "Outside of macOS the error says that there is no Metal",
  ignore: Deno.build.os === "darwin",
  fn() {
    const spec = floats([1], { device: [DeviceType.metal, 0] });
    assertBufferError(
      () => importFixture(spec, { device: "cpu" }),
      "device",
      `Cannot copy a tensor on metal:0 to the host: the Objective-C runtime ` +
        `is not here (there is none for ${Deno.build.os})`,
    );
  },
});
