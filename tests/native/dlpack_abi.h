/* The DLPack structs in C, as far as the fixtures need them: the legacy
 * DLManagedTensor (64 bytes) and DLManagedTensorVersioned (80 bytes) of a
 * 64-bit machine. The asserts below are the layout ffi/abi.ts must agree with.
 */
#ifndef DLPACK_ABI_H
#define DLPACK_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int32_t device_type;
  int32_t device_id;
} DLDevice;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;

typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;

#define DLPACK_AT(type, field, offset)                     \
  static_assert(offsetof(type, field) == (offset),         \
                #type "." #field " is not at " #offset)
#define DLPACK_SIZE(type, size) \
  static_assert(sizeof(type) == (size), #type " is not " #size " bytes")

DLPACK_SIZE(void *, 8);

DLPACK_SIZE(DLDevice, 8);
DLPACK_AT(DLDevice, device_type, 0);
DLPACK_AT(DLDevice, device_id, 4);

DLPACK_SIZE(DLDataType, 4);
DLPACK_AT(DLDataType, code, 0);
DLPACK_AT(DLDataType, bits, 1);
DLPACK_AT(DLDataType, lanes, 2);

DLPACK_SIZE(DLTensor, 48);
DLPACK_AT(DLTensor, data, 0);
DLPACK_AT(DLTensor, device, 8);
DLPACK_AT(DLTensor, ndim, 16);
DLPACK_AT(DLTensor, dtype, 20);
DLPACK_AT(DLTensor, shape, 24);
DLPACK_AT(DLTensor, strides, 32);
DLPACK_AT(DLTensor, byte_offset, 40);

DLPACK_SIZE(DLManagedTensor, 64);
DLPACK_AT(DLManagedTensor, dl_tensor, 0);
DLPACK_AT(DLManagedTensor, manager_ctx, 48);
DLPACK_AT(DLManagedTensor, deleter, 56);

DLPACK_SIZE(DLManagedTensorVersioned, 80);
DLPACK_AT(DLManagedTensorVersioned, version, 0);
DLPACK_AT(DLManagedTensorVersioned, version.minor, 4);
DLPACK_AT(DLManagedTensorVersioned, manager_ctx, 8);
DLPACK_AT(DLManagedTensorVersioned, deleter, 16);
DLPACK_AT(DLManagedTensorVersioned, flags, 24);
DLPACK_AT(DLManagedTensorVersioned, dl_tensor, 32);

#endif
