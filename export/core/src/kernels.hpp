#pragma once

#include <cstdint>

#include "moedge_quantize.h"

namespace moedge::quantize {

// What every instruction set provides; arguments are checked before.
struct Kernels {
  void (*quantize)(const moedge_quantize_matrix& matrix, moedge_quantize_sums& sums);
  void (*to_half)(const float* values, std::uint16_t* halves, std::uint64_t count);
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512f_kernels;
#endif

// By name, nullptr for the fastest; nullptr if this build or this processor does not have it.
const Kernels* find_kernels(const char* isa);

}  // namespace moedge::quantize
