#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "isa.hpp"
#include "moedge_core.h"
#include "vision_model.hpp"

namespace moedge::test {
namespace {

class VisionApi : public testing::Test {
 protected:
  VisionApi() {
    const VisionShape& shape = model_.shape;
    options_.abi = MOEDGE_CORE_ABI;
    options_.blocks = shape.depth;
    options_.hidden_size = shape.hidden;
    options_.heads = shape.heads;
    options_.intermediate_size = shape.intermediate;
    options_.patch_values = shape.patch_values;
    options_.positions = shape.positions;
    options_.merge = shape.merge;
    options_.features = shape.features;
    options_.taps = shape.taps;
    options_.gelu_tanh = shape.tanh;
    options_.bits = shape.quantization.bits;
    options_.block_size = shape.quantization.block;
    options_.symmetric = shape.quantization.symmetric;
    options_.resident = 1;
    options_.threads = 2;
    options_.epsilon = model_.epsilon;
  }

  ~VisionApi() override { moedge_vision_close(vision_); }

  moedge_status open() { return moedge_vision_open(&options_, nullptr, &vision_, &error_); }

  void load() {
    ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
    const moedge_matrix patches = model_.patches.view();
    ASSERT_EQ(moedge_vision_load_patches(vision_, &patches, model_.positions.data(), &error_), MOEDGE_OK);
    for (uint32_t block = 0; block < options_.blocks; ++block) {
      const moedge_vision_block_weights weights = model_.blocks[block].view();
      ASSERT_EQ(moedge_vision_load_block(vision_, block, &weights, &error_), MOEDGE_OK) << error_.message;
    }
    for (uint32_t merger = 0; merger <= options_.taps; ++merger) {
      const moedge_vision_merger_weights weights = model_.mergers[merger].view();
      ASSERT_EQ(moedge_vision_load_merger(vision_, merger, &weights, &error_), MOEDGE_OK) << error_.message;
    }
    uint64_t weights = 0;
    uint64_t buffers = 0;
    uint64_t memory = 0;
    moedge_vision_bytes(vision_, input_.patches, &weights, &buffers, &memory);
    memory_.resize(memory);
    picture_ = picture_of(input_, hidden_, memory_);
  }

  moedge_status embed(const float* pixels, const uint32_t* corners, const float* shares) {
    return moedge_vision_embed(vision_, &picture_, pixels, corners, shares, &error_);
  }

  const VisionModel model_ = make_vision_model(make_vision_shape({8, 32, false}));
  Random random_{3};
  const VisionInput input_ = make_vision_input(model_.shape, 8, 1, random_);
  std::vector<float> hidden_ = std::vector<float>(size_t{8} * model_.shape.hidden);
  std::vector<float> features_ = std::vector<float>(size_t{2} * model_.shape.features);
  std::vector<uint8_t> memory_;
  moedge_vision_picture picture_{};
  moedge_vision_options options_{};
  moedge_vision* vision_ = nullptr;
  moedge_error error_{};
};

TEST_F(VisionApi, ComputesWhatTheClassComputes) {
  load();
  const auto same = open_vision(model_, 1, best_kernels());
  const VisionTrace wanted = run(*same, input_);
  ASSERT_EQ(embed(input_.pixels.data(), input_.corners.data(), input_.shares.data()), MOEDGE_OK) << error_.message;
  VisionTrace got;
  for (uint32_t block = 0; block < options_.blocks; ++block) {
    ASSERT_EQ(moedge_vision_block(vision_, &picture_, block, &error_), MOEDGE_OK) << error_.message;
    got.hidden.insert(got.hidden.end(), hidden_.begin(), hidden_.end());
  }
  for (uint32_t merger = 0; merger <= options_.taps; ++merger) {
    ASSERT_EQ(moedge_vision_merge(vision_, &picture_, merger, features_.data(), &error_), MOEDGE_OK) << error_.message;
    got.features.insert(got.features.end(), features_.begin(), features_.end());
  }
  EXPECT_EQ(got, wanted);
  uint64_t weights = 0;
  uint64_t buffers = 0;
  uint64_t memory = 0;
  moedge_vision_bytes(vision_, 8, &weights, &buffers, &memory);
  EXPECT_EQ(weights, same->weight_bytes());
  EXPECT_EQ(buffers, 2 * same->buffer_bytes());  // of two threads
  EXPECT_EQ(memory, same->picture_bytes(8));
}

TEST_F(VisionApi, OptionsOutOfRangeAreRefusedWithTheirValue) {
  struct Case {
    std::function<void(moedge_vision_options&)> change;
    std::string problem;
  };
  const std::vector<Case> cases{
      {[](auto& o) { o.abi = 3; }, "interface version 3; this library has 7"},
      {[](auto& o) { o.blocks = 0; }, "blocks=0; 1 to"},
      {[](auto& o) { o.hidden_size = 0; }, "hidden_size=0; 1 to"},
      {[](auto& o) { o.heads = 0; }, "heads=0; 1 to"},
      {[](auto& o) { o.heads = 8; }, "hidden_size=40 with heads=8; heads of an even size are possible"},
      {[](auto& o) { o.intermediate_size = 0; }, "intermediate_size=0; 1 to"},
      {[](auto& o) { o.patch_values = 0; }, "patch_values=0; 1 to"},
      {[](auto& o) { o.positions = 0; }, "positions=0; 1 to"},
      {[](auto& o) { o.merge = 0; }, "merge=0; 1 to"},
      {[](auto& o) { o.features = 0; }, "features=0; 1 to"},
      {[](auto& o) { o.taps = 4; }, "taps=4; 0 to 3 are possible"},
      {[](auto& o) { o.bits = 5; }, "bits=5; 4, 8 and 32 are possible"},
      {[](auto& o) { o.threads = 65; }, "threads=65; 1 to 64 are possible"},
      {[](auto& o) { o.epsilon = -1; }, "epsilon is below 0"},
      {[](auto& o) { o.isa = "sse"; }, "isa=sse is not possible on this processor"},
  };
  for (const Case& each : cases) {
    const moedge_vision_options right = options_;
    each.change(options_);
    EXPECT_EQ(open(), MOEDGE_BAD_OPTION) << each.problem;
    EXPECT_NE(std::string(error_.message).find(each.problem), std::string::npos) << error_.message;
    options_ = right;
  }
}

TEST_F(VisionApi, MissingArraysAreRefusedByName) {
  load();
  const auto expect_missing = [&](moedge_status status, const std::string& name) {
    EXPECT_EQ(status, MOEDGE_BAD_INPUT);
    EXPECT_EQ(std::string(error_.message), name + "=NULL; an array is needed");
  };
  expect_missing(embed(nullptr, input_.corners.data(), input_.shares.data()), "pixels");
  expect_missing(embed(input_.pixels.data(), nullptr, input_.shares.data()), "corners");
  expect_missing(embed(input_.pixels.data(), input_.corners.data(), nullptr), "shares");
  expect_missing(moedge_vision_merge(vision_, &picture_, 0, nullptr, &error_), "features");
  const moedge_vision_picture right = picture_;
  const std::vector<std::pair<std::string, std::function<void(moedge_vision_picture&)>>> cases{
      {"hidden", [](auto& p) { p.hidden = nullptr; }},
      {"cos", [](auto& p) { p.cos = nullptr; }},
      {"sin", [](auto& p) { p.sin = nullptr; }},
      {"memory", [](auto& p) { p.memory = nullptr; }},
  };
  for (const auto& [name, drop] : cases) {
    picture_ = right;
    drop(picture_);
    expect_missing(moedge_vision_block(vision_, &picture_, 0, &error_), name);
  }
  picture_ = right;
  picture_.patches = (1 << 20) + 4;
  EXPECT_EQ(moedge_vision_block(vision_, &picture_, 0, &error_), MOEDGE_BAD_INPUT);
  EXPECT_EQ(std::string(error_.message), "1,048,580 patches in one picture; 1 to 1,048,576 are possible");
}

TEST_F(VisionApi, NothingIsClosedTwice) { moedge_vision_close(nullptr); }

}  // namespace
}  // namespace moedge::test
