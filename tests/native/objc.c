/* A stand-in for the Objective-C runtime, as far as ffi/devices/metal.ts needs
 * it: objects that answer a few messages as a MTLBuffer does. A message to
 * anything else, and a question to what is no class, end the process, as they
 * do there.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef struct {
  uint64_t type; /* 1: a buffer, 2: something else; other numbers are none */
  uint64_t mode, length, retained;
  void *contents;
} Object;

enum { OBJECTS = 32 };
static Object objects[OBJECTS];
static int made;

static const char *names[] = {"",         "storageMode", "length",
                              "contents", "retain",      "release"};

/* ---- for the tests ---- */

EXPORT uint64_t sim_object(uint64_t type, uint64_t mode, uint64_t length,
                           void *contents) {
  Object *object = &objects[made++ % OBJECTS];
  *object = (Object){type, mode, length, 1, contents};
  return (uint64_t)(uintptr_t)object;
}
EXPORT uint64_t sim_retained(uint64_t object) {
  return ((Object *)(uintptr_t)object)->retained;
}

/* ---- the runtime ---- */

EXPORT uint64_t malloc_size(uint64_t at) {
  for (int i = 0; i < OBJECTS; i++)
    if (at == (uint64_t)(uintptr_t)&objects[i]) return sizeof(Object);
  return 0;
}
static Object *object_at(uint64_t at) {
  if (malloc_size(at) == 0) abort();
  return (Object *)(uintptr_t)at;
}
EXPORT uint64_t sel_registerName(const char *name) {
  for (uint64_t i = 1; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], name) == 0) return i;
  abort();
}
EXPORT uint64_t object_getClass(uint64_t at) { return object_at(at)->type; }
EXPORT int objc_getClassList(uint64_t *classes, int count) {
  for (int i = 0; i < count && i < 2; i++) classes[i] = (uint64_t)i + 1;
  return 2;
}
EXPORT uint8_t class_respondsToSelector(uint64_t type, uint64_t selector) {
  if (type < 1 || type > 2) abort();
  return type == 1 && selector > 0;
}
EXPORT uint64_t objc_msgSend(uint64_t at, uint64_t selector) {
  Object *object = object_at(at);
  if (object->type != 1) abort();
  switch (selector) {
    case 1: return object->mode;
    case 2: return object->length;
    case 3: return (uint64_t)(uintptr_t)object->contents;
    case 4: object->retained++; return at;
    case 5: object->retained--; return 0;
    default: abort();
  }
}
