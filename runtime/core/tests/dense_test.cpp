// The dense layers against double precision, and bit by bit against themselves computed in other ways.
#include "dense.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "dense_model.hpp"
#include "isa.hpp"
#include "status.hpp"
#include "tile.hpp"

namespace moedge::test {
namespace {

constexpr Quantization kFloats{32, 32, true};

// The first `tokens` of a cache as [tokens, kv_heads, head_dim].
std::vector<float> by_token(const DenseShape& shape, const std::vector<float>& cache, uint32_t slots, uint32_t tokens) {
  std::vector<float> out;
  for (uint32_t token = 0; token < tokens; ++token) {
    for (uint32_t kv = 0; kv < shape.kv_heads; ++kv) {
      const float* from = cache.data() + (size_t{kv} * slots + token) * shape.head_dim;
      out.insert(out.end(), from, from + shape.head_dim);
    }
  }
  return out;
}

// A block's int8 activations are off by 0.3 % of its largest value, and zero points that are arbitrary make of that
// what a sum of all inputs is off. A value in a wrong place costs far more.
double tolerance(const Quantization& quantization) { return quantization.bits == 32 ? 2e-6 : 0.03; }

void compare(const DenseModel& model, uint32_t layer, uint32_t tokens) {
  Random random(tokens);
  const DenseInput input = make_dense_input(model.shape, tokens, random);
  const auto dense = open_dense(model, tokens, tokens + 3, 2, best_kernels());
  DenseState state(model.shape, tokens + 3);
  run(*dense, layer, 0, input, state);
  const DenseExpectation wanted = expected(model, layer, input);
  const double most = tolerance(model.shape.quantization);
  EXPECT_LE(relative_error(state.residual, wanted.residual), most);
  EXPECT_LE(relative_error(by_token(model.shape, state.keys, state.slots, tokens), wanted.keys), most);
  EXPECT_LE(relative_error(by_token(model.shape, state.values, state.slots, tokens), wanted.values), most);
  if (!model.shape.has_experts[layer]) return;
  EXPECT_LE(relative_error(state.router_logits, wanted.router_logits), most);
  const size_t guessed = size_t{model.shape.foreseen(layer)} * model.shape.experts;
  ASSERT_EQ(wanted.next_router_logits.size(), guessed);
  for (size_t i = guessed; i < state.next_router_logits.size(); ++i) {
    EXPECT_EQ(state.next_router_logits[i], kUntouched);
  }
  if (guessed == 0) return;
  state.next_router_logits.resize(guessed);
  EXPECT_LE(relative_error(state.next_router_logits, wanted.next_router_logits), most);
}

TEST(Dense, EqualsDoublePrecisionAtEveryPrecision) {
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    const DenseModel model = make_dense_model(make_dense_shape(quantization, 100, 6, 2, 24, 40));
    for (uint32_t layer = 0; layer < model.shape.layers(); ++layer) {
      SCOPED_TRACE(layer);
      compare(model, layer, 1);
      compare(model, layer, 9);
    }
  }
}

TEST(Dense, EqualsDoublePrecisionAtOddSizesOfHeads) {
  struct Heads {
    uint32_t heads, kv_heads, head_dim;
  };
  for (const Heads& heads : {Heads{8, 8, 16}, Heads{8, 1, 128}, Heads{16, 2, 64}, Heads{20, 1, 18}, Heads{3, 3, 130},
                             Heads{12, 4, 100}, Heads{70, 1, 16}}) {
    SCOPED_TRACE(std::to_string(heads.heads) + " heads, " + std::to_string(heads.kv_heads) + " for keys, of " +
                 std::to_string(heads.head_dim));
    const DenseModel model =
        make_dense_model(make_dense_shape(kFloats, 90, heads.heads, heads.kv_heads, heads.head_dim));
    for (const uint32_t tokens : {1, 2, 17}) compare(model, 0, tokens);
  }
}

TEST(Dense, EqualsDoublePrecisionOverSeveralChunksOfTheCache) {
  const DenseModel model = make_dense_model(make_dense_shape(kFloats, 64, 4, 2, 16));
  for (const uint32_t tokens : {127, 128, 129, 300}) compare(model, 0, kFewerCases ? tokens / 2 + 65 : tokens);
}

TEST(Dense, TheHeadEqualsDoublePrecision) {
  for (const Quantization& quantization : all_quantizations()) {
    SCOPED_TRACE(name_of(quantization));
    const DenseModel model = make_dense_model(make_dense_shape(quantization));
    Random random(5);
    const std::vector<float> hidden = random.floats(model.shape.hidden, -3, 3);
    std::vector<float> logits(model.shape.vocabulary);
    open_dense(model, 1, 1, 2, best_kernels())->run_head(hidden.data(), logits.data());
    EXPECT_LE(relative_error(logits, expected_logits(model, hidden)), tolerance(quantization));
  }
}

// All that a conversation leaves behind: a prompt in pieces of these sizes, one layer.
struct Trace {
  std::vector<float> residual, router_logits, last_guess, keys, values;

  bool operator==(const Trace&) const = default;
};

Trace converse(const DenseModel& model, const DenseInput& input, const std::vector<uint32_t>& pieces, uint32_t threads,
               const Kernels& kernels, uint32_t layer = 0) {
  const auto dense = open_dense(model, input.tokens, input.tokens, threads, kernels);
  DenseState state(model.shape, input.tokens);
  Trace trace;
  uint32_t past = 0;
  for (uint32_t turn = 0; past < input.tokens; ++turn) {
    const uint32_t size = std::min(pieces[turn % pieces.size()], input.tokens - past);
    run(*dense, layer, past, part_of(model.shape, input, past, past + size), state);
    trace.residual.insert(trace.residual.end(), state.residual.begin(), state.residual.end());
    trace.router_logits.insert(trace.router_logits.end(), state.router_logits.begin(), state.router_logits.end());
    past += size;
  }
  trace.last_guess = state.next_router_logits;
  trace.last_guess.resize(size_t{model.shape.foreseen(layer)} * model.shape.experts);
  trace.keys = state.keys;
  trace.values = state.values;
  return trace;
}

TEST(Dense, ATokensBitsDoNotDependOnTheTokensComputedWithIt) {
  for (const Quantization& quantization : {Quantization{4, 64, true}, Quantization{8, 32, false}, kFloats}) {
    SCOPED_TRACE(name_of(quantization));
    const DenseModel model = make_dense_model(make_dense_shape(quantization, 96, 8, 2, 32));
    Random random(8);
    const DenseInput input = make_dense_input(model.shape, kFewerCases ? 140 : 290, random);
    const Trace at_once = converse(model, input, {input.tokens}, 2, best_kernels());
    EXPECT_EQ(converse(model, input, {1}, 2, best_kernels()), at_once);
    EXPECT_EQ(converse(model, input, {7}, 2, best_kernels()), at_once);
    EXPECT_EQ(converse(model, input, {128, 1, 2, 64}, 2, best_kernels()), at_once);
  }
}

TEST(Dense, ALayerWithoutExpertsHasTheSameBitsForAnyTokens) {
  const DenseModel model = make_dense_model(make_dense_shape({4, 32, true}, 96, 4, 2, 32, 72));
  Random random(9);
  const DenseInput input = make_dense_input(model.shape, 20, random);
  EXPECT_EQ(converse(model, input, {1}, 2, best_kernels(), 2), converse(model, input, {20}, 1, best_kernels(), 2));
}

TEST(Dense, BitsDoNotDependOnThreads) {
  const DenseModel model = make_dense_model(make_dense_shape({4, 32, true}, 160, 8, 4, 32));
  Random random(10);
  const DenseInput input = make_dense_input(model.shape, kFewerCases ? 20 : 150, random);
  const Trace alone = converse(model, input, {40, 1, 1, 3}, 1, best_kernels());
  for (const uint32_t threads : {2, 3, 5}) {
    EXPECT_EQ(converse(model, input, {40, 1, 1, 3}, threads, best_kernels()), alone) << threads;
  }
}

class DenseInstructionSet : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, DenseInstructionSet, testing::ValuesIn(kInstructionSets),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(DenseInstructionSet, GivesTheScalarKernelsBits) {
  const Kernels* kernels = find_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  for (const Quantization& quantization : {Quantization{4, 64, true}, Quantization{8, 128, false}, kFloats}) {
    for (const uint32_t heads : {3, 8, 24}) {
      SCOPED_TRACE(name_of(quantization) + ", " + std::to_string(heads) + " heads");
      const DenseModel model = make_dense_model(make_dense_shape(quantization, 100, heads, 1, 22));
      Random random(11);
      const DenseInput input = make_dense_input(model.shape, kFewerCases ? 12 : 150, random);
      const Trace wanted = converse(model, input, {input.tokens - 5, 1}, 1, *find_kernels("scalar"));
      EXPECT_EQ(converse(model, input, {input.tokens - 5, 1}, 1, *kernels), wanted);
    }
  }
}

// The constant is what the scalar kernels gave on x86-64 when the order of operations was last changed.
TEST_P(DenseInstructionSet, GivesTheSameBitsOnEveryArchitecture) {
  const Kernels* kernels = find_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  const DenseModel model = make_dense_model(make_dense_shape({4, 32, false}, 100, 6, 2, 24));
  DenseInput input{3, {}, {}, {}};
  Random random(12);
  input.hidden = random.floats(size_t{3} * model.shape.hidden, -2, 2);
  input.cos = random.floats(3 * 12, -1, 1);  // no function of the C library
  input.sin = random.floats(3 * 12, -1, 1);
  const Trace trace = converse(model, input, {2, 1}, 1, *kernels);
  uint32_t crc = 0;
  for (const auto* values : {&trace.residual, &trace.router_logits, &trace.last_guess, &trace.keys, &trace.values}) {
    crc = crc32c_table(crc, reinterpret_cast<const uint8_t*>(values->data()), values->size() * sizeof(float));
  }
  EXPECT_EQ(crc, 0xB8F2B130U);
}

TEST(Dense, WhatIsNotFiniteIsRefusedAndTheNextCallWorks) {
  for (const Quantization& quantization : {Quantization{4, 32, true}, kFloats}) {
    const DenseModel model = make_dense_model(make_dense_shape(quantization));
    const auto dense = open_dense(model, 3, 4, 2, best_kernels());
    DenseState state(model.shape, 4);
    Random random(13);
    DenseInput input = make_dense_input(model.shape, 3, random);
    run(*dense, 0, 0, input, state);
    const std::vector<float> wanted = state.residual;
    for (const float bad : {INFINITY, NAN}) {
      DenseInput damaged = input;
      damaged.hidden[model.shape.hidden + 5] = bad;
      EXPECT_THROW(run(*dense, 0, 0, damaged, state), CoreError);
      run(*dense, 0, 0, input, state);
      EXPECT_EQ(state.residual, wanted);
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

TEST(Dense, CallsBeyondWhatThereIsAreRefused) {
  const DenseModel model = make_dense_model(make_dense_shape({4, 32, true}));
  const auto dense = open_dense(model, 3, 4, 1, best_kernels());
  DenseState state(model.shape, 4);
  Random random(14);
  const DenseInput three = make_dense_input(model.shape, 3, random);
  const DenseInput four = make_dense_input(model.shape, 4, random);
  expect_refused([&] { run(*dense, 3, 0, three, state); }, "layer 3 does not exist; there are 3");
  expect_refused([&] { run(*dense, 0, 0, four, state); }, "4 tokens in one call; 1 to 3 are possible");
  expect_refused([&] { run(*dense, 0, 2, three, state); }, "2 tokens and 3 more; the cache has room for 4");
}

TEST(Dense, WeightsAreLoadedOnceAndWhole) {
  const DenseModel model = make_dense_model(make_dense_shape({4, 32, false}));
  Dense dense(model.shape, model.epsilon, 1, 1, best_kernels(), std::make_shared<ThreadPool>(1));
  DenseState state(model.shape, 1);
  Random random(15);
  const DenseInput input = make_dense_input(model.shape, 1, random);
  std::vector<float> logits(model.shape.vocabulary);
  expect_refused([&] { run(dense, 0, 0, input, state); }, "layer 0 has no weights yet");
  expect_refused([&] { dense.run_head(input.hidden.data(), logits.data()); }, "the head has no weights yet");
  StoredLayer damaged = model.layers[0];
  damaged.qkv.scale[1] = 0.1F;
  expect_refused([&] { dense.load_layer(0, damaged.view()); }, "a scale of qkv of layer 0 is no float16");
  damaged = model.layers[0];
  damaged.output.zero_point.clear();
  expect_refused([&] { dense.load_layer(0, damaged.view()); }, "output of layer 0 is missing or lacks a part");
  damaged = model.layers[0];
  damaged.key_norm.clear();
  expect_refused([&] { dense.load_layer(0, damaged.view()); }, "key_norm of layer 0 is missing");
  expect_refused([&] { dense.load_layer(3, damaged.view()); }, "layer 3 does not exist");
  dense.load_layer(0, model.layers[0].view());
  expect_refused([&] { dense.load_layer(0, model.layers[0].view()); }, "has its weights already");
  dense.load_layer(2, model.layers[2].view());
  // Its guess of the layer after the next needs what the next one has.
  expect_refused([&] { run(dense, 0, 0, input, state); }, "layer 1 has no weights yet");
  dense.load_layer(1, model.layers[1].view());
  run(dense, 0, 0, input, state);
}

}  // namespace
}  // namespace moedge::test
