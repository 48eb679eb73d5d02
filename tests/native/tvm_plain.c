/* Functions of a TVM-FFI module in plain C, by c_api.h alone. */

#include <stdlib.h>
#include <tvm/ffi/c_api.h>

/* Nothing at all. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_empty(void *self, const TVMFFIAny *args, int32_t count,
                                       TVMFFIAny *result) {
  (void)self, (void)args, (void)count, (void)result;
  return 0;
}

/* scale(tensor, factor): float32, in C order. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_scale(void *self, const TVMFFIAny *args, int32_t count,
                                       TVMFFIAny *result) {
  (void)self, (void)result;
  if (count != 2 || args[0].type_index != kTVMFFITensor || args[1].type_index != kTVMFFIFloat) {
    TVMFFIErrorSetRaisedFromCStr("TypeError", "scale takes a Tensor and a float");
    return -1;
  }
  DLTensor *tensor = (DLTensor *)((char *)args[0].v_obj + sizeof(TVMFFIObject));
  int64_t size = 1;
  for (int32_t i = 0; i < tensor->ndim; i++) size *= tensor->shape[i];
  float *data = (float *)((char *)tensor->data + tensor->byte_offset);
  for (int64_t i = 0; i < size; i++) data[i] *= (float)args[1].v_float64;
  return 0;
}

static int deleted = 0;

static int count_down(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {
  (void)args, (void)count;
  result->type_index = kTVMFFIInt;
  result->v_int64 = --*(int64_t *)self;
  return 0;
}

static void delete_counter(void *self) {
  deleted++;
  free(self);
}

/* counter(n): a function whose code, and deleter, are this library's. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_counter(void *self, const TVMFFIAny *args, int32_t count,
                                         TVMFFIAny *result) {
  (void)self, (void)count;
  int64_t *at = malloc(sizeof(int64_t));
  *at = args[0].v_int64;
  TVMFFIObjectHandle made;
  if (TVMFFIFunctionCreate(at, count_down, delete_counter, &made) != 0) return -1;
  result->type_index = kTVMFFIFunction;
  result->v_obj = made;
  return 0;
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_deleted(void *self, const TVMFFIAny *args, int32_t count,
                                         TVMFFIAny *result) {
  (void)self, (void)args, (void)count;
  result->type_index = kTVMFFIInt;
  result->v_int64 = deleted;
  return 0;
}

/* Fails, and says nothing. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_silent(void *self, const TVMFFIAny *args, int32_t count,
                                        TVMFFIAny *result) {
  (void)self, (void)args, (void)count, (void)result;
  return -1;
}
