#include "layout.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace moedge::test {
namespace {

TEST(Layout, AnExpertOfQwen3Vl30bA3bTakes2654208BytesAtFourBits) {
  const auto layout = RecordLayout::make(2048, 768, {4, 32, true});
  EXPECT_EQ(layout.record_bytes, 2'654'208U);
  EXPECT_EQ(layout.fc1.tiles, 48U);
  EXPECT_EQ(layout.fc1.blocks, 64U);
  EXPECT_EQ(layout.fc1.weight, 0U);
  EXPECT_EQ(layout.fc1.weight_tile_bytes, 32'768U);
  EXPECT_EQ(layout.fc1.scale, 1'572'864U);
  EXPECT_EQ(layout.fc1.scale_tile_bytes, 4'096U);
  EXPECT_EQ(layout.fc2_offset, 1'769'472U);
  EXPECT_EQ(layout.fc2.tiles, 64U);
  EXPECT_EQ(layout.fc2.blocks, 24U);
  EXPECT_EQ(layout.fc2.weight, layout.fc2_offset);
  EXPECT_EQ(layout.fc2.scale, 2'555'904U);
}

TEST(Layout, ZeroPointsComeAfterTheScalesOfTheirMatrix) {
  const auto layout = RecordLayout::make(2048, 768, {4, 32, false});
  EXPECT_EQ(layout.fc1.zero, 1'769'472U);
  EXPECT_EQ(layout.fc1.zero_tile_bytes, 1'024U);
  EXPECT_EQ(layout.fc2_offset, 1'769'472U + 49'152U);
  EXPECT_EQ(layout.fc2.zero, layout.fc2.scale + 98'304U);
  EXPECT_EQ(layout.record_bytes, layout.fc2.zero + 24'576U);
}

TEST(Layout, ThirtyTwoBitsHaveWeightsOnly) {
  const auto layout = RecordLayout::make(100, 20, {32, 32, true});
  EXPECT_EQ(layout.fc1.tiles, 2U);
  EXPECT_EQ(layout.fc1.blocks, 100U);
  EXPECT_EQ(layout.fc1.weight_tile_bytes, 12'800U);
  EXPECT_EQ(layout.fc2_offset, 28'672U);
  EXPECT_EQ(layout.fc2.tiles, 4U);
  EXPECT_EQ(layout.record_bytes, 28'672U + 12'288U);
}

// By the table in docs/bundle-format.md.
TEST(Layout, SectionsOfOddShapesFollowEachOtherOnMultiplesOf4096) {
  const auto divide_up = [](uint64_t value, uint64_t by) { return (value + by - 1) / by; };
  for (const uint32_t hidden : {1U, 31U, 32U, 33U, 100U, 129U, 2048U}) {
    for (const uint32_t intermediate : {1U, 15U, 16U, 17U, 72U, 768U}) {
      for (const uint32_t bits : {4U, 8U}) {
        for (const uint32_t block : {32U, 64U, 128U}) {
          for (const bool symmetric : {true, false}) {
            const auto layout = RecordLayout::make(hidden, intermediate, {bits, block, symmetric});
            uint64_t at = 0;
            const auto section = [&](uint64_t offset, uint64_t tile_bytes, uint64_t tiles, uint64_t wanted_tile_bytes) {
              EXPECT_EQ(offset, at);
              EXPECT_EQ(tile_bytes, wanted_tile_bytes);
              at += divide_up(tiles * wanted_tile_bytes, 4096) * 4096;
            };
            for (const bool second : {false, true}) {
              const MatrixLayout& matrix = second ? layout.fc2 : layout.fc1;
              const uint64_t tiles = second ? divide_up(hidden, 32) : divide_up(intermediate, 16);
              const uint64_t blocks = divide_up(second ? intermediate : hidden, block);
              EXPECT_EQ(matrix.tiles, tiles);
              EXPECT_EQ(matrix.blocks, blocks);
              if (second) {
                EXPECT_EQ(layout.fc2_offset, at);
              }
              section(matrix.weight, matrix.weight_tile_bytes, tiles, blocks * 32 * block * bits / 8);
              section(matrix.scale, matrix.scale_tile_bytes, tiles, blocks * 64);
              if (!symmetric) section(matrix.zero, matrix.zero_tile_bytes, tiles, blocks * 32 * bits / 8);
            }
            EXPECT_EQ(layout.record_bytes, at);
          }
        }
      }
    }
  }
}

TEST(Layout, ActivationRowsHaveWholeBlocksThenTheirTermsAndEndWithACacheLine) {
  EXPECT_EQ(activation_row_bytes(100, {4, 32, true}), 192U);
  EXPECT_EQ(terms_offset(100, 32), 128U);
  EXPECT_EQ(activation_row_bytes(128, {8, 128, false}), 192U);
  EXPECT_EQ(activation_row_bytes(129, {8, 128, false}), 320U);
  EXPECT_EQ(terms_offset(129, 128), 256U);
  EXPECT_EQ(activation_row_bytes(100, {32, 32, true}), 400U);
}

TEST(Layout, TheLargestShapeThatTheInterfaceAcceptsDoesNotOverflow) {
  const uint32_t most = 1 << 20;
  const auto layout = RecordLayout::make(most, most, {32, 32, true});
  EXPECT_EQ(layout.record_bytes, 12ULL << 40);
}

}  // namespace
}  // namespace moedge::test
