// Reads by threads that block: of a source that knows nothing else.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "reads.hpp"
#include "record_source.hpp"

namespace moedge {

class ThreadReads : public Reads {
 public:
  // Starts the threads; throws std::system_error if the system has none left.
  ThreadReads(std::unique_ptr<RecordSource> source, uint32_t threads);
  // Waits for the reads that threads have begun.
  ~ThreadReads() override;
  ThreadReads(const ThreadReads&) = delete;
  ThreadReads& operator=(const ThreadReads&) = delete;

  void begin(const Read& read) override;
  std::optional<ReadResult> wait(std::chrono::milliseconds limit) override;
  bool direct() const override { return source_->direct(); }
  uint32_t threads() const override { return static_cast<uint32_t>(threads_.size()); }

 private:
  void stop();
  void loop();
  ReadResult result_of(const Read& read);

  const std::unique_ptr<RecordSource> source_;
  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  std::deque<Read> reads_;
  std::deque<ReadResult> results_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace moedge
