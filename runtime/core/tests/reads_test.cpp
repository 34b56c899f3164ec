// Reads under way, by the kernel and by threads.
#include "reads.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "file_source.hpp"
#include "kernel_reads.hpp"
#include "sample.hpp"
#include "temporary_file.hpp"
#include "thread_reads.hpp"

namespace moedge::test {
namespace {

constexpr size_t kPage = 4096;
constexpr uint32_t kMost = 4;

struct Free {
  void operator()(uint8_t* bytes) const { std::free(bytes); }
};

std::unique_ptr<uint8_t, Free> aligned_bytes(size_t size) {
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(std::aligned_alloc(kPage, size)));
}

std::vector<uint8_t> some_bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  Random(1).fill(bytes);
  return bytes;
}

// Null if the kernel cannot.
std::unique_ptr<Reads> reads_of(const std::string& path, uint64_t size, bool by_kernel) {
  auto source = std::make_unique<FileSource>(path, size, by_kernel);
  if (by_kernel) return KernelReads::open(source, kMost);
  return std::make_unique<ThreadReads>(std::move(source), kMost);
}

class ReadsTest : public testing::TestWithParam<bool> {
 protected:
  const std::vector<uint8_t> bytes_ = some_bytes(16 * kPage);
  const TemporaryFile file_{MOEDGE_SCRATCH, bytes_};
  const std::unique_ptr<uint8_t, Free> to_ = aligned_bytes(16 * kPage);
  const std::unique_ptr<Reads> reads_ = reads_of(file_.path(), bytes_.size(), GetParam());

  void SetUp() override {
    if (!reads_) GTEST_SKIP() << "no direct reads by the kernel of files in " << MOEDGE_SCRATCH;
  }
};

TEST_P(ReadsTest, AsManyAtOnceAsThereMayBeArriveWholeUnderTheirTags) {
  for (uint32_t turn = 0; turn < 16 / kMost; ++turn) {
    for (uint32_t tag = turn * kMost; tag < (turn + 1) * kMost; ++tag) {
      reads_->begin({tag * kPage, to_.get() + tag * kPage, kPage, tag});
    }
    std::set<uint32_t> came;
    while (came.size() < kMost) {
      const auto result = reads_->wait(kDeadline);
      ASSERT_TRUE(result);
      EXPECT_TRUE(result->problem.empty()) << result->problem;
      EXPECT_EQ(result->got, static_cast<int64_t>(kPage));
      EXPECT_TRUE(came.insert(result->tag).second) << result->tag << " came twice";
    }
    EXPECT_EQ(*came.begin(), turn * kMost);
  }
  EXPECT_EQ(memcmp(to_.get(), bytes_.data(), bytes_.size()), 0);
  EXPECT_EQ(reads_->direct(), GetParam());
}

TEST_P(ReadsTest, NothingUnderWayIsNoResult) { EXPECT_FALSE(reads_->wait(std::chrono::milliseconds(1))); }

TEST_P(ReadsTest, AtTheEndOfTheFileThereIsLess) {
  ASSERT_EQ(truncate(file_.path().c_str(), kPage + 1000), 0);
  reads_->begin({0, to_.get(), 2 * kPage, 7});
  EXPECT_EQ(reads_->wait(kDeadline)->got, static_cast<int64_t>(kPage + 1000));
  reads_->begin({4 * kPage, to_.get(), kPage, 8});
  const auto behind = reads_->wait(kDeadline);
  EXPECT_EQ(behind->tag, 8U);
  EXPECT_EQ(behind->got, 0);
}

TEST_P(ReadsTest, ItEndsWhileReadsAreUnderWay) {
  for (uint32_t turn = 0; turn < 50; ++turn) {
    const auto reads = reads_of(file_.path(), bytes_.size(), GetParam());
    for (uint32_t tag = 0; tag < kMost; ++tag) reads->begin({tag * kPage, to_.get() + tag * kPage, kPage, tag});
  }
}

INSTANTIATE_TEST_SUITE_P(By, ReadsTest, testing::Values(true, false),
                         [](const auto& by) { return by.param ? "TheKernel" : "Threads"; });

// A place in memory off every boundary stands for a file system that refuses direct reads only when they come.
TEST(KernelReadsTest, WhatTheKernelRefusesIsReadThroughThePageCache) {
  const std::vector<uint8_t> bytes = some_bytes(4 * kPage);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  const auto reads = reads_of(file.path(), bytes.size(), true);
  if (!reads) GTEST_SKIP() << "no direct reads by the kernel of files in " << MOEDGE_SCRATCH;
  const auto to = aligned_bytes(2 * kPage);
  reads->begin({kPage, to.get() + 1, kPage, 3});
  const auto result = reads->wait(kDeadline);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->got, static_cast<int64_t>(kPage));
  EXPECT_EQ(memcmp(to.get() + 1, bytes.data() + kPage, kPage), 0);
}

TEST(KernelReadsTest, AnErrorHasItsNumber) {
  const std::vector<uint8_t> bytes = some_bytes(4 * kPage);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  const auto reads = reads_of(file.path(), bytes.size(), true);
  if (!reads) GTEST_SKIP() << "no direct reads by the kernel of files in " << MOEDGE_SCRATCH;
  reads->begin({0, reinterpret_cast<uint8_t*>(kPage), kPage, 0});  // no memory
  EXPECT_EQ(reads->wait(kDeadline)->got, -EFAULT);
}

TEST(KernelReadsTest, AreNotForAFileThatIsNotReadDirectly) {
  const std::vector<uint8_t> bytes = some_bytes(kPage);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  auto source = std::make_unique<FileSource>(file.path(), bytes.size(), false);
  EXPECT_FALSE(KernelReads::open(source, kMost));
  EXPECT_TRUE(source) << "it is left to others";
}

class BrokenSource : public RecordSource {
 public:
  int64_t read(uint64_t, uint8_t*, size_t) override { throw std::runtime_error("out of order"); }
  bool direct() const override { return false; }
};

TEST(ThreadReadsTest, ASourceThatThrowsIsAProblem) {
  ThreadReads reads(std::make_unique<BrokenSource>(), 1);
  reads.begin({0, nullptr, kPage, 5});
  const auto result = reads.wait(kDeadline);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->tag, 5U);
  EXPECT_EQ(result->problem, "its reader failed (out of order)");
}

}  // namespace
}  // namespace moedge::test
