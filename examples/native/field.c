/* A small C library of the kind that has arrays to show: heat that spreads
 * over a plate. It hands its memory out as DLPack tensors, without a copy.
 *
 *   cc -std=c11 -O1 -shared -fPIC -o field.so field.c
 */
#include <stdlib.h>

#include "dlpack_min.h" /* in your project: <dlpack/dlpack.h> */

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* ---- memory that several owners share ---- */

/* Goes when its last owner lets go of it: the field, or a tensor. (Deleters
 * run where the tensor's consumer runs. With more threads than one, make both
 * counts in this file atomic.) */
typedef struct {
  int64_t owners;
  void *bytes;
} Memory;

static Memory *memory_new(size_t size) {
  Memory *memory = calloc(1, sizeof *memory + size);
  if (memory == NULL) return NULL;
  memory->owners = 1;
  memory->bytes = memory + 1;
  return memory;
}

static void memory_drop(Memory *memory) {
  if (--memory->owners == 0) free(memory);
}

/* ---- the simulation ---- */

/* Temperatures in degrees, rows from the top; those at the rim stay as they
 * are. Each row is padded to whole cache lines, as fast code likes it. */
typedef struct {
  int rows;
  int columns;
  int pitch; /* cells from one row to the next */
  Memory *memory;
  float *cells;
  float *next; /* scratch */
} Field;

enum { CELLS_PER_CACHE_LINE = 16 };

/* Cold everywhere; NULL when there is no memory. */
EXPORT Field *field_new(int rows, int columns) {
  if (rows < 1 || columns < 1) return NULL;
  int lines = (columns - 1) / CELLS_PER_CACHE_LINE + 1;
  int pitch = lines * CELLS_PER_CACHE_LINE;
  size_t size = (size_t)rows * (size_t)pitch * sizeof(float);
  Field *field = malloc(sizeof *field);
  Memory *memory = memory_new(size);
  float *next = malloc(size);
  if (field == NULL || memory == NULL || next == NULL) {
    free(field);
    free(memory);
    free(next);
    return NULL;
  }
  *field = (Field){rows, columns, pitch, memory, memory->bytes, next};
  return field;
}

/* Tensors of the field stay valid: the memory is theirs, too. */
EXPORT void field_free(Field *field) {
  memory_drop(field->memory);
  free(field->next);
  free(field);
}

static size_t cell(const Field *field, int row, int column) {
  return (size_t)row * (size_t)field->pitch + (size_t)column;
}

/* One temperature; row and column must lie on the plate. */
EXPORT float field_at(const Field *field, int row, int column) {
  return field->cells[cell(field, row, column)];
}

/* Lets the heat spread for one unit of time. The cells stay where they are in
 * memory, for tensors point there. */
EXPORT void field_step(Field *field) {
  float *now = field->cells;
  for (int row = 1; row < field->rows - 1; row++) {
    for (int column = 1; column < field->columns - 1; column++) {
      field->next[cell(field, row, column)] =
          (now[cell(field, row - 1, column)] +
           now[cell(field, row + 1, column)] +
           now[cell(field, row, column - 1)] +
           now[cell(field, row, column + 1)]) / 4;
    }
  }
  for (int row = 1; row < field->rows - 1; row++) {
    for (int column = 1; column < field->columns - 1; column++) {
      size_t i = cell(field, row, column);
      now[i] = field->next[i];
    }
  }
}

/* ---- its memory as tensors ---- */

enum { MAX_NDIM = 3 };

/* All that a tensor needs, in one block: the struct for the consumer, what
 * the struct points to, and a share of the memory. */
typedef struct {
  union {
    DLManagedTensor legacy;
    DLManagedTensorVersioned versioned;
  } managed;
  int64_t shape[MAX_NDIM];
  int64_t strides[MAX_NDIM];
  Memory *memory;
} Tensor;

static int deleted = 0;

/* How many tensors came back. */
EXPORT int field_tensors_deleted(void) {
  return deleted;
}

static void tensor_delete(Tensor *tensor) {
  memory_drop(tensor->memory);
  free(tensor);
  deleted++;
}

static void delete_legacy(DLManagedTensor *self) {
  tensor_delete(self->manager_ctx);
}

static void delete_versioned(DLManagedTensorVersioned *self) {
  tensor_delete(self->manager_ctx);
}

/* A tensor's elements: where the first lies, and how the rest follows. */
typedef struct {
  DLDataType dtype;
  size_t byte_offset;
  int ndim;
  int64_t shape[MAX_NDIM];
  int64_t strides[MAX_NDIM]; /* in elements */
} Elements;

/* Fills in all but the managed struct, and joins the memory's owners. */
static Tensor *tensor_new(Memory *memory, Elements elements, DLTensor *dl) {
  Tensor *tensor = calloc(1, sizeof *tensor);
  if (tensor == NULL) return NULL;
  for (int axis = 0; axis < elements.ndim; axis++) {
    tensor->shape[axis] = elements.shape[axis];
    tensor->strides[axis] = elements.strides[axis];
  }
  tensor->memory = memory;
  memory->owners++;
  dl->data = memory->bytes;
  dl->device = (DLDevice){kDLCPU, 0};
  dl->ndim = elements.ndim;
  dl->dtype = elements.dtype;
  dl->shape = tensor->shape;
  dl->strides = tensor->strides;
  dl->byte_offset = elements.byte_offset;
  return tensor;
}

static DLManagedTensor *to_legacy(Memory *memory, Elements elements) {
  DLTensor dl;
  Tensor *tensor = tensor_new(memory, elements, &dl);
  if (tensor == NULL) return NULL;
  DLManagedTensor *managed = &tensor->managed.legacy;
  managed->dl_tensor = dl;
  managed->manager_ctx = tensor;
  managed->deleter = delete_legacy;
  return managed;
}

static DLManagedTensorVersioned *to_versioned(Memory *memory,
                                              Elements elements) {
  DLTensor dl;
  Tensor *tensor = tensor_new(memory, elements, &dl);
  if (tensor == NULL) return NULL;
  DLManagedTensorVersioned *managed = &tensor->managed.versioned;
  managed->version = (DLPackVersion){1, 0};
  managed->dl_tensor = dl;
  managed->manager_ctx = tensor;
  managed->deleter = delete_versioned;
  return managed;
}

static const DLDataType FLOAT32 = {kDLFloat, 32, 1};
static const DLDataType UINT8 = {kDLUInt, 8, 1};

/* The field's cells, row by row, padding left out. */
static Elements cells_of(const Field *field) {
  return (Elements){
      .dtype = FLOAT32,
      .ndim = 2,
      .shape = {field->rows, field->columns},
      .strides = {field->pitch, 1},
  };
}

/* The field: float32, rows by columns. NULL, as from all functions below,
 * when there is no memory for the struct. */
EXPORT DLManagedTensorVersioned *field_tensor(Field *field) {
  return to_versioned(field->memory, cells_of(field));
}

/* The field in the struct from before DLPack 1.0. */
EXPORT DLManagedTensor *field_legacy(Field *field) {
  return to_legacy(field->memory, cells_of(field));
}

/* The field transposed: columns by rows. */
EXPORT DLManagedTensorVersioned *field_transposed(Field *field) {
  Elements elements = cells_of(field);
  elements.shape[0] = field->columns;
  elements.shape[1] = field->rows;
  elements.strides[0] = 1;
  elements.strides[1] = field->pitch;
  return to_versioned(field->memory, elements);
}

/* The field from the bottom row up: it begins at the last row, and each step
 * goes back one. */
EXPORT DLManagedTensorVersioned *field_upwards(Field *field) {
  Elements elements = cells_of(field);
  elements.byte_offset = cell(field, field->rows - 1, 0) * sizeof(float);
  elements.strides[0] = -field->pitch;
  return to_versioned(field->memory, elements);
}

static uint8_t shade(float degrees) {
  if (!(degrees > 0)) return 0;
  return degrees < 100 ? (uint8_t)(degrees * 2.55f) : 255;
}

/* A picture of the field, blue where it has 0 degrees, red from 100 on: uint8,
 * rows by columns by RGB, without padding. It is the tensor's alone. */
EXPORT DLManagedTensorVersioned *field_image(const Field *field) {
  int64_t rows = field->rows;
  int64_t columns = field->columns;
  Memory *memory = memory_new((size_t)rows * (size_t)columns * 3);
  if (memory == NULL) return NULL;
  uint8_t *pixel = memory->bytes;
  for (int row = 0; row < rows; row++) {
    for (int column = 0; column < columns; column++, pixel += 3) {
      uint8_t red = shade(field_at(field, row, column));
      pixel[0] = red;
      pixel[2] = (uint8_t)(255 - red);
    }
  }
  Elements elements = {
      .dtype = UINT8,
      .ndim = 3,
      .shape = {rows, columns, 3},
      .strides = {columns * 3, 3, 1},
  };
  DLManagedTensorVersioned *image = to_versioned(memory, elements);
  memory_drop(memory);
  return image;
}
