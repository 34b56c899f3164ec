// Every instruction set against the scalar kernels, bit by bit.
#include "kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "sample.hpp"
#include "tile.hpp"

namespace moedge::test {
namespace {

// NaN of any kind is the same: the processor chooses its sign and payload.
uint32_t canonical(float value) { return std::isnan(value) ? 0x7FC00000U : bits_of(value); }

class InstructionSet : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = find_kernels(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  }

  const Kernels* kernels_ = nullptr;
  const Kernels& scalar_ = scalar_kernels();
};

INSTANTIATE_TEST_SUITE_P(All, InstructionSet, testing::ValuesIn(kInstructionSets),
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

// Kernels may read rows at equal distances in another way than others.
TEST_P(InstructionSet, WhereRowsLieDoesNotMatter) {
  Random random(12);
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    const Tile tile = make_tile(quantization, 3, Weights::kArbitrary, Scales::kArbitrary, random);
    std::vector<std::vector<float>> x;
    for (uint32_t row = 0; row < kernels_->max_rows; ++row) {
      x.push_back(make_inputs(tile.inputs(), Inputs::kArbitrary, random));
    }
    const auto rows = make_rows(tile, x, *kernels_);
    for (const size_t gap : {0, 1, 64}) {
      std::vector<uint8_t> all;
      std::vector<size_t> starts;
      for (const auto& row : rows) {
        starts.push_back(all.size());
        all.insert(all.end(), row.begin(), row.end());
        all.resize(all.size() + gap, 0xA5);
      }
      for (uint32_t count = 1; count <= kernels_->max_rows; ++count) {
        std::vector<const uint8_t*> ascending;
        for (uint32_t row = 0; row < count; ++row) ascending.push_back(all.data() + starts[row]);
        std::vector<const uint8_t*> odd_last = ascending;
        odd_last.back() = all.data() + starts[0];
        const std::vector<const uint8_t*> descending(ascending.rbegin(), ascending.rend());
        for (const auto& wanted_rows : {ascending, odd_last, descending}) {
          const std::vector<float> got = multiply_at(*kernels_, tile, wanted_rows);
          for (uint32_t row = 0; row < count; ++row) {
            const std::vector<float> wanted = multiply_at(*kernels_, tile, {wanted_rows[row]});
            for (uint32_t i = 0; i < kTileRows; ++i) {
              ASSERT_EQ(bits_of(got[row * kTileRows + i]), bits_of(wanted[i])) << count << " rows, gap " << gap;
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
        const size_t terms = terms_offset(count, block);
        const size_t size = terms + terms / block * kTermBytes;
        std::vector<uint8_t> got(size, 0xA5);
        std::vector<uint8_t> wanted(size, 0x5A);
        ASSERT_TRUE(kernels_->quantize(x.data(), count, block, -8, got.data(), got.data() + terms));
        ASSERT_TRUE(scalar_.quantize(x.data(), count, block, -8, wanted.data(), wanted.data() + terms));
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
        ASSERT_FALSE(kernels_->quantize(x.data(), count, 32, 1, row.data(), row.data() + terms_offset(count, 32)))
            << bad << " at " << at << " of " << count;
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

}  // namespace
}  // namespace moedge::test
