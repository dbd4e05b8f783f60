// Queues of work: kernels and copies run when someone waits for their stream or an event.
#pragma once
#include <ATen/Tensor.h>
#include <ATen/ThreadLocalState.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>

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
}  // namespace
