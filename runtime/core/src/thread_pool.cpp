#include "thread_pool.hpp"

namespace moedge {

ThreadPool::ThreadPool(uint32_t threads) {
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
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    ++round_;
  }
  begin_.notify_all();
  work();
  std::unique_lock lock(mutex_);
  work_ = nullptr;
  end_.wait(lock, [this] { return active_ == 0; });
}

void ThreadPool::loop() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
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
