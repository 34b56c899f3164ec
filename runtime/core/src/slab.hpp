// The memory of all slots: address space for every record, backed by pages only where it was written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace moedge {

class Slab {
 public:
  // With `locked`, what is taken is backed by pages at once, and these are never swapped out. Throws CoreError
  // OUT_OF_MEMORY.
  explicit Slab(size_t bytes, bool locked = false);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  uint8_t* data() const { return data_; }
  bool huge_pages() const { return huge_pages_; }

  struct Range {
    size_t begin;
    size_t size;
  };

  // `ranges`, in ascending order, will be written to: they get huge pages where a whole one lies within, so that
  // nothing beyond them is backed. Throws CoreError OUT_OF_MEMORY if they cannot be locked.
  void take(std::initializer_list<Range> ranges);

  // The whole pages between what has been taken go back to the system.
  void release_the_rest(std::initializer_list<Range> ranges);

 private:
  void release(size_t begin, size_t end);

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  bool locked_ = false;
  bool huge_pages_ = false;
};

}  // namespace moedge
