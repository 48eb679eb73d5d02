// Functions of a TVM-FFI module, in C++ with the headers of apache-tvm-ffi. It
// registers nothing.

#include <tvm/ffi/big_int.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/list.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <chrono>
#include <cstdlib>
#include <thread>

namespace ffi = tvm::ffi;

static int64_t live = 0;

// Memory of tensors that are made here, counted.
struct Counted {
  void AllocData(DLTensor* tensor) {
    live++;
    tensor->data = malloc(ffi::GetDataSize(*tensor));
  }
  void FreeData(DLTensor* tensor) {
    live--;
    free(tensor->data);
  }
};

static void add_one(ffi::TensorView x, ffi::TensorView y) {
  TVM_FFI_CHECK(x.dtype() == (DLDataType{kDLFloat, 32, 1}), TypeError)
      << "x must be float32";
  TVM_FFI_CHECK(x.numel() == y.numel(), ValueError) << "sizes differ";
  TVM_FFI_CHECK(x.device().device_type == kDLCPU, ValueError) << "x is not on the CPU";
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(y.data_ptr());
  for (int64_t i = 0; i < x.numel(); i++) to[i] = from[i] + 1;
}

static ffi::Tensor count_up(int64_t n) {
  ffi::Tensor made = ffi::Tensor::FromNDAlloc(
      Counted(), ffi::Shape({n}), DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0});
  for (int64_t i = 0; i < n; i++) static_cast<float*>(made.data_ptr())[i] = float(i);
  return made;
}

static ffi::Tensor on_cuda(int64_t n) {
  return ffi::Tensor::FromNDAlloc(Counted(), ffi::Shape({n}), DLDataType{kDLFloat, 32, 1},
                                  DLDevice{kDLCUDA, 0});
}

static ffi::Tensor allocated(ffi::Shape shape, DLDataType dtype, DLDevice device) {
  return ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, shape, dtype, device);
}

static int64_t strong_count(ffi::ObjectRef object) { return object.use_count() - 1; }

static ffi::Any identity(ffi::Any value) { return value; }

static int64_t type_of(ffi::AnyView value) { return value.type_index(); }

static void fail(ffi::String kind, ffi::String message) {
  throw ffi::Error(std::string(kind), std::string(message), TVMFFIBacktrace(__FILE__, __LINE__, "fail", 0));
}

static ffi::Any call(ffi::Function f, ffi::Any value) { return f(value); }

// Lends a DLTensor* that is valid during the call alone.
static ffi::Any call_with_view(ffi::Function f) {
  float memory[4] = {1, 2, 3, 4};
  int64_t shape[2] = {2, 2};
  int64_t strides[2] = {2, 1};
  DLTensor tensor{memory, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, shape, strides, 0};
  ffi::Any result = f(&tensor);
  return ffi::Array<ffi::Any>{result, memory[3]};
}

static ffi::Function closure(int64_t step) {
  live++;
  std::shared_ptr<int64_t> at(new int64_t(0), [](int64_t* p) {
    live--;
    delete p;
  });
  return ffi::Function::FromTyped([at, step]() -> int64_t { return *at += step; });
}

static ffi::Map<ffi::String, ffi::Any> nested() {
  return {{"closures", ffi::Array<ffi::Any>{closure(1), closure(10)}},
          {"tensor", count_up(3)},
          {"shape", ffi::Shape({2, 3})}};
}

// Its last element cannot be received: what comes before must be given up.
static ffi::Array<ffi::Any> partly_bad() {
  return {count_up(3), closure(1), ffi::String("\xff bad text"), count_up(2)};
}

static ffi::List<ffi::Any> bad_list() { return {closure(1), ffi::String("\xff bad text")}; }

static ffi::Any call_bad(ffi::Function f) { return f(count_up(2), partly_bad()); }

static ffi::Any power_of_two(int64_t n) {
  ffi::BigInt value(1);
  for (int64_t i = 0; i < n; i++) value = value * ffi::BigInt(2);
  return ffi::Any(value);
}

static ffi::Any kept;
static void keep(ffi::Any value) { kept = value; }
static ffi::Any get_kept() { return kept; }
static ffi::Any call_kept() { return kept.cast<ffi::Function>()(); }

static int64_t live_count() { return live; }

static std::thread worker;
static ffi::Any answer;
// Calls back from another thread, after a while.
static void call_later(ffi::Function f, ffi::Any value) {
  worker = std::thread([f, value]() {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    answer = f(value);
  });
}
static ffi::Any join() {
  worker.join();
  ffi::Any got = answer;
  answer = nullptr;
  return got;
}

static ffi::Any pointer_to(int64_t address) { return reinterpret_cast<void*>(address); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(add_one, add_one)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(count_up, count_up)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(on_cuda, on_cuda)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(allocated, allocated)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(strong_count, strong_count)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(identity, identity)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(type_of, type_of)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(fail, fail)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(call, call)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(call_with_view, call_with_view)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(closure, closure)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(nested, nested)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(partly_bad, partly_bad)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(bad_list, bad_list)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(call_bad, call_bad)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(power_of_two, power_of_two)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(keep, keep)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(get_kept, get_kept)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(call_kept, call_kept)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(live_count, live_count)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(call_later, call_later)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(join, join)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(pointer_to, pointer_to)
