// A disk in memory that fails when told to, and the RecordSource that reads from it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "record_source.hpp"
#include "sample.hpp"

namespace moedge::test {

// What goes wrong with reads of a record.
enum class Fault {
  kIoError,         // −EIO
  kEnds,            // half of what was asked for, on a boundary, then nothing
  kEndsUnaligned,   // less than half of what was asked for, off a boundary
  kWrongFirstByte,  // of the record
  kWrongLastByte,   // likewise
  kThrows,
  kBlocks,  // until the fault is taken away
};

// All members may be called from any thread.
class Disk {
 public:
  Disk(std::vector<uint8_t> bytes, uint64_t record_bytes);

  // From now on; the last fault of a record counts.
  void set_fault(uint32_t record, Fault fault);
  void set_fault_of_all(Fault fault);
  void clear_faults();

  // Reads come back in another order than they were asked for.
  void shuffle(uint64_t seed);
  // A read returns at most this many bytes, a multiple of 4,096.
  void set_most_bytes(size_t bytes);

  // Waits until that many reads are blocked; false if kDeadline passes.
  bool wait_until_blocked(uint32_t reads);

  // How many reads of the record's first byte have begun.
  uint32_t reads_of(uint32_t record) const;
  uint32_t reads_of_all() const;

  int64_t read(uint64_t offset, uint8_t* to, size_t size);

 private:
  const std::vector<uint8_t> bytes_;
  const uint64_t record_bytes_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint32_t, Fault> faults_;
  std::map<uint32_t, uint32_t> reads_;
  uint32_t blocked_ = 0;
  size_t most_bytes_ = SIZE_MAX;
  bool shuffled_ = false;
  Random random_{0};
};

class DiskSource : public RecordSource {
 public:
  explicit DiskSource(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}

  int64_t read(uint64_t offset, uint8_t* to, size_t size) override { return disk_->read(offset, to, size); }
  bool direct() const override { return false; }

 private:
  const std::shared_ptr<Disk> disk_;
};

}  // namespace moedge::test
