// The memory of all slots: address space for every record, backed by pages only where it was written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

class Slab {
 public:
  // Throws CoreError OUT_OF_MEMORY.
  explicit Slab(size_t bytes);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  uint8_t* data() const { return data_; }
  bool huge_pages() const { return huge_pages_; }

  // Gives the whole pages within `size` bytes from `begin` on back to the system.
  void release(size_t begin, size_t size);

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  bool huge_pages_ = false;
};

}  // namespace moedge
