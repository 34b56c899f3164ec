// Which records are in memory, and the threads that read the others.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "budget.hpp"
#include "events.hpp"
#include "heat.hpp"
#include "reads.hpp"
#include "record_file.hpp"
#include "slab.hpp"
#include "status.hpp"

namespace moedge {

enum class SlotState : uint32_t { kEmpty, kLoading, kFc1Ready, kReady, kFailed };

struct PagerStatistics {
  std::atomic<uint64_t> hits{0}, misses{0}, reads{0}, read_bytes{0}, prefetch_used{0}, prefetch_unused{0}, preloaded{0},
      preloaded_bytes{0}, preload_used{0}, failed_reads{0}, evictions{0}, queue_depth_sum{0};
};

// One call at a time: begin_call, then release for jobs that are done (any thread), then end_call. Paging decides when
// something is computed, never what.
class Pager {
 public:
  //   reads         can have two for each of `most_at_once` under way
  //   most_at_once  records of a prefill that are read at once
  //   lock_memory   see Slab
  Pager(SlotCounts counts, std::unique_ptr<Reads> reads, RecordFile file, uint32_t top_k, uint32_t most_at_once,
        bool prefetch, bool lock_memory, Events& events);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  // Between calls only. Drops what no longer fits, pinned records last. Waits for reads under way, at most `limit`, and
  // throws CoreError READ_TIMEOUT.
  void set_slots(SlotCounts counts, std::chrono::milliseconds limit);

  // Between calls only. Keys in order of importance; as many as leave room for the picks of a token.
  void pin(std::span<const uint32_t> keys);

  // Between calls only. How often each record was used before: [records], see Heat::start_from.
  void start_from(std::span<const uint64_t> counts);

  // Between calls only. Starts to read what the next calls will probably need and returns: pinned records, then into
  // free places those with the most heat, then into the ring what a prefill of layer 0 needs first. The next begin_call
  // or set_slots ends it; records that have begun by then are read to their end.
  void preload();

  // Starts a call that needs `experts` (ascending) of `layer`; job i is experts[i], chosen by tokens[i] tokens.
  //   keep      load what is missing into places that stay (a decode); else what finds no place, free or of a record
  //             that is used less and whose layer is through, goes through the ring in the order of the jobs, and must
  //             be released in that order (a prefill)
  //   dense     most experts of the next layer will be needed as well: read ahead into it
  //   expected  of a call that keeps: keys of the layers that follow, those that are needed first and most probably
  //             first. What is missing is read when the call has begun to read all that it needs, until the next call
  //             begins.
  void begin_call(uint32_t layer, std::span<const uint32_t> experts, std::span<const uint32_t> tokens, bool keep,
                  bool dense, std::span<const uint32_t> expected = {});

  // Whether a call of `jobs` experts can keep all of them.
  bool can_keep(uint32_t jobs) const;

  // Slot of a job, or −1 while none is free for it. Any thread.
  int32_t slot(uint32_t job) const { return job_slot_[job].load(std::memory_order_acquire); }
  SlotState state(int32_t slot) const { return slots_[slot].state.load(std::memory_order_acquire); }
  const uint8_t* record(int32_t slot) const { return slab_.data() + slot * file_.record_bytes; }

  // The job's record is no longer needed. Any thread; blocks for a moment.
  void release(uint32_t job);

  // After all threads have left the call; `failed` also drops reads that have not begun.
  void end_call(bool failed);

  // Why a slot is kFailed, or which job of the call waits longest, as an error to throw.
  CoreError failure(int32_t slot) const;
  CoreError timeout(uint32_t job, uint64_t milliseconds) const;

  // Time of the last completed read, of the first read after idleness, or of the call's begin; nanoseconds of the
  // steady clock.
  int64_t last_progress_ns() const { return last_progress_ns_.load(std::memory_order_relaxed); }

  const PagerStatistics& statistics() const { return statistics_; }
  bool direct() const { return reads_->direct(); }
  bool huge_pages() const { return slab_.huge_pages(); }
  SlotCounts counts() const;
  uint32_t resident() const;
  uint32_t pinned() const;
  uint32_t touched_slots() const;

 private:
  static constexpr uint32_t kNoKey = 0xFFFFFFFF;

  // Why a record is read.
  enum class Reason : uint8_t { kNeeded, kPrefetch, kPreload };

  // A record is read in two parts, so that fc1 can begin before fc2 has come.
  static constexpr uint32_t kParts = 2;

  // Why a record cannot be used: a clause, and errno or 0.
  struct ReadProblem {
    std::string text;
    int os_error = 0;
  };

  // How far a record has come.
  struct RecordRead {
    std::array<uint64_t, kParts> at{};  // of the record, where the rest of a part begins
    uint32_t begun = 0;                 // parts
    uint32_t under_way = 0;             // of these
    uint32_t there = 0;                 // of these, a bit each
    uint32_t checked = 0;               // of these, in order
    uint32_t crc = 0;                   // of what is checked
    std::optional<ReadProblem> problem;
  };

  struct Slot {
    std::atomic<SlotState> state{SlotState::kEmpty};
    // The rest is guarded by mutex_, but for read.problem, which is written before state becomes kFailed.
    uint32_t key = kNoKey;
    Reason reason = Reason::kNeeded;  // from the first call that needs it on, kNeeded
    bool in_use = false;              // by the call under way
    bool expected = false;            // by the next call
    bool abandoned = false;           // free it when its reads have ended
    bool touched = false;             // has pages
    RecordRead read;
  };

  static int64_t now_ns();
  static void count(std::atomic<uint64_t>& counter, uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }

  bool is_ring(uint32_t slot) const { return slot < kMaxRing; }
  void refill();
  void continue_preload();
  void stop_preload();
  void read_ahead(uint32_t layer, Reason reason);
  void expect(std::span<const uint32_t> keys);
  void look_ahead();
  void forget_expected();
  int32_t take_place(uint32_t key);
  int32_t take_place_that_stays(uint32_t key);
  int32_t take_free_place();
  int32_t evict();
  bool may_be_evicted(const Slot& slot) const;
  void find_colder();
  int32_t evict_colder(uint32_t key);
  void empty(uint32_t slot);
  void start_read(uint32_t slot, uint32_t key, Reason reason);
  void clear(uint32_t slot);
  void free(uint32_t slot);
  void drop(uint32_t slot);
  void drop_queued(std::deque<uint32_t>& queue);
  void move(uint32_t from, uint32_t to);
  void move_out_of_ring(uint32_t slot);
  uint32_t pin_limit() const;
  void apply_pins();

  // Where a part of a record begins; that behind the last, where the record ends.
  uint64_t part_begin(uint32_t part) const { return part == 0 ? 0 : part == 1 ? file_.fc2_offset : file_.record_bytes; }
  uint32_t most_parts() const { return kParts * most_at_once_; }
  void hurry(uint32_t slot);
  void feed();
  void begin_part(uint32_t slot);
  void begin_rest(uint32_t slot, uint32_t part);
  void take_loop();
  void take(const ReadResult& result);
  bool note(const ReadResult& result, RecordRead& read);
  void check(Slot& place, std::unique_lock<std::mutex>& lock);
  void finish(uint32_t slot);

  const std::unique_ptr<Reads> reads_;
  const RecordFile file_;
  const uint32_t top_k_;
  const uint32_t most_at_once_;
  const bool prefetch_;
  Events& events_;
  Slab slab_;

  mutable std::mutex mutex_;
  std::condition_variable begun_;
  std::condition_variable idle_;
  std::unique_ptr<Slot[]> slots_;  // ring, then dynamic
  SlotCounts counts_;
  std::vector<int32_t> slot_of_;  // by key
  Heat heat_;
  std::vector<uint8_t> pinned_;  // by key
  std::vector<uint32_t> pin_order_;
  uint32_t pinned_keys_ = 0;
  std::vector<uint32_t> free_ring_, free_dynamic_;
  std::deque<uint32_t> needed_;   // slots to read into, for the call under way
  std::deque<uint32_t> ahead_;    // likewise, for nobody yet
  uint32_t reading_ = 0;          // records of which a part has begun and that are not through
  uint32_t parts_under_way_ = 0;  // of these
  uint32_t parts_late_ = 0;       // of these
  std::deque<uint32_t> arrived_;  // slots of parts that have ended and are not checked
  bool stop_ = false;
  // How often an expert was needed by a dense call, and how many of these its layer has seen.
  std::vector<uint32_t> dense_needed_, dense_calls_;
  // Keys for places that stay, the most important first; the ring comes when these are through.
  bool preloading_ = false;
  std::vector<uint32_t> preload_;
  size_t next_preload_ = 0;
  // Keys that the next calls will probably need, in the order in which they are read.
  std::vector<uint32_t> expected_;
  size_t next_expected_ = 0;

  // The call under way.
  bool in_call_ = false;
  bool keep_ = false;
  bool dense_ = false;
  uint32_t layer_ = 0;
  std::vector<uint32_t> jobs_;     // keys
  std::vector<uint32_t> missing_;  // jobs without a slot, in order
  size_t next_missing_ = 0;
  std::vector<uint32_t> colder_;  // of a prefill: places whose records may go, those with the least heat last
  std::unique_ptr<std::atomic<int32_t>[]> job_slot_;

  std::atomic<int64_t> last_progress_ns_{0};
  PagerStatistics statistics_;
  std::thread taker_;
};

}  // namespace moedge
