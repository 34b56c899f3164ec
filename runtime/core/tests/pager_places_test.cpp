// Places of the pager: the ring, what stays, what goes when the budget changes, pins.
#include <gtest/gtest.h>

#include "pager_driver.hpp"

namespace moedge::test {
namespace {

TEST(Places, WithRoomForAllThereIsNoRing) {
  for (const uint64_t slots : {30U, 31U, 1000000U}) {
    EXPECT_EQ(divide_slots(slots, 30).ring, 0U);
    EXPECT_EQ(divide_slots(slots, 30).dynamic, 30U);
  }
}

TEST(Places, TheRingIsAnEighthAtLeastTwoAtMostThirtyTwo) {
  const uint32_t cases[][2] = {{2, 2}, {10, 2}, {16, 2}, {23, 2}, {24, 3}, {255, 31}, {256, 32}, {999, 32}, {5999, 32}};
  for (const auto& [slots, ring] : cases) {
    EXPECT_EQ(divide_slots(slots, 6000).ring, ring) << slots;
    EXPECT_EQ(divide_slots(slots, 6000).total(), slots);
  }
}

TEST(Places, TheLeastAreThePicksOfATokenAndARingOfTwo) {
  EXPECT_EQ(least_slots(8), 10U);
  EXPECT_EQ(divide_slots(least_slots(8), 6144).dynamic, 8U);
}

TEST(Places, ACallCanKeepWhatPinsLeaveRoomFor) {
  PagerDriver driver({.slots = 20});  // 18 stay
  EXPECT_TRUE(driver.pager->can_keep(18));
  EXPECT_FALSE(driver.pager->can_keep(19));
  driver.pager->pin(std::vector<uint32_t>{1, 2, 3});
  EXPECT_TRUE(driver.pager->can_keep(15));
  EXPECT_FALSE(driver.pager->can_keep(16));
}

TEST(Places, APrefillLongerThanAllPlacesGoesThroughTheRing) {
  for (const uint64_t slots : {6, 20, 64, 140}) {
    PagerDriver driver({.layers = 3, .experts = 64, .readers = 5, .prefetch = false, .slots = slots});
    for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
    EXPECT_EQ(driver.pager->statistics().reads, 192U);
    EXPECT_EQ(driver.pager->statistics().evictions, 0U);
    // What stays is what free places were there for.
    EXPECT_EQ(driver.pager->resident(), driver.pager->counts().dynamic);
  }
}

TEST(Places, TheRingHoldsNothingBetweenPrefillsWithoutReadingAhead) {
  PagerDriver driver({.prefetch = false, .slots = 40});
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_FALSE(driver.prefill(0, 0, 64));
  EXPECT_EQ(driver.pager->resident(), 35U);
  EXPECT_EQ(driver.pager->statistics().hits, 35U);
  EXPECT_EQ(driver.disk->reads_of(0), 1U);
  EXPECT_EQ(driver.disk->reads_of(63), 2U);
}

TEST(Places, APrefillNeverEvicts) {
  PagerDriver driver({.slots = 6});
  EXPECT_FALSE(driver.decode(0, {3, 9, 20, 40}));
  for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
  EXPECT_EQ(driver.pager->statistics().evictions, 0U);
  const uint64_t misses = driver.pager->statistics().misses;
  EXPECT_FALSE(driver.decode(0, {3, 9, 20, 40}));
  EXPECT_EQ(driver.pager->statistics().misses, misses);
}

TEST(Places, ADecodeEvictsWhatIsUsedLeast) {
  PagerDriver driver({.slots = 10});  // 8 stay
  for (int turn = 0; turn < 5; ++turn) EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}));
  EXPECT_FALSE(driver.decode(0, {5, 6, 7, 8}));
  EXPECT_FALSE(driver.decode(0, {9, 10, 11, 12}));
  EXPECT_EQ(driver.pager->statistics().evictions, 4U);
  EXPECT_FALSE(driver.decode(0, {1, 2, 3, 4}));
  for (const uint32_t key : {1, 2, 3, 4}) EXPECT_EQ(driver.disk->reads_of(key), 1U) << key;
}

TEST(Places, WhatACallNeedsIsNotEvictedByIt) {
  PagerDriver driver({.slots = 6});
  Random random(2);
  for (int turn = 0; turn < (kFewerCases ? 100 : 2000); ++turn) {
    const uint32_t first = random.below(60);
    EXPECT_FALSE(driver.decode(random.below(3), {first, first + 1, first + 2, first + 3}));
  }
}

TEST(Places, PinnedRecordsOutliveEvictionsAndShrinking) {
  PagerDriver driver({.slots = 64});
  driver.pager->pin(std::vector<uint32_t>{60, 61, 62, 63, 70});
  for (uint32_t layer = 0; layer < 2; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
  EXPECT_EQ(driver.pager->pinned(), 5U);
  for (const uint64_t slots : {40, 20, 11}) {
    driver.set_slots(slots);
    EXPECT_EQ(driver.pager->pinned(), 5U) << slots;
    for (uint32_t first = 0; first < 60; first += 4) EXPECT_FALSE(driver.decode(0, {first, first + 1, first + 2}));
    for (const uint32_t key : {60, 61, 62, 63, 70}) EXPECT_EQ(driver.disk->reads_of(key), 1U) << key;
  }
  // Six places, two of the ring: none is left for pins beside the picks of a token.
  driver.set_slots(6);
  EXPECT_EQ(driver.pager->pinned(), 0U);
  driver.set_slots(64);
  EXPECT_FALSE(driver.decode(0, {60, 61, 62, 63}));
  EXPECT_GE(driver.pager->pinned(), 4U);
}

TEST(Places, ShrinkingKeepsWhatIsInThePlacesThatStay) {
  PagerDriver driver({.prefetch = false, .slots = 64});
  EXPECT_FALSE(driver.prefill(0, 0, 30));
  driver.set_slots(40);
  EXPECT_EQ(driver.pager->resident(), 30U);
  driver.set_slots(24);
  EXPECT_EQ(driver.pager->resident(), 21U);
  driver.set_slots(192);
  EXPECT_EQ(driver.pager->resident(), 21U);
}

TEST(Places, MemoryOfTakenPlacesGoesBackAndIsCountedSo) {
  PagerDriver driver({.prefetch = false, .slots = 192});
  EXPECT_FALSE(driver.prefill(0, 0, 50));
  EXPECT_EQ(driver.pager->touched_slots(), 50U);
  driver.set_slots(20);
  EXPECT_LE(driver.pager->touched_slots(), 20U);
  driver.set_slots(192);
  EXPECT_LE(driver.pager->touched_slots(), 20U);
  for (uint32_t layer = 0; layer < 3; ++layer) EXPECT_FALSE(driver.prefill(layer, 0, 64));
  EXPECT_EQ(driver.pager->touched_slots(), 192U);
}

TEST(Places, AnyOrderOfBudgetsPinsAndCallsLeavesTheRecordsRight) {
  PagerDriver driver({.readers = 6, .slots = 30});
  driver.disk->shuffle(7);
  Random random(3);
  for (int turn = 0; turn < (kFewerCases ? 150 : 2000); ++turn) {
    switch (random.below(5)) {
      case 0:
        driver.set_slots(6 + random.below(200));
        break;
      case 1:
        driver.pager->pin(std::vector<uint32_t>{random.below(192), random.below(192), random.below(192)});
        break;
      case 2:
        EXPECT_FALSE(driver.prefill(random.below(3), random.below(20), 5 + random.below(40)));
        break;
      default: {
        const uint32_t first = random.below(60);
        const uint32_t jobs = driver.pager->can_keep(4) ? 4 : 1;
        EXPECT_FALSE(driver.call(random.below(3), {first, first + 1, first + 2, first + 3}, jobs == 4, false));
      }
    }
    ASSERT_LE(driver.pager->touched_slots(), driver.pager->counts().total());
  }
}

}  // namespace
}  // namespace moedge::test
