#include "tile.hpp"

#include <gtest/gtest.h>

#include <cfloat>
#include <cstring>

#include "reference.hpp"

namespace moedge::test {
namespace {

// As the core does: what a stored integer stands for, less what the kernel subtracts by itself.
int32_t correction_factor(const Quantization& quantization, const Kernels& kernels) {
  if (quantization.bits == 32 || !quantization.symmetric) return 1;
  return -(quantization.middle() - (quantization.bits == 8 ? kernels.bias8 : 0));
}

}  // namespace

double Tile::weight_at(uint32_t row, uint32_t input) const {
  return test::weight_at(quantization, weight.data(), scale.data(), zero.data(), row, input);
}

Tile make_tile(const Quantization& quantization, uint32_t blocks, Weights weights, Scales scales, Random& random) {
  Tile tile{quantization, blocks, {}, {}, {}};
  if (quantization.bits == 32) {
    for (uint32_t i = 0; i < blocks * kTileRows; ++i) {
      const float value = weights == Weights::kAllZero      ? 0.0F
                          : weights == Weights::kAllLargest ? FLT_MAX
                          : weights == Weights::kLowNibbles ? random.between(-1, 1) * FLT_MIN
                                                            : random.between(-1, 1);
      const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
      tile.weight.insert(tile.weight.end(), bytes, bytes + sizeof value);
    }
    return tile;
  }
  tile.weight.resize(size_t{blocks} * kTileRows * quantization.block * quantization.bits / 8);
  random.fill(tile.weight);
  if (weights == Weights::kAllZero) tile.weight.assign(tile.weight.size(), 0);
  if (weights == Weights::kAllLargest) tile.weight.assign(tile.weight.size(), 0xFF);
  if (weights == Weights::kLowNibbles) tile.weight.assign(tile.weight.size(), 0x0F);
  if (weights == Weights::kHighNibbles) tile.weight.assign(tile.weight.size(), 0xF0);
  for (uint32_t i = 0; i < blocks * kTileRows; ++i) {
    const uint16_t arbitrary = random.scale();
    tile.scale.push_back(scales == Scales::kLargest     ? 0x7BFF
                         : scales == Scales::kZero      ? 0
                         : scales == Scales::kSubnormal ? arbitrary & 0x3FF
                         : scales == Scales::kNegative  ? arbitrary | 0x8000
                                                        : arbitrary);
  }
  if (!quantization.symmetric) {
    tile.zero.resize(size_t{blocks} * kTileRows * quantization.bits / 8);
    random.fill(tile.zero);
    if (weights == Weights::kAllZero) tile.zero.assign(tile.zero.size(), 0xFF);
    if (weights == Weights::kAllLargest) tile.zero.assign(tile.zero.size(), 0);
  }
  return tile;
}

std::vector<float> make_inputs(uint32_t count, Inputs inputs, Random& random) {
  std::vector<float> x = random.floats(count, -3, 3);
  for (float& value : x) {
    if (inputs == Inputs::kLargest) value = value < 0 ? -FLT_MAX : FLT_MAX;
    if (inputs == Inputs::kSubnormal) value *= 1e-39F;
    if (inputs == Inputs::kZero) value = value < 0 ? -0.0F : 0.0F;
    if (inputs == Inputs::kOneOfMany) value = 0;
  }
  if (inputs == Inputs::kOneOfMany) x[random.below(count)] = -1234.5F;
  return x;
}

std::vector<std::vector<uint8_t>> make_rows(const Tile& tile, const std::vector<std::vector<float>>& x,
                                            const Kernels& kernels) {
  std::vector<std::vector<uint8_t>> rows;
  for (const std::vector<float>& values : x) {
    std::vector<uint8_t> row(activation_row_bytes(tile.inputs(), tile.quantization));
    if (tile.quantization.bits == 32) {
      std::memcpy(row.data(), values.data(), row.size());
    } else {
      EXPECT_TRUE(kernels.quantize(values.data(), tile.inputs(), tile.quantization.block,
                                   correction_factor(tile.quantization, kernels), row.data(),
                                   row.data() + terms_offset(tile.inputs(), tile.quantization.block)));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<float> multiply(const Kernels& kernels, const Tile& tile, const std::vector<std::vector<uint8_t>>& rows) {
  std::vector<const uint8_t*> x;
  for (const std::vector<uint8_t>& row : rows) x.push_back(row.data());
  return multiply_at(kernels, tile, x);
}

std::vector<float> multiply_at(const Kernels& kernels, const Tile& tile, const std::vector<const uint8_t*>& rows) {
  std::vector<float> out(rows.size() * kTileRows, -7);
  const Quantization& quantization = tile.quantization;
  kernels.tile(quantization.bits, quantization.block, quantization.symmetric, static_cast<uint32_t>(rows.size()))(
      tile.weight.data(), tile.scale.data(), quantization.symmetric ? tile.weight.data() : tile.zero.data(),
      tile.blocks, rows.data(), out.data());
  return out;
}

std::vector<Quantization> all_quantizations() {
  std::vector<Quantization> all;
  for (const uint32_t bits : {4, 8}) {
    for (const uint32_t block : {32, 64, 128}) {
      for (const bool symmetric : {true, false}) all.push_back({bits, block, symmetric});
    }
  }
  all.push_back({32, 32, true});
  return all;
}

std::string name_of(const Quantization& quantization) {
  return std::to_string(quantization.bits) + " bits, blocks of " + std::to_string(quantization.block) +
         (quantization.symmetric ? ", symmetric" : ", asymmetric");
}

}  // namespace moedge::test
