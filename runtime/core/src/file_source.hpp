// Records from experts.bin.
#pragma once

#include <atomic>
#include <string>

#include "record_source.hpp"

namespace moedge {

class FileSource : public RecordSource {
 public:
  // Opens `path`, with O_DIRECT if asked for and possible.
  // Throws CoreError FILE_UNUSABLE if it cannot be opened or does not have `size` bytes.
  FileSource(const std::string& path, uint64_t size, bool direct);
  ~FileSource() override;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  int64_t read(uint64_t offset, uint8_t* to, size_t size) override;
  bool direct() const override { return direct_.load(std::memory_order_relaxed); }
  // Open with O_DIRECT, if direct().
  int direct_file() const { return file_; }

 private:
  int file_ = -1;           // O_DIRECT, or buffered
  int buffered_file_ = -1;  // for a file system that accepts O_DIRECT on open and refuses it on read
  std::atomic<bool> direct_{false};
};

}  // namespace moedge
