/**
 * The memory layout of `tvm/ffi/c_api.h` of TVM-FFI: byte offsets, type indices
 * and flags.
 *
 * All offsets are for 64-bit pointers, and tests/tvm_ffi_abi_test.ts compares
 * them with what a C compiler says of the header in the wheel.
 *
 * @module
 */

/** The versions of the ABI that this module knows: 0.1, from patch `FIRST_PATCH` on. */
export const ABI_VERSION = [0, 1] as const;

/** The first patch version whose containers begin with a `TVMFFISeqCell`. */
export const FIRST_PATCH = 9;

/** `TVMFFIVersion`. */
export const VERSION = {
  major: 0, // uint32_t major
  minor: 4, // uint32_t minor
  patch: 8, // uint32_t patch
  size: 12,
} as const;

/** `TVMFFIAny`: a value on the stack. */
export const ANY = {
  typeIndex: 0, // int32_t type_index
  smallLength: 4, // uint32_t small_str_len, else 0
  value: 8, // int64_t v_int64, and all else
  size: 16,
} as const;

/** `TVMFFIObject`: what every object on the heap begins with. */
export const OBJECT = {
  strongCount: 0, // the lower half of uint64_t combined_ref_count
  typeIndex: 8, // int32_t type_index
  size: 24,
} as const;

/** `TVMFFIByteArray`; in a string or bytes object it follows the header. */
export const BYTE_ARRAY = {
  data: 0, // const char *data
  length: 8, // size_t size
  size: 16,
} as const;

/** `TVMFFIShapeCell`, which follows the header of a shape. */
export const SHAPE = {
  data: 0, // const int64_t *data
  length: 8, // size_t size
  size: 16,
} as const;

/** `TVMFFISeqCell`, which follows the header of an array or list. */
export const SEQUENCE = {
  data: 0, // void *data
  length: 8, // int64_t size
  size: 32,
} as const;

/** What follows the header of an integer beyond 64 bits. */
export const BIG_INT = {
  length: 0, // size_t size_, in words of 64 bits
  words: 8, // int64_t words[]
} as const;

/** `TVMFFIErrorCell`, which follows the header of an error. */
export const ERROR = {
  kind: 0, // TVMFFIByteArray kind
  message: 16, // TVMFFIByteArray message
  backtrace: 32, // TVMFFIByteArray backtrace
  size: 72,
} as const;

/** `TVMFFITypeInfo`. */
export const TYPE_INFO = {
  typeIndex: 0, // int32_t type_index
  depth: 4, // int32_t type_depth
  key: 8, // TVMFFIByteArray type_key
  ancestors: 24, // const struct TVMFFITypeInfo **type_ancestors
  fieldCount: 40, // int32_t num_fields
  methodCount: 44, // int32_t num_methods
  fields: 48, // const TVMFFIFieldInfo *fields
  methods: 56, // const TVMFFIMethodInfo *methods
  metadata: 64, // const TVMFFITypeMetadata *metadata
  size: 72,
} as const;

/** `TVMFFIFieldInfo`. */
export const FIELD_INFO = {
  name: 0, // TVMFFIByteArray name
  flags: 48, // int64_t flags
  offset: 72, // int64_t offset
  getter: 80, // TVMFFIFieldGetter getter
  setter: 88, // void *setter
  size: 120,
} as const;

/** `TVMFFIMethodInfo`. */
export const METHOD_INFO = {
  name: 0, // TVMFFIByteArray name
  flags: 48, // int64_t flags
  method: 56, // TVMFFIAny method
  size: 72,
} as const;

/** `TVMFFITypeAttrColumn`. */
export const ATTRIBUTE_COLUMN = {
  data: 0, // const TVMFFIAny *data
  length: 8, // int32_t size
  first: 12, // int32_t begin_index
  size: 16,
} as const;

/** The bits of the flags of fields and methods. */
export const MEMBER_FLAG = {
  writable: 1, // kTVMFFIFieldFlagBitMaskWritable
  isStatic: 4, // kTVMFFIFieldFlagBitMaskIsStaticMethod
  setterIsFunction: 2048, // kTVMFFIFieldFlagBitSetterIsFunctionObj
} as const;

/** `TVMFFITypeIndex`. */
export const TYPE = {
  none: 0, // kTVMFFINone
  int: 1, // kTVMFFIInt
  bool: 2, // kTVMFFIBool
  float: 3, // kTVMFFIFloat
  opaquePointer: 4, // kTVMFFIOpaquePtr
  dataType: 5, // kTVMFFIDataType
  device: 6, // kTVMFFIDevice
  dlTensor: 7, // kTVMFFIDLTensorPtr
  smallString: 11, // kTVMFFISmallStr
  smallBytes: 12, // kTVMFFISmallBytes
  /** All from here on are objects. */
  object: 64, // kTVMFFIStaticObjectBegin
  string: 65, // kTVMFFIStr
  bytes: 66, // kTVMFFIBytes
  error: 67, // kTVMFFIError
  function: 68, // kTVMFFIFunction
  shape: 69, // kTVMFFIShape
  tensor: 70, // kTVMFFITensor
  array: 71, // kTVMFFIArray
  map: 72, // kTVMFFIMap
  module: 73, // kTVMFFIModule
  list: 75, // kTVMFFIList
  dict: 76, // kTVMFFIDict
  bigInt: 78, // kTVMFFIBigInt
} as const;
