#include "crc32c.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "sample.hpp"

namespace moedge::test {
namespace {

using Function = uint32_t (*)(uint32_t, const uint8_t*, size_t);

uint32_t of(Function function, const std::vector<uint8_t>& bytes) { return function(0, bytes.data(), bytes.size()); }

class Crc32c : public testing::TestWithParam<Function> {};

INSTANTIATE_TEST_SUITE_P(Both, Crc32c, testing::Values(crc32c, crc32c_table),
                         [](const auto& test) { return test.index == 0 ? "fastest" : "table"; });

// Source: RFC 3720, B.4, and the check value of the catalogue of parametrised CRC algorithms.
TEST_P(Crc32c, GivesTheKnownValues) {
  std::vector<uint8_t> ascending(32);
  std::iota(ascending.begin(), ascending.end(), uint8_t{0});
  EXPECT_EQ(of(GetParam(), std::vector<uint8_t>(32, 0x00)), 0x8A9136AAU);
  EXPECT_EQ(of(GetParam(), std::vector<uint8_t>(32, 0xFF)), 0x62A8AB43U);
  EXPECT_EQ(of(GetParam(), ascending), 0x46DD794EU);
  EXPECT_EQ(of(GetParam(), {ascending.rbegin(), ascending.rend()}), 0x113FDB5CU);
  const std::string digits = "123456789";
  EXPECT_EQ(of(GetParam(), {digits.begin(), digits.end()}), 0xE3069283U);
  EXPECT_EQ(of(GetParam(), {}), 0U);
}

TEST_P(Crc32c, ContinuesWhereverItIsInterrupted) {
  std::vector<uint8_t> bytes(2 * 3 * detail::kCrcRun + 100);
  Random random(1);
  random.fill(bytes);
  const uint32_t whole = of(GetParam(), bytes);
  const size_t run = detail::kCrcRun;
  for (const size_t at :
       {size_t{0}, size_t{1}, size_t{7}, run, 3 * run - 1, 3 * run, 3 * run + 1, 6 * run, 6 * run + 99}) {
    const uint32_t begun = GetParam()(0, bytes.data(), at);
    EXPECT_EQ(GetParam()(begun, bytes.data() + at, bytes.size() - at), whole) << at;
  }
}

TEST(Crc32cFastest, EqualsTheTableForAllLengthsAroundTheRunsAndAllStarts) {
  constexpr size_t kRuns = 3 * detail::kCrcRun;
  std::vector<uint8_t> bytes(2 * kRuns + 64);
  Random random(2);
  random.fill(bytes);
  std::vector<size_t> sizes;
  for (size_t size = 0; size < 40; ++size) sizes.push_back(size);
  for (const size_t around : {detail::kCrcRun, kRuns, 2 * kRuns}) {
    for (size_t size = around - 20; size <= around + 20; ++size) sizes.push_back(size);
  }
  for (const size_t size : sizes) {
    for (size_t start = 0; start < (kFewerCases ? 3 : 9); ++start) {
      // Of exactly this size, so that ASan sees a read beyond.
      const std::vector<uint8_t> part(bytes.begin() + start, bytes.begin() + start + size);
      ASSERT_EQ(crc32c(0x12345678, bytes.data() + start, size), crc32c_table(0x12345678, part.data(), size))
          << size << " bytes from " << start;
      ASSERT_EQ(crc32c(0, part.data(), size), crc32c_table(0, part.data(), size)) << size;
    }
  }
}

TEST(Crc32cFastest, FindsEveryFlippedBitOfARecord) {
  std::vector<uint8_t> bytes(3 * detail::kCrcRun + 4096);
  const uint32_t right = of(crc32c, bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; bit += kFewerCases ? 4099 : 61) {
    bytes[bit / 8] ^= 1 << bit % 8;
    ASSERT_NE(of(crc32c, bytes), right) << bit;
    bytes[bit / 8] ^= 1 << bit % 8;
  }
}

}  // namespace
}  // namespace moedge::test
