#include "reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace moedge::test {

double half_value(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int fraction = half & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? (fraction ? NAN : INFINITY)
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

double weight_at(const Quantization& quantization, const uint8_t* weight, const uint16_t* scale, const uint8_t* zero,
                 uint32_t row, uint32_t input) {
  const uint32_t half = row / 16;
  const uint32_t r = row % 16;
  if (quantization.bits == 32) {
    float value;
    std::memcpy(&value, weight + (size_t{input} * 32 + half * 16 + r) * 4, sizeof value);
    return value;
  }
  const uint32_t b = quantization.block;
  const uint32_t k = input / b;
  const uint32_t in_block = input % b;
  int stored = 0;
  int zero_point = 1 << (quantization.bits - 1);
  if (quantization.bits == 4) {
    const uint32_t c = in_block / 8;
    const uint32_t j = in_block % 4;
    const uint8_t byte = weight[(((size_t{k} * (b / 8) + c) * 2 + half) * 16 + r) * 4 + j];
    stored = in_block % 8 < 4 ? byte & 15 : byte >> 4;
    if (!quantization.symmetric) zero_point = half == 0 ? zero[k * 16 + r] & 15 : zero[k * 16 + r] >> 4;
  } else {
    const uint32_t c = in_block / 4;
    const uint32_t j = in_block % 4;
    stored = weight[(((size_t{k} * (b / 4) + c) * 2 + half) * 16 + r) * 4 + j];
    if (!quantization.symmetric) zero_point = zero[(k * 2 + half) * 16 + r];
  }
  return (stored - zero_point) * half_value(scale[(k * 2 + half) * 16 + r]);
}

namespace {

// One row of a matrix times `x`.
template <class Value>
double dot(const RecordLayout& layout, const MatrixLayout& matrix, const uint8_t* record, uint32_t tile, uint32_t row,
           const std::vector<Value>& x) {
  double sum = 0;
  for (uint32_t input = 0; input < x.size(); ++input) {
    sum +=
        x[input] * weight_at(layout.quantization, record + matrix.weight + tile * matrix.weight_tile_bytes,
                             reinterpret_cast<const uint16_t*>(record + matrix.scale + tile * matrix.scale_tile_bytes),
                             record + matrix.zero + tile * matrix.zero_tile_bytes, row, input);
  }
  return sum;
}

}  // namespace

std::vector<double> expert_output(const RecordLayout& layout, const uint8_t* record, const float* x) {
  const std::vector<float> input(x, x + layout.hidden);
  std::vector<double> activated(layout.intermediate);
  for (uint32_t i = 0; i < layout.intermediate; ++i) {
    const double gate = dot(layout, layout.fc1, record, i / 16, i % 16, input);
    const double up = dot(layout, layout.fc1, record, i / 16, 16 + i % 16, input);
    activated[i] = gate / (1 + std::exp(-gate)) * up;
  }
  std::vector<double> output(layout.hidden);
  for (uint32_t i = 0; i < layout.hidden; ++i) output[i] = dot(layout, layout.fc2, record, i / 32, i % 32, activated);
  return output;
}

std::vector<Pick> picks_of(const float* logits, uint32_t experts, uint32_t top_k) {
  const double largest = *std::max_element(logits, logits + experts);
  std::vector<Pick> picks(experts);
  double all = 0;
  for (uint32_t expert = 0; expert < experts; ++expert) all += std::exp(logits[expert] - largest);
  for (uint32_t expert = 0; expert < experts; ++expert) {
    picks[expert] = {expert, std::exp(logits[expert] - largest) / all};
  }
  // By logits: softmax may round two of them to the same.
  std::stable_sort(picks.begin(), picks.end(),
                   [&](const Pick& a, const Pick& b) { return logits[a.expert] > logits[b.expert]; });
  picks.resize(top_k);
  double sum = 0;
  for (const Pick& pick : picks) sum += pick.weight;
  for (Pick& pick : picks) pick.weight /= sum;
  std::sort(picks.begin(), picks.end(), [](const Pick& a, const Pick& b) { return a.expert < b.expert; });
  return picks;
}

}  // namespace moedge::test
