// Reading what the next layer will probably need: when, into which places, and what a wrong guess does.
#include <gtest/gtest.h>

#include <thread>

#include "model.hpp"
#include "pager_driver.hpp"

namespace moedge::test {
namespace {

constexpr uint32_t kLayer = 64;  // keys of a layer

TEST(LookAhead, BringsWhatIsExpectedBeforeTheNextCall) {
  PagerDriver driver({.slots = 64});
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11, 12, 13}));
  ASSERT_TRUE(driver.wait_for_reads(8));
  EXPECT_FALSE(driver.decode(1, {10, 11, 12, 20}));
  const PagerStatistics& statistics = driver.pager->statistics();
  EXPECT_EQ(statistics.prefetch_used, 3U);
  EXPECT_EQ(statistics.hits, 3U);
  EXPECT_EQ(statistics.misses, 5U);
  EXPECT_EQ(driver.disk->reads_of_all(), 9U);
}

TEST(LookAhead, BeginsWithTheMostProbable) {
  PagerDriver driver({.readers = 1, .slots = 64});
  driver.disk->set_fault(kLayer + 13, Fault::kBlocks);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {12, 13, 11, 10}));
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  EXPECT_EQ(driver.disk->reads_of(kLayer + 12), 1U);
  EXPECT_EQ(driver.disk->reads_of(kLayer + 11) + driver.disk->reads_of(kLayer + 10), 0U);
  driver.disk->clear_faults();
}

TEST(LookAhead, HappensOnlyWhereReadingAheadIsAllowed) {
  PagerDriver forbidden({.prefetch = false, .slots = 64});
  EXPECT_FALSE(forbidden.decode(0, {1, 2, 3, 4}, {10, 11, 12, 13}));
  forbidden.set_slots(64);  // waits for reads
  EXPECT_EQ(forbidden.disk->reads_of_all(), 4U);
}

TEST(LookAhead, WaitsUntilTheCallHasItsRecords) {
  PagerDriver driver({.readers = 4, .slots = 64});
  driver.disk->set_fault(4, Fault::kBlocks);
  const std::vector<uint32_t> experts{1, 2, 3, 4};
  driver.begin(0, experts, true, false, driver.keys_behind(0, {10, 11}));
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  ASSERT_TRUE(driver.wait_for_reads(3));
  EXPECT_EQ(driver.pager->resident(), 3U);  // takes the lock under which a reader would have begun another
  EXPECT_EQ(driver.disk->reads_of_all(), 4U);
  driver.disk->clear_faults();
  EXPECT_FALSE(driver.finish(0, experts, true));
  EXPECT_TRUE(driver.wait_for_reads(6));
}

TEST(LookAhead, ReadsOneAtATimeAndLeavesOffWhatHasNotBegunWhenTheNextCallComes) {
  PagerDriver driver({.readers = 4, .slots = 64});
  for (uint32_t expert = 10; expert < 14; ++expert) driver.disk->set_fault(kLayer + expert, Fault::kBlocks);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11, 12, 13}));
  ASSERT_TRUE(driver.disk->wait_until_blocked(2));
  EXPECT_EQ(driver.pager->resident(), 4U);
  EXPECT_EQ(driver.disk->reads_of_all(), 5U);
  // A call that needs others passes what hangs.
  EXPECT_FALSE(driver.decode(1, {20, 21, 22, 23}));
  driver.disk->clear_faults();
  ASSERT_TRUE(driver.wait_for_reads(9));
  for (uint32_t expert = 11; expert < 14; ++expert) EXPECT_EQ(driver.disk->reads_of(kLayer + expert), 0U);
}

TEST(LookAhead, UnderWayIsUsedByTheCallThatNeedsIt) {
  PagerDriver driver({.readers = 2, .slots = 64});
  driver.disk->set_fault(kLayer + 10, Fault::kBlocks);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11}));
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  driver.begin(1, std::vector<uint32_t>{10, 11, 12, 13}, true, false);
  driver.disk->clear_faults();
  EXPECT_FALSE(driver.finish(1, {10, 11, 12, 13}, true));
  EXPECT_EQ(driver.disk->reads_of(kLayer + 10), 1U);
  EXPECT_EQ(driver.pager->statistics().prefetch_used, 1U);
}

TEST(LookAhead, TakesThePlacesOfWhatIsUsedLeastAndKeepsWhatIsExpected) {
  PagerDriver driver({.slots = 14});  // twelve stay
  ASSERT_EQ(driver.pager->counts().dynamic, 12U);
  EXPECT_FALSE(driver.decode(1, {0, 1, 2, 3}));  // the oldest, two of them expected
  EXPECT_FALSE(driver.decode(2, {4, 5, 6, 7}));
  EXPECT_FALSE(driver.decode(0, {8, 9, 10, 11}, {0, 1, 20, 21}));
  ASSERT_TRUE(driver.wait_for_reads(14));
  EXPECT_FALSE(driver.decode(1, {0, 1, 20, 21}));
  EXPECT_EQ(driver.disk->reads_of_all(), 14U);
  EXPECT_EQ(driver.pager->statistics().evictions, 2U);
  EXPECT_FALSE(driver.decode(2, {4, 5, 6, 7}));
  EXPECT_EQ(driver.disk->reads_of_all(), 14U);
}

TEST(LookAhead, GoesAsFarAsThereIsRoomBesideTheCall) {
  PagerDriver driver({.slots = 9});
  ASSERT_EQ(driver.pager->counts().dynamic, 7U);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11, 12, 13}));
  ASSERT_TRUE(driver.wait_for_reads(7));
  driver.set_slots(9);
  EXPECT_EQ(driver.disk->reads_of_all(), 7U);
  EXPECT_EQ(driver.disk->reads_of(kLayer + 13), 0U);
}

TEST(LookAhead, KeepsWhatCameForTheLayerAfterTheNext) {
  PagerDriver driver({.slots = 14});  // twelve stay
  EXPECT_FALSE(driver.decode(2, {0, 1, 2, 3}));
  // The first of layer 1, the others of layer 2.
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, kLayer + 20, kLayer + 21}));
  ASSERT_TRUE(driver.wait_for_reads(11));
  // Three more than there are free places: what has never been used would go first if it were not expected.
  EXPECT_FALSE(driver.decode(1, {10, 11, 12, 13}, {20, 21}));
  EXPECT_FALSE(driver.decode(2, {20, 21}));
  EXPECT_EQ(driver.disk->reads_of_all(), 14U);
  EXPECT_EQ(driver.pager->statistics().prefetch_used, 3U);
  EXPECT_EQ(driver.pager->statistics().prefetch_unused, 0U);
}

TEST(LookAhead, OfPinnedRecordsTakesNoPlace) {
  PagerDriver driver({.slots = 14});
  driver.pager->pin(std::vector<uint32_t>{128, 129, 130, 131});
  EXPECT_FALSE(driver.decode(2, {0, 1, 2, 3}));
  for (int turn = 0; turn < 4; ++turn) {
    const uint32_t first = 10 + 8 * turn;
    EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2, first + 3}, {first, first + 1, first + 2, first + 3}));
    EXPECT_FALSE(driver.decode(1, {first, first + 1, first + 2, first + 3}));
  }
  EXPECT_EQ(driver.pager->pinned(), 4U);
}

TEST(LookAhead, OfARecordThatCannotBeReadLeavesItToTheCallThatNeedsIt) {
  for (const Fault fault : {Fault::kIoError, Fault::kWrongLastByte, Fault::kEnds, Fault::kThrows}) {
    PagerDriver driver({.readers = 1, .slots = 64});
    driver.disk->set_fault(kLayer + 10, fault);
    EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11}));
    ASSERT_TRUE(driver.wait_for_reads(6));
    EXPECT_FALSE(driver.decode(1, {11, 12}));
    const auto error = driver.decode(1, {10, 12});
    ASSERT_TRUE(error);
    EXPECT_EQ(error->expert, 10U);
    driver.disk->clear_faults();
    EXPECT_FALSE(driver.decode(1, {10, 12}));
  }
}

TEST(LookAhead, ThatHangsRefusesABudgetAndFailsNoCall) {
  PagerDriver driver({.readers = 2, .slots = 64});
  driver.disk->set_fault(kLayer + 10, Fault::kBlocks);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}, {10, 11}));
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  EXPECT_FALSE(driver.decode(1, {11, 12}));
  EXPECT_THROW(driver.pager->set_slots(divide_slots(20, 192), std::chrono::milliseconds(20)), CoreError);
  driver.disk->clear_faults();
  driver.set_slots(20);
  EXPECT_FALSE(driver.decode(1, {10, 11}));
}

TEST(LookAhead, EndsWhenThePagerEnds) {
  auto driver = std::make_unique<PagerDriver>(PagerSetup{.readers = 1, .slots = 64});
  for (uint32_t expert = 10; expert < 14; ++expert) driver->disk->set_fault(kLayer + expert, Fault::kBlocks);
  EXPECT_FALSE(driver->decode(0, {1, 2, 3, 4}, {10, 11, 12, 13}));
  ASSERT_TRUE(driver->disk->wait_until_blocked(1));
  must_return([&] {
    std::thread closer([&] { driver->pager.reset(); });
    driver->disk->clear_faults();
    closer.join();
  });
}

}  // namespace
}  // namespace moedge::test
