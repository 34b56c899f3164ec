#include "router.hpp"

#include <cmath>

#include "exponential.hpp"

namespace moedge {
namespace {

// Indices of the `top_k` largest of `count` logits, the largest first.
void largest(const float* logits, uint32_t count, uint32_t top_k, uint32_t* chosen) {
  uint32_t size = 0;
  for (uint32_t expert = 0; expert < count; ++expert) {
    if (size == top_k && !(logits[expert] > logits[chosen[size - 1]])) continue;
    uint32_t at = size < top_k ? size++ : size - 1;
    for (; at > 0 && logits[expert] > logits[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = expert;
  }
}

}  // namespace

bool all_finite(const float* values, uint64_t count) {
  bool finite = true;
  for (uint64_t i = 0; i < count; ++i) finite &= std::isfinite(values[i]);
  return finite;
}

void Routing::reserve(uint32_t tokens, uint32_t experts, uint32_t top_k) {
  const size_t picks = size_t{tokens} * top_k;
  first.resize(experts + 1);
  token.resize(picks);
  weight.resize(picks);
  chosen.resize(picks);
}

bool route(const float* logits, uint32_t tokens, uint32_t experts, uint32_t top_k, Routing& routing) {
  if (!all_finite(logits, uint64_t{tokens} * experts)) return false;
  routing.first.assign(experts + 1, 0);
  for (uint32_t token = 0; token < tokens; ++token) {
    uint32_t* chosen = routing.chosen.data() + size_t{token} * top_k;
    largest(logits + size_t{token} * experts, experts, top_k, chosen);
    for (uint32_t pick = 0; pick < top_k; ++pick) ++routing.first[chosen[pick] + 1];
  }
  for (uint32_t expert = 0; expert < experts; ++expert) routing.first[expert + 1] += routing.first[expert];
  // Filled from first[e] on, first[e] moving along; afterwards moved back by one place.
  for (uint32_t token = 0; token < tokens; ++token) {
    const uint32_t* chosen = routing.chosen.data() + size_t{token} * top_k;
    const float* row = logits + size_t{token} * experts;
    float sum = 0;
    for (uint32_t pick = 0; pick < top_k; ++pick) sum += exponential(row[chosen[pick]] - row[chosen[0]]);
    for (uint32_t pick = 0; pick < top_k; ++pick) {
      const uint32_t place = routing.first[chosen[pick]]++;
      routing.token[place] = token;
      routing.weight[place] = exponential(row[chosen[pick]] - row[chosen[0]]) / sum;
    }
  }
  for (uint32_t expert = experts; expert > 0; --expert) routing.first[expert] = routing.first[expert - 1];
  routing.first[0] = 0;
  return true;
}

}  // namespace moedge
