#include "router.hpp"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <vector>

#include "crc32c.hpp"
#include "reference.hpp"
#include "sample.hpp"

namespace moedge::test {
namespace {

struct Picked {
  uint32_t token;
  uint32_t expert;
  float weight;
};

// The picks in the order of the routing: by expert, then by token.
std::vector<Picked> picked(const Routing& routing) {
  std::vector<Picked> all;
  for (uint32_t expert = 0; expert + 1 < routing.first.size(); ++expert) {
    for (uint32_t row = routing.first[expert]; row < routing.first[expert + 1]; ++row) {
      all.push_back({routing.token[row], expert, routing.weight[row]});
    }
  }
  return all;
}

std::vector<Picked> route_all(const std::vector<float>& logits, uint32_t experts, uint32_t top_k) {
  const auto tokens = static_cast<uint32_t>(logits.size() / experts);
  Routing routing;
  routing.reserve(tokens, experts, top_k);
  EXPECT_TRUE(route(logits.data(), tokens, experts, top_k, routing));
  return picked(routing);
}

TEST(Router, OfEqualLogitsTheLowerExpertIsChosen) {
  const auto picks = route_all({1, 3, 2, 3, 2, 3, 0, 2}, 8, 4);
  ASSERT_EQ(picks.size(), 4U);
  const uint32_t wanted[] = {1, 2, 3, 5};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(picks[i].expert, wanted[i]);
  EXPECT_EQ(picks[0].weight, picks[2].weight);

  const auto all_equal = route_all(std::vector<float>(16, -0.5F), 16, 3);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(all_equal[i].expert, i);
}

TEST(Router, MinusZeroEqualsZero) {
  const auto picks = route_all({-0.0F, 0.0F, -0.0F}, 3, 1);
  EXPECT_EQ(picks[0].expert, 0U);
}

TEST(Router, AllExpertsCanBeChosen) {
  const auto picks = route_all({0.5F, -2, 7, 1}, 4, 4);
  ASSERT_EQ(picks.size(), 4U);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(picks[i].expert, i);
}

TEST(Router, OneOfOneExpertHasTheWeightOne) {
  const auto picks = route_all({-3, 88}, 1, 1);
  for (const Picked& pick : picks) EXPECT_EQ(pick.weight, 1.0F);
}

TEST(Router, LogitsThatAreNotFiniteAreRefused) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    for (size_t at = 0; at < 12; ++at) {
      std::vector<float> logits(12, 1);
      logits[at] = bad;
      Routing routing;
      routing.reserve(3, 4, 2);
      EXPECT_FALSE(route(logits.data(), 3, 4, 2, routing)) << bad << " at " << at;
    }
  }
}

TEST(Router, WeightsAreTheRenormalisedSoftmaxAndSumToOne) {
  Random random(1);
  for (int turn = 0; turn < (kFewerCases ? 50 : 1000); ++turn) {
    const uint32_t experts = 1 + random.below(130);
    const uint32_t top_k = 1 + random.below(experts);
    const uint32_t tokens = 1 + random.below(9);
    const float width = turn % 2 ? 4.0F : 60.0F;
    const std::vector<float> logits = random.floats(size_t{tokens} * experts, -width, width);
    const auto picks = route_all(logits, experts, top_k);
    ASSERT_EQ(picks.size(), size_t{tokens} * top_k);
    for (uint32_t token = 0; token < tokens; ++token) {
      double sum = 0;
      std::vector<Picked> of_token;
      for (const Picked& pick : picks) {
        if (pick.token != token) continue;
        of_token.push_back(pick);
        sum += pick.weight;
      }
      EXPECT_NEAR(sum, 1, 1e-6 * top_k);
      const auto wanted = picks_of(logits.data() + token * experts, experts, top_k);
      ASSERT_EQ(of_token.size(), wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_EQ(of_token[i].expert, wanted[i].expert);
        ASSERT_NEAR(of_token[i].weight, wanted[i].weight, 1e-5 * wanted[i].weight + 1e-9);
      }
    }
  }
}

// The constant is what x86-64 gave when the router's exponential was last changed.
TEST(Router, WeightsHaveTheSameBitsOnEveryMachine) {
  Random random(4);
  uint32_t crc = 0;
  for (const float width : {0.01F, 1.0F, 9.0F, 80.0F}) {
    for (const Picked& pick : route_all(random.floats(100 * 128, -width, width), 128, 8)) {
      const uint32_t bits = bits_of(pick.weight);
      crc = crc32c_table(crc, reinterpret_cast<const uint8_t*>(&bits), sizeof bits);
    }
  }
  EXPECT_EQ(crc, 0x9DCADCA0U);
}

TEST(Router, LogitsFarApartGiveNoNaN) {
  for (const Picked& pick : route_all({FLT_MAX, -FLT_MAX, 0, FLT_MAX}, 4, 4)) {
    EXPECT_EQ(pick.weight, pick.expert == 0 || pick.expert == 3 ? 0.5F : 0.0F);
  }
}

TEST(Router, RowsAreGroupedByExpertAndAscendWithinIt) {
  Random random(2);
  const std::vector<float> logits = random.floats(50 * 12, -1, 1);
  const auto picks = route_all(logits, 12, 5);
  for (size_t i = 1; i < picks.size(); ++i) {
    const bool ascends = picks[i - 1].expert < picks[i].expert ||
                         (picks[i - 1].expert == picks[i].expert && picks[i - 1].token < picks[i].token);
    EXPECT_TRUE(ascends) << i;
  }
}

TEST(Router, ASmallCallAfterALargeOneForgetsIt) {
  Random random(3);
  Routing routing;
  routing.reserve(20, 6, 2);
  const std::vector<float> large = random.floats(20 * 6, -1, 1);
  const std::vector<float> small = random.floats(2 * 6, -1, 1);
  ASSERT_TRUE(route(large.data(), 20, 6, 2, routing));
  ASSERT_TRUE(route(small.data(), 2, 6, 2, routing));
  EXPECT_EQ(routing.first.front(), 0U);
  EXPECT_EQ(routing.first.back(), 4U);
  for (const Picked& pick : picked(routing)) EXPECT_LT(pick.token, 2U);
}

}  // namespace
}  // namespace moedge::test
