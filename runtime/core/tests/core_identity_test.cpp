// Paging never changes the output: one conversation, many ways to run it, the same bits.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core.hpp"
#include "crc32c.hpp"
#include "isa.hpp"
#include "model.hpp"

namespace moedge::test {
namespace {

class Identity : public testing::TestWithParam<Quantization> {
 protected:
  Identity() : model_(make_model({.quantization = GetParam()})), calls_(make_conversation(model_.shape)) {
    Machine machine(model_, {.threads = 1, .readers = 1, .prefetch = false, .isa = "scalar"});
    wanted_ = run(*machine.core, model_.shape, calls_);
  }

  void expect_same(Machine& machine) const { EXPECT_EQ(run(*machine.core, model_.shape, calls_), wanted_); }

  void expect_same(const Settings& settings) const {
    Machine machine(model_, settings);
    expect_same(machine);
  }

  // Between the least budget and room for all.
  uint64_t some_budget(const Settings& settings, Random& random) const {
    return least_budget(model_, settings) + random.below(30) * model_.layout.record_bytes;
  }

  const Model model_;
  const std::vector<Call> calls_;
  std::vector<uint32_t> wanted_;
};

INSTANTIATE_TEST_SUITE_P(, Identity,
                         testing::Values(Quantization{4, 32, true}, Quantization{4, 64, false},
                                         Quantization{8, 32, false}, Quantization{8, 128, true},
                                         Quantization{32, 32, true}),
                         [](const auto& test) {
                           return "Bits" + std::to_string(test.param.bits) + "Block" +
                                  std::to_string(test.param.block) +
                                  (test.param.symmetric ? "Symmetric" : "Asymmetric");
                         });

TEST_P(Identity, TheResultIsThatOfDoublePrecisionButForTheRoundingOfActivations) {
  double error = 0;
  double size = 0;
  size_t at = 0;
  for (const Call& call : calls_) {
    for (const double value : expected(model_, call)) {
      float got;
      std::memcpy(&got, &wanted_[at++], sizeof got);
      error += (got - value) * (got - value);
      size += value * value;
    }
  }
  EXPECT_LT(std::sqrt(error / size), GetParam().bits == 32 ? 1e-6 : 0.02);
}

TEST_P(Identity, ResultsDoNotDependOnTheInstructionSet) {
  for (const char* isa : kInstructionSets) {
    SCOPED_TRACE(isa);
    if (find_kernels(isa)) expect_same({.isa = isa});
  }
}

TEST_P(Identity, ResultsDoNotDependOnTheBudget) {
  Random random(1);
  expect_same({.budget_bytes = kLeastBudget});
  for (int turn = 0; turn < (kFewerCases ? 2 : 8); ++turn) {
    expect_same({.budget_bytes = some_budget({}, random)});
  }
}

TEST_P(Identity, ResultsDoNotDependOnReadersThreadsOrPrefetch) {
  for (const uint32_t readers : {1U, 3U, 16U}) {
    for (const uint32_t threads : {1U, 2U, 4U}) {
      for (const bool prefetch : {false, true}) {
        SCOPED_TRACE(std::to_string(readers) + " readers, " + std::to_string(threads) + " threads");
        if (kFewerCases && (readers + threads + prefetch) % 3 != 0) continue;
        Settings settings{.threads = threads, .readers = readers, .prefetch = prefetch};
        if (!kFewerCases) expect_same(settings);
        settings.budget_bytes = kLeastBudget;
        expect_same(settings);
      }
    }
  }
}

TEST_P(Identity, ResultsDoNotDependOnTheOrderInWhichReadsEnd) {
  for (const uint64_t seed : {1, 2, 3}) {
    Machine machine(model_, {.budget_bytes = kLeastBudget, .threads = 3, .readers = 8});
    machine.disk->shuffle(seed);
    expect_same(machine);
  }
}

TEST_P(Identity, ResultsDoNotDependOnTheSizeOfReads) {
  for (const size_t bytes : {4096, 12288}) {
    Machine machine(model_, {.budget_bytes = kLeastBudget});
    machine.disk->set_most_bytes(bytes);
    expect_same(machine);
  }
}

TEST_P(Identity, ResultsAreTheSameAfterAStormOfEvictions) {
  Machine machine(model_, {.budget_bytes = kLeastBudget});
  Random random(2);
  for (int turn = 0; turn < (kFewerCases ? 30 : 300); ++turn) {
    compute(*machine.core, model_.shape, make_call(model_.shape, random.below(3), 1, random));
  }
  EXPECT_GT(machine.core->statistics().evictions, kFewerCases ? 10U : 100U);
  expect_same(machine);
  expect_same(machine);
}

TEST_P(Identity, ResultsAreTheSameWhileTheBudgetAndThePinsChange) {
  Machine machine(model_, {});
  Random random(3);
  std::vector<uint32_t> bits;
  for (const Call& call : calls_) {
    machine.core->set_budget(random.below(4) == 0 ? kRoomForAll : some_budget({}, random));
    const std::vector<uint32_t> pins{random.below(30), random.below(30), random.below(30)};
    machine.core->pin(pins);
    for (const uint32_t value : run(*machine.core, model_.shape, {call})) bits.push_back(value);
  }
  EXPECT_EQ(bits, wanted_);
}

TEST_P(Identity, ATokenGetsTheSameAloneAsInAPrefill) {
  Machine machine(model_, {});
  Call together = calls_[0];
  const std::vector<uint32_t> wanted = run(*machine.core, model_.shape, {together});
  std::vector<uint32_t> bits;
  const Shape& shape = model_.shape;
  for (uint32_t token = 0; token < together.tokens; ++token) {
    const auto input = together.input.begin() + token * shape.hidden;
    const auto logits = together.logits.begin() + token * shape.experts;
    const Call alone{0, 1, {input, input + shape.hidden}, {logits, logits + shape.experts}, {}};
    for (const uint32_t value : run(*machine.core, shape, {alone})) bits.push_back(value);
  }
  EXPECT_EQ(bits, wanted);
}

class GoldenBits : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(, GoldenBits, testing::ValuesIn(kInstructionSets),
                         [](const auto& test) { return std::string(test.param); });

// The constant is what x86-64 gave when the arithmetic of the router, of the kernels or of a model's records last
// changed.
TEST_P(GoldenBits, AConversationGivesThemOnEveryMachine) {
  if (find_kernels(GetParam()) == nullptr) GTEST_SKIP() << GetParam() << ": not this processor";
  uint32_t crc = 0;
  for (const Quantization& quantization :
       {Quantization{4, 32, true}, Quantization{8, 64, false}, Quantization{32, 32, true}}) {
    const Model model = make_model({.quantization = quantization});
    Machine machine(model, {.budget_bytes = kLeastBudget, .isa = GetParam()});
    const std::vector<uint32_t> bits = run(*machine.core, model.shape, make_conversation(model.shape));
    crc = crc32c_table(crc, reinterpret_cast<const uint8_t*>(bits.data()), bits.size() * sizeof bits[0]);
  }
  EXPECT_EQ(crc, 0x264CD351U);
}

// Shapes where one of the loops over tiles, blocks, tasks or experts has a single turn, or an unfinished last one.
TEST(IdentityOfShapes, ResultsOfOddShapesDoNotDependOnPagingOrInstructionSet) {
  const Shape shapes[] = {
      {.layers = 1, .experts = 1, .top_k = 1, .hidden = 1, .intermediate = 1},
      {.layers = 1, .experts = 5, .top_k = 5, .hidden = 32, .intermediate = 16},
      {.layers = 2, .experts = 6, .top_k = 1, .hidden = 33, .intermediate = 17, .quantization = {8, 32, true}},
      {.layers = 2, .experts = 4, .top_k = 3, .hidden = 130, .intermediate = 129, .quantization = {8, 128, false}},
      {.layers = 2, .experts = 40, .top_k = 8, .hidden = 31, .intermediate = 15, .quantization = {32, 32, true}},
      {.layers = 1, .experts = 9, .top_k = 2, .hidden = 300, .intermediate = 65, .quantization = {4, 64, false}},
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(shape.hidden);
    const Model model = make_model(shape);
    const std::vector<Call> calls = make_conversation(shape);
    Machine plain(model, {.threads = 1, .readers = 1, .prefetch = false, .isa = "scalar"});
    const std::vector<uint32_t> wanted = run(*plain.core, shape, calls);
    for (const uint32_t threads : {1, 4}) {
      Machine machine(model, {.budget_bytes = kLeastBudget, .threads = threads, .readers = 4});
      EXPECT_EQ(run(*machine.core, shape, calls), wanted);
    }
  }
}

}  // namespace
}  // namespace moedge::test
