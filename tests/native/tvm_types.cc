// A library that registers a type and a function with TVM-FFI when it is opened.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/cast.h>
#include <tvm/ffi/object.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

static int64_t live = 0;

struct CounterObj : public ffi::Object {
  int64_t value;
  ffi::String label;
  ffi::Array<ffi::Any> seen;
  CounterObj(int64_t value, ffi::String label) : value(value), label(label) {
    if (value < 0) TVM_FFI_THROW(ValueError) << "value must not be negative";
    live++;
  }
  ~CounterObj() { live--; }
  int64_t add(int64_t n) { return value += n; }
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO("deno.test.Counter", CounterObj, ffi::Object);
};

struct Counter : public ffi::ObjectRef {
  Counter(int64_t value, ffi::String label)
      : ffi::ObjectRef(ffi::make_object<CounterObj>(value, label)) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NULLABLE(Counter, ffi::ObjectRef, CounterObj);
};

struct NamedCounterObj : public CounterObj {
  NamedCounterObj(int64_t value, ffi::String label) : CounterObj(value, label) {}
  ffi::String name() const { return "named " + label; }
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("deno.test.NamedCounter", NamedCounterObj, CounterObj);
};

struct NamedCounter : public Counter {
  NamedCounter(int64_t value, ffi::String label) : Counter(ffi::UnsafeInit{}) {
    data_ = ffi::make_object<NamedCounterObj>(value, label);
  }
};

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = ffi::reflection;
  refl::ObjectDef<CounterObj>()
      .def(refl::init<int64_t, ffi::String>())
      .def_rw("value", &CounterObj::value)
      .def_ro("label", &CounterObj::label)
      .def_rw("seen", &CounterObj::seen)
      .def("add", &CounterObj::add)
      .def("self", [](CounterObj* self) { return ffi::GetRef<ffi::ObjectRef>(self); })
      .def_static("live", []() { return live; });
  refl::ObjectDef<NamedCounterObj>()
      .def(refl::init<int64_t, ffi::String>())
      .def("name", &NamedCounterObj::name);
  refl::GlobalDef().def("deno.test.total", [](ffi::Array<Counter> all) {
    int64_t total = 0;
    for (const Counter& one : all) total += one->value;
    return total;
  });
}
