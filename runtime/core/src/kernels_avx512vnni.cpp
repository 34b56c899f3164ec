#include "kernels_avx512vnni.hpp"

namespace moedge {

const Kernels& avx512vnni_kernels() {
  static constexpr Kernels kKernels = make_kernels<Avx512Vnni>("avx512vnni");
  return kKernels;
}

}  // namespace moedge
