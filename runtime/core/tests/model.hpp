// A small model of arbitrary weights: its file, its calls, and a core that runs it from a Disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core.hpp"
#include "disk.hpp"
#include "layout.hpp"
#include "pager.hpp"

namespace moedge::test {

struct Shape {
  uint32_t layers = 3;
  uint32_t experts = 10;
  uint32_t top_k = 3;
  // Neither is a multiple of a block or of a tile.
  uint32_t hidden = 100;
  uint32_t intermediate = 72;
  Quantization quantization{4, 32, false};
};

struct Model {
  Shape shape;
  RecordLayout layout;
  std::vector<uint8_t> bytes;  // of experts.bin
  std::vector<uint32_t> crc32c;

  RecordFile file() const;
  const uint8_t* record(uint32_t layer, uint32_t expert) const;
};

// Weights are arbitrary, padding included; scales are such that outputs are about as large as inputs.
Model make_model(const Shape& shape, uint64_t seed = 1);

// One call of compute.
struct Call {
  uint32_t layer = 0;
  uint32_t tokens = 0;
  std::vector<float> input;
  std::vector<float> logits;
  std::vector<float> next_logits;  // of one token, [layers ahead, experts]; may be empty
};

Call make_call(const Shape& shape, uint32_t layer, uint32_t tokens, Random& random);
// A call whose tokens all choose exactly these experts, as many as top_k.
Call make_call_of(const Shape& shape, uint32_t layer, uint32_t tokens, const std::vector<uint32_t>& experts,
                  Random& random);
// A prefill, some decoding, a second question, decoding of several tokens: all layers each time. Some tokens foresee
// the experts of the next layer or two, some are wrong about them.
std::vector<Call> make_conversation(const Shape& shape, uint64_t seed = 2);

// What compute must give for the call, in double precision with float activations.
std::vector<double> expected(const Model& model, const Call& call);

constexpr uint64_t kRoomForAll = 0;
constexpr uint64_t kLeastBudget = 1;  // stands for the least that the core accepts

struct Settings {
  uint64_t budget_bytes = kRoomForAll;
  uint32_t threads = 2;
  uint32_t readers = 2;
  bool prefetch = true;
  uint64_t read_timeout_ms = 0;
  const char* isa = nullptr;
  uint32_t max_tokens = 40;
};

// A core and the disk that it reads from.
struct Machine {
  std::shared_ptr<Disk> disk;
  std::unique_ptr<Core> core;

  Machine(const Model& model, const Settings& settings);
};

// The least budget with these settings, from the error that says so.
uint64_t least_budget(const Model& model, const Settings& settings);

// The result of a call; throws CoreError.
std::vector<float> compute(Core& core, const Shape& shape, const Call& call);

// The results of all calls in a row, as bits.
std::vector<uint32_t> run(Core& core, const Shape& shape, const std::vector<Call>& calls);

// Runs `function` in a thread of its own; ends the test program if it has not returned after kDeadline.
void must_return(const std::function<void()>& function);

}  // namespace moedge::test
