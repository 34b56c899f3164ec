// Chooses the kernels that this processor can run.
#pragma once

#include "dense_kernels.hpp"
#include "kernels.hpp"

namespace moedge {

// All that there are kernels for, on one architecture or another.
inline constexpr const char* kInstructionSets[] = {"scalar", "avx2",    "avxvnni", "avx512vnni",
                                                   "amx",    "neondot", "neoni8mm"};

// The fastest kernels that this processor has.
const Kernels& best_kernels();

// The kernels called `name`; null if this build does not hold them or this processor cannot run them.
const Kernels* find_kernels(const char* name);

// Those for the rest of the dense layers, of the same instruction set.
const DenseKernels& dense_kernels_beside(const Kernels& kernels);

}  // namespace moedge
