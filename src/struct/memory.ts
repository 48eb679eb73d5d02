import type { DeviceMemory } from "../../ffi/devices/runtime.ts";
import { deviceName, isHost } from "../device.ts";
import type { Struct } from "./types.ts";

/**
 * What a device's runtime is to know of a tensor's memory.
 *
 * @param struct The tensor.
 * @param stream The stream that uses it, if somebody said.
 * @param access What is to be done with it.
 */
export function memoryOf(
  struct: Struct,
  stream: number | bigint | null,
  access: DeviceMemory["access"],
): DeviceMemory {
  const { info, deviceType, deviceId, data, start, length } = struct;
  const isAddress = isHost(deviceType);
  return {
    type: deviceName(deviceType)!,
    id: deviceId,
    data: isAddress ? BigInt(start) : data,
    byteOffset: isAddress ? 0 : start,
    byteLength: length * info.array.BYTES_PER_ELEMENT,
    stream,
    access,
  };
}
