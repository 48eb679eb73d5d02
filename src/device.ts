/**
 * The device types of `dlpack.h` (`DLDeviceType`), by name. The array API
 * hands them around as numbers: `__dlpack_device__()` gives `[type, id]`.
 *
 * @example Name the device that an exporter says it is on
 * ```ts
 * import { DeviceType, Tensor } from "@dlpack/deno";
 * import { assertEquals } from "@std/assert";
 *
 * const [type, id] = Tensor.from(new Float32Array(4)).__dlpack_device__();
 * assertEquals([type, id], [DeviceType.cpu, 0]);
 * ```
 *
 * @category Devices
 */
export const DeviceType = {
  /** Memory of the host. */
  cpu: 1,
  /** Memory of an NVIDIA GPU. */
  cuda: 2,
  /** Host memory pinned by CUDA. */
  cudaHost: 3,
  /** An OpenCL `cl_mem`. */
  opencl: 4,
  /** A Vulkan buffer. */
  vulkan: 7,
  /** A Metal `MTLBuffer`. */
  metal: 8,
  /** A Verilog simulator buffer. */
  vpi: 9,
  /** Memory of an AMD GPU. */
  rocm: 10,
  /** Host memory pinned by ROCm. */
  rocmHost: 11,
  /** Reserved for extensions. */
  extDev: 12,
  /** CUDA managed (unified) memory. */
  cudaManaged: 13,
  /** Unified shared memory of a oneAPI device. */
  oneapi: 14,
  /** A WebGPU buffer. */
  webgpu: 15,
  /** A Qualcomm Hexagon DSP. */
  hexagon: 16,
  /** A Microsoft MAIA device. */
  maia: 17,
  /** An AWS Trainium device. */
  trn: 18,
  /** A Google TPU. */
  tpu: 19,
  /** Host memory pinned for a TPU. */
  tpuHost: 20,
} as const;

/**
 * The name of a device type, as {@linkcode DeviceType} spells it.
 *
 * @category Devices
 */
export type DeviceName = keyof typeof DeviceType;

/**
 * Where a tensor's memory is.
 *
 * @category Devices
 */
export interface Device {
  /** The kind of device. */
  readonly type: DeviceName;
  /** Which of that kind, from 0. */
  readonly id: number;
}

const names: (DeviceName | undefined)[] = [];
for (const [name, type] of Object.entries(DeviceType)) {
  names[type] = name as DeviceName;
}

/** The name of a `DLDeviceType`, or `undefined` when it is none. */
export function deviceName(type: number): DeviceName | undefined {
  return names[type];
}

const addressed: ReadonlySet<number> = new Set([
  DeviceType.cpu,
  DeviceType.cuda,
  DeviceType.cudaHost,
  DeviceType.cudaManaged,
  DeviceType.rocm,
  DeviceType.rocmHost,
  DeviceType.oneapi,
]);

/**
 * Whether `DLTensor.data` is an address on this type of device, to which bytes
 * can be added; on others it is a handle, as far as is known.
 */
export function hasAddresses(type: number): boolean {
  return addressed.has(type);
}

/**
 * Whether the host reads this memory as its own. The list is NumPy's: CPU, and
 * what CUDA and ROCm pinned or manage.
 */
export function isHost(type: number): boolean {
  return type === DeviceType.cpu || type === DeviceType.cudaHost ||
    type === DeviceType.rocmHost || type === DeviceType.cudaManaged;
}
