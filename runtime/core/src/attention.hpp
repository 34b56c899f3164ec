// Attention of queries side by side over the keys of one head, chunk by chunk: what the decoder and the vision tower
// share.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dense_kernels.hpp"
#include "places.hpp"

namespace moedge {

// Queries that a task computes side by side, as far as whole tokens go.
constexpr uint32_t kQueriesOfTask = 64;

inline uint32_t lanes_of(uint32_t queries) { return divide_up(queries, kQueryLanes) * kQueryLanes; }

// Floats of an Attended.
inline uint64_t attended_floats(uint32_t lanes, uint32_t head_dim) { return uint64_t{lanes} * (head_dim + 2); }

inline Attended attended_at(float* at, uint32_t lanes, uint32_t head_dim) {
  float* behind = at + size_t{lanes} * head_dim;
  return {at, behind, behind + lanes};
}

// A thread's own memory while it computes attention with up to so many lanes.
struct AttentionScratch {
  float* queries;  // [head_dim, lanes]
  float* scores;   // [kChunkKeys, lanes]
  float* chunk;    // an Attended
  float* all;      // an Attended
  uint32_t* seen;  // [lanes]

  static uint64_t floats(uint32_t lanes, uint32_t head_dim) {
    return uint64_t{head_dim} * lanes + uint64_t{kChunkKeys} * lanes + lanes + 2 * attended_floats(lanes, head_dim);
  }

  AttentionScratch(float* at, uint32_t lanes, uint32_t head_dim)
      : queries(at),
        scores(queries + size_t{head_dim} * lanes),
        chunk(scores + size_t{kChunkKeys} * lanes),
        all(chunk + attended_floats(lanes, head_dim)),
        seen(reinterpret_cast<uint32_t*>(all + attended_floats(lanes, head_dim))) {}
};

inline void begin_attention(const Attended& all, uint32_t lanes, uint32_t head_dim) {
  std::fill_n(all.mixed, size_t{lanes} * head_dim, 0.0F);
  std::fill_n(all.largest, lanes, kNothingSeen);
  std::fill_n(all.sum, lanes, 0.0F);
}

// The attention of own.queries over the first `count` keys and values [count, head_dim] of a head; the result is in
// own.all. seen(first, count) says of the keys of a chunk how many each query sees; null for all.
template <class Seen>
Attended attend_all(const DenseKernels& kernels, const AttentionScratch& own, uint32_t lanes, uint32_t head_dim,
                    const float* keys, const float* values, uint32_t count, const Seen& seen) {
  const Attended all = attended_at(own.all, lanes, head_dim);
  const Attended next = attended_at(own.chunk, lanes, head_dim);
  begin_attention(all, lanes, head_dim);
  for (uint32_t first = 0; first < count; first += kChunkKeys) {
    const size_t at = size_t{first} * head_dim;
    const Chunk part{keys + at, values + at, std::min(kChunkKeys, count - first), first + kChunkKeys < count};
    kernels.attend(own.queries, lanes, head_dim, part, seen(first, part.count), own.scores, next);
    kernels.merge(next, lanes, head_dim, all);
  }
  kernels.divide(lanes, head_dim, all);
  return all;
}

}  // namespace moedge
