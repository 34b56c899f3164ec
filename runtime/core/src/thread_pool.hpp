// The threads that compute: the caller's and some that sleep between calls.
#pragma once

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
  // Between two calls no thread of the pool spins: the cores belong to whoever computes the dense layers.
  void run(const std::function<void()>& work);

 private:
  void stop();
  void loop();
  void place();

  std::vector<int> processors_;  // that this process may use
  int callers_ = -1;             // processor on which the caller was last seen

  std::mutex mutex_;
  std::condition_variable begin_;
  std::condition_variable end_;
  const std::function<void()>* work_ = nullptr;  // null: nothing to begin
  uint64_t round_ = 0;
  uint32_t active_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace moedge
