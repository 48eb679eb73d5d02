/**
 * NumPy as oracle: the hand-made structs of parity/cases.ts go to
 * numpy.from_dlpack and to fromDlpack, and what comes out is compared.
 */

import {
  BufferError,
  type BufferErrorCode,
  DlpackCapsule,
  fromDlpack,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { bytesOf } from "./helpers.ts";
import { counts, fixture, make } from "./native/fixture.ts";
import { cases, fixtureSpec, type ParityCase } from "./parity/cases.ts";
import {
  numpyOracle,
  type OracleArray,
  type OracleResult,
  type OracleValue,
} from "./parity/oracle.ts";
import { skipped } from "./skipped.ts";

/** Where we differ from NumPy on purpose: what comes out here, and why. */
interface Difference {
  readonly why: string;
  readonly result: BufferErrorCode | {
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly values: unknown;
  };
}

const small = "NumPy has no such dtype";

const differences: Record<string, Difference> = {
  major0: {
    why: "The versioned struct came with DLPack 1.0, so this is another struct",
    result: "version",
  },
  nullfull: {
    why: "NumPy makes up memory for a NULL pointer",
    result: "data",
  },
  shapenull: { why: "NumPy crashes", result: "shape" },
  lanes2: {
    why: "NumPy refuses lanes: they are a last axis",
    result: {
      dtype: "float32",
      shape: [2, 3, 2],
      values: [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]],
    },
  },
  int4: {
    why: small,
    result: { dtype: "int4", shape: [2, 3], values: [[0, 1, 2], [3, -8, -1]] },
  },
  uint1: {
    why: small,
    result: { dtype: "uint1", shape: [2, 3], values: [[0, 0, 1], [1, 0, 1]] },
  },
  oldbool: {
    why: "NumPy refuses uint1, as which MXNet and decord write a bool",
    result: {
      dtype: "bool",
      shape: [2, 3],
      values: [[false, true, false], [true, true, false]],
    },
  },
  bf16: {
    why: small,
    result: {
      dtype: "bfloat16",
      shape: [2, 3],
      values: [[0, 1, 2], [3, 4, 5]],
    },
  },
  opaque64: {
    why: small,
    result: {
      dtype: "handle",
      shape: [2, 3],
      values: [
        [0x0706050403020100n, 0x0f0e0d0c0b0a0908n, 0x1716151413121110n],
        [0x1f1e1d1c1b1a1918n, 0x2726252423222120n, 0x2f2e2d2c2b2a2928n],
      ],
    },
  },
  c32: {
    why: small,
    result: {
      dtype: "complex32",
      shape: [2, 3],
      values: [
        [{ re: 0, im: 1 }, { re: 2, im: 3 }, { re: 4, im: 5 }],
        [{ re: 6, im: 7 }, { re: 8, im: 9 }, { re: 10, im: 11 }],
      ],
    },
  },
  e4m3: {
    why: small,
    result: {
      dtype: "float8_e4m3",
      shape: [2, 3],
      values: [[0, 2 ** -9, 2 ** -8], [3 * 2 ** -9, 2 ** -7, 5 * 2 ** -9]],
    },
  },
  e4m3fn: {
    why: small,
    result: {
      dtype: "float8_e4m3fn",
      shape: [2, 3],
      values: [[0, 2 ** -9, 2 ** -8], [3 * 2 ** -9, 2 ** -7, 5 * 2 ** -9]],
    },
  },
  e5m2: {
    why: small,
    result: {
      dtype: "float8_e5m2",
      shape: [2, 3],
      values: [[0, 2 ** -16, 2 ** -15], [3 * 2 ** -16, 2 ** -14, 5 * 2 ** -16]],
    },
  },
  e8m0: {
    why: small,
    result: {
      dtype: "float8_e8m0fnu",
      shape: [2, 3],
      values: [
        [2 ** -127, 2 ** -126, 2 ** -125],
        [2 ** -124, 2 ** -123, 2 ** -122],
      ],
    },
  },
  fp6: {
    why: small,
    result: {
      dtype: "float6_e2m3fn",
      shape: [2, 3],
      // The bytes 0, 1, 2, 3, 4 in groups of 6 bits: 0, 4, 32, 0, 3, 16.
      values: [[0, 0.5, -0], [0, 0.375, 2]],
    },
  },
  fp4: {
    why: small,
    result: {
      dtype: "float4_e2m1fn",
      shape: [2, 3],
      values: [[0, 0.5, 1], [1.5, 2, 3]],
    },
  },
  fp4x2: {
    why: "NumPy refuses lanes: they are a last axis",
    result: {
      dtype: "float4_e2m1fn",
      shape: [2, 3, 2],
      values: [
        [[0, 0.5], [1, 1.5], [2, 3]],
        [[4, 6], [-0, -0.5], [-1, -1.5]],
      ],
    },
  },
};

const results = await numpyOracle(cases);
if (results === null) {
  skipped("fromDlpack() beside NumPy's", "pip install 'numpy>=2.1'");
}

for (const parityCase of cases) {
  Deno.test({
    name: `fromDlpack() does what NumPy does with "${parityCase.name}"`,
    ignore: results === null,
    async fn(t) {
      const own = results!.filter(({ name }) => name === parityCase.name);
      assert(own.length > 0);
      for (const result of own) {
        await t.step(
          `${result.kind} ${JSON.stringify(result.options)}`,
          () => compare(parityCase, result),
        );
      }
    },
  });
}

function compare(parityCase: ParityCase, numpy: OracleResult): void {
  const spec = fixtureSpec(parityCase, numpy.kind);
  const managed = make(spec);
  const start = fixture.fx_data_address(managed);
  const before = counts();
  const capsule = new DlpackCapsule(
    managed,
    numpy.kind === "legacy" ? "dltensor" : "dltensor_versioned",
  );
  // Nothing is called in a struct that cannot be what it was said to be.
  const isImpossible = parityCase.name === "major0";
  const deleter = parityCase.deleter === "null" || isImpossible ? 0 : 1;
  const deleted = (): number => counts().deleted - before.deleted;

  let tensor: Tensor;
  try {
    // Not the capsule itself, which would stay as it was if only the options
    // were against it: NumPy asks an object for one, too.
    const exporter = {
      __dlpack__: () => capsule,
      __dlpack_device__: () => capsule.__dlpack_device__(),
    };
    tensor = fromDlpack(exporter, numpy.options);
  } catch (error) {
    assert(error instanceof BufferError, String(error));
    assertEquals(deleted(), deleter, "deleter calls after the error");
    assertEquals(capsule.name.slice(0, 5), "used_");
    compareError(parityCase, numpy, error);
    if (isImpossible) fixture.fx_call_deleter_from_thread(managed);
    return;
  }

  // NumPy trusts the exporter to copy when it is asked to; a bare struct has
  // no exporter that could, so fromDlpack() copies, unless it is a copy.
  const isCopied = numpy.kind === "versioned" && Number(parityCase.flags) === 2;
  const copies = numpy.options.copy === true && !isCopied;
  assertEquals(deleted(), copies ? deleter : 0, "deleter calls after import");
  compareTensor(parityCase, numpy, tensor, copies ? null : start);
  tensor[Symbol.dispose]();
  assertEquals(deleted(), deleter, "deleter calls after dispose");
  assertEquals(counts().double, before.double);
  if (deleter === 0) fixture.fx_free(managed);
}

function compareError(
  { name, flags }: ParityCase,
  numpy: OracleResult,
  error: BufferError,
): void {
  if (error.code === "copy") {
    // NumPy does not look at IS_COPIED.
    assertEquals([numpy.options.copy, Number(flags) & 2], [false, 2]);
    return;
  }
  const difference = differences[name];
  if (difference !== undefined) {
    assertEquals(error.code, difference.result);
    assert(numpy.outcome !== "error", `NumPy refuses it too: ${name}`);
    return;
  }
  assertEquals(numpy.outcome, "error", `we refuse: ${error.message}`);
  if (numpy.outcome === "error") assertEquals(numpy.deletedAtEnd, 1);
}

function compareTensor(
  { name, dtype }: ParityCase,
  numpy: OracleResult,
  tensor: Tensor,
  start: bigint | null,
): void {
  const difference = differences[name];
  if (difference !== undefined) {
    assert(typeof difference.result === "object", difference.why);
    const { dtype, shape, values } = difference.result;
    assert(numpy.outcome !== "ok", `NumPy takes it too: ${name}`);
    assertEquals(tensor.dtype, dtype);
    assertEquals(tensor.shape, shape);
    assertEquals(tensor.toArray(), values);
    return;
  }
  assert(numpy.outcome === "ok", `NumPy refuses: ${JSON.stringify(numpy)}`);
  const array: OracleArray = numpy.array;
  assertEquals(tensor.dtype, array.dtype);
  assertEquals(tensor.shape, array.shape);
  assertEquals(tensor.toArray(), decode(array.values, dtype[0], dtype[1]));
  assertEquals(hex(bytesOf(tensor.copy().data)), array.bytes);
  if (start === null || tensor.size === 0) return;
  assertEquals(tensor.readOnly, !array.writeable);
  tensor.shape.forEach((length, axis) => {
    if (length > 1) assertEquals(tensor.strides[axis], array.strides[axis]);
  });
  const first = Deno.UnsafePointer.value(Deno.UnsafePointer.of(tensor.data)) +
    BigInt(tensor.offset * tensor.itemsize);
  assertEquals(Number(first - start), array.distance);
}

/** The oracle's JSON as elements. */
function decode(value: OracleValue, code: number, bits: number): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => decode(item, code, bits));
  }
  if (code <= 1 && bits === 64) return BigInt(value as number | string);
  if (value === "nan" || value === "inf" || value === "-inf") {
    return Number(value.replace("inf", "Infinity"));
  }
  return value;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
