/* A stand-in for the CUDA driver (not for Windows): what ffi/devices/cuda.ts calls of it.
 *
 * Device memory is a PROT_NONE mapping, so that a host that reads it crashes;
 * the driver reaches it by another mapping of the same file. Calls need the
 * context of the memory to be current on their thread, as the driver's do; only
 * to wait for an event another thread needs none, as was seen of driver 580.
 * Work on a stream is a fill that lands when somebody waits for it. Every call
 * is counted, and can be made to fail.
 */
#define _DEFAULT_SOURCE /* ftruncate */
#define _DARWIN_C_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_READY = 600
};

enum { DEVICES = 2, BLOCKS = 64, HANDLES = 64, DEPTH = 16, POLLS = 3 };

/* Contexts: 1 and 2 are the primary ones of devices 0 and 1, 3 is another one
 * of device 1. */
static int device_of(uint64_t context) { return context == 1 ? 0 : 1; }

typedef struct {
  uint8_t *device; /* what the caller sees */
  uint8_t *host;   /* the same memory for this file */
  size_t size;
  uint64_t context;
  int type; /* CUmemorytype */
} Block;

typedef struct {
  int used, polls;
  uint8_t *at; /* where the last work of a stream is to land; NULL for none */
  uint8_t value;
  size_t size;
  uint8_t *from; /* or a copy from here, of rows of `size` bytes */
  size_t at_pitch, pitch, rows;
  int owned; /* whether `from` is to be freed */
  uint64_t stream;     /* of an event: what it was recorded in, plus one */
} Handle;

static Block blocks[BLOCKS];
static Handle streams[HANDLES]; /* 0 legacy non-blocking work, 1 legacy, 2 ... */
static Handle events[HANDLES];
static int retained[DEVICES], pinned, devices = DEVICES, ask_in_context;
static int ranges_unknown, wait_in_context;
static _Thread_local uint64_t stack[DEPTH];
static _Thread_local int depth;

static char counted[64][40];
static int counts[64];
static char failing[40];
static int failing_at, failing_with;

static int *count_of(const char *name) {
  int i = 0;
  while (counted[i][0] != 0 && strcmp(counted[i], name) != 0) i++;
  strcpy(counted[i], name);
  return &counts[i];
}

/* Counts a call, and says whether it is to fail. */
static int enter(const char *name) {
  int number = ++*count_of(name);
  if (strcmp(failing, name) != 0 || number != failing_at) return SUCCESS;
  return failing_with;
}

/* A call has the stand-in to itself until it returns, from whichever thread. */
static pthread_mutex_t mutex;
__attribute__((constructor)) static void make_mutex(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&mutex, &attributes);
}
static int lock(void) { return pthread_mutex_lock(&mutex); }
static void unlock(const int *locked) {
  (void)locked;
  pthread_mutex_unlock(&mutex);
}

#define ENTER                                             \
  __attribute__((cleanup(unlock))) const int locked_ = lock(); \
  do {                                                    \
    int status_ = enter(__func__);                        \
    if (status_ != 0) return status_;                     \
  } while (0)
#define IN_CONTEXT \
  if (depth == 0) return INVALID_CONTEXT

static Block *find(uint64_t at, size_t size) {
  for (int i = 0; i < BLOCKS; i++) {
    uint64_t start = (uint64_t)(uintptr_t)blocks[i].device;
    if (start != 0 && at >= start && at + size <= start + blocks[i].size)
      return &blocks[i];
  }
  return NULL;
}

static void land(Handle *stream) {
  if (stream->at == NULL) return;
  if (stream->from == NULL) memset(stream->at, stream->value, stream->size);
  else
    for (size_t row = 0; row < stream->rows; row++)
      memcpy(stream->at + row * stream->at_pitch,
             stream->from + row * stream->pitch, stream->size);
  if (stream->owned) free(stream->from);
  stream->owned = 0;
  stream->at = NULL;
}

/* ---- for the tests ---- */

EXPORT void sim_reset(void) {
  memset(counts, 0, sizeof counts);
  failing[0] = 0;
  devices = DEVICES;
  ask_in_context = ranges_unknown = wait_in_context = 0;
}
EXPORT void sim_fail(const char *name, int at, int with) {
  strcpy(failing, name);
  failing_at = *count_of(name) + at;
  failing_with = with;
}
EXPORT int sim_count(const char *name) { return *count_of(name); }
EXPORT void sim_devices(int count) { devices = count; }
EXPORT void sim_ask_in_context(int on) { ask_in_context = on; }
EXPORT void sim_wait_in_context(int on) { wait_in_context = on; }
EXPORT void sim_ranges_unknown(int on) { ranges_unknown = on; }

/* What was not given back. */
EXPORT int sim_held(void) {
  int held = pinned + depth;
  for (int i = 0; i < DEVICES; i++) held += retained[i];
  for (int i = 3; i < HANDLES; i++) held += streams[i].used + events[i].used;
  return held;
}

/* Takes all but one stream as given back. */
EXPORT void sim_forget(uint64_t stream) {
  for (uint64_t i = 3; i < HANDLES; i++) {
    events[i].used = 0;
    if (i != stream) streams[i].used = 0;
  }
}

/* Memory of a context; neighbours is how many allocations it is made of. */
EXPORT uint64_t sim_alloc(const uint8_t *bytes, size_t size, uint64_t context,
                          int type, int neighbours) {
  FILE *opened = tmpfile();
  int file = fileno(opened);
  if (ftruncate(file, (off_t)size) != 0) abort();
  uint8_t *host =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  /* Managed memory is the host's as well. */
  uint8_t *device = type == 4 ? host
                              : mmap(NULL, size, PROT_NONE, MAP_SHARED, file, 0);
  fclose(opened);
  memcpy(host, bytes, size);
  size_t part = size / (size_t)neighbours;
  for (int i = 0, n = 0; i < BLOCKS && n < neighbours; i++) {
    if (blocks[i].device != NULL) continue;
    size_t at = part * (size_t)n++;
    blocks[i] = (Block){device + at, host + at, part, context, type};
  }
  return (uint64_t)(uintptr_t)device;
}
EXPORT void sim_free(uint64_t at) {
  Block *block = find(at, 1);
  if (block != NULL) block->device = NULL; /* stays mapped, and barred */
}
/* What is in memory; what has not landed is not. */
EXPORT void sim_peek(uint64_t at, uint8_t *into, size_t size) {
  Block *block = find(at, size);
  memcpy(into, block->host + (at - (uint64_t)(uintptr_t)block->device), size);
}
EXPORT uint64_t sim_stream(void) {
  for (uint64_t i = 3; i < HANDLES; i++)
    if (!streams[i].used) return streams[i].used = 1, i;
  abort();
}
/* A stream fills memory, when it comes to it. */
EXPORT void sim_fill_later(uint64_t at, uint8_t value, size_t size,
                           uint64_t stream) {
  streams[stream] = (Handle){
      .used = 1, .polls = POLLS, .at = find(at, size)->host +
          (at - (uint64_t)(uintptr_t)find(at, size)->device),
      .value = value, .size = size};
}
/* A stream comes to its work. */
EXPORT void sim_land(uint64_t stream) { land(&streams[stream]); }
EXPORT void sim_destroy_stream(uint64_t stream) { streams[stream].used = 0; }

/* ---- the driver ---- */

EXPORT int cuInit(unsigned flags) {
  ENTER;
  if (flags != 0) return INVALID_VALUE;
  return devices == 0 ? NO_DEVICE : SUCCESS;
}
EXPORT int cuGetErrorName(int error, const char **name) {
  *name = error == INVALID_VALUE     ? "CUDA_ERROR_INVALID_VALUE"
          : error == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == NO_DEVICE       ? "CUDA_ERROR_NO_DEVICE"
          : error == INVALID_DEVICE  ? "CUDA_ERROR_INVALID_DEVICE"
          : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
          : error == INVALID_HANDLE  ? "CUDA_ERROR_INVALID_HANDLE"
          : error == 700             ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                     : NULL;
  return *name == NULL ? INVALID_VALUE : SUCCESS;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
  ENTER;
  *device = ordinal;
  return ordinal < 0 || ordinal >= devices ? INVALID_DEVICE : SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(uint64_t *context, int device) {
  ENTER;
  retained[device]++;
  *context = (uint64_t)device + 1;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  retained[device]--;
  return enter(__func__);
}
EXPORT int cuCtxPushCurrent_v2(uint64_t context) {
  ENTER;
  if (context < 1 || context > 3 || depth == DEPTH) return INVALID_CONTEXT;
  stack[depth++] = context;
  return SUCCESS;
}
EXPORT int cuCtxPopCurrent_v2(uint64_t *context) {
  if (depth == 0) return INVALID_CONTEXT;
  *context = stack[--depth];
  return enter(__func__);
}
EXPORT int cuCtxSynchronize(void) {
  ENTER;
  IN_CONTEXT;
  for (int i = 0; i < HANDLES; i++) land(&streams[i]);
  return SUCCESS;
}
EXPORT int cuPointerGetAttribute(uint64_t *data, int attribute, uint64_t at) {
  ENTER;
  if (ask_in_context) IN_CONTEXT;
  Block *block = find(at, 1);
  if (block == NULL) return INVALID_VALUE;
  switch (attribute) {
    case 1: *data = block->context == 3 ? 3 : 0; return SUCCESS;
    case 2: *(uint32_t *)data = (uint32_t)block->type; return SUCCESS;
    case 9: *(int32_t *)data = device_of(block->context); return SUCCESS;
    case 11: *data = (uint64_t)(uintptr_t)block->device; break;
    case 12: *data = block->size; break;
    default: return INVALID_VALUE;
  }
  return ranges_unknown ? INVALID_VALUE : SUCCESS;
}

static int is_stream(uint64_t stream) {
  return stream == 1 || stream == 2 ||
         (stream < HANDLES && streams[stream].used);
}

static uint8_t *reachable(uint64_t at, size_t size) {
  Block *block = find(at, size);
  if (block == NULL || block->context != stack[depth - 1]) return NULL;
  return block->host + (at - (uint64_t)(uintptr_t)block->device);
}

static int copy_later(uint8_t *into, size_t into_pitch, uint8_t *from,
                      size_t pitch, size_t size, size_t rows,
                      uint64_t stream) {
  if (!is_stream(stream)) return INVALID_VALUE;
  land(&streams[stream]); /* the copy before this one */
  Handle *handle = &streams[stream];
  handle->at = into;
  handle->at_pitch = into_pitch;
  handle->from = from;
  handle->pitch = pitch;
  handle->size = size;
  handle->rows = rows;
  return SUCCESS;
}

/* A copy to a device returns when the host's memory was read; it lands when
 * somebody waits for the default stream. */
static int stage(uint8_t *into, size_t into_pitch, const uint8_t *from,
                 size_t pitch, size_t size, size_t rows) {
  uint8_t *copy = malloc(size * rows);
  for (size_t row = 0; row < rows; row++)
    memcpy(copy + row * size, from + row * pitch, size);
  copy_later(into, into_pitch, copy, size, size, rows, 1);
  streams[1].owned = 1;
  return SUCCESS;
}

EXPORT int cuMemcpyDtoH_v2(void *into, uint64_t from, size_t size) {
  ENTER;
  IN_CONTEXT;
  const uint8_t *source = reachable(from, size);
  if (source == NULL) return INVALID_VALUE;
  land(&streams[1]); /* only the default stream is waited for */
  memcpy(into, source, size);
  return SUCCESS;
}
EXPORT int cuMemcpyHtoD_v2(uint64_t into, const void *from, size_t size) {
  ENTER;
  IN_CONTEXT;
  uint8_t *target = reachable(into, size);
  if (target == NULL) return INVALID_VALUE;
  return stage(target, size, from, size, size, 1);
}
/* Its fields as the driver's header has them, for the compiler to place. */
typedef struct {
  size_t srcXInBytes, srcY;
  int srcMemoryType;
  const void *srcHost;
  uint64_t srcDevice;
  void *srcArray;
  size_t srcPitch;
  size_t dstXInBytes, dstY;
  int dstMemoryType;
  void *dstHost;
  uint64_t dstDevice;
  void *dstArray;
  size_t dstPitch;
  size_t WidthInBytes, Height;
} Memcpy2D;

/* Whether they are rows from a device to the host, or the other way. */
static int are_rows(const Memcpy2D *copy) {
  size_t width = copy->WidthInBytes;
  int is_write = copy->dstMemoryType == 2;
  if (copy->srcMemoryType != (is_write ? 1 : 2)) return 0;
  if (copy->dstMemoryType != (is_write ? 2 : 1)) return 0;
  if (copy->srcXInBytes | copy->srcY | copy->dstXInBytes | copy->dstY) return 0;
  if (width > copy->srcPitch || width > copy->dstPitch) return 0;
  for (size_t row = 0; row < copy->Height; row++)
    if (reachable(is_write ? copy->dstDevice + row * copy->dstPitch
                           : copy->srcDevice + row * copy->srcPitch,
                  width) == NULL)
      return 0;
  return 1;
}
EXPORT int cuMemcpy2D_v2(const Memcpy2D *copy) {
  ENTER;
  IN_CONTEXT;
  if (!are_rows(copy)) return INVALID_VALUE;
  if (copy->dstMemoryType == 2)
    return stage(reachable(copy->dstDevice, 1), copy->dstPitch, copy->srcHost,
                 copy->srcPitch, copy->WidthInBytes, copy->Height);
  for (size_t row = 0; row < copy->Height; row++)
    memcpy((uint8_t *)copy->dstHost + row * copy->dstPitch,
           reachable(copy->srcDevice + row * copy->srcPitch, 1),
           copy->WidthInBytes);
  return SUCCESS;
}
EXPORT int cuMemHostAlloc(void **made, size_t size, unsigned flags) {
  ENTER;
  IN_CONTEXT;
  if (flags != 0) return INVALID_VALUE;
  uint8_t *memory = malloc(size);
  for (int i = 0; i < BLOCKS; i++) {
    if (blocks[i].device != NULL) continue;
    blocks[i] = (Block){memory, memory, size, stack[depth - 1], 1};
    pinned++;
    return *made = memory, SUCCESS;
  }
  abort();
}
EXPORT int cuMemFreeHost(void *at) {
  Block *block = find((uint64_t)(uintptr_t)at, 1);
  if (block == NULL) abort(); /* freed twice */
  pinned--;
  memset(at, 0xdb, block->size);
  block->device = NULL;
  free(at);
  return enter(__func__);
}
/* Resets the devices: pinned memory is gone. */
EXPORT void sim_reset_devices(void) {
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].type == 1 && blocks[i].device != NULL) {
      free(blocks[i].device);
      blocks[i].device = NULL;
      pinned--;
    }
}
EXPORT int cuStreamCreate(uint64_t *made, unsigned flags) {
  ENTER;
  IN_CONTEXT;
  if (flags != 1) return INVALID_VALUE;
  return *made = sim_stream(), SUCCESS;
}
EXPORT int cuStreamDestroy_v2(uint64_t stream) {
  streams[stream].used = 0;
  return enter(__func__);
}
EXPORT int cuStreamSynchronize(uint64_t stream) {
  ENTER;
  IN_CONTEXT;
  if (!is_stream(stream)) return INVALID_HANDLE;
  land(&streams[stream]);
  return SUCCESS;
}
EXPORT int cuEventCreate(uint64_t *made, unsigned flags) {
  ENTER;
  IN_CONTEXT;
  if (flags != 3) return INVALID_VALUE;
  for (uint64_t i = 3; i < HANDLES; i++) {
    if (events[i].used) continue;
    events[i] = (Handle){.used = 1};
    return *made = i, SUCCESS;
  }
  return OUT_OF_MEMORY;
}
EXPORT int cuEventDestroy_v2(uint64_t event) {
  events[event].used = 0;
  return enter(__func__);
}
EXPORT int cuEventRecord(uint64_t event, uint64_t stream) {
  ENTER;
  IN_CONTEXT;
  if (!is_stream(stream)) return INVALID_HANDLE;
  events[event].stream = stream + 1;
  events[event].polls = POLLS;
  return SUCCESS;
}
EXPORT int cuEventQuery(uint64_t event) {
  ENTER;
  IN_CONTEXT;
  Handle *mark = &events[event];
  if (mark->stream == 0) return SUCCESS;
  if (mark->polls-- > 0) return NOT_READY;
  land(&streams[mark->stream - 1]);
  return SUCCESS;
}
EXPORT int cuEventSynchronize(uint64_t event) {
  ENTER;
  if (wait_in_context) IN_CONTEXT;
  Handle *mark = &events[event];
  if (mark->stream != 0) land(&streams[mark->stream - 1]);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(uint8_t *into, uint64_t from, size_t size,
                                uint64_t stream) {
  ENTER;
  IN_CONTEXT;
  uint8_t *source = reachable(from, size);
  if (source == NULL) return INVALID_VALUE;
  memset(into, 0xdb, size);
  return copy_later(into, size, source, size, size, 1, stream);
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t into, uint8_t *from, size_t size,
                                uint64_t stream) {
  ENTER;
  IN_CONTEXT;
  uint8_t *target = reachable(into, size);
  if (target == NULL) return INVALID_VALUE;
  return copy_later(target, size, from, size, size, 1, stream);
}
EXPORT int cuMemcpy2DAsync_v2(const Memcpy2D *copy, uint64_t stream) {
  ENTER;
  IN_CONTEXT;
  size_t width = copy->WidthInBytes, rows = copy->Height;
  if (!are_rows(copy)) return INVALID_VALUE;
  if (copy->dstMemoryType == 2) {
    if (copy->srcPitch != width) return INVALID_VALUE;
    return copy_later(reachable(copy->dstDevice, 1), copy->dstPitch,
                      (uint8_t *)copy->srcHost, width, width, rows, stream);
  }
  if (copy->dstPitch != width) return INVALID_VALUE;
  memset(copy->dstHost, 0xdb, width * rows);
  return copy_later(copy->dstHost, width, reachable(copy->srcDevice, 1),
                    copy->srcPitch, width, rows, stream);
}

/* ---- what a producer calls of it: tests/gpu, without a GPU ---- */

static uint64_t allocate(size_t size, int type) {
  uint8_t *zeros = calloc(size, 1);
  uint64_t made = sim_alloc(zeros, size, stack[depth - 1], type, 1);
  free(zeros);
  return made;
}
EXPORT int cuMemAlloc_v2(uint64_t *made, size_t size) {
  IN_CONTEXT;
  return *made = allocate(size, 2), SUCCESS;
}
EXPORT int cuMemAllocManaged(uint64_t *made, size_t size, unsigned flags) {
  IN_CONTEXT;
  if (flags != 1) return INVALID_VALUE;
  return *made = allocate(size, 4), SUCCESS;
}
EXPORT int cuMemFree_v2(uint64_t at) {
  sim_free(at);
  return SUCCESS;
}
EXPORT int cuMemsetD8Async(uint64_t at, uint8_t value, size_t size,
                           uint64_t stream) {
  IN_CONTEXT;
  sim_fill_later(at, value, size, stream);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoD_v2(uint64_t into, uint64_t from, size_t size) {
  IN_CONTEXT;
  land(&streams[1]);
  const uint8_t *source = reachable(from, size);
  return source == NULL ? INVALID_VALUE : cuMemcpyHtoD_v2(into, source, size);
}
EXPORT int cuDriverGetVersion(int *version) {
  return *version = 13000, SUCCESS;
}
EXPORT int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  strncpy(name, "a stand-in", (size_t)length);
  return SUCCESS;
}
EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
  return *available = *total = (size_t)64 << 20, SUCCESS;
}
