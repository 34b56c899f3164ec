// The expert core: joins router, pager, kernels and threads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "events.hpp"
#include "kernels.hpp"
#include "layout.hpp"
#include "moedge_core.h"
#include "pager.hpp"
#include "router.hpp"
#include "thread_pool.hpp"

namespace moedge {

struct CoreOptions {
  uint32_t top_k = 0;
  uint32_t threads = 1;
  uint32_t readers = 1;
  uint32_t max_tokens = 1;
  uint64_t budget_bytes = 0;  // 0: room for everything
  uint64_t read_timeout_ms = 0;
  bool prefetch = true;
  bool lock_memory = false;  // see Slab
};

class Core {
 public:
  // Throws CoreError BUDGET_TOO_SMALL, before any buffer is allocated, or OUT_OF_MEMORY.
  Core(const CoreOptions& options, const RecordLayout& layout, RecordFile file, std::unique_ptr<Reads> reads,
       const Kernels& kernels);

  // See moedge_core_compute; throws CoreError.
  void compute(uint32_t layer, uint32_t tokens, const float* input, const float* logits, const float* next_logits,
               uint32_t layers_ahead, float* result);
  void pin(std::span<const uint32_t> keys);
  void set_budget(uint64_t budget_bytes);
  void set_counts(const uint64_t* counts);
  void preload() { pager_.preload(); }
  void counts(uint64_t* counts) const;
  moedge_core_statistics statistics() const;
  const Kernels& kernels() const { return kernels_; }
  // Shared with the dense layers.
  const std::shared_ptr<ThreadPool>& pool() const { return pool_; }

 private:
  // Tokens up to which a call keeps what it loads; more are a prefill.
  static constexpr uint32_t kMostTokensKept = 8;
  // Experts of a prefill that may be under way at once: while the last tasks of one are computed, the next has begun.
  static constexpr uint32_t kWindow = 3;
  // Tiles of fc2 in a task: small enough to share, large enough to be worth taking.
  static constexpr uint32_t kFc2TilesOfTask = 4;

  // One expert of a call. Its tasks are taken with `next` and counted with `done`.
  struct Job {
    uint32_t first = 0;  // rows of the routing
    uint32_t count = 0;
    std::atomic<uint32_t> fc1_next{0}, fc1_done{0}, fc2_next{0}, fc2_done{0};
  };

  // What it allocates beside the records.
  struct BufferBytes {
    uint64_t inputs = 0;
    uint64_t activated = 0;
    uint64_t kept = 0;
    uint64_t all = 0;  // these, tables and stacks
  };
  static BufferBytes buffer_bytes(const CoreOptions& options, const RecordLayout& layout, const RecordFile& file,
                                  uint32_t reading_threads);
  SlotCounts slots_for(uint64_t budget_bytes) const;
  uint64_t bytes_in_force(uint64_t budget_bytes, SlotCounts counts) const;
  void work();
  void expect(uint32_t layer, const float* next_logits, uint32_t layers_ahead);
  uint32_t first_open_job() const;
  std::optional<uint32_t> unread_job() const;
  bool step();
  bool step(uint32_t index);
  void run_fc1(uint32_t index, const uint8_t* record, uint32_t task);
  void run_fc2(uint32_t index, const uint8_t* record, uint32_t task);
  void finish(uint32_t index);
  void wait_for_events(uint32_t seen);
  uint8_t* activated_row(const Job& job, uint32_t index, uint32_t row);
  void multiply(const MatrixLayout& matrix, const uint8_t* record, uint32_t tile, uint32_t rows,
                const uint8_t* const* x, float* out) const;
  void sum_kept(float* result) const;
  void fail(const CoreError& error);

  const CoreOptions options_;
  const RecordLayout layout_;
  const uint32_t experts_;
  const uint32_t layers_;
  const Kernels& kernels_;
  const int32_t correction_factor_;
  const size_t input_row_bytes_;
  const size_t activated_row_bytes_;
  const uint32_t fc1_tiles_of_task_;
  const uint32_t fc1_tasks_;
  const uint32_t fc2_tasks_;
  const BufferBytes buffer_bytes_;

  Events events_;
  Pager pager_;
  const std::shared_ptr<ThreadPool> pool_;
  std::atomic<uint64_t> budget_bytes_{0};

  // Buffers, for max_tokens.
  Routing routing_;
  Routing next_routing_;            // of one token, in a layer that follows
  std::vector<uint32_t> expected_;  // keys of the layers that follow
  std::vector<uint8_t> inputs_;     // activation rows of the tokens
  std::vector<uint8_t> activated_;  // of the experts: by window place and row, or by row of the routing
  std::vector<float> kept_;         // results of a call that keeps, [rows of the routing, hidden]
  std::vector<uint32_t> chosen_experts_;
  std::vector<uint32_t> chosen_by_;  // how many tokens
  std::unique_ptr<Job[]> jobs_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [layers * experts]

  // The call under way.
  bool keep_ = false;
  uint32_t job_count_ = 0;
  uint32_t tokens_ = 0;
  float* result_ = nullptr;
  std::thread::id caller_;
  std::atomic<uint32_t> cursor_{0};   // jobs finished; in a prefill also the one whose fc2 may run
  std::atomic<uint32_t> running_{0};  // tasks that are being computed
  std::atomic<bool> failed_{false};
  // A value between fc1 and fc2 was too large. Told when all records have passed their check: damage comes first.
  std::atomic<bool> overflowed_{false};
  std::mutex error_mutex_;
  std::optional<CoreError> error_;
  int64_t waited_ns_ = 0;

  std::atomic<uint64_t> calls_{0}, all_tokens_{0}, flash_wait_ns_{0}, compute_ns_{0};
};

}  // namespace moedge
