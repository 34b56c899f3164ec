// Pins and budgets: what stays in memory, and how much of it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core.hpp"
#include "core_fixture.hpp"
#include "model.hpp"

namespace moedge::test {
namespace {

// --- pins ------------------------------------------------------------------------------------------------------------

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

}  // namespace
}  // namespace moedge::test
