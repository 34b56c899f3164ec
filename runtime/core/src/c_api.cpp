// The C interface: checks options, and turns exceptions into statuses.
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include "core.hpp"
#include "file_source.hpp"
#include "isa.hpp"
#include "moedge_core.h"
#include "status.hpp"

#define MOEDGE_EXPORT __attribute__((visibility("default")))

struct moedge_core {
  moedge::Core core;
};

namespace {

using moedge::CoreError;
using moedge::grouped;

void fill(moedge_error* error, moedge_status status, const char* message) {
  if (error == nullptr) return;
  *error = moedge_error{};
  error->status = status;
  std::strncpy(error->message, message, sizeof error->message - 1);
}

template <class Function>
moedge_status guarded(moedge_error* error, Function function) {
  try {
    function();
    fill(error, MOEDGE_OK, "");
    return MOEDGE_OK;
  } catch (const CoreError& problem) {
    fill(error, problem.status, problem.what());
    if (error != nullptr) {
      error->os_error = problem.os_error;
      error->layer = problem.layer;
      error->expert = problem.expert;
      error->offset = problem.offset;
      error->value = problem.value;
    }
    return problem.status;
  } catch (const std::bad_alloc&) {
    fill(error, MOEDGE_OUT_OF_MEMORY, "memory for the buffers cannot be had");
    return MOEDGE_OUT_OF_MEMORY;
  } catch (const std::system_error& problem) {
    fill(error, MOEDGE_OUT_OF_MEMORY, (std::string("threads cannot be started (") + problem.what() + ")").c_str());
    return MOEDGE_OUT_OF_MEMORY;
  } catch (const std::exception& problem) {
    fill(error, MOEDGE_BAD_OPTION, problem.what());
    return MOEDGE_BAD_OPTION;
  }
}

void within(const char* name, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return;
  throw CoreError(MOEDGE_BAD_OPTION, std::string(name) + "=" + grouped(value) + "; " + grouped(least) + " to " +
                                         grouped(most) + " are possible");
}

// A row of four-bit weights is stored two values a byte.
void even(const char* name, uint64_t value) {
  if (value % 2 == 0) return;
  throw CoreError(MOEDGE_BAD_OPTION, std::string(name) + "=" + grouped(value) + "; at 4 bits it must be even");
}

const moedge::Kernels& kernels_for(const char* isa) {
  if (isa == nullptr) return moedge::best_kernels();
  const moedge::Kernels* kernels = moedge::find_kernels(isa);
  if (kernels == nullptr) {
    throw CoreError(MOEDGE_BAD_OPTION, std::string("isa=") + isa + " is not possible on this processor; its best is " +
                                           moedge::best_kernels().name);
  }
  return *kernels;
}

std::unique_ptr<moedge_core> make(const moedge_core_options& options) {
  if (options.abi != MOEDGE_CORE_ABI) {
    throw CoreError(MOEDGE_BAD_OPTION,
                    "interface version " + grouped(options.abi) + "; this library has " + grouped(MOEDGE_CORE_ABI));
  }
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
  moedge::Quantization quantization{options.bits, options.block_size, options.symmetric != 0};
  if (options.bits != 4 && options.bits != 8 && options.bits != 32) {
    throw CoreError(MOEDGE_BAD_OPTION, "bits=" + grouped(options.bits) + "; 4, 8 and 32 are possible");
  }
  if (options.bits == 32) {
    quantization.block = 32;
  } else if (options.block_size != 32 && options.block_size != 64 && options.block_size != 128) {
    throw CoreError(MOEDGE_BAD_OPTION, "block_size=" + grouped(options.block_size) + "; 32, 64 and 128 are possible");
  }
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
  auto source =
      std::make_unique<moedge::FileSource>(options.path, file.records() * file.record_bytes, options.direct != 0);
  return std::unique_ptr<moedge_core>(new moedge_core{
      moedge::Core(core_options, layout, std::move(file), std::move(source), kernels_for(options.isa))});
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
                                                const float* next_router_logits, float* result, moedge_error* error) {
  return guarded(error,
                 [&] { core->core.compute(layer, tokens, moe_input, router_logits, next_router_logits, result); });
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
