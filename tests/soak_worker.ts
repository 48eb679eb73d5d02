/** A Worker of soak.ts: imports what it is sent, and does with it what it is told. */

import { DlpackCapsule, fromDlpack, liveTensors, type Tensor } from "../mod.ts";
import { collectGarbage } from "./helpers.ts";

/** A managed tensor whose first byte is `mark`, and what is to become of it. */
export interface Task {
  readonly address: bigint;
  readonly name: "dltensor" | "dltensor_versioned";
  readonly mark: number;
  /** Dispose of it, leave it to the collector, or hold it until the end. */
  readonly then: "dispose" | "forget" | "hold";
}

/** How a task ended. */
export interface Answer {
  readonly error: string | null;
  /** What is live in this Worker. */
  readonly live: number;
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Task | "collect" | "close">) => void;
  postMessage: (answer: Answer) => void;
  close: () => void;
};

const held: Tensor[] = [];

scope.onmessage = async ({ data: task }) => {
  if (task === "close") return scope.close();
  let error: string | null = null;
  try {
    if (task === "collect") await collectGarbage();
    else carryOut(task);
  } catch (thrown) {
    error = String(thrown);
  }
  scope.postMessage({ error, live: liveTensors().count });
};

function carryOut({ address, name, mark, then }: Task): void {
  const tensor = fromDlpack(new DlpackCapsule(address, name));
  const first = tensor.copy().data[0];
  if (first !== mark || tensor.data[0] !== mark) {
    throw new Error(`The first byte is ${first}, not ${mark}`);
  }
  if (then === "dispose") tensor[Symbol.dispose]();
  else if (then === "hold") held.push(tensor);
}
