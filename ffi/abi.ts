/**
 * The memory layout of `dlpack.h`, and of what devices' libraries have beside
 * it: the only file with byte offsets.
 *
 * All offsets are for 64-bit pointers. Those of DLPack have not changed since
 * version 0.2 (the legacy struct) and 1.0 (the versioned one), and
 * tests/ffi_abi_test.ts compares them with what a C compiler says.
 *
 * @module
 */

/** The DLPack version whose structs this module writes: `[major, minor]`. */
export const VERSION = [1, 3] as const;

/** `DLTensor`. */
export const TENSOR = {
  data: 0, // void *data
  deviceType: 8, // DLDevice.device_type, int32_t
  deviceId: 12, // DLDevice.device_id, int32_t
  ndim: 16, // int32_t ndim
  code: 20, // DLDataType.code, uint8_t
  bits: 21, // DLDataType.bits, uint8_t
  lanes: 22, // DLDataType.lanes, uint16_t
  shape: 24, // int64_t *shape
  strides: 32, // int64_t *strides, in elements
  byteOffset: 40, // uint64_t byte_offset
  size: 48,
} as const;

/** `DLManagedTensor`: the legacy struct. */
export const MANAGED = {
  tensor: 0, // DLTensor dl_tensor
  managerCtx: 48, // void *manager_ctx
  deleter: 56, // void (*deleter)(struct DLManagedTensor *self)
  size: 64,
} as const;

/** `DLManagedTensorVersioned`: the struct since DLPack 1.0. */
export const VERSIONED = {
  major: 0, // DLPackVersion.major, uint32_t
  minor: 4, // DLPackVersion.minor, uint32_t
  managerCtx: 8, // void *manager_ctx
  deleter: 16, // void (*deleter)(struct DLManagedTensorVersioned *self)
  flags: 24, // uint64_t flags
  /** What every major version has: up to and including `flags`. */
  stable: 32,
  tensor: 32, // DLTensor dl_tensor
  size: 80,
} as const;

/** The bits of `DLManagedTensorVersioned.flags`. */
export const FLAG = {
  readOnly: 1, // DLPACK_FLAG_BITMASK_READ_ONLY
  isCopied: 2, // DLPACK_FLAG_BITMASK_IS_COPIED
  subbytePadded: 4, // DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED
} as const;

/** What the address of a struct is a multiple of, in bytes. */
export const STRUCT_ALIGNMENT = 8;

/** No system has memory below this address. */
export const FIRST_ADDRESS = 4096;

/** From here on there is none, either: these are negative numbers. */
export const LAST_ADDRESS: bigint = 2n ** 64n - 4096n;

/** The most axes a tensor can have: NumPy's limit. */
export const MAX_NDIM = 64;

/** `CUDA_MEMCPY2D`, of CUDA's driver: copies rows. */
export const MEMCPY2D = {
  srcMemoryType: 16, // CUmemorytype srcMemoryType
  srcHost: 24, // const void *srcHost
  srcDevice: 32, // CUdeviceptr srcDevice
  srcPitch: 48, // size_t srcPitch
  dstMemoryType: 72, // CUmemorytype dstMemoryType
  dstHost: 80, // void *dstHost
  dstDevice: 88, // CUdeviceptr dstDevice
  dstPitch: 104, // size_t dstPitch
  widthInBytes: 112, // size_t WidthInBytes
  height: 120, // size_t Height
  size: 128,
} as const;

/** `std::shared_ptr`, which a SYCL object is: the same in all C++ libraries. */
export const SHARED_POINTER = {
  object: 0, // T *
  counter: 8, // the counter of its references, whose first word says its class
  size: 16,
} as const;

/** `BufferDescriptor`, which TVM has in the place of a `cl_mem`. */
export const TVM_BUFFER = {
  buffer: 0, // cl_mem buffer
  layout: 24, // int layout: 0 for a buffer, else an image
  size: 28,
} as const;
