/* The two structs of DLPack that a library can hand out, and the few names
 * that field.c needs. It is here so that the example compiles on its own: in
 * your project write #include <dlpack/dlpack.h>, which has all of it.
 */
#ifndef DLPACK_MIN_H
#define DLPACK_MIN_H

#include <stdint.h>

enum { kDLCPU = 1 };                /* DLDevice.device_type */
enum { kDLUInt = 1, kDLFloat = 2 }; /* DLDataType.code */

/* Where the memory is. */
typedef struct {
  int32_t device_type;
  int32_t device_id;
} DLDevice;

/* What an element is: float32 is {kDLFloat, 32, 1}. */
typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

/* Element [i, j] is at data + byte_offset, and from there i * strides[0] +
 * j * strides[1] elements on. */
typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} DLTensor;

/* The legacy struct: no version, no flags. */
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;

/* The struct since DLPack 1.0. */
typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;

#endif
