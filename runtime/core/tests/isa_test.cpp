#include "isa.hpp"

#include <gtest/gtest.h>

#include <string>

#if defined(__aarch64__)
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

// A core keeps the rows of a pass on its stack; kMostRows in core.cpp.
TEST(Isa, NoKernelsTakeMoreThanEightRowsAtOnce) {
  for (const char* name : {"scalar", "avx2", "avx512vnni", "neondot"}) {
    if (const Kernels* kernels = find_kernels(name)) {
      EXPECT_LE(kernels->max_rows, 8U) << name;
    }
  }
}

TEST(Isa, OnAarch64WithDotProductsTheyAreChosen) {
#if defined(__aarch64__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0) GTEST_SKIP() << "this processor has no dot-product instructions";
  EXPECT_STREQ(best_kernels().name, "neondot");
#else
  GTEST_SKIP() << "not aarch64";
#endif
}

TEST(Isa, OnX86TheWidestKernelsOfTheProcessorAreChosen) {
#if defined(__x86_64__)
  const std::string best = best_kernels().name;
  if (find_kernels("avx512vnni")) {
    EXPECT_EQ(best, "avx512vnni");
  } else if (find_kernels("avx2")) {
    EXPECT_EQ(best, "avx2");
  } else {
    EXPECT_EQ(best, "scalar");
  }
#else
  GTEST_SKIP() << "not x86-64";
#endif
}

}  // namespace
}  // namespace moedge::test
