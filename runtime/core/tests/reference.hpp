// What the core must compute, in double precision and from the text of docs/bundle-format.md alone.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace moedge::test {

// IEEE binary16.
double half_value(uint16_t half);

// The weight of `row` (0 to 31, half by half) of a tile at `input`; the pointers are to the tile's own bytes.
double weight_at(const Quantization& quantization, const uint8_t* weight, const uint16_t* scale, const uint8_t* zero,
                 uint32_t row, uint32_t input);

// fc2 · (silu(gate) * up) of one expert; `x` has layout.hidden values.
std::vector<double> expert_output(const RecordLayout& layout, const uint8_t* record, const float* x);

struct Pick {
  uint32_t expert;
  double weight;
};

// The top_k experts of one token by the definition: softmax over all, the largest, renormalised; ascending experts.
std::vector<Pick> picks_of(const float* logits, uint32_t experts, uint32_t top_k);

}  // namespace moedge::test
