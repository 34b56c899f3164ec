#include "disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <thread>

namespace moedge::test {

Disk::Disk(std::vector<uint8_t> bytes, uint64_t record_bytes) : bytes_(std::move(bytes)), record_bytes_(record_bytes) {}

void Disk::set_fault(uint32_t record, Fault fault) {
  const std::lock_guard lock(mutex_);
  faults_[record] = fault;
}

void Disk::set_fault_of_all(Fault fault) {
  for (uint32_t record = 0; record < bytes_.size() / record_bytes_; ++record) set_fault(record, fault);
}

void Disk::clear_faults() {
  const std::lock_guard lock(mutex_);
  faults_.clear();
  changed_.notify_all();
}

void Disk::shuffle(uint64_t seed) {
  const std::lock_guard lock(mutex_);
  shuffled_ = true;
  random_ = Random(seed);
}

void Disk::set_most_bytes(size_t bytes) {
  const std::lock_guard lock(mutex_);
  most_bytes_ = bytes;
}

bool Disk::wait_until_blocked(uint32_t reads) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kDeadline, [&] { return blocked_ >= reads; });
}

uint32_t Disk::reads_of(uint32_t record) const {
  const std::lock_guard lock(mutex_);
  const auto found = reads_.find(record);
  return found == reads_.end() ? 0 : found->second;
}

uint32_t Disk::reads_of_all() const {
  const std::lock_guard lock(mutex_);
  uint32_t sum = 0;
  for (const auto& [record, reads] : reads_) sum += reads;
  return sum;
}

int64_t Disk::read(uint64_t offset, uint8_t* to, size_t size) {
  const auto record = static_cast<uint32_t>(offset / record_bytes_);
  std::optional<Fault> fault;
  uint32_t delay = 0;
  {
    std::unique_lock lock(mutex_);
    if (offset % record_bytes_ == 0) ++reads_[record];
    if (shuffled_) delay = random_.below(30);
    const auto now = [&] { return faults_.contains(record) ? std::optional(faults_[record]) : std::nullopt; };
    if (now() == Fault::kBlocks) {
      ++blocked_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return now() != Fault::kBlocks; });
      --blocked_;
    }
    fault = now();
    size = std::min(size, most_bytes_);
  }
  for (; delay > 0; --delay) std::this_thread::yield();
  if (fault == Fault::kIoError) return -EIO;
  if (fault == Fault::kThrows) throw std::runtime_error("the reader is broken");
  if (offset >= bytes_.size()) return 0;
  size = std::min<size_t>(size, bytes_.size() - offset);
  if (fault == Fault::kEnds) size = offset % record_bytes_ == 0 ? size / 2 / 512 * 512 : 0;
  if (fault == Fault::kEndsUnaligned) size = size / 2 - 100;
  std::memcpy(to, bytes_.data() + offset, size);
  if (fault == Fault::kWrongFirstByte && offset % record_bytes_ == 0) to[0] ^= 1;
  if (fault == Fault::kWrongLastByte && (offset + size) % record_bytes_ == 0) to[size - 1] ^= 0x80;
  return static_cast<int64_t>(size);
}

}  // namespace moedge::test
