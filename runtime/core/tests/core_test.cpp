// What is read how often, what input is refused, and what a core tells about itself.
#include "core.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>
#include <thread>
#include <vector>

#include "core_fixture.hpp"
#include "model.hpp"
#include "reference.hpp"

namespace moedge::test {
namespace {

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
    EXPECT_THROW(machine.core->compute(0, 0, &result, &result, nullptr, 0, &result), CoreError);
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
