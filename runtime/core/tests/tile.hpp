// One tile of arbitrary or extreme weights, activation rows for it, and the product of both by any kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "layout.hpp"
#include "sample.hpp"

namespace moedge::test {

enum class Weights { kArbitrary, kAllZero, kAllLargest, kLowNibbles, kHighNibbles };
enum class Scales { kArbitrary, kLargest, kZero, kSubnormal, kNegative };
enum class Inputs { kArbitrary, kLargest, kSubnormal, kZero, kOneOfMany };

constexpr Weights kAllWeights[] = {Weights::kArbitrary, Weights::kAllZero, Weights::kAllLargest, Weights::kLowNibbles,
                                   Weights::kHighNibbles};
constexpr Scales kAllScales[] = {Scales::kArbitrary, Scales::kLargest, Scales::kZero, Scales::kSubnormal,
                                 Scales::kNegative};
constexpr Inputs kAllInputs[] = {Inputs::kArbitrary, Inputs::kLargest, Inputs::kSubnormal, Inputs::kZero,
                                 Inputs::kOneOfMany};

// One tile, each part in an allocation of exactly its size, so that ASan sees a kernel that reads beyond.
struct Tile {
  Quantization quantization;
  uint32_t blocks = 0;  // inputs at 32 bits
  std::vector<uint8_t> weight;
  std::vector<uint16_t> scale;
  std::vector<uint8_t> zero;

  uint32_t inputs() const { return quantization.bits == 32 ? blocks : blocks * quantization.block; }
  double weight_at(uint32_t row, uint32_t input) const;
};

Tile make_tile(const Quantization& quantization, uint32_t blocks, Weights weights, Scales scales, Random& random);
std::vector<float> make_inputs(uint32_t count, Inputs inputs, Random& random);

// Activation rows as `kernels` want them, each in an allocation of its own.
std::vector<std::vector<uint8_t>> make_rows(const Tile& tile, const std::vector<std::vector<float>>& x,
                                            const Kernels& kernels);

// float [rows, 32], all rows in one call.
std::vector<float> multiply(const Kernels& kernels, const Tile& tile, const std::vector<std::vector<uint8_t>>& rows);
std::vector<float> multiply_at(const Kernels& kernels, const Tile& tile, const std::vector<const uint8_t*>& rows);

std::vector<Quantization> all_quantizations();
std::string name_of(const Quantization& quantization);

}  // namespace moedge::test
