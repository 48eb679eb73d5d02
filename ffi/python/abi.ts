/**
 * The memory layout of what Python libraries offer beside `dlpack.h`'s tensors.
 *
 * @module
 */

/** `DLPackExchangeAPI`, of DLPack 1.3: a table of C functions. */
export const EXCHANGE = {
  major: 0, // header.version.major, uint32_t
  previous: 8, // struct DLPackExchangeAPIHeader *header.prev_api
  fromPyObject: 24, // int (*managed_tensor_from_py_object_no_sync)(void *, DLManagedTensorVersioned **)
  toPyObject: 32, // int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned *, void **)
  currentWorkStream: 48, // int (*current_work_stream)(DLDeviceType, int32_t, void **)
  size: 56,
} as const;

/** `struct dl_phdr_info`: what the loader tells of a library that is open. */
export const LOADED = {
  name: 8, // const char *dlpi_name
} as const;
