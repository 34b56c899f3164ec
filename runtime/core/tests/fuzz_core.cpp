// libFuzzer target: the C interface with arbitrary options, records, checksums, inputs and budgets. Nothing may crash,
// hang or trip a sanitizer; what is returned does not matter, but an accepted core must keep its budget.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "moedge_core.h"

namespace {

constexpr size_t kMostFileBytes = 4 << 20;

// Arbitrary bytes repeated to `size`; the bytes of a half differ, so that scales do.
std::vector<uint8_t> repeated(FuzzedDataProvider& data, size_t size) {
  std::vector<uint8_t> bytes(size);
  const std::string pattern = data.ConsumeRandomLengthString(64);
  for (size_t i = 0; i < size && !pattern.empty(); ++i) bytes[i] = static_cast<uint8_t>(pattern[i % pattern.size()]);
  return bytes;
}

std::vector<float> floats(FuzzedDataProvider& data, size_t count) {
  std::vector<float> values(count);
  const auto kind = data.ConsumeIntegralInRange<int>(0, 2);
  if (kind == 0) {
    const std::vector<uint8_t> bytes = repeated(data, count * sizeof(float));
    if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  } else {
    const float scale = kind == 1 ? 1.0F : 1e37F;
    uint32_t state = data.ConsumeIntegral<uint32_t>();
    for (float& value : values) {
      state = state * 1664525 + 1013904223;
      value = (static_cast<float>(state >> 8) * 0x1p-23F - 1) * scale;
    }
  }
  return values;
}

moedge_core_options make_options(FuzzedDataProvider& data) {
  moedge_core_options options{};
  options.abi = MOEDGE_CORE_ABI;
  options.layers = data.ConsumeIntegralInRange<uint32_t>(1, 4);
  options.experts = data.ConsumeIntegralInRange<uint32_t>(1, 12);
  options.top_k = data.ConsumeIntegralInRange<uint32_t>(1, options.experts);
  options.hidden_size = data.ConsumeIntegralInRange<uint32_t>(1, 140);
  options.intermediate_size = data.ConsumeIntegralInRange<uint32_t>(1, 140);
  options.bits = data.PickValueInArray<uint32_t>({4, 8, 32});
  if (options.bits == 4) {  // odd sizes are refused
    options.hidden_size += options.hidden_size % 2;
    options.intermediate_size += options.intermediate_size % 2;
  }
  options.block_size = data.PickValueInArray<uint32_t>({32, 64, 128});
  options.symmetric = data.ConsumeBool();
  options.threads = data.ConsumeIntegralInRange<uint32_t>(1, 3);
  options.readers = data.ConsumeIntegralInRange<uint32_t>(1, 4);
  options.max_tokens = data.ConsumeIntegralInRange<uint32_t>(1, 24);
  options.direct = data.ConsumeBool();
  options.prefetch = data.ConsumeBool();
  options.read_timeout_ms = data.ConsumeBool() ? 0 : 60000;
  const moedge::Quantization quantization{options.bits, options.block_size, options.symmetric != 0};
  options.record_bytes =
      moedge::RecordLayout::make(options.hidden_size, options.intermediate_size, quantization).record_bytes;
  if (data.ConsumeBool()) options.budget_bytes = data.ConsumeIntegralInRange<uint64_t>(0, 2 * kMostFileBytes);
  return options;
}

// One number that is checked becomes arbitrary.
void damage(moedge_core_options& options, FuzzedDataProvider& data) {
  uint32_t* const numbers[] = {&options.abi,     &options.layers,      &options.experts,
                               &options.top_k,   &options.hidden_size, &options.intermediate_size,
                               &options.bits,    &options.block_size,  &options.symmetric,
                               &options.threads, &options.readers,     &options.direct,
                               &options.prefetch};
  *numbers[data.ConsumeIntegralInRange<size_t>(0, std::size(numbers) - 1)] = data.ConsumeIntegral<uint32_t>();
  if (data.ConsumeBool()) options.record_bytes = data.ConsumeIntegral<uint64_t>();
  if (data.ConsumeBool()) options.crc32c = nullptr;
  if (data.ConsumeBool()) options.path = nullptr;
}

void require(bool claim) {
  if (!claim) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  moedge_core_options options = make_options(data);
  const uint32_t records = options.layers * options.experts;
  if (records * options.record_bytes > kMostFileBytes) return -1;
  std::vector<uint8_t> content = repeated(data, records * options.record_bytes);
  std::vector<uint32_t> crc32c(records);
  for (uint32_t key = 0; key < records; ++key) {
    crc32c[key] = moedge::crc32c(0, content.data() + key * options.record_bytes, options.record_bytes);
  }
  while (data.ConsumeIntegralInRange<int>(0, 3) == 0) {
    crc32c[data.ConsumeIntegralInRange<uint32_t>(0, records - 1)] ^= 1;
    if (data.remaining_bytes() == 0) break;
  }
  const int file = memfd_create("experts.bin", 0);
  if (file < 0) return 0;
  require(write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  options.path = path.c_str();
  options.crc32c = crc32c.data();
  const std::string isa = data.ConsumeBool() ? data.PickValueInArray(moedge::kInstructionSets) : "";
  if (!isa.empty()) options.isa = isa.c_str();
  const bool damaged = data.ConsumeIntegralInRange<int>(0, 7) == 0;
  moedge_core_options given = options;
  if (damaged) damage(given, data);
  // The interface takes the length of the table on trust.
  const uint64_t claimed = uint64_t{given.layers} * given.experts;
  if (claimed > records && claimed <= 1 << 20) crc32c.resize(claimed);
  if (given.crc32c != nullptr) given.crc32c = crc32c.data();

  moedge_core* core = nullptr;
  moedge_error error;
  const moedge_status opened = moedge_core_open(&given, &core, &error);
  require(error.status == opened);
  require(std::memchr(error.message, 0, sizeof error.message) != nullptr);
  if (opened == MOEDGE_BUDGET_TOO_SMALL) {
    given.budget_bytes = error.value;
    require(moedge_core_open(&given, &core, &error) == MOEDGE_OK);
  }
  if (core == nullptr) {
    close(file);
    return 0;
  }
  // A shape that was damaged and is right all the same.
  const uint32_t keys = given.layers * given.experts;
  for (int turn = 0; turn < 16 && data.remaining_bytes() > 0; ++turn) {
    switch (data.ConsumeIntegralInRange<int>(0, 9)) {
      case 0: {
        std::vector<uint32_t> pins(data.ConsumeIntegralInRange<size_t>(0, 8));
        for (uint32_t& key : pins) key = data.ConsumeIntegralInRange<uint32_t>(0, keys + (data.ConsumeBool() ? 1 : 0));
        moedge_core_pin(core, pins.data(), static_cast<uint32_t>(pins.size()), &error);
        break;
      }
      case 1:
        moedge_core_set_budget(core, data.ConsumeIntegralInRange<uint64_t>(0, 2 * kMostFileBytes), &error);
        break;
      case 2: {
        const auto length = data.ConsumeIntegralInRange<off_t>(0, static_cast<off_t>(content.size()));
        require(ftruncate(file, data.ConsumeBool() ? length : static_cast<off_t>(content.size())) == 0);
        break;
      }
      case 3:
        require(moedge_core_preload(core, &error) == MOEDGE_OK);
        break;
      case 4: {
        std::vector<uint64_t> given_counts(keys);
        for (uint64_t& count : given_counts)
          count = data.ConsumeIntegral<uint64_t>() >> data.ConsumeIntegral<uint8_t>() % 64;
        moedge_core_set_counts(core, given_counts.data());
        break;
      }
      default: {
        const uint32_t layer = data.ConsumeIntegralInRange<uint32_t>(0, given.layers);
        const uint32_t tokens = data.ConsumeIntegralInRange<uint32_t>(0, given.max_tokens + 1);
        const std::vector<float> input = floats(data, size_t{tokens} * given.hidden_size);
        const std::vector<float> logits = floats(data, size_t{tokens} * given.experts);
        const auto ahead = data.ConsumeIntegralInRange<uint32_t>(0, MOEDGE_LAYERS_AHEAD);
        const std::vector<float> next = floats(data, size_t{ahead} * given.experts);
        std::vector<float> result(input.size());
        const moedge_status status =
            moedge_core_compute(core, layer, tokens, input.data(), logits.data(), next.empty() ? nullptr : next.data(),
                                ahead, result.data(), &error);
        require(status == MOEDGE_OK || status == MOEDGE_BAD_INPUT || status == MOEDGE_EXPERT_DAMAGED);
        if (status == MOEDGE_EXPERT_DAMAGED) {
          require(error.layer == layer && error.expert < given.experts);
          require(error.offset == (uint64_t{layer} * given.experts + error.expert) * given.record_bytes);
        }
      }
    }
    moedge_core_statistics statistics;
    moedge_core_get_statistics(core, &statistics);
    require(statistics.used_bytes <= statistics.budget_bytes);
    require(statistics.resident <= statistics.slots && statistics.pinned <= statistics.resident);
  }
  std::vector<uint64_t> counts(keys);
  moedge_core_counts(core, counts.data());
  moedge_core_close(core);
  close(file);
  return 0;
}
