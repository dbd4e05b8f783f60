// Devices, streams, events and generators as torch asks for them.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>

#include "memory.h"

namespace {
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
}  // namespace
