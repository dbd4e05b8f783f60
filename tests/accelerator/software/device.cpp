// A software accelerator: a backend of torch whose devices are as unkind as a device may be.
//
// Its memory is host memory that only its own kernels may read. Kernels and copies wait in the queue of
// their stream and run on the processor when someone waits for that stream, an event or the device.
// New and freed memory holds NaN, and so does the target of a copy that is still under way.
//
// The headers are parts of this one translation unit, in the order in which they build on each other.
#include <ATen/ops/as_strided_native.h>
#include <torch/library.h>

#include "operators.h"

namespace {
c10::OperatorHandle operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}
void convolution(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  run_operator(operator_named("aten::convolution"), stack);
}
void convolution_backward(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  std::vector<IValue> given(stack->end() - op.schema().arguments().size(), stack->end());
  torch::jit::drop(*stack, given.size());
  bool is_transposed = given[6].toBool();
  auto weight = given[2].toTensor();
  std::vector<int64_t> bias{is_transposed ? weight.size(1) * given[8].toInt() : weight.size(0)};
  given.insert(given.begin() + 3, IValue(bias));
  for (auto& value : given) stack->push_back(value);
  run_operator(operator_named("aten::convolution_backward"), stack);
}

Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(Device(KIND, current)));
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}
Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(Device(KIND, current)));
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}
Tensor as_strided(const Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride,
                  std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}
void grow(const c10::Storage& storage, size_t size) {
  if (size <= storage.nbytes()) return;
  c10::DeviceGuard guard(storage.device());
  auto memory = allocator.allocate(size);
  run_device(storage.device().index());
  if (storage.nbytes()) std::memcpy(memory.get(), storage.data(), storage.nbytes());
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(memory));
  storage.unsafeGetStorageImpl()->set_nbytes(size);
}
const Tensor& resize(const Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_sizes_contiguous(size);
  grow(self.storage(), (self.numel() + self.storage_offset()) * self.element_size());
  return self;
}
Tensor& set_storage(Tensor& self, at::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  if (stride.empty() && !size.empty())
    self.unsafeGetTensorImpl()->set_sizes_contiguous(size), self.unsafeGetTensorImpl()->set_storage_offset(offset);
  else
    self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return self;
}
Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool non_blocking) {
  int device = (is_here(target) ? target : source).device().index();
  c10::DeviceGuard guard(Device(KIND, device));
  Where where = stream_of(device);
  for (auto* tensor : {&source, &target})
    if (is_here(*tensor)) used_by(where, *tensor);
  {
    std::lock_guard hold(everything);
    std::string way = is_here(target) ? (is_here(source) ? "copy:" : "copy to device:") : "copy to host:";
    ++calls[way + std::to_string(device)];
  }
  Outside outside;
  Tensor from = is_here(source) ? Seen(source).on_host() : source;
  Tensor to = is_here(target) ? Seen(target).on_host() : target;
  if (is_here(source) && is_here(target) && source.device() != target.device()) {
    Where other = stream_of(source.device().index());
    make_wait(where, mark(other));
    submit(where, [from, to] { to.copy_(from); });
    make_wait(other, mark(where));
    return target;
  }
  if (!is_here(source)) {
    // Only pinned memory is read late, and only where the caller allows it.
    if (!(non_blocking && source.is_pinned(Device(KIND, device)))) from = source.clone();
    else from = at::from_blob(source.data_ptr(), source.sizes(), source.strides(),
                              [keep = source.storage()](void*) {}, source.options());
  }
  if (!is_here(target)) {
    if (!non_blocking) {
      run_all(where);
      to.copy_(from);
      return target;
    }
    if (target.is_non_overlapping_and_dense()) fill_with_nan(target.data_ptr(), target.nbytes());
    to = at::from_blob(target.data_ptr(), target.sizes(), target.strides(),
                       [keep = target.storage()](void*) {}, target.options());
  }
  submit(where, [from, to] { to.copy_(from); });
  return target;
}
Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  target.resize_(source.sizes());
  return copy_from(source, target, false);
}
at::Scalar number(const Tensor& self) {
  run_all(stream_of(self.device().index()));
  Outside outside;
  return Seen(self).on_host().item();
}
void record_stream(Tensor& self, Stream stream) { allocator.recordStream(self.storage().data_ptr(), stream); }
}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_operator>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &number);
  m.impl("record_stream", &record_stream);
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
}

// A copy reads conjugated and negated views as they are; without these lines torch would copy them first.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

// What tests set and ask.
TORCH_LIBRARY(software, m) {
  m.def("set_limit(int device, int bytes) -> ()", [](int64_t device, int64_t bytes) { limits[device] = bytes; });
  m.def("calls() -> Dict(str, int)", [] {
    std::lock_guard hold(everything);
    c10::Dict<std::string, int64_t> result;
    for (auto& [name, times] : calls) result.insert(name, times);
    return result;
  });
  m.def("forget_calls() -> ()", [] {
    std::lock_guard hold(everything);
    calls.clear();
  });
  m.def("waiting() -> int", [] {
    std::lock_guard hold(everything);
    int64_t total = 0;
    for (auto& [where, queue] : queues) total += int64_t(queue.tasks.size());
    return total;
  });
  // By address: tensors would be wrapped where the caller is under functionalization or vmap.
  m.def("rng_state_size() -> int", [] { return generator_of(0).get_state().numel(); });
  m.def("read_rng_state(int device, int address) -> ()", [](int64_t device, int64_t address) {
    Tensor state = generator_of(device).get_state();
    std::memcpy(reinterpret_cast<void*>(address), state.data_ptr(), state.nbytes());
  });
  m.def("write_rng_state(int device, int address) -> ()", [](int64_t device, int64_t address) {
    Tensor state = generator_of(device).get_state();
    std::memcpy(state.data_ptr(), reinterpret_cast<void*>(address), state.nbytes());
    generator_of(device).set_state(state);
  });
  m.def("seed(int device, int seed) -> ()",
        [](int64_t device, int64_t seed) { generator_of(device).set_current_seed(seed); });
}

static const bool is_registered = [] {
  static Guard guard;
  c10::register_privateuse1_backend("software");
  c10::SetAllocator(KIND, &allocator);
  at::RegisterPrivateUse1HooksInterface(&hooks);
  c10::impl::registerDeviceGuard(KIND, &guard);
  return true;
}();
