/** The Worker of ffi_owner_worker_test.ts: imports what it is sent, and disposes it. */

import { DlpackCapsule, fromDlpack, liveTensors } from "../mod.ts";

interface Sent {
  readonly address: bigint;
  readonly name: "dltensor" | "dltensor_versioned";
  /** Wait before the import, in milliseconds. */
  readonly delay: number;
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Sent>) => void;
  postMessage: (message: unknown) => void;
  close: () => void;
};

scope.onmessage = async ({ data: { address, name, delay } }) => {
  await new Promise((done) => setTimeout(done, delay));
  const values = (() => {
    using t = fromDlpack(new DlpackCapsule(address, name));
    return t.toArray();
  })();
  scope.postMessage({ values, left: liveTensors() });
  if (delay > 0) console.log("worker", JSON.stringify(values));
  scope.close();
};
