/* A library whose functions take and return tensors in every way that C has:
 * borrowed, handed over, returned, and through a parameter.
 *
 * It counts in memory that the tests give it, so that the counts outlive the
 * library: its last one says that the library's code is gone.
 */
#ifndef _WIN32
#define _DEFAULT_SOURCE /* nanosleep */
#endif

#include <stdbool.h>
#include <stdlib.h>

#include "dlpack_abi.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define EXPORT __declspec(dllexport)
static void pause_1ms(void) { Sleep(1); }
#else
#include <time.h>
#define EXPORT __attribute__((visibility("default")))
static void pause_1ms(void) { nanosleep(&(struct timespec){0, 1000000}, NULL); }
#endif

/* Opened, as 1, by another thread. */
typedef const volatile int32_t Gate;

static void wait_for(Gate *gate) {
  while (*gate == 0) pause_1ms();
}

/* What is counted. */
enum { MADE, DELETED, CONSUMED, CALLED, UNLOADED, COUNTS };

static int64_t nowhere[COUNTS];
static int64_t *counts = nowhere;

/* Counts in `into` from here on. */
EXPORT void calls_count(int64_t *into) { counts = into; }

#ifdef _WIN32
BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, LPVOID reserved) {
  (void)library, (void)reserved;
  if (reason == DLL_PROCESS_DETACH) counts[UNLOADED]++;
  return TRUE;
}
#else
__attribute__((destructor)) static void unloaded(void) { counts[UNLOADED]++; }
#endif

/* ---- tensors of this library: float32, 0, 1, 2, ... ---- */

typedef struct {
  union {
    DLManagedTensor legacy;
    DLManagedTensorVersioned versioned;
  } managed; /* first: what the deleters get */
  int64_t shape[1];
  float data[];
} Block;

static void delete_legacy(DLManagedTensor *self) {
  counts[DELETED]++;
  free(self);
}

static void delete_versioned(DLManagedTensorVersioned *self) {
  counts[DELETED]++;
  free(self);
}

static Block *block_new(int64_t length) {
  if (length < 0) return NULL;
  Block *block = calloc(1, sizeof(Block) + (size_t)length * sizeof(float));
  if (block == NULL) return NULL;
  counts[MADE]++;
  block->shape[0] = length;
  for (int64_t i = 0; i < length; i++) block->data[i] = (float)i;
  return block;
}

static DLTensor block_tensor(Block *block) {
  return (DLTensor){.data = block->data,
                    .device = {1, 0},
                    .ndim = 1,
                    .dtype = {2, 32, 1},
                    .shape = block->shape};
}

/* NULL for a negative length. */
EXPORT DLManagedTensor *calls_make_legacy(int32_t length) {
  Block *block = block_new(length);
  if (block == NULL) return NULL;
  block->managed.legacy.dl_tensor = block_tensor(block);
  block->managed.legacy.deleter = delete_legacy;
  return &block->managed.legacy;
}

/* NULL for a negative length. */
EXPORT DLManagedTensorVersioned *calls_make(int32_t length) {
  Block *block = block_new(length);
  if (block == NULL) return NULL;
  block->managed.versioned.version = (DLPackVersion){1, 0};
  block->managed.versioned.dl_tensor = block_tensor(block);
  block->managed.versioned.deleter = delete_versioned;
  return &block->managed.versioned;
}

EXPORT DLManagedTensorVersioned *calls_make_when(int32_t length, Gate *gate) {
  wait_for(gate);
  return calls_make(length);
}

/* 0; 1 for a negative length, when nothing is written. */
EXPORT int32_t calls_make_out(int32_t length, DLManagedTensorVersioned **out) {
  DLManagedTensorVersioned *made = calls_make(length);
  if (made == NULL) return 1;
  *out = made;
  return 0;
}

EXPORT int32_t calls_make_out_legacy(int32_t length, DLManagedTensor **out) {
  DLManagedTensor *made = calls_make_legacy(length);
  if (made == NULL) return 1;
  *out = made;
  return 0;
}

EXPORT int32_t calls_make_out_when(int32_t length,
                                   DLManagedTensorVersioned **out, Gate *gate) {
  wait_for(gate);
  return calls_make_out(length, out);
}

/* Writes both, then calls back. */
EXPORT void calls_make_two(DLManagedTensorVersioned **a, DLManagedTensor **b,
                           void (*then)(void)) {
  *a = calls_make(1);
  *b = calls_make_legacy(2);
  if (then != NULL) then();
}

/* ---- borrowed ---- */

/* NULL strides mean C order. */
static int64_t stride(const DLTensor *t, int axis) {
  if (t->strides != NULL) return t->strides[axis];
  int64_t elements = 1;
  for (int i = axis + 1; i < t->ndim; i++) elements *= t->shape[i];
  return elements;
}

static double sum_from(const DLTensor *t, int axis, int64_t at) {
  if (axis == t->ndim) {
    const char *first = (const char *)t->data + t->byte_offset;
    return ((const float *)first)[at];
  }
  double sum = 0;
  for (int64_t i = 0; i < t->shape[axis]; i++) {
    sum += sum_from(t, axis + 1, at + i * stride(t, axis));
  }
  return sum;
}

/* Of float32. */
EXPORT double calls_sum(const DLTensor *t) {
  counts[CALLED]++;
  return sum_from(t, 0, 0);
}

EXPORT double calls_sum_when(const DLTensor *t, Gate *gate) {
  wait_for(gate);
  return calls_sum(t);
}

/* Calls back before it reads. */
EXPORT double calls_sum_after(const DLTensor *t, void (*first)(void)) {
  first();
  return calls_sum(t);
}

/* Of five, so many that nothing is unrolled. */
EXPORT double calls_sum_five(const DLTensor *a, const DLTensor *b, double c,
                             const DLTensor *d, const DLTensor *e) {
  return calls_sum(a) + calls_sum(b) + c + calls_sum(d) + calls_sum(e);
}

/* Scales one axis of float32 in place. */
/* What a library does that goes on with a tensor after the call. */
static const DLTensor *remembered;

EXPORT void calls_remember(const DLTensor *t) { remembered = t; }
EXPORT int32_t calls_remembered_ndim(void) { return remembered->ndim; }

/* Fails, and leaves in both what it got by: an address, or a status. */
EXPORT int32_t calls_fail_with(uint64_t left, uint64_t *a, uint64_t *b) {
  *a = *b = left;
  return -1;
}

EXPORT void calls_scale(DLTensor *t, float by) {
  for (int64_t i = 0; i < t->shape[0]; i++) {
    ((float *)t->data)[i * stride(t, 0)] *= by;
  }
}

/* data, device type and id, ndim, code, bits, lanes, byte offset, whether
 * shape and strides are there, then both. */
EXPORT void calls_describe(const DLTensor *t, int64_t *into) {
  *into++ = (int64_t)(intptr_t)t->data;
  *into++ = t->device.device_type;
  *into++ = t->device.device_id;
  *into++ = t->ndim;
  *into++ = t->dtype.code;
  *into++ = t->dtype.bits;
  *into++ = t->dtype.lanes;
  *into++ = (int64_t)t->byte_offset;
  *into++ = t->shape != NULL;
  *into++ = t->strides != NULL;
  for (int i = 0; i < t->ndim; i++) *into++ = t->shape[i];
  for (int i = 0; i < t->ndim; i++) *into++ = t->strides ? t->strides[i] : 0;
}

/* Whether two borrowed tensors are one struct, and one memory (2). */
EXPORT int32_t calls_same(const DLTensor *a, const DLTensor *b) {
  return (a == b) + 2 * (a->data == b->data);
}

/* ---- handed over ---- */

static DLManagedTensorVersioned *kept;

/* The flags, -1 for another version; the sum in *sum. */
EXPORT int64_t calls_consume(DLManagedTensorVersioned *managed, double *sum) {
  counts[CONSUMED]++;
  *sum = calls_sum(&managed->dl_tensor);
  int64_t flags = managed->version.major == 1 ? (int64_t)managed->flags : -1;
  managed->deleter(managed);
  return flags;
}

EXPORT double calls_consume_legacy(DLManagedTensor *managed) {
  counts[CONSUMED]++;
  double sum = calls_sum(&managed->dl_tensor);
  managed->deleter(managed);
  return sum;
}

EXPORT double calls_consume_two(DLManagedTensorVersioned *a,
                                DLManagedTensorVersioned *b) {
  double sum_a, sum_b;
  calls_consume(a, &sum_a);
  calls_consume(b, &sum_b);
  return sum_a + sum_b;
}

EXPORT double calls_consume_when(DLManagedTensorVersioned *managed,
                                 Gate *gate) {
  double sum;
  wait_for(gate);
  calls_consume(managed, &sum);
  return sum;
}

/* Consumes, then calls back. */
EXPORT void calls_consume_then(DLManagedTensorVersioned *managed,
                               void (*then)(void)) {
  double sum;
  calls_consume(managed, &sum);
  then();
}

/* Leaves the struct with the caller, as some do when they fail. */
EXPORT int32_t calls_refuse(DLManagedTensorVersioned *managed) {
  (void)managed;
  return 1;
}

/* Keeps it until calls_drop. */
EXPORT void calls_keep(DLManagedTensorVersioned *managed) { kept = managed; }

EXPORT void calls_drop(void) {
  kept->deleter(kept);
  kept = NULL;
}

/* Takes one of every type that Deno has, after the tensor. */
typedef struct {
  double x;
  int32_t y;
} Pair;

EXPORT void calls_consume_with(DLManagedTensorVersioned *managed, uint8_t a,
                               int16_t b, uint64_t c, float d, bool e, void *f,
                               void *g, Pair h) {
  (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  double sum;
  calls_consume(managed, &sum);
}

/* ---- without tensors ---- */

EXPORT int32_t calls_version = 7;

EXPORT int32_t calls_add(int32_t a, int32_t b) { return a + b; }

EXPORT int32_t calls_add_when(int32_t a, int32_t b, Gate *gate) {
  wait_for(gate);
  return a + b;
}

EXPORT Pair calls_swap(Pair pair) {
  return (Pair){(double)pair.y, (int32_t)pair.x};
}

EXPORT int32_t calls_apply(int32_t (*function)(int32_t), int32_t x) {
  return function(x);
}

/* ---- every way that C has to pass a tensor ---- */

/* Writes what the struct of a managed tensor says: manager_ctx and deleter, then
 * what its DLTensor does, as calls_describe. */
EXPORT void calls_look(const DLManagedTensor *managed, int64_t *into) {
  if (managed == NULL) {
    into[0] = -1;
    return;
  }
  into[0] = (int64_t)(intptr_t)managed->manager_ctx;
  into[1] = managed->deleter != NULL;
  into[2] = 0;
  calls_describe(&managed->dl_tensor, into + 3);
}

EXPORT void calls_look_versioned(const DLManagedTensorVersioned *managed,
                                 int64_t *into) {
  into[0] = (int64_t)(intptr_t)managed->manager_ctx;
  into[1] = managed->deleter != NULL;
  into[2] = (int64_t)managed->flags + 1000 * managed->version.major;
  calls_describe(&managed->dl_tensor, into + 3);
}

/* -1 for NULL. */
EXPORT double calls_sum_maybe(const DLTensor *t) {
  return t == NULL ? -1 : calls_sum(t);
}

EXPORT double calls_sum_borrowed(const DLManagedTensor *managed) {
  return managed == NULL ? -1 : calls_sum(&managed->dl_tensor);
}

EXPORT double calls_sum_borrowed_when(const DLManagedTensor *managed,
                                      Gate *gate) {
  wait_for(gate);
  return calls_sum_borrowed(managed);
}

/* -1 for an array that is NULL. */
EXPORT double calls_sum_all(DLTensor **ts, int32_t count) {
  if (ts == NULL) return -1;
  double sum = 0;
  for (int32_t i = 0; i < count; i++) sum += calls_sum(ts[i]);
  return sum;
}

EXPORT double calls_sum_all_when(DLTensor **ts, int32_t count, Gate *gate) {
  wait_for(gate);
  return calls_sum_all(ts, count);
}

/* Of bare memory; -1 for NULL. */
EXPORT double calls_sum_memory(const float *x, int32_t count, int32_t stride) {
  if (x == NULL) return -1;
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i * stride];
  return sum;
}

EXPORT double calls_sum_memory_when(const float *x, int32_t count,
                                    Gate *gate) {
  wait_for(gate);
  return calls_sum_memory(x, count, 1);
}

/* The address that came, whatever is there. */
EXPORT uint64_t calls_address(const void *x) { return (uint64_t)(uintptr_t)x; }

/* The library's own: it is written to by calls_own_set, and freed by nobody. */
static float own_data[3] = {1, 2, 3};
static int64_t own_shape[1] = {3};
static DLTensor own_tensor = {.data = own_data,
                              .device = {1, 0},
                              .ndim = 1,
                              .dtype = {2, 32, 1},
                              .shape = own_shape};

EXPORT DLTensor *calls_own(int32_t is_there) {
  return is_there ? &own_tensor : NULL;
}

EXPORT DLTensor *calls_own_when(Gate *gate) {
  wait_for(gate);
  return &own_tensor;
}

EXPORT void calls_own_set(int32_t at, float value) { own_data[at] = value; }
EXPORT float calls_own_get(int32_t at) { return own_data[at]; }

/* As cuVS does: the deleter of what is filled in place frees only the shape. */
static void delete_axes(DLManagedTensor *self) {
  counts[DELETED]++;
  free(self->dl_tensor.shape);
  self->dl_tensor.shape = NULL;
}

static void delete_all(DLManagedTensorVersioned *self) {
  counts[DELETED]++;
  free(self->manager_ctx);
}

/* Fills the caller's struct with the library's own memory; nothing for 0. */
EXPORT int32_t calls_fill(int32_t is_there, DLManagedTensor *out) {
  if (!is_there) return 1;
  int64_t *shape = malloc(sizeof *shape);
  if (shape == NULL) return 1;
  counts[MADE]++;
  *shape = 3;
  out->dl_tensor = own_tensor;
  out->dl_tensor.shape = shape;
  out->deleter = delete_axes;
  return 0;
}

EXPORT int32_t calls_fill_versioned(int32_t length,
                                    DLManagedTensorVersioned *out) {
  Block *block = block_new(length);
  if (block == NULL) return 1;
  *out = (DLManagedTensorVersioned){.version = {1, 0},
                                    .manager_ctx = block,
                                    .deleter = delete_all,
                                    .dl_tensor = block_tensor(block)};
  return 0;
}

EXPORT int32_t calls_fill_when(DLManagedTensor *out, Gate *gate) {
  wait_for(gate);
  return calls_fill(1, out);
}

/* Makes as many tensors, of lengths 1, 2, 3, …, as there are cells. */
EXPORT void calls_make_many(DLManagedTensor **outs, int32_t count) {
  for (int32_t i = 0; outs != NULL && i < count; i++) {
    outs[i] = calls_make_legacy(i + 1);
  }
}

/* Says where the struct is that it takes over, and deletes it. */
EXPORT double calls_consume_maybe(DLManagedTensor *managed) {
  return managed == NULL ? -1 : calls_consume_legacy(managed);
}
