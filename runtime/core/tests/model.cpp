#include "model.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <thread>

#include "crc32c.hpp"
#include "isa.hpp"
#include "reference.hpp"
#include "thread_reads.hpp"

namespace moedge::test {
namespace {

void fill_matrix(const MatrixLayout& matrix, const Quantization& quantization, uint8_t* record, Random& random) {
  if (quantization.bits == 32) {
    for (uint64_t at = 0; at < matrix.tiles * matrix.weight_tile_bytes; at += 4) {
      const float weight = random.between(-0.25F, 0.25F);
      std::memcpy(record + matrix.weight + at, &weight, sizeof weight);
    }
    return;
  }
  for (uint64_t at = 0; at < matrix.tiles * matrix.weight_tile_bytes; ++at) {
    record[matrix.weight + at] = static_cast<uint8_t>(random.next() >> 56);
  }
  for (uint64_t at = 0; at < matrix.tiles * matrix.zero_tile_bytes; ++at) {
    record[matrix.zero + at] = static_cast<uint8_t>(random.next() >> 56);
  }
  for (uint64_t at = 0; at < matrix.tiles * matrix.scale_tile_bytes; at += 2) {
    // A weight of 8 bits is sixteen times as large.
    const auto scale = static_cast<uint16_t>(random.scale() - (quantization.bits == 8 ? 4 << 10 : 0));
    std::memcpy(record + matrix.scale + at, &scale, sizeof scale);
  }
}

}  // namespace

RecordFile Model::file() const { return {shape.layers, shape.experts, layout.record_bytes, layout.fc2_offset, crc32c}; }

const uint8_t* Model::record(uint32_t layer, uint32_t expert) const {
  return bytes.data() + (uint64_t{layer} * shape.experts + expert) * layout.record_bytes;
}

Model make_model(const Shape& shape, uint64_t seed) {
  Model model;
  model.shape = shape;
  model.layout = RecordLayout::make(shape.hidden, shape.intermediate, shape.quantization);
  const uint32_t records = shape.layers * shape.experts;
  model.bytes.resize(records * model.layout.record_bytes);
  Random random(seed);
  for (uint32_t key = 0; key < records; ++key) {
    uint8_t* record = model.bytes.data() + key * model.layout.record_bytes;
    fill_matrix(model.layout.fc1, shape.quantization, record, random);
    fill_matrix(model.layout.fc2, shape.quantization, record, random);
    model.crc32c.push_back(crc32c_table(0, record, model.layout.record_bytes));
  }
  return model;
}

Call make_call(const Shape& shape, uint32_t layer, uint32_t tokens, Random& random) {
  return {layer,
          tokens,
          random.floats(size_t{tokens} * shape.hidden, -2, 2),
          random.floats(size_t{tokens} * shape.experts, -3, 3),
          {}};
}

Call make_call_of(const Shape& shape, uint32_t layer, uint32_t tokens, const std::vector<uint32_t>& experts,
                  Random& random) {
  Call call = make_call(shape, layer, tokens, random);
  for (uint32_t token = 0; token < tokens; ++token) {
    for (const uint32_t expert : experts) call.logits[token * shape.experts + expert] += 10;
  }
  return call;
}

std::vector<Call> make_conversation(const Shape& shape, uint64_t seed) {
  Random random(seed);
  std::vector<Call> calls;
  for (const uint32_t tokens : {29, 1, 1, 1, 1, 11, 1, 3, 8, 1}) {
    for (uint32_t layer = 0; layer < shape.layers; ++layer) calls.push_back(make_call(shape, layer, tokens, random));
  }
  for (size_t i = 0; i + 1 < calls.size(); ++i) {
    if (calls[i].tokens > 1 || calls[i + 1].tokens > 1) continue;
    if (random.below(3)) calls[i].next_logits = random.below(3) ? calls[i + 1].logits : calls[i].logits;
    const bool two = !calls[i].next_logits.empty() && i + 2 < calls.size() && calls[i + 2].tokens == 1;
    if (two && random.below(3)) {
      const std::vector<float>& later = calls[random.below(3) ? i + 2 : i].logits;
      calls[i].next_logits.insert(calls[i].next_logits.end(), later.begin(), later.end());
    }
  }
  return calls;
}

std::vector<double> expected(const Model& model, const Call& call) {
  const Shape& shape = model.shape;
  std::vector<double> result(size_t{call.tokens} * shape.hidden);
  for (uint32_t token = 0; token < call.tokens; ++token) {
    for (const Pick& pick : picks_of(call.logits.data() + token * shape.experts, shape.experts, shape.top_k)) {
      const std::vector<double> output =
          expert_output(model.layout, model.record(call.layer, pick.expert), call.input.data() + token * shape.hidden);
      for (uint32_t i = 0; i < shape.hidden; ++i) result[token * shape.hidden + i] += pick.weight * output[i];
    }
  }
  return result;
}

Machine::Machine(const Model& model, const Settings& settings)
    : disk(std::make_shared<Disk>(model.bytes, model.layout.record_bytes)) {
  CoreOptions options;
  options.top_k = model.shape.top_k;
  options.threads = settings.threads;
  options.readers = settings.readers;
  options.max_tokens = settings.max_tokens;
  options.budget_bytes = settings.budget_bytes == kLeastBudget ? least_budget(model, settings) : settings.budget_bytes;
  options.read_timeout_ms = settings.read_timeout_ms;
  options.prefetch = settings.prefetch;
  auto reads = std::make_unique<ThreadReads>(std::make_unique<DiskSource>(disk), 2 * settings.readers);
  core = std::make_unique<Core>(options, model.layout, model.file(), std::move(reads),
                                settings.isa ? *find_kernels(settings.isa) : best_kernels());
}

uint64_t least_budget(const Model& model, const Settings& settings) {
  Settings with_two_bytes = settings;
  with_two_bytes.budget_bytes = 2;
  try {
    Machine machine(model, with_two_bytes);
  } catch (const CoreError& error) {
    return error.value;
  }
  std::abort();
}

std::vector<float> compute(Core& core, const Shape& shape, const Call& call) {
  std::vector<float> result(size_t{call.tokens} * shape.hidden, -7);
  core.compute(call.layer, call.tokens, call.input.data(), call.logits.data(),
               call.next_logits.empty() ? nullptr : call.next_logits.data(),
               static_cast<uint32_t>(call.next_logits.size() / shape.experts), result.data());
  return result;
}

std::vector<uint32_t> run(Core& core, const Shape& shape, const std::vector<Call>& calls) {
  std::vector<uint32_t> bits;
  for (const Call& call : calls) {
    for (const float value : compute(core, shape, call)) bits.push_back(bits_of(value));
  }
  return bits;
}

void must_return(const std::function<void()>& function) {
  std::promise<void> returned;
  std::thread thread([&] {
    function();
    returned.set_value();
  });
  if (returned.get_future().wait_for(kDeadline) != std::future_status::ready) {
    std::fprintf(stderr, "It hangs: nothing came back for %lld s.\n", static_cast<long long>(kDeadline.count()));
    std::abort();
  }
  thread.join();
}

}  // namespace moedge::test
