#include "dense_kernels_avx2.hpp"

namespace moedge {

const DenseKernels& avx2_dense_kernels() {
  static constexpr DenseKernels kKernels = make_dense_kernels<Eight, Eight>();
  return kKernels;
}

}  // namespace moedge
