// Products of matrices in tiles with activation rows, as tasks that threads share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels.hpp"
#include "layout.hpp"
#include "places.hpp"
#include "router.hpp"

namespace moedge {

// Weights of a task: small enough to share, large enough to be worth taking.
constexpr uint64_t kWeightsOfTask = 128 << 10;
// Rows that a TileKernel of any instruction set takes at once.
constexpr uint32_t kMostRows = 32;

inline uint32_t tiles_of_task(const MatrixLayout& matrix) {
  return static_cast<uint32_t>(std::max(uint64_t{1}, kWeightsOfTask / matrix.weight_tile_bytes));
}

inline uint32_t tasks_of(const MatrixLayout& matrix) { return divide_up(matrix.tiles, tiles_of_task(matrix)); }

// The tiles of a task times the activation rows of all tokens, `row(token)`; use(tile, token, values) gets each tile's
// 32 values of a token.
//   base  where the offsets of `matrix` begin
template <class Row, class Use>
void multiply(const Kernels& kernels, const uint8_t* base, const MatrixLayout& matrix, const Quantization& quantization,
              uint32_t tokens, uint32_t task, const Row& row, const Use& use) {
  const uint32_t tiles = tiles_of_task(matrix);
  const uint32_t end = std::min(matrix.tiles, (task + 1) * tiles);
  const uint32_t passes = divide_up(tokens, kernels.max_rows);
  alignas(64) float out[kMostRows * kTileRows];
  for (uint32_t tile = task * tiles; tile < end; ++tile) {
    for (uint32_t pass = 0; pass < passes; ++pass) {
      // As even as possible: a kernel for few rows is less efficient.
      const auto begin = static_cast<uint32_t>(uint64_t{tokens} * pass / passes);
      const uint32_t count = static_cast<uint32_t>(uint64_t{tokens} * (pass + 1) / passes) - begin;
      const uint8_t* x[kMostRows];
      for (uint32_t i = 0; i < count; ++i) x[i] = row(begin + i);
      const TileKernel kernel = kernels.tile(quantization.bits, quantization.block, quantization.symmetric, count);
      kernel(base + matrix.weight + tile * matrix.weight_tile_bytes,
             reinterpret_cast<const uint16_t*>(base + matrix.scale + tile * matrix.scale_tile_bytes),
             base + matrix.zero + tile * matrix.zero_tile_bytes, matrix.blocks, x, out);
      for (uint32_t i = 0; i < count; ++i) use(tile, begin + i, out + i * kTileRows);
    }
  }
}

// Makes an activation row of `x`; returns whether all of it is finite.
inline bool make_row(const Kernels& kernels, const float* x, uint32_t count, const Quantization& quantization,
                     uint8_t* row) {
  if (quantization.bits != 32) {
    return kernels.quantize(x, count, quantization.block, correction_factor(quantization, kernels.bias8), row,
                            row + terms_offset(count, quantization.block));
  }
  std::memcpy(row, x, count * sizeof(float));
  return all_finite(x, count);
}

}  // namespace moedge
