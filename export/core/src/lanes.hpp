// Vectors of one register and the arithmetic on them that C++ has no words for; for kernel_template.hpp.

#pragma once

#include <cstdint>

namespace moedge::quantize {
namespace {

// Those of a register: gcc 12 takes wider vectors apart lane by lane.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Mask __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * kLanes)));

inline Floats all(float value) { return Floats{} + value; }
inline Words all_words(std::uint32_t value) { return Words{} + value; }

// Sources of both conversions: IEEE 754-2019, 3.4 and 4.3.1. Adding 0.5 rounds to the multiples of 2^-24 that float16's
// subnormal numbers are; one more in bit 12, and a tie only from odd numbers, rounds the mantissa of normal ones.
inline Words to_half_bits(Floats values) {
  const Words bits = (Words)values, magnitude = bits & 0x7FFFFFFFu;
  const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3F000000u;
  const Words normal = (magnitude + ((magnitude >> 13) & 1u) + 0x0FFFu - (112u << 23)) >> 13;
  const Words beyond = magnitude > all_words(0x7F800000u) ? all_words(0x7E00u) : all_words(0x7C00u);
  const Words half = magnitude < all_words(113u << 23) ? subnormal : normal;
  return ((bits >> 16) & 0x8000u) | (magnitude >= all_words(143u << 23) ? beyond : half);
}

inline Floats from_half_bits(Words half) {
  const Words shifted = (half & 0x7FFFu) << 13, exponent = shifted & (31u << 23);
  const Words normal = shifted + (112u << 23);
  const Words subnormal = (Words)((Floats)(shifted + (113u << 23)) - (Floats)all_words(113u << 23));
  const Words finite = exponent == 0u ? subnormal : normal;
  return (Floats)(((half & 0x8000u) << 16) | (exponent == (31u << 23) ? shifted + (224u << 23) : finite));
}

// To nearest, ties to even, for magnitudes below 2^22: floats from 2^23 on are integers.
inline Floats rounded(Floats values) { return (values + 12582912.0f) - 12582912.0f; }

inline Floats clamped(Floats values, Floats low, Floats high) {
  values = values < low ? low : values;
  return values > high ? high : values;
}

inline Floats inverse_of(Floats scale) { return scale == 0.0f ? all(0.0f) : 1.0f / scale; }

}  // namespace
}  // namespace moedge::quantize
