// The threads that compute: the caller's and some that sleep between calls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace moedge {

class ThreadPool {
 public:
  // Starts `threads` − 1 threads; throws std::system_error if the system has none left.
  explicit ThreadPool(uint32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls `work` on this thread at once and on the others as they wake; returns when all that began have ended.
  // A thread that wakes after the caller's own `work` has returned does not begin. `work` must not throw.
  // Callers on several threads take turns.
  // Between two runs no thread of the pool spins, since the cores may belong to somebody else, unless `linger` says so.
  void run(const std::function<void()>& work);

  // From now on the threads wait a moment for the next run before they sleep: for callers whose runs follow each other.
  void linger() { lingers_.store(true, std::memory_order_relaxed); }

  // Threads that work in a run, the caller's included.
  uint32_t size() const { return static_cast<uint32_t>(threads_.size()) + 1; }

 private:
  void stop();
  void loop();
  void place();

  std::vector<int> processors_;  // that this process may use
  int callers_ = -1;             // processor on which the caller was last seen

  // About 60 µs on an x86-64 of 2023; waking a thread that sleeps takes about 50 µs.
  static constexpr int kSpins = 4000;

  std::mutex calling_;  // one run at a time
  std::mutex mutex_;
  std::condition_variable begin_;
  std::condition_variable end_;
  const std::function<void()>* work_ = nullptr;  // null: nothing to begin
  std::atomic<uint64_t> round_{0};               // written under the mutex, as the next two
  std::atomic<uint32_t> active_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> lingers_{false};
  std::vector<std::thread> threads_;
};

}  // namespace moedge
