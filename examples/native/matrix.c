#include <stdlib.h>
#include "dlpack_min.h" /* in your project: <dlpack/dlpack.h> */

static void matrix_delete(DLManagedTensorVersioned *self) { free(self); }

/* Rows by columns of float32, zeros. The caller owes it one call of its deleter. */
DLManagedTensorVersioned *matrix_new(int64_t rows, int64_t columns) {
  /* One block: the struct, 2 lengths, 2 strides, the elements. */
  size_t axes = sizeof(DLManagedTensorVersioned), data = axes + 4 * sizeof(int64_t);
  char *block = calloc(1, data + (size_t)(rows * columns) * sizeof(float));
  if (block == NULL) return NULL;
  DLManagedTensorVersioned *m = (DLManagedTensorVersioned *)block;
  int64_t *shape = (int64_t *)(block + axes);
  shape[0] = rows, shape[1] = columns, shape[2] = columns, shape[3] = 1;
  m->version = (DLPackVersion){1, 0};
  m->deleter = matrix_delete;
  m->dl_tensor = (DLTensor){.data = block + data, .device = {kDLCPU, 0}, .ndim = 2,
                            .dtype = {kDLFloat, 32, 1}, .shape = shape, .strides = shape + 2};
  return m;
}
