// NEON: four queries a register. Of no later extension anything is needed.
#include <arm_neon.h>

#include "dense_kernel_template.hpp"

namespace moedge {
namespace {

struct Four {
  static constexpr int kLanes = 4;
  static constexpr int kSums = 16;
  using F = float32x4_t;
  static F zero() { return vdupq_n_f32(0); }
  static F load(const float* p) { return vld1q_f32(p); }
  static F broadcast(const float* p) { return vld1q_dup_f32(p); }
  static F fused(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static void store(float* p, F value) { vst1q_f32(p, value); }
};

}  // namespace

const DenseKernels& neon_dense_kernels() {
  static constexpr DenseKernels kKernels = make_dense_kernels<Four, Four>();
  return kKernels;
}

}  // namespace moedge
