#include "kernels.hpp"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "reference.hpp"
#include "sample.hpp"

namespace moedge::test {
namespace {

enum class Weights { kArbitrary, kAllZero, kAllLargest, kLowNibbles, kHighNibbles };
enum class Scales { kArbitrary, kLargest, kZero, kSubnormal, kNegative };
enum class Inputs { kArbitrary, kLargest, kSubnormal, kZero, kOneOfMany };

constexpr Weights kAllWeights[] = {Weights::kArbitrary, Weights::kAllZero, Weights::kAllLargest, Weights::kLowNibbles,
                                   Weights::kHighNibbles};
constexpr Scales kAllScales[] = {Scales::kArbitrary, Scales::kLargest, Scales::kZero, Scales::kSubnormal,
                                 Scales::kNegative};
constexpr Inputs kAllInputs[] = {Inputs::kArbitrary, Inputs::kLargest, Inputs::kSubnormal, Inputs::kZero,
                                 Inputs::kOneOfMany};

// NaN of any kind is the same: the processor chooses its sign and payload.
uint32_t canonical(float value) { return std::isnan(value) ? 0x7FC00000U : bits_of(value); }

// As the core does: what a stored integer stands for, less what the kernel subtracts by itself.
int32_t correction_factor(const Quantization& quantization, const Kernels& kernels) {
  if (quantization.bits == 32 || !quantization.symmetric) return 1;
  return -(quantization.middle() - (quantization.bits == 8 ? kernels.bias8 : 0));
}

// One tile, each part in an allocation of exactly its size, so that ASan sees a kernel that reads beyond.
struct Tile {
  Quantization quantization;
  uint32_t blocks = 0;  // inputs at 32 bits
  std::vector<uint8_t> weight;
  std::vector<uint16_t> scale;
  std::vector<uint8_t> zero;

  uint32_t inputs() const { return quantization.bits == 32 ? blocks : blocks * quantization.block; }

  double weight_at(uint32_t row, uint32_t input) const {
    return test::weight_at(quantization, weight.data(), scale.data(), zero.data(), row, input);
  }
};

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

// Activation rows as `kernels` want them, each in an allocation of its own.
std::vector<std::vector<uint8_t>> make_rows(const Tile& tile, const std::vector<std::vector<float>>& x,
                                            const Kernels& kernels) {
  std::vector<std::vector<uint8_t>> rows;
  for (const std::vector<float>& values : x) {
    std::vector<uint8_t> row(activation_row_bytes(tile.inputs(), tile.quantization));
    if (tile.quantization.bits == 32) {
      std::memcpy(row.data(), values.data(), row.size());
    } else {
      EXPECT_TRUE(kernels.quantize(values.data(), tile.inputs(), tile.quantization.block,
                                   correction_factor(tile.quantization, kernels), row.data()));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// float [rows, 32], all rows in one call.
std::vector<float> multiply(const Kernels& kernels, const Tile& tile, const std::vector<std::vector<uint8_t>>& rows) {
  std::vector<const uint8_t*> x;
  for (const std::vector<uint8_t>& row : rows) x.push_back(row.data());
  std::vector<float> out(rows.size() * kTileRows, -7);
  const Quantization& quantization = tile.quantization;
  kernels.tile(quantization.bits, quantization.block, quantization.symmetric, static_cast<uint32_t>(rows.size()))(
      tile.weight.data(), tile.scale.data(), quantization.symmetric ? tile.weight.data() : tile.zero.data(),
      tile.blocks, x.data(), out.data());
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

// --- every instruction set against scalar ----------------------------------------------------------------------------

class InstructionSet : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = find_kernels(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  }

  const Kernels* kernels_ = nullptr;
  const Kernels& scalar_ = scalar_kernels();
};

INSTANTIATE_TEST_SUITE_P(All, InstructionSet, testing::Values("scalar", "avx2", "avx512vnni", "neondot"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(InstructionSet, TilesEqualScalarBitForBitAtEveryRowCount) {
  Random random(3);
  uint32_t turn = 0;
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    for (const uint32_t blocks : {1, 2, 3, 7}) {
      for (const Weights weights : kAllWeights) {
        for (const Scales scales : kAllScales) {
          for (const Inputs inputs : kAllInputs) {
            if (kFewerCases && ++turn % 13 != 0) continue;
            const Tile tile = make_tile(quantization, blocks, weights, scales, random);
            std::vector<std::vector<float>> x;
            for (uint32_t row = 0; row < kernels_->max_rows; ++row) {
              x.push_back(make_inputs(tile.inputs(), row % 2 ? Inputs::kArbitrary : inputs, random));
            }
            const auto scalar_rows = make_rows(tile, x, scalar_);
            std::vector<float> wanted;
            for (const auto& row : scalar_rows) {
              for (const float value : multiply(scalar_, tile, {row})) wanted.push_back(value);
            }
            const auto all_rows = make_rows(tile, x, *kernels_);
            for (uint32_t count = 1; count <= kernels_->max_rows; ++count) {
              const std::vector<float> got = multiply(*kernels_, tile, {all_rows.begin(), all_rows.begin() + count});
              for (size_t i = 0; i < got.size(); ++i) {
                ASSERT_EQ(canonical(got[i]), canonical(wanted[i]))
                    << got[i] << " is not " << wanted[i] << ": " << count << " rows of " << blocks << " blocks, row "
                    << i / kTileRows << ", output " << i % kTileRows << ", weights " << int(weights) << ", scales "
                    << int(scales) << ", inputs " << int(inputs);
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(InstructionSet, QuantizesAsScalarDoesAndNotBeyondTheRow) {
  Random random(4);
  for (const uint32_t block : {32, 64, 128}) {
    for (uint32_t count = 1; count <= 2 * block + 3; count += kFewerCases ? 7 : 1) {
      for (const Inputs inputs : kAllInputs) {
        const std::vector<float> x = make_inputs(count, inputs, random);
        const size_t size = activation_row_bytes(count, {8, block, true});
        std::vector<uint8_t> got(size, 0xA5);
        std::vector<uint8_t> wanted(size, 0x5A);
        ASSERT_TRUE(kernels_->quantize(x.data(), count, block, -8, got.data()));
        ASSERT_TRUE(scalar_.quantize(x.data(), count, block, -8, wanted.data()));
        ASSERT_EQ(got, wanted) << count << " inputs, blocks of " << block << ", inputs " << int(inputs);
      }
    }
  }
}

TEST_P(InstructionSet, QuantizeRefusesInfinityAndNaNWhereverTheyAre) {
  for (const uint32_t count : {1, 31, 32, 33, 100}) {
    for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
      for (uint32_t at = 0; at < count; ++at) {
        std::vector<float> x(count, 1.5F);
        x[at] = bad;
        std::vector<uint8_t> row(activation_row_bytes(count, {8, 32, true}));
        ASSERT_FALSE(kernels_->quantize(x.data(), count, 32, 1, row.data())) << bad << " at " << at << " of " << count;
      }
    }
  }
}

TEST_P(InstructionSet, SwigluEqualsScalarBitForBit) {
  Random random(5);
  for (int turn = 0; turn < (kFewerCases ? 200 : 20000); ++turn) {
    const float width = turn % 5 == 0 ? 1e-3F : turn % 5 == 1 ? 100.0F : turn % 5 == 2 ? 1e38F : 8.0F;
    const std::vector<float> x = random.floats(32, -width, width);
    std::vector<float> got(16);
    std::vector<float> wanted(16);
    kernels_->swiglu(x.data(), got.data());
    scalar_.swiglu(x.data(), wanted.data());
    for (int i = 0; i < 16; ++i) ASSERT_EQ(canonical(got[i]), canonical(wanted[i])) << x[i] << ", " << x[16 + i];
  }
}

TEST_P(InstructionSet, AccumulateIsOneFusedMultiplyAddForEachValueAndNotBeyond) {
  Random random(6);
  for (uint32_t count = 0; count < 70; ++count) {
    const float weight = random.between(0, 1);
    const std::vector<float> x = random.floats(count, -2, 2);
    const std::vector<float> before = random.floats(count, -2, 2);
    std::vector<float> got = before;
    kernels_->accumulate(weight, x.data(), count, got.data());
    for (uint32_t i = 0; i < count; ++i) ASSERT_EQ(bits_of(got[i]), bits_of(std::fma(weight, x[i], before[i])));
  }
}

// The constant is what the scalar kernels gave on x86-64 when the layout of records and the rounding were last changed.
TEST_P(InstructionSet, GivesTheSameBitsOnEveryArchitecture) {
  Random random(7);
  uint32_t crc = 0;
  const auto add = [&crc](const auto& values) {
    crc = crc32c_table(crc, reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof values[0]);
  };
  for (const Quantization& quantization : all_quantizations()) {
    const Tile tile = make_tile(quantization, 5, Weights::kArbitrary, Scales::kArbitrary, random);
    const auto rows = make_rows(tile, {make_inputs(tile.inputs(), Inputs::kArbitrary, random)}, *kernels_);
    const std::vector<float> out = multiply(*kernels_, tile, rows);
    add(out);
    std::vector<float> activated(16);
    kernels_->swiglu(out.data(), activated.data());
    add(activated);
    kernels_->accumulate(0.3F, out.data(), 16, activated.data());
    add(activated);
  }
  EXPECT_EQ(crc, 0x255B9E3BU);
}

// --- scalar against double precision ---------------------------------------------------------------------------------

float scale_of(const std::vector<uint8_t>& row, uint32_t block, uint32_t index) {
  float scale;
  std::memcpy(&scale, row.data() + index * (block + 8) + block, sizeof scale);
  return scale;
}

TEST(Scalar, QuantizesToTheNearestStepWithTheLargestValueAtMinus128) {
  Random random(8);
  for (const uint32_t block : {32, 64, 128}) {
    for (const uint32_t count : {1U, block - 1, block, block + 1, 3 * block + 5}) {
      const std::vector<float> x = random.floats(count, -5, 5);
      std::vector<uint8_t> row(activation_row_bytes(count, {8, block, true}));
      ASSERT_TRUE(scalar_kernels().quantize(x.data(), count, block, -3, row.data()));
      for (uint32_t start = 0; start < count; start += block) {
        const uint32_t index = start / block;
        const uint32_t size = std::min(block, count - start);
        float largest = 0;
        for (uint32_t i = 0; i < size; ++i) {
          if (std::abs(x[start + i]) > std::abs(largest)) largest = x[start + i];
        }
        const float scale = scale_of(row, block, index);
        EXPECT_EQ(scale, largest / -128);
        const auto* q = reinterpret_cast<const int8_t*>(row.data() + index * (block + 8));
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
        int32_t correction;
        std::memcpy(&correction, row.data() + index * (block + 8) + block + 4, sizeof correction);
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
          const double step = scale_of(rows[0], block, input / block);
          const auto q = static_cast<int8_t>(rows[0][input / block * (block + 8) + input % block]);
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
