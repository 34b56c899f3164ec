#include "slab.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "status.hpp"

namespace moedge {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Slab::Slab(size_t bytes, bool locked) : bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage), locked_(locked) {
  // One huge page more than needed, so that the slots begin on one.
  const size_t mapped = bytes_ + kHugePage;
  void* address = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    CoreError error(MOEDGE_OUT_OF_MEMORY,
                    grouped(mapped) + " bytes of address space cannot be had (" + std::strerror(errno) + ")");
    error.value = mapped;
    throw error;
  }
  const auto start = reinterpret_cast<uintptr_t>(address);
  const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > start) munmap(address, aligned - start);
  const size_t behind = start + mapped - (aligned + bytes_);
  if (behind > 0) munmap(reinterpret_cast<void*>(aligned + bytes_), behind);
  data_ = reinterpret_cast<uint8_t*>(aligned);
  take({});
}

Slab::~Slab() { munmap(data_, bytes_); }

void Slab::take(std::initializer_list<Range> ranges) {
#ifdef MADV_HUGEPAGE
  madvise(data_, bytes_, MADV_NOHUGEPAGE);  // a system that is set to "always" would back the ends whole
  for (const Range& range : ranges) {
    const size_t first = (range.begin + kHugePage - 1) / kHugePage * kHugePage;
    const size_t end = (range.begin + range.size) / kHugePage * kHugePage;
    if (first < end && madvise(data_ + first, end - first, MADV_HUGEPAGE) == 0) huge_pages_ = true;
  }
#endif
  if (!locked_) return;
  for (const Range& range : ranges) {
    if (range.size == 0 || mlock(data_ + range.begin, range.size) == 0) continue;
    const int os_error = errno;
    CoreError error(MOEDGE_OUT_OF_MEMORY,
                    grouped(range.size) + " bytes of memory cannot be locked (" + std::strerror(os_error) + ")");
    error.os_error = os_error;
    error.value = range.size;
    throw error;
  }
}

void Slab::release_the_rest(std::initializer_list<Range> ranges) {
  size_t unused = 0;
  for (const Range& range : ranges) {
    release(unused, range.begin);
    unused = range.begin + range.size;
  }
  release(unused, bytes_);
}

void Slab::release(size_t begin, size_t end) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));  // 16 KiB on a Raspberry Pi 5
  const size_t first = (begin + page - 1) / page * page;
  const size_t last = end / page * page;
  if (first >= last) return;
  if (locked_) munlock(data_ + first, last - first);
  madvise(data_ + first, last - first, MADV_DONTNEED);
}

}  // namespace moedge
