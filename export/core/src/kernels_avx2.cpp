#include "kernel_template.hpp"

namespace moedge::quantize {

const Kernels avx2_kernels = {quantize_matrix, to_half};

}  // namespace moedge::quantize
