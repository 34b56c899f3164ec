#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "isa.hpp"
#include "model.hpp"
#include "moedge_core.h"
#include "temporary_file.hpp"

namespace moedge::test {
namespace {

class CApi : public testing::Test {
 protected:
  CApi() {
    options_.abi = MOEDGE_CORE_ABI;
    options_.layers = shape_.layers;
    options_.experts = shape_.experts;
    options_.top_k = shape_.top_k;
    options_.hidden_size = shape_.hidden;
    options_.intermediate_size = shape_.intermediate;
    options_.bits = shape_.quantization.bits;
    options_.block_size = shape_.quantization.block;
    options_.symmetric = shape_.quantization.symmetric;
    options_.threads = 2;
    options_.readers = 2;
    options_.max_tokens = 40;
    options_.direct = 1;
    options_.prefetch = 1;
    options_.record_bytes = model_.layout.record_bytes;
    options_.path = file_.path().c_str();
    options_.crc32c = model_.crc32c.data();
  }

  ~CApi() override { moedge_core_close(core_); }

  moedge_status open() { return moedge_core_open(&options_, &core_, &error_); }

  moedge_status compute(const Call& call) {
    result_.assign(call.input.size(), -7);
    return moedge_core_compute(core_, call.layer, call.tokens, call.input.data(), call.logits.data(), nullptr, 0,
                               result_.data(), &error_);
  }

  const Shape shape_{};
  const Model model_ = make_model(shape_);
  const TemporaryFile file_{MOEDGE_SCRATCH, model_.bytes};
  moedge_core_options options_{};
  moedge_core* core_ = nullptr;
  moedge_error error_{};
  std::vector<float> result_;
};

TEST_F(CApi, AConversationFromAFileGivesWhatTheCoreGivesFromMemory) {
  Machine machine(model_, {.threads = 1, .readers = 1, .isa = "scalar"});
  for (const uint32_t direct : {0, 1}) {
    options_.direct = direct;
    ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
    for (const Call& call : make_conversation(shape_)) {
      ASSERT_EQ(compute(call), MOEDGE_OK) << error_.message;
      const std::vector<float> wanted = test::compute(*machine.core, shape_, call);
      ASSERT_EQ(memcmp(result_.data(), wanted.data(), wanted.size() * sizeof(float)), 0);
    }
    EXPECT_STREQ(moedge_core_isa(core_), moedge_core_best_isa());
    moedge_core_statistics statistics;
    moedge_core_get_statistics(core_, &statistics);
    EXPECT_EQ(statistics.calls, 30U);
    std::vector<uint64_t> counts(30);
    moedge_core_counts(core_, counts.data());
    uint64_t sum = 0;
    for (const uint64_t count : counts) sum += count;
    EXPECT_EQ(sum, statistics.tokens * shape_.top_k);
    moedge_core_close(core_);
    core_ = nullptr;
  }
}

TEST_F(CApi, OptionsOutOfRangeAreRefusedByName) {
  using Change = std::function<void(moedge_core_options&)>;
  const std::pair<const char*, Change> cases[] = {
      {"interface version", [](auto& o) { o.abi = 0; }},
      {"layers=0", [](auto& o) { o.layers = 0; }},
      {"layers=", [](auto& o) { o.layers = UINT32_MAX; }},
      {"experts=0", [](auto& o) { o.experts = 0; }},
      {"layers times experts=", [](auto& o) { o.layers = o.experts = 1 << 20; }},
      {"top_k=0", [](auto& o) { o.top_k = 0; }},
      {"top_k=11", [](auto& o) { o.top_k = 11; }},
      {"hidden_size=0", [](auto& o) { o.hidden_size = 0; }},
      {"intermediate_size=4,294,967,295", [](auto& o) { o.intermediate_size = UINT32_MAX; }},
      {"hidden_size=101; at 4 bits it must be even", [](auto& o) { o.hidden_size = 101; }},
      {"intermediate_size=73; at 4 bits it must be even", [](auto& o) { o.intermediate_size = 73; }},
      {"bits=5", [](auto& o) { o.bits = 5; }},
      {"block_size=16", [](auto& o) { o.block_size = 16; }},
      {"threads=0", [](auto& o) { o.threads = 0; }},
      {"threads=65", [](auto& o) { o.threads = 65; }},
      {"readers=0", [](auto& o) { o.readers = 0; }},
      {"max_tokens=0", [](auto& o) { o.max_tokens = 0; }},
      {"record_bytes=", [](auto& o) { o.record_bytes += 4096; }},
      {"record_bytes=", [](auto& o) { o.hidden_size += 32; }},
      {"isa=neon", [](auto& o) { o.isa = "neon"; }},
      {"path", [](auto& o) { o.path = nullptr; }},
      {"crc32c", [](auto& o) { o.crc32c = nullptr; }},
  };
  const moedge_core_options good = options_;
  for (const auto& [message, change] : cases) {
    options_ = good;
    change(options_);
    ASSERT_EQ(open(), MOEDGE_BAD_OPTION) << message;
    EXPECT_EQ(error_.status, MOEDGE_BAD_OPTION);
    EXPECT_NE(std::string(error_.message).find(message), std::string::npos) << error_.message;
    EXPECT_EQ(moedge_core_open(&options_, &core_, nullptr), MOEDGE_BAD_OPTION) << "without an error to fill";
    EXPECT_EQ(core_, nullptr);
  }
}

TEST_F(CApi, AnUnusableFileIsNamedSo) {
  options_.path = "/nowhere/experts.bin";
  EXPECT_EQ(open(), MOEDGE_FILE_UNUSABLE);
  EXPECT_EQ(error_.os_error, ENOENT);
  const TemporaryFile shorter(MOEDGE_SCRATCH, std::vector<uint8_t>(4096));
  options_.path = shorter.path().c_str();
  EXPECT_EQ(open(), MOEDGE_FILE_UNUSABLE);
}

TEST_F(CApi, ABudgetThatIsTooSmallComesWithTheLeast) {
  options_.budget_bytes = 100000;
  ASSERT_EQ(open(), MOEDGE_BUDGET_TOO_SMALL);
  options_.budget_bytes = error_.value - 1;
  ASSERT_EQ(open(), MOEDGE_BUDGET_TOO_SMALL);
  options_.budget_bytes = error_.value;
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  EXPECT_EQ(moedge_core_set_budget(core_, options_.budget_bytes - 1, &error_), MOEDGE_BUDGET_TOO_SMALL);
  EXPECT_EQ(error_.value, options_.budget_bytes);
  EXPECT_EQ(moedge_core_set_budget(core_, 0, &error_), MOEDGE_OK);
}

TEST_F(CApi, AFileCutAfterOpeningFailsWithLayerExpertAndOffset) {
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  const uint64_t offset = 17 * model_.layout.record_bytes;
  ASSERT_EQ(truncate(file_.path().c_str(), static_cast<off_t>(offset + 4096 + 77)), 0);
  Random random(1);
  EXPECT_EQ(compute(make_call_of(shape_, 1, 1, {1, 3, 6}, random)), MOEDGE_OK) << error_.message;
  ASSERT_EQ(compute(make_call_of(shape_, 1, 1, {1, 3, 7}, random)), MOEDGE_EXPERT_DAMAGED);
  EXPECT_EQ(error_.layer, 1U);
  EXPECT_EQ(error_.expert, 7U);
  EXPECT_EQ(error_.offset, offset);
  EXPECT_NE(std::string(error_.message).find("the file ends after 4,173 of"), std::string::npos) << error_.message;
}

TEST_F(CApi, AWrongByteInTheFileFailsTheCallUntilTheFileIsRight) {
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  const uint64_t at = 17 * model_.layout.record_bytes + 4999;
  const auto put = [&](uint8_t byte) {
    std::fstream file(file_.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(byte));
  };
  Random random(1);
  const Call call = make_call_of(shape_, 1, 1, {1, 3, 7}, random);
  put(model_.bytes[at] ^ 4);
  ASSERT_EQ(compute(call), MOEDGE_EXPERT_DAMAGED);
  EXPECT_EQ(error_.expert, 7U);
  EXPECT_NE(std::string(error_.message).find("CRC-32C"), std::string::npos) << error_.message;
  put(model_.bytes[at]);
  EXPECT_EQ(compute(call), MOEDGE_OK) << error_.message;
}

TEST_F(CApi, BadInputAndPinsAreStatuses) {
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  Random random(1);
  Call call = make_call(shape_, 0, 1, random);
  call.logits[3] = NAN;
  EXPECT_EQ(compute(call), MOEDGE_BAD_INPUT);
  const uint32_t keys[] = {0, 29, 30};
  EXPECT_EQ(moedge_core_pin(core_, keys, 2, &error_), MOEDGE_OK);
  EXPECT_EQ(moedge_core_pin(core_, keys, 3, &error_), MOEDGE_BAD_OPTION);
  EXPECT_EQ(moedge_core_pin(core_, nullptr, 0, &error_), MOEDGE_OK);
}

TEST_F(CApi, PreloadingAndCountsOfAnEarlierRunChangeNoResult) {
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  Random random(1);
  const Call call = make_call(shape_, 1, 30, random);
  ASSERT_EQ(compute(call), MOEDGE_OK) << error_.message;
  const std::vector<float> wanted = result_;
  std::vector<uint64_t> counts(30);
  moedge_core_counts(core_, counts.data());
  moedge_core_close(core_);
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  moedge_core_set_counts(core_, counts.data());
  EXPECT_EQ(moedge_core_preload(core_, &error_), MOEDGE_OK);
  moedge_core_statistics statistics{};
  must_return([&] {
    while (statistics.reads < 30) moedge_core_get_statistics(core_, &statistics);
  });
  ASSERT_EQ(compute(call), MOEDGE_OK) << error_.message;
  EXPECT_EQ(memcmp(result_.data(), wanted.data(), wanted.size() * sizeof(float)), 0);
  moedge_core_get_statistics(core_, &statistics);
  EXPECT_EQ(statistics.preloaded, 30U);
  EXPECT_EQ(statistics.preloaded_bytes, 30 * model_.layout.record_bytes);
  EXPECT_GT(statistics.preload_used, 0U);
  for (uint64_t& count : counts) count *= 2;
  std::vector<uint64_t> both(30);
  moedge_core_counts(core_, both.data());
  EXPECT_EQ(both, counts);
  EXPECT_EQ(moedge_core_preload(core_, nullptr), MOEDGE_OK) << "without an error to fill";
}

TEST_F(CApi, InstructionSetsCanBeAskedFor) {
  EXPECT_EQ(moedge_core_has_isa("scalar"), 1);
  EXPECT_EQ(moedge_core_has_isa("sse2"), 0);
  EXPECT_EQ(moedge_core_has_isa(moedge_core_best_isa()), 1);
  options_.isa = "scalar";
  ASSERT_EQ(open(), MOEDGE_OK) << error_.message;
  EXPECT_STREQ(moedge_core_isa(core_), "scalar");
}

TEST_F(CApi, ClosingNothingIsAllowed) { moedge_core_close(nullptr); }

TEST_F(CApi, ThreadsThatCannotBeStartedAreAnErrorAndNotTheEnd) {
  if (kFewerCases) GTEST_SKIP() << "a sanitizer or an emulator does not run with limited address space";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const bool readers : {true, false}) {
    (readers ? options_.readers : options_.threads) = 64;
    options_.direct = 0;  // reads by threads
    EXPECT_EXIT(
        {
          // The stacks of some threads fit in, those of 64 do not.
          uint64_t pages = 0;
          std::ifstream("/proc/self/statm") >> pages;
          const rlim_t bytes = pages * 4096 + (200 << 20);
          rlimit limit;
          limit.rlim_cur = limit.rlim_max = bytes;
          setrlimit(RLIMIT_AS, &limit);
          const moedge_status status = open();
          std::fprintf(stderr, "%s", error_.message);
          _exit(status);
        },
        testing::ExitedWithCode(MOEDGE_OUT_OF_MEMORY), "thread");
    options_.readers = options_.threads = 2;
  }
}

}  // namespace
}  // namespace moedge::test
