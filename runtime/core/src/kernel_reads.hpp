// Reads that the kernel does by itself (Linux AIO): the flash goes on with those that have begun, whatever threads do.
#pragma once

#include <linux/aio_abi.h>

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "file_source.hpp"
#include "reads.hpp"

namespace moedge {

class KernelReads : public Reads {
 public:
  // At most `most` reads are under way at once. None if the source does not read directly, for which the kernel would
  // block, or if the kernel refuses: it is built without AIO, a sandbox forbids it, or others use all that there are.
  static std::unique_ptr<KernelReads> open(std::unique_ptr<FileSource>& source, uint32_t most);
  // Waits for the reads that are under way.
  ~KernelReads() override;
  KernelReads(const KernelReads&) = delete;
  KernelReads& operator=(const KernelReads&) = delete;

  void begin(const Read& read) override;
  std::optional<ReadResult> wait(std::chrono::milliseconds limit) override;
  bool direct() const override { return source_->direct(); }
  uint32_t threads() const override { return 0; }

 private:
  struct Place {
    Read read;
    iocb block{};
  };

  KernelReads(std::unique_ptr<FileSource> source, aio_context_t context, uint32_t most);
  Place* take_refused();
  ReadResult end(Place& place, int64_t got);

  const std::unique_ptr<FileSource> source_;
  const aio_context_t context_;
  std::mutex mutex_;
  std::vector<Place> places_;
  std::vector<Place*> free_;
  std::deque<Place*> refused_;  // with the reason in block.aio_data
};

}  // namespace moedge
