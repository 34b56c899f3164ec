#include "isa.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

#include "product.hpp"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace moedge::test {
namespace {

TEST(Isa, ScalarIsAlwaysThereAndUnknownNamesNever) {
  ASSERT_NE(find_kernels("scalar"), nullptr);
  EXPECT_STREQ(find_kernels("scalar")->name, "scalar");
  for (const char* name : {"", "Scalar", "avx", "avx512", "neon", "scalar "}) EXPECT_EQ(find_kernels(name), nullptr);
}

TEST(Isa, TheBestKernelsAreFoundByTheirName) {
  ASSERT_NE(find_kernels(best_kernels().name), nullptr);
  EXPECT_EQ(find_kernels(best_kernels().name), &best_kernels());
}

// A core keeps the rows of a pass on its stack.
TEST(Isa, NoKernelsTakeMoreThan32RowsAtOnce) {
  for (const char* name : kInstructionSets) {
    if (const Kernels* kernels = find_kernels(name)) {
      EXPECT_LE(kernels->max_rows, kMostRows) << name;
    }
  }
}

TEST(Isa, OnAarch64TheBestKernelsOfTheProcessorAreChosen) {
#if defined(__aarch64__)
  const bool dot_products = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  const bool matrices = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  EXPECT_STREQ(best_kernels().name, matrices ? "neoni8mm" : dot_products ? "neondot" : "scalar");
#else
  GTEST_SKIP() << "not aarch64";
#endif
}

TEST(Isa, OnX86TheBestKernelsOfTheProcessorAreChosen) {
#if defined(__x86_64__)
  const std::string best = best_kernels().name;
  for (const char* name : {"amx", "avx512vnni", "avxvnni", "avx2", "scalar"}) {
    if (find_kernels(name) == nullptr) continue;
    EXPECT_EQ(best, name);
    break;
  }
#else
  GTEST_SKIP() << "not x86-64";
#endif
}

// The kernel's own list is another source than the processor's. Linux before 5.16 lists tiles and does not save them.
TEST(Isa, KernelsAreFoundExactlyIfTheSystemListsTheirInstructions) {
#if defined(__x86_64__)
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("flags")) {
  }
  std::istringstream words(line);
  const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo has no flags";
  const bool avx2 = flags.contains("avx2") && flags.contains("fma") && flags.contains("f16c");
  EXPECT_EQ(find_kernels("avx2") != nullptr, avx2);
  EXPECT_EQ(find_kernels("avxvnni") != nullptr, avx2 && flags.contains("avx_vnni"));
  const bool avx512 = avx2 && flags.contains("avx512_vnni") && flags.contains("avx512vl");
  EXPECT_EQ(find_kernels("avx512vnni") != nullptr, avx512);
  constexpr int kGetSupported = 0x1021;  // ARCH_GET_XCOMP_SUPP
  constexpr uint64_t kTileData = 1 << 18;
  uint64_t saved = 0;
  syscall(SYS_arch_prctl, kGetSupported, &saved);
  EXPECT_EQ(find_kernels("amx") != nullptr, avx512 && flags.contains("amx_int8") && (saved & kTileData) != 0);
#else
  GTEST_SKIP() << "not x86-64";
#endif
}

}  // namespace
}  // namespace moedge::test
