/**
 * Round trips through TensorFlow, which takes and gives legacy structs only,
 * in C order only.
 */

import {
  DlpackCapsule,
  type DType,
  fromDlpack,
  liveTensors,
  Tensor,
} from "@dlpack/deno";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  bytesOf,
  collectGarbage,
  deletions,
  deletionsInOrder,
  floats,
  importFixture,
  ordersOf,
} from "./helpers.ts";
import { counts } from "./native/fixture.ts";
import { tensorflow } from "./peers_tensorflow.ts";

const context = tensorflow === null ? null : newContext();

function newContext(): Deno.PointerValue {
  const options = tensorflow!.TFE_NewContextOptions();
  const context = checked((status) =>
    tensorflow!.TFE_NewContext(options, status)
  );
  tensorflow!.TFE_DeleteContextOptions(options);
  return context;
}

/** What a function of TensorFlow gives; throws what it says in the status. */
function checked<T>(call: (status: Deno.PointerValue) => T): T {
  const status = tensorflow!.TF_NewStatus();
  try {
    const result = call(status);
    if (tensorflow!.TF_GetCode(status) === 0) return result;
    const message = tensorflow!.TF_Message(status)!;
    throw new Error(new Deno.UnsafePointerView(message).getCString());
  } finally {
    tensorflow!.TF_DeleteStatus(status);
  }
}

/** A tensor in the hands of TensorFlow. */
class Handle {
  readonly #handle: Deno.PointerValue;

  constructor(handle: Deno.PointerValue) {
    this.#handle = handle;
  }

  /** TensorFlow takes a tensor. */
  static from(t: Tensor, copy = false): Handle {
    const struct = t.__dlpack__({ copy }).take();
    try {
      return new Handle(
        checked((status) =>
          tensorflow!.TFE_HandleFromDLPack(struct, status, context)
        ),
      );
    } catch (error) {
      // A call that fails leaves the struct with its caller.
      new DlpackCapsule(struct, "dltensor")[Symbol.dispose]();
      throw error;
    }
  }

  /** TensorFlow exports it. */
  give(): DlpackCapsule {
    const struct = checked((status) =>
      tensorflow!.TFE_HandleToDLPack(this.#handle, status)
    );
    return new DlpackCapsule(struct!, "dltensor");
  }

  /** TensorFlow computes a tensor from it. */
  apply(operation: string): Handle {
    const name = new TextEncoder().encode(operation + "\0");
    const op = checked((status) =>
      tensorflow!.TFE_NewOp(context, name, status)
    );
    const results = new BigUint64Array(1);
    checked((status) => tensorflow!.TFE_OpAddInput(op, this.#handle, status));
    checked((status) =>
      tensorflow!.TFE_Execute(op, results, Int32Array.of(1), status)
    );
    tensorflow!.TFE_DeleteOp(op);
    return new Handle(Deno.UnsafePointer.create(results[0]!));
  }

  /** TensorFlow lets go of it. */
  release(): void {
    tensorflow!.TFE_DeleteTensorHandle(this.#handle);
  }
}

function tensorflowTest(
  name: string,
  fn: (t: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({ name: `TensorFlow: ${name}`, ignore: tensorflow === null, fn });
}

const views: Record<string, (t: Tensor) => Tensor> = {
  "a matrix": (t) => t,
  "a row": (t) => t.slice(1),
  "rows from the middle": (t) => t.slice([1, 3]),
  "three axes": (t) => t.reshape([2, 2, 6]),
  "a scalar": (t) => t.slice(3, 5),
  "nothing": (t) => t.slice([2, 2]),
};

tensorflowTest("a view goes there and back as the same memory", async (t) => {
  for (const [view, cut] of Object.entries(views)) {
    await t.step(view, () => {
      const live = liveTensors();
      const memory = Float32Array.from({ length: 24 }, (_, i) => i);
      const source = cut(Tensor.from(memory, [4, 6]));
      const handle = Handle.from(source);
      const tensor = fromDlpack(handle.give());

      assertEquals(tensor.dtype, "float32");
      assertEquals(tensor.shape, source.shape);
      if (source.size > 0) assertEquals(tensor.strides, source.strides);
      assertEquals(tensor.device, { type: "cpu", id: 0 });
      assert(tensor.readOnly, "a legacy struct is read-only");
      assertEquals(tensor.toArray(), source.toArray());

      memory.fill(-7);
      assertEquals([...tensor.data], Array(source.size).fill(-7));
      assert(tensor.is("float32"));
      tensor.data.fill(8);
      const eights = memory.filter((element) => element === 8);
      assertEquals(eights.length, source.size);

      tensor[Symbol.dispose]();
      handle.release();
      assertEquals(liveTensors(), live);
    });
  }
});

// deno-fmt-ignore
const dtypes: DType[] = [
  "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
  "uint64", "bfloat16", "float16", "float32", "float64", "complex64", "complex128",
];

tensorflowTest("every dtype goes there and back", async (t) => {
  for (const dtype of dtypes) {
    await t.step(dtype, () => {
      const numbers = Float64Array.of(0, 1, 2, 3, 1, 0, 6, 7);
      const source = Tensor.from(numbers, [2, 4]).astype(dtype);
      const handle = Handle.from(source);
      using tensor = fromDlpack(handle.give());
      assertEquals(tensor.dtype, dtype);
      assertEquals(bytesOf(tensor.data), bytesOf(source.data));
      handle.release();
    });
  }
});

const orders = ordersOf(["source", "handle", "result"]);

tensorflowTest("the deleter runs once, with the last of all", async (t) => {
  for (const order of orders) {
    await t.step(`released in the order ${order.join(", ")}`, () => {
      const live = liveTensors();
      const source = importFixture(floats([2, 3]));
      const handle = Handle.from(source);
      const result = fromDlpack(handle.give());
      assertEquals(result.toArray(), [[0, 1, 2], [3, 4, 5]]);
      const release: Record<string, () => void> = {
        source: () => source[Symbol.dispose](),
        handle: () => handle.release(),
        result() {
          assertEquals(result.get(1, 2), 5);
          result[Symbol.dispose]();
        },
      };
      assertEquals(deletionsInOrder(order, release), [0, 0, 1]);
      assertEquals(liveTensors(), live);
    });
  }
});

tensorflowTest("what is forgotten is collected", async () => {
  const live = liveTensors();
  const { deleted } = counts();
  let collected = 0;
  const registry = new FinalizationRegistry(() => collected++);
  (() => {
    const memory = Float32Array.of(1, 2);
    registry.register(memory.buffer, null);
    for (const t of [Tensor.from(memory), importFixture(floats([2]))]) {
      const handle = Handle.from(t);
      fromDlpack(handle.give());
      handle.release();
    }
  })();
  // First what came back, then what it held.
  await collectGarbage();
  await collectGarbage();
  assertEquals([collected, counts().deleted], [1, deleted + 1]);
  assertEquals(liveTensors(), live);
});

const refusals: Record<string, [view: (t: Tensor) => Tensor, message: string]> =
  {
    "a transpose": [(t) => t.transpose(), "Invalid strides"],
    "a part of every row": [(t) => t.slice(null, [1, 3]), "Invalid strides"],
    "rows backwards": [(t) => t.slice([null, null, -1]), "Invalid strides"],
    "float8": [(t) => t, "Unsupported Type Codes: 10"],
  };

tensorflowTest("what it refuses is the caller's, released once", async (t) => {
  for (const [name, [cut, message]] of Object.entries(refusals)) {
    await t.step(name, () => {
      const source = importFixture(
        name === "float8"
          ? { dtype: [10, 8, 1], shape: [2], nbytes: 2 }
          : floats([2, 3]),
      );
      const refused = deletions(() => {
        const error = assertThrows(() => Handle.from(cut(source)), Error);
        assertStringIncludes(error.message, message);
        assertEquals(source.shape[0], 2);
      });
      assertEquals(refused, 0);
      assertEquals(deletions(() => source[Symbol.dispose]()), 1);
    });
  }
});

tensorflowTest("it owns a copy, in C order, that it is given", () => {
  const memory = Float32Array.of(1, 2, 3, 4);
  const handle = Handle.from(Tensor.from(memory, [2, 2]).transpose(), true);
  memory.fill(0);
  using tensor = fromDlpack(handle.give());
  handle.release();
  assertEquals(tensor.toArray(), [[1, 3], [2, 4]]);
});

tensorflowTest("what it computes is a view that outlives its handles", () => {
  // Its kernels require the alignment that a copy has.
  const source = Tensor.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
  const handle = Handle.from(source, true);
  const squared = handle.apply("Square");
  using tensor = fromDlpack(squared.give());
  handle.release();
  squared.release();
  assertEquals(tensor.toArray(), [[1, 4], [9, 16]]);
});
