#include "file_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "status.hpp"

namespace moedge {
namespace {

CoreError unusable(const std::string& message, int os_error) {
  CoreError error(MOEDGE_FILE_UNUSABLE, message);
  error.os_error = os_error;
  return error;
}

}  // namespace

FileSource::FileSource(const std::string& path, uint64_t size, bool direct) {
  buffered_file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (buffered_file_ < 0) throw unusable(std::string("it cannot be opened (") + std::strerror(errno) + ")", errno);
  struct stat status{};
  if (fstat(buffered_file_, &status) != 0 || static_cast<uint64_t>(status.st_size) != size) {
    close(buffered_file_);
    throw unusable(
        "it has " + grouped(static_cast<uint64_t>(status.st_size)) + " bytes, its records take " + grouped(size), 0);
  }
#ifdef O_DIRECT
  if (direct) file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
#endif
  direct_ = file_ >= 0;
}

FileSource::~FileSource() {
  if (file_ >= 0) close(file_);
  close(buffered_file_);
}

int64_t FileSource::read(uint64_t offset, uint8_t* to, size_t size) {
  for (;;) {
    const bool direct = direct_.load(std::memory_order_relaxed);
    const ssize_t got = pread(direct ? file_ : buffered_file_, to, size, static_cast<off_t>(offset));
    if (got >= 0) return got;
    if (errno == EINTR) continue;
    if (errno == EINVAL && direct) {
      direct_ = false;
      continue;
    }
    return -errno;
  }
}

}  // namespace moedge
