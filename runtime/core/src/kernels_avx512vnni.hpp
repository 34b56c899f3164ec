// AVX-512 with VNNI: sixteen rows a register.
#pragma once

#include <immintrin.h>

#include "kernel_template.hpp"

namespace moedge {
namespace {

struct Avx512Vnni {
  static constexpr int kLanes = 16;
  static constexpr int kVectors = 2;
  static constexpr int kVectorsOfOneRow = 2;
  static constexpr int kMaxRows = 7;  // 2 × 7 integer and 2 × 7 float sums leave four registers
  static constexpr int32_t kBias8 = 0;
  using F = __m512;
  using I = __m512i;

  static F zero_f() { return _mm512_setzero_ps(); }
  static I zero_i() { return _mm512_setzero_si512(); }
  static I set(int32_t value) { return _mm512_set1_epi32(value); }
  static I load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static I broadcast(const uint8_t* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
  }
  static F broadcast_f(const uint8_t* p) { return _mm512_castsi512_ps(broadcast(p)); }
  static F load_f(const float* p) { return _mm512_loadu_ps(p); }
  static F load_halfs(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static I widen(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I low_nibbles(I packed) { return _mm512_and_si512(packed, _mm512_set1_epi8(0x0F)); }
  static I high_nibbles(I packed) { return low_nibbles(_mm512_srli_epi32(packed, 4)); }
  static I byte_weights(I packed) { return packed; }
  static I dot4(I acc, I weights, I inputs) { return _mm512_dpbusd_epi32(acc, weights, inputs); }
  static I dot8(I acc, I weights, I inputs) { return _mm512_dpbusd_epi32(acc, weights, inputs); }
  static I subtract(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I multiply(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static F multiply(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fused(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F to_float(I value) { return _mm512_cvtepi32_ps(value); }
  static void store(float* p, F value) { _mm512_storeu_ps(p, value); }
};

}  // namespace
}  // namespace moedge
