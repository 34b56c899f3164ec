// What the pager reads, in which order, and what happens when a read ends.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "crc32c.hpp"
#include "pager.hpp"

namespace moedge {
namespace {

// Places of the ring that reading ahead leaves free for the experts that the next layer turns out to need first.
constexpr size_t kRingReserve = 2;

// What has not come after this time is late: what a decode waits for may pass it.
constexpr std::chrono::milliseconds kPatience{50};

// A read that ends elsewhere has met the end of the file; direct reads can only continue from here.
constexpr uint64_t kReadAlignment = 512;

std::string hexadecimal(uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

}  // namespace

int64_t Pager::now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// --- before anybody needs it -----------------------------------------------------------------------------------------

void Pager::preload() {
  const std::lock_guard lock(mutex_);
  stop_preload();
  forget_expected();
  for (uint32_t slot = 0; slot < kMaxRing + counts_.dynamic; ++slot) {
    // What failed ahead of its use is tried again; what was read ahead for a call that did not come makes room.
    const Slot& place = slots_[slot];
    const bool stale = is_ring(slot) && place.key != kNoKey && place.reason != Reason::kPreload;
    if (place.state == SlotState::kFailed || stale) drop(slot);
  }
  preload_.clear();
  next_preload_ = 0;
  std::copy_if(pin_order_.begin(), pin_order_.end(), std::back_inserter(preload_),
               [this](uint32_t key) { return pinned_[key] && slot_of_[key] < 0; });
  if (!free_dynamic_.empty()) {
    for (const uint32_t key : heat_.order()) {
      if (!pinned_[key] && slot_of_[key] < 0) preload_.push_back(key);
    }
  }
  preloading_ = true;
  feed();
}

// Queues the next record.
void Pager::continue_preload() {
  while (preloading_ && ahead_.empty()) {
    if (next_preload_ == preload_.size()) {
      preloading_ = false;
      if (free_dynamic_.empty()) read_ahead(0, Reason::kPreload);
      return;
    }
    const uint32_t key = preload_[next_preload_++];
    if (slot_of_[key] >= 0) continue;
    int32_t slot = take_free_place();
    if (slot < 0 && pinned_[key]) slot = evict();
    if (slot >= 0) {
      start_read(static_cast<uint32_t>(slot), key, Reason::kPreload);
    } else if (!pinned_[key]) {
      next_preload_ = preload_.size();
    }
  }
}

// Drops what has not begun.
void Pager::stop_preload() {
  preloading_ = false;
  drop_queued(ahead_);
}

// Begins with the first of the layer's records that at least half of its prefills needed.
void Pager::read_ahead(uint32_t layer, Reason reason) {
  const uint32_t begin = layer * file_.experts;
  for (uint32_t key = begin; key < begin + file_.experts; ++key) {
    if (slot_of_[key] >= 0 || 2 * dense_needed_[key] < dense_calls_[layer]) continue;
    int32_t slot = take_free_place();
    if (slot < 0 && free_ring_.size() > kRingReserve) {
      slot = static_cast<int32_t>(free_ring_.back());
      free_ring_.pop_back();
    }
    if (slot < 0) return;
    start_read(static_cast<uint32_t>(slot), key, reason);
  }
}

// Keeps what is there of these keys and lets the rest be read: as many as there is room for beside the call under way.
void Pager::expect(std::span<const uint32_t> keys) {
  const size_t taken = jobs_.size() + pinned_keys_;
  const size_t room = counts_.dynamic > taken ? counts_.dynamic - taken : 0;
  for (const uint32_t key : keys.first(std::min(keys.size(), room))) {
    expected_.push_back(key);
    if (slot_of_[key] >= 0) slots_[slot_of_[key]].expected = true;
  }
}

// Queues the next record that is expected.
void Pager::look_ahead() {
  while (next_expected_ < expected_.size() && ahead_.empty()) {
    const uint32_t key = expected_[next_expected_];
    if (slot_of_[key] < 0) {
      int32_t slot = take_free_place();
      if (slot < 0) slot = evict();
      if (slot < 0) return;
      start_read(static_cast<uint32_t>(slot), key, Reason::kPrefetch);
      slots_[slot].expected = true;
    }
    ++next_expected_;
  }
}

void Pager::forget_expected() {
  for (const uint32_t key : expected_) {
    if (slot_of_[key] >= 0) slots_[slot_of_[key]].expected = false;
  }
  expected_.clear();
  next_expected_ = 0;
}

// --- the queues ------------------------------------------------------------------------------------------------------

void Pager::start_read(uint32_t slot, uint32_t key, Reason reason) {
  Slot& place = slots_[slot];
  place.key = key;
  place.reason = reason;
  place.abandoned = false;
  place.touched = true;
  place.read = {};
  place.state.store(SlotState::kLoading, std::memory_order_release);
  slot_of_[key] = static_cast<int32_t>(slot);
  (reason == Reason::kNeeded ? needed_ : ahead_).push_back(slot);
  count(statistics_.queue_depth_sum, needed_.size() + ahead_.size() + reading_);
}

// What is read ahead has turned out to be needed.
void Pager::hurry(uint32_t slot) {
  const auto queued = std::find(ahead_.begin(), ahead_.end(), slot);
  if (queued == ahead_.end()) return;
  ahead_.erase(queued);
  needed_.push_back(slot);
}

// Begins reads while the flash has room for more: of a prefill's records `most_at_once_`. What a decode waits for, and
// what is read ahead, goes two parts at a time: the flash never rests, and nothing comes later for what is behind it.
void Pager::feed() {
  for (;;) {
    uint32_t most = kParts;
    if (!needed_.empty()) most = keep_ ? std::min(kParts + parts_late_, most_parts()) : most_parts();
    if (parts_under_way_ >= most) return;
    if (needed_.empty() && ahead_.empty()) look_ahead();
    if (needed_.empty() && ahead_.empty() && !in_call_) continue_preload();
    std::deque<uint32_t>& queue = needed_.empty() ? ahead_ : needed_;
    if (queue.empty()) return;
    const uint32_t slot = queue.front();
    begin_part(slot);
    if (slots_[slot].read.begun == kParts) queue.pop_front();
  }
}

void Pager::begin_part(uint32_t slot) {
  Slot& place = slots_[slot];
  if (place.read.begun == 0) {
    ++reading_;
    if (place.reason == Reason::kPreload) {
      count(statistics_.preloaded);
      count(statistics_.preloaded_bytes, file_.record_bytes);
    }
  }
  const uint32_t part = place.read.begun++;
  place.read.at[part] = part_begin(part);
  begin_rest(slot, part);
}

// Reads what is missing of a part.
void Pager::begin_rest(uint32_t slot, uint32_t part) {
  Slot& place = slots_[slot];
  const uint64_t at = place.read.at[part];
  ++place.read.under_way;
  if (parts_under_way_++ == 0) {
    last_progress_ns_ = now_ns();
    begun_.notify_one();
  }
  reads_->begin({place.key * file_.record_bytes + at, slab_.data() + slot * file_.record_bytes + at,
                 part_begin(part + 1) - at, slot * kParts + part});
}

// Forgets the place's record and frees it: at once, or when the reads into it have ended.
void Pager::drop(uint32_t slot) {
  Slot& place = slots_[slot];
  const SlotState state = place.state.load(std::memory_order_relaxed);
  if (state == SlotState::kLoading || state == SlotState::kFc1Ready) {
    std::erase(needed_, slot);
    std::erase(ahead_, slot);
    if (place.read.under_way > 0) {
      if (slot_of_[place.key] == static_cast<int32_t>(slot)) slot_of_[place.key] = -1;
      place.in_use = false;
      place.expected = false;
      place.reason = Reason::kNeeded;
      place.abandoned = true;
      return;
    }
    if (place.read.begun > 0) --reading_;
  }
  free(slot);
}

// Drops what is queued, has not begun and is not in use.
void Pager::drop_queued(std::deque<uint32_t>& queue) {
  for (size_t at = queue.size(); at-- > 0;) {
    if (slots_[queue[at]].read.begun == 0 && !slots_[queue[at]].in_use) drop(queue[at]);
  }
}

// --- what comes ------------------------------------------------------------------------------------------------------

void Pager::take_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    begun_.wait(lock, [this] { return stop_ || parts_under_way_ > 0; });
    if (parts_under_way_ == 0) return;
    lock.unlock();
    std::optional<ReadResult> result = reads_->wait(kPatience);
    lock.lock();
    if (!result) {
      parts_late_ = parts_under_way_;
      feed();
    }
    // First all that has come, so that the flash goes on with the next while this thread computes checksums.
    for (uint32_t left = most_parts(); result; result = --left > 0 ? reads_->wait({}) : std::nullopt) take(*result);
    while (!arrived_.empty()) {
      const uint32_t slot = arrived_.front();
      arrived_.pop_front();
      check(slots_[slot], lock);
      RecordRead& read = slots_[slot].read;
      --read.under_way;  // not before: until now nobody else could free the place
      if (read.under_way > 0) continue;
      if (read.begun == kParts || read.problem || slots_[slot].abandoned) finish(slot);
    }
  }
}

void Pager::take(const ReadResult& result) {
  const uint32_t slot = result.tag / kParts;
  const uint32_t part = result.tag % kParts;
  Slot& place = slots_[slot];
  RecordRead& read = place.read;
  parts_late_ = std::min(parts_late_, --parts_under_way_);
  last_progress_ns_ = now_ns();
  const bool well = note(result, read);
  const bool whole = read.at[part] == part_begin(part + 1);
  if (well && !whole && !place.abandoned) {
    --read.under_way;
    begin_rest(slot, part);
    return;
  }
  if (whole) read.there |= 1U << part;
  if (read.problem) {  // the rest of it is of no use
    std::erase(needed_, slot);
    std::erase(ahead_, slot);
  }
  arrived_.push_back(slot);
  feed();
}

// Notes what has been read; or what has gone wrong, of two parts with the first, and returns false.
bool Pager::note(const ReadResult& result, RecordRead& read) {
  const uint32_t part = result.tag % kParts;
  ReadProblem problem;
  if (!result.problem.empty()) {
    problem.text = result.problem;
  } else if (result.got < 0) {
    problem.os_error = static_cast<int>(-result.got);
    problem.text = std::string("reading failed (") + std::strerror(problem.os_error) + ")";
  } else {
    count(statistics_.read_bytes, static_cast<uint64_t>(result.got));
    const uint64_t at = read.at[part] += static_cast<uint64_t>(result.got);
    if (at == part_begin(part + 1) || (result.got > 0 && at % kReadAlignment == 0)) return true;
    problem.text = "the file ends after " + grouped(at) + " of " + grouped(file_.record_bytes) + " bytes";
  }
  if (part == 0 || !read.problem) read.problem = problem;
  return false;
}

// Says that fc1 can begin, and goes on with the checksum. It is known only at the end; until then nothing of the record
// has gone into a result.
void Pager::check(Slot& place, std::unique_lock<std::mutex>& lock) {
  RecordRead& read = place.read;
  while (!read.problem && !place.abandoned && read.checked < kParts && (read.there >> read.checked & 1U) != 0) {
    const uint32_t part = read.checked++;
    if (part == 0) {
      place.state.store(SlotState::kFc1Ready, std::memory_order_release);
      events_.notify();
    }
    const uint8_t* record = slab_.data() + static_cast<uint64_t>(&place - slots_.get()) * file_.record_bytes;
    lock.unlock();
    read.crc = crc32c(read.crc, record + part_begin(part), part_begin(part + 1) - part_begin(part));
    lock.lock();
  }
  if (read.checked < kParts || read.problem || place.abandoned || read.crc == file_.crc32c[place.key]) return;
  read.problem = ReadProblem{
      "its CRC-32C is " + hexadecimal(read.crc) + ", the manifest says " + hexadecimal(file_.crc32c[place.key]), 0};
}

void Pager::finish(uint32_t slot) {
  Slot& place = slots_[slot];
  const bool failed = place.read.problem.has_value();
  --reading_;
  count(failed ? statistics_.failed_reads : statistics_.reads);
  if (place.abandoned || (failed && place.reason == Reason::kPreload)) {
    // Nobody asked for it: whoever does reads it again and is told.
    free(slot);
  } else {
    place.state.store(failed ? SlotState::kFailed : SlotState::kReady, std::memory_order_release);
  }
  if (in_call_) refill();
  feed();
  if (reading_ == 0) idle_.notify_all();
  events_.notify();
}

}  // namespace moedge
