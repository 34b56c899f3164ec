// The kernels of the dense layers and the vision tower, written once over vector types that each instruction set
// supplies.
//
// A vector type V has `kLanes`, a divisor of 8 or 16, and load, store, zero, broadcast and fused. A lane is a query:
// for each of them every instruction set does the same operations in the same order, so all give the same bits. What is
// written as a plain loop the compiler makes vectors of; products are fused only where the code says so.
#pragma once

#include <cmath>
#include <cstring>

#include "dense_kernels.hpp"
#include "exponential.hpp"

namespace moedge {
namespace {

// Sums run over so many lanes on every instruction set, which are then added pairwise.
constexpr uint32_t kSumLanes = 16;
// Of a cache line.
constexpr int kLineFloats = 16;

// out[r, lanes] = Σ over i of a[r · row_stride + i · step] · b[i, lanes], in ascending order of i, for kRows rows and
// kVectors vectors of lanes. Meanwhile as many floats from `next` on are fetched, a few with each step: more at once
// would have to wait for each other.
template <class V, int kVectors, int kRows>
inline void product_rows(const float* a, size_t row_stride, size_t step, uint32_t inner, const float* b, size_t lanes,
                         float* out, const float* next) {
  typename V::F sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::zero();
  }
  for (uint32_t i = 0; i < inner; ++i, a += step, b += lanes, next += kRows) {
    if constexpr (kVectors == 1) {
      if (kRows >= kLineFloats || i % (kLineFloats / kRows) == 0) __builtin_prefetch(next);
    }
    typename V::F x[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) x[v] = V::load(b + v * V::kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename V::F value = V::broadcast(a + r * row_stride);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = V::fused(value, x[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) V::store(out + r * lanes + v * V::kLanes, sum[r][v]);
  }
}

template <class V, int kVectors>
inline void product_lanes(const float* a, size_t row_stride, size_t step, uint32_t rows, uint32_t inner, const float* b,
                          size_t lanes, float* out, const float* next) {
  constexpr int kRows = V::kSums / kVectors;
  uint32_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    product_rows<V, kVectors, kRows>(a + row * row_stride, row_stride, step, inner, b, lanes, out + row * lanes,
                                     next + size_t{row} * inner);
  }
  for (; row + 2 <= rows; row += 2) {
    product_rows<V, kVectors, 2>(a + row * row_stride, row_stride, step, inner, b, lanes, out + row * lanes,
                                 next + size_t{row} * inner);
  }
  if (row < rows) {
    product_rows<V, kVectors, 1>(a + row * row_stride, row_stride, step, inner, b, lanes, out + row * lanes,
                                 next + size_t{row} * inner);
  }
}

// Of all lanes: `Wide` where two, then one of its vectors fit, `Narrow` for the rest.
template <class Wide, class Narrow>
void product(const float* a, size_t row_stride, size_t step, uint32_t rows, uint32_t inner, const float* b,
             uint32_t lanes, float* out, const float* next) {
  uint32_t lane = 0;
  for (; lane + 2 * Wide::kLanes <= lanes; lane += 2 * Wide::kLanes) {
    product_lanes<Wide, 2>(a, row_stride, step, rows, inner, b + lane, lanes, out + lane, next);
  }
  for (; lane + Wide::kLanes <= lanes; lane += Wide::kLanes) {
    product_lanes<Wide, 1>(a, row_stride, step, rows, inner, b + lane, lanes, out + lane, next);
  }
  for (; lane < lanes; lane += Narrow::kLanes) {
    product_lanes<Narrow, 1>(a, row_stride, step, rows, inner, b + lane, lanes, out + lane, next);
  }
}

// scores [count, lanes] become exp(score − largest).
inline void softmax_parts(uint32_t count, uint32_t lanes, const uint32_t* seen, float* scores,
                          float* __restrict largest, float* __restrict sum) {
  for (uint32_t lane = 0; lane < lanes; ++lane) largest[lane] = kNothingSeen;
  for (uint32_t lane = 0; lane < lanes; ++lane) sum[lane] = 0.0F;
  for (uint32_t key = 0; key < count; ++key) {
    float* __restrict row = scores + size_t{key} * lanes;
    if (seen != nullptr) {
      for (uint32_t lane = 0; lane < lanes; ++lane) row[lane] = key < seen[lane] ? row[lane] : kNothingSeen;
    }
    for (uint32_t lane = 0; lane < lanes; ++lane) largest[lane] = row[lane] > largest[lane] ? row[lane] : largest[lane];
  }
  for (uint32_t key = 0; key < count; ++key) {
    float* __restrict row = scores + size_t{key} * lanes;
    for (uint32_t lane = 0; lane < lanes; ++lane) {
      row[lane] = exponential(row[lane] - largest[lane]);
      sum[lane] += row[lane];
    }
  }
}

template <class Wide, class Narrow>
void attend(const float* queries, uint32_t lanes, uint32_t head_dim, const Chunk& chunk, const uint32_t* seen,
            float* scores, const Attended& result) {
  // The values are fetched with the keys, the next keys with the values: the processor could not foresee them.
  product<Wide, Narrow>(chunk.keys, head_dim, 1, chunk.count, head_dim, queries, lanes, scores, chunk.values);
  softmax_parts(chunk.count, lanes, seen, scores, result.largest, result.sum);
  const float* next = chunk.more ? chunk.keys + size_t{chunk.count} * head_dim : chunk.values;
  product<Wide, Narrow>(chunk.values, 1, head_dim, head_dim, chunk.count, scores, lanes, result.mixed, next);
}

inline void merge(const Attended& next, uint32_t lanes, uint32_t head_dim, const Attended& all) {
  float of_all[kQueryLanes];
  float of_next[kQueryLanes];
  for (uint32_t first = 0; first < lanes; first += kQueryLanes) {
    for (uint32_t i = 0; i < kQueryLanes; ++i) {
      const uint32_t lane = first + i;
      const float before = all.largest[lane];
      const float largest = next.largest[lane] > before ? next.largest[lane] : before;
      of_all[i] = exponential(before - largest);
      of_next[i] = exponential(next.largest[lane] - largest);
      all.largest[lane] = largest;
      all.sum[lane] = __builtin_fmaf(next.sum[lane], of_next[i], all.sum[lane] * of_all[i]);
    }
    const float* __restrict from = next.mixed + first;
    float* __restrict to = all.mixed + first;
    for (uint32_t d = 0; d < head_dim; ++d, from += lanes, to += lanes) {
      for (uint32_t i = 0; i < kQueryLanes; ++i) to[i] = __builtin_fmaf(from[i], of_next[i], to[i] * of_all[i]);
    }
  }
}

inline void divide(uint32_t lanes, uint32_t head_dim, const Attended& all) {
  const float* __restrict sum = all.sum;
  for (uint32_t d = 0; d < head_dim; ++d) {
    float* __restrict row = all.mixed + size_t{d} * lanes;
    for (uint32_t lane = 0; lane < lanes; ++lane) row[lane] /= sum[lane];
  }
}

// add(sum, i) applied to every i below `count`, from 0 on, in kSumLanes sums that are added at the end.
template <class Add>
inline float sum_of(uint32_t count, const Add& add) {
  float sums[kSumLanes] = {};
  uint32_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (uint32_t lane = 0; lane < kSumLanes; ++lane) sums[lane] = add(sums[lane], i + lane);
  }
  for (uint32_t lane = 0; i + lane < count; ++lane) sums[lane] = add(sums[lane], i + lane);
  for (uint32_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (uint32_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

inline void rms_norm(const float* x, const float* weight, uint32_t count, float epsilon, float* out) {
  const float squares = sum_of(count, [x](float sum, uint32_t i) { return __builtin_fmaf(x[i], x[i], sum); });
  const float factor = 1.0F / std::sqrt(squares / static_cast<float>(count) + epsilon);
  for (uint32_t i = 0; i < count; ++i) out[i] = x[i] * factor * weight[i];
}

inline void layer_norm(const float* x, const float* weight, const float* bias, uint32_t count, float epsilon,
                       float* out) {
  const float size = static_cast<float>(count);
  const float mean = sum_of(count, [x](float sum, uint32_t i) { return sum + x[i]; }) / size;
  const float squares = sum_of(count, [x, mean](float sum, uint32_t i) {
    const float deviation = x[i] - mean;
    return __builtin_fmaf(deviation, deviation, sum);
  });
  const float factor = 1.0F / std::sqrt(squares / size + epsilon);
  for (uint32_t i = 0; i < count; ++i) out[i] = __builtin_fmaf((x[i] - mean) * factor, weight[i], bias[i]);
}

// Source: Abramowitz and Stegun, 7.1.26: half of 1 − erf(|x| / √2), the normal distribution's tail.
inline void gelu(const float* __restrict x, const float* __restrict bias, uint32_t count, float* __restrict out) {
  for (uint32_t i = 0; i < count; ++i) {
    const float sum = x[i] + bias[i];
    const float z = std::fabs(sum) * 0.707106781F;
    const float t = 1.0F / __builtin_fmaf(0.3275911F, z, 1.0F);
    float p = 1.061405429F;
    p = __builtin_fmaf(p, t, -1.453152027F);
    p = __builtin_fmaf(p, t, 1.421413741F);
    p = __builtin_fmaf(p, t, -0.284496736F);
    p = __builtin_fmaf(p, t, 0.254829592F);
    const float tail = 0.5F * p * t * exponential(-(z * z));
    out[i] = sum * (sum < 0.0F ? tail : 1.0F - tail);
  }
}

// (1 + tanh(u)) / 2 is 1 / (1 + exp(−2u)), with u = √(2/π) · (x + 0.044715 x³).
inline void gelu_tanh(const float* __restrict x, const float* __restrict bias, uint32_t count, float* __restrict out) {
  for (uint32_t i = 0; i < count; ++i) {
    const float sum = x[i] + bias[i];
    const float twice = sum * __builtin_fmaf(0.0713548163F, sum * sum, 1.59576912F);
    out[i] = sum / (1.0F + exponential(-twice));
  }
}

inline void rotate(float* __restrict x, const float* __restrict cos, const float* __restrict sin, uint32_t half,
                   float factor) {
  for (uint32_t i = 0; i < half; ++i) {
    const float first = x[i];
    const float second = x[half + i];
    x[i] = __builtin_fmaf(first, cos[i], -(second * sin[i])) * factor;
    x[half + i] = __builtin_fmaf(second, cos[i], first * sin[i]) * factor;
  }
}

template <class Wide, class Narrow>
constexpr DenseKernels make_dense_kernels() {
  return {rms_norm, layer_norm, gelu, gelu_tanh, rotate, attend<Wide, Narrow>, merge, divide};
}

}  // namespace
}  // namespace moedge
