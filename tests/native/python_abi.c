// The layout of what Python libraries offer beside the tensors of dlpack.h: of
// DLPack 1.3's DLPackExchangeAPI, and of what the loader tells of a library.

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#if defined(__linux__)
#include <link.h>
#endif

typedef struct Header {
    struct {
        uint32_t major;
        uint32_t minor;
    } version;
    struct Header *prev_api;
} Header;

typedef struct {
    Header header;
    int (*managed_tensor_allocator)(void *, void **, void *, void *);
    int (*managed_tensor_from_py_object_no_sync)(void *, void **);
    int (*managed_tensor_to_py_object_no_sync)(void *, void **);
    int (*dltensor_from_py_object_no_sync)(void *, void *);
    int (*current_work_stream)(int32_t, int32_t, void **);
} Exchange;

void python_layout(uint64_t *out) {
    *out++ = offsetof(Exchange, header.version.major);
    *out++ = offsetof(Exchange, header.prev_api);
    *out++ = offsetof(Exchange, managed_tensor_from_py_object_no_sync);
    *out++ = offsetof(Exchange, managed_tensor_to_py_object_no_sync);
    *out++ = offsetof(Exchange, current_work_stream);
    *out++ = sizeof(Exchange);
#if defined(__linux__)
    *out++ = offsetof(struct dl_phdr_info, dlpi_name);
#else
    *out++ = 8; // not asked for elsewhere
#endif
}
