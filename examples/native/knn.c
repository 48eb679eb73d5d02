/* Exact nearest neighbours on the CPU, with the prototypes and the habits of
 * the C API of NVIDIA cuVS, which needs a GPU: knn… stands for cuvs… here.
 *
 * - A DLManagedTensor* stays the caller's: its deleter is not called.
 * - byte_offset is ignored. Inputs are in C order: their strides are NULL, or
 *   those of C on all axes, also on those of length 1. Those of outputs are
 *   NULL.
 * - A dataset is not copied: it must stay until the index is destroyed.
 * - A search goes on after knnBruteForceSearch has returned: the memory that it
 *   was given must stay until knnStreamSync has.
 * - A status of 1 is success, 0 is failure; each thread has a last error.
 *
 *   cc -std=c11 -O1 -shared -fPIC -pthread -o knn.so knn.c
 */
#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dlpack_min.h" /* in your project: <dlpack/dlpack.h> */

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#include <pthread.h>
#define EXPORT __attribute__((visibility("default")))
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

enum { kDLInt = 0 }; /* dlpack_min.h has the other codes */

typedef enum { KNN_ERROR, KNN_SUCCESS } knnError_t;
typedef enum { L2Expanded = 0, InnerProduct = 6 } knnDistanceType;
enum knnFilterType { NO_FILTER, BITSET };

/* Which rows of the dataset may be found: those whose bit is 1. */
typedef struct {
  uintptr_t addr; /* of a DLManagedTensor of uint32: the first row is bit 0 */
  enum knnFilterType type;
} knnFilter;

/* ---- errors ---- */

static THREAD_LOCAL char error_text[200];

/* Why this thread's last call failed; NULL if it did not. */
EXPORT const char *knnGetLastErrorText(void) {
  return error_text[0] == '\0' ? NULL : error_text;
}

static knnError_t succeed(void) {
  error_text[0] = '\0';
  return KNN_SUCCESS;
}

static knnError_t fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(error_text, sizeof error_text, format, values);
  va_end(values);
  return KNN_ERROR;
}

/* ---- the search ---- */

typedef struct {
  float *data;
  int64_t rows, columns;
} Matrix;

typedef struct {
  Matrix dataset, queries;
  knnDistanceType metric;
  const uint32_t *bits; /* of the filter, or NULL */
  int64_t k;
  int64_t *neighbors; /* queries by k, and so are the distances */
  float *distances;
} Search;

static float distance(const Search *search, int64_t query, int64_t row) {
  int64_t columns = search->dataset.columns;
  const float *x = search->queries.data + query * columns;
  const float *y = search->dataset.data + row * columns;
  int is_product = search->metric == InnerProduct;
  float sum = 0;
  for (int64_t j = 0; j < columns; j++) {
    sum += is_product ? x[j] * y[j] : (x[j] - y[j]) * (x[j] - y[j]);
  }
  return sum;
}

/* Finds the k nearest rows, the nearest first; of equals the first row. Where
 * the filter lets in fewer, the rest are row -1, as far away as can be. */
static void search_for(const Search *search, int64_t query) {
  int64_t *rows = search->neighbors + query * search->k;
  float *distances = search->distances + query * search->k;
  const uint32_t *bits = search->bits;
  int is_product = search->metric == InnerProduct;
  for (int64_t i = 0; i < search->k; i++) {
    rows[i] = -1;
    distances[i] = is_product ? -FLT_MAX : FLT_MAX;
  }
  for (int64_t row = 0; row < search->dataset.rows; row++) {
    if (bits != NULL && !(bits[row / 32] >> row % 32 & 1)) continue;
    float d = distance(search, query, row);
    int64_t at = search->k;
    for (; at > 0; at--) {
      float before = distances[at - 1];
      if (!(is_product ? d > before : d < before)) break;
      if (at == search->k) continue; /* the last one falls out */
      rows[at] = rows[at - 1];
      distances[at] = before;
    }
    if (at == search->k) continue;
    rows[at] = row;
    distances[at] = d;
  }
}

static void *run(void *argument) {
  const Search *search = argument;
  for (int64_t query = 0; query < search->queries.rows; query++) {
    search_for(search, query);
  }
  return NULL;
}

/* ---- resources: searches one after the other, and memory ---- */

#ifdef _WIN32 /* there is no pthread: a search is over once it was begun */
typedef Search Resources;
static void init(Resources *resources) { (void)resources; }
static void finish(Resources *resources) { (void)resources; }
static int begin(Resources *resources, const Search *search) {
  *resources = *search;
  return run(resources) == NULL;
}
#else
typedef struct {
  pthread_mutex_t lock;
  int is_busy;
  pthread_t thread;
  Search search; /* of the thread */
} Resources;

static void init(Resources *resources) {
  pthread_mutex_init(&resources->lock, NULL);
}

static void join(Resources *resources) {
  if (resources->is_busy) pthread_join(resources->thread, NULL);
  resources->is_busy = 0;
}

static void finish(Resources *resources) {
  pthread_mutex_lock(&resources->lock);
  join(resources);
  pthread_mutex_unlock(&resources->lock);
}

static int begin(Resources *resources, const Search *search) {
  pthread_mutex_lock(&resources->lock);
  join(resources);
  resources->search = *search;
  int is_busy = !pthread_create(&resources->thread, NULL, run,
                                &resources->search);
  resources->is_busy = is_busy;
  pthread_mutex_unlock(&resources->lock);
  return is_busy;
}
#endif

typedef uintptr_t knnResources_t;

EXPORT knnError_t knnResourcesCreate(knnResources_t *res) {
  Resources *resources = calloc(1, sizeof *resources);
  if (resources == NULL) return fail("out of memory");
  init(resources);
  *res = (knnResources_t)resources;
  return succeed();
}

/* Waits for the searches that were begun: on any thread. */
EXPORT knnError_t knnStreamSync(knnResources_t res) {
  if (res == 0) return fail("res is NULL");
  finish((Resources *)res);
  return succeed();
}

EXPORT knnError_t knnResourcesDestroy(knnResources_t res) {
  if (!knnStreamSync(res)) return KNN_ERROR;
  free((Resources *)res);
  return succeed();
}

/* What the library gave out and did not get back. */
static int64_t bytes_out, views_out;

/* Bytes of knnRMMAlloc, and tensors that were filled in. Not in cuVS. */
EXPORT void knnCounts(int64_t *bytes, int64_t *views) {
  *bytes = bytes_out;
  *views = views_out;
}

EXPORT knnError_t knnRMMAlloc(knnResources_t res, void **ptr, size_t bytes) {
  if (res == 0) return fail("res is NULL");
  void *memory = malloc(bytes);
  if (memory == NULL) return fail("no memory for %zu bytes", bytes);
  *ptr = memory;
  bytes_out += (int64_t)bytes;
  return succeed();
}

EXPORT knnError_t knnRMMFree(knnResources_t res, void *ptr, size_t bytes) {
  if (res == 0) return fail("res is NULL");
  free(ptr);
  bytes_out -= (int64_t)bytes;
  return succeed();
}

/* ---- tensors ---- */

/* Whether an argument is what it must be, and in C order; fails, if not. */
static knnError_t check(const char *name, const DLManagedTensor *argument,
                        int ndim, int code, int bits) {
  if (argument == NULL) return fail("%s is NULL", name);
  const DLTensor *t = &argument->dl_tensor;
  int device = t->device.device_type;
  if (device != kDLCPU) return fail("%s: device type %d", name, device);
  if (t->dtype.code != code || t->dtype.bits != bits || t->dtype.lanes != 1) {
    return fail("%s: dtype code %d, %d bits, %d lanes; not code %d, %d bits",
                name, t->dtype.code, t->dtype.bits, t->dtype.lanes, code, bits);
  }
  if (t->ndim != ndim) return fail("%s: %d axes", name, (int)t->ndim);
  int64_t stride = 1;
  for (int axis = ndim - 1; t->strides != NULL && axis >= 0; axis--) {
    if (t->strides[axis] != stride) return fail("%s: not contiguous", name);
    stride *= t->shape[axis];
  }
  return KNN_SUCCESS;
}

static Matrix matrix_of(const DLManagedTensor *argument) {
  const DLTensor *t = &argument->dl_tensor;
  return (Matrix){t->data, t->shape[0], t->shape[1]};
}

static void view_delete(DLManagedTensor *self) {
  free(self->dl_tensor.shape); /* and the strides with it */
  views_out--;
}

/* Fills in a tensor over memory of somebody else's. Leaves byte_offset and
 * manager_ctx as the caller had them. */
static knnError_t fill(DLManagedTensor *out, Matrix matrix) {
  if (out == NULL) return fail("out is NULL");
  int64_t *shape = malloc(4 * sizeof *shape);
  if (shape == NULL) return fail("out of memory");
  int64_t *strides = shape + 2;
  shape[0] = matrix.rows;
  shape[1] = strides[0] = matrix.columns;
  strides[1] = 1;
  DLTensor *t = &out->dl_tensor;
  t->data = matrix.data;
  t->device = (DLDevice){kDLCPU, 0};
  t->ndim = 2;
  t->dtype = (DLDataType){kDLFloat, 32, 1};
  t->shape = shape;
  t->strides = strides;
  out->deleter = view_delete;
  views_out++;
  return succeed();
}

/* Rows start to end of a matrix, not copied. */
EXPORT knnError_t knnMatrixSliceRows(knnResources_t res, DLManagedTensor *src,
                                     int64_t start, int64_t end,
                                     DLManagedTensor *dst) {
  if (res == 0) return fail("res is NULL");
  if (!check("src", src, 2, kDLFloat, 32)) return KNN_ERROR;
  Matrix all = matrix_of(src);
  if (start < 0 || start > end || end > all.rows) return fail("no such rows");
  float *first = all.data + start * all.columns;
  return fill(dst, (Matrix){first, end - start, all.columns});
}

/* ---- the index ---- */

typedef struct {
  Matrix dataset; /* without rows: not built */
  knnDistanceType metric;
  DLManagedTensor *owned; /* is deleted with the index */
} knnBruteForceIndex, *knnBruteForceIndex_t;

EXPORT knnError_t knnBruteForceIndexCreate(knnBruteForceIndex_t *index) {
  knnBruteForceIndex_t made = calloc(1, sizeof *made);
  if (made == NULL) return fail("out of memory");
  *index = made;
  return succeed();
}

static void delete_managed(DLManagedTensor *managed) {
  if (managed != NULL && managed->deleter != NULL) managed->deleter(managed);
}

EXPORT knnError_t knnBruteForceIndexDestroy(knnBruteForceIndex_t index) {
  if (index == NULL) return fail("index is NULL");
  delete_managed(index->owned);
  free(index);
  return succeed();
}

EXPORT knnError_t knnBruteForceBuild(knnResources_t res,
                                     DLManagedTensor *dataset,
                                     knnDistanceType metric, float metric_arg,
                                     knnBruteForceIndex_t index) {
  (void)metric_arg; /* is for metrics that are not here */
  if (res == 0 || index == NULL) return fail("res or index is NULL");
  if (!check("dataset", dataset, 2, kDLFloat, 32)) return KNN_ERROR;
  if (dataset->dl_tensor.shape[0] == 0) return fail("dataset: no rows");
  if (metric != L2Expanded && metric != InnerProduct) {
    return fail("metric %d is not supported", (int)metric);
  }
  delete_managed(index->owned);
  *index = (knnBruteForceIndex){matrix_of(dataset), metric, NULL};
  return succeed();
}

/* Takes the dataset over, also when it fails. Not in cuVS. */
EXPORT knnError_t knnBruteForceBuildOwned(knnResources_t res,
                                          DLManagedTensor *dataset,
                                          knnDistanceType metric,
                                          float metric_arg,
                                          knnBruteForceIndex_t index) {
  knnError_t status =
      knnBruteForceBuild(res, dataset, metric, metric_arg, index);
  if (status == KNN_SUCCESS) index->owned = dataset;
  else delete_managed(dataset);
  return status;
}

/* The dataset, where it is. */
EXPORT knnError_t knnIndexGetDataset(knnBruteForceIndex_t index,
                                     DLManagedTensor *out) {
  if (index == NULL || index->dataset.rows == 0) return fail("not built");
  return fill(out, index->dataset);
}

/* Begins a search for each row of the queries. The neighbors are int64, the
 * distances float32: both have a row for each query, and k columns. */
EXPORT knnError_t knnBruteForceSearch(knnResources_t res,
                                      knnBruteForceIndex_t index,
                                      DLManagedTensor *queries,
                                      DLManagedTensor *neighbors,
                                      DLManagedTensor *distances,
                                      knnFilter prefilter) {
  if (res == 0) return fail("res is NULL");
  if (index == NULL || index->dataset.rows == 0) return fail("not built");
  if (!check("queries", queries, 2, kDLFloat, 32) ||
      !check("neighbors", neighbors, 2, kDLInt, 64) ||
      !check("distances", distances, 2, kDLFloat, 32)) {
    return KNN_ERROR;
  }
  Search search = {.dataset = index->dataset,
                   .queries = matrix_of(queries),
                   .metric = index->metric,
                   .k = neighbors->dl_tensor.shape[1],
                   .neighbors = neighbors->dl_tensor.data,
                   .distances = distances->dl_tensor.data};
  if (search.queries.columns != search.dataset.columns) {
    return fail("queries: not as many columns as the dataset has");
  }
  if (search.k < 1 || search.k > search.dataset.rows) return fail("no such k");
  const DLTensor *n = &neighbors->dl_tensor, *d = &distances->dl_tensor;
  if (n->strides != NULL || d->strides != NULL) {
    return fail("neighbors or distances: strides are not NULL");
  }
  int64_t rows = search.queries.rows;
  if (n->shape[0] != rows || d->shape[0] != rows || d->shape[1] != search.k) {
    return fail("neighbors or distances: not k for each query");
  }
  if (prefilter.type != NO_FILTER) {
    const DLManagedTensor *filter = (const DLManagedTensor *)prefilter.addr;
    if (!check("filter", filter, 1, kDLUInt, 32)) return KNN_ERROR;
    int64_t words = (search.dataset.rows + 31) / 32;
    if (filter->dl_tensor.shape[0] < words) return fail("filter: too short");
    search.bits = filter->dl_tensor.data;
  }
  return begin((Resources *)res, &search) ? succeed() : fail("no thread");
}
