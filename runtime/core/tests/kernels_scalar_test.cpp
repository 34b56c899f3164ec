// The scalar kernels against double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.hpp"
#include "layout.hpp"
#include "sample.hpp"
#include "tile.hpp"

namespace moedge::test {
namespace {

struct Terms {
  float scale;
  int32_t correction;
};

Terms terms_of(const std::vector<uint8_t>& row, uint32_t inputs, uint32_t block, uint32_t index) {
  Terms terms;
  std::memcpy(&terms, row.data() + terms_offset(inputs, block) + index * kTermBytes, sizeof terms);
  return terms;
}

TEST(Scalar, QuantizesToTheNearestStepWithTheLargestValueAtMinus128) {
  Random random(8);
  for (const uint32_t block : {32, 64, 128}) {
    for (const uint32_t count : {1U, block - 1, block, block + 1, 3 * block + 5}) {
      const std::vector<float> x = random.floats(count, -5, 5);
      std::vector<uint8_t> row(activation_row_bytes(count, {8, block, true}));
      ASSERT_TRUE(
          scalar_kernels().quantize(x.data(), count, block, -3, row.data(), row.data() + terms_offset(count, block)));
      for (uint32_t start = 0; start < count; start += block) {
        const uint32_t index = start / block;
        const uint32_t size = std::min(block, count - start);
        float largest = 0;
        for (uint32_t i = 0; i < size; ++i) {
          if (std::abs(x[start + i]) > std::abs(largest)) largest = x[start + i];
        }
        const auto [scale, correction] = terms_of(row, count, block, index);
        EXPECT_EQ(scale, largest / -128);
        const auto* q = reinterpret_cast<const int8_t*>(row.data() + start);
        int32_t sum = 0;
        int32_t lowest_q = 0;
        for (uint32_t i = 0; i < block; ++i) {
          sum += q[i];
          lowest_q = std::min<int32_t>(lowest_q, q[i]);
          if (i >= size) {
            EXPECT_EQ(q[i], 0) << "a value that the block lacks";
          }
          // The product with the inverse is rounded once before it is rounded to an integer; 127 is the end.
          if (i < size) {
            EXPECT_LE(std::abs(x[start + i] - double{scale} * q[i]), std::abs(scale) * (q[i] == 127 ? 1.0 : 0.50002));
          }
        }
        EXPECT_EQ(lowest_q, -128);
        EXPECT_EQ(correction, -3 * sum);
      }
    }
  }
}

TEST(Scalar, TilesAreWithinTheErrorOfInt8ActivationsOfTheExactProduct) {
  Random random(9);
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    for (const uint32_t blocks : {1, 3, 24}) {
      const Tile tile = make_tile(quantization, blocks, Weights::kArbitrary, Scales::kArbitrary, random);
      const std::vector<float> x = make_inputs(tile.inputs(), Inputs::kArbitrary, random);
      const auto rows = make_rows(tile, {x}, scalar_kernels());
      const std::vector<float> out = multiply(scalar_kernels(), tile, rows);
      for (uint32_t row = 0; row < kTileRows; ++row) {
        double exact = 0;         // of the activations
        double of_quantized = 0;  // of what they were rounded to
        double magnitude = 0;
        double int8_error = 0;
        for (uint32_t input = 0; input < tile.inputs(); ++input) {
          const double weight = tile.weight_at(row, input);
          exact += weight * x[input];
          magnitude += std::abs(weight * x[input]);
          if (quantization.bits == 32) continue;
          const uint32_t block = quantization.block;
          const double step = terms_of(rows[0], tile.inputs(), block, input / block).scale;
          const auto q = static_cast<int8_t>(rows[0][input]);
          of_quantized += weight * step * q;
          int8_error += std::abs(weight * step) * (q == 127 ? 1.0 : 0.50002);
        }
        // One rounding of the two scales and one of the sum for each block; one for each input at 32 bits.
        const double float_error = (tile.blocks + 2) * 0x1p-23 * magnitude;
        if (quantization.bits == 32) {
          ASSERT_NEAR(out[row], exact, float_error);
        } else {
          ASSERT_NEAR(out[row], of_quantized, float_error);
          ASSERT_NEAR(out[row], exact, int8_error + float_error);
        }
      }
    }
  }
}

TEST(Scalar, SwigluIsWithinAMillionthOfTheExactValue) {
  Random random(10);
  for (int turn = 0; turn < (kFewerCases ? 500 : 20000); ++turn) {
    const float width = turn % 3 == 0 ? 1.0F : turn % 3 == 1 ? 20.0F : 85.0F;
    const std::vector<float> x = random.floats(32, -width, width);
    std::vector<float> out(16);
    scalar_kernels().swiglu(x.data(), out.data());
    for (int i = 0; i < 16; ++i) {
      const double exact = x[i] / (1 + std::exp(-double{x[i]})) * x[16 + i];
      ASSERT_NEAR(out[i], exact, std::abs(exact) * 1e-6 + 1e-36) << x[i];
    }
  }
}

TEST(Scalar, SwigluIsZeroOrTheProductFarFromZero) {
  std::vector<float> x(32, 2.0F);
  const float far[] = {-1e4F, -300.0F, -89.0F, 89.0F, 300.0F, 1e4F, 1e30F, -1e30F, 0.0F, -0.0F};
  std::copy(std::begin(far), std::end(far), x.begin());
  std::vector<float> out(16);
  scalar_kernels().swiglu(x.data(), out.data());
  for (size_t i = 0; i < std::size(far); ++i) {
    if (far[i] > 0) {
      EXPECT_EQ(out[i], far[i] * 2);
    }
    if (far[i] <= 0) {
      EXPECT_NEAR(out[i], 0, std::abs(far[i]) * 1e-37);
    }
  }
}

}  // namespace
}  // namespace moedge::test
