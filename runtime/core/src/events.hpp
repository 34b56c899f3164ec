// Lets threads that find nothing to do wait until something has changed, without missing it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "pause.hpp"

namespace moedge {

class Events {
 public:
  // Read it before looking for work, pass it to wait.
  uint32_t now() const { return count_.load(std::memory_order_seq_cst); }

  // Something changed. Any thread; blocks only for a moment while somebody sleeps.
  void notify() {
    count_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  // Blocks until something has changed since `seen` was read, at most `limit`. Spins first: long if another thread is
  // `computing`, which ends soon, and short if only flash can bring something, since readers need the cores as well.
  void wait(uint32_t seen, std::chrono::milliseconds limit, bool computing) {
    for (int turn = 0; turn < (computing ? kLongSpin : kShortSpin); ++turn) {
      if (now() != seen) return;
      pause();
    }
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    changed_.wait_for(lock, limit, [&] { return now() != seen; });
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  // About 60 and 4 µs on an x86-64 of 2023. Waking a thread that sleeps takes about 50 µs.
  static constexpr int kLongSpin = 4000;
  static constexpr int kShortSpin = 300;

  std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace moedge
