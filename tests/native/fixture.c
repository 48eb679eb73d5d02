/* Managed tensors where nothing passes by luck.
 *
 * The managed struct, the shape, the strides and the data of a tensor each lie
 * in a mapping of their own, between two pages nobody may touch, flush against
 * one of them; struct, shape and strides are read-only besides. The deleter
 * takes all of it away, and the addresses stay barred for a while, so that a
 * stray read, a late read and a write to the producer's struct all crash.
 * Every deleter call is looked up by address before anything is touched, so a
 * second call is counted instead of crashing.
 *
 * Calls are thread-safe. A kernel allows only so many mappings (about 65000 on
 * Linux: 8000 tensors); HEAP puts tensors in malloc's memory, for any number.
 */
#ifndef _WIN32
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE
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
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#define EXPORT __attribute__((visibility("default")))
#endif

/* What the numbers of a spec mean (see fx_new). */
enum {
  SPEC_VERSIONED,
  SPEC_MAJOR,
  SPEC_MINOR,
  SPEC_FLAGS,
  SPEC_DEVICE_TYPE,
  SPEC_DEVICE_ID,
  SPEC_NDIM,
  SPEC_CODE,
  SPEC_BITS,
  SPEC_LANES,
  SPEC_BYTE_OFFSET,
  SPEC_NBYTES,
  SPEC_ORIGIN,
  SPEC_PLACE,
  SPEC_DATA,
  SPEC_DELETER,
  SPEC_SHAPE_LENGTH,
  SPEC_STRIDES_LENGTH,
  SPEC_HANDLE
};
enum { PLACE_END, PLACE_START, PLACE_HEAP };
enum { DATA_NORMAL, DATA_NULL, DATA_HANDLE };
enum {
  DELETER_NORMAL,
  DELETER_NULL,
  DELETER_SLOW,
  DELETER_CALLBACK,
  DELETER_POISON
};

#define POISON 0xDB /* also fills what lies between a region and its page */
#define SLOW_MS 100

static void die(const char *message) {
  fprintf(stderr, "fixture: %s\n", message);
  abort();
}

/* ---- the system ---- */

#ifdef _WIN32

static SRWLOCK mutex = SRWLOCK_INIT;
static void lock(void) { AcquireSRWLockExclusive(&mutex); }
static void unlock(void) { ReleaseSRWLockExclusive(&mutex); }
static void sleep_ms(unsigned ms) { Sleep(ms); }

static size_t page_size(void) {
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  return info.dwPageSize;
}
static uint8_t *reserve(size_t size) {
  return VirtualAlloc(NULL, size, MEM_RESERVE, PAGE_NOACCESS);
}
static bool commit(uint8_t *at, size_t size) {
  return VirtualAlloc(at, size, MEM_COMMIT, PAGE_READWRITE) != NULL;
}
static void make_read_only(uint8_t *at, size_t size) {
  DWORD before;
  if (!VirtualProtect(at, size, PAGE_READONLY, &before)) die("VirtualProtect");
}
/* Gives the memory back; the addresses stay reserved, and barred. */
static void decommit(uint8_t *at, size_t size) {
  if (!VirtualFree(at, size, MEM_DECOMMIT)) die("VirtualFree");
}
static void unreserve(uint8_t *at, size_t size) {
  (void)size;
  if (!VirtualFree(at, 0, MEM_RELEASE)) die("VirtualFree");
}

#else

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }
static void sleep_ms(unsigned ms) {
  struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
  nanosleep(&time, NULL);
}

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }
static uint8_t *reserve(size_t size) {
  void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? NULL : at;
}
static bool commit(uint8_t *at, size_t size) {
  return mprotect(at, size, PROT_READ | PROT_WRITE) == 0;
}
static void make_read_only(uint8_t *at, size_t size) {
  if (mprotect(at, size, PROT_READ) != 0) die("mprotect");
}
/* Gives the memory back; the addresses stay reserved, and barred. */
static void decommit(uint8_t *at, size_t size) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap(at, size, PROT_NONE, flags, -1, 0) == MAP_FAILED) die("mmap");
}
static void unreserve(uint8_t *at, size_t size) {
  if (munmap(at, size) != 0) die("munmap");
}

#endif

/* ---- regions: bytes between two guard pages ---- */

typedef struct {
  uint8_t *first;    /* the first byte of the region */
  size_t size;       /* its bytes, 0 allowed */
  uint8_t *reserved; /* the lower guard page; NULL on the heap */
  size_t extent;     /* from the lower guard page to the end of the upper */
} Region;

static bool region_new(Region *region, size_t size, int place) {
  *region = (Region){.size = size};
  if (place == PLACE_HEAP) {
    region->first = calloc(size > 0 ? size : 1, 1);
    return region->first != NULL;
  }
  size_t page = page_size();
  if (size > SIZE_MAX - 3 * page) return false;
  size_t inside = (size + page - 1) / page * page;
  uint8_t *reserved = reserve(inside + 2 * page);
  if (reserved == NULL) return false;
  region->reserved = reserved;
  region->extent = inside + 2 * page;
  uint8_t *body = reserved + page;
  if (inside > 0 && !commit(body, inside)) return false;
  size_t slack = inside - size;
  region->first = place == PLACE_START ? body : body + slack;
  memset(place == PLACE_START ? body + size : body, POISON, slack);
  return true;
}

static void region_read_only(const Region *region) {
  if (region->reserved == NULL || region->size == 0) return;
  size_t page = page_size();
  make_read_only(region->reserved + page, region->extent - 2 * page);
}

/* The most recently freed regions stay barred, so that no later tensor gets
 * their addresses while somebody may still hold one. */
#define BARRED 4096
static struct {
  uint8_t *reserved;
  size_t extent;
} barred[BARRED];
static size_t barred_next;

/* With the lock held. Does nothing for a region never made. */
static void region_free(Region *region) {
  if (region->reserved == NULL) {
    free(region->first);
  } else {
    decommit(region->reserved, region->extent);
    if (barred[barred_next].reserved != NULL) {
      unreserve(barred[barred_next].reserved, barred[barred_next].extent);
    }
    barred[barred_next].reserved = region->reserved;
    barred[barred_next].extent = region->extent;
    barred_next = (barred_next + 1) % BARRED;
  }
  *region = (Region){0};
}

/* ---- the side table: live tensors by the address of their struct ---- */

/* What the thread that made tensors sees of them, whichever thread deletes them:
 * tests that run on several threads at once do not see each other's. */
typedef struct {
  uint64_t live, live_bytes, deleted, doubled;
  void (*callback)(void *);
} Counts;

static Counts *counts_of_thread(void) {
  static _Thread_local Counts *counts; /* its tensors may outlive the thread */
  if (counts == NULL) counts = calloc(1, sizeof *counts);
  if (counts == NULL) die("No memory for counts");
  return counts;
}

typedef struct {
  Region managed, shape, strides, data;
  Counts *counts;
  int deleter;
  bool versioned;
  bool deleting; /* its deleter has been called */
} Tensor;

static Tensor **table; /* open addressing, linear probing */
static size_t capacity; /* a power of two */
static size_t entries;

static size_t slot_of(const void *self) {
  return (size_t)(((uint64_t)(uintptr_t)self >> 4) * 0x9E3779B97F4A7C15u >>
                  20) &
         (capacity - 1);
}

/* The slot that holds self, or the empty one where it would go. */
static size_t find_slot(const void *self) {
  size_t slot = slot_of(self);
  while (table[slot] != NULL && table[slot]->managed.first != self) {
    slot = (slot + 1) & (capacity - 1);
  }
  return slot;
}

static Tensor *find(const void *self) {
  return capacity == 0 ? NULL : table[find_slot(self)];
}

static bool table_grow(void) {
  size_t old_capacity = capacity;
  Tensor **old = table;
  size_t new_capacity = capacity == 0 ? 1024 : capacity * 2;
  Tensor **bigger = calloc(new_capacity, sizeof *bigger);
  if (bigger == NULL) return false;
  table = bigger;
  capacity = new_capacity;
  for (size_t i = 0; i < old_capacity; i++) {
    if (old[i] != NULL) table[find_slot(old[i]->managed.first)] = old[i];
  }
  free(old);
  return true;
}

static bool table_add(Tensor *tensor) {
  if ((entries + 1) * 2 > capacity && !table_grow()) return false;
  table[find_slot(tensor->managed.first)] = tensor;
  entries++;
  tensor->counts->live++;
  tensor->counts->live_bytes += tensor->data.size;
  return true;
}

static void table_remove(const Tensor *tensor) {
  size_t hole = find_slot(tensor->managed.first);
  table[hole] = NULL;
  entries--;
  tensor->counts->live--;
  /* Close the gap: move up what could not be placed because of it. */
  for (size_t i = (hole + 1) & (capacity - 1); table[i] != NULL;
       i = (i + 1) & (capacity - 1)) {
    size_t home = slot_of(table[i]->managed.first);
    if (((i - home) & (capacity - 1)) >= ((i - hole) & (capacity - 1))) {
      table[hole] = table[i];
      table[i] = NULL;
      hole = i;
    }
  }
}

/* With the lock held. */
static void release(Tensor *tensor, bool poison) {
  if (poison) {
    memset(tensor->data.first, POISON, tensor->data.size);
  } else {
    tensor->counts->live_bytes -= tensor->data.size;
    region_free(&tensor->data);
  }
  region_free(&tensor->managed);
  region_free(&tensor->shape);
  region_free(&tensor->strides);
  free(tensor);
}

static void delete_self(void *self) {
  lock();
  Tensor *tensor = find(self);
  Counts *counts = tensor != NULL ? tensor->counts : counts_of_thread();
  counts->deleted++;
  if (tensor == NULL || tensor->deleting) {
    counts->doubled++;
    unlock();
    return;
  }
  tensor->deleting = true;
  void (*notify)(void *) = counts->callback;
  unlock();

  if (tensor->deleter == DELETER_SLOW) sleep_ms(SLOW_MS);
  if (tensor->deleter == DELETER_CALLBACK && notify != NULL) notify(self);

  lock();
  table_remove(tensor);
  release(tensor, tensor->deleter == DELETER_POISON);
  unlock();
}

static void delete_legacy(DLManagedTensor *self) { delete_self(self); }
static void delete_versioned(DLManagedTensorVersioned *self) {
  delete_self(self);
}

/* ---- the API ---- */

/* Makes a managed tensor and returns its DLManagedTensor* or
 * DLManagedTensorVersioned*, or NULL when memory or mappings are used up.
 *
 * spec:
 *    0 versioned: 0 legacy, 1 versioned
 *    1 version.major    2 version.minor    3 flags     (versioned only)
 *    4 device_type      5 device_id
 *    6 ndim, as written into the struct
 *    7 dtype.code       8 dtype.bits       9 dtype.lanes
 *   10 byte_offset
 *   11 nbytes of the data region, 0 allowed
 *   12 origin: byte position in the data region that tensor.data points at
 *   13 place of the data region: 0 its last byte is flush against a guard page,
 *      1 its first byte is, 2 everything of the tensor on the heap, unguarded
 *   14 data: 0 normal, 1 tensor.data is NULL, 2 it is the handle (18)
 *   15 deleter: 0 normal, 1 NULL, 2 takes 100 ms, 3 calls the function given to
 *      fx_set_callback with self and then frees, 4 fills the data with 0xDB and
 *      leaves it mapped for good, freeing the rest
 *   16 number of int64 in shape           17 number of int64 in strides
 *   18 handle
 *
 * shape and strides may be NULL, and then are in the struct; data holds nbytes
 * bytes, or is NULL for zeros.
 */
EXPORT void *fx_new(const int64_t *spec, const int64_t *shape,
                    const int64_t *strides, const uint8_t *data) {
  int place = (int)spec[SPEC_PLACE];
  int other_place = place == PLACE_HEAP ? PLACE_HEAP : PLACE_END;
  size_t managed_size = spec[SPEC_VERSIONED] ? sizeof(DLManagedTensorVersioned)
                                        : sizeof(DLManagedTensor);
  size_t nbytes = (size_t)spec[SPEC_NBYTES];
  size_t shape_size = (size_t)spec[SPEC_SHAPE_LENGTH] * sizeof(int64_t);
  size_t strides_size = (size_t)spec[SPEC_STRIDES_LENGTH] * sizeof(int64_t);

  Tensor *tensor = calloc(1, sizeof *tensor);
  if (tensor == NULL) return NULL;
  tensor->versioned = spec[SPEC_VERSIONED] != 0;
  tensor->counts = counts_of_thread();
  tensor->deleter = (int)spec[SPEC_DELETER];

  lock();
  bool made =
      region_new(&tensor->managed, managed_size, other_place) &&
      region_new(&tensor->data, nbytes, place) &&
      (shape == NULL || region_new(&tensor->shape, shape_size, other_place)) &&
      (strides == NULL ||
       region_new(&tensor->strides, strides_size, other_place)) &&
      table_add(tensor);
  if (!made) {
    region_free(&tensor->managed);
    region_free(&tensor->data);
    region_free(&tensor->shape);
    region_free(&tensor->strides);
    free(tensor);
  }
  unlock();
  if (!made) return NULL;

  if (shape != NULL) memcpy(tensor->shape.first, shape, shape_size);
  if (strides != NULL) memcpy(tensor->strides.first, strides, strides_size);
  if (data != NULL) memcpy(tensor->data.first, data, nbytes);

  bool no_deleter = spec[SPEC_DELETER] == DELETER_NULL;
  DLTensor described = {
      .data = spec[SPEC_DATA] == DATA_NULL ? NULL
              : spec[SPEC_DATA] == DATA_HANDLE
                  ? (void *)(uintptr_t)spec[SPEC_HANDLE]
                  : tensor->data.first + spec[SPEC_ORIGIN],
      .device = {(int32_t)spec[SPEC_DEVICE_TYPE],
                 (int32_t)spec[SPEC_DEVICE_ID]},
      .ndim = (int32_t)spec[SPEC_NDIM],
      .dtype = {(uint8_t)spec[SPEC_CODE], (uint8_t)spec[SPEC_BITS],
                (uint16_t)spec[SPEC_LANES]},
      .shape = (int64_t *)tensor->shape.first,
      .strides = (int64_t *)tensor->strides.first,
      .byte_offset = (uint64_t)spec[SPEC_BYTE_OFFSET],
  };
  if (tensor->versioned) {
    *(DLManagedTensorVersioned *)tensor->managed.first =
        (DLManagedTensorVersioned){
            .version = {(uint32_t)spec[SPEC_MAJOR], (uint32_t)spec[SPEC_MINOR]},
            .deleter = no_deleter ? NULL : delete_versioned,
            .flags = (uint64_t)spec[SPEC_FLAGS],
            .dl_tensor = described,
        };
  } else {
    *(DLManagedTensor *)tensor->managed.first = (DLManagedTensor){
        .dl_tensor = described,
        .deleter = no_deleter ? NULL : delete_legacy,
    };
  }
  region_read_only(&tensor->managed);
  region_read_only(&tensor->shape);
  region_read_only(&tensor->strides);
  return tensor->managed.first;
}

/* The function that deleters of kind 3 call with self; NULL for none. For what
 * this thread makes, like all that is counted below. */
EXPORT void fx_set_callback(void (*function)(void *)) {
  lock();
  counts_of_thread()->callback = function;
  unlock();
}

static uint64_t read_count(const uint64_t *count) {
  lock();
  uint64_t value = *count;
  unlock();
  return value;
}

/* Deleter calls ever, the wrong ones included. */
EXPORT uint64_t fx_deleted(void) {
  return read_count(&counts_of_thread()->deleted);
}
/* Deleter calls ever whose self was not live; nothing else was done in them. */
EXPORT uint64_t fx_double(void) {
  return read_count(&counts_of_thread()->doubled);
}
/* Tensors made and not yet freed. */
EXPORT uint64_t fx_live(void) {
  return read_count(&counts_of_thread()->live);
}
/* Sum of the sizes of the data regions still mapped, poisoned ones included. */
EXPORT uint64_t fx_live_bytes(void) {
  return read_count(&counts_of_thread()->live_bytes);
}

/* Address of the first byte of the data region; 0 when managed is not live. */
EXPORT uint64_t fx_data_address(void *managed) {
  lock();
  Tensor *tensor = find(managed);
  uint64_t address = tensor ? (uint64_t)(uintptr_t)tensor->data.first : 0;
  unlock();
  return address;
}

/* With the lock held. */
static uint8_t *byte_at(void *managed, uint64_t index) {
  Tensor *tensor = find(managed);
  if (tensor == NULL) die("The tensor is not live");
  if (index >= tensor->data.size) die("The index is outside the data region");
  return tensor->data.first + index;
}

/* Writes byte index of the data region of a live tensor. */
EXPORT void fx_poke(void *managed, uint64_t index, uint8_t value) {
  lock();
  *byte_at(managed, index) = value;
  unlock();
}

/* Reads byte index of the data region of a live tensor. */
EXPORT uint8_t fx_peek(void *managed, uint64_t index) {
  lock();
  uint8_t value = *byte_at(managed, index);
  unlock();
  return value;
}

/* Frees a tensor that has no deleter; not counted as a deleter call. */
EXPORT void fx_free(void *managed) {
  lock();
  Tensor *tensor = find(managed);
  if (tensor == NULL || tensor->deleter != DELETER_NULL) {
    die("Only a live tensor without a deleter is freed this way");
  }
  table_remove(tensor);
  release(tensor, false);
  unlock();
}

#ifdef _WIN32
static DWORD WINAPI delete_in_thread(void *self) {
  delete_self(self);
  return 0;
}
#else
static void *delete_in_thread(void *self) {
  delete_self(self);
  return NULL;
}
#endif

/* Calls managed's deleter on a new thread and waits for the thread to end. */
EXPORT void fx_call_deleter_from_thread(void *managed) {
#ifdef _WIN32
  HANDLE thread = CreateThread(NULL, 0, delete_in_thread, managed, 0, NULL);
  if (thread == NULL) die("CreateThread");
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
#else
  pthread_t thread;
  if (pthread_create(&thread, NULL, delete_in_thread, managed) != 0) {
    die("pthread_create");
  }
  pthread_join(thread, NULL);
#endif
}

/* C's own view of the structs: 28 numbers, sizes and offsets in bytes.
 *    0 sizeof DLDevice                   1 .device_type    2 .device_id
 *    3 sizeof DLDataType                 4 .code    5 .bits    6 .lanes
 *    7 sizeof DLTensor                   8 .data    9 .device 10 .ndim
 *   11 .dtype   12 .shape   13 .strides  14 .byte_offset
 *   15 sizeof DLManagedTensor           16 .dl_tensor     17 .manager_ctx
 *   18 .deleter
 *   19 sizeof DLPackVersion             20 .major         21 .minor
 *   22 sizeof DLManagedTensorVersioned  23 .version       24 .manager_ctx
 *   25 .deleter 26 .flags   27 .dl_tensor
 */
EXPORT void fx_layout(uint64_t *out) {
  const uint64_t layout[] = {
      sizeof(DLDevice),
      offsetof(DLDevice, device_type),
      offsetof(DLDevice, device_id),
      sizeof(DLDataType),
      offsetof(DLDataType, code),
      offsetof(DLDataType, bits),
      offsetof(DLDataType, lanes),
      sizeof(DLTensor),
      offsetof(DLTensor, data),
      offsetof(DLTensor, device),
      offsetof(DLTensor, ndim),
      offsetof(DLTensor, dtype),
      offsetof(DLTensor, shape),
      offsetof(DLTensor, strides),
      offsetof(DLTensor, byte_offset),
      sizeof(DLManagedTensor),
      offsetof(DLManagedTensor, dl_tensor),
      offsetof(DLManagedTensor, manager_ctx),
      offsetof(DLManagedTensor, deleter),
      sizeof(DLPackVersion),
      offsetof(DLPackVersion, major),
      offsetof(DLPackVersion, minor),
      sizeof(DLManagedTensorVersioned),
      offsetof(DLManagedTensorVersioned, version),
      offsetof(DLManagedTensorVersioned, manager_ctx),
      offsetof(DLManagedTensorVersioned, deleter),
      offsetof(DLManagedTensorVersioned, flags),
      offsetof(DLManagedTensorVersioned, dl_tensor),
  };
  memcpy(out, layout, sizeof layout);
}
