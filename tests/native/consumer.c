/* A consumer of managed tensors, as real ones are: it reads the struct that
 * somebody exported, reads and writes elements by their strides, and calls the
 * deleter when and from where it pleases.
 *
 * Both structs are passed as void *, with versioned to tell which it is.
 */
#ifndef _WIN32
#define _DEFAULT_SOURCE /* nanosleep */
#endif

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dlpack_abi.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define EXPORT __declspec(dllexport)
#else
#include <pthread.h>
#include <time.h>
#define EXPORT __attribute__((visibility("default")))
#endif

#define PADDED 4 /* DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED */

static const DLTensor *tensor_of(const void *managed, bool versioned) {
  return versioned ? &((const DLManagedTensorVersioned *)managed)->dl_tensor
                   : &((const DLManagedTensor *)managed)->dl_tensor;
}

/* ---- the struct ---- */

/* Every field: 15 numbers, pointers as addresses.
 *    0 version.major    1 version.minor    2 flags     (all 0 when legacy)
 *    3 manager_ctx      4 deleter          5 data
 *    6 device_type      7 device_id        8 ndim
 *    9 dtype.code      10 dtype.bits      11 dtype.lanes
 *   12 shape           13 strides         14 byte_offset
 */
EXPORT void consumer_describe(const void *managed, bool versioned,
                              uint64_t *out) {
  const DLTensor *tensor = tensor_of(managed, versioned);
  if (versioned) {
    const DLManagedTensorVersioned *self = managed;
    out[0] = self->version.major;
    out[1] = self->version.minor;
    out[2] = self->flags;
    out[3] = (uint64_t)(uintptr_t)self->manager_ctx;
    out[4] = (uint64_t)(uintptr_t)self->deleter;
  } else {
    const DLManagedTensor *self = managed;
    out[0] = out[1] = out[2] = 0;
    out[3] = (uint64_t)(uintptr_t)self->manager_ctx;
    out[4] = (uint64_t)(uintptr_t)self->deleter;
  }
  out[5] = (uint64_t)(uintptr_t)tensor->data;
  out[6] = (uint64_t)tensor->device.device_type;
  out[7] = (uint64_t)tensor->device.device_id;
  out[8] = (uint64_t)tensor->ndim;
  out[9] = tensor->dtype.code;
  out[10] = tensor->dtype.bits;
  out[11] = tensor->dtype.lanes;
  out[12] = (uint64_t)(uintptr_t)tensor->shape;
  out[13] = (uint64_t)(uintptr_t)tensor->strides;
  out[14] = tensor->byte_offset;
}

/* The ndim lengths, then the ndim strides. */
EXPORT void consumer_axes(const void *managed, bool versioned, int64_t *out) {
  const DLTensor *tensor = tensor_of(managed, versioned);
  for (int32_t axis = 0; axis < tensor->ndim; axis++) {
    out[axis] = tensor->shape[axis];
    out[tensor->ndim + axis] = tensor->strides[axis];
  }
}

/* ---- the elements ---- */

/* Copies the bits of an element, the lowest first. */
static void copy_bits(uint8_t *to, int64_t to_bit, const uint8_t *from,
                      int64_t from_bit, int bits) {
  for (int i = 0; i < bits; i++, to_bit++, from_bit++) {
    uint8_t mask = (uint8_t)(1 << to_bit % 8);
    bool bit = from[from_bit / 8] >> from_bit % 8 & 1;
    to[to_bit / 8] = (uint8_t)(bit ? to[to_bit / 8] | mask
                                   : to[to_bit / 8] & ~mask);
  }
}

/* Goes over the elements in C order: reads them into, or writes them from, an
 * array in which each has whole bytes. */
static void move_elements(const void *managed, bool versioned, uint8_t *array,
                          bool writes) {
  const DLTensor *tensor = tensor_of(managed, versioned);
  bool padded =
      versioned && ((const DLManagedTensorVersioned *)managed)->flags & PADDED;
  int bits = tensor->dtype.bits;
  int whole = (bits + 7) / 8 * 8;
  int step = padded ? whole : bits;
  int64_t size = 1;
  for (int32_t axis = 0; axis < tensor->ndim; axis++) {
    size *= tensor->shape[axis];
  }
  uint8_t *data = (uint8_t *)tensor->data + tensor->byte_offset;
  for (int64_t element = 0; element < size; element++) {
    int64_t at = 0, rest = element;
    for (int32_t axis = tensor->ndim - 1; axis >= 0; axis--) {
      at += rest % tensor->shape[axis] * tensor->strides[axis];
      rest /= tensor->shape[axis];
    }
    /* From the byte that it starts in: at may be negative. */
    int64_t bit = (at * step % 8 + 8) % 8;
    uint8_t *byte = data + (at * step - bit) / 8;
    if (writes) copy_bits(byte, bit, array, element * whole, bits);
    else copy_bits(array, element * whole, byte, bit, bits);
  }
}

/* Reads the elements in C order, each in whole bytes. */
EXPORT void consumer_read(const void *managed, bool versioned, uint8_t *into) {
  move_elements(managed, versioned, into, false);
}

/* Writes the elements in C order, each from whole bytes. */
EXPORT void consumer_write(const void *managed, bool versioned,
                           uint8_t *from) {
  move_elements(managed, versioned, from, true);
}

/* ---- the end ---- */

/* A copy of the struct at another address, as some consumers keep it; the
 * original is overwritten, since they let go of it. Freed by the caller. */
EXPORT void *consumer_move(void *managed, bool versioned) {
  size_t size =
      versioned ? sizeof(DLManagedTensorVersioned) : sizeof(DLManagedTensor);
  void *copy = malloc(size);
  if (copy == NULL) abort();
  memcpy(copy, managed, size);
  memset(managed, 0xDB, size);
  return copy;
}

/* Frees what consumer_move gave. */
EXPORT void consumer_free(void *copy) { free(copy); }

/* Calls the deleter. */
EXPORT void consumer_delete(void *managed, bool versioned) {
  if (versioned) {
    DLManagedTensorVersioned *self = managed;
    self->deleter(self);
  } else {
    DLManagedTensor *self = managed;
    self->deleter(self);
  }
}

/* Calls the deleter with a struct of ours that has another manager_ctx. */
EXPORT void consumer_delete_stranger(const void *managed, bool versioned,
                                     uint64_t manager_ctx) {
  if (versioned) {
    DLManagedTensorVersioned self = *(const DLManagedTensorVersioned *)managed;
    self.manager_ctx = (void *)(uintptr_t)manager_ctx;
    self.deleter(&self);
  } else {
    DLManagedTensor self = *(const DLManagedTensor *)managed;
    self.manager_ctx = (void *)(uintptr_t)manager_ctx;
    self.deleter(&self);
  }
}

typedef struct {
  void *managed;
  bool versioned;
  int32_t delay_ms;
} Deletion;

#ifdef _WIN32
typedef HANDLE Thread;
static DWORD WINAPI run_deletion(void *argument) {
  Deletion deletion = *(Deletion *)argument;
  free(argument);
  if (deletion.delay_ms > 0) Sleep((DWORD)deletion.delay_ms);
  consumer_delete(deletion.managed, deletion.versioned);
  return 0;
}
static Thread start(Deletion *deletion) {
  Thread thread = CreateThread(NULL, 0, run_deletion, deletion, 0, NULL);
  if (thread == NULL) abort();
  return thread;
}
static void join(Thread thread) {
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
}
static void detach(Thread thread) { CloseHandle(thread); }
#else
typedef pthread_t Thread;
static void *run_deletion(void *argument) {
  Deletion deletion = *(Deletion *)argument;
  free(argument);
  if (deletion.delay_ms > 0) {
    struct timespec time = {deletion.delay_ms / 1000,
                            (long)(deletion.delay_ms % 1000) * 1000000};
    nanosleep(&time, NULL);
  }
  consumer_delete(deletion.managed, deletion.versioned);
  return NULL;
}
static Thread start(Deletion *deletion) {
  Thread thread;
  if (pthread_create(&thread, NULL, run_deletion, deletion) != 0) abort();
  return thread;
}
static void join(Thread thread) { pthread_join(thread, NULL); }
static void detach(Thread thread) { pthread_detach(thread); }
#endif

static Thread start_deletion(void *managed, bool versioned, int32_t delay_ms) {
  Deletion *deletion = malloc(sizeof *deletion);
  if (deletion == NULL) abort();
  *deletion = (Deletion){managed, versioned, delay_ms};
  return start(deletion);
}

/* Calls the deleter on a thread of its own and waits for the thread to end. */
EXPORT void consumer_delete_from_thread(void *managed, bool versioned) {
  join(start_deletion(managed, versioned, 0));
}

/* Calls the deleter on a thread of its own after a while; returns at once. */
EXPORT void consumer_delete_later(void *managed, bool versioned,
                                  int32_t delay_ms) {
  detach(start_deletion(managed, versioned, delay_ms));
}
