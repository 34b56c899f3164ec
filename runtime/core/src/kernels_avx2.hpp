// The vector type of AVX2 with FMA and F16C, which that of AVX-VNNI is made of: eight rows a register.
#pragma once

#include <immintrin.h>

#include "kernel_template.hpp"

namespace moedge {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kVectors = 2;
  static constexpr int kVectorsOfOneRow = 4;
  static constexpr int kMaxRows = 2;
  static constexpr int32_t kBias8 = 0;
  using F = __m256;
  using I = __m256i;

  static F zero_f() { return _mm256_setzero_ps(); }
  static I zero_i() { return _mm256_setzero_si256(); }
  static I set(int32_t value) { return _mm256_set1_epi32(value); }
  static I load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static I broadcast(const uint8_t* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof value);
    return _mm256_set1_epi32(value);
  }
  static F broadcast_f(const uint8_t* p) { return _mm256_castsi256_ps(broadcast(p)); }
  static F load_f(const float* p) { return _mm256_loadu_ps(p); }
  static F load_halfs(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I widen(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static I low_nibbles(I packed) { return _mm256_and_si256(packed, _mm256_set1_epi8(0x0F)); }
  static I high_nibbles(I packed) { return low_nibbles(_mm256_srli_epi32(packed, 4)); }
  static I byte_weights(I packed) { return packed; }
  // Two products of at most 15 × 128 fit into the 16 bits of a pair; two of 255 × 128 do not.
  static I dot4(I acc, I weights, I inputs) {
    const I pairs = _mm256_maddubs_epi16(weights, inputs);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static I dot8(I acc, I weights, I inputs) {
    const I even_inputs = _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8);
    const I odd_inputs = _mm256_srai_epi16(inputs, 8);
    const I even = _mm256_madd_epi16(_mm256_and_si256(weights, _mm256_set1_epi16(0xFF)), even_inputs);
    const I odd = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), odd_inputs);
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
  }
  static I subtract(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I multiply(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static F multiply(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fused(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F to_float(I value) { return _mm256_cvtepi32_ps(value); }
  static void store(float* p, F value) { _mm256_storeu_ps(p, value); }
};

}  // namespace
}  // namespace moedge
