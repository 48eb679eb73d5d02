/**
 * Which runtime reaches the memory of which device.
 *
 * @module
 */

import { deviceName, DeviceType, isHost } from "../../src/device.ts";
import { describe } from "../../src/errors.ts";
import { cuda } from "./cuda.ts";
import { metal } from "./metal.ts";
import { oneapi } from "./oneapi.ts";
import { opencl } from "./opencl.ts";
import { rocm } from "./rocm.ts";
import type { DeviceRuntime } from "./runtime.ts";

/** What this module brings along, by `DLDeviceType`. */
const builtIn: ReadonlyMap<number, DeviceRuntime> = new Map([
  [DeviceType.cuda, cuda],
  [DeviceType.rocm, rocm],
  [DeviceType.opencl, opencl],
  [DeviceType.metal, metal],
  [DeviceType.oneapi, oneapi],
]);

const registered = new Map<number, DeviceRuntime>();

/** The runtime for a `DLDeviceType`, or `undefined` when there is none. */
export function runtimeOf(type: number): DeviceRuntime | undefined {
  return registered.get(type) ?? builtIn.get(type);
}

/**
 * Teaches `fromDlpack` to copy the memory of a kind of device to the host,
 * instead of what this module knows of it, if anything.
 *
 * @param type The `DLDeviceType`.
 * @param runtime How to reach its memory; `null` forgets what was registered.
 * @throws {TypeError} When `runtime` has no `open()`, or the type is a host's
 * memory, or DLPack has no such device.
 *
 * @example Reach memory through a library of your own
 * ```ts
 * import { DeviceType, registerDevice } from "@dlpack/deno";
 *
 * // Stands for a library that copies (handle, from, into).
 * const copy = (_handle: bigint, _from: number, into: Uint8Array) =>
 *   into.fill(0);
 *
 * registerDevice(DeviceType.extDev, {
 *   name: "the accelerator's library",
 *   open: ({ data, byteOffset }) => ({
 *     synchronize() {},
 *     read: (from, into) => void copy(data, byteOffset + from, into),
 *     [Symbol.dispose]() {},
 *   }),
 * });
 *
 * registerDevice(DeviceType.extDev, null); // forget it
 * ```
 *
 * @category Devices
 */
export function registerDevice(
  type: number,
  runtime: DeviceRuntime | null,
): void {
  const name = typeof type === "number" ? deviceName(type) : undefined;
  if (name === undefined || isHost(type)) {
    throw new TypeError(
      `Cannot register a runtime for device type ${describe(type)}: ` + (
        name === undefined
          ? "DLPack has no such device; take DeviceType.extDev for one of " +
            "your own"
          : `${name} is memory of the host, which is viewed as it is`
      ),
    );
  }
  if (runtime === null) {
    registered.delete(type);
    return;
  }
  if (typeof runtime?.open !== "function") {
    throw new TypeError(
      `Cannot register a runtime for ${name} that has no open(): pass { name, ` +
        "open }, see DeviceRuntime",
    );
  }
  if (typeof runtime.name !== "string") {
    throw new TypeError(
      `The name of a runtime must be a string, not ${describe(runtime.name)}`,
    );
  }
  registered.set(type, runtime);
}
