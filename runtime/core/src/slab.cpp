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

Slab::Slab(size_t bytes) : bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
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
#ifdef MADV_HUGEPAGE
  huge_pages_ = madvise(data_, bytes_, MADV_HUGEPAGE) == 0;
#endif
}

Slab::~Slab() { munmap(data_, bytes_); }

void Slab::release(size_t begin, size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));  // 16 KiB on a Raspberry Pi 5
  const size_t first = (begin + page - 1) / page * page;
  const size_t end = (begin + size) / page * page;
  if (first < end) madvise(data_ + first, end - first, MADV_DONTNEED);
}

}  // namespace moedge
