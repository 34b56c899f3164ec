// Reading while nothing is computed: what comes first, what ends it, what a fault does.
#include <gtest/gtest.h>

#include <thread>

#include "model.hpp"
#include "pager_driver.hpp"

namespace moedge::test {
namespace {

std::vector<uint32_t> experts_from(uint32_t first, uint32_t count) {
  std::vector<uint32_t> experts(count);
  for (uint32_t i = 0; i < count; ++i) experts[i] = first + i;
  return experts;
}

// Fills all places that stay with records of layer 2, none of which layers 0 and 1 need.
void fill(PagerDriver& driver) {
  EXPECT_FALSE(driver.call(2, experts_from(0, driver.pager->counts().dynamic), false, false));
}

// --- order -----------------------------------------------------------------------------------------------------------

TEST(Preload, FillsFreePlacesWithTheMostUsedAndThenTheRingWithTheBeginOfTheFirstLayer) {
  PagerDriver driver({.slots = 64});  // 56 stay, a ring of 8
  // Of every layer the experts from 40 on, the later the more.
  std::vector<uint64_t> counts(192);
  for (uint32_t key = 0; key < 192; ++key) counts[key] = key % 64 < 40 ? key % 64 == 0 : key % 64 * 100 + key / 64;
  driver.pager->start_from(counts);
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(56 + 6));
  for (uint32_t layer = 0; layer < 3; ++layer) {
    for (uint32_t expert = 48; expert < 64; ++expert) EXPECT_EQ(driver.disk->reads_of(64 * layer + expert), 1U);
  }
  for (uint32_t key = 0; key < 6; ++key) EXPECT_EQ(driver.disk->reads_of(key), 1U) << key;
  EXPECT_EQ(driver.disk->reads_of(6), 0U);
  EXPECT_EQ(driver.pager->resident(), 62U);
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_EQ(driver.pager->statistics().preloaded, 62U);
  EXPECT_EQ(driver.pager->statistics().preloaded_bytes, 62 * kRecordBytes);
  EXPECT_GE(driver.pager->statistics().preload_used, 16U + 6U);
  for (uint32_t key = 0; key < 64; ++key) EXPECT_EQ(driver.disk->reads_of(key), 1U) << key;
}

TEST(Preload, OfWhatWasNeverUsedGoesInTheOrderOfTheFile) {
  PagerDriver driver({.readers = 1, .slots = 24});  // 21 stay
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(22));
  for (uint32_t key = 0; key < 22; ++key) EXPECT_EQ(driver.disk->reads_of(key), 1U) << key;
  EXPECT_EQ(driver.disk->reads_of_all(), 22U);
}

TEST(Preload, ReadsTheWholeFileIfThereIsRoomAndNothingIsReadAgain) {
  PagerDriver driver({.readers = 5, .slots = 192});
  driver.disk->shuffle(1);
  for (int turn = 0; turn < 3; ++turn) {
    driver.pager->preload();
    ASSERT_TRUE(driver.wait_for_reads(192));
  }
  for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
  EXPECT_EQ(driver.disk->reads_of_all(), 192U);
  EXPECT_EQ(driver.pager->statistics().hits, 192U);
  EXPECT_EQ(driver.pager->statistics().preload_used, 192U);
}

TEST(Preload, WithoutAFreePlaceFillsTheRingAndEvictsNothing) {
  PagerDriver driver({.prefetch = false, .slots = 64});
  fill(driver);
  for (int turn = 0; turn < 2; ++turn) {
    driver.pager->preload();
    ASSERT_TRUE(driver.wait_for_reads(56 + 6));
  }
  EXPECT_EQ(driver.disk->reads_of_all(), 56U + 6);
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_EQ(driver.pager->statistics().hits, 6U);
  EXPECT_EQ(driver.pager->statistics().preload_used, 6U);
  EXPECT_EQ(driver.pager->statistics().evictions, 0U);
  EXPECT_EQ(driver.disk->reads_of_all(), 56U + 64);
}

TEST(Preload, OfTheRingLeavesOutWhatFewerThanHalfOfThePrefillsNeeded) {
  PagerDriver driver({.prefetch = false, .slots = 64});
  fill(driver);
  for (int turn = 0; turn < 3; ++turn) EXPECT_FALSE(driver.prefill(0, turn == 0 ? 0 : 3, 20));
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(56 + 60 + 6));
  EXPECT_EQ(driver.disk->reads_of(2), 1U);
  EXPECT_EQ(driver.disk->reads_of(3), 4U);
  EXPECT_EQ(driver.disk->reads_of(8), 4U);
}

TEST(Preload, InTheRingMakesRoomForADecode) {
  PagerDriver driver({.prefetch = false, .slots = 64});
  fill(driver);
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(62));
  EXPECT_FALSE(driver.decode(1, {1, 2, 3, 4}));
  EXPECT_EQ(driver.pager->resident(), 56U);
  EXPECT_EQ(driver.pager->statistics().preload_used, 0U);
  EXPECT_FALSE(driver.prefill(0, 0, 64));
}

TEST(Preload, OfPinnedRecordsComesFirstAndTakesThePlacesOfWhatIsUsedLeast) {
  PagerDriver driver({.readers = 1, .prefetch = false, .slots = 64});
  fill(driver);
  EXPECT_FALSE(driver.decode(2, {53, 54, 55}));  // the rest of layer 2 is used less
  driver.pager->pin(std::vector<uint32_t>{100, 70, 128 + 55, 90});
  driver.disk->set_fault(90, Fault::kBlocks);
  driver.pager->preload();
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  EXPECT_EQ(driver.disk->reads_of(100) + driver.disk->reads_of(70), 2U);
  EXPECT_EQ(driver.disk->reads_of(0), 0U) << "the ring comes after the pins";
  driver.disk->clear_faults();
  ASSERT_TRUE(driver.wait_for_reads(56 + 3 + 6));
  EXPECT_EQ(driver.pager->pinned(), 4U);
  EXPECT_EQ(driver.pager->statistics().evictions, 3U);
  EXPECT_FALSE(driver.decode(2, {53, 54, 55}));
  EXPECT_EQ(driver.disk->reads_of(128 + 53) + driver.disk->reads_of(128 + 54), 2U);
}

TEST(Preload, WhilePinsChangeLeavesTheNewOnesInMemory) {
  PagerDriver driver({.slots = 64});
  driver.disk->set_fault_of_all(Fault::kBlocks);
  driver.pager->preload();
  ASSERT_TRUE(driver.disk->wait_until_blocked(2));
  driver.pager->pin(std::vector<uint32_t>{150, 151});
  driver.pager->preload();
  driver.disk->clear_faults();
  ASSERT_TRUE(driver.wait_for_reads(56 + 6));
  EXPECT_EQ(driver.pager->pinned(), 2U);
  EXPECT_LE(driver.disk->reads_of_all(), 64U);
}

TEST(Preload, IsCountedAsUsedAfterTheRecordHasMoved) {
  PagerDriver driver({.prefetch = false, .slots = 192});
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(192));
  driver.pager->pin(std::vector<uint32_t>{150});
  for (const uint64_t slots : {40, 20, 10}) driver.set_slots(slots);
  EXPECT_EQ(driver.pager->pinned(), 1U);
  EXPECT_FALSE(driver.decode(2, {22}));
  EXPECT_EQ(driver.pager->statistics().preload_used, 1U);
  EXPECT_FALSE(driver.decode(2, {22}));
  EXPECT_EQ(driver.pager->statistics().preload_used, 1U);
}

// --- what ends it ----------------------------------------------------------------------------------------------------

TEST(Preload, EndsWithACallThatWaitsOnlyForReadsUnderWay) {
  PagerDriver driver({.readers = 2, .prefetch = false, .slots = 64});
  driver.disk->set_fault_of_all(Fault::kBlocks);
  driver.pager->preload();
  ASSERT_TRUE(driver.disk->wait_until_blocked(2));
  driver.begin(1, experts_from(10, 5), true, false);
  driver.disk->clear_faults();
  EXPECT_FALSE(driver.finish(1, experts_from(10, 5), true));
  EXPECT_FALSE(driver.decode(2, {7}));
  EXPECT_EQ(driver.disk->reads_of_all(), 1U + 5 + 1) << "what was not under way is not read";
  EXPECT_EQ(driver.pager->statistics().preloaded, 1U);
  driver.pager->preload();
  ASSERT_TRUE(driver.wait_for_reads(56 + 6));
  for (uint32_t key = 0; key < 192; ++key) EXPECT_LE(driver.disk->reads_of(key), 1U) << key;
}

TEST(Preload, DoesNotGoOnWhenTheCallOrTheAttemptAtAnotherBudgetIsOver) {
  for (const bool call : {true, false}) {
    PagerDriver driver({.readers = 2, .prefetch = false, .slots = 64});
    EXPECT_FALSE(driver.decode(1, {20}));
    const uint64_t begun = driver.pager->statistics().queue_depth_sum;
    driver.disk->set_fault_of_all(Fault::kBlocks);
    driver.pager->preload();
    ASSERT_TRUE(driver.disk->wait_until_blocked(2));
    if (call) {
      EXPECT_FALSE(driver.decode(1, {20}));
    } else {
      EXPECT_THROW(driver.pager->set_slots(divide_slots(10, 192), std::chrono::milliseconds(20)), CoreError);
    }
    driver.disk->clear_faults();
    ASSERT_TRUE(driver.wait_for_reads(1 + 1));
    EXPECT_EQ(driver.pager->resident(), 2U);  // takes the lock under which a reader would have begun another
    EXPECT_EQ(driver.pager->statistics().queue_depth_sum, begun + 1) << call;
  }
}

TEST(Preload, UnderWayIsUsedByTheCallThatNeedsIt) {
  for (const bool keep : {false, true}) {
    PagerDriver driver({.readers = 2, .prefetch = false, .slots = 64});
    driver.disk->set_fault_of_all(Fault::kBlocks);
    driver.pager->preload();
    ASSERT_TRUE(driver.disk->wait_until_blocked(2));
    driver.begin(0, experts_from(0, 6), keep, false);
    driver.disk->clear_faults();
    EXPECT_FALSE(driver.finish(0, experts_from(0, 6), keep));
    EXPECT_EQ(driver.disk->reads_of_all(), 6U);
    EXPECT_EQ(driver.pager->statistics().preload_used, 1U);
    EXPECT_EQ(driver.pager->statistics().misses, 6U);
  }
}

// The least places: what is under way for nobody must not keep a call from the places that it needs.
TEST(Preload, UnderWayInAllPlacesDoesNotStopACall) {
  for (const bool keep : {true, false}) {
    PagerDriver driver({.readers = 4, .prefetch = false, .slots = 6});
    driver.disk->set_fault_of_all(Fault::kBlocks);
    driver.pager->preload();
    ASSERT_TRUE(driver.disk->wait_until_blocked(2));
    driver.begin(1, experts_from(20, 4), keep, false);
    driver.disk->clear_faults();
    EXPECT_FALSE(driver.finish(1, experts_from(20, 4), keep));
  }
}

TEST(Preload, EndsWithAChangeOfTheBudget) {
  PagerDriver driver({.readers = 2, .slots = 192});
  driver.disk->set_fault_of_all(Fault::kBlocks);
  driver.pager->preload();
  ASSERT_TRUE(driver.disk->wait_until_blocked(2));
  must_return([&] {
    std::thread other([&] { driver.set_slots(20); });
    driver.disk->clear_faults();
    other.join();
  });
  EXPECT_LE(driver.pager->touched_slots(), 20U);
  const uint64_t reads = driver.disk->reads_of_all();
  EXPECT_FALSE(driver.decode(1, {50, 51}));
  EXPECT_EQ(driver.disk->reads_of_all(), reads + 2);
}

TEST(Preload, EndsWhenThePagerEnds) {
  auto driver = std::make_unique<PagerDriver>(PagerSetup{.readers = 2, .slots = 192});
  driver->disk->set_fault_of_all(Fault::kBlocks);
  driver->pager->preload();
  ASSERT_TRUE(driver->disk->wait_until_blocked(2));
  // Its readers end with the records that they have begun, however long the rest would take.
  for (uint32_t key = 2; key < 192; ++key) driver->disk->set_fault(key, Fault::kBlocks);
  must_return([&] {
    std::thread closer([&] { driver->pager.reset(); });
    driver->disk->clear_faults();
    closer.join();
  });
}

// --- faults ----------------------------------------------------------------------------------------------------------

TEST(Preload, OfARecordThatCannotBeReadLeavesItToTheCallThatNeedsIt) {
  for (const Fault fault : {Fault::kIoError, Fault::kWrongLastByte, Fault::kEnds, Fault::kThrows}) {
    PagerDriver driver({.readers = 1, .prefetch = false, .slots = 192});
    driver.disk->set_fault(64 + 5, fault);
    driver.pager->preload();
    ASSERT_TRUE(driver.wait_for_reads(192));
    EXPECT_EQ(driver.pager->statistics().failed_reads, 1U);
    EXPECT_EQ(driver.pager->resident(), 191U);
    EXPECT_FALSE(driver.decode(1, {4, 6}));
    const auto error = driver.decode(1, {4, 5});
    ASSERT_TRUE(error);
    EXPECT_EQ(error->expert, 5U);
    EXPECT_EQ(driver.disk->reads_of(64 + 5), 2U) << "once ahead, once for the call";
    driver.disk->clear_faults();
    driver.pager->preload();
    ASSERT_TRUE(driver.wait_for_reads(194));
    EXPECT_FALSE(driver.decode(1, {4, 5}));
    EXPECT_EQ(driver.disk->reads_of(64 + 5), 3U);
  }
}

TEST(Preload, GivesThePlaceOfARecordThatCannotBeReadToAnother) {
  PagerDriver driver({.readers = 1, .prefetch = false, .slots = 24});  // 21 stay
  driver.disk->set_fault(3, Fault::kWrongFirstByte);
  driver.pager->preload();
  // In the ring the damaged record is tried once more.
  ASSERT_TRUE(driver.wait_for_reads(22 + 1));
  EXPECT_EQ(driver.pager->resident(), 21U);
  EXPECT_EQ(driver.disk->reads_of(21), 1U);
  EXPECT_EQ(driver.disk->reads_of(3), 2U);
}

TEST(Preload, ThatHangsRefusesABudgetAndDelaysNoOtherReader) {
  PagerDriver driver({.readers = 2, .prefetch = false, .slots = 20});
  driver.disk->set_fault(0, Fault::kBlocks);
  driver.pager->preload();
  ASSERT_TRUE(driver.disk->wait_until_blocked(1));
  EXPECT_FALSE(driver.decode(1, {4, 5}));
  EXPECT_FALSE(driver.prefill(1, 6, 30));
  EXPECT_THROW(driver.pager->set_slots(divide_slots(10, 192), std::chrono::milliseconds(20)), CoreError);
  driver.disk->clear_faults();
  driver.set_slots(10);
  EXPECT_FALSE(driver.decode(0, {0, 1}));
}

TEST(Preload, AtAnyTimeAmongBudgetsPinsFaultsAndCallsLeavesTheRecordsRight) {
  PagerDriver driver({.readers = 6, .slots = 30});
  driver.disk->shuffle(7);
  Random random(3);
  for (int turn = 0; turn < (kFewerCases ? 200 : 3000); ++turn) {
    // A fault ahead of a call is gone when the call comes.
    driver.disk->set_fault(random.below(192), Fault::kIoError);
    if (random.below(2)) driver.pager->preload();
    for (uint32_t i = random.below(100); i > 0; --i) std::this_thread::yield();
    switch (random.below(6)) {
      case 0:
        driver.set_slots(6 + random.below(200));
        break;
      case 1:
        driver.pager->pin(std::vector<uint32_t>{random.below(192), random.below(192), random.below(192)});
        break;
      default: {
        const bool keep = random.below(2) && driver.pager->can_keep(4);
        const uint32_t count = keep ? 4 : 4 + random.below(40);
        const std::vector<uint32_t> expected = experts_from(random.below(20), random.below(2) * 4);
        const std::vector<uint32_t> needed = experts_from(random.below(20), count);
        const uint32_t layer = random.below(3);
        driver.begin(layer, needed, keep, !keep, driver.keys_behind(layer, expected));
        // A read of this call that has begun before may still fail.
        if (driver.finish(layer, needed, keep)) driver.disk->clear_faults();
      }
    }
    driver.disk->clear_faults();
    ASSERT_LE(driver.pager->touched_slots(), driver.pager->counts().total());
    ASSERT_LE(driver.pager->statistics().preload_used, driver.pager->statistics().preloaded);
  }
  EXPECT_GT(driver.pager->statistics().preload_used, 0U);
}

}  // namespace
}  // namespace moedge::test
