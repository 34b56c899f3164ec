// Reads of the pager: what is read when, ahead or again, and what happens when a read fails or hangs.
#include "pager.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "model.hpp"
#include "pager_driver.hpp"

namespace moedge::test {
namespace {

TEST(PagerTest, RecordsArriveWholeHoweverTheirReadsAreCut) {
  for (const size_t most : {size_t{4096}, size_t{8192}}) {
    PagerDriver driver({.readers = 3});
    driver.disk->set_most_bytes(most);
    for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
  }
}

TEST(PagerTest, TheFirstPartIsThereBeforeTheSecond) {
  PagerDriver driver({.layers = 1, .experts = 4, .readers = 1});
  driver.disk->set_fault(0, Fault::kWrongLastByte);
  driver.begin(0, std::vector<uint32_t>{0}, true, false);
  EXPECT_TRUE(driver.wait([&] { return driver.pager->state(driver.pager->slot(0)) >= SlotState::kFc1Ready; }));
  EXPECT_TRUE(driver.wait([&] { return driver.pager->state(driver.pager->slot(0)) == SlotState::kFailed; }));
  driver.pager->end_call(true);
}

// --- reading ahead ---------------------------------------------------------------------------------------------------

TEST(ReadingAhead, BringsTheNextLayerOnce) {
  PagerDriver driver({.layers = 3, .experts = 64, .slots = 192});
  for (uint32_t layer = 0; layer < 3; ++layer) {
    EXPECT_FALSE(driver.prefill(layer, 0, 64));
    EXPECT_TRUE(driver.wait_for_reads(std::min<uint64_t>(192, 64 * (layer + 2))));
  }
  const PagerStatistics& statistics = driver.pager->statistics();
  EXPECT_EQ(statistics.reads, 192U);
  EXPECT_EQ(statistics.hits, 128U);
  EXPECT_EQ(statistics.prefetch_used, 128U);
  EXPECT_EQ(statistics.prefetch_unused, 0U);
}

TEST(ReadingAhead, HappensOnlyIfAskedFor) {
  for (const bool prefetch : {false, true}) {
    PagerDriver driver({.prefetch = prefetch, .slots = 192});
    std::vector<uint32_t> experts(64);
    for (uint32_t i = 0; i < 64; ++i) experts[i] = i;
    EXPECT_FALSE(driver.call(0, experts, false, !prefetch));
    EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}));
    driver.set_slots(192);  // waits for reads
    EXPECT_EQ(driver.disk->reads_of_all(), 64U);
  }
}

TEST(ReadingAhead, LeavesTwoPlacesOfTheRingFree) {
  PagerDriver driver({.slots = 64});  // a ring of 8
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_TRUE(driver.wait_for_reads(64 + 6));
  driver.set_slots(64);
  EXPECT_EQ(driver.disk->reads_of_all(), 64U + 6);
}

TEST(ReadingAhead, OfWhatIsNotNeededIsCountedAndDoesNotDisturb) {
  PagerDriver driver({.slots = 64});
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_TRUE(driver.wait_for_reads(64 + 6));
  EXPECT_FALSE(driver.prefill(1, 3, 61));
  EXPECT_EQ(driver.pager->statistics().prefetch_used, 3U);
  EXPECT_EQ(driver.pager->statistics().prefetch_unused, 3U);
}

TEST(ReadingAhead, LeavesOutWhatFewerThanHalfOfThePrefillsNeeded) {
  PagerDriver driver({.layers = 2, .experts = 32, .slots = 64});
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_FALSE(driver.prefill(1, 0, turn == 0 ? 32 : 16));
    driver.set_slots(6);
    driver.set_slots(64);
  }
  const uint64_t before = driver.disk->reads_of(1 * 32 + 20);
  EXPECT_FALSE(driver.prefill(0, 0, 32));
  driver.set_slots(64);
  EXPECT_EQ(driver.disk->reads_of(32 + 20), before);
}

TEST(ReadingAhead, DoesNotMakeARecordBeReadTwice) {
  for (const uint64_t slots : {6, 24, 64, 130}) {
    PagerDriver driver({.readers = 8, .slots = slots});
    driver.disk->shuffle(slots);
    for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
    for (uint32_t key = 0; key < 192; ++key) ASSERT_EQ(driver.disk->reads_of(key), 1U) << key;
  }
}

// --- what a prefill keeps --------------------------------------------------------------------------------------------

constexpr uint32_t kManyTokens = 80;  // as ten uses

TEST(Prefills, KeepWhatIsUsedMoreThanWhatWasThere) {
  PagerDriver driver({.prefetch = false, .slots = 14});  // twelve stay
  EXPECT_FALSE(driver.decode(0, {0, 1, 2, 3}));
  for (const uint32_t first : {4, 8}) EXPECT_FALSE(driver.decode(1, {first, first + 1, first + 2, first + 3}));
  const std::vector<uint32_t> experts{20, 21, 22, 23, 24, 25};
  driver.begin(1, experts, false, false, {}, kManyTokens);
  EXPECT_FALSE(driver.finish(1, experts, false));
  EXPECT_EQ(driver.pager->statistics().evictions, 6U);
  // Those that were used first are gone, the others have stayed.
  EXPECT_FALSE(driver.decode(1, {20, 21, 22, 23}));
  EXPECT_FALSE(driver.decode(1, {8, 9, 10, 11}));
  EXPECT_EQ(driver.disk->reads_of_all(), 18U);
}

TEST(Prefills, KeepNothingThatIsUsedLess) {
  PagerDriver driver({.prefetch = false, .slots = 14});
  for (int turn = 0; turn < 3; ++turn) {
    for (const uint32_t first : {0, 4, 8}) EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2, first + 3}));
  }
  EXPECT_FALSE(driver.prefill(1, 20, 30));
  EXPECT_EQ(driver.pager->statistics().evictions, 0U);
  for (const uint32_t first : {0, 4, 8}) EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2, first + 3}));
  EXPECT_EQ(driver.disk->reads_of_all(), 12U + 30U);
}

TEST(Prefills, LeaveTheLayersThatTheyHaveNotReached) {
  PagerDriver driver({.prefetch = false, .slots = 14});
  for (const uint32_t first : {0, 4, 8}) EXPECT_FALSE(driver.decode(2, {first, first + 1, first + 2, first + 3}));
  const std::vector<uint32_t> experts{20, 21, 22, 23, 24, 25};
  driver.begin(1, experts, false, false, {}, kManyTokens);
  EXPECT_FALSE(driver.finish(1, experts, false));
  EXPECT_EQ(driver.pager->statistics().evictions, 0U);
  driver.begin(2, experts, false, false, {}, kManyTokens);
  EXPECT_FALSE(driver.finish(2, experts, false));
  EXPECT_EQ(driver.pager->statistics().evictions, 6U);
}

TEST(Prefills, KeepWhatWasReadAheadToo) {
  PagerDriver driver({.slots = 64});  // a ring of 8
  for (uint32_t first = 0; first < 56; first += 4) {
    EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2, first + 3}));
  }
  EXPECT_FALSE(driver.prefill(0, 0, 56));
  ASSERT_TRUE(driver.wait_for_reads(56 + 6));
  const std::vector<uint32_t> experts{0, 1, 2, 3, 4, 5};
  driver.begin(1, experts, false, false, {}, kManyTokens);
  EXPECT_FALSE(driver.finish(1, experts, false));
  EXPECT_EQ(driver.pager->statistics().prefetch_used, 6U);
  EXPECT_EQ(driver.pager->statistics().evictions, 6U);
  EXPECT_FALSE(driver.decode(1, {0, 1, 2, 3}));
  EXPECT_EQ(driver.disk->reads_of_all(), 56U + 6U);
}

// --- faults ----------------------------------------------------------------------------------------------------------

TEST(PagerFaults, AreForgottenWhenTheRecordIsNeededAgain) {
  PagerDriver driver({.slots = 20});
  driver.disk->set_fault(64 + 5, Fault::kIoError);
  for (const bool keep : {true, false}) {
    const auto error = driver.call(1, {5, 6}, keep, false);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->layer, 1U);
    EXPECT_EQ(error->expert, 5U);
    EXPECT_EQ(error->offset, 69 * kRecordBytes);
    EXPECT_EQ(error->os_error, EIO);
  }
  driver.disk->clear_faults();
  EXPECT_FALSE(driver.decode(1, {5, 6}));
}

TEST(PagerFaults, OfReadingAheadAreForgottenToo) {
  PagerDriver driver({.layers = 2, .experts = 32, .slots = 64});
  driver.disk->set_fault(32 + 7, Fault::kWrongFirstByte);
  EXPECT_FALSE(driver.prefill(0, 0, 32));
  EXPECT_TRUE(driver.wait_for_reads(64));
  EXPECT_EQ(driver.pager->statistics().failed_reads, 1U);
  driver.disk->clear_faults();
  EXPECT_FALSE(driver.prefill(1, 0, 32));
}

TEST(PagerFaults, AReadThatHangsKeepsItsPlaceUntilItEndsAndNoOtherRecordGetsIt) {
  PagerDriver driver({.readers = 2, .slots = 6});
  driver.disk->set_fault(3, Fault::kBlocks);
  driver.begin(0, std::vector<uint32_t>{3}, false, false);
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  driver.pager->end_call(true);
  Random random(4);
  for (int turn = 0; turn < 50; ++turn) {
    const uint32_t first = 4 + random.below(50);
    EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2}));
    EXPECT_FALSE(driver.prefill(1, 0, 20));
  }
  driver.disk->clear_faults();
  for (int turn = 0; turn < 50; ++turn) {
    const uint32_t first = random.below(60);
    EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2, first + 3}));
  }
}

TEST(PagerFaults, ABudgetWaitsForReadsUnderWayAndThenRefuses) {
  PagerDriver driver({.readers = 2, .slots = 20});
  driver.disk->set_fault(3, Fault::kBlocks);
  driver.begin(0, std::vector<uint32_t>{3}, true, false);
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  driver.pager->end_call(true);
  try {
    driver.pager->set_slots(divide_slots(10, 192), std::chrono::milliseconds(20));
    ADD_FAILURE() << "the budget was changed under a read";
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_READ_TIMEOUT);
  }
  EXPECT_EQ(driver.pager->counts().total(), 20U);
  EXPECT_FALSE(driver.decode(0, {4, 5}));
  driver.disk->clear_faults();
  driver.set_slots(10);
  EXPECT_EQ(driver.pager->counts().total(), 10U);
  EXPECT_FALSE(driver.decode(0, {3, 4}));
}

TEST(PagerFaults, ItEndsWhileReadsAreQueued) {
  auto driver = std::make_unique<PagerDriver>(PagerSetup{.readers = 2, .slots = 192});
  driver->disk->set_fault_of_all(Fault::kBlocks);
  driver->begin(0, std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}, true, false);
  ASSERT_TRUE(driver->disk->wait_until_blocked(2));
  driver->pager->end_call(false);
  must_return([&] {
    std::thread closer([&] { driver->pager.reset(); });
    driver->disk->clear_faults();
    closer.join();
  });
}

TEST(PagerFaults, CallsThatFailWhileManyReadersAreBusyLeaveTheRecordsRight) {
  PagerDriver driver({.readers = 16, .slots = 24});
  driver.disk->shuffle(5);
  Random random(6);
  for (int turn = 0; turn < (kFewerCases ? 150 : 3000); ++turn) {
    driver.disk->clear_faults();
    const uint32_t layer = random.below(3);
    const uint32_t first = random.below(20);
    if (turn % 2) driver.disk->set_fault(layer * 64 + first + random.below(10), Fault::kIoError);
    const bool failed = driver.prefill(layer, first, 10 + random.below(30)).has_value();
    if (turn % 2 == 0) {
      EXPECT_FALSE(failed);
    }
  }
}

}  // namespace
}  // namespace moedge::test
