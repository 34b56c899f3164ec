// Brings weights of a graph into their places in a slab, and says which one is missing.
#pragma once

#include <cstring>
#include <string>

#include "dense_layout.hpp"
#include "moedge_core.h"
#include "status.hpp"

namespace moedge {

struct WeightLoader {
  uint8_t* base;
  std::string of;  // what the weights belong to, e.g. "layer 3"

  void vector(const float* values, uint64_t count, uint64_t at, const char* name) const {
    if (values == nullptr) throw CoreError(MOEDGE_BAD_INPUT, std::string(name) + " of " + of + " is missing");
    std::memcpy(base + at, values, count * sizeof(float));
  }

  // See pack_matrix.
  void matrix(const moedge_matrix& from, uint32_t rows, uint32_t inputs, bool paired, const Quantization& quantization,
              const MatrixLayout& place, const char* name) const {
    const bool quantized = quantization.bits != 32;
    if (from.weight == nullptr || (quantized && from.scale == nullptr) ||
        (quantized && !quantization.symmetric && from.zero_point == nullptr)) {
      throw CoreError(MOEDGE_BAD_INPUT, std::string(name) + " of " + of + " is missing or lacks a part");
    }
    // Four-bit zero points are added to what is there, which may be that of another matrix.
    std::memset(base + place.zero, 0, place.tiles * place.zero_tile_bytes);
    if (!pack_matrix({from.weight, from.scale, from.zero_point}, rows, inputs, paired, quantization, place, base)) {
      throw CoreError(MOEDGE_BAD_INPUT, "a scale of " + std::string(name) + " of " + of + " is no float16");
    }
  }
};

}  // namespace moedge
