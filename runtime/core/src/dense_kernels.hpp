// What an instruction set computes of the dense layers and the vision tower beside products with weights. One table for
// each; all give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

// Queries of a KV head are computed side by side, a query a lane, in groups of as many.
constexpr uint32_t kQueryLanes = 8;

// Keys whose softmax is summed up before it is merged with what was before them. Whatever computes attention cuts the
// cache here, so that a token's bits depend neither on the threads nor on the tokens computed with it.
constexpr uint32_t kChunkKeys = 128;

// The attention of some queries over some keys, before it is divided by the sum: a lane a query, all of one KV head.
struct Attended {
  float* mixed;    // [head_dim, lanes]: sum of exp(score − largest) · value
  float* largest;  // [lanes]
  float* sum;      // [lanes]: of exp(score − largest)
};

// The keys and values of one KV head from the first of a chunk on.
struct Chunk {
  const float* keys;    // [count, head_dim]
  const float* values;  // [count, head_dim]
  uint32_t count;       // 1 to kChunkKeys
  bool more;            // the caller goes on with the keys right behind these: they are fetched meanwhile
};

struct DenseKernels {
  // out[i] = x[i] / sqrt(mean of squares + epsilon) * weight[i]; `out` may be `x`.
  void (*rms_norm)(const float* x, const float* weight, uint32_t count, float epsilon, float* out);

  // out[i] = (x[i] − mean) / sqrt(variance + epsilon) * weight[i] + bias[i]; `out` may be `x`.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, uint32_t count, float epsilon, float* out);

  // out[i] = GELU(x[i] + bias[i]): as erf has it, to 1.5e-7 of it, and the approximation with tanh.
  void (*gelu)(const float* x, const float* bias, uint32_t count, float* out);
  void (*gelu_tanh)(const float* x, const float* bias, uint32_t count, float* out);

  // Rotary embedding in place: x [2 * half], the halves against each other; then all times `factor`.
  void (*rotate)(float* x, const float* cos, const float* sin, uint32_t half, float factor);

  // Attention over one chunk.
  //   queries  [head_dim, lanes], scaled; lanes is a multiple of kQueryLanes
  //   seen     [lanes]: of the chunk's keys, how many the query sees; null for all
  //   scores   [kChunkKeys, lanes], scratch
  void (*attend)(const float* queries, uint32_t lanes, uint32_t head_dim, const Chunk& chunk, const uint32_t* seen,
                 float* scores, const Attended& result);

  // Adds the next chunk to what the chunks before it gave; `largest` of nothing is kNothingSeen, its sums are 0.
  void (*merge)(const Attended& next, uint32_t lanes, uint32_t head_dim, const Attended& all);

  // all.mixed / all.sum.
  void (*divide)(uint32_t lanes, uint32_t head_dim, const Attended& all);
};

// Smaller than every score.
constexpr float kNothingSeen = -3.4028234663852886e38F;

// Only those that this processor has may be used: see isa.hpp.
const DenseKernels& scalar_dense_kernels();
const DenseKernels& avx2_dense_kernels();
const DenseKernels& avx512_dense_kernels();
const DenseKernels& neon_dense_kernels();

}  // namespace moedge
