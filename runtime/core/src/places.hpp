// Hands out places in a slab of weights, one after the other. No effects.
#pragma once

#include <cstdint>

#include "layout.hpp"

namespace moedge {

inline uint32_t divide_up(uint32_t value, uint32_t by) { return (value + by - 1) / by; }

inline uint64_t aligned(uint64_t offset, uint64_t to) { return (offset + to - 1) / to * to; }

struct Places {
  static constexpr uint64_t kVectorAlignment = 64;

  uint64_t end = 0;

  void matrix(MatrixLayout& layout, uint32_t tiles, uint32_t inputs, const Quantization& quantization) {
    end = place_matrix(layout, tiles, inputs, quantization, aligned(end, kSectionAlignment));
  }

  uint64_t vector(uint64_t count) {
    const uint64_t at = aligned(end, kVectorAlignment);
    end = at + count * sizeof(float);
    return at;
  }
};

}  // namespace moedge
