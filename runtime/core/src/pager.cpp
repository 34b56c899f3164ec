#include "pager.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace moedge {
namespace {

// What a token of a prompt counts for beside a decoded one: a prompt says what is popular, an answer what is needed
// next (benchmarks/expert_core/policies.py).
constexpr double kUseOfPromptToken = 0.125;

// In half-lives of heat: by so much a record has to be colder for a prefill to give its place to another. More than
// what the layers of one pass differ by in age, and two experts by chance.
constexpr double kColder = 0.125;

}  // namespace

Pager::Pager(SlotCounts counts, std::unique_ptr<Reads> reads, RecordFile file, uint32_t top_k, uint32_t most_at_once,
             bool prefetch, bool lock_memory, Events& events)
    : reads_(std::move(reads)),
      file_(std::move(file)),
      top_k_(top_k),
      most_at_once_(most_at_once),
      prefetch_(prefetch),
      events_(events),
      slab_((uint64_t{file_.records()} + kMaxRing) * file_.record_bytes, lock_memory),
      slots_(std::make_unique<Slot[]>(uint64_t{file_.records()} + kMaxRing)),
      slot_of_(file_.records(), -1),
      heat_(file_.layers, file_.experts),
      pinned_(file_.records(), 0),
      dense_needed_(file_.records(), 0),
      dense_calls_(file_.layers, 0),
      job_slot_(std::make_unique<std::atomic<int32_t>[]>(file_.experts)) {
  set_slots(counts, {});
  taker_ = std::thread([this] { take_loop(); });
}

// What is under way is waited for: it is written into the slab.
Pager::~Pager() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    preloading_ = false;
    forget_expected();
    needed_.clear();
    ahead_.clear();
  }
  begun_.notify_all();
  taker_.join();
}

// --- between calls ---------------------------------------------------------------------------------------------------

void Pager::set_slots(SlotCounts counts, std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  preloading_ = false;
  forget_expected();
  drop_queued(needed_);
  drop_queued(ahead_);
  if (!idle_.wait_for(lock, limit, [this] { return reading_ == 0; })) {
    throw CoreError(MOEDGE_READ_TIMEOUT, "a read under way made no progress for " + grouped(limit.count()) + " ms");
  }
  const auto ranges = {Slab::Range{0, counts.ring * file_.record_bytes},
                       Slab::Range{kMaxRing * file_.record_bytes, counts.dynamic * file_.record_bytes}};
  slab_.take(ranges);
  for (uint32_t slot = 0; slot < kMaxRing; ++slot) clear(slot);
  const uint32_t old_end = kMaxRing + counts_.dynamic;
  const uint32_t new_end = kMaxRing + counts.dynamic;
  counts_ = counts;
  apply_pins();
  free_ring_.clear();
  free_dynamic_.clear();
  for (uint32_t slot = counts.ring; slot-- > 0;) free_ring_.push_back(slot);
  // Free places below the new end, then those that hold what is used least.
  std::vector<uint32_t> places;
  for (uint32_t slot = kMaxRing; slot < std::min(old_end, new_end); ++slot) {
    if (slots_[slot].state != SlotState::kReady) clear(slot);
    if (slots_[slot].key == kNoKey || !pinned_[slots_[slot].key]) places.push_back(slot);
  }
  const auto heat = [this](uint32_t slot) {
    return slots_[slot].key == kNoKey ? -INFINITY : heat_.of(slots_[slot].key);
  };
  std::sort(places.begin(), places.end(),
            [&](uint32_t a, uint32_t b) { return heat(a) != heat(b) ? heat(a) < heat(b) : a < b; });
  size_t next_place = 0;
  for (uint32_t slot = new_end; slot < old_end; ++slot) {
    const bool keep = slots_[slot].state == SlotState::kReady && pinned_[slots_[slot].key];
    if (keep && next_place < places.size()) move(slot, places[next_place++]);
    clear(slot);
  }
  for (uint32_t slot = new_end; slot-- > kMaxRing;) {
    if (slots_[slot].key == kNoKey) free_dynamic_.push_back(slot);
  }
  slab_.release_the_rest(ranges);
  for (uint32_t slot = counts.ring; slot < kMaxRing; ++slot) slots_[slot].touched = false;
  for (uint32_t slot = new_end; slot < old_end; ++slot) slots_[slot].touched = false;
}

void Pager::pin(std::span<const uint32_t> keys) {
  const std::lock_guard lock(mutex_);
  pin_order_.assign(keys.begin(), keys.end());
  apply_pins();
}

uint32_t Pager::pin_limit() const { return counts_.dynamic > top_k_ ? counts_.dynamic - top_k_ : 0; }

void Pager::apply_pins() {
  std::fill(pinned_.begin(), pinned_.end(), 0);
  pinned_keys_ = 0;
  for (const uint32_t key : pin_order_) {
    if (pinned_keys_ == pin_limit()) break;
    pinned_keys_ += pinned_[key] ? 0 : 1;
    pinned_[key] = 1;
  }
}

void Pager::move(uint32_t from, uint32_t to) {
  clear(to);
  std::memcpy(slab_.data() + to * file_.record_bytes, slab_.data() + from * file_.record_bytes, file_.record_bytes);
  slots_[to].key = slots_[from].key;
  slots_[to].reason = slots_[from].reason;
  slots_[to].touched = true;
  slots_[to].state = SlotState::kReady;
  slot_of_[slots_[to].key] = static_cast<int32_t>(to);
  slots_[from].key = kNoKey;
  slots_[from].state = SlotState::kEmpty;
}

// A record that may stay, if there is a place for it.
void Pager::move_out_of_ring(uint32_t slot) {
  const int32_t place = take_place_that_stays(slots_[slot].key);
  if (place >= 0) move(slot, static_cast<uint32_t>(place));
}

void Pager::start_from(std::span<const uint64_t> counts) {
  const std::lock_guard lock(mutex_);
  heat_.start_from(counts, top_k_);
}

// --- calls -----------------------------------------------------------------------------------------------------------

bool Pager::can_keep(uint32_t jobs) const {
  const std::lock_guard lock(mutex_);
  return jobs + pinned_keys_ <= counts_.dynamic;
}

void Pager::begin_call(uint32_t layer, std::span<const uint32_t> experts, std::span<const uint32_t> tokens, bool keep,
                       bool dense, std::span<const uint32_t> expected) {
  const std::lock_guard lock(mutex_);
  stop_preload();
  forget_expected();
  heat_.tick();
  last_progress_ns_ = now_ns();
  in_call_ = true;
  keep_ = keep;
  dense_ = dense;
  layer_ = layer;
  jobs_.clear();
  missing_.clear();
  next_missing_ = 0;
  if (dense) ++dense_calls_[layer];
  for (uint32_t job = 0; job < experts.size(); ++job) {
    const uint32_t key = layer * file_.experts + experts[job];
    jobs_.push_back(key);
    if (dense) ++dense_needed_[key];
    heat_.use(key, keep ? 1 : tokens[job] * kUseOfPromptToken);
    int32_t slot = slot_of_[key];
    if (slot >= 0 && slots_[slot].state == SlotState::kFailed) {
      drop(static_cast<uint32_t>(slot));
      slot = -1;
    }
    if (slot >= 0) {
      Slot& found = slots_[slot];
      found.in_use = true;
      hurry(static_cast<uint32_t>(slot));
      count(found.state == SlotState::kReady ? statistics_.hits : statistics_.misses);
      if (found.reason == Reason::kPrefetch) count(statistics_.prefetch_used);
      if (found.reason == Reason::kPreload) count(statistics_.preload_used);
      found.reason = Reason::kNeeded;
    } else {
      count(statistics_.misses);
      missing_.push_back(job);
    }
    job_slot_[job].store(slot, std::memory_order_release);
  }
  for (uint32_t slot = 0; slot < counts_.ring; ++slot) {
    if (slots_[slot].key != kNoKey && !slots_[slot].in_use) {
      if (slots_[slot].reason == Reason::kPrefetch) count(statistics_.prefetch_unused);
      drop(slot);
    }
  }
  if (keep) {
    drop_queued(ahead_);  // it would only be in the way
  }
  if (!keep) find_colder();
  if (keep && prefetch_) expect(expected);  // first, so that what came for a later call is not given up for this one
  refill();
  feed();
}

void Pager::refill() {
  while (next_missing_ < missing_.size()) {
    const uint32_t job = missing_[next_missing_];
    const uint32_t key = jobs_[job];
    const int32_t slot = take_place(key);
    if (slot < 0) return;
    ++next_missing_;
    slots_[slot].in_use = true;
    start_read(static_cast<uint32_t>(slot), key, Reason::kNeeded);
    job_slot_[job].store(slot, std::memory_order_release);
  }
  if (dense_ && prefetch_ && layer_ + 1 < file_.layers) read_ahead(layer_ + 1, Reason::kPrefetch);
}

// A place for a missing record, or −1.
int32_t Pager::take_place(uint32_t key) {
  const int32_t place = take_place_that_stays(key);
  if (place >= 0) return place;
  if (free_ring_.empty()) return -1;
  const uint32_t slot = free_ring_.back();
  free_ring_.pop_back();
  return static_cast<int32_t>(slot);
}

// One among those that stay, or −1.
int32_t Pager::take_place_that_stays(uint32_t key) {
  const int32_t place = take_free_place();
  if (place >= 0) return place;
  return keep_ || pinned_[key] ? evict() : evict_colder(key);
}

// A free place among those that stay, or −1.
int32_t Pager::take_free_place() {
  if (free_dynamic_.empty()) return -1;
  const uint32_t slot = free_dynamic_.back();
  free_dynamic_.pop_back();
  return static_cast<int32_t>(slot);
}

// Frees the place whose record is used least among those that may be.
int32_t Pager::evict() {
  int32_t coldest = -1;
  for (uint32_t slot = kMaxRing; slot < kMaxRing + counts_.dynamic; ++slot) {
    const Slot& candidate = slots_[slot];
    if (!may_be_evicted(candidate)) continue;
    if (coldest < 0 || heat_.of(candidate.key) < heat_.of(slots_[coldest].key)) coldest = static_cast<int32_t>(slot);
  }
  if (coldest >= 0) empty(static_cast<uint32_t>(coldest));
  return coldest;
}

bool Pager::may_be_evicted(const Slot& slot) const {
  const SlotState state = slot.state.load(std::memory_order_relaxed);
  if (slot.in_use || slot.expected) return false;
  if (state != SlotState::kReady && state != SlotState::kFailed) return false;
  if (pinned_[slot.key] && state == SlotState::kReady) return false;
  return slot.reason != Reason::kPrefetch || keep_;  // else for the next call of this prefill
}

// Once for a call, since there are thousands of places and a prefill asks for hundreds.
void Pager::find_colder() {
  colder_.clear();
  if (!free_dynamic_.empty()) return;
  const uint32_t end = (layer_ + 1) * file_.experts;  // what is behind it will be needed by this very prefill
  for (uint32_t slot = kMaxRing; slot < kMaxRing + counts_.dynamic; ++slot) {
    if (slots_[slot].key < end && may_be_evicted(slots_[slot])) colder_.push_back(slot);
  }
  std::sort(colder_.begin(), colder_.end(), [this](uint32_t a, uint32_t b) {
    const double heat_a = heat_.of(slots_[a].key), heat_b = heat_.of(slots_[b].key);
    return heat_a != heat_b ? heat_a > heat_b : a > b;
  });
}

// Frees the place whose record is used least, if that is clearly less than `key` is.
int32_t Pager::evict_colder(uint32_t key) {
  while (!colder_.empty()) {
    const uint32_t slot = colder_.back();
    const bool still = slots_[slot].key < (layer_ + 1) * file_.experts && may_be_evicted(slots_[slot]);
    if (still && heat_.of(slots_[slot].key) + kColder > heat_.of(key)) return -1;
    colder_.pop_back();
    if (!still) continue;
    empty(slot);
    return static_cast<int32_t>(slot);
  }
  return -1;
}

// Gives up what a place holds, for another record.
void Pager::empty(uint32_t slot) {
  if (slots_[slot].reason == Reason::kPrefetch) count(statistics_.prefetch_unused);
  clear(slot);
  count(statistics_.evictions);
}

void Pager::release(uint32_t job) {
  const std::lock_guard lock(mutex_);
  const auto slot = static_cast<uint32_t>(job_slot_[job].load(std::memory_order_relaxed));
  slots_[slot].in_use = false;
  if (is_ring(slot)) {
    // It came by reading ahead, or when all other places were in use.
    move_out_of_ring(slot);
    drop(slot);
    refill();
    feed();
  }
}

void Pager::end_call(bool failed) {
  const std::lock_guard lock(mutex_);
  in_call_ = false;
  for (uint32_t job = 0; job < jobs_.size(); ++job) {
    const int32_t slot = job_slot_[job].load(std::memory_order_relaxed);
    // A place of the ring that was released holds another record by now, or none.
    if (slot < 0 || slots_[slot].key != jobs_[job]) continue;
    slots_[slot].in_use = false;
    if (is_ring(static_cast<uint32_t>(slot)) || slots_[slot].state == SlotState::kFailed) {
      drop(static_cast<uint32_t>(slot));
    }
  }
  missing_.clear();
  next_missing_ = 0;
  if (failed) {
    forget_expected();
    drop_queued(needed_);
    drop_queued(ahead_);
  }
}

// Makes the place empty without putting it on a free list; nobody reads into it.
void Pager::clear(uint32_t slot) {
  Slot& place = slots_[slot];
  if (place.key != kNoKey && slot_of_[place.key] == static_cast<int32_t>(slot)) slot_of_[place.key] = -1;
  place.key = kNoKey;
  place.in_use = false;
  place.expected = false;
  place.abandoned = false;
  place.reason = Reason::kNeeded;
  place.state.store(SlotState::kEmpty, std::memory_order_release);
}

// Makes the place empty and puts it on its free list; nobody reads into it.
void Pager::free(uint32_t slot) {
  clear(slot);
  (is_ring(slot) ? free_ring_ : free_dynamic_).push_back(slot);
}

// --- what it tells ---------------------------------------------------------------------------------------------------

CoreError Pager::failure(int32_t slot) const {
  const Slot& place = slots_[slot];
  CoreError error(MOEDGE_EXPERT_DAMAGED, place.read.problem->text);
  error.os_error = place.read.problem->os_error;
  const std::lock_guard lock(mutex_);
  error.layer = place.key / file_.experts;
  error.expert = place.key % file_.experts;
  error.offset = place.key * file_.record_bytes;
  return error;
}

CoreError Pager::timeout(uint32_t job, uint64_t milliseconds) const {
  CoreError error(MOEDGE_READ_TIMEOUT, "no read made progress for " + grouped(milliseconds) + " ms");
  const std::lock_guard lock(mutex_);
  error.layer = jobs_[job] / file_.experts;
  error.expert = jobs_[job] % file_.experts;
  error.offset = jobs_[job] * file_.record_bytes;
  return error;
}

SlotCounts Pager::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

uint32_t Pager::resident() const {
  const std::lock_guard lock(mutex_);
  uint32_t resident = 0;
  for (uint32_t slot = 0; slot < kMaxRing + counts_.dynamic; ++slot) {
    resident += slots_[slot].state.load(std::memory_order_relaxed) == SlotState::kReady ? 1 : 0;
  }
  return resident;
}

uint32_t Pager::pinned() const {
  const std::lock_guard lock(mutex_);
  uint32_t pinned = 0;
  for (uint32_t slot = kMaxRing; slot < kMaxRing + counts_.dynamic; ++slot) {
    const bool ready = slots_[slot].state.load(std::memory_order_relaxed) == SlotState::kReady;
    pinned += ready && pinned_[slots_[slot].key] ? 1 : 0;
  }
  return pinned;
}

uint32_t Pager::touched_slots() const {
  const std::lock_guard lock(mutex_);
  uint32_t touched = 0;
  for (uint32_t slot = 0; slot < kMaxRing + counts_.dynamic; ++slot) touched += slots_[slot].touched ? 1 : 0;
  return touched;
}

}  // namespace moedge
