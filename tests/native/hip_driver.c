/* A stand-in for ROCm's HIP runtime (not for Windows): what ffi/devices/rocm.ts calls of
 * it, made of the stand-in for CUDA. In place of contexts there is a current
 * device for each thread; memory of another device cannot be copied.
 */
#include "cuda_driver.c"

enum { NOT_FOUND = 500, CONTEXT_IS_DESTROYED = 709 };

static _Thread_local int current, last_error;

/* Every call's error is kept until somebody asks for it. */
static int done(int status) {
  /* A stream that HIP does not know. */
  if (status == INVALID_HANDLE) status = CONTEXT_IS_DESTROYED;
  if (status != SUCCESS) last_error = status;
  return status;
}
#undef ENTER
#define ENTER                                             \
  __attribute__((cleanup(unlock))) const int locked_ = lock(); \
  do {                                                    \
    int status_ = done(enter(__func__));                  \
    if (status_ != 0) return status_;                     \
  } while (0)

#define ON_DEVICE(call)                     \
  do {                                      \
    stack[0] = (uint64_t)current + 1;       \
    depth = 1;                              \
    int result_ = call;                     \
    depth = 0;                              \
    return done(result_);                   \
  } while (0)

/* The default stream is CUDA's legacy one. */
static uint64_t stream_of(uint64_t stream) { return stream == 0 ? 1 : stream; }

EXPORT int sim_current(void) { return current; }
EXPORT void sim_set_current(int device) { current = device; }
EXPORT int sim_last_error(void) { return last_error; }

EXPORT int hipInit(unsigned flags) {
  ENTER;
  return done(cuInit(flags));
}
EXPORT const char *hipGetErrorName(int error) {
  return error == INVALID_VALUE          ? "hipErrorInvalidValue"
         : error == NO_DEVICE            ? "hipErrorNoDevice"
         : error == CONTEXT_IS_DESTROYED ? "hipErrorContextIsDestroyed"
         : error == 700                  ? "hipErrorIllegalAddress"
                                         : "hipErrorUnknown";
}
EXPORT int hipGetLastError(void) {
  int error = last_error;
  last_error = SUCCESS;
  return error;
}
EXPORT int hipGetDevice(int *device) {
  ENTER;
  *device = current;
  return SUCCESS;
}
EXPORT int hipSetDevice(int device) {
  if (device < 0 || device >= DEVICES) return done(INVALID_DEVICE);
  int status = done(enter(__func__));
  if (status == SUCCESS) current = device;
  return status;
}
EXPORT int hipDeviceSynchronize(void) {
  ENTER;
  ON_DEVICE(cuCtxSynchronize());
}
EXPORT int hipPointerGetAttribute(void *data, int attribute, uint64_t at) {
  ENTER;
  if (attribute != 9) return done(INVALID_VALUE);
  return done(cuPointerGetAttribute(data, attribute, at));
}
EXPORT int hipMemGetAddressRange(uint64_t *base, uint64_t *size, uint64_t at) {
  ENTER;
  Block *block = find(at, 1);
  if (block == NULL || block->context != (uint64_t)current + 1)
    return done(NOT_FOUND);
  *base = (uint64_t)(uintptr_t)block->device;
  *size = block->size;
  return SUCCESS;
}
EXPORT int hipMemcpyDtoH(void *into, uint64_t from, size_t size) {
  ENTER;
  ON_DEVICE(cuMemcpyDtoH_v2(into, from, size));
}
EXPORT int hipMemcpyDtoHAsync(void *into, uint64_t from, size_t size,
                              uint64_t stream) {
  ENTER;
  ON_DEVICE(cuMemcpyDtoHAsync_v2(into, from, size, stream_of(stream)));
}
EXPORT int hipMemcpyHtoD(uint64_t into, void *from, size_t size) {
  ENTER;
  ON_DEVICE(cuMemcpyHtoD_v2(into, from, size));
}
EXPORT int hipMemcpyHtoDAsync(uint64_t into, void *from, size_t size,
                              uint64_t stream) {
  ENTER;
  ON_DEVICE(cuMemcpyHtoDAsync_v2(into, from, size, stream_of(stream)));
}
/* hipMemcpyKind is 1 to a device, 2 to the host. */
static Memcpy2D rows_of(uint64_t into, size_t into_pitch, uint64_t from,
                        size_t pitch, size_t width, size_t height, int kind) {
  return (Memcpy2D){.srcMemoryType = kind,
                    .srcHost = (void *)(uintptr_t)from,
                    .srcDevice = from,
                    .srcPitch = pitch,
                    .dstMemoryType = 3 - kind,
                    .dstHost = (void *)(uintptr_t)into,
                    .dstDevice = into,
                    .dstPitch = into_pitch,
                    .WidthInBytes = width,
                    .Height = height};
}
EXPORT int hipMemcpy2D(uint64_t into, size_t into_pitch, uint64_t from,
                       size_t pitch, size_t width, size_t height, int kind) {
  ENTER;
  Memcpy2D copy = rows_of(into, into_pitch, from, pitch, width, height, kind);
  ON_DEVICE(cuMemcpy2D_v2(&copy));
}
EXPORT int hipMemcpy2DAsync(uint64_t into, size_t into_pitch, uint64_t from,
                            size_t pitch, size_t width, size_t height,
                            int kind, uint64_t stream) {
  ENTER;
  Memcpy2D copy = rows_of(into, into_pitch, from, pitch, width, height, kind);
  ON_DEVICE(cuMemcpy2DAsync_v2(&copy, stream_of(stream)));
}
EXPORT int hipHostMalloc(void **made, size_t size, unsigned flags) {
  ENTER;
  ON_DEVICE(cuMemHostAlloc(made, size, flags));
}
EXPORT int hipHostFree(void *at) {
  cuMemFreeHost(at);
  return done(enter(__func__));
}
EXPORT int hipStreamCreateWithFlags(uint64_t *made, unsigned flags) {
  ENTER;
  ON_DEVICE(cuStreamCreate(made, flags));
}
EXPORT int hipStreamDestroy(uint64_t stream) {
  cuStreamDestroy_v2(stream);
  return done(enter(__func__));
}
EXPORT int hipStreamSynchronize(uint64_t stream) {
  ENTER;
  ON_DEVICE(cuStreamSynchronize(stream_of(stream)));
}
EXPORT int hipEventCreateWithFlags(uint64_t *made, unsigned flags) {
  ENTER;
  ON_DEVICE(cuEventCreate(made, flags));
}
EXPORT int hipEventDestroy(uint64_t event) {
  cuEventDestroy_v2(event);
  return done(enter(__func__));
}
EXPORT int hipEventRecord(uint64_t event, uint64_t stream) {
  ENTER;
  ON_DEVICE(cuEventRecord(event, stream_of(stream)));
}
EXPORT int hipEventQuery(uint64_t event) {
  ENTER;
  ON_DEVICE(cuEventQuery(event));
}
EXPORT int hipEventSynchronize(uint64_t event) {
  ENTER;
  return done(cuEventSynchronize(event));
}
