/* A library of CUDA tensors, by the driver alone: makes them, is lent them and
 * takes them over, all without the host. Compiled twice, as two libraries.
 */
#define _DEFAULT_SOURCE
#include "../native/dlpack_abi.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { MOST_AXES = 8, CUDA = 2 };

static int (*cuInit)(unsigned);
static int (*cuDevicePrimaryCtxRetain)(void **, int);
static int (*cuCtxPushCurrent_v2)(void *);
static int (*cuCtxPopCurrent_v2)(void **);
static int (*cuMemAlloc_v2)(uint64_t *, size_t);
static int (*cuMemFree_v2)(uint64_t);
static int (*cuMemcpyHtoD_v2)(uint64_t, const void *, size_t);
static int (*cuMemcpyDtoD_v2)(uint64_t, uint64_t, size_t);

static void *context;
static uint64_t deleted;

typedef struct {
  DLManagedTensorVersioned tensor;
  uint64_t memory;                /* to be freed, or */
  DLManagedTensorVersioned *from; /* whose memory it is */
  int64_t shape[MOST_AXES], strides[MOST_AXES];
} Made;

/* Opens the driver; 0 when that went well. */
EXPORT int cl_open(const char *path) {
  void *driver = dlopen(path, RTLD_NOW);
  if (driver == NULL) return -1;
#define FIND(name) \
  if ((*(void **)&name = dlsym(driver, #name)) == NULL) return -2
  FIND(cuInit);
  FIND(cuDevicePrimaryCtxRetain);
  FIND(cuCtxPushCurrent_v2);
  FIND(cuCtxPopCurrent_v2);
  FIND(cuMemAlloc_v2);
  FIND(cuMemFree_v2);
  FIND(cuMemcpyHtoD_v2);
  FIND(cuMemcpyDtoD_v2);
  int status = cuInit(0);
  return status != 0 ? status : cuDevicePrimaryCtxRetain(&context, 0);
}

/* How many tensors of this library were deleted. */
EXPORT uint64_t cl_deleted(void) { return deleted; }

static void leave(void) {
  void *left;
  cuCtxPopCurrent_v2(&left);
}

static void delete(DLManagedTensorVersioned *self) {
  Made *made = (Made *)self;
  if (made->from != NULL) {
    if (made->from->deleter != NULL) made->from->deleter(made->from);
  } else {
    cuCtxPushCurrent_v2(context);
    cuMemFree_v2(made->memory);
    leave();
  }
  deleted++;
  free(made);
}

/* A tensor like another one, over memory of its own or of another's. */
static DLManagedTensorVersioned *make(const DLTensor *like, uint64_t memory,
                                      DLManagedTensorVersioned *from) {
  Made *made = calloc(1, sizeof *made);
  made->tensor = (DLManagedTensorVersioned){
      .version = {1, 3}, .deleter = delete, .dl_tensor = *like};
  made->memory = memory;
  made->from = from;
  DLTensor *tensor = &made->tensor.dl_tensor;
  size_t axes = (size_t)like->ndim * sizeof(int64_t);
  memcpy(made->shape, like->shape, axes);
  if (like->strides != NULL) memcpy(made->strides, like->strides, axes);
  tensor->shape = made->shape;
  tensor->strides = like->strides == NULL ? NULL : made->strides;
  return &made->tensor;
}

/* Memory of the GPU: of bytes of the host, or of the GPU. */
static uint64_t memory_of(const void *bytes, uint64_t other, size_t size) {
  uint64_t memory = 0;
  cuCtxPushCurrent_v2(context);
  int status = cuMemAlloc_v2(&memory, size > 0 ? size : 1);
  if (status == 0 && size > 0)
    status = bytes != NULL ? cuMemcpyHtoD_v2(memory, bytes, size)
                           : cuMemcpyDtoD_v2(memory, other, size);
  leave();
  return status == 0 ? memory : 0;
}

/* spec: code, bits, lanes, ndim, byte offset, and the number of bytes. */
EXPORT DLManagedTensorVersioned *cl_new(const int64_t *spec, int64_t *shape,
                                        int64_t *strides,
                                        const uint8_t *bytes) {
  uint64_t memory = memory_of(bytes, 0, (size_t)spec[5]);
  if (memory == 0 || spec[3] > MOST_AXES) return NULL;
  DLTensor like = {
      .data = (void *)(uintptr_t)memory,
      .device = {CUDA, 0},
      .ndim = (int32_t)spec[3],
      .dtype = {(uint8_t)spec[0], (uint8_t)spec[1], (uint16_t)spec[2]},
      .shape = shape,
      .strides = strides,
      .byte_offset = (uint64_t)spec[4]};
  return make(&like, memory, NULL);
}

/* A copy of what is lent, made by the GPU: dense in C order only. */
EXPORT DLManagedTensorVersioned *cl_copy(const DLTensor *x) {
  size_t size = (size_t)(x->dtype.bits * x->dtype.lanes + 7) / 8;
  int64_t expected = 1;
  for (int i = x->ndim - 1; i >= 0; i--) {
    if (x->strides != NULL && x->shape[i] > 1 && x->strides[i] != expected)
      return NULL;
    expected *= x->shape[i];
  }
  size *= (size_t)expected;
  uint64_t from = (uint64_t)(uintptr_t)x->data + x->byte_offset;
  uint64_t memory = memory_of(NULL, from, size);
  if (memory == 0) return NULL;
  DLTensor like = *x;
  like.data = (void *)(uintptr_t)memory;
  like.byte_offset = 0;
  return make(&like, memory, NULL);
}

/* Takes a tensor over, and gives it on as one of its own. */
EXPORT DLManagedTensorVersioned *cl_take(DLManagedTensorVersioned *x) {
  return make(&x->dl_tensor, 0, x);
}
