// The port through which records come.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

class RecordSource {
 public:
  virtual ~RecordSource() = default;

  // Reads up to `size` bytes at `offset` into `to`; both and `to` are multiples of 4,096. Blocks; called by several
  // threads at once. Returns the bytes read (fewer at the end of the file), or −errno.
  virtual int64_t read(uint64_t offset, uint8_t* to, size_t size) = 0;

  // Whether reads bypass the page cache.
  virtual bool direct() const = 0;
};

}  // namespace moedge
