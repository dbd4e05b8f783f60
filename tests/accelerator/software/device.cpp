// A software accelerator: a backend of torch whose devices are as unkind as a device may be.
//
// Its memory is host memory that only its own kernels may read. Kernels and copies wait in the queue of
// their stream and run on the processor when someone waits for that stream, an event or the device.
// New and freed memory holds NaN, and so does the target of a copy that is still under way.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/NativeFunctions.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>

namespace {
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::IValue;
using c10::Stream;
using Where = std::pair<int, c10::StreamId>;  // a device and one of its streams

constexpr auto KIND = c10::DeviceType::PrivateUse1;
constexpr int DEVICES = 2;
constexpr size_t MOST_QUEUED = 20000, MOST_KEPT = size_t(1) << 26;

// Queues ------------------------------------------------------------------------------------------

struct Queue {
  std::deque<std::function<void()>> tasks;
  uint64_t issued = 0, done = 0;
};
struct Event {
  Where where{-1, 0};
  uint64_t position = 0;
  std::chrono::steady_clock::time_point time{};
};

std::recursive_mutex everything;
std::map<Where, Queue> queues;
std::map<std::string, int64_t> calls;
thread_local DeviceIndex current = 0;
thread_local c10::StreamId streams[DEVICES] = {0, 0};
at::ThreadLocalState* plain = new at::ThreadLocalState();

// Tasks run outside of everything that surrounds the caller: autograd, vmap, dispatch modes.
struct Outside {
  at::ThreadLocalStateGuard guard{*plain};
  at::AutoDispatchBelowADInplaceOrView below;
};

void run_until(Where where, uint64_t position) {
  std::lock_guard hold(everything);
  auto& queue = queues[where];
  while (queue.done < position) {
    auto task = std::move(queue.tasks.front());
    queue.tasks.pop_front();
    {
      Outside outside;
      task();
    }
    ++queue.done;
  }
}
void run_all(Where where) {
  std::lock_guard hold(everything);
  run_until(where, queues[where].issued);
}
void run_device(int device) {
  std::lock_guard hold(everything);
  for (auto& [where, queue] : queues)
    if (where.first == device) run_all(where);
}
void submit(Where where, std::function<void()> task) {
  std::lock_guard hold(everything);
  auto& queue = queues[where];
  queue.tasks.push_back(std::move(task));
  if (++queue.issued - queue.done > MOST_QUEUED) run_all(where);
}
Event mark(Where where) {
  std::lock_guard hold(everything);
  return {where, queues[where].issued, std::chrono::steady_clock::now()};
}
void make_wait(Where waiting, Event event) {
  if (waiting != event.where && event.where.first >= 0)
    submit(waiting, [event] { run_until(event.where, event.position); });
}
Where stream_of(int device) { return {device, streams[device]}; }

// Memory ------------------------------------------------------------------------------------------

struct Block {
  size_t size;
  Where where;
  std::set<Where> readers, recorded;  // the other streams whose tasks use it; those it waits for
};
std::map<void*, Block> blocks;
std::deque<std::pair<void*, size_t>> kept;
size_t kept_bytes = 0;
int64_t limits[DEVICES] = {int64_t(1) << 30, int64_t(1) << 30};
c10::CachingDeviceAllocator::DeviceStats statistics[DEVICES];

void fill_with_nan(void* memory, size_t size) { std::memset(memory, 0xFF, size); }

// Memory stays readable for a while, so that a late reader finds NaN and does not end the process.
void give_back(void* memory, size_t size) {
  fill_with_nan(memory, size);
  kept.emplace_back(memory, size);
  for (kept_bytes += size; kept_bytes > MOST_KEPT; kept.pop_front()) {
    kept_bytes -= kept.front().second;
    std::free(kept.front().first);
  }
}

void count(int device, int64_t bytes) {
  for (auto* of : {&statistics[device].allocated_bytes, &statistics[device].reserved_bytes,
                   &statistics[device].active_bytes}) {
    auto& stat = (*of)[0];
    bytes > 0 ? stat.increase(bytes) : stat.decrease(-bytes);
  }
}

// Freed memory may be used again at once by later work of its own stream: it is as if such work wrote
// NaN. Another stream that reads it without a record comes too late.
void release(void* memory) {
  std::lock_guard hold(everything);
  auto found = blocks.find(memory);
  Block block = found->second;
  blocks.erase(found);
  count(block.where.first, -int64_t(block.size));
  auto end = [memory, size = block.size] { give_back(memory, size); };
  bool is_late = false;
  for (auto& reader : block.readers) is_late |= !block.recorded.count(reader);
  if (is_late) run_all(block.where);
  Where last = block.recorded.empty() ? block.where : *block.recorded.begin();
  make_wait(last, mark(block.where));
  for (auto& other : block.recorded) make_wait(last, mark(other));
  is_late ? end() : submit(last, end);
}

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t size) override {
    Device device(KIND, current);
    if (size == 0) return {nullptr, nullptr, &release, device};
    std::lock_guard hold(everything);
    auto used = statistics[current].allocated_bytes[0].current;
    if (used + int64_t(size) > limits[current]) {
      ++statistics[current].num_ooms;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "software accelerator out of memory: tried to allocate ",
                       size, " bytes with ", limits[current] - used, " free on device ", int(current));
    }
    void* memory = nullptr;
    TORCH_CHECK(posix_memalign(&memory, 64, size) == 0, "can't allocate memory");
    fill_with_nan(memory, size);
    blocks[memory] = {size, stream_of(current), {}, {}};
    count(current, int64_t(size));
    return {memory, memory, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    run_device(current);
    std::memcpy(to, from, size);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr& data, Stream stream) override {
    std::lock_guard hold(everything);
    auto found = blocks.find(data.get());
    Where where{stream.device_index(), stream.id()};
    if (found != blocks.end() && where != found->second.where) found->second.recorded.insert(where);
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex device) override {
    std::lock_guard hold(everything);
    return statistics[device];
  }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex device) override {
    std::lock_guard hold(everything);
    for (auto* of : {&statistics[device].allocated_bytes, &statistics[device].reserved_bytes,
                     &statistics[device].active_bytes})
      (*of)[0].reset_peak();
  }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) override {
    std::lock_guard hold(everything);
    auto used = statistics[device].allocated_bytes[0].current;
    return {size_t(std::max(limits[device] - used, int64_t(0))), size_t(limits[device])};
  }
};
Allocator allocator;

std::set<const void*> pinned;
struct PinnedAllocator final : c10::Allocator {
  static void free(void* memory) {
    std::lock_guard hold(everything);
    pinned.erase(memory);
    std::free(memory);
  }
  c10::DataPtr allocate(size_t size) override {
    void* memory = nullptr;
    TORCH_CHECK(posix_memalign(&memory, 64, size + 1) == 0, "can't allocate memory");
    std::lock_guard hold(everything);
    pinned.insert(memory);
    return {memory, memory, &free, c10::DeviceType::CPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    std::memcpy(to, from, size);
  }
};
PinnedAllocator pinned_allocator;

// Devices, streams, events, generators ------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  Device exchangeDevice(Device device) const override {
    Device before(KIND, current);
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return {KIND, current}; }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() < DEVICES, "there is no device ", device);
    if (device.index() >= 0) current = device.index();
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.index() >= 0) current = device.index();
  }
  DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  Stream getStream(Device device) const override {
    int index = device.index() < 0 ? current : device.index();
    return Stream(Stream::UNSAFE, Device(KIND, index), streams[index]);
  }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return getNewStream(device, 0); }
  Stream getNewStream(Device device, int) const override {
    static std::atomic<int64_t> last{0};
    return Stream(Stream::UNSAFE, Device(KIND, device.index() < 0 ? current : device.index()), ++last);
  }
  Stream exchangeStream(Stream stream) const override {
    Stream before = getStream(stream.device());
    streams[stream.device_index()] = stream.id();
    return before;
  }
  static Where place(const Stream& stream) { return {stream.device_index(), stream.id()}; }
  void record(void** event, const Stream& stream, DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) *event = new Event;
    *static_cast<Event*>(*event) = mark(place(stream));
  }
  void block(void* event, const Stream& stream) const override {
    if (event != nullptr) make_wait(place(stream), *static_cast<Event*>(event));
  }
  // Who asks whether work has ended lets a little of it run, so that asking again comes to an end.
  bool queryEvent(void* event) const override {
    if (event == nullptr) return true;
    std::lock_guard hold(everything);
    auto [where, position, time] = *static_cast<Event*>(event);
    if (queues[where].done < position) run_until(where, queues[where].done + 1);
    return queues[where].done >= position;
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) run_until(static_cast<Event*>(event)->where, static_cast<Event*>(event)->position);
  }
  void destroyEvent(void* event, DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* first, void* last, DeviceIndex) const override {
    auto passed = static_cast<Event*>(last)->time - static_cast<Event*>(first)->time;
    return std::chrono::duration<double, std::milli>(passed).count();
  }
  bool queryStream(const Stream& stream) const override {
    std::lock_guard hold(everything);
    return queues[place(stream)].tasks.empty();
  }
  void synchronizeStream(const Stream& stream) const override { run_all(place(stream)); }
  void synchronizeDevice(DeviceIndex device) const override { run_device(device < 0 ? current : device); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const Stream& stream) const override {
    allocator.recordStream(data, stream);
  }
};

struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(DeviceIndex device) { device_ = Device(KIND, device < 0 ? current : device); }
};
at::Generator& generator_of(DeviceIndex device) {
  static at::Generator each[DEVICES] = {at::make_generator<Generator>(0), at::make_generator<Generator>(1)};
  return each[device < 0 ? current : device];
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return DEVICES; }
  void setCurrentDevice(DeviceIndex device) const override { Guard().setDevice({KIND, device}); }
  DeviceIndex getCurrentDevice() const override { return current; }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    return Guard().exchangeDevice({KIND, device}).index();
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return exchangeDevice(device); }
  bool isPinnedPtr(const void* memory) const override {
    std::lock_guard hold(everything);
    return pinned.count(memory) > 0;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  Device getDeviceFromPtr(void*) const override { return {KIND, current}; }
  const at::Generator& getDefaultGenerator(DeviceIndex device) const override { return generator_of(device); }
  at::Generator getNewGenerator(DeviceIndex device) const override { return at::make_generator<Generator>(device); }
};
Hooks hooks;

// Operators ---------------------------------------------------------------------------------------

bool is_here(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == KIND; }

// What a task needs of a tensor: the tensor itself may be freed before the task runs.
struct Seen {
  void* data;
  std::vector<int64_t> sizes, strides;
  at::TensorOptions options;
  bool is_conj, is_neg;
  explicit Seen(const Tensor& tensor)
      : data(tensor.numel() ? const_cast<void*>(tensor.unsafeGetTensorImpl()->data()) : nullptr),
        sizes(tensor.sizes().vec()), strides(tensor.strides().vec()),
        options(at::TensorOptions().dtype(tensor.dtype())), is_conj(tensor.is_conj()), is_neg(tensor.is_neg()) {}
  Tensor on_host() const {
    Tensor seen = at::from_blob(data, sizes, strides, options);
    if (is_conj) seen._set_conj(true);
    if (is_neg) seen._set_neg(true);
    return seen;
  }
};
void used_by(Where where, const Tensor& tensor) {
  std::lock_guard hold(everything);
  auto found = blocks.find(const_cast<void*>(tensor.storage().data()));
  if (found != blocks.end() && found->second.where != where) found->second.readers.insert(where);
}

// Replace the tensors of a value, also those of a list.
IValue mapped(const IValue& value, const std::function<IValue(const Tensor&)>& change) {
  if (value.isTensor()) return value.toTensor().defined() ? change(value.toTensor()) : value;
  if (!value.isList()) return value;
  auto list = value.toList();
  bool has_tensors = false;
  auto copy = list.copy();
  for (size_t place = 0; place < list.size(); ++place) {
    IValue element = list.get(place);
    if (!element.isTensor()) continue;
    copy.set(place, mapped(element, change));
    has_tensors = true;
  }
  return has_tensors ? IValue(copy) : value;
}
void each_tensor(const IValue& value, const std::function<void(const Tensor&)>& see) {
  mapped(value, [&](const Tensor& tensor) {
    see(tensor);
    return IValue(tensor);
  });
}
Tensor view_of(const Tensor& base, const Tensor& seen) {
  auto* start = static_cast<const char*>(base.storage().data());
  auto offset = static_cast<const char*>(seen.unsafeGetTensorImpl()->data()) - start;
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(base.storage()), base.key_set(), seen.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(
      seen.sizes(), seen.strides(), seen.numel() ? offset / int64_t(seen.element_size()) : 0);
  return result;
}
std::vector<IValue> call(const c10::OperatorHandle& op, std::vector<IValue> arguments) {
  op.callBoxed(&arguments);
  return arguments;
}

// Run any operator: at once what returns views or numbers or draws random numbers, in its stream all else.
void run_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  std::vector<IValue> given(stack->end() - schema.arguments().size(), stack->end());
  torch::jit::drop(*stack, given.size());
  int device = -1;
  std::vector<Tensor> tensors;
  for (auto& argument : given)
    each_tensor(argument, [&](const Tensor& tensor) {
      tensors.push_back(tensor);
      if (!is_here(tensor)) return;
      TORCH_CHECK(device < 0 || device == tensor.device().index(), schema.operator_name(),
                  ": tensors are on two devices of the software accelerator");
      device = tensor.device().index();
    });
  bool takes_indices = schema.name().find("aten::index") == 0 || schema.name() == "aten::_index_put_impl_";
  for (auto& tensor : tensors)
    TORCH_CHECK(device < 0 || is_here(tensor) || tensor.dim() == 0 || takes_indices, schema.operator_name(),
                ": one tensor is on the software accelerator, another of ", tensor.dim(), " dimensions on ",
                tensor.device());
  bool is_random = op.hasTag(at::Tag::nondeterministic_seeded);
  bool is_view = false, is_in_place = !schema.returns().empty(), is_immediate = device < 0 || is_random;
  for (auto& returned : schema.returns()) {
    auto* alias = returned.alias_info();
    is_view |= alias != nullptr && !alias->isWrite();
    is_in_place &= alias != nullptr && alias->isWrite();
    is_immediate |= returned.type()->kind() != c10::TypeKind::TensorType &&
                    returned.type()->str() != "Tensor[]";
  }
  for (size_t place = 0; place < given.size(); ++place) {
    auto kind = schema.arguments()[place].type()->str();
    if (kind.find("Device") == 0 && given[place].isDevice()) {
      if (device < 0) device = given[place].toDevice().index();
      given[place] = Device(c10::DeviceType::CPU);
    }
  }
  if (device < 0) device = current;
  c10::DeviceGuard guard(Device(KIND, device));
  Where where = stream_of(device);
  {
    std::lock_guard hold(everything);
    ++calls[schema.name() + ":" + std::to_string(device)];
  }
  std::vector<IValue> outputs;
  if (is_in_place)  // in their order, tensors that are written are what is returned
    for (size_t place = 0; place < given.size(); ++place) {
      auto* alias = schema.arguments()[place].alias_info();
      if (alias != nullptr && alias->isWrite()) outputs.push_back(given[place]);
    }
  // Numbers of the host are read now.
  auto seen = [&](const Tensor& tensor) -> IValue {
    return is_here(tensor) ? IValue(Seen(tensor).on_host()) : IValue(tensor.clone());
  };
  if (is_view) {
    Outside outside;
    std::vector<IValue> arguments;
    for (auto& argument : given) arguments.push_back(mapped(argument, seen));
    stack->push_back(view_of(tensors.at(0), call(op, arguments).at(0).toTensor()));
    return;
  }
  bool is_sized = true;  // an `out=` without elements gets its shape from the operator
  for (auto& output : outputs)
    each_tensor(output, [&](const Tensor& tensor) { is_sized &= tensor.numel() > 0; });
  std::vector<IValue> shapes;
  if (!is_immediate && (!is_in_place || !is_sized)) {
    Outside outside;
    std::vector<IValue> arguments;
    for (auto& argument : given)
      arguments.push_back(mapped(argument, [&](const Tensor& tensor) -> IValue {
        if (!is_here(tensor)) return tensor;
        auto meta = tensor.options().device(c10::DeviceType::Meta);
        return at::empty_strided(tensor.sizes(), tensor.strides(), meta);
      }));
    try {
      shapes = call(op, arguments);
    } catch (const std::exception&) {
      is_immediate = true;  // its shapes depend on its numbers, or it fails for a reason
    }
  }
  if (!is_immediate && is_in_place && !is_sized)
    for (size_t place = 0; place < outputs.size(); ++place)
      if (outputs[place].isTensor()) outputs[place].toTensor().resize_(shapes[place].toTensor().sizes());
  if (!is_in_place && !is_immediate)
    for (auto& shape : shapes)
      outputs.push_back(mapped(shape, [&](const Tensor& meta) -> IValue {
        auto here = meta.options().device(Device(KIND, device));
        return at::empty_strided(meta.sizes(), meta.strides(), here);
      }));
  for (auto* values : {&given, &outputs})
    for (auto& value : *values)
      each_tensor(value, [&](const Tensor& tensor) {
        if (is_here(tensor)) used_by(where, tensor);
      });
  if (is_immediate) {
    run_all(where);
    Outside outside;
    std::vector<IValue> arguments;
    auto source = generator_of(DeviceIndex(device));
    for (auto& argument : given) {
      if (argument.isGenerator()) source = argument.toGenerator();
      arguments.push_back(argument.isGenerator() ? IValue() : mapped(argument, seen));
    }
    // The operator draws from the generator of the processor, which stands in for that of the device.
    auto stand_in = at::detail::getDefaultCPUGenerator();
    auto before = stand_in.get_state();
    if (is_random) stand_in.set_state(source.get_state());
    auto results = call(op, arguments);
    if (is_random) source.set_state(stand_in.get_state());
    if (is_random) stand_in.set_state(before);
    for (size_t place = 0; place < results.size(); ++place)
      stack->push_back(is_in_place ? outputs[place] : mapped(results[place], [&](const Tensor& host) -> IValue {
        Tensor here = at::empty_strided(host.sizes(), host.strides(), host.options().device(Device(KIND, device)));
        Seen(here).on_host().copy_(host);
        return here;
      }));
    return;
  }
  // The views do not own memory: they are made now and used when the task runs.
  auto as_seen = [&](std::vector<IValue> values) {
    for (auto& value : values) value = mapped(value, seen);
    return values;
  };
  std::vector<IValue> arguments, targets;
  {
    Outside outside;
    arguments = as_seen(given);
    if (!is_in_place) targets = as_seen(outputs);
  }
  submit(where, [op, arguments, targets] {
    auto results = call(op, arguments);
    for (size_t place = 0; place < targets.size(); ++place) {
      std::vector<Tensor> from, to;
      each_tensor(results[place], [&](const Tensor& tensor) { from.push_back(tensor); });
      each_tensor(targets[place], [&](const Tensor& tensor) { to.push_back(tensor); });
      for (size_t each = 0; each < to.size(); ++each) to[each].copy_(from.at(each));
    }
  });
  for (auto& output : outputs) stack->push_back(output);
}

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
