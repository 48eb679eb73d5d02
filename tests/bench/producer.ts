/** The producer that costs next to nothing (producer.c), opened. */

import { compile } from "../native/cc.ts";

/** Where the compiled producer is. */
export const producerLibrary: URL = compile(
  new URL("./producer.c", import.meta.url),
  "bench_producer",
);

const symbols = {
  bench_init: {
    parameters: ["u64", "i32", "buffer", "buffer"],
    result: "void",
  }, // void (uint64_t length, int32_t ndim, const int64_t *shape, void *data)
  bench_make: { parameters: [], result: "pointer" }, // DLManagedTensorVersioned *(void)
  bench_allocate: { parameters: ["u64"], result: "pointer" }, // void *(uint64_t bytes)
  bench_free: { parameters: ["pointer"], result: "void" }, // void (void *memory)
  bench_deleted: { parameters: [], result: "u64" }, // uint64_t (void)
} as const;

/** The functions of producer.c; what each does is said there. */
export const producer: Deno.DynamicLibrary<typeof symbols>["symbols"] = Deno
  .dlopen(producerLibrary, symbols).symbols;

/** What the producer's tensors lie over: JavaScript must keep it alive. */
let memory: Float32Array<ArrayBuffer>;

/**
 * Makes a pool of float32 tensors in C order.
 *
 * @param length How many `bench_make` hands out before it starts again.
 * @param data Their common memory; none: new memory full of ones.
 */
export function initProducer(
  length: number,
  shape: readonly number[],
  data: Float32Array<ArrayBuffer> = new Float32Array(
    shape.reduce((a, b) => a * b, 1),
  ).fill(1),
): void {
  memory = data;
  producer.bench_init(
    BigInt(length),
    shape.length,
    BigInt64Array.from(shape, BigInt),
    new Uint8Array(memory.buffer),
  );
}
