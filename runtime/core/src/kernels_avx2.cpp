#include "kernels_avx2.hpp"

namespace moedge {

const Kernels& avx2_kernels() {
  static constexpr Kernels kKernels = make_kernels<Avx2>("avx2");
  return kKernels;
}

}  // namespace moedge
