/** The stand-in for the CUDA driver (cuda_driver.c) opened. */

import { compile } from "./cc.ts";

/** What the tests call of a stand-in. */
export const stand = {
  sim_reset: { parameters: [], result: "void" }, // void (void)
  sim_fail: { parameters: ["buffer", "i32", "i32"], result: "void" }, // void (const char *name, int at, int with)
  sim_count: { parameters: ["buffer"], result: "i32" }, // int (const char *name)
  sim_devices: { parameters: ["i32"], result: "void" }, // void (int count)
  sim_ask_in_context: { parameters: ["i32"], result: "void" }, // void (int on)
  sim_ranges_unknown: { parameters: ["i32"], result: "void" }, // void (int on)
  sim_wait_in_context: { parameters: ["i32"], result: "void" }, // void (int on)
  sim_reset_devices: { parameters: [], result: "void" }, // void (void)
  sim_held: { parameters: [], result: "i32" }, // int (void)
  sim_forget: { parameters: ["u64"], result: "void" }, // void (uint64_t stream)
  sim_alloc: {
    parameters: ["buffer", "usize", "u64", "i32", "i32"],
    result: "u64",
  }, // uint64_t (const uint8_t *bytes, size_t size, uint64_t context, int type, int neighbours)
  sim_peek: { parameters: ["u64", "buffer", "usize"], result: "void" }, // void (uint64_t at, uint8_t *into, size_t size)
  sim_free: { parameters: ["u64"], result: "void" }, // void (uint64_t at)
  sim_stream: { parameters: [], result: "u64" }, // uint64_t (void)
  sim_land: { parameters: ["u64"], result: "void" }, // void (uint64_t stream)
  sim_destroy_stream: { parameters: ["u64"], result: "void" }, // void (uint64_t stream)
  sim_fill_later: {
    parameters: ["u64", "u8", "usize", "u64"],
    result: "void",
  }, // void (uint64_t at, uint8_t value, size_t size, uint64_t stream)
} as const;

/** Where the stand-in is, for DLPACK_CUDA_LIBRARY. */
export const driverPath: string = decodeURIComponent(
  compile(new URL("./cuda_driver.c", import.meta.url), "cuda_driver").pathname,
);

/** The stand-in's own functions. */
export const driver: Deno.DynamicLibrary<typeof stand>["symbols"] = Deno
  .dlopen(driverPath, stand).symbols;

/** A name for C. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
