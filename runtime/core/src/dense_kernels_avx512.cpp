// AVX-512: sixteen queries a register.
#include "dense_kernels_avx2.hpp"

namespace moedge {
namespace {

struct Sixteen {
  static constexpr int kLanes = 16;
  static constexpr int kSums = 16;
  using F = __m512;
  static F zero() { return _mm512_setzero_ps(); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static F fused(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static void store(float* p, F value) { _mm512_storeu_ps(p, value); }
};

}  // namespace

const DenseKernels& avx512_dense_kernels() {
  static constexpr DenseKernels kKernels = make_dense_kernels<Sixteen, Eight>();
  return kKernels;
}

}  // namespace moedge
