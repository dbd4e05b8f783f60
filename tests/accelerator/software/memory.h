// Memory that only kernels may read: NaN where it is new or freed, within a limit, with statistics.
#pragma once
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdlib>
#include <cstring>
#include <set>

#include "queues.h"

namespace {
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
}  // namespace
