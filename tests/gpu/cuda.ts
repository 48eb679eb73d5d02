/** CUDA's driver, as a producer of tensors calls it. */

import { BufferError, DeviceType, DlpackCapsule } from "@dlpack/deno";
import { type FixtureSpec, make } from "../native/fixture.ts";

/** The driver's library. */
export const driverPath: string = Deno.env.get("DLPACK_CUDA_LIBRARY") ??
  "libcuda.so.1";

const symbols = {
  cuInit: { parameters: ["u32"], result: "i32" },
  cuDeviceGetName: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cuDriverGetVersion: { parameters: ["buffer"], result: "i32" },
  cuDevicePrimaryCtxRetain: { parameters: ["buffer", "i32"], result: "i32" },
  cuCtxPushCurrent_v2: { parameters: ["u64"], result: "i32" },
  cuMemGetInfo_v2: { parameters: ["buffer", "buffer"], result: "i32" },
  cuMemAlloc_v2: { parameters: ["buffer", "usize"], result: "i32" },
  cuMemAllocManaged: {
    parameters: ["buffer", "usize", "u32"],
    result: "i32",
  },
  cuMemFree_v2: { parameters: ["u64"], result: "i32" },
  cuMemHostAlloc: { parameters: ["buffer", "usize", "u32"], result: "i32" },
  cuMemFreeHost: { parameters: ["u64"], result: "i32" },
  cuMemcpyHtoD_v2: { parameters: ["u64", "buffer", "usize"], result: "i32" },
  cuMemcpyDtoH_v2: { parameters: ["u64", "u64", "usize"], result: "i32" },
  cuStreamCreate: { parameters: ["buffer", "u32"], result: "i32" },
  cuStreamDestroy_v2: { parameters: ["u64"], result: "i32" },
  cuMemsetD8Async: {
    parameters: ["u64", "u8", "usize", "u64"],
    result: "i32",
  },
} as const;

/** Its functions. */
export const cuda: Deno.DynamicLibrary<typeof symbols>["symbols"] = Deno
  .dlopen(driverPath, symbols).symbols;

/** Throws where a call failed. */
export function check(status: number): void {
  if (status !== 0) throw new Error(`The driver reports error ${status}`);
}

/** What a call makes. */
export function made(
  run: (into: BigUint64Array<ArrayBuffer>) => number,
): bigint {
  const into = new BigUint64Array(1);
  check(run(into));
  return into[0]!;
}

/** Memory of the GPU with some bytes in it. */
export function allocate(bytes: Uint8Array<ArrayBuffer>): bigint {
  const size = BigInt(bytes.length);
  const address = made((into) => cuda.cuMemAlloc_v2(into, size));
  check(cuda.cuMemcpyHtoD_v2(address, bytes, size));
  return address;
}

/**
 * A tensor of the fixture over memory of the GPU. Not the one of helpers.ts,
 * which needs `@std/assert`: a GPU may be offline.
 */
export function capsule(
  spec: FixtureSpec,
  handle: bigint,
  options: { stream?: number | bigint } = {},
): DlpackCapsule {
  const device = spec.device ?? [DeviceType.cuda, 0];
  const pointer = make({ ...spec, device, handle });
  return new DlpackCapsule(pointer, "dltensor_versioned", options);
}

/** Checks that a device's error says something. */
export function refused(run: () => unknown, text: string): void {
  try {
    run();
  } catch (error) {
    const isRight = error instanceof BufferError && error.code === "device" &&
      error.message.includes(text);
    if (isRight) return;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** Opens the driver and names the GPU. */
export function start(): string {
  check(cuda.cuInit(0));
  const context = made((into) => cuda.cuDevicePrimaryCtxRetain(into, 0));
  check(cuda.cuCtxPushCurrent_v2(context));
  const name = new Uint8Array(100);
  check(cuda.cuDeviceGetName(name, 100, 0));
  const version = new Int32Array(2);
  check(cuda.cuDriverGetVersion(version));
  const text = new TextDecoder().decode(name).replace(/\0.*/s, "");
  const [major, minor] = [version[0]! / 1000 | 0, version[0]! % 1000 / 10];
  return `${text}, whose driver knows CUDA ${major}.${minor}`;
}
