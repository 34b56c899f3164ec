#include "thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include "pause.hpp"

namespace moedge {
namespace {

std::vector<int> usable_processors() {
  std::vector<int> processors;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &set)) processors.push_back(processor);
  }
  return processors;
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads) : processors_(usable_processors()) {
  try {
    for (uint32_t i = 1; i < threads; ++i) threads_.emplace_back([this] { loop(); });
  } catch (...) {
    stop();  // those that did start
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  begin_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void()>& work) {
  if (threads_.empty()) {
    work();
    return;
  }
  const std::lock_guard turn(calling_);
  place();
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    ++round_;
  }
  begin_.notify_all();
  work();
  {
    const std::lock_guard lock(mutex_);
    work_ = nullptr;
  }
  for (int spin = 0; spin < kSpins && active_.load(std::memory_order_acquire) != 0; ++spin) pause();
  std::unique_lock lock(mutex_);
  end_.wait(lock, [this] { return active_ == 0; });
}

// Moves the threads when the caller has moved. A refusal of the kernel costs speed only.
void ThreadPool::place() {
  const int caller = sched_getcpu();
  if (caller == callers_ || caller < 0 || processors_.size() < 2) return;
  callers_ = caller;
  size_t next = 0;
  for (std::thread& thread : threads_) {
    if (processors_[next] == caller) next = (next + 1) % processors_.size();
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processors_[next], &set);
    pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
    next = (next + 1) % processors_.size();
  }
}

void ThreadPool::loop() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (lingers_.load(std::memory_order_relaxed)) {
      lock.unlock();
      for (int spin = 0; spin < kSpins && round_.load(std::memory_order_relaxed) == seen && !stop_; ++spin) pause();
      lock.lock();
      if (work_ == nullptr && round_ != seen && !stop_) {  // a run that this thread has missed
        seen = round_;
        continue;
      }
    }
    begin_.wait(lock, [&] { return stop_ || (work_ != nullptr && round_ != seen); });
    if (stop_) return;
    seen = round_;
    const std::function<void()>* work = work_;
    ++active_;
    lock.unlock();
    (*work)();
    lock.lock();
    if (--active_ == 0) end_.notify_one();
  }
}

}  // namespace moedge
