// From router logits to the experts of each token. No effects.
#pragma once

#include <cstdint>
#include <vector>

namespace moedge {

// The picks of a call, grouped by expert: rows of expert e are first[e] to first[e + 1] − 1.
struct Routing {
  std::vector<uint32_t> first;   // [experts + 1]
  std::vector<uint32_t> token;   // [tokens * top_k], ascending within an expert
  std::vector<float> weight;     // likewise
  std::vector<uint32_t> chosen;  // [tokens * top_k] experts of each token, scratch

  // Allocates for calls of up to `tokens` tokens.
  void reserve(uint32_t tokens, uint32_t experts, uint32_t top_k);
};

// Whether none of the values is an infinity or NaN.
bool all_finite(const float* values, uint64_t count);

// Chooses the top_k largest logits of each token (of equal ones the lower expert) and their softmax among each other,
// which is the softmax over all, renormalised.
//   logits  float [tokens, experts]
// Returns false if a logit is not finite; `routing` is then undefined.
bool route(const float* logits, uint32_t tokens, uint32_t experts, uint32_t top_k, Routing& routing);

}  // namespace moedge
