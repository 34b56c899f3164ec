#include "kernels.hpp"
#include "moedge_quantize.h"

#define MOEDGE_API extern "C" __attribute__((visibility("default")))

using moedge::quantize::find_kernels;

namespace {

bool is_valid(const moedge_quantize_matrix& matrix) {
  return matrix.type <= MOEDGE_BFLOAT16 && (matrix.bits == 4 || matrix.bits == 8) &&
         (matrix.block_size == 32 || matrix.block_size == 64 || matrix.block_size == 128) && matrix.symmetric <= 1 &&
         (matrix.row_stride == 1 || matrix.input_stride == 1);
}

}  // namespace

MOEDGE_API uint32_t moedge_quantize_abi() { return MOEDGE_QUANTIZE_ABI; }

MOEDGE_API int moedge_quantize(const moedge_quantize_matrix* matrix, moedge_quantize_sums* sums) {
  const auto* kernels = find_kernels(matrix->isa);
  if (kernels == nullptr || !is_valid(*matrix)) return 1;
  kernels->quantize(*matrix, *sums);
  return 0;
}

MOEDGE_API int moedge_quantize_to_half(const float* values, uint16_t* halves, uint64_t count, const char* isa) {
  const auto* kernels = find_kernels(isa);
  if (kernels == nullptr) return 1;
  kernels->to_half(values, halves, count);
  return 0;
}

MOEDGE_API int moedge_quantize_has_isa(const char* isa) { return find_kernels(isa) != nullptr; }
