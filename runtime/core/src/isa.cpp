#include "isa.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace moedge {
namespace {

#if defined(__x86_64__)

// clang 14 does not know the name in __builtin_cpu_supports.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

#elif defined(__aarch64__)

bool has_neondot() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

#endif

}  // namespace

const Kernels& best_kernels() {
#if defined(__x86_64__)
  if (has_avx512vnni()) return avx512vnni_kernels();
  if (has_avx2()) return avx2_kernels();
#elif defined(__aarch64__)
  if (has_neondot()) return neondot_kernels();
#endif
  return scalar_kernels();
}

const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__)
  if (std::strcmp(name, "avx512vnni") == 0) return has_avx512vnni() ? &avx512vnni_kernels() : nullptr;
  if (std::strcmp(name, "avx2") == 0) return has_avx2() ? &avx2_kernels() : nullptr;
#elif defined(__aarch64__)
  if (std::strcmp(name, "neondot") == 0) return has_neondot() ? &neondot_kernels() : nullptr;
#endif
  return std::strcmp(name, "scalar") == 0 ? &scalar_kernels() : nullptr;
}

}  // namespace moedge
