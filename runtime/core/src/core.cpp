#include "core.hpp"

#include <algorithm>
#include <cstring>

#include "product.hpp"
#include "status.hpp"

namespace moedge {
namespace {

using Clock = std::chrono::steady_clock;

// A waiting thread looks this often whether a read has timed out.
constexpr std::chrono::milliseconds kPatience{50};
constexpr std::chrono::milliseconds kForEver{1000LL * 3600 * 24 * 365};
// Pages of a thread's stack that are ever touched.
constexpr uint64_t kThreadBytes = 64 << 10;
// Of the routing for a pick, and of all tables for a record.
constexpr uint64_t kPickBytes = 12;
constexpr uint64_t kTableBytes = 256;
constexpr uint32_t kMostBlock = 128;

int64_t ns_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// A task of fc1 makes whole blocks of activations, so that it can quantize them.
uint32_t fc1_tiles_of_task(const Quantization& quantization) {
  return quantization.bits == 32 ? 2 : quantization.block / kHalfRows;
}

}  // namespace

Core::Core(const CoreOptions& options, const RecordLayout& layout, RecordFile file, std::unique_ptr<Reads> reads,
           const Kernels& kernels)
    : options_(options),
      layout_(layout),
      experts_(file.experts),
      layers_(file.layers),
      kernels_(kernels),
      correction_factor_(correction_factor(layout.quantization, kernels.bias8)),
      input_row_bytes_(activation_row_bytes(layout.hidden, layout.quantization)),
      activated_row_bytes_(activation_row_bytes(layout.intermediate, layout.quantization)),
      fc1_tiles_of_task_(fc1_tiles_of_task(layout.quantization)),
      fc1_tasks_(divide_up(layout.fc1.tiles, fc1_tiles_of_task_)),
      fc2_tasks_(divide_up(layout.fc2.tiles, kFc2TilesOfTask)),
      buffer_bytes_(buffer_bytes(options, layout, file, 1 + reads->threads())),
      pager_(slots_for(options.budget_bytes), std::move(reads), std::move(file), options.top_k, options.readers,
             options.prefetch, options.lock_memory, events_),
      pool_(std::make_shared<ThreadPool>(options.threads)) {
  routing_.reserve(options.max_tokens, experts_, options.top_k);
  next_routing_.reserve(1, experts_, options.top_k);
  expected_.reserve(uint64_t{MOEDGE_LAYERS_AHEAD} * options.top_k);
  inputs_.resize(buffer_bytes_.inputs);
  activated_.resize(buffer_bytes_.activated);
  kept_.resize(buffer_bytes_.kept / sizeof(float));
  chosen_experts_.reserve(experts_);
  chosen_by_.reserve(experts_);
  jobs_ = std::make_unique<Job[]>(experts_);
  counts_ = std::make_unique<std::atomic<uint64_t>[]>(uint64_t{layers_} * experts_);
  budget_bytes_ = bytes_in_force(options.budget_bytes, pager_.counts());
}

// --- the budget ------------------------------------------------------------------------------------------------------

Core::BufferBytes Core::buffer_bytes(const CoreOptions& options, const RecordLayout& layout, const RecordFile& file,
                                     uint32_t reading_threads) {
  const uint64_t kept_rows = uint64_t{std::min(kMostTokensKept, options.max_tokens)} * options.top_k;
  const uint64_t activated_rows = std::max(uint64_t{kWindow} * options.max_tokens, kept_rows);
  BufferBytes bytes;
  bytes.inputs = options.max_tokens * activation_row_bytes(layout.hidden, layout.quantization);
  bytes.activated = activated_rows * activation_row_bytes(layout.intermediate, layout.quantization);
  bytes.kept = kept_rows * layout.hidden * sizeof(float);
  bytes.all = bytes.inputs + bytes.activated + bytes.kept + uint64_t{options.max_tokens} * options.top_k * kPickBytes +
              uint64_t{file.records()} * kTableBytes + file.experts * sizeof(Job) +
              (options.threads + reading_threads) * kThreadBytes;
  return bytes;
}

SlotCounts Core::slots_for(uint64_t budget_bytes) const {
  return slots_within(budget_bytes, buffer_bytes_.all, layout_.record_bytes, layers_ * experts_, options_.top_k);
}

uint64_t Core::bytes_in_force(uint64_t budget_bytes, SlotCounts counts) const {
  return budget_bytes ? budget_bytes : buffer_bytes_.all + counts.total() * layout_.record_bytes;
}

void Core::set_budget(uint64_t budget_bytes) {
  const SlotCounts counts = slots_for(budget_bytes);
  pager_.set_slots(counts, options_.read_timeout_ms ? std::chrono::milliseconds(options_.read_timeout_ms) : kForEver);
  budget_bytes_ = bytes_in_force(budget_bytes, counts);
}

void Core::pin(std::span<const uint32_t> keys) {
  for (const uint32_t key : keys) {
    if (key >= layers_ * experts_) {
      throw CoreError(MOEDGE_BAD_OPTION,
                      "pinned expert " + grouped(key) + " does not exist; there are " + grouped(layers_ * experts_));
    }
  }
  pager_.pin(keys);
}

void Core::set_counts(const uint64_t* counts) {
  const uint64_t records = uint64_t{layers_} * experts_;
  for (uint64_t key = 0; key < records; ++key) counts_[key].store(counts[key], std::memory_order_relaxed);
  pager_.start_from({counts, records});
}

// --- a call ----------------------------------------------------------------------------------------------------------

void Core::compute(uint32_t layer, uint32_t tokens, const float* input, const float* logits, const float* next_logits,
                   uint32_t layers_ahead, float* result) {
  const auto start = Clock::now();
  if (layer >= layers_) {
    throw CoreError(MOEDGE_BAD_INPUT, "layer " + grouped(layer) + " does not exist; there are " + grouped(layers_));
  }
  if (tokens < 1 || tokens > options_.max_tokens) {
    throw CoreError(MOEDGE_BAD_INPUT,
                    grouped(tokens) + " tokens in one call; 1 to " + grouped(options_.max_tokens) + " are possible");
  }
  if (!route(logits, tokens, experts_, options_.top_k, routing_)) {
    throw CoreError(MOEDGE_BAD_INPUT, "a router logit is not finite");
  }
  for (uint32_t token = 0; token < tokens; ++token) {
    const float* x = input + size_t{token} * layout_.hidden;
    uint8_t* row = inputs_.data() + token * input_row_bytes_;
    if (!make_row(kernels_, x, layout_.hidden, layout_.quantization, row))
      throw CoreError(MOEDGE_BAD_INPUT, "an activation is not finite");
  }
  chosen_experts_.clear();
  chosen_by_.clear();
  for (uint32_t expert = 0; expert < experts_; ++expert) {
    const uint32_t first = routing_.first[expert];
    const uint32_t count = routing_.first[expert + 1] - first;
    if (count == 0) continue;
    counts_[uint64_t{layer} * experts_ + expert].fetch_add(count, std::memory_order_relaxed);
    Job& job = jobs_[chosen_experts_.size()];
    job.first = first;
    job.count = count;
    job.fc1_next = job.fc1_done = job.fc2_next = job.fc2_done = 0;
    chosen_experts_.push_back(expert);
    chosen_by_.push_back(count);
  }
  job_count_ = static_cast<uint32_t>(chosen_experts_.size());
  tokens_ = tokens;
  result_ = result;
  keep_ = tokens <= kMostTokensKept && pager_.can_keep(job_count_);
  cursor_ = 0;
  failed_ = false;
  overflowed_ = false;
  error_.reset();
  waited_ns_ = 0;
  caller_ = std::this_thread::get_id();
  std::fill(result, result + size_t{tokens} * layout_.hidden, 0.0F);
  const bool dense = !keep_ && uint64_t{tokens} * options_.top_k >= experts_;
  expected_.clear();
  if (keep_ && tokens == 1 && next_logits != nullptr) expect(layer, next_logits, layers_ahead);
  pager_.begin_call(layer, chosen_experts_, chosen_by_, keep_, dense, expected_);
  pool_->run([this] { work(); });
  pager_.end_call(failed_);
  if (failed_) throw *error_;
  if (overflowed_) throw CoreError(MOEDGE_BAD_INPUT, "an activation inside an expert is not finite");
  if (keep_) sum_kept(result);
  calls_.fetch_add(1, std::memory_order_relaxed);
  all_tokens_.fetch_add(tokens, std::memory_order_relaxed);
  flash_wait_ns_.fetch_add(static_cast<uint64_t>(waited_ns_), std::memory_order_relaxed);
  compute_ns_.fetch_add(static_cast<uint64_t>(ns_since(start) - waited_ns_), std::memory_order_relaxed);
}

// Keys of the experts that guesses of the next layers' logits choose: the next layer's first, of a layer the largest
// logits first. What is not finite is no guess.
void Core::expect(uint32_t layer, const float* next_logits, uint32_t layers_ahead) {
  const uint32_t end = std::min(layers_, layer + 1 + std::min<uint32_t>(layers_ahead, MOEDGE_LAYERS_AHEAD));
  for (uint32_t next = layer + 1; next < end; ++next, next_logits += experts_) {
    if (!route(next_logits, 1, experts_, options_.top_k, next_routing_)) return;
    for (const uint32_t expert : next_routing_.chosen) expected_.push_back(next * experts_ + expert);
  }
}

// Each thread of a call: does tasks until all jobs are finished.
void Core::work() {
  while (!failed_.load(std::memory_order_acquire)) {
    const uint32_t seen = events_.now();
    if (cursor_.load(std::memory_order_acquire) == job_count_) return;
    if (!step()) wait_for_events(seen);
  }
}

// The first job that may be unfinished. A decode finishes its jobs in any order.
uint32_t Core::first_open_job() const { return keep_ ? 0 : cursor_.load(std::memory_order_acquire); }

// Does one task; false if there is none now.
bool Core::step() {
  const uint32_t begin = first_open_job();
  const uint32_t end = keep_ ? job_count_ : std::min(job_count_, begin + kWindow);
  for (uint32_t index = begin; index < end; ++index) {
    if (step(index)) return true;
  }
  return false;
}

bool Core::step(uint32_t index) {
  Job& job = jobs_[index];
  if (job.fc2_next.load(std::memory_order_relaxed) >= fc2_tasks_) return false;
  const int32_t slot = pager_.slot(index);
  if (slot < 0) return false;
  const SlotState state = pager_.state(slot);
  if (state == SlotState::kFailed) {
    // Of a job that others have finished meanwhile, the place holds another record.
    if (job.fc2_done.load(std::memory_order_acquire) == fc2_tasks_) return false;
    fail(pager_.failure(slot));
    return true;
  }
  if (state < SlotState::kFc1Ready) return false;
  if (job.fc1_next.load(std::memory_order_relaxed) < fc1_tasks_) {
    const uint32_t task = job.fc1_next.fetch_add(1, std::memory_order_relaxed);
    if (task < fc1_tasks_) {
      running_.fetch_add(1, std::memory_order_relaxed);
      run_fc1(index, pager_.record(slot), task);
      running_.fetch_sub(1, std::memory_order_relaxed);
      if (job.fc1_done.fetch_add(1, std::memory_order_acq_rel) + 1 == fc1_tasks_) events_.notify();
      return true;
    }
  }
  if (state != SlotState::kReady || job.fc1_done.load(std::memory_order_acquire) < fc1_tasks_) return false;
  if (!keep_ && cursor_.load(std::memory_order_acquire) != index) return false;
  const uint32_t task = job.fc2_next.fetch_add(1, std::memory_order_relaxed);
  if (task >= fc2_tasks_) return false;
  running_.fetch_add(1, std::memory_order_relaxed);
  run_fc2(index, pager_.record(slot), task);
  running_.fetch_sub(1, std::memory_order_relaxed);
  if (job.fc2_done.fetch_add(1, std::memory_order_acq_rel) + 1 == fc2_tasks_) finish(index);
  return true;
}

void Core::finish(uint32_t index) {
  if (!keep_) pager_.release(index);
  cursor_.fetch_add(1, std::memory_order_acq_rel);
  events_.notify();
}

void Core::wait_for_events(uint32_t seen) {
  const std::optional<uint32_t> job = unread_job();
  const auto start = Clock::now();
  events_.wait(seen, kPatience, running_.load(std::memory_order_relaxed) > 0);
  if (std::this_thread::get_id() != caller_ || !job) return;
  waited_ns_ += ns_since(start);
  if (options_.read_timeout_ms == 0 || events_.now() != seen) return;
  const int64_t now = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
  if (now - pager_.last_progress_ns() > static_cast<int64_t>(options_.read_timeout_ms) * 1000000) {
    fail(pager_.timeout(*job, options_.read_timeout_ms));
  }
}

// The first job whose record is not in memory yet, if there is one.
std::optional<uint32_t> Core::unread_job() const {
  for (uint32_t index = first_open_job(); index < job_count_; ++index) {
    if (jobs_[index].fc2_done.load(std::memory_order_acquire) == fc2_tasks_) continue;
    const int32_t slot = pager_.slot(index);
    if (slot < 0 || pager_.state(slot) < SlotState::kReady) return index;
  }
  return std::nullopt;
}

void Core::fail(const CoreError& error) {
  {
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = error;
  }
  failed_.store(true, std::memory_order_release);
  events_.notify();
}

// --- tasks -----------------------------------------------------------------------------------------------------------

uint8_t* Core::activated_row(const Job& job, uint32_t index, uint32_t row) {
  const size_t place = keep_ ? job.first + row : size_t{index % kWindow} * options_.max_tokens + row;
  return activated_.data() + place * activated_row_bytes_;
}

void Core::multiply(const MatrixLayout& matrix, const uint8_t* record, uint32_t tile, uint32_t rows,
                    const uint8_t* const* x, float* out) const {
  const Quantization& quantization = layout_.quantization;
  const TileKernel kernel = kernels_.tile(quantization.bits, quantization.block, quantization.symmetric, rows);
  kernel(record + matrix.weight + tile * matrix.weight_tile_bytes,
         reinterpret_cast<const uint16_t*>(record + matrix.scale + tile * matrix.scale_tile_bytes),
         record + matrix.zero + tile * matrix.zero_tile_bytes, matrix.blocks, x, out);
}

void Core::run_fc1(uint32_t index, const uint8_t* record, uint32_t task) {
  const Job& job = jobs_[index];
  const Quantization& quantization = layout_.quantization;
  const uint32_t begin = task * fc1_tiles_of_task_;
  const uint32_t end = std::min(begin + fc1_tiles_of_task_, layout_.fc1.tiles);
  const uint32_t first_value = begin * kHalfRows;
  const uint32_t values = std::min(end * kHalfRows, layout_.intermediate) - first_value;
  const uint32_t passes = divide_up(job.count, kernels_.max_rows);
  alignas(64) float out[kMostRows * kTileRows];
  alignas(64) float activated[kMostRows][kMostBlock];
  for (uint32_t pass = 0; pass < passes; ++pass) {
    // As even as possible: a kernel for few rows is less efficient.
    const uint32_t row_begin = static_cast<uint32_t>(uint64_t{job.count} * pass / passes);
    const uint32_t rows = static_cast<uint32_t>(uint64_t{job.count} * (pass + 1) / passes) - row_begin;
    const uint8_t* x[kMostRows];
    for (uint32_t row = 0; row < rows; ++row) {
      x[row] = inputs_.data() + routing_.token[job.first + row_begin + row] * input_row_bytes_;
    }
    for (uint32_t tile = begin; tile < end; ++tile) {
      multiply(layout_.fc1, record, tile, rows, x, out);
      for (uint32_t row = 0; row < rows; ++row) {
        kernels_.swiglu(out + row * kTileRows, activated[row] + (tile - begin) * kHalfRows);
      }
    }
    for (uint32_t row = 0; row < rows; ++row) {
      uint8_t* to = activated_row(job, index, row_begin + row);
      bool finite = true;
      if (quantization.bits == 32) {
        finite = all_finite(activated[row], values);
        std::memcpy(to + first_value * sizeof(float), activated[row], values * sizeof(float));
      } else {
        const size_t terms = terms_offset(layout_.intermediate, quantization.block);
        finite = kernels_.quantize(activated[row], values, quantization.block, correction_factor_, to + first_value,
                                   to + terms + first_value / quantization.block * kTermBytes);
      }
      if (!finite) overflowed_.store(true, std::memory_order_relaxed);
    }
  }
}

void Core::run_fc2(uint32_t index, const uint8_t* record, uint32_t task) {
  const Job& job = jobs_[index];
  const uint32_t begin = task * kFc2TilesOfTask;
  const uint32_t end = std::min(begin + kFc2TilesOfTask, layout_.fc2.tiles);
  const uint32_t passes = divide_up(job.count, kernels_.max_rows);
  alignas(64) float out[kMostRows * kTileRows];
  for (uint32_t tile = begin; tile < end; ++tile) {
    const uint32_t first_value = tile * kTileRows;
    const uint32_t values = std::min(kTileRows, layout_.hidden - first_value);
    for (uint32_t pass = 0; pass < passes; ++pass) {
      const uint32_t row_begin = static_cast<uint32_t>(uint64_t{job.count} * pass / passes);
      const uint32_t rows = static_cast<uint32_t>(uint64_t{job.count} * (pass + 1) / passes) - row_begin;
      const uint8_t* x[kMostRows];
      for (uint32_t row = 0; row < rows; ++row) x[row] = activated_row(job, index, row_begin + row);
      multiply(layout_.fc2, record, tile, rows, x, out);
      for (uint32_t row = 0; row < rows; ++row) {
        const uint32_t place = job.first + row_begin + row;
        const float* values_of_row = out + row * kTileRows;
        if (keep_) {
          std::copy(values_of_row, values_of_row + values, kept_.data() + size_t{place} * layout_.hidden + first_value);
        } else {
          kernels_.accumulate(routing_.weight[place], values_of_row, values,
                              result_ + size_t{routing_.token[place]} * layout_.hidden + first_value);
        }
      }
    }
  }
}

// Adds in ascending order of expert, as a prefill does.
void Core::sum_kept(float* result) const {
  const uint32_t rows = tokens_ * options_.top_k;
  for (uint32_t row = 0; row < rows; ++row) {
    kernels_.accumulate(routing_.weight[row], kept_.data() + size_t{row} * layout_.hidden, layout_.hidden,
                        result + size_t{routing_.token[row]} * layout_.hidden);
  }
}

// --- what it tells ---------------------------------------------------------------------------------------------------

void Core::counts(uint64_t* counts) const {
  for (uint64_t key = 0; key < uint64_t{layers_} * experts_; ++key) {
    counts[key] = counts_[key].load(std::memory_order_relaxed);
  }
}

moedge_core_statistics Core::statistics() const {
  const PagerStatistics& paging = pager_.statistics();
  const SlotCounts slots = pager_.counts();
  moedge_core_statistics s{};
  s.calls = calls_;
  s.tokens = all_tokens_;
  s.hits = paging.hits;
  s.misses = paging.misses;
  s.reads = paging.reads;
  s.read_bytes = paging.read_bytes;
  s.prefetch_used = paging.prefetch_used;
  s.prefetch_unused = paging.prefetch_unused;
  s.preloaded = paging.preloaded;
  s.preloaded_bytes = paging.preloaded_bytes;
  s.preload_used = paging.preload_used;
  s.failed_reads = paging.failed_reads;
  s.evictions = paging.evictions;
  s.flash_wait_ns = flash_wait_ns_;
  s.compute_ns = compute_ns_;
  s.queue_depth_sum = paging.queue_depth_sum;
  s.budget_bytes = budget_bytes_;
  s.used_bytes = buffer_bytes_.all + pager_.touched_slots() * layout_.record_bytes;
  s.slots = slots.total();
  s.ring_slots = slots.ring;
  s.pinned = pager_.pinned();  // first: of a preload, more may come in between
  s.resident = pager_.resident();
  s.direct = pager_.direct() ? 1 : 0;
  s.huge_pages = pager_.huge_pages() ? 1 : 0;
  return s;
}

}  // namespace moedge
