#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "dense_model.hpp"
#include "isa.hpp"
#include "moedge_core.h"

namespace moedge::test {
namespace {

class DenseApi : public testing::Test {
 protected:
  DenseApi() {
    const DenseShape& shape = model_.shape;
    options_.abi = MOEDGE_CORE_ABI;
    options_.layers = shape.layers();
    options_.hidden_size = shape.hidden;
    options_.heads = shape.heads;
    options_.kv_heads = shape.kv_heads;
    options_.head_dim = shape.head_dim;
    options_.experts = shape.experts;
    options_.intermediate_size = shape.intermediate;
    options_.vocabulary = shape.vocabulary;
    options_.bits = shape.quantization.bits;
    options_.block_size = shape.quantization.block;
    options_.symmetric = shape.quantization.symmetric;
    options_.head_bits = shape.head_quantization.bits;
    options_.head_block_size = shape.head_quantization.block;
    options_.head_symmetric = shape.head_quantization.symmetric;
    options_.biased = shape.biased;
    options_.max_tokens = 4;
    options_.slots = 6;
    options_.threads = 2;
    options_.epsilon = model_.epsilon;
    options_.has_experts = has_experts_.data();
  }

  ~DenseApi() override { moedge_dense_close(dense_); }

  moedge_status open() { return moedge_dense_open(&options_, nullptr, &dense_, &error_); }

  void load() {
    ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
    for (uint32_t layer = 0; layer < options_.layers; ++layer) {
      const moedge_dense_weights weights = model_.layers[layer].view();
      ASSERT_EQ(moedge_dense_load_layer(dense_, layer, &weights, &error_), MOEDGE_OK) << error_.message;
    }
    const moedge_matrix head = model_.head.view();
    ASSERT_EQ(moedge_dense_load_head(dense_, model_.head_norm.data(), &head, &error_), MOEDGE_OK) << error_.message;
  }

  // A call of three tokens after none, on the members' arrays.
  moedge_dense_call call(uint32_t layer) {
    moedge_dense_call call{};
    call.layer = layer;
    call.tokens = input_.tokens;
    call.hidden = input_.hidden.data();
    call.cos = input_.cos.data();
    call.sin = input_.sin.data();
    call.keys = state_.keys.data();
    call.values = state_.values.data();
    call.residual = residual_.data();
    call.moe_input = moe_input_.data();
    call.router_logits = router_logits_.data();
    return call;
  }

  const DenseModel model_ = make_dense_model(make_dense_shape({4, 32, false}, 100, 6, 2, 24, 40));
  const std::vector<uint8_t> has_experts_{1, 1, 1, 0};
  Random random_{3};
  const DenseInput input_ = make_dense_input(model_.shape, 3, random_);
  DenseState state_{model_.shape, 6};
  std::vector<float> residual_ = std::vector<float>(size_t{3} * model_.shape.hidden);
  std::vector<float> moe_input_ = residual_;
  std::vector<float> router_logits_ = std::vector<float>(size_t{3} * model_.shape.experts);
  moedge_dense_options options_{};
  moedge_dense* dense_ = nullptr;
  moedge_error error_{};
};

TEST_F(DenseApi, ComputesWhatTheClassComputes) {
  load();
  const auto same = open_dense(model_, 4, 6, 1, best_kernels());
  for (uint32_t layer = 0; layer < options_.layers; ++layer) {
    const moedge_dense_call one = call(layer);
    ASSERT_EQ(moedge_dense_layer(dense_, &one, &error_), MOEDGE_OK) << error_.message;
    DenseState state(model_.shape, 6);
    run(*same, layer, 0, input_, state);
    EXPECT_EQ(residual_, state.residual);
    if (has_experts_[layer]) {
      EXPECT_EQ(router_logits_, state.router_logits);
    }
  }
  std::vector<float> logits(model_.shape.vocabulary);
  std::vector<float> wanted(logits.size());
  ASSERT_EQ(moedge_dense_head(dense_, input_.hidden.data(), logits.data(), &error_), MOEDGE_OK) << error_.message;
  same->run_head(input_.hidden.data(), wanted.data());
  EXPECT_EQ(logits, wanted);
  uint64_t weights = 0;
  uint64_t buffers = 0;
  moedge_dense_bytes(dense_, &weights, &buffers);
  EXPECT_EQ(weights, same->weight_bytes());
  EXPECT_GE(buffers, same->buffer_bytes());  // of one thread less
}

TEST_F(DenseApi, OptionsOutOfRangeAreRefusedWithTheirValue) {
  struct Case {
    std::function<void(moedge_dense_options&)> change;
    std::string problem;
  };
  const std::vector<Case> cases{
      {[](auto& o) { o.abi = 3; }, "interface version 3; this library has 7"},
      {[](auto& o) { o.layers = 0; }, "layers=0; 1 to"},
      {[](auto& o) { o.hidden_size = 0; }, "hidden_size=0; 1 to"},
      {[](auto& o) { o.kv_heads = 0; }, "kv_heads=0; 1 to"},
      {[](auto& o) { o.heads = 7; }, "heads=7 with kv_heads=2; a multiple of these is possible"},
      {[](auto& o) { o.head_dim = 23; }, "head_dim=23; it must be even"},
      {[](auto& o) { o.experts = 0; }, "experts=0; 1 to"},
      {[](auto& o) { o.intermediate_size = 0; }, "intermediate_size=0; 1 to"},
      {[](auto& o) { o.vocabulary = 0; }, "vocabulary=0; 1 to"},
      {[](auto& o) { o.bits = 5; }, "bits=5; 4, 8 and 32 are possible"},
      {[](auto& o) { o.head_block_size = 48; }, "block_size=48; 32, 64 and 128 are possible"},
      {[](auto& o) { o.max_tokens = 0; }, "max_tokens=0; 1 to"},
      {[](auto& o) { o.slots = 0; }, "slots=0; 1 to"},
      {[](auto& o) { o.threads = 65; }, "threads=65; 1 to 64 are possible"},
      {[](auto& o) { o.epsilon = -1; }, "epsilon is below 0"},
      {[](auto& o) { o.has_experts = nullptr; }, "has_experts=NULL"},
      {[](auto& o) { o.isa = "sse"; }, "isa=sse is not possible on this processor"},
  };
  for (const Case& each : cases) {
    const moedge_dense_options right = options_;
    each.change(options_);
    EXPECT_EQ(open(), MOEDGE_BAD_OPTION) << each.problem;
    EXPECT_NE(std::string(error_.message).find(each.problem), std::string::npos) << error_.message;
    options_ = right;
  }
}

TEST_F(DenseApi, MissingArraysAreRefusedByName) {
  load();
  const std::vector<std::pair<std::string, std::function<void(moedge_dense_call&)>>> cases{
      {"hidden", [](auto& c) { c.hidden = nullptr; }},
      {"cos", [](auto& c) { c.cos = nullptr; }},
      {"sin", [](auto& c) { c.sin = nullptr; }},
      {"keys", [](auto& c) { c.keys = nullptr; }},
      {"values", [](auto& c) { c.values = nullptr; }},
      {"residual", [](auto& c) { c.residual = nullptr; }},
      {"moe_input", [](auto& c) { c.moe_input = nullptr; }},
      {"router_logits", [](auto& c) { c.router_logits = nullptr; }},
  };
  for (const auto& [name, drop] : cases) {
    moedge_dense_call one = call(0);
    drop(one);
    EXPECT_EQ(moedge_dense_layer(dense_, &one, &error_), MOEDGE_BAD_INPUT);
    EXPECT_EQ(std::string(error_.message), name + "=NULL; an array is needed");
  }
  moedge_dense_call dense_layer = call(3);
  dense_layer.moe_input = dense_layer.router_logits = nullptr;  // it has no experts
  EXPECT_EQ(moedge_dense_layer(dense_, &dense_layer, &error_), MOEDGE_OK) << error_.message;
}

TEST_F(DenseApi, NothingIsClosedTwice) { moedge_dense_close(nullptr); }

}  // namespace
}  // namespace moedge::test
