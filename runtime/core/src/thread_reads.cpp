#include "thread_reads.hpp"

#include <exception>

namespace moedge {

ThreadReads::ThreadReads(std::unique_ptr<RecordSource> source, uint32_t threads) : source_(std::move(source)) {
  try {
    for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
  } catch (...) {
    stop();  // those that did start
    throw;
  }
}

ThreadReads::~ThreadReads() { stop(); }

void ThreadReads::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  begun_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadReads::begin(const Read& read) {
  const std::lock_guard lock(mutex_);
  reads_.push_back(read);
  begun_.notify_one();
}

std::optional<ReadResult> ThreadReads::wait(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  if (!ended_.wait_for(lock, limit, [this] { return !results_.empty(); })) return std::nullopt;
  ReadResult result = std::move(results_.front());
  results_.pop_front();
  return result;
}

void ThreadReads::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    begun_.wait(lock, [this] { return stop_ || !reads_.empty(); });
    if (stop_) return;
    const Read read = reads_.front();
    reads_.pop_front();
    lock.unlock();
    ReadResult result = result_of(read);
    lock.lock();
    results_.push_back(std::move(result));
    ended_.notify_one();
  }
}

ReadResult ThreadReads::result_of(const Read& read) {
  try {
    return {read.tag, source_->read(read.offset, read.to, read.size), {}};
  } catch (const std::exception& error) {
    return {read.tag, 0, std::string("its reader failed (") + error.what() + ")"};
  }
}

}  // namespace moedge
