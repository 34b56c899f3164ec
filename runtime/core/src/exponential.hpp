// exp of a float, the same bits on every machine: no C library's version of it is called.
#pragma once

#include <cstdint>
#include <cstring>

namespace moedge {
namespace {  // each instruction set compiles its own

// Adding this to a float of magnitude below 2^22 rounds it to the nearest integer, ties to even; the sum's low bits
// are that integer.
constexpr float kRound = 12582912.0F;
constexpr int32_t kRoundBits = 0x4B400000;

inline int32_t bits_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Source: S. Moshier, Cephes, expf; relative error below 2e-7. Arguments beyond ±88 are taken as ±88, exp(−88) is 0.
inline float exponential(float x) {
  x = x < -88.0F ? -88.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float rounded = __builtin_fmaf(x, 1.44269504F, kRound);
  const float n = rounded - kRound;
  float r = __builtin_fmaf(n, -0.693359375F, x);
  r = __builtin_fmaf(n, 2.12194440e-4F, r);
  float p = 1.9875691500e-4F;
  p = __builtin_fmaf(p, r, 1.3981999507e-3F);
  p = __builtin_fmaf(p, r, 8.3334519073e-3F);
  p = __builtin_fmaf(p, r, 4.1665795894e-2F);
  p = __builtin_fmaf(p, r, 1.6666665459e-1F);
  p = __builtin_fmaf(p, r, 5.0000001201e-1F);
  p = __builtin_fmaf(p, r * r, r) + 1.0F;
  return p * float_of((bits_of(rounded) - kRoundBits + 127) << 23);
}

}  // namespace
}  // namespace moedge
