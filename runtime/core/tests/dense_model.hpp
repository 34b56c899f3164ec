// Dense layers of arbitrary weights as a graph has them, and what they must compute, in double precision.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dense.hpp"
#include "dense_layout.hpp"
#include "sample.hpp"

namespace moedge::test {

// A matrix in the graph's layout, each part in an allocation of exactly its size.
struct StoredMatrix {
  uint32_t rows = 0;
  uint32_t inputs = 0;
  Quantization quantization;
  std::vector<float> floats;  // at 32 bits
  std::vector<uint8_t> weight;
  std::vector<float> scale;
  std::vector<uint8_t> zero_point;
  std::vector<float> bias;

  double at(uint32_t row, uint32_t input) const;
  std::vector<double> times(const std::vector<double>& x) const;
  moedge_matrix view() const;
};

StoredMatrix make_matrix(uint32_t rows, uint32_t inputs, const Quantization& quantization, bool biased, Random& random);

// Root mean square of the error, relative to that of what was expected.
double relative_error(const std::vector<float>& got, const std::vector<double>& wanted);

struct StoredLayer {
  std::vector<float> input_norm, query_norm, key_norm, post_norm, next_norm;
  StoredMatrix qkv, output, router, next_router, gate_up, down;

  moedge_dense_weights view() const;
};

struct DenseModel {
  DenseShape shape;
  float epsilon = 1e-6F;
  std::vector<StoredLayer> layers;
  std::vector<float> head_norm;
  StoredMatrix head;
};

// Three layers with experts and, if `intermediate` is not 0, one without behind them.
DenseShape make_dense_shape(const Quantization& quantization, uint32_t hidden = 100, uint32_t heads = 6,
                            uint32_t kv_heads = 2, uint32_t head_dim = 24, uint32_t intermediate = 0);
DenseModel make_dense_model(const DenseShape& shape, uint64_t seed = 1);

// What outputs hold before a call.
constexpr float kUntouched = -7;

// A cache, and the outputs of the last call.
struct DenseState {
  uint32_t slots;
  std::vector<float> keys, values;  // [kv_heads, slots, head_dim]
  std::vector<float> residual, moe_input, router_logits, next_router_logits;

  DenseState(const DenseShape& shape, uint32_t slots);
};

// Inputs of some tokens.
struct DenseInput {
  uint32_t tokens;
  std::vector<float> hidden, cos, sin;
};

DenseInput make_dense_input(const DenseShape& shape, uint32_t tokens, Random& random);
// Tokens `begin` to `end` of it.
DenseInput part_of(const DenseShape& shape, const DenseInput& input, uint32_t begin, uint32_t end);

// Dense layers that hold the model.
std::unique_ptr<Dense> open_dense(const DenseModel& model, uint32_t max_tokens, uint32_t slots, uint32_t threads,
                                  const Kernels& kernels);

// Runs a layer on tokens that follow `past` others; fills the state's outputs.
void run(Dense& dense, uint32_t layer, uint32_t past, const DenseInput& input, DenseState& state);

struct DenseExpectation {
  std::vector<double> residual, router_logits, next_router_logits, keys, values;  // keys, values: [tokens, …]
};

// What a layer must give for tokens that come first.
DenseExpectation expected(const DenseModel& model, uint32_t layer, const DenseInput& input);
std::vector<double> expected_logits(const DenseModel& model, const std::vector<float>& hidden);

}  // namespace moedge::test
