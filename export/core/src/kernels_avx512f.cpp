#include "kernel_template.hpp"

namespace moedge::quantize {

const Kernels avx512f_kernels = {quantize_matrix, to_half};

}  // namespace moedge::quantize
