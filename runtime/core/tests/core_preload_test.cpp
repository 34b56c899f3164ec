// Preloading through the core: never another result, faults only where a call needs the record, what is counted.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core.hpp"
#include "model.hpp"

namespace moedge::test {
namespace {

// Long enough for a read that is not blocked, under a sanitizer on a busy machine.
constexpr uint64_t kTimeoutMs = kFewerCases ? 1000 : 400;

class CorePreload : public testing::Test {
 protected:
  std::optional<CoreError> error_of(Core& core, const Call& call) const {
    try {
      compute(core, shape_, call);
    } catch (const CoreError& error) {
      return error;
    }
    return std::nullopt;
  }

  uint64_t budget_for(uint32_t slots, const Settings& settings = {}) const {
    return least_budget(model_, settings) + slots * model_.layout.record_bytes;
  }

  void wait_for_reads(const Machine& machine, uint64_t reads) const {
    must_return([&] {
      while (machine.core->statistics().reads + machine.core->statistics().failed_reads < reads) {
        std::this_thread::yield();
      }
    });
  }

  const Shape shape_{};
  const Model model_ = make_model(shape_);
  const uint32_t records_ = shape_.layers * shape_.experts;
  Random random_{1};
};

class PreloadIdentity : public CorePreload, public testing::WithParamInterface<Quantization> {};

INSTANTIATE_TEST_SUITE_P(, PreloadIdentity,
                         testing::Values(Quantization{4, 32, true}, Quantization{8, 64, false},
                                         Quantization{32, 32, true}),
                         [](const auto& test) { return "Bits" + std::to_string(test.param.bits); });

TEST_P(PreloadIdentity, ResultsDoNotDependOnPreloadingWheneverItIsInterrupted) {
  const Model model = make_model({.quantization = GetParam()});
  const std::vector<Call> calls = make_conversation(model.shape);
  const std::vector<uint32_t> wanted = run(*Machine(model, {.prefetch = false}).core, model.shape, calls);
  uint64_t used = 0;
  for (const uint32_t above_least : {0, 4, 14, 40}) {
    for (const uint32_t readers : {1, 5}) {
      if (kFewerCases && (above_least == 4) != (readers == 1)) continue;
      Settings settings{.threads = 3, .readers = readers};
      settings.budget_bytes = least_budget(model, settings) + above_least * model.layout.record_bytes;
      Machine machine(model, settings);
      machine.disk->shuffle(above_least);
      std::vector<uint32_t> bits;
      for (const Call& call : calls) {
        if (random_.below(4)) machine.core->preload();
        for (uint32_t i = random_.below(3) * random_.below(300); i > 0; --i) std::this_thread::yield();
        if (random_.below(8) == 0) machine.core->pin(std::vector<uint32_t>{random_.below(30), random_.below(30)});
        for (const uint32_t value : run(*machine.core, model.shape, {call})) bits.push_back(value);
      }
      EXPECT_EQ(bits, wanted) << above_least << " slots more than the least, " << readers << " readers";
      const auto statistics = machine.core->statistics();
      EXPECT_LE(statistics.used_bytes, statistics.budget_bytes);
      used += statistics.preload_used;
    }
  }
  EXPECT_GT(used, 0U);
}

TEST_F(CorePreload, OfEverythingLeavesNothingToRead) {
  Machine machine(model_, {.readers = 3});
  machine.core->preload();
  wait_for_reads(machine, records_);
  const std::vector<Call> calls = make_conversation(shape_);
  run(*machine.core, shape_, calls);
  const auto statistics = machine.core->statistics();
  EXPECT_EQ(statistics.reads, records_);
  EXPECT_EQ(statistics.misses, 0U);
  EXPECT_EQ(statistics.flash_wait_ns, 0U);
  EXPECT_EQ(statistics.preloaded, records_);
  EXPECT_EQ(statistics.preloaded_bytes, records_ * model_.layout.record_bytes);
  EXPECT_EQ(statistics.preload_used, records_);
}

TEST_F(CorePreload, BringsTheExpertsThatAnEarlierRunChoseMostOften) {
  Machine machine(model_, {.budget_bytes = budget_for(7)});  // ten places stay
  std::vector<uint64_t> counts(records_, 10);
  const std::vector<uint32_t> hot{3, 8, 11, 14, 19, 22, 27};
  for (const uint32_t key : hot) counts[key] = 1000;
  machine.core->set_counts(counts.data());
  machine.core->preload();
  wait_for_reads(machine, 10);
  for (const uint32_t key : hot) EXPECT_EQ(machine.disk->reads_of(key), 1U) << key;
  // They stay when others are used now and then.
  for (int turn = 0; turn < 6; ++turn) compute(*machine.core, shape_, make_call_of(shape_, 0, 1, {0, 1, 2}, random_));
  const uint64_t misses = machine.core->statistics().misses;
  compute(*machine.core, shape_, make_call_of(shape_, 1, 1, {1, 4, 9}, random_));
  EXPECT_EQ(machine.core->statistics().misses, misses);
}

TEST_F(CorePreload, CountsGoOnFromThoseThatWereGiven) {
  Machine machine(model_, {});
  std::vector<uint64_t> counts(records_, 5);
  counts[29] = uint64_t{1} << 62;
  machine.core->set_counts(counts.data());
  compute(*machine.core, shape_, make_call_of(shape_, 1, 4, {0, 6, 7}, random_));
  for (const uint32_t key : {10, 16, 17}) counts[key] += 4;
  std::vector<uint64_t> got(records_);
  machine.core->counts(got.data());
  EXPECT_EQ(got, counts);
}

TEST_F(CorePreload, StatisticsMayBeReadWhileItGoesOn) {
  Machine machine(model_, {.readers = 4});
  machine.core->pin(std::vector<uint32_t>{1, 2, 3, 15, 29});
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      const auto statistics = machine.core->statistics();
      EXPECT_LE(statistics.pinned, statistics.resident);
    }
  });
  for (int turn = 0; turn < (kFewerCases ? 20 : 200); ++turn) {
    machine.core->preload();
    for (uint32_t i = random_.below(50); i > 0; --i) std::this_thread::yield();
    if (turn % 3 == 0) compute(*machine.core, shape_, make_call(shape_, turn % 3, 1 + turn % 30, random_));
  }
  done = true;
  reader.join();
}

TEST_F(CorePreload, OfADamagedRecordFailsOnlyTheCallThatNeedsIt) {
  constexpr uint32_t kKey = 14;
  for (const Fault fault : {Fault::kIoError, Fault::kEnds, Fault::kEndsUnaligned, Fault::kWrongFirstByte,
                            Fault::kWrongLastByte, Fault::kThrows}) {
    Machine machine(model_, {});
    machine.disk->set_fault(kKey, fault);
    for (int turn = 0; turn < 3; ++turn) {
      machine.core->preload();
      wait_for_reads(machine, records_ + 2 * turn);
      EXPECT_FALSE(error_of(*machine.core, make_call_of(shape_, 1, 1, {0, 2, 9}, random_)));
      const auto error = error_of(*machine.core, make_call_of(shape_, 1, 1, {0, 2, 4}, random_));
      ASSERT_TRUE(error);
      EXPECT_EQ(error->status, MOEDGE_EXPERT_DAMAGED);
      EXPECT_EQ(error->layer, 1U);
      EXPECT_EQ(error->expert, 4U);
      EXPECT_EQ(error->offset, kKey * model_.layout.record_bytes);
      EXPECT_EQ(error->os_error, fault == Fault::kIoError ? EIO : 0);
      EXPECT_EQ(machine.disk->reads_of(kKey), 2U * turn + 2) << "ahead, and for the call";
    }
    machine.disk->clear_faults();
    machine.core->preload();
    wait_for_reads(machine, records_ + 6);
    EXPECT_FALSE(error_of(*machine.core, make_call_of(shape_, 1, 1, {0, 2, 4}, random_)));
    EXPECT_EQ(machine.core->statistics().failed_reads, 6U);
  }
}

TEST_F(CorePreload, ThatHangsIsATimeoutOfTheCallThatNeedsItAndOfNoOther) {
  Machine machine(model_, {.readers = 2, .read_timeout_ms = kTimeoutMs});
  machine.disk->set_fault(0, Fault::kBlocks);
  machine.core->preload();
  ASSERT_TRUE(machine.disk->wait_until_blocked(1));
  std::optional<CoreError> error;
  must_return([&] { error = error_of(*machine.core, make_call_of(shape_, 1, 1, {0, 2, 9}, random_)); });
  EXPECT_FALSE(error) << error->what();
  const Call needs_it = make_call_of(shape_, 0, 1, {0, 2, 9}, random_);
  must_return([&] { error = error_of(*machine.core, needs_it); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, MOEDGE_READ_TIMEOUT);
  EXPECT_EQ(error->layer, 0U);
  EXPECT_EQ(error->expert, 0U);
  EXPECT_THROW(machine.core->set_budget(budget_for(0, {.readers = 2})), CoreError);
  machine.core->preload();
  must_return([&] { error = error_of(*machine.core, make_call_of(shape_, 2, 1, {0, 2, 9}, random_)); });
  EXPECT_FALSE(error) << error->what();
  machine.disk->clear_faults();
  EXPECT_FALSE(error_of(*machine.core, needs_it));
}

TEST_F(CorePreload, ThatHangsInAllReadersIsATimeoutThatBeginsWithTheCall) {
  Machine machine(model_, {.readers = 2, .read_timeout_ms = kTimeoutMs});
  machine.disk->set_fault_of_all(Fault::kBlocks);
  machine.core->preload();
  ASSERT_TRUE(machine.disk->wait_until_blocked(2));
  const Call call = make_call_of(shape_, 2, 1, {0, 2, 9}, random_);
  const auto start = std::chrono::steady_clock::now();
  std::optional<CoreError> error;
  must_return([&] { error = error_of(*machine.core, call); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, MOEDGE_READ_TIMEOUT);
  EXPECT_EQ(error->layer, 2U);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(kTimeoutMs));
  machine.disk->clear_faults();
  EXPECT_FALSE(error_of(*machine.core, call));
}

TEST_F(CorePreload, DoesNotKeepACoreFromClosing) {
  Machine machine(model_, {.readers = 2});
  machine.disk->set_fault_of_all(Fault::kBlocks);
  machine.core->preload();
  ASSERT_TRUE(machine.disk->wait_until_blocked(2));
  must_return([&] {
    std::thread closer([&] { machine.core.reset(); });
    machine.disk->clear_faults();
    closer.join();
  });
}

}  // namespace
}  // namespace moedge::test
