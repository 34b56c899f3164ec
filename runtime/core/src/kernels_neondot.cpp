#include "kernels_neondot.hpp"

namespace moedge {

const Kernels& neondot_kernels() {
  static constexpr Kernels kKernels = make_kernels<NeonDot>("neondot");
  return kKernels;
}

}  // namespace moedge
