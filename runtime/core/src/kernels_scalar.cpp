// Plain C++, for any processor: what every SIMD kernel is tested against.
#include "kernel_template.hpp"

namespace moedge {
namespace {

// IEEE binary16 as float; exact.
float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000U} << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  const uint32_t fraction = half & 0x3FF;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0xFF : exponent + 112;
  return float_of(static_cast<int32_t>(sign | wide << 23 | fraction << 13));
}

struct Scalar {
  static constexpr int kLanes = 1;
  static constexpr int kVectors = 8;
  static constexpr int kVectorsOfOneRow = 8;
  static constexpr int kMaxRows = 2;
  static constexpr int32_t kBias8 = 0;
  using F = float;
  using I = uint32_t;

  static F zero_f() { return 0.0F; }
  static I zero_i() { return 0; }
  static I set(int32_t value) { return static_cast<I>(value); }
  static I load(const uint8_t* p) { return broadcast(p); }
  static I broadcast(const uint8_t* p) {
    I value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  static F broadcast_f(const uint8_t* p) { return float_of(static_cast<int32_t>(broadcast(p))); }
  static F load_f(const float* p) { return *p; }
  static F load_halfs(const uint16_t* p) { return half_to_float(*p); }
  static I widen(const uint8_t* p) { return *p; }
  static I low_nibbles(I packed) { return packed & 0x0F0F0F0F; }
  static I high_nibbles(I packed) { return packed >> 4 & 0x0F0F0F0F; }
  static I byte_weights(I packed) { return packed; }
  static I dot4(I acc, I weights, I inputs) { return dot8(acc, weights, inputs); }
  static I dot8(I acc, I weights, I inputs) {
    for (int shift = 0; shift < 32; shift += 8) {
      const auto weight = static_cast<int32_t>(weights >> shift & 0xFF);
      const auto input = static_cast<int8_t>(inputs >> shift & 0xFF);
      acc += static_cast<I>(weight * input);
    }
    return acc;
  }
  static I subtract(I a, I b) { return a - b; }
  static I multiply(I a, I b) { return a * b; }
  static F multiply(F a, F b) { return a * b; }
  static F fused(F a, F b, F c) { return std::fma(a, b, c); }
  static F to_float(I value) { return static_cast<float>(static_cast<int32_t>(value)); }
  static void store(float* p, F value) { *p = value; }
};

}  // namespace

const Kernels& scalar_kernels() {
  static constexpr Kernels kKernels = make_kernels<Scalar>("scalar");
  return kKernels;
}

}  // namespace moedge
