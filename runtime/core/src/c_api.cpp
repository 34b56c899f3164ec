// The C interface: checks options, and turns exceptions into statuses.
#include <memory>
#include <string>

#include "api_support.hpp"
#include "file_source.hpp"
#include "kernel_reads.hpp"
#include "moedge_core.h"
#include "status.hpp"
#include "thread_reads.hpp"

namespace {

using moedge::CoreError;
using moedge::grouped;
using moedge::guarded;
using moedge::kernels_for;
using moedge::within;

// A row of four-bit weights is stored two values a byte.
void even(const char* name, uint64_t value) {
  if (value % 2 == 0) return;
  throw CoreError(MOEDGE_BAD_OPTION, std::string(name) + "=" + grouped(value) + "; at 4 bits it must be even");
}

// Of the file by the kernel, of each record both parts at once; or where that cannot be by threads.
std::unique_ptr<moedge::Reads> reads_of(std::unique_ptr<moedge::FileSource> source, uint32_t records) {
  if (auto reads = moedge::KernelReads::open(source, 2 * records)) return reads;
  return std::make_unique<moedge::ThreadReads>(std::move(source), records);
}

std::unique_ptr<moedge_core> make(const moedge_core_options& options) {
  moedge::same_abi(options.abi);
  if (options.path == nullptr) throw CoreError(MOEDGE_BAD_OPTION, "path=NULL; the path of experts.bin is needed");
  if (options.crc32c == nullptr) {
    throw CoreError(MOEDGE_BAD_OPTION, "crc32c=NULL; a checksum for each record is needed");
  }
  constexpr uint64_t kMost = 1 << 20;
  within("layers", options.layers, 1, kMost);
  within("experts", options.experts, 1, kMost);
  within("layers times experts", uint64_t{options.layers} * options.experts, 1, kMost);
  within("top_k", options.top_k, 1, options.experts);
  within("hidden_size", options.hidden_size, 1, kMost);
  within("intermediate_size", options.intermediate_size, 1, kMost);
  within("threads", options.threads, 1, 64);
  within("readers", options.readers, 1, 64);
  within("max_tokens", options.max_tokens, 1, kMost);
  const moedge::Quantization quantization =
      moedge::quantization_of(options.bits, options.block_size, options.symmetric);
  if (options.bits == 4) {
    even("hidden_size", options.hidden_size);
    even("intermediate_size", options.intermediate_size);
  }
  const auto layout = moedge::RecordLayout::make(options.hidden_size, options.intermediate_size, quantization);
  if (layout.record_bytes != options.record_bytes) {
    throw CoreError(MOEDGE_BAD_OPTION, "record_bytes=" + grouped(options.record_bytes) + "; the shape gives " +
                                           grouped(layout.record_bytes));
  }
  moedge::RecordFile file;
  file.layers = options.layers;
  file.experts = options.experts;
  file.record_bytes = layout.record_bytes;
  file.fc2_offset = layout.fc2_offset;
  file.crc32c.assign(options.crc32c, options.crc32c + file.records());
  moedge::CoreOptions core_options;
  core_options.top_k = options.top_k;
  core_options.threads = options.threads;
  core_options.readers = options.readers;
  core_options.max_tokens = options.max_tokens;
  core_options.budget_bytes = options.budget_bytes;
  core_options.read_timeout_ms = options.read_timeout_ms;
  core_options.prefetch = options.prefetch != 0;
  core_options.lock_memory = options.lock_memory != 0;
  auto source =
      std::make_unique<moedge::FileSource>(options.path, file.records() * file.record_bytes, options.direct != 0);
  return std::unique_ptr<moedge_core>(new moedge_core{moedge::Core(
      core_options, layout, std::move(file), reads_of(std::move(source), options.readers), kernels_for(options.isa))});
}

}  // namespace

extern "C" {

MOEDGE_EXPORT moedge_status moedge_core_open(const moedge_core_options* options, moedge_core** core,
                                             moedge_error* error) {
  return guarded(error, [&] { *core = make(*options).release(); });
}

MOEDGE_EXPORT void moedge_core_close(moedge_core* core) { delete core; }

MOEDGE_EXPORT moedge_status moedge_core_compute(moedge_core* core, uint32_t layer, uint32_t tokens,
                                                const float* moe_input, const float* router_logits,
                                                const float* next_router_logits, uint32_t layers_ahead, float* result,
                                                moedge_error* error) {
  return guarded(error, [&] {
    core->core.compute(layer, tokens, moe_input, router_logits, next_router_logits, layers_ahead, result);
  });
}

MOEDGE_EXPORT moedge_status moedge_core_pin(moedge_core* core, const uint32_t* keys, uint32_t count,
                                            moedge_error* error) {
  return guarded(error, [&] { core->core.pin({keys, count}); });
}

MOEDGE_EXPORT moedge_status moedge_core_set_budget(moedge_core* core, uint64_t budget_bytes, moedge_error* error) {
  return guarded(error, [&] { core->core.set_budget(budget_bytes); });
}

MOEDGE_EXPORT moedge_status moedge_core_preload(moedge_core* core, moedge_error* error) {
  return guarded(error, [&] { core->core.preload(); });
}

MOEDGE_EXPORT void moedge_core_set_counts(moedge_core* core, const uint64_t* counts) { core->core.set_counts(counts); }

MOEDGE_EXPORT void moedge_core_counts(const moedge_core* core, uint64_t* counts) { core->core.counts(counts); }

MOEDGE_EXPORT void moedge_core_get_statistics(const moedge_core* core, moedge_core_statistics* statistics) {
  *statistics = core->core.statistics();
}

MOEDGE_EXPORT const char* moedge_core_isa(const moedge_core* core) { return core->core.kernels().name; }

MOEDGE_EXPORT const char* moedge_core_best_isa(void) { return moedge::best_kernels().name; }

MOEDGE_EXPORT int moedge_core_has_isa(const char* isa) { return moedge::find_kernels(isa) != nullptr ? 1 : 0; }

}  // extern "C"
