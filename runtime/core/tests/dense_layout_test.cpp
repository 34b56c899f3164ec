#include "dense_layout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "dense_model.hpp"
#include "reference.hpp"
#include "tile.hpp"

namespace moedge::test {
namespace {

TEST(DenseLayout, EveryFloat16IsFoundAgain) {
  for (uint32_t wanted = 0; wanted < 0x10000; ++wanted) {
    if ((wanted & 0x7C00) == 0x7C00) continue;  // infinities and NaN
    uint16_t half = 0;
    ASSERT_TRUE(exact_half(static_cast<float>(half_value(static_cast<uint16_t>(wanted))), half)) << wanted;
    ASSERT_EQ(half, wanted);
  }
}

TEST(DenseLayout, WhatIsNoFloat16IsRefused) {
  uint16_t half = 0;
  for (const float value : {0.1F, 65520.0F, 1e10F, INFINITY, NAN, 1e-8F, 0x1p-25F, 1.0F + 0x1p-11F, 0x1.8p-24F}) {
    EXPECT_FALSE(exact_half(value, half)) << value;
  }
}

TEST(DenseLayout, EveryWeightIsWhereTheKernelsLookForIt) {
  Random random(1);
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    for (const bool paired : {false, true}) {
      const uint32_t rows = 74;
      const StoredMatrix from = make_matrix(rows, 70, quantization, false, random);
      MatrixLayout layout;
      const uint32_t tiles = paired ? (rows / 2 + 15) / 16 : (rows + 31) / 32;
      std::vector<uint8_t> to(place_matrix(layout, tiles, from.inputs, quantization, 0));
      const moedge_matrix view = from.view();
      ASSERT_TRUE(pack_matrix({view.weight, view.scale, view.zero_point}, rows, from.inputs, paired, quantization,
                              layout, to.data()));
      for (uint32_t row = 0; row < rows; ++row) {
        const uint32_t pair = row % (rows / 2);
        const uint32_t tile = paired ? pair / 16 : row / 32;
        const uint32_t r = paired ? row / (rows / 2) * 16 + pair % 16 : row % 32;
        for (uint32_t input = 0; input < from.inputs; ++input) {
          const double got =
              weight_at(quantization, to.data() + layout.weight + tile * layout.weight_tile_bytes,
                        reinterpret_cast<const uint16_t*>(to.data() + layout.scale + tile * layout.scale_tile_bytes),
                        to.data() + layout.zero + tile * layout.zero_tile_bytes, r, input);
          ASSERT_EQ(got, from.at(row, input)) << "row " << row << ", input " << input;
        }
      }
    }
  }
}

TEST(DenseLayout, ALayerForeseesAFewOfThoseThatFollowAndHaveExperts) {
  DenseShape shape;
  shape.has_experts = {true, true, true, true, true, true, false, true};
  const std::vector<uint32_t> wanted{MOEDGE_LAYERS_AHEAD, MOEDGE_LAYERS_AHEAD, MOEDGE_LAYERS_AHEAD, 2, 1, 0, 0, 0};
  for (uint32_t layer = 0; layer < shape.layers(); ++layer) EXPECT_EQ(shape.foreseen(layer), wanted[layer]) << layer;
}

TEST(DenseLayout, PartsDoNotOverlap) {
  const DenseShape shape = make_dense_shape({4, 32, false}, 100, 6, 2, 24, 40);
  const DenseLayout layout = DenseLayout::make(shape);
  uint64_t end = 0;
  const auto matrix = [&](const MatrixLayout& place, bool present) {
    if (!present) return;
    EXPECT_GE(place.weight, end);
    EXPECT_EQ(place.weight % kSectionAlignment, 0U);
    end = std::max(place.weight, place.zero) + 1;
  };
  for (uint32_t index = 0; index < shape.layers(); ++index) {
    const DenseLayerLayout& layer = layout.layers[index];
    EXPECT_GE(layer.input_norm, end);
    EXPECT_GE(layer.query_norm, layer.input_norm + shape.hidden * 4);
    EXPECT_GE(layer.post_norm, layer.key_norm + shape.head_dim * 4);
    end = layer.post_norm + shape.hidden * 4;
    matrix(layer.qkv, true);
    matrix(layer.output, true);
    matrix(layer.router, shape.has_experts[index]);
    matrix(layer.next_router, shape.guesses(index));
    matrix(layer.gate_up, !shape.has_experts[index]);
    matrix(layer.down, !shape.has_experts[index]);
  }
  EXPECT_GE(layout.head_norm, end);
  EXPECT_GT(layout.bytes, layout.head.zero);
}

}  // namespace
}  // namespace moedge::test
