// A fault is an error with layer, expert and offset; the next call works once the fault is gone.
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "core.hpp"
#include "model.hpp"

namespace moedge::test {
namespace {

constexpr uint32_t kLayer = 1;
constexpr uint32_t kExpert = 4;
// Long enough for a read that is not blocked, under a sanitizer on a busy machine.
constexpr uint64_t kTimeoutMs = kFewerCases ? 1000 : 400;

class Faults : public testing::Test {
 protected:
  Faults()
      : random_(1),
        decode_(make_call_of(shape_, kLayer, 1, {1, kExpert, 7}, random_)),
        prefill_(make_call_of(shape_, kLayer, 20, {1, kExpert, 7}, random_)),
        others_(make_call_of(shape_, kLayer, 1, {0, 2, 9}, random_)) {}

  std::optional<CoreError> error_of(Core& core, const Call& call) const {
    try {
      compute(core, shape_, call);
    } catch (const CoreError& error) {
      return error;
    }
    return std::nullopt;
  }

  std::vector<uint32_t> result_of(const Call& call) const {
    Machine machine(model_, {});
    return run(*machine.core, shape_, {call});
  }

  void expect_place(const CoreError& error) const {
    EXPECT_EQ(error.layer, kLayer);
    EXPECT_EQ(error.expert, kExpert);
    EXPECT_EQ(error.offset, key_ * model_.layout.record_bytes);
  }

  const Shape shape_{};
  const Model model_ = make_model(shape_);
  const uint32_t key_ = kLayer * shape_.experts + kExpert;
  Random random_;
  const Call decode_, prefill_, others_;
};

struct Case {
  const char* name;
  Fault fault;
  int os_error;
  const char* message;
};

class EachFault : public Faults, public testing::WithParamInterface<Case> {};

INSTANTIATE_TEST_SUITE_P(, EachFault,
                         testing::Values(Case{"IoError", Fault::kIoError, EIO, "Input/output error"},
                                         Case{"Ends", Fault::kEnds, 0, "the file ends after"},
                                         Case{"EndsUnaligned", Fault::kEndsUnaligned, 0, "the file ends after"},
                                         Case{"WrongFirstByte", Fault::kWrongFirstByte, 0, "CRC-32C"},
                                         Case{"WrongLastByte", Fault::kWrongLastByte, 0, "CRC-32C"},
                                         Case{"Throws", Fault::kThrows, 0, "the reader is broken"}),
                         [](const auto& test) { return test.param.name; });

TEST_P(EachFault, FailsTheCallThatNeedsTheExpertUntilItIsGone) {
  for (const Call& call : {decode_, prefill_}) {
    for (const uint64_t budget : {kRoomForAll, kLeastBudget}) {
      for (const uint32_t readers : {1, 4}) {
        Machine machine(model_, {.budget_bytes = budget, .readers = readers});
        machine.disk->set_fault(key_, GetParam().fault);
        for (int turn = 0; turn < 3; ++turn) {
          const auto error = error_of(*machine.core, call);
          ASSERT_TRUE(error);
          EXPECT_EQ(error->status, MOEDGE_EXPERT_DAMAGED);
          EXPECT_EQ(error->os_error, GetParam().os_error);
          EXPECT_NE(std::string(error->what()).find(GetParam().message), std::string::npos) << error->what();
          expect_place(*error);
        }
        EXPECT_EQ(machine.core->statistics().failed_reads, 3U);
        EXPECT_EQ(machine.core->statistics().calls, 0U);
        EXPECT_EQ(run(*machine.core, shape_, {others_}), result_of(others_)) << "a call that does not need it";
        machine.disk->clear_faults();
        EXPECT_EQ(run(*machine.core, shape_, {call}), result_of(call));
        EXPECT_EQ(run(*machine.core, shape_, {prefill_, decode_}),
                  run(*Machine(model_, {}).core, shape_, {prefill_, decode_}));
      }
    }
  }
}

TEST_P(EachFault, OfARecordThatIsOnlyReadAheadFailsNothing) {
  const Model model = make_model({.layers = 3, .experts = 10, .top_k = 3});
  Machine machine(model, {.readers = 1});
  Random random(2);
  const Call first = make_call(shape_, 0, 30, random);
  const Call second = make_call_of(shape_, 1, 30, {0, 1, 2}, random);
  const Call needs_it = make_call_of(shape_, 1, 1, {2, 3, kExpert}, random);
  machine.disk->set_fault(key_, GetParam().fault);
  EXPECT_FALSE(error_of(*machine.core, first));
  EXPECT_FALSE(error_of(*machine.core, second));
  const auto error = error_of(*machine.core, needs_it);
  ASSERT_TRUE(error);
  expect_place(*error);
  machine.disk->clear_faults();
  EXPECT_FALSE(error_of(*machine.core, needs_it));
}

TEST_F(Faults, OfAllRecordsAreOneErrorACallAndThenItWorks) {
  Machine machine(model_, {.budget_bytes = kLeastBudget, .threads = 4, .readers = 16});
  const std::vector<Call> calls = make_conversation(shape_);
  Random random(3);
  for (const Fault fault : {Fault::kIoError, Fault::kWrongLastByte, Fault::kEnds}) {
    machine.disk->set_fault_of_all(fault);
    for (const Call& call : calls) {
      const auto error = error_of(*machine.core, call);
      ASSERT_TRUE(error);
      EXPECT_EQ(error->status, MOEDGE_EXPERT_DAMAGED);
      EXPECT_EQ(error->layer, call.layer);
      EXPECT_EQ(error->offset, (error->layer * shape_.experts + error->expert) * model_.layout.record_bytes);
    }
  }
  machine.disk->clear_faults();
  EXPECT_EQ(run(*machine.core, shape_, calls), run(*Machine(model_, {}).core, shape_, calls));
}

// Faults come and go between calls and during reading ahead; whatever succeeds is right.
TEST_F(Faults, OfAnyKindAtAnyTimeNeverChangeAResult) {
  const std::vector<Call> calls = make_conversation(shape_);
  Machine plain(model_, {});
  std::vector<std::vector<uint32_t>> wanted;
  for (const Call& call : calls) wanted.push_back(run(*plain.core, shape_, {call}));
  for (const uint32_t slots_above_least : {0, 12}) {
    Settings settings{.threads = 3, .readers = 8};
    settings.budget_bytes = least_budget(model_, settings) + slots_above_least * model_.layout.record_bytes;
    Machine machine(model_, settings);
    machine.disk->shuffle(4);
    constexpr Fault kAll[] = {Fault::kIoError,        Fault::kEnds,          Fault::kEndsUnaligned,
                              Fault::kWrongFirstByte, Fault::kWrongLastByte, Fault::kThrows};
    Random random(5);
    uint32_t failed = 0;
    for (uint32_t turn = 0; turn < (kFewerCases ? 200 : 3000); ++turn) {
      machine.disk->clear_faults();
      for (uint32_t i = random.below(4); i > 0; --i) machine.disk->set_fault(random.below(30), kAll[random.below(6)]);
      const uint32_t index = turn % calls.size();
      std::vector<float> result;
      try {
        result = compute(*machine.core, shape_, calls[index]);
      } catch (const CoreError& error) {
        ++failed;
        continue;
      }
      for (size_t i = 0; i < result.size(); ++i) ASSERT_EQ(bits_of(result[i]), wanted[index][i]) << turn;
    }
    EXPECT_GT(failed, 0U);
    EXPECT_LE(machine.core->statistics().used_bytes, machine.core->statistics().budget_bytes);
  }
}

TEST_F(Faults, AReadThatDoesNotEndIsATimeoutAndTheRestGoesOn) {
  for (const Call& call : {decode_, prefill_}) {
    for (const uint64_t budget : {kRoomForAll, least_budget(model_, {}) + 4 * model_.layout.record_bytes}) {
      if (kFewerCases && (budget == kRoomForAll) != (call.tokens == 1)) continue;
      Machine machine(model_, {.budget_bytes = budget, .readers = 2, .read_timeout_ms = kTimeoutMs});
      machine.disk->set_fault(key_, Fault::kBlocks);
      std::optional<CoreError> error;
      must_return([&] { error = error_of(*machine.core, call); });
      ASSERT_TRUE(error);
      EXPECT_EQ(error->status, MOEDGE_READ_TIMEOUT);
      EXPECT_NE(std::string(error->what()).find(grouped(kTimeoutMs) + " ms"), std::string::npos) << error->what();
      expect_place(*error);
      // The other reader still reads; the timeout of this call does not begin in the last one.
      must_return([&] { error = error_of(*machine.core, others_); });
      EXPECT_FALSE(error) << error->what();
      machine.disk->clear_faults();
      must_return([&] { error = error_of(*machine.core, call); });
      EXPECT_FALSE(error) << error->what();
      EXPECT_EQ(run(*machine.core, shape_, {call, others_}), run(*Machine(model_, {}).core, shape_, {call, others_}));
    }
  }
}

TEST_F(Faults, TheTimeoutOfACallBeginsWithTheCall) {
  Machine machine(model_, {.readers = 2, .read_timeout_ms = kTimeoutMs});
  machine.disk->set_fault(key_, Fault::kBlocks);
  for (int turn = 0; turn < 2; ++turn) {
    const auto start = std::chrono::steady_clock::now();
    const auto error = error_of(*machine.core, decode_);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->status, MOEDGE_READ_TIMEOUT);
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(kTimeoutMs)) << turn;
  }
  machine.disk->clear_faults();
}

TEST_F(Faults, ABudgetCannotChangeWhileAReadHangsButTheOldOneStays) {
  Machine machine(model_, {.readers = 2, .read_timeout_ms = kTimeoutMs});
  machine.disk->set_fault(key_, Fault::kBlocks);
  ASSERT_TRUE(error_of(*machine.core, decode_));
  const uint64_t before = machine.core->statistics().budget_bytes;
  try {
    machine.core->set_budget(least_budget(model_, {}));
    FAIL() << "the budget was changed";
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_READ_TIMEOUT);
  }
  EXPECT_EQ(machine.core->statistics().budget_bytes, before);
  EXPECT_FALSE(error_of(*machine.core, others_));
  machine.disk->clear_faults();
  machine.core->set_budget(least_budget(model_, {}));
  EXPECT_EQ(run(*machine.core, shape_, {decode_}), result_of(decode_));
}

// A wrong scale can make activations overflow before the checksum is known; the record is to blame, not the input.
TEST_F(Faults, ThatMakeActivationsOverflowAreDamageNotBadInput) {
  for (const Call& call : {decode_, prefill_}) {
    Model damaged = model_;
    uint8_t* scales = damaged.bytes.data() + key_ * model_.layout.record_bytes + model_.layout.fc1.scale;
    for (uint64_t i = 0; i < model_.layout.fc1.tiles * model_.layout.fc1.scale_tile_bytes; i += 2) {
      scales[i + 1] = 0x7C;  // infinity, or NaN
    }
    Machine machine(damaged, {});
    const auto error = error_of(*machine.core, call);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->status, MOEDGE_EXPERT_DAMAGED);
    expect_place(*error);
  }
}

TEST_F(Faults, WithoutATimeoutACallWaitsUntilTheReadEnds) {
  Machine machine(model_, {.readers = 1, .read_timeout_ms = 0});
  machine.disk->set_fault(key_, Fault::kBlocks);
  must_return([&] {
    std::thread caller([&] { EXPECT_FALSE(error_of(*machine.core, decode_)); });
    EXPECT_TRUE(machine.disk->wait_until_blocked(1));
    machine.disk->clear_faults();
    caller.join();
  });
}

TEST_F(Faults, ClosingWhileReadsAreQueuedWaitsOnlyForThoseUnderWay) {
  const Shape shape{.layers = 2, .experts = 24, .top_k = 3};
  const Model model = make_model(shape);
  Machine machine(model, {.readers = 2});
  for (uint32_t expert = 0; expert < 24; ++expert) machine.disk->set_fault(24 + expert, Fault::kBlocks);
  Random random(6);
  compute(*machine.core, shape, make_call(shape, 0, 30, random));
  ASSERT_TRUE(machine.disk->wait_until_blocked(2));
  must_return([&] {
    std::thread closer([&] { machine.core.reset(); });
    machine.disk->clear_faults();
    closer.join();
  });
}

}  // namespace
}  // namespace moedge::test
