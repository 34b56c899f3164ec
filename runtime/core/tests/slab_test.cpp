#include "slab.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "sample.hpp"
#include "status.hpp"

namespace moedge::test {
namespace {

// Pages of this process in memory, bytes.
uint64_t resident_bytes() {
  uint64_t size = 0;
  uint64_t resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST(Slab, BeginsOnAHugePageAndIsZero) {
  const Slab slab(3 << 20);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(slab.data()) % (2 << 20), 0U);
  EXPECT_EQ(slab.data()[0], 0);
  EXPECT_EQ(slab.data()[(3 << 20) - 1], 0);
}

TEST(Slab, AddressSpaceCostsNothingUntilItIsWritten) {
  if (kFewerCases) GTEST_SKIP() << "a sanitizer or an emulator keeps tables of the address space";
  const uint64_t before = resident_bytes();
  const Slab slab(size_t{64} << 30);
  EXPECT_LT(resident_bytes(), before + (16 << 20));
}

TEST(Slab, WhatIsNotKeptGoesBackAndReadsAsZeroTheRestStays) {
  Slab slab(64 << 20);
  memset(slab.data(), 1, 64 << 20);
  const uint64_t full = resident_bytes();
  slab.release_the_rest({{0, 8 << 20}, {56 << 20, 8 << 20}});
  // Under a sanitizer or an emulator the figure also counts what they keep for themselves.
  if (!kFewerCases) {
    EXPECT_LT(resident_bytes(), full - (40 << 20));
  }
  EXPECT_EQ(slab.data()[(8 << 20) - 1], 1);
  EXPECT_EQ(slab.data()[8 << 20], 0);
  EXPECT_EQ(slab.data()[(56 << 20) - 1], 0);
  EXPECT_EQ(slab.data()[56 << 20], 1);
}

TEST(Slab, OnlyWholePagesGoBack) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  Slab slab(8 * page);
  memset(slab.data(), 1, 8 * page);
  slab.release_the_rest({{0, page / 2}, {3 * page + page / 2, 5 * page}});
  EXPECT_EQ(slab.data()[page - 1], 1);
  EXPECT_EQ(slab.data()[page], 0);
  EXPECT_EQ(slab.data()[3 * page - 1], 0);
  EXPECT_EQ(slab.data()[3 * page], 1);
}

TEST(Slab, WhatIsKeptIsBackedToItsEndAndNoFurther) {
  if (kFewerCases) GTEST_SKIP() << "a sanitizer or an emulator keeps tables of the address space";
  constexpr size_t kKept = (31 << 20) + 8192;
  Slab slab(64 << 20);
  slab.take({{4096, kKept}});
  const uint64_t before = resident_bytes();
  memset(slab.data() + 4096, 1, kKept);
  EXPECT_LE(resident_bytes(), before + kKept + (256 << 10)) << "a huge page reaches beyond what is kept";
}

// Memory of this process that is locked, bytes.
uint64_t locked_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    uint64_t kib = 0;
    if (word == "VmLck:" && status >> kib) return kib << 10;
  }
  return 0;
}

TEST(Slab, LockedMemoryIsThereAtOnceAndGoesBackUnlocked) {
  if (kFewerCases) GTEST_SKIP() << "a sanitizer or an emulator keeps tables of the address space";
  constexpr size_t kTaken = 6 << 20;  // who is not root may often lock 8 MiB
  const uint64_t before = resident_bytes();
  const uint64_t locked = locked_bytes();
  Slab slab(64 << 20, true);
  EXPECT_LT(resident_bytes(), before + kTaken) << "what is not taken is backed";
  slab.take({{0, kTaken}});
  EXPECT_GE(resident_bytes(), before + kTaken);
  EXPECT_EQ(locked_bytes(), locked + kTaken);
  memset(slab.data(), 1, kTaken);
  slab.take({{0, 2 << 20}});
  slab.release_the_rest({{0, 2 << 20}});
  EXPECT_EQ(locked_bytes(), locked + (2 << 20));
  EXPECT_EQ(slab.data()[(2 << 20) - 1], 1);
  EXPECT_EQ(slab.data()[2 << 20], 0);
}

TEST(Slab, MoreThanTheAddressSpaceIsAnErrorWithTheNumber) {
  try {
    const Slab slab(size_t{1} << 60);
    FAIL() << "2^60 bytes were had";
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_OUT_OF_MEMORY);
    EXPECT_GE(error.value, uint64_t{1} << 60);
    EXPECT_NE(std::string(error.what()).find("1,152,921,504,6"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace moedge::test
