/** JavaScript functions that TVM-FFI calls back. */

import { BufferError, DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
import { TvmFfiError } from "@dlpack/deno/tvm_ffi";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { countsOf } from "../src/tvm_ffi/binding.ts";
import { floats, importFixture } from "./helpers.ts";
import { assertTvmError, ffi, k, tvmTest } from "./tvm_ffi.ts";

tvmTest("a function is called with values, and gives one", () => {
  const seen: unknown[] = [];
  const give = (result: unknown) => (...args: unknown[]) => {
    seen.push(args);
    return result;
  };
  assertEquals(
    k.call(give("text that is long"), [1, "a"]),
    "text that is long",
  );
  assertEquals(k.call(give(undefined), null), null);
  assertEquals(k.call(give(2), new Map([["k", 0.5]])), 2n);
  assertEquals(k.call(give([1, [2.5]]), true), [1n, [2.5]]);
  assertEquals(seen, [[[1n, "a"]], [null], [new Map([["k", 0.5]])], [true]]);
  assertEquals(countsOf(ffi!).callbacks, 0);
});

tvmTest(
  "a function gets tensors, objects and functions, and may give them back",
  () => {
    const x = Tensor.from(new Float32Array([1, 2, 3]));
    using back: Tensor = k.call((t: Tensor) => {
      t.set(0, 10);
      return t.slice([1]);
    }, x);
    assertEquals([x.get(0), back.toArray()], [10, [2, 3]]);
    using counter = k.closure(5);
    assertEquals(k.call((f: () => bigint) => f() + f(), counter), 15n);
    using same = k.call((f: unknown) => f, counter);
    assertEquals(same(), 15n);
  },
);

tvmTest("a function of JavaScript that comes back can be called", () => {
  using twice = k.identity((x: bigint) => 2n * x);
  assertEquals(countsOf(ffi!).callbacks, 1);
  assertEquals(twice(21), 42n);
  // As an argument it is the same object, not a function around it.
  using again = k.identity(twice);
  assertEquals(countsOf(ffi!).callbacks, 1);
  assertEquals(again(4), 8n);
});

tvmTest("calls nest", () => {
  const down = (n: bigint): unknown =>
    n === 0n ? "bottom of it all" : k.call(down, n - 1n);
  assertEquals(k.call(down, 20n), "bottom of it all");
  assertEquals(
    k.call(
      (x: bigint) => [k.identity("another long text"), x, k.identity(x)],
      7,
    ),
    ["another long text", 7n, 7n],
  );
});

tvmTest("a DLTensor* is valid until the function returns", () => {
  let kept: Tensor | null = null;
  const out = k.call_with_view((t: Tensor) => {
    assertEquals([t.toArray(), t.readOnly], [[[1, 2], [3, 4]], false]);
    t.set(1, 1, 40);
    kept = t;
    return t.get(1, 0);
  });
  assertEquals(out, [3n, 40]);
  assertThrows(() => kept!.get(0, 0), BufferError, "given back");
  // Nor can it be given back itself, or a part of it.
  for (const give of [(t: Tensor) => t, (t: Tensor) => [t.slice(0)]]) {
    const error = assertTvmError(
      () => k.call_with_view(give),
      "BufferError",
      "call copy() before",
    );
    assert(error.cause instanceof BufferError);
  }
  assertEquals(k.call_with_view((t: Tensor) => t.copy())[0].get(1, 1), 4);
});

tvmTest("what a function throws is thrown by the native call", () => {
  for (
    const [thrown, kind, message] of [
      [new TypeError("wrong kind"), "TypeError", "wrong kind"],
      [new RangeError("too far"), "ValueError", "too far"],
      [new Error("anything"), "RuntimeError", "anything"],
      [new TvmFfiError("KeyError", "no key"), "KeyError", "no key"],
      ["text", "RuntimeError", "text"],
    ] as const
  ) {
    const error = assertTvmError(
      () =>
        k.call(() => {
          throw thrown;
        }, null),
      kind,
      message,
    );
    assertEquals(error.cause === thrown, true);
    // Through several levels of native code.
    const outer = assertTvmError(
      () =>
        k.call(() =>
          k.call(() => {
            throw thrown;
          }, null), null),
      kind,
      message,
    );
    assert(outer.cause instanceof TvmFfiError);
    assertEquals(outer.cause.cause === thrown, true);
  }
  // A function may catch what native code raised.
  assertEquals(
    k.call(() => {
      try {
        k.fail("KeyError", "gone");
      } catch (error) {
        return (error as TvmFfiError).kind;
      }
    }, null),
    "KeyError",
  );
});

tvmTest("a result that cannot be passed is named", () => {
  for (const give of [() => Promise.resolve(1), () => 2n ** 64n, () => ({})]) {
    const error = assertTvmError(
      () => k.call(give, null),
      give() === 2n ** 64n ? "ValueError" : "TypeError",
      "as the result of a function",
    );
    assert(error.cause instanceof Error);
  }
  // Nor is a function called with an argument that cannot be received.
  let calls = 0;
  using bad = k.identity(() => calls++);
  assertTvmError(() => k.call_bad(bad), "TypeError", "not UTF-8");
  assertEquals(calls, 0);
});

tvmTest(
  "an async function is refused, and what it rejects with ends no program",
  async () => {
    const fail = async (): Promise<never> => {
      await 1;
      throw new Error("later");
    };
    const give: [(() => unknown), string][] = [
      [fail, 'a Promise as the result of "fail"'],
      [() => [1, 2].map(fail), "a Promise as element 0 of the result of"],
      [() => [2n ** 64n, fail()], "18446744073709551616n as element 0"],
    ];
    for (const [run, message] of give) {
      const error = assertTvmError(
        () => k.call(run, null),
        message.startsWith("a") ? "TypeError" : "ValueError",
        message,
      );
      assertEquals(
        error.message.includes("pass it a function that is not async"),
        message.startsWith("a"),
      );
    }
    // An argument is the caller's.
    const pending = Promise.resolve(1);
    assertThrows(() => k.identity(pending), TypeError, "await it before");
    // A rejection that nobody handles would have ended this test by now.
    await new Promise((resolve) => setTimeout(resolve, 5));
  },
);

tvmTest("what is thrown may have no text", () => {
  const error = new Error();
  Object.defineProperty(error, "message", {
    get() {
      throw error;
    },
  });
  for (const thrown of [Object.create(null), error]) {
    const { cause } = assertTvmError(
      () =>
        k.call(() => {
          throw thrown;
        }, null),
      "RuntimeError",
      "What was thrown has no text",
    );
    assert(cause === thrown);
  }
});

tvmTest("errors have a traceback, the most recent call last", () => {
  const error = assertTvmError(
    () => k.fail("MyError", "that went wrong"),
    "MyError",
    "that went wrong",
  );
  assertEquals(error.message, "that went wrong");
  assert(
    error.traceback.includes("in fail") || error.traceback.includes(", in "),
    error.traceback,
  );
  assertEquals(error.name, "TvmFfiError");
  assert(Deno.inspect(error).includes('kind: "MyError"'));
  assertTvmError(() => k.fail("", ""), "", "");
});

tvmTest("native code may keep a function, and call it later", () => {
  let calls = 0;
  k.keep(() => ++calls);
  assertEquals(countsOf(ffi!).callbacks, 1);
  assertEquals([k.call_kept(), k.call_kept()], [1n, 2n]);
  k.keep(null);
  assertEquals([calls, countsOf(ffi!).callbacks], [2, 0]);
});

tvmTest("what a callback disposes stays for the call that uses it", () => {
  const x = importFixture(floats([3]));
  using out: Tensor = k.call(() => {
    x[Symbol.dispose]();
    return null;
  }, x) ?? k.count_up(1);
  assertEquals(out.size, 1);
  const f = k.closure(1);
  assertEquals(
    k.call((g: () => bigint) => {
      f[Symbol.dispose]();
      const got = g();
      (g as unknown as Disposable)[Symbol.dispose]();
      return got;
    }, f),
    1n,
  );
  assertThrows(() => f(), TypeError, "was disposed");
  assertThrows(() => k.identity(f), TypeError, "a disposed function");
  const y = Tensor.zeros([2], "float32");
  assertEquals(
    k.call(() => {
      y[Symbol.dispose]();
      return 1;
    }, [y, y.slice(0)]),
    1n,
  );
});

tvmTest("a capsule given away in a callback is in use", () => {
  using native = importFixture(floats([3]));
  const capsule = native.release();
  k.call((t: Tensor) => {
    t[Symbol.dispose]();
    assertThrows(() => capsule.take(), BufferError, "uses its memory");
  }, capsule);
  using back = fromDlpack(
    new DlpackCapsule(capsule.take(), "dltensor_versioned"),
  );
  assertEquals(back.get(2), 2);
});

tvmTest(
  "a call from another thread waits for the event loop, and works",
  async () => {
    const x = Tensor.from(new Float32Array([1, 2, 3]));
    const seen: unknown[] = [];
    k.call_later((t: Tensor) => {
      seen.push(t.toArray());
      t[Symbol.dispose]();
      return "from JavaScript, to the thread";
    }, x);
    assertEquals(seen, []);
    while (seen.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals(seen, [[1, 2, 3]]);
    assertEquals(k.join(), "from JavaScript, to the thread");
  },
);

tvmTest(
  "what is thrown in a call from another thread is reported, and gives null there",
  async () => {
    const reported: unknown[][] = [];
    const { error } = console;
    console.error = (...args: unknown[]) => reported.push(args);
    try {
      const thrown = new Error("too late");
      k.call_later(() => {
        throw thrown;
      }, 1);
      while (reported.length === 0) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assertEquals(reported[0]![1] === thrown, true);
      assert(String(reported[0]![0]).includes("another thread"));
    } finally {
      console.error = error;
    }
    assertEquals(k.join(), null);
  },
);
