// The vision tower against double precision, and bit by bit against itself computed in other ways.
#include "vision.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "isa.hpp"
#include "status.hpp"
#include "tile.hpp"
#include "vision_model.hpp"

namespace moedge::test {
namespace {

constexpr Quantization kFloats{32, 32, true};

void compare(const VisionShape& shape, uint32_t patches, uint32_t frames) {
  const VisionModel model = make_vision_model(shape);
  Random random(patches);
  const VisionInput input = make_vision_input(shape, patches, frames, random);
  const VisionTrace got = run(*open_vision(model, 2, best_kernels()), input);
  const VisionExpectation wanted = expected(model, input);
  // Int8 activations are off by 0.3 % of a block's largest value, in every product; zero points add to that.
  const double most = shape.quantization.bits == 32 ? 3e-6 : 0.05;
  EXPECT_LE(relative_error(got.hidden, wanted.hidden), most);
  EXPECT_LE(relative_error(got.features, wanted.features), most);
}

TEST(Vision, EqualsDoublePrecisionAtEveryPrecision) {
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    compare(make_vision_shape(quantization), 12, 1);
  }
}

TEST(Vision, EqualsDoublePrecisionAtOddSizes) {
  struct Sizes {
    uint32_t hidden, heads, merge;
  };
  for (const Sizes& sizes : {Sizes{72, 1, 1}, Sizes{36, 3, 9}, Sizes{16, 8, 4}, Sizes{100, 1, 2}}) {
    SCOPED_TRACE(std::to_string(sizes.heads) + " heads of " + std::to_string(sizes.hidden / sizes.heads));
    compare(make_vision_shape(kFloats, sizes.hidden, sizes.heads, sizes.merge), 2 * sizes.merge * 9, 1);
  }
}

TEST(Vision, EqualsDoublePrecisionOverManyPatchesAndFrames) {
  const VisionShape shape = make_vision_shape(kFloats, 16, 2);
  for (const uint32_t patches : {4, 64, 68, 128, 132, 300})
    compare(shape, kFewerCases ? patches / 8 * 4 + 4 : patches, 1);
  compare(shape, 3 * 72, 3);
}

TEST(Vision, AFramesBitsDoNotDependOnTheOthers) {
  const VisionModel model = make_vision_model(make_vision_shape({8, 64, true}));
  Random random(2);
  const VisionInput all = make_vision_input(model.shape, 2 * 72, 2, random);
  VisionInput second = all;
  second.patches = 72;
  second.frames = 1;
  const auto keep_second = [](auto& values) { values.erase(values.begin(), values.begin() + values.size() / 2); };
  keep_second(second.pixels);
  keep_second(second.shares);
  keep_second(second.cos);
  keep_second(second.sin);
  keep_second(second.corners);
  const auto vision = open_vision(model, 2, best_kernels());
  const VisionTrace together = run(*vision, all);
  const VisionTrace alone = run(*vision, second);
  const size_t half = alone.hidden.size() / model.shape.depth;
  for (uint32_t block = 0; block < model.shape.depth; ++block) {
    EXPECT_TRUE(std::equal(alone.hidden.begin() + block * half, alone.hidden.begin() + (block + 1) * half,
                           together.hidden.begin() + (2 * block + 1) * half));
  }
}

TEST(Vision, BitsDoNotDependOnThreads) {
  const VisionModel model = make_vision_model(make_vision_shape({8, 32, true}, 160));
  Random random(3);
  const VisionInput input = make_vision_input(model.shape, kFewerCases ? 20 : 200, 1, random);
  const VisionTrace alone = run(*open_vision(model, 1, best_kernels()), input);
  for (const uint32_t threads : {2, 3, 5}) EXPECT_EQ(run(*open_vision(model, threads, best_kernels()), input), alone);
}

class VisionInstructionSet : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, VisionInstructionSet, testing::ValuesIn(kInstructionSets),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(VisionInstructionSet, GivesTheScalarKernelsBits) {
  const Kernels* kernels = find_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  for (const Quantization& quantization : {Quantization{4, 64, false}, Quantization{8, 128, true}, kFloats}) {
    for (const uint32_t merge : {1, 4}) {
      SCOPED_TRACE(name_of(quantization) + ", merge " + std::to_string(merge));
      const VisionModel model = make_vision_model(make_vision_shape(quantization, 72, 2, merge));
      Random random(4);
      const VisionInput input = make_vision_input(model.shape, kFewerCases ? 12 : 140, 1, random);
      const VisionTrace wanted = run(*open_vision(model, 1, *find_kernels("scalar")), input);
      EXPECT_EQ(run(*open_vision(model, 1, *kernels), input), wanted);
    }
  }
}

// The constant is what the scalar kernels gave on x86-64 when the order of operations was last changed.
TEST_P(VisionInstructionSet, GivesTheSameBitsOnEveryArchitecture) {
  const Kernels* kernels = find_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  const VisionModel model = make_vision_model(make_vision_shape({8, 32, true}));
  Random random(5);
  const VisionTrace trace = run(*open_vision(model, 1, *kernels), make_vision_input(model.shape, 12, 1, random));
  uint32_t crc = 0;
  for (const auto* values : {&trace.hidden, &trace.features}) {
    crc = crc32c_table(crc, reinterpret_cast<const uint8_t*>(values->data()), values->size() * sizeof(float));
  }
  EXPECT_EQ(crc, 0x7FA171E6U);
}

TEST(Vision, WeightsThatComeInTurnGiveTheSameBits) {
  for (const Quantization& quantization : {Quantization{4, 32, false}, Quantization{8, 64, true}, kFloats}) {
    VisionModel model = make_vision_model(make_vision_shape(quantization));
    Random random(6);
    const VisionInput input = make_vision_input(model.shape, 12, 1, random);
    const VisionTrace wanted = run(*open_vision(model, 1, best_kernels()), input);
    model.shape.resident = false;
    const auto vision = open_vision(model, 1, best_kernels());
    std::vector<float> hidden(size_t{input.patches} * model.shape.hidden);
    std::vector<uint8_t> memory(vision->picture_bytes(input.patches));
    const moedge_vision_picture picture = picture_of(input, hidden, memory);
    std::vector<float> features(size_t{input.patches} / model.shape.merge * model.shape.features);
    VisionTrace trace;
    vision->load_patches(model.patches.view(), model.positions.data());
    vision->embed(picture, input.pixels.data(), input.corners.data(), input.shares.data());
    for (uint32_t block = 0; block < model.shape.depth; ++block) {
      EXPECT_THROW(vision->run_block(picture, block), CoreError);
      vision->load_block(block, model.blocks[block].view());
      vision->run_block(picture, block);
      trace.hidden.insert(trace.hidden.end(), hidden.begin(), hidden.end());
    }
    EXPECT_THROW(vision->run_block(picture, 0), CoreError);  // the last one has its place
    for (uint32_t merger = 0; merger < model.shape.mergers(); ++merger) {
      vision->load_merger(merger, model.mergers[merger].view());
      vision->merge(picture, merger, features.data());
      trace.features.insert(trace.features.end(), features.begin(), features.end());
    }
    EXPECT_EQ(trace, wanted) << name_of(quantization);
  }
}

TEST(Vision, WhatIsNotFiniteIsRefusedAndTheNextPictureWorks) {
  for (const Quantization& quantization : {Quantization{8, 32, true}, kFloats}) {
    const VisionModel model = make_vision_model(make_vision_shape(quantization));
    const auto vision = open_vision(model, 2, best_kernels());
    Random random(7);
    const VisionInput input = make_vision_input(model.shape, 12, 1, random);
    const VisionTrace wanted = run(*vision, input);
    for (const float bad : {INFINITY, NAN}) {
      VisionInput damaged = input;
      damaged.pixels[model.shape.patch_values + 5] = bad;
      EXPECT_THROW(run(*vision, damaged), CoreError);
      damaged = input;
      damaged.shares[1] = bad;
      EXPECT_THROW(run(*vision, damaged), CoreError);
      EXPECT_EQ(run(*vision, input), wanted);
    }
  }
}

void expect_refused(const std::function<void()>& act, const std::string& problem) {
  try {
    act();
    ADD_FAILURE() << "not refused: " << problem;
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_BAD_INPUT);
    EXPECT_NE(std::string(error.what()).find(problem), std::string::npos) << error.what();
  }
}

TEST(Vision, CallsBeyondWhatThereIsAreRefused) {
  const VisionModel model = make_vision_model(make_vision_shape({8, 32, true}));
  const auto vision = open_vision(model, 1, best_kernels());
  Random random(8);
  VisionInput input = make_vision_input(model.shape, 12, 1, random);
  std::vector<float> hidden(size_t{12} * model.shape.hidden);
  std::vector<uint8_t> memory(vision->picture_bytes(12));
  moedge_vision_picture picture = picture_of(input, hidden, memory);
  std::vector<float> features(size_t{3} * model.shape.features);
  expect_refused([&] { vision->run_block(picture, 3); }, "block 3 does not exist; there are 3");
  expect_refused([&] { vision->merge(picture, 3, features.data()); }, "merger 3 does not exist; there are 3");
  input.corners[7] = 11;
  expect_refused([&] { run(*vision, input); }, "position 11 does not exist; there are 11");
  for (const uint32_t frames : {0U, 5U, 2U}) {
    picture.frames = frames;
    expect_refused([&] { vision->run_block(picture, 0); }, "12 patches in " + std::to_string(frames) + " frames");
  }
}

TEST(Vision, WeightsAreLoadedOnceAndWhole) {
  const VisionModel model = make_vision_model(make_vision_shape({8, 32, false}));
  Vision vision(model.shape, model.epsilon, best_kernels(), std::make_shared<ThreadPool>(1));
  Random random(9);
  const VisionInput input = make_vision_input(model.shape, 12, 1, random);
  expect_refused([&] { run(vision, input); }, "the product of the patches has no weights yet");
  vision.load_patches(model.patches.view(), model.positions.data());
  expect_refused([&] { vision.load_patches(model.patches.view(), model.positions.data()); }, "has its weights already");
  expect_refused([&] { run(vision, input); }, "block 0 has no weights yet");
  StoredBlock damaged = model.blocks[0];
  damaged.up.bias.clear();
  expect_refused([&] { vision.load_block(0, damaged.view()); }, "up.bias of block 0 is missing");
  damaged = model.blocks[0];
  damaged.qkv.scale[1] = 0.1F;
  expect_refused([&] { vision.load_block(0, damaged.view()); }, "a scale of qkv of block 0 is no float16");
  StoredMerger merger = model.mergers[2];
  merger.down.zero_point.clear();
  expect_refused([&] { vision.load_merger(2, merger.view()); }, "down of merger 2 is missing or lacks a part");
  expect_refused([&] { vision.load_block(3, model.blocks[0].view()); }, "block 3 does not exist");
  for (uint32_t block = 0; block < 3; ++block) vision.load_block(block, model.blocks[block].view());
  expect_refused([&] { vision.load_block(0, model.blocks[0].view()); }, "block 0 has its weights already");
  expect_refused([&] { run(vision, input); }, "merger 0 has no weights yet");
}

}  // namespace
}  // namespace moedge::test
