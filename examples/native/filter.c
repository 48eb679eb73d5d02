/* A small image library of the kind that C has many of: every function returns
 * a status, results come through a parameter, and images are DLPack tensors:
 * float32, rows by columns, any strides.
 *
 *   cc -std=c11 -O1 -shared -fPIC -o filter.so filter.c
 */
#include <stdlib.h>

#include "dlpack_min.h" /* in your project: <dlpack/dlpack.h> */

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef enum {
  FILTER_OK,
  FILTER_NOT_AN_IMAGE,
  FILTER_BAD_RADIUS,
  FILTER_NO_MEMORY
} FilterStatus;

static const char *const messages[] = {
    "No error",
    "An image has two axes of float32, in the memory of the host",
    "The radius must be 0 or more, and less than each side of the image",
    "There is not enough memory",
};

/* What a status means. */
EXPORT const char *filter_message(FilterStatus status) {
  return messages[status];
}

static int is_image(const DLTensor *t) {
  return t->ndim == 2 && t->device.device_type == kDLCPU &&
         t->dtype.code == kDLFloat && t->dtype.bits == 32 &&
         t->dtype.lanes == 1;
}

/* One pixel, wherever the strides put it. */
static float *pixel(const DLTensor *image, int64_t row, int64_t column) {
  float *first = (float *)((char *)image->data + image->byte_offset);
  return first + row * image->strides[0] + column * image->strides[1];
}

/* Sets every pixel to 0 below the level, to 1 from there on: in place. */
EXPORT FilterStatus filter_threshold(DLTensor *image, float level) {
  if (!is_image(image)) return FILTER_NOT_AN_IMAGE;
  for (int64_t row = 0; row < image->shape[0]; row++) {
    for (int64_t column = 0; column < image->shape[1]; column++) {
      float *at = pixel(image, row, column);
      *at = *at < level ? 0 : 1;
    }
  }
  return FILTER_OK;
}

/* ---- an image of the library's own ---- */

typedef struct {
  DLManagedTensorVersioned managed;
  int64_t shape[2];
  int64_t strides[2];
  float pixels[];
} Image;

static void image_delete(DLManagedTensorVersioned *self) {
  free(self->manager_ctx);
}

/* NULL when there is no memory. */
static Image *image_new(int64_t rows, int64_t columns) {
  size_t size = (size_t)rows * (size_t)columns * sizeof(float);
  Image *image = calloc(1, sizeof *image + size);
  if (image == NULL) return NULL;
  image->shape[0] = rows;
  image->shape[1] = columns;
  image->strides[0] = columns;
  image->strides[1] = 1;
  image->managed = (DLManagedTensorVersioned){
      .version = {1, 0},
      .manager_ctx = image,
      .deleter = image_delete,
      .dl_tensor = {.data = image->pixels,
                    .device = {kDLCPU, 0},
                    .ndim = 2,
                    .dtype = {kDLFloat, 32, 1},
                    .shape = image->shape,
                    .strides = image->strides},
  };
  return image;
}

/* The mean of a square around a pixel, as much of it as lies in the image. */
static float mean_around(const DLTensor *image, int64_t row, int64_t column,
                         int32_t radius) {
  float sum = 0;
  int64_t count = 0;
  for (int64_t i = row - radius; i <= row + radius; i++) {
    for (int64_t j = column - radius; j <= column + radius; j++) {
      if (i < 0 || i >= image->shape[0]) continue;
      if (j < 0 || j >= image->shape[1]) continue;
      sum += *pixel(image, i, j);
      count++;
    }
  }
  return sum / (float)count;
}

/* Blurs into a new image, which is the caller's to delete. */
EXPORT FilterStatus filter_blur(const DLTensor *image, int32_t radius,
                                DLManagedTensorVersioned **out) {
  if (!is_image(image)) return FILTER_NOT_AN_IMAGE;
  if (radius < 0 || radius >= image->shape[0] || radius >= image->shape[1]) {
    return FILTER_BAD_RADIUS;
  }
  Image *blurred = image_new(image->shape[0], image->shape[1]);
  if (blurred == NULL) return FILTER_NO_MEMORY;
  float *at = blurred->pixels;
  for (int64_t row = 0; row < image->shape[0]; row++) {
    for (int64_t column = 0; column < image->shape[1]; column++) {
      *at++ = mean_around(image, row, column, radius);
    }
  }
  *out = &blurred->managed;
  return FILTER_OK;
}
