#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
namespace ffi = tvm::ffi;

void add_one(ffi::TensorView x, ffi::TensorView y) {
  for (ffi::TensorView t : {x, y}) {
    TVM_FFI_CHECK(t.device().device_type == kDLCPU, ValueError) << "not on the CPU";
    TVM_FFI_CHECK(t.dtype() == (DLDataType{kDLFloat, 32, 1}), TypeError) << "not float32";
    TVM_FFI_CHECK(t.IsContiguous() && t.numel() == x.numel(), ValueError) << "not alike";
  }
  auto from = static_cast<const float*>(x.data_ptr());
  auto to = static_cast<float*>(y.data_ptr());
  for (int64_t i = 0; i < x.numel(); i++) to[i] = from[i] + 1;
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(add_one, add_one)
