#include "heat.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace moedge::test {
namespace {

TEST(Heat, OfUsesAtTheSameTimeTheirNumberCounts) {
  Heat heat(1, 4);
  for (int use = 0; use < 3; ++use) heat.use(2, 1);
  heat.use(1, 1);
  EXPECT_EQ(heat.order(), (std::vector<uint32_t>{2, 1, 0, 3}));
  EXPECT_NEAR(heat.of(2), std::log2(3), 1e-12);
  EXPECT_EQ(heat.of(0), -std::numeric_limits<double>::infinity());
}

TEST(Heat, AUseCountsHalfAfter32PassesThroughAllLayers) {
  Heat heat(5, 2);
  heat.use(0, 1);
  heat.use(0, 1);
  for (int call = 0; call < 32 * 5; ++call) heat.tick();
  heat.use(1, 1);
  EXPECT_NEAR(heat.of(0), heat.of(1), 1e-12);
  heat.use(0, 1);
  EXPECT_NEAR(heat.of(0), heat.of(1) + 1, 1e-12);
}

TEST(Heat, StartedFromCountsIsThatOfUseAtTheirRateForEver) {
  Heat used(2, 3);
  for (int pass = 0; pass < 2000; ++pass) {
    for (uint32_t layer = 0; layer < 2; ++layer) {
      used.tick();
      used.use(3 * layer, 1);
      if (pass % 2 == 0) used.use(3 * layer + 1, 1);
    }
  }
  // Two experts a token: the first is in every token, the second in every second one.
  Heat started(2, 3);
  for (int call = 0; call < 4000; ++call) started.tick();
  started.use(5, 1);
  started.start_from(std::vector<uint64_t>{100, 50, 50, 8000, 4000, 4000}, 2);
  for (const uint32_t key : {0, 1, 3, 4}) EXPECT_NEAR(started.of(key), used.of(key), 0.05) << key;
  EXPECT_EQ(started.of(2), started.of(5)) << "what was noted before is forgotten";
}

TEST(Heat, OfALayerThatWasNeverUsedIsNone) {
  Heat heat(2, 2);
  heat.start_from(std::vector<uint64_t>{0, 0, UINT64_MAX, 0}, 1);
  EXPECT_EQ(heat.order(), (std::vector<uint32_t>{2, 0, 1, 3}));
  for (const uint32_t key : {0, 1, 3}) EXPECT_EQ(heat.of(key), -std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace moedge::test
