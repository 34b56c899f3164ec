#include "core.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "model.hpp"
#include "reference.hpp"

namespace moedge::test {
namespace {

class CoreTest : public testing::Test {
 protected:
  const RecordLayout& layout() const { return model_.layout; }
  // Room for some slots more than the least.
  uint64_t budget_for(uint32_t slots, const Settings& settings = {}) const {
    return least_budget(model_, settings) + slots * layout().record_bytes;
  }

  const Shape shape_{};
  const Model model_ = make_model(shape_);
  Random random_{1};
};

std::set<uint32_t> keys_of(const Shape& shape, const Call& call) {
  std::set<uint32_t> keys;
  for (uint32_t token = 0; token < call.tokens; ++token) {
    for (const Pick& pick : picks_of(call.logits.data() + token * shape.experts, shape.experts, shape.top_k)) {
      keys.insert(call.layer * shape.experts + pick.expert);
    }
  }
  return keys;
}

// --- what is read ----------------------------------------------------------------------------------------------------

TEST_F(CoreTest, APrefillReadsEachExpertThatItNeedsExactlyOnce) {
  for (const bool prefetch : {false, true}) {
    for (const uint32_t slots : {0, 5, 20, 30}) {
      Settings settings{.readers = 4, .prefetch = prefetch};
      settings.budget_bytes = budget_for(slots, settings);
      Machine machine(model_, settings);
      std::set<uint32_t> needed;
      for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
        const Call call = make_call(shape_, layer, 30, random_);
        needed.merge(keys_of(shape_, call));
        compute(*machine.core, shape_, call);
      }
      for (uint32_t key = 0; key < 30; ++key) {
        EXPECT_LE(machine.disk->reads_of(key), 1U) << key;
        if (needed.contains(key)) {
          EXPECT_EQ(machine.disk->reads_of(key), 1U) << key;
        }
      }
    }
  }
}

TEST_F(CoreTest, ResidentExpertsAreNotReadAgain) {
  Machine machine(model_, {});
  const std::vector<Call> calls = make_conversation(shape_);
  run(*machine.core, shape_, calls);
  const uint32_t reads = machine.disk->reads_of_all();
  EXPECT_LE(reads, 30U);
  const uint64_t waited = machine.core->statistics().flash_wait_ns;
  run(*machine.core, shape_, calls);
  EXPECT_EQ(machine.disk->reads_of_all(), reads);
  EXPECT_EQ(machine.core->statistics().flash_wait_ns, waited) << "waiting for another thread is no waiting for flash";
}

TEST_F(CoreTest, ADecodeSetSurvivesAPrefill) {
  // Room for the picks of three layers, and two more.
  Machine machine(model_, {.budget_bytes = budget_for(8)});
  std::vector<Call> decode;
  for (uint32_t layer = 0; layer < 3; ++layer) decode.push_back(make_call_of(shape_, layer, 1, {2, 5, 6}, random_));
  const auto wanted = run(*machine.core, shape_, decode);
  run(*machine.core, shape_, decode);
  for (int turn = 0; turn < 3; ++turn) {
    for (uint32_t layer = 0; layer < 3; ++layer) compute(*machine.core, shape_, make_call(shape_, layer, 30, random_));
    const uint64_t misses = machine.core->statistics().misses;
    EXPECT_EQ(run(*machine.core, shape_, decode), wanted);
    EXPECT_EQ(machine.core->statistics().misses, misses);
  }
}

TEST_F(CoreTest, PinnedExpertsStayThroughDecodesPrefillsAndShrinkingBudgets) {
  Machine machine(model_, {});
  const std::vector<uint32_t> pins{3, 14, 27, 8};
  machine.core->pin(pins);
  for (uint32_t layer = 0; layer < 3; ++layer) compute(*machine.core, shape_, make_call(shape_, layer, 30, random_));
  EXPECT_EQ(machine.core->statistics().pinned, 4U);
  std::vector<uint32_t> reads;
  for (const uint32_t key : pins) reads.push_back(machine.disk->reads_of(key));
  // The least budget has top_k dynamic slots: four more of them hold the pins.
  for (const uint32_t above : {20, 11, 4}) {
    machine.core->set_budget(budget_for(above));
    EXPECT_EQ(machine.core->statistics().pinned, 4U) << above;
    for (int turn = 0; turn < 40; ++turn) {
      compute(*machine.core, shape_, make_call(shape_, random_.below(3), turn % 8 == 7 ? 30 : 1, random_));
    }
    for (size_t i = 0; i < pins.size(); ++i) EXPECT_EQ(machine.disk->reads_of(pins[i]), reads[i]) << pins[i];
  }
}

TEST_F(CoreTest, OfPinnedExpertsThatDoNotFitTheFirstStay) {
  Machine machine(model_, {});
  machine.core->pin(std::vector<uint32_t>{20, 1, 11, 5});
  for (uint32_t layer = 0; layer < 3; ++layer) compute(*machine.core, shape_, make_call(shape_, layer, 30, random_));
  machine.core->set_budget(budget_for(2));
  EXPECT_EQ(machine.core->statistics().pinned, 2U);
  const uint32_t reads = machine.disk->reads_of(20) + machine.disk->reads_of(1);
  for (int turn = 0; turn < 60; ++turn) compute(*machine.core, shape_, make_call(shape_, turn % 3, 1, random_));
  EXPECT_EQ(machine.disk->reads_of(20) + machine.disk->reads_of(1), reads);
}

// The records of the next layer come by reading ahead, then.
TEST_F(CoreTest, PinnedExpertsStayFromTheFirstTimeThatTheyAreReadInAPrefill) {
  const Shape shape{.layers = 2, .experts = 40, .top_k = 3};
  const Model model = make_model(shape);
  for (const bool prefetch : {false, true}) {
    SCOPED_TRACE(prefetch);
    Settings settings{.readers = 4, .prefetch = prefetch};
    settings.budget_bytes = least_budget(model, settings) + 20 * model.layout.record_bytes;
    Machine machine(model, settings);
    // Fills the places that stay.
    for (int turn = 0; turn < 60; ++turn) compute(*machine.core, shape, make_call(shape, 0, 1, random_));
    machine.core->pin(std::vector<uint32_t>{40, 41, 42, 53});
    for (uint32_t layer = 0; layer < 2; ++layer) compute(*machine.core, shape, make_call(shape, layer, 40, random_));
    EXPECT_EQ(machine.core->statistics().pinned, 4U);
    const uint64_t misses = machine.core->statistics().misses;
    compute(*machine.core, shape, make_call_of(shape, 1, 1, {0, 1, 2}, random_));
    compute(*machine.core, shape, make_call_of(shape, 1, 1, {0, 1, 13}, random_));
    EXPECT_EQ(machine.core->statistics().misses, misses);
  }
}

// --- the budget ------------------------------------------------------------------------------------------------------

TEST_F(CoreTest, ABudgetBelowTheLeastIsRefusedWithTheNumber) {
  const uint64_t least = least_budget(model_, {});
  for (const uint64_t budget : {uint64_t{2}, least / 2, least - 1}) {
    try {
      Machine machine(model_, {.budget_bytes = budget});
      FAIL() << budget << " was accepted";
    } catch (const CoreError& error) {
      EXPECT_EQ(error.status, MOEDGE_BUDGET_TOO_SMALL);
      EXPECT_EQ(error.value, least);
      EXPECT_NE(std::string(error.what()).find(grouped(least)), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("5 records of " + grouped(layout().record_bytes)), std::string::npos);
    }
  }
  const auto statistics = Machine(model_, {.budget_bytes = least}).core->statistics();
  EXPECT_EQ(statistics.slots, shape_.top_k + 2);
  EXPECT_EQ(statistics.ring_slots, 2U);
}

TEST_F(CoreTest, ARefusedBudgetLeavesTheOldOneInForce) {
  Machine machine(model_, {.budget_bytes = budget_for(6)});
  const Call call = make_call(shape_, 0, 1, random_);
  const auto wanted = run(*machine.core, shape_, {call});
  EXPECT_THROW(machine.core->set_budget(1000), CoreError);
  const auto statistics = machine.core->statistics();
  EXPECT_EQ(statistics.budget_bytes, budget_for(6));
  EXPECT_EQ(statistics.slots, 11U);
  EXPECT_EQ(run(*machine.core, shape_, {call}), wanted);
  EXPECT_EQ(machine.core->statistics().misses, statistics.misses);
}

TEST_F(CoreTest, WithRoomForAllThereIsNoRing) {
  const auto statistics = Machine(model_, {}).core->statistics();
  EXPECT_EQ(statistics.slots, 30U);
  EXPECT_EQ(statistics.ring_slots, 0U);
  const auto almost = Machine(model_, {.budget_bytes = statistics.budget_bytes - 1}).core->statistics();
  EXPECT_EQ(almost.slots, 29U);
  EXPECT_EQ(almost.ring_slots, 3U);
}

TEST_F(CoreTest, AThousandPrefillsAndDecodesWithChangingBudgetsAreRightAndWithinTheBudget) {
  Machine first(model_, {});
  std::vector<Call> calls;
  std::vector<std::vector<uint32_t>> wanted;
  for (int i = 0; i < 40; ++i) {
    calls.push_back(make_call(shape_, random_.below(3), i % 2 ? 1 + random_.below(3) : 9 + random_.below(30), random_));
    wanted.push_back(run(*first.core, shape_, {calls.back()}));
  }
  const Settings settings{.readers = 4};
  Machine machine(model_, settings);
  for (int turn = 0; turn < (kFewerCases ? 250 : 1000); ++turn) {
    if (turn % 3 == 0) machine.core->set_budget(turn % 21 == 0 ? kRoomForAll : budget_for(random_.below(28), settings));
    const uint32_t index = 2 * random_.below(20) + turn % 2;
    ASSERT_EQ(run(*machine.core, shape_, {calls[index]}), wanted[index]) << turn;
    const auto statistics = machine.core->statistics();
    ASSERT_LE(statistics.used_bytes, statistics.budget_bytes) << turn;
    ASSERT_LE(statistics.resident, statistics.slots) << turn;
  }
}

// --- input -----------------------------------------------------------------------------------------------------------

TEST_F(CoreTest, InputThatCannotBeComputedIsRefusedAndTheNextCallWorks) {
  for (const uint32_t bits : {4U, 32U}) {
    SCOPED_TRACE(bits);
    const Model model = make_model({.quantization = {bits, 32, true}});
    Machine machine(model, {});
    const Call good = make_call(shape_, 0, 2, random_);
    const auto wanted = run(*machine.core, shape_, {good});
    std::vector<Call> bad(6, good);
    bad[0].layer = 3;
    bad[1].logits[11] = NAN;
    bad[2].logits[0] = INFINITY;
    bad[3].input[0] = INFINITY;
    bad[4].input[199] = NAN;
    bad[5].input[100] = -INFINITY;
    for (size_t i = 0; i < bad.size(); ++i) {
      try {
        compute(*machine.core, shape_, bad[i]);
        ADD_FAILURE() << i << " was accepted";
      } catch (const CoreError& error) {
        EXPECT_EQ(error.status, MOEDGE_BAD_INPUT) << i;
      }
      EXPECT_EQ(run(*machine.core, shape_, {good}), wanted);
    }
    EXPECT_THROW(compute(*machine.core, shape_, make_call(shape_, 0, 41, random_)), CoreError);
    float result = 0;
    EXPECT_THROW(machine.core->compute(0, 0, &result, &result, &result), CoreError);
  }
}

TEST_F(CoreTest, ActivationsThatOverflowInsideAnExpertAreRefusedAndTheNextCallWorks) {
  for (const uint32_t tokens : {1, 20}) {
    Machine machine(model_, {.budget_bytes = budget_for(3)});
    const Call good = make_call(shape_, 0, tokens, random_);
    const auto wanted = run(*machine.core, shape_, {good});
    Call large = good;
    for (float& value : large.input) value *= 1e38F;
    try {
      compute(*machine.core, shape_, large);
      ADD_FAILURE() << "it was accepted";
    } catch (const CoreError& error) {
      EXPECT_EQ(error.status, MOEDGE_BAD_INPUT);
    }
    EXPECT_EQ(run(*machine.core, shape_, {good}), wanted);
  }
}

TEST_F(CoreTest, APinOfAnExpertThatDoesNotExistIsRefusedAndTheOldPinsStay) {
  Machine machine(model_, {.budget_bytes = budget_for(4)});
  machine.core->pin(std::vector<uint32_t>{7});
  compute(*machine.core, shape_, make_call_of(shape_, 0, 1, {6, 7, 8}, random_));
  EXPECT_EQ(machine.core->statistics().pinned, 1U);
  EXPECT_THROW(machine.core->pin(std::vector<uint32_t>{0, 30}), CoreError);
  EXPECT_EQ(machine.core->statistics().pinned, 1U);
  machine.core->pin({});
  EXPECT_EQ(machine.core->statistics().pinned, 0U);
}

// --- what it tells ---------------------------------------------------------------------------------------------------

TEST_F(CoreTest, CountsTellHowManyTokensChoseEachExpert) {
  Machine machine(model_, {.budget_bytes = kLeastBudget});
  std::vector<uint64_t> wanted(30);
  for (const Call& call : make_conversation(shape_)) {
    compute(*machine.core, shape_, call);
    for (uint32_t token = 0; token < call.tokens; ++token) {
      for (const Pick& pick : picks_of(call.logits.data() + token * 10, 10, 3)) ++wanted[call.layer * 10 + pick.expert];
    }
  }
  std::vector<uint64_t> counts(30);
  machine.core->counts(counts.data());
  EXPECT_EQ(counts, wanted);
}

TEST_F(CoreTest, StatisticsAddUp) {
  Machine machine(model_, {.budget_bytes = budget_for(3), .prefetch = false});
  uint64_t pairs = 0;
  uint64_t tokens = 0;
  const std::vector<Call> calls = make_conversation(shape_);
  for (const Call& call : calls) {
    compute(*machine.core, shape_, call);
    pairs += keys_of(shape_, call).size();
    tokens += call.tokens;
  }
  const auto statistics = machine.core->statistics();
  EXPECT_EQ(statistics.calls, calls.size());
  EXPECT_EQ(statistics.tokens, tokens);
  EXPECT_EQ(statistics.hits + statistics.misses, pairs);
  EXPECT_EQ(statistics.reads, statistics.misses);
  EXPECT_EQ(statistics.reads, machine.disk->reads_of_all());
  EXPECT_EQ(statistics.read_bytes, statistics.reads * layout().record_bytes);
  EXPECT_EQ(statistics.failed_reads, 0U);
  EXPECT_GE(statistics.queue_depth_sum, statistics.reads);
  EXPECT_EQ(statistics.slots, 8U);
  EXPECT_GT(statistics.compute_ns, 0U);
  EXPECT_EQ(statistics.direct, 0U);
}

TEST_F(CoreTest, StatisticsAndCountsMayBeReadWhileAnotherThreadComputes) {
  Machine machine(model_, {});
  std::atomic<bool> done{false};
  std::thread reader([&] {
    std::vector<uint64_t> counts(30);
    while (!done) {
      machine.core->counts(counts.data());
      const auto statistics = machine.core->statistics();
      EXPECT_LE(statistics.resident, 30U + 16U);
    }
  });
  for (int turn = 0; turn < (kFewerCases ? 20 : 200); ++turn) {
    machine.core->set_budget(budget_for(turn % 20));
    compute(*machine.core, shape_, make_call(shape_, turn % 3, turn % 4 ? 1 : 30, random_));
  }
  done = true;
  reader.join();
}

}  // namespace
}  // namespace moedge::test
