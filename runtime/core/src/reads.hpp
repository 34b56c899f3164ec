// The port through which the pager reads: reads that are under way while nobody waits for them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace moedge {

// One read; `offset`, `to` and `size` are multiples of 4,096, but the first two of what is left of a short read of 512.
struct Read {
  uint64_t offset = 0;
  uint8_t* to = nullptr;
  size_t size = 0;
  uint32_t tag = 0;  // the caller's
};

struct ReadResult {
  uint32_t tag = 0;
  int64_t got = 0;      // bytes, fewer at the end of the file, or −errno
  std::string problem;  // what else went wrong, a clause; then `got` means nothing
};

class Reads {
 public:
  virtual ~Reads() = default;

  // Begins a read and returns; what cannot be begun has a result as well. Any thread.
  virtual void begin(const Read& read) = 0;

  // The result of one read that has ended; none within `limit`. One thread at a time.
  virtual std::optional<ReadResult> wait(std::chrono::milliseconds limit) = 0;

  // Whether reads bypass the page cache.
  virtual bool direct() const = 0;

  // How many threads it has.
  virtual uint32_t threads() const = 0;
};

}  // namespace moedge
