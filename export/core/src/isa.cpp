#include <cstring>

#include "kernels.hpp"

namespace moedge::quantize {
namespace {

struct InstructionSet {
  const char* name;
  bool (*present)();
  const Kernels& kernels;
};

// Of this architecture, the fastest first.
const InstructionSet kFastestFirst[] = {
#if defined(__x86_64__)
    {"avx512f", [] { return __builtin_cpu_supports("avx512f") != 0; }, avx512f_kernels},
    {"avx2", [] { return __builtin_cpu_supports("avx2") != 0; }, avx2_kernels},
#endif
    {"baseline", [] { return true; }, baseline_kernels},
};

}  // namespace

const Kernels* find_kernels(const char* isa) {
  for (const InstructionSet& set : kFastestFirst) {
    if ((isa == nullptr || std::strcmp(set.name, isa) == 0) && set.present()) return &set.kernels;
  }
  return nullptr;
}

}  // namespace moedge::quantize
