// AVX-VNNI: AVX2 with one instruction for four products. Processors without AVX-512 have it (Alder Lake-N and later).
#include "kernels_avx2.hpp"

namespace moedge {
namespace {

struct AvxVnni : Avx2 {
  static constexpr int kMaxRows = 3;
  static I dot4(I acc, I weights, I inputs) { return _mm256_dpbusd_avx_epi32(acc, weights, inputs); }
  static I dot8(I acc, I weights, I inputs) { return dot4(acc, weights, inputs); }
};

}  // namespace

const Kernels& avxvnni_kernels() {
  static constexpr Kernels kKernels = make_kernels<AvxVnni>("avxvnni");
  return kKernels;
}

}  // namespace moedge
