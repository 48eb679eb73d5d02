import { assertEquals } from "@std/assert";
import { MANAGED, TENSOR, VERSIONED } from "../ffi/abi.ts";
import { EXCHANGE, LOADED } from "../ffi/python/abi.ts";
import { compile } from "./native/cc.ts";
import { fixture } from "./native/fixture.ts";

Deno.test("The byte offsets are those of the C compiler", () => {
  const out = new BigUint64Array(28);
  fixture.fx_layout(out);
  const c = Array.from(out, Number) as number[] & { length: 28 };
  const at = (index: number): number => c[index]!;

  const device = at(9);
  const dtype = at(11);
  assertEquals(TENSOR, {
    data: at(8),
    deviceType: device + at(1),
    deviceId: device + at(2),
    ndim: at(10),
    code: dtype + at(4),
    bits: dtype + at(5),
    lanes: dtype + at(6),
    shape: at(12),
    strides: at(13),
    byteOffset: at(14),
    size: at(7),
  });
  assertEquals(MANAGED, {
    tensor: at(16),
    managerCtx: at(17),
    deleter: at(18),
    size: at(15),
  });
  assertEquals(VERSIONED, {
    major: at(23) + at(20),
    minor: at(23) + at(21),
    managerCtx: at(24),
    deleter: at(25),
    flags: at(26),
    stable: at(26) + 8,
    tensor: at(27),
    size: at(22),
  });
});

const python = Deno.dlopen(
  compile(new URL("./native/python_abi.c", import.meta.url), "python_abi"),
  { python_layout: { parameters: ["buffer"], result: "void" } },
).symbols;

Deno.test("The byte offsets of what Python's libraries offer are, too", () => {
  const out = new BigUint64Array(7);
  python.python_layout(out);
  const [major, previous, from, to, stream, size, name] = Array.from(
    out,
    Number,
  );
  assertEquals(EXCHANGE as unknown, {
    major,
    previous,
    fromPyObject: from,
    toPyObject: to,
    currentWorkStream: stream,
    size,
  });
  assertEquals<number | undefined>(LOADED.name, name);
});
