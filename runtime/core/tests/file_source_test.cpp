#include "file_source.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "sample.hpp"
#include "status.hpp"
#include "temporary_file.hpp"

namespace moedge::test {
namespace {

struct Free {
  void operator()(uint8_t* bytes) const { std::free(bytes); }
};

// Aligned as slots are.
std::unique_ptr<uint8_t, Free> aligned_bytes(size_t size) {
  return std::unique_ptr<uint8_t, Free>(static_cast<uint8_t*>(std::aligned_alloc(4096, size)));
}

std::vector<uint8_t> some_bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  Random(1).fill(bytes);
  return bytes;
}

bool takes_direct(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_DIRECT);
  if (file < 0) return false;
  const auto to = aligned_bytes(4096);
  const bool taken = pread(file, to.get(), 4096, 0) >= 0;
  close(file);
  return taken;
}

void expect_content(FileSource& source, const std::vector<uint8_t>& bytes) {
  const auto to = aligned_bytes(8192);
  for (const size_t offset : {size_t{0}, size_t{4096}, bytes.size() - 8192}) {
    ASSERT_EQ(source.read(offset, to.get(), 8192), 8192);
    EXPECT_EQ(memcmp(to.get(), bytes.data() + offset, 8192), 0);
  }
  ASSERT_EQ(source.read(bytes.size() - 4096, to.get(), 8192), 4096) << "at the end of the file";
  ASSERT_EQ(source.read(bytes.size(), to.get(), 8192), 0) << "behind it";
}

TEST(FileSourceTest, ReadsAFileDirectly) {
  const std::vector<uint8_t> bytes = some_bytes(10 * 4096);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  if (!takes_direct(file.path())) GTEST_SKIP() << "the file system of " << MOEDGE_SCRATCH << " has no O_DIRECT";
  FileSource source(file.path(), bytes.size(), true);
  EXPECT_TRUE(source.direct());
  expect_content(source, bytes);
  EXPECT_TRUE(source.direct()) << "it fell back to the page cache";
}

TEST(FileSourceTest, ReadsAFileBufferedIfAskedTo) {
  const std::vector<uint8_t> bytes = some_bytes(10 * 4096);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  FileSource source(file.path(), bytes.size(), false);
  EXPECT_FALSE(source.direct());
  expect_content(source, bytes);
}

TEST(FileSourceTest, ReadsBufferedWhereDirectReadsAreRefused) {
  const std::vector<uint8_t> bytes = some_bytes(10 * 4096);
  if (access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm";
  const TemporaryFile file("/dev/shm", bytes);
  if (takes_direct(file.path())) GTEST_SKIP() << "tmpfs of this kernel (6.6 or newer) takes O_DIRECT";
  FileSource source(file.path(), bytes.size(), true);
  expect_content(source, bytes);
  EXPECT_FALSE(source.direct());
}

// Attributes in sysfs say that they have a page, and refuse O_DIRECT on every kernel.
TEST(FileSourceTest, ReadsBufferedFromSysfsWhichRefusesDirectReadsOnOpen) {
  const std::string path = "/sys/devices/system/cpu/possible";
  if (access(path.c_str(), R_OK) != 0) GTEST_SKIP() << "no " << path;
  if (takes_direct(path)) GTEST_SKIP() << path << " takes O_DIRECT";
  std::string content;
  std::getline(std::ifstream(path), content);
  FileSource source(path, 4096, true);
  const auto to = aligned_bytes(4096);
  ASSERT_EQ(source.read(0, to.get(), 4096), static_cast<int64_t>(content.size()) + 1);
  EXPECT_EQ(memcmp(to.get(), content.data(), content.size()), 0);
  EXPECT_FALSE(source.direct());
}

// Stands for a file system that takes O_DIRECT on open and not on read: a place in memory off every boundary.
TEST(FileSourceTest, ReadsBufferedOnceADirectReadIsRefused) {
  const std::vector<uint8_t> bytes = some_bytes(10 * 4096);
  const TemporaryFile file(MOEDGE_SCRATCH, bytes);
  FileSource source(file.path(), bytes.size(), true);
  const auto to = aligned_bytes(8192);
  ASSERT_EQ(source.read(4096, to.get() + 1, 4096), 4096);
  EXPECT_EQ(memcmp(to.get() + 1, bytes.data() + 4096, 4096), 0);
  if (source.direct()) GTEST_SKIP() << "the file system of " << MOEDGE_SCRATCH << " reads directly to any place";
  expect_content(source, bytes);
}

TEST(FileSourceTest, AMissingFileIsAnErrorWithTheReason) {
  try {
    FileSource source("/nowhere/experts.bin", 4096, true);
    FAIL() << "it was opened";
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_FILE_UNUSABLE);
    EXPECT_EQ(error.os_error, ENOENT);
    EXPECT_NE(std::string(error.what()).find("No such file or directory"), std::string::npos) << error.what();
  }
}

TEST(FileSourceTest, AFileOfAnotherSizeIsAnErrorWithBothNumbers) {
  const TemporaryFile file(MOEDGE_SCRATCH, some_bytes(3 * 4096));
  for (const uint64_t size : {uint64_t{0}, uint64_t{2 * 4096}, uint64_t{4 * 4096}}) {
    try {
      FileSource source(file.path(), size, true);
      FAIL() << "it was opened";
    } catch (const CoreError& error) {
      EXPECT_EQ(error.status, MOEDGE_FILE_UNUSABLE);
      EXPECT_NE(std::string(error.what()).find("12,288"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(grouped(size)), std::string::npos) << error.what();
    }
  }
}

TEST(FileSourceTest, ADirectoryIsNotRead) {
  try {
    FileSource source(MOEDGE_SCRATCH, 4096, false);
    const auto to = aligned_bytes(4096);
    EXPECT_EQ(source.read(0, to.get(), 4096), -EISDIR);
  } catch (const CoreError& error) {
    EXPECT_EQ(error.status, MOEDGE_FILE_UNUSABLE);
  }
}

TEST(FileSourceTest, ReadsOfAFileThatWasCutAfterOpeningAreShort) {
  for (const bool direct : {true, false}) {
    const TemporaryFile file(MOEDGE_SCRATCH, some_bytes(4 * 4096));
    FileSource source(file.path(), 4 * 4096, direct);
    ASSERT_EQ(truncate(file.path().c_str(), 4096 + 1000), 0);
    const auto to = aligned_bytes(8192);
    EXPECT_EQ(source.read(0, to.get(), 8192), 4096 + 1000);
    EXPECT_EQ(source.read(8192, to.get(), 8192), 0);
  }
}

}  // namespace
}  // namespace moedge::test
