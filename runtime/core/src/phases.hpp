// One call in phases: tasks of a phase run side by side, and all of them have ended before the next phase begins.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

#include "events.hpp"
#include "thread_pool.hpp"

namespace moedge {

class Phases {
 public:
  explicit Phases(ThreadPool& pool) : pool_(pool) {}

  // Calls step(phase, task, thread) for every phase and each task below counts[phase], which may be 0; `thread` is
  // below the pool's number of threads and belongs to one thread for this run. `step` must not throw.
  template <class Step>
  void run(std::span<const uint32_t> counts, const Step& step) {
    threads_.store(0, std::memory_order_relaxed);
    begin(counts, 0);
    const Work<Step> work{this, counts, step};
    pool_.run([&work] { work(); });
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{50};

  template <class Step>
  struct Work {
    Phases* phases;
    std::span<const uint32_t> counts;
    const Step& step;

    void operator()() const { phases->work(counts, step); }
  };

  // Publishes the first phase from `phase` on that has tasks.
  void begin(std::span<const uint32_t> counts, uint64_t phase) {
    while (phase < counts.size() && counts[phase] == 0) ++phase;
    done_.store(0, std::memory_order_relaxed);
    place_.store(phase << 32, std::memory_order_release);
    events_.notify();
  }

  template <class Step>
  void work(std::span<const uint32_t> counts, const Step& step) {
    const uint32_t thread = threads_.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      const uint32_t seen = events_.now();
      uint64_t place = place_.load(std::memory_order_acquire);
      if (place >> 32 == counts.size()) return;
      if (static_cast<uint32_t>(place) >= counts[place >> 32]) {
        events_.wait(seen, kPatience, true);
        continue;
      }
      place = place_.fetch_add(1, std::memory_order_acq_rel);
      const uint64_t phase = place >> 32;
      const auto task = static_cast<uint32_t>(place);
      if (phase == counts.size() || task >= counts[phase]) continue;
      step(static_cast<uint32_t>(phase), task, thread);
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == counts[phase]) begin(counts, phase + 1);
    }
  }

  ThreadPool& pool_;
  Events events_;
  std::atomic<uint64_t> place_{0};  // phase, and in the lower half the next of its tasks
  std::atomic<uint32_t> done_{0};   // tasks of the phase
  std::atomic<uint32_t> threads_{0};
};

}  // namespace moedge
