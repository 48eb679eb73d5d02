/* A producer that costs next to nothing, for benchmarks: a pool of managed
 * tensors made beforehand, handed out one after the other; their deleter
 * counts. */
#define _GNU_SOURCE /* madvise, posix_memalign */
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "../native/dlpack_abi.h"

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { MAX_NDIM = 8 };

typedef struct {
  DLManagedTensorVersioned managed;
  int64_t shape[MAX_NDIM];
  int64_t strides[MAX_NDIM];
} Block;

static Block *pool = NULL;
static size_t pool_length = 0;
static size_t next = 0;
static uint64_t deleted = 0;

static void count(DLManagedTensorVersioned *self) {
  (void)self;
  deleted++;
}

/* Makes `length` C-ordered float32 tensors of one shape over one memory. */
EXPORT void bench_init(uint64_t length, int32_t ndim, const int64_t *shape,
                       void *data) {
  pool = realloc(pool, length * sizeof *pool);
  memset(pool, 0, length * sizeof *pool);
  pool_length = length;
  next = 0;
  for (size_t i = 0; i < length; i++) {
    Block *block = &pool[i];
    int64_t stride = 1;
    for (int axis = ndim - 1; axis >= 0; axis--) {
      block->shape[axis] = shape[axis];
      block->strides[axis] = stride;
      stride *= shape[axis];
    }
    block->managed.version = (DLPackVersion){1, 0};
    block->managed.deleter = count;
    block->managed.dl_tensor = (DLTensor){
        .data = data,
        .device = {1, 0},
        .ndim = ndim,
        .dtype = {2, 32, 1},
        .shape = block->shape,
        .strides = block->strides,
        .byte_offset = 0,
    };
  }
}

/* The next tensor of the pool. */
EXPORT DLManagedTensorVersioned *bench_make(void) {
  if (next == pool_length) next = 0;
  return &pool[next++].managed;
}

/* Memory as NumPy allocates it: of 4 MiB and more with huge pages, where the
 * system has them. */
EXPORT void *bench_allocate(uint64_t bytes) {
#ifdef __linux__
  enum { HUGE_PAGE = 1 << 21 };
  if (bytes >= 1 << 22) {
    void *memory = NULL;
    if (posix_memalign(&memory, HUGE_PAGE, bytes) != 0) return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
  }
#endif
  return malloc(bytes);
}

EXPORT void bench_free(void *memory) { free(memory); }

/* How often the deleter ran. */
EXPORT uint64_t bench_deleted(void) { return deleted; }

/* How many of three pointers are there: a function that does nothing much. */
EXPORT int32_t bench_three(const void *a, const void *b, const void *c) {
  return (a != NULL) + (b != NULL) + (c != NULL);
}
