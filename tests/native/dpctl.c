/* A stand-in for dpctl's C interface to SYCL (not for Windows): what
 * ffi/devices/oneapi.ts calls of it, for what SYCL on a CPU cannot show.
 *
 * There are two devices, each with a context of its own, and one without USM,
 * of which SYCL would throw when asked about pointers. Device memory is a
 * PROT_NONE mapping, so that a host that reads it crashes; a copy is made when
 * somebody waits for it. Every call is counted, and can be made to fail. What
 * was given and not given back is counted as well.
 */
#define _DEFAULT_SOURCE /* ftruncate */
#define _DARWIN_C_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { DEVICES = 3, WITHOUT_USM = 0, BLOCKS = 16, WORK = 4096 };

typedef struct {
  uint8_t *device; /* what the caller sees */
  uint8_t *host;   /* the same memory for this file */
  size_t size;
  int owner; /* the device */
} Block;

typedef struct {
  uint8_t *to;
  const uint8_t *from; /* NULL: a fill */
  uint8_t value;
  size_t size;
} Work;

/* As a sycl::queue is: a shared pointer, whose counter has a class. */
typedef struct Queue {
  void *object;
  void **counter;
  int device;
  Work work[WORK];
  int count;
} Queue;

typedef struct {
  Queue *queue;
} Event;

static Block blocks[BLOCKS];
static void *queue_class[1], *other_class[1];
static void *queue_counter = queue_class, *other_counter = other_class;
static int held, status = 3;

static char counted[32][40];
static int counts[32];
static char failing[40];
static int failing_at;

static int *count_of(const char *name) {
  int i = 0;
  while (counted[i][0] != 0 && strcmp(counted[i], name) != 0) i++;
  strcpy(counted[i], name);
  return &counts[i];
}
/* Counts a call, and says whether it is to fail: as SYCL does when it throws. */
static int fails(const char *name) {
  int number = ++*count_of(name);
  return strcmp(failing, name) == 0 && number == failing_at;
}

static Block *find(uint64_t at, size_t size) {
  for (int i = 0; i < BLOCKS; i++) {
    uint64_t start = (uint64_t)(uintptr_t)blocks[i].device;
    if (start != 0 && at >= start && at + size <= start + blocks[i].size)
      return &blocks[i];
  }
  return NULL;
}
static uint8_t *host_of(uint64_t at, size_t size) {
  Block *block = find(at, size);
  if (block == NULL) return (uint8_t *)(uintptr_t)at;
  return block->host + (at - (uint64_t)(uintptr_t)block->device);
}
static void flush(Queue *queue) {
  for (int i = 0; i < queue->count; i++) {
    Work *work = &queue->work[i];
    if (work->from == NULL) memset(work->to, work->value, work->size);
    else memcpy(work->to, work->from, work->size);
  }
  queue->count = 0;
}
static Queue *new_queue(int device) {
  Queue *queue = calloc(1, sizeof *queue);
  queue->object = queue;
  queue->counter = &queue_counter;
  queue->device = device;
  return queue;
}

/* ---- for the tests ---- */

EXPORT void sim_reset(void) {
  memset(counts, 0, sizeof counts);
  failing[0] = 0;
  status = 3;
}
EXPORT void sim_fail(const char *name, int at) {
  strcpy(failing, name);
  failing_at = *count_of(name) + at;
}
EXPORT int sim_count(const char *name) { return *count_of(name); }
EXPORT void sim_status(int with) { status = with; }
EXPORT int sim_held(void) { return held; }
EXPORT uint64_t sim_alloc(const uint8_t *bytes, size_t size, int device) {
  FILE *opened = tmpfile();
  int file = fileno(opened);
  if (ftruncate(file, (off_t)size) != 0) abort();
  uint8_t *host =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  uint8_t *barred = mmap(NULL, size, PROT_NONE, MAP_SHARED, file, 0);
  fclose(opened);
  memcpy(host, bytes, size);
  int i = 0;
  while (blocks[i].device != NULL) i++;
  blocks[i] = (Block){barred, host, size, device};
  return (uint64_t)(uintptr_t)barred;
}
EXPORT void sim_free(uint64_t at) { find(at, 1)->device = NULL; }
EXPORT void sim_peek(uint64_t at, uint8_t *into, size_t size) {
  memcpy(into, host_of(at, size), size);
}
EXPORT Queue *sim_queue(int device) { return new_queue(device); }
EXPORT void sim_not_a_queue(Queue *queue) { queue->counter = &other_counter; }
EXPORT void sim_delete_queue(Queue *queue) { free(queue); }
EXPORT void sim_fill_later(Queue *queue, uint64_t at, uint8_t value,
                           size_t size) {
  queue->work[queue->count++] =
      (Work){.to = host_of(at, size), .value = value, .size = size};
}

/* ---- dpctl: a device is its number plus 1, a context that plus 100 ---- */

EXPORT uint64_t DPCTLDeviceMgr_GetDevices(int identifier) {
  if (fails(__func__) || identifier != (31 << 16 | 63)) return 0;
  return held++, 1000;
}
EXPORT size_t DPCTLDeviceVector_Size(uint64_t vector) {
  return vector == 1000 ? DEVICES : 0;
}
EXPORT uint64_t DPCTLDeviceVector_GetAt(uint64_t vector, size_t index) {
  if (vector != 1000 || index >= DEVICES) return 0;
  return held++, index + 1;
}
EXPORT void DPCTLDeviceVector_Delete(uint64_t vector) {
  if (vector == 1000) held--;
}
EXPORT int DPCTLDevice_HasAspect(uint64_t device, int aspect) {
  return device - 1 != WITHOUT_USM && aspect >= 12 && aspect <= 14;
}
EXPORT int DPCTLDevice_AreEq(uint64_t one, uint64_t other) {
  return one == other;
}
EXPORT void DPCTLDevice_Delete(uint64_t device) {
  if (device != 0) held--;
}
EXPORT uint64_t DPCTLDeviceMgr_GetCachedContext(uint64_t device) {
  if (fails(__func__)) return 0;
  return held++, device + 100;
}
EXPORT int DPCTLContext_GetBackend(uint64_t context) {
  return context > 100 ? 1 << 17 : 0; /* Level Zero */
}
EXPORT int DPCTLContext_AreEq(uint64_t one, uint64_t other) {
  return one == other;
}
EXPORT void DPCTLContext_Delete(uint64_t context) {
  if (context != 0) held--;
}
EXPORT int DPCTLUSM_GetPointerType(uint64_t at, uint64_t context) {
  if (context == WITHOUT_USM + 101) abort(); /* SYCL throws */
  Block *block = find(at, 1);
  return block != NULL && (uint64_t)block->owner + 101 == context;
}
EXPORT uint64_t DPCTLUSM_GetPointerDevice(uint64_t at, uint64_t context) {
  if (fails(__func__) || DPCTLUSM_GetPointerType(at, context) == 0) return 0;
  return held++, context - 100;
}
EXPORT Queue *DPCTLQueue_Create(uint64_t context, uint64_t device,
                                void *handler, int properties) {
  if (fails(__func__) || device + 100 != context) return NULL;
  if (handler != NULL || properties != 2) return NULL;
  held++;
  return new_queue((int)device - 1);
}
EXPORT uint64_t DPCTLQueue_GetContext(Queue *queue) {
  if (fails(__func__)) return 0;
  return held++, queue->device + 101;
}
EXPORT Event *DPCTLQueue_Memcpy(Queue *queue, uint64_t to, uint64_t from,
                                size_t size) {
  if (fails(__func__) || queue->count == WORK) return NULL;
  queue->work[queue->count++] =
      (Work){.to = host_of(to, size), .from = host_of(from, size), .size = size};
  Event *event = malloc(sizeof *event);
  event->queue = queue;
  return held++, event;
}
EXPORT void DPCTLQueue_Wait(Queue *queue) { flush(queue); }
EXPORT void DPCTLEvent_Wait(Event *event) { flush(event->queue); }
EXPORT int DPCTLEvent_GetCommandExecutionStatus(Event *event) {
  return event->queue->count == 0 ? status : 1;
}
EXPORT void DPCTLEvent_Delete(Event *event) {
  held--;
  free(event);
}
