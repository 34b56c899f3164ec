// The vector type of NEON with the dot-product instructions (Cortex-A76, A78AE), which that of i8mm is made of: four
// rows a register.
#pragma once

#include <arm_neon.h>

#include "kernel_template.hpp"

namespace moedge {
namespace {

struct NeonDot {
  static constexpr int kLanes = 4;
  static constexpr int kVectors = 4;
  static constexpr int kVectorsOfOneRow = 8;
  static constexpr int kMaxRows = 3;  // 4 × 3 integer and 4 × 3 float sums leave eight registers
  static constexpr int32_t kBias8 = 128;
  using F = float32x4_t;
  using I = int32x4_t;

  static F zero_f() { return vdupq_n_f32(0); }
  static I zero_i() { return vdupq_n_s32(0); }
  static I set(int32_t value) { return vdupq_n_s32(value); }
  static I load(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
  static I broadcast(const uint8_t* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof value);
    return vdupq_n_s32(value);
  }
  static F broadcast_f(const uint8_t* p) { return vreinterpretq_f32_s32(broadcast(p)); }
  static F load_f(const float* p) { return vld1q_f32(p); }
  static F load_halfs(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static I widen(const uint8_t* p) {
    uint32_t four;
    std::memcpy(&four, p, sizeof four);
    const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
  }
  static I low_nibbles(I packed) {
    return vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(packed), vdupq_n_u8(0x0F)));
  }
  static I high_nibbles(I packed) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(packed), 4)); }
  static I byte_weights(I packed) {
    return vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(packed), vdupq_n_u8(0x80)));
  }
  static I dot4(I acc, I weights, I inputs) {
    return vdotq_s32(acc, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(inputs));
  }
  static I dot8(I acc, I weights, I inputs) { return dot4(acc, weights, inputs); }
  static I subtract(I a, I b) { return vsubq_s32(a, b); }
  static I multiply(I a, I b) { return vmulq_s32(a, b); }
  static F multiply(F a, F b) { return vmulq_f32(a, b); }
  static F fused(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F to_float(I value) { return vcvtq_f32_s32(value); }
  static void store(float* p, F value) { vst1q_f32(p, value); }
};

}  // namespace
}  // namespace moedge
