// The kernels, written once over a vector type V that each instruction set supplies.
//
// V has `kLanes` (a divisor of 16), types F (floats) and I (int32 or 4-byte groups), and the static functions used
// below. For a row every instruction set does the same operations in the same order: exact integer sums in a block,
// then one fused multiply-add into the row's float sum. So all of them give the same bits.
#pragma once

#include <cmath>
#include <cstring>
#include <utility>

#include "exponential.hpp"
#include "kernels.hpp"
#include "layout.hpp"

namespace moedge {
namespace {

// The exact sums of one block: `kVectors` vectors of the tile's rows times kRows activation rows, from the corrections
// of the activation rows on if symmetric, else from zero.
//   weight  each vector's bytes of the block's first chunk
//   rows    activation rows; the block's values begin at `at`, its terms at `terms`
// An instruction set whose products do not stay in their lanes has a specialization of it.
template <class V, int kBits, bool kSymmetric, int kBlock, int kVectors, int kRows>
struct BlockSums {
  using I = typename V::I;

  [[gnu::always_inline]] static void compute(const uint8_t* const (&weight)[kVectors],
                                             const uint8_t* const (&rows)[kRows], size_t at, size_t terms,
                                             I (&acc)[kVectors][kRows]) {
    constexpr int kChunks = kBlock * 16 * kBits / 8 / 64;
    constexpr int kInputsOfChunk = 32 / kBits;  // inputs of a row in a 64-byte chunk
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const I start = kSymmetric ? V::broadcast(rows[t] + terms + 4) : V::zero_i();
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[v][t] = start;
    }
#pragma GCC unroll 8
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      I packed[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) packed[v] = V::load(weight[v] + chunk * 128);
#pragma GCC unroll 2
      for (int part = 0; part < kInputsOfChunk / 4; ++part) {
        I values[kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kBits == 8) {
            values[v] = V::byte_weights(packed[v]);
          } else {
            values[v] = part ? V::high_nibbles(packed[v]) : V::low_nibbles(packed[v]);
          }
        }
#pragma GCC unroll 8
        for (int t = 0; t < kRows; ++t) {
          const I inputs = V::broadcast(rows[t] + at + chunk * kInputsOfChunk + part * 4);
#pragma GCC unroll 16
          for (int v = 0; v < kVectors; ++v) {
            if constexpr (kBits == 8) {
              acc[v][t] = V::dot8(acc[v][t], values[v], inputs);
            } else {
              acc[v][t] = V::dot4(acc[v][t], values[v], inputs);
            }
          }
        }
      }
    }
  }
};

// `kVectors` vectors of the tile's 32 rows, from vector `first` on, times kRows activation rows.
template <class V, int kBits, bool kSymmetric, int kBlock, int kVectors, int kRows>
inline void tile_pass(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t blocks, int first,
                      const uint8_t* const* x, float* out) {
  constexpr int kPerHalf = 16 / V::kLanes;
  constexpr int kHalfBytes = kBlock * 16 * kBits / 8;
  const uint8_t* rows[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) rows[t] = x[t];
  typename V::F sum[kVectors][kRows];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) sum[v][t] = V::zero_f();
  }
  const uint8_t* vector_weight[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
    const int index = first + v;
    vector_weight[v] = weight + index / kPerHalf * 64 + index % kPerHalf * V::kLanes * 4;
  }
  size_t at = 0;
  size_t terms = size_t{blocks} * kBlock;
  for (uint32_t block = 0; block < blocks; ++block) {
    typename V::I acc[kVectors][kRows];
    BlockSums<V, kBits, kSymmetric, kBlock, kVectors, kRows>::compute(vector_weight, rows, at, terms, acc);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const int index = first + v;
      const typename V::F row_scale = V::load_halfs(scale + index * V::kLanes);
      typename V::I row_zero = V::zero_i();
      if constexpr (!kSymmetric) {
        if constexpr (kBits == 8) {
          row_zero = V::subtract(V::widen(zero + index * V::kLanes), V::set(V::kBias8));
        } else {
          const typename V::I pair = V::widen(zero + index % kPerHalf * V::kLanes);
          row_zero = index / kPerHalf ? V::high_nibbles(pair) : V::low_nibbles(pair);
        }
      }
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        typename V::I exact = acc[v][t];
        if constexpr (!kSymmetric) {
          exact = V::subtract(exact, V::multiply(row_zero, V::broadcast(rows[t] + terms + 4)));
        }
        const typename V::F both = V::multiply(row_scale, V::broadcast_f(rows[t] + terms));
        sum[v][t] = V::fused(V::to_float(exact), both, sum[v][t]);
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) vector_weight[v] += 2 * kHalfBytes;
    scale += kTileRows;
    zero += kTileRows * kBits / 8;
    at += kBlock;
    terms += kTermBytes;
  }
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) V::store(out + t * kTileRows + (first + v) * V::kLanes, sum[v][t]);
  }
}

// A TileKernel of integers. An instruction set that multiplies whole matrices has a specialization of it.
template <class V, int kBits, bool kSymmetric, int kBlock, int kRows>
struct TileProduct {
  static void compute(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t blocks,
                      const uint8_t* const* x, float* out) {
    constexpr int kVectors = kRows == 1 ? V::kVectorsOfOneRow : V::kVectors;
    for (int first = 0; first < int(kTileRows) / V::kLanes; first += kVectors) {
      tile_pass<V, kBits, kSymmetric, kBlock, kVectors, kRows>(weight, scale, zero, blocks, first, x, out);
    }
  }
};

// Rows that are computed side by side, at most.
constexpr int kMostFloatRows = 8;

template <class V, int kRows>
void tile_float(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t inputs,
                const uint8_t* const* x, float* out) {
  if constexpr (kRows > kMostFloatRows) {
    tile_float<V, kMostFloatRows>(weight, scale, zero, inputs, x, out);
    tile_float<V, kRows - kMostFloatRows>(weight, scale, zero, inputs, x + kMostFloatRows,
                                          out + kMostFloatRows * kTileRows);
  } else {
    constexpr int kVectors = kRows == 1 ? V::kVectorsOfOneRow : V::kVectors;
    for (int first = 0; first < int(kTileRows) / V::kLanes; first += kVectors) {
      typename V::F sum[kVectors][kRows];
      for (int v = 0; v < kVectors; ++v) {
        for (int t = 0; t < kRows; ++t) sum[v][t] = V::zero_f();
      }
      const float* values = reinterpret_cast<const float*>(weight) + first * V::kLanes;
      for (uint32_t k = 0; k < inputs; ++k, values += kTileRows) {
        for (int v = 0; v < kVectors; ++v) {
          const typename V::F row = V::load_f(values + v * V::kLanes);
          for (int t = 0; t < kRows; ++t) sum[v][t] = V::fused(row, V::broadcast_f(x[t] + k * 4), sum[v][t]);
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        for (int t = 0; t < kRows; ++t) V::store(out + t * kTileRows + (first + v) * V::kLanes, sum[v][t]);
      }
    }
  }
}

template <class V, int kBits, bool kSymmetric, int kBlock, int... kRows>
TileKernel of_rows(uint32_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr TileKernel kAll[] = {TileProduct<V, kBits, kSymmetric, kBlock, kRows + 1>::compute...};
  return kAll[rows - 1];
}

template <class V, int kBits, bool kSymmetric>
TileKernel of_block(uint32_t block, uint32_t rows) {
  constexpr auto kAll = std::make_integer_sequence<int, V::kMaxRows>();
  switch (block) {
    case 32:
      return of_rows<V, kBits, kSymmetric, 32>(rows, kAll);
    case 64:
      return of_rows<V, kBits, kSymmetric, 64>(rows, kAll);
    default:
      return of_rows<V, kBits, kSymmetric, 128>(rows, kAll);
  }
}

template <class V, int... kRows>
TileKernel float_of_rows(uint32_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr TileKernel kAll[] = {tile_float<V, kRows + 1>...};
  return kAll[rows - 1];
}

template <class V>
TileKernel tile_kernel(uint32_t bits, uint32_t block, bool symmetric, uint32_t rows) {
  if (bits == 32) return float_of_rows<V>(rows, std::make_integer_sequence<int, V::kMaxRows>());
  if (bits == 4) return symmetric ? of_block<V, 4, true>(block, rows) : of_block<V, 4, false>(block, rows);
  return symmetric ? of_block<V, 8, true>(block, rows) : of_block<V, 8, false>(block, rows);
}

// The value of the largest magnitude becomes −128 exactly, by a scale of its own sign turned around: that uses the
// range of int8 to its end, so the error is 0.8 % below that of a range of ±127. The other sign's largest values stop
// at 127.
inline bool quantize_blocks(const float* x, uint32_t count, uint32_t block, int32_t factor, uint8_t* values,
                            uint8_t* terms) {
  bool finite = true;
  for (uint32_t start = 0; start < count; start += block, values += block, terms += kTermBytes) {
    const uint32_t size = count - start < block ? count - start : block;
    const float* of_block = x + start;
    // As integers, floats of one sign are ordered as they are, infinities and NaN last.
    int32_t largest_bits = 0;  // of magnitudes
    int32_t highest_bits = 0;  // of what is not negative
    for (uint32_t i = 0; i < size; ++i) {
      const int32_t bits = bits_of(of_block[i]);
      largest_bits = (bits & 0x7FFFFFFF) > largest_bits ? bits & 0x7FFFFFFF : largest_bits;
      highest_bits = bits > highest_bits ? bits : highest_bits;
    }
    finite &= largest_bits < 0x7F800000;
    const float magnitude = float_of(largest_bits);
    const float largest = highest_bits == largest_bits ? magnitude : -magnitude;
    // Below this the quotient could overflow; such a block is zero.
    const float inverse = magnitude > 1e-35F ? -128.0F / largest : 0.0F;
    const float scale = magnitude > 1e-35F ? largest / -128.0F : 0.0F;
    auto* out = reinterpret_cast<int8_t*>(values);
    int32_t sum = 0;
    for (uint32_t i = 0; i < size; ++i) {
      const int32_t rounded = bits_of(of_block[i] * inverse + kRound) - kRoundBits;
      const auto q = static_cast<int8_t>(rounded < 127 ? rounded : 127);
      out[i] = q;
      sum += q;
    }
    for (uint32_t i = size; i < block; ++i) out[i] = 0;
    const int32_t correction = factor * sum;
    std::memcpy(terms, &scale, sizeof scale);
    std::memcpy(terms + 4, &correction, sizeof correction);
  }
  return finite;
}

inline void swiglu_16(const float* __restrict x, float* __restrict out) {
  for (int i = 0; i < 16; ++i) out[i] = x[i] / (1.0F + exponential(-x[i])) * x[16 + i];
}

inline void accumulate_row(float weight, const float* __restrict x, uint32_t count, float* __restrict result) {
  for (uint32_t i = 0; i < count; ++i) result[i] = __builtin_fmaf(weight, x[i], result[i]);
}

template <class V>
constexpr Kernels make_kernels(const char* name) {
  return {name, V::kMaxRows, V::kBias8, tile_kernel<V>, quantize_blocks, swiglu_16, accumulate_row};
}

}  // namespace
}  // namespace moedge
