/** What happens to tensors that are still held when the process ends. */

import { assert, assertEquals } from "@std/assert";
import { runScript } from "./helpers.ts";

const prelude = `
  import { DlpackCapsule, fromDlpack, Tensor } from "@dlpack/deno";
  import { counts, fixture, make } from "#fixture";
  const spec = { dtype: [2, 32, 1], shape: [2], nbytes: 8 };
  const capsule = (changes) =>
    new DlpackCapsule(make({ ...spec, ...changes }), "dltensor_versioned");
  const load = (changes) => fromDlpack(capsule(changes));
  globalThis.held = [];
  held.push(capsule(), load(), load({ deleter: "null" }));
`;
const report = `
  addEventListener("unload", () => console.log(JSON.stringify(counts())));
`;

const ends: Record<string, string> = {
  "at the end": "",
  "on Deno.exit()": "Deno.exit(0);",
  "with a timer to come": "Deno.unrefTimer(setTimeout(() => {}, 1e6));",
};
for (const [name, end] of Object.entries(ends)) {
  Deno.test(`What is held is released ${name}`, async () => {
    const { code, out, err } = await runScript(prelude + report + end);
    assertEquals([code, err], [0, ""]);
    // The one without a deleter cannot be given back.
    assertEquals(out.map((line) => JSON.parse(line)), [
      { deleted: 2, double: 0, live: 1 },
    ]);
  });
}

const abrupt: Record<string, [string, number]> = {
  "an uncaught error": ['throw new Error("Uncaught")', 1],
  "an unhandled rejection": ['Promise.reject(new Error("Unhandled"))', 1],
  "an error in a timer": ['setTimeout(() => { throw new Error("Late") })', 1],
};
for (const [name, [end, expected]] of Object.entries(abrupt)) {
  Deno.test(`The process ends as it should after ${name}`, async () => {
    const { code, err } = await runScript(prelude + report + end);
    assertEquals(code, expected, err);
  });
}

Deno.test("A later unload listener finds typed arrays empty, not dangling", async () => {
  const { code, out, err } = await runScript(`
    ${prelude}
    const t = load();
    const early = t.data;
    const sub = load().data.subarray(1);
    await new Promise((done) => setTimeout(done));
    const late = load();
    const fresh = late.data;
    addEventListener("unload", () => {
      for (const array of [early, sub, fresh]) console.log(array.length, array[0]);
      try { t.get(0); } catch (error) { console.log(error.code); }
      t[Symbol.dispose]();
      held.forEach((x) => x[Symbol.dispose]());
      console.log(JSON.stringify(counts()));
    });
  `);
  assertEquals([code, err], [0, ""]);
  assertEquals(out, [
    "0 undefined",
    "0 undefined",
    "0 undefined",
    "released",
    '{"deleted":5,"double":0,"live":1}',
  ]);
});

Deno.test("A deleter that throws or is slow does not stop the rest at exit", async () => {
  const { code, out, err } = await runScript(`
    ${prelude}
    const callback = new Deno.UnsafeCallback(
      { parameters: ["pointer"], result: "void" },
      () => { throw new Error("A deleter of JavaScript threw"); },
    );
    fixture.fx_set_callback(callback.pointer);
    held.unshift(load({ deleter: "callback" }));
    held.push(load({ deleter: "slow" }), load({ deleter: "callback" }), load());
    ${report}
  `);
  assertEquals(code, 0, err);
  assertEquals(err.match(/A deleter of JavaScript threw/g)?.length, 2, err);
  const { deleted, double } = JSON.parse(out[0]!);
  assertEquals([deleted, double], [6, 0]);
});

Deno.test("What a consumer still uses at exit is left to the consumer", async () => {
  const { code, out, err } = await runScript(`
    ${prelude}
    const t = load();
    const taken = t.__dlpack__({ maxVersion: [1, 0] }).take();
    ${report}
  `);
  assertEquals([code, err], [0, ""]);
  assertEquals(JSON.parse(out[0]!), { deleted: 2, double: 0, live: 2 });
});

Deno.test("A tensor whose buffer was transferred is not freed at exit", async () => {
  const { code, out, err } = await runScript(`
    ${prelude}
    const t = load();
    const moved = new Float32Array(structuredClone(t.data.buffer, {
      transfer: [t.data.buffer],
    }));
    addEventListener("unload", () => console.log(moved.length, moved[0]));
    ${report}
  `);
  assertEquals(code, 0, err);
  assert(err.includes("8 bytes will never be freed"), err);
  assertEquals(out[0], "2 0");
  assert(out[1]!.includes('"live":2'));
});
