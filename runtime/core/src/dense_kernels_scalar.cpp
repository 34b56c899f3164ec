// Plain C++, for any processor: what every SIMD kernel of the dense layers is tested against.
#include "dense_kernel_template.hpp"

namespace moedge {
namespace {

struct One {
  static constexpr int kLanes = 1;
  static constexpr int kSums = 8;
  using F = float;
  static F zero() { return 0.0F; }
  static F load(const float* p) { return *p; }
  static F broadcast(const float* p) { return *p; }
  static F fused(F a, F b, F c) { return std::fma(a, b, c); }
  static void store(float* p, F value) { *p = value; }
};

}  // namespace

const DenseKernels& scalar_dense_kernels() {
  static constexpr DenseKernels kKernels = make_dense_kernels<One, One>();
  return kKernels;
}

}  // namespace moedge
