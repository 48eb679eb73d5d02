// Says where the C++ compiler has what c_api.h declares: a line for each.

#include <tvm/ffi/c_api.h>

#include <cstddef>
#include <cstdio>

#define AT(T, f) printf(#T "." #f " %zu\n", offsetof(T, f))
#define SIZE(T) printf(#T " %zu\n", sizeof(T))
#define IS(x) printf(#x " %d\n", static_cast<int>(x))

int main() {
  AT(TVMFFIVersion, major);
  AT(TVMFFIVersion, minor);
  AT(TVMFFIVersion, patch);
  SIZE(TVMFFIVersion);
  AT(TVMFFIAny, type_index);
  AT(TVMFFIAny, small_str_len);
  AT(TVMFFIAny, v_int64);
  SIZE(TVMFFIAny);
  AT(TVMFFIObject, combined_ref_count);
  AT(TVMFFIObject, type_index);
  SIZE(TVMFFIObject);
  AT(TVMFFIByteArray, data);
  AT(TVMFFIByteArray, size);
  SIZE(TVMFFIByteArray);
  AT(TVMFFIShapeCell, data);
  AT(TVMFFIShapeCell, size);
  SIZE(TVMFFIShapeCell);
  AT(TVMFFISeqCell, data);
  AT(TVMFFISeqCell, size);
  SIZE(TVMFFISeqCell);
  AT(TVMFFIErrorCell, kind);
  AT(TVMFFIErrorCell, message);
  AT(TVMFFIErrorCell, backtrace);
  SIZE(TVMFFIErrorCell);
  AT(TVMFFITypeInfo, type_index);
  AT(TVMFFITypeInfo, type_depth);
  AT(TVMFFITypeInfo, type_key);
  AT(TVMFFITypeInfo, type_ancestors);
  AT(TVMFFITypeInfo, num_fields);
  AT(TVMFFITypeInfo, num_methods);
  AT(TVMFFITypeInfo, fields);
  AT(TVMFFITypeInfo, methods);
  AT(TVMFFITypeInfo, metadata);
  SIZE(TVMFFITypeInfo);
  AT(TVMFFIFieldInfo, name);
  AT(TVMFFIFieldInfo, flags);
  AT(TVMFFIFieldInfo, offset);
  AT(TVMFFIFieldInfo, getter);
  AT(TVMFFIFieldInfo, setter);
  SIZE(TVMFFIFieldInfo);
  AT(TVMFFIMethodInfo, name);
  AT(TVMFFIMethodInfo, flags);
  AT(TVMFFIMethodInfo, method);
  SIZE(TVMFFIMethodInfo);
  AT(TVMFFITypeAttrColumn, data);
  AT(TVMFFITypeAttrColumn, size);
  AT(TVMFFITypeAttrColumn, begin_index);
  SIZE(TVMFFITypeAttrColumn);
  IS(kTVMFFIFieldFlagBitMaskWritable);
  IS(kTVMFFIFieldFlagBitMaskIsStaticMethod);
  IS(kTVMFFIFieldFlagBitSetterIsFunctionObj);
  IS(kTVMFFINone);
  IS(kTVMFFIInt);
  IS(kTVMFFIBool);
  IS(kTVMFFIFloat);
  IS(kTVMFFIOpaquePtr);
  IS(kTVMFFIDataType);
  IS(kTVMFFIDevice);
  IS(kTVMFFIDLTensorPtr);
  IS(kTVMFFISmallStr);
  IS(kTVMFFISmallBytes);
  IS(kTVMFFIStaticObjectBegin);
  IS(kTVMFFIStr);
  IS(kTVMFFIBytes);
  IS(kTVMFFIError);
  IS(kTVMFFIFunction);
  IS(kTVMFFIShape);
  IS(kTVMFFITensor);
  IS(kTVMFFIArray);
  IS(kTVMFFIMap);
  IS(kTVMFFIModule);
  IS(kTVMFFIList);
  IS(kTVMFFIDict);
  IS(kTVMFFIBigInt);
}
