// The vector type of AVX2 with FMA: eight queries a register. AVX-512 uses it where there are no sixteen.
#pragma once

#include <immintrin.h>

#include "dense_kernel_template.hpp"

namespace moedge {
namespace {

struct Eight {
  static constexpr int kLanes = 8;
  static constexpr int kSums = 8;
  using F = __m256;
  static F zero() { return _mm256_setzero_ps(); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static F fused(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static void store(float* p, F value) { _mm256_storeu_ps(p, value); }
};

}  // namespace
}  // namespace moedge
