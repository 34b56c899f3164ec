// A pager over records of two pages, driven as the core drives it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "disk.hpp"
#include "pager.hpp"
#include "thread_reads.hpp"

namespace moedge::test {

constexpr uint64_t kRecordBytes = 8192;
constexpr std::chrono::milliseconds kLongEnough = kDeadline;

struct PagerSetup {
  uint32_t layers = 3;
  uint32_t experts = 64;
  uint32_t top_k = 4;
  uint32_t readers = 2;
  bool prefetch = true;
  uint64_t slots = 64;
};

class PagerDriver {
 public:
  explicit PagerDriver(const PagerSetup& setup) : setup_(setup) {
    const uint32_t records = setup.layers * setup.experts;
    bytes_.resize(records * kRecordBytes);
    Random(1).fill(bytes_);
    RecordFile file{setup.layers, setup.experts, kRecordBytes, kRecordBytes / 2, {}};
    for (uint32_t key = 0; key < records; ++key) file.crc32c.push_back(crc32c_table(0, record(key), kRecordBytes));
    disk = std::make_shared<Disk>(bytes_, kRecordBytes);
    auto reads = std::make_unique<ThreadReads>(std::make_unique<DiskSource>(disk), 2 * setup.readers);
    pager = std::make_unique<Pager>(divide_slots(setup.slots, records), std::move(reads), std::move(file), setup.top_k,
                                    setup.readers, setup.prefetch, false, events);
  }

  const uint8_t* record(uint32_t key) const { return bytes_.data() + key * kRecordBytes; }

  void set_slots(uint64_t slots) { pager->set_slots(divide_slots(slots, setup_.layers * setup_.experts), kLongEnough); }

  // One call: waits for each record in turn, compares it, releases it. The error of the first that failed.
  std::optional<CoreError> call(uint32_t layer, const std::vector<uint32_t>& experts, bool keep, bool dense) {
    begin(layer, experts, keep, dense);
    return finish(layer, experts, keep);
  }

  // begin_call with experts that are all chosen by so many tokens.
  void begin(uint32_t layer, const std::vector<uint32_t>& experts, bool keep, bool dense,
             const std::vector<uint32_t>& expected = {}, uint32_t tokens = 8) {
    pager->begin_call(layer, experts, std::vector<uint32_t>(experts.size(), tokens), keep, dense, expected);
  }

  // What follows begin_call.
  std::optional<CoreError> finish(uint32_t layer, const std::vector<uint32_t>& experts, bool keep) {
    std::optional<CoreError> error;
    for (uint32_t job = 0; job < experts.size() && !error; ++job) {
      const auto settled = [&] {
        const int32_t slot = pager->slot(job);
        return slot >= 0 && pager->state(slot) >= SlotState::kReady;
      };
      if (!wait(settled)) {
        ADD_FAILURE() << "expert " << experts[job] << " of layer " << layer << " did not come";
        break;
      }
      const int32_t slot = pager->slot(job);
      if (pager->state(slot) == SlotState::kFailed) {
        error = pager->failure(slot);
      } else {
        const uint32_t key = layer * setup_.experts + experts[job];
        EXPECT_EQ(memcmp(pager->record(slot), record(key), kRecordBytes), 0) << key;
        if (!keep) pager->release(job);
      }
    }
    pager->end_call(error.has_value());
    return error;
  }

  std::optional<CoreError> decode(uint32_t layer, const std::vector<uint32_t>& experts,
                                  const std::vector<uint32_t>& expected = {}) {
    begin(layer, experts, true, false, keys_behind(layer, expected));
    return finish(layer, experts, true);
  }

  // Keys of experts of the layer behind `layer`; from its number of experts on, of the one behind that.
  std::vector<uint32_t> keys_behind(uint32_t layer, const std::vector<uint32_t>& experts) const {
    std::vector<uint32_t> keys;
    for (const uint32_t expert : experts) {
      const uint32_t key = (layer + 1) * setup_.experts + expert;
      if (key < setup_.layers * setup_.experts) keys.push_back(key);
    }
    return keys;
  }

  // Of the experts from `first` on.
  std::optional<CoreError> prefill(uint32_t layer, uint32_t first, uint32_t count) {
    std::vector<uint32_t> experts;
    for (uint32_t expert = first; expert < first + count; ++expert) experts.push_back(expert);
    return call(layer, experts, false, true);
  }

  template <class Condition>
  bool wait(const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    for (;;) {
      const uint32_t seen = events.now();
      if (condition()) return true;
      if (std::chrono::steady_clock::now() > deadline) return false;
      events.wait(seen, std::chrono::milliseconds(50), false);
    }
  }

  // Waits until reading ahead has come to an end.
  bool wait_for_reads(uint64_t reads) {
    return wait([&] { return pager->statistics().reads + pager->statistics().failed_reads >= reads; });
  }

  Events events;
  std::shared_ptr<Disk> disk;
  std::unique_ptr<Pager> pager;

 private:
  const PagerSetup setup_;
  std::vector<uint8_t> bytes_;
};

}  // namespace moedge::test
