#include "budget.hpp"

#include <gtest/gtest.h>

#include <string>

#include "disk.hpp"
#include "isa.hpp"
#include "model.hpp"
#include "status.hpp"
#include "thread_reads.hpp"

namespace moedge::test {
namespace {

TEST(Budget, HasRoomForWhatTheBuffersLeave) {
  EXPECT_EQ(slots_within(1000 + 30 * 100 + 99, 1000, 100, 50, 8).total(), 30U);
  EXPECT_EQ(slots_within(1000 + 10 * 100, 1000, 100, 50, 8).total(), 10U);
  EXPECT_EQ(slots_within(UINT64_MAX, 1000, 100, 50, 8).total(), 50U);
  EXPECT_EQ(slots_within(0, 1000, 100, 50, 8).total(), 50U);
}

TEST(Budget, ThatIsTooSmallIsRefusedWithTheLeast) {
  for (const uint64_t bytes : {1, 1000, 1999}) {
    try {
      slots_within(bytes, 1000, 100, 50, 8);
      ADD_FAILURE() << bytes;
    } catch (const CoreError& error) {
      EXPECT_EQ(error.status, MOEDGE_BUDGET_TOO_SMALL);
      EXPECT_EQ(error.value, 2000U);
      EXPECT_EQ(error.what(), "budget of " + grouped(bytes) +
                                  " bytes, at least 2,000 are needed: 10 records of 100 and 1,000 for buffers");
    }
  }
}

// The buffers of this core are larger than any machine's memory.
TEST(Budget, OfACoreIsRefusedBeforeItsBuffersAreAllocated) {
  const auto layout = RecordLayout::make(2, 1 << 16, {32, 32, true});
  CoreOptions options;
  options.top_k = 2;
  options.max_tokens = 1 << 20;
  options.budget_bytes = 1 << 30;
  const RecordFile file{1, 4, layout.record_bytes, layout.fc2_offset, std::vector<uint32_t>(4)};
  const auto disk = std::make_shared<Disk>(std::vector<uint8_t>(), layout.record_bytes);
  try {
    auto reads = std::make_unique<ThreadReads>(std::make_unique<DiskSource>(disk), 1);
    Core core(options, layout, file, std::move(reads), best_kernels());
    ADD_FAILURE() << "it was accepted";
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_BUDGET_TOO_SMALL) << error.what();
    EXPECT_GT(error.value, uint64_t{3} * (1 << 20) * (1 << 16) * 4);
  }
}

}  // namespace
}  // namespace moedge::test
