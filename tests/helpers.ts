/** What several tests need. */

import {
  BufferError,
  type BufferErrorCode,
  DlpackCapsule,
  fromDlpack,
  type FromDlpackOptions,
  type Tensor,
} from "@dlpack/deno";
import { assert, assertEquals } from "@std/assert";
import { usePortablePath } from "../ffi/libc.ts";
import { counts, type FixtureSpec, make } from "./native/fixture.ts";

/** A managed tensor of the fixture in a capsule of the right name. */
export function capsule(
  spec: FixtureSpec,
  options?: { stream?: number | bigint },
): DlpackCapsule {
  const name = spec.versioned ?? true ? "dltensor_versioned" : "dltensor";
  return new DlpackCapsule(make(spec), name, options);
}

/** A managed tensor of the fixture, imported. */
export function importFixture(
  spec: FixtureSpec,
  options?: FromDlpackOptions,
): Tensor {
  return fromDlpack(capsule(spec), options);
}

/** The bytes of a typed array. */
export function bytesOf(data: ArrayBufferView): Uint8Array<ArrayBuffer> {
  return new Uint8Array(
    data.buffer as ArrayBuffer,
    data.byteOffset,
    data.byteLength,
  );
}

/** A fixture of float32 with the values 0, 1, 2, … */
export function floats(
  shape: readonly number[],
  changes: Partial<FixtureSpec> = {},
): FixtureSpec {
  const size = shape.reduce((size, length) => size * length, 1);
  const data = bytesOf(Float32Array.from({ length: size }, (_, i) => i));
  return { dtype: [2, 32, 1], shape, nbytes: data.length, data, ...changes };
}

/** How often deleters were called while something ran; none of them wrongly. */
export function deletions(run: () => void): number {
  const before = counts();
  run();
  const after = counts();
  assertEquals(after.double, before.double, "a deleter was called twice");
  return after.deleted - before.deleted;
}

/** All orders of some names. */
export function ordersOf(names: readonly string[]): string[][] {
  if (names.length === 0) return [[]];
  return names.flatMap((first) =>
    ordersOf(names.filter((name) => name !== first))
      .map((rest) => [first, ...rest])
  );
}

/** How often deleters were called at each release, in an order. */
export function deletionsInOrder(
  order: readonly string[],
  release: Readonly<Record<string, () => void>>,
): number[] {
  return order.map((who) => deletions(release[who]!));
}

/** Checks that something throws a BufferError of a code, and gives it. */
export function assertBufferError(
  run: () => unknown,
  code: BufferErrorCode,
  message?: string,
): BufferError {
  try {
    run();
  } catch (error) {
    assert(error instanceof BufferError, `not a BufferError: ${error}`);
    assertEquals(error.code, code, error.message);
    if (message !== undefined) {
      assert(
        error.message.includes(message),
        `"${message}" is not in: ${error.message}`,
      );
    }
    return error;
  }
  throw new Error(`Nothing was thrown, not BufferError "${code}"`);
}

/** Runs the garbage collector, then the event loop, so that finalizers run. */
export async function collectGarbage(): Promise<void> {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) {
    throw new Error("Run the tests with --v8-flags=--expose-gc");
  }
  for (let round = 0; round < 3; round++) {
    gc();
    // One for each FinalizationRegistry of the module.
    for (let turn = 0; turn < 2; turn++) {
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}

/**
 * Registers a test twice: on the fast path through the C library, and on the
 * portable one.
 */
export function testBothPaths(
  name: string,
  run: (t: Deno.TestContext) => void | Promise<void>,
): void {
  for (const portable of [false, true]) {
    Deno.test(portable ? `${name} (portable path)` : name, async (t) => {
      usePortablePath(portable);
      try {
        await run(t);
      } finally {
        usePortablePath(false);
      }
    });
  }
}

/** What a script printed, and how it ended. */
export interface ScriptRun {
  readonly code: number;
  readonly out: readonly string[];
  readonly err: string;
}

/**
 * Runs a script in a process of its own. It can import `@dlpack/deno` with its
 * other entry points, and native/fixture.ts as `#fixture`.
 *
 * @param env Variables of the environment beside those of this process.
 * @param clearEnv Whether they are all that there are.
 */
export async function runScript(
  source: string,
  flags: readonly string[] = ["-A"],
  env: Readonly<Record<string, string>> = {},
  clearEnv = false,
): Promise<ScriptRun> {
  const url = (path: string): string => new URL(path, import.meta.url).href;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(
      file,
      source
        .replaceAll('"@dlpack/deno"', `"${url("../mod.ts")}"`)
        .replaceAll('"@dlpack/deno/python"', `"${url("../src/python/mod.ts")}"`)
        .replaceAll('"#fixture"', `"${url("./native/fixture.ts")}"`),
    );
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--no-check", "--no-config", ...flags, file],
      env: { NO_COLOR: "1", ...env },
      clearEnv,
    }).output();
    const text = new TextDecoder();
    return {
      code,
      out: text.decode(stdout).split("\n").slice(0, -1),
      err: text.decode(stderr),
    };
  } finally {
    await Deno.remove(file);
  }
}

/** What a promise was rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("The promise was not rejected");
}
