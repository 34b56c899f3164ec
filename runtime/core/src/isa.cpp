#include "isa.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace moedge {
namespace {

#if defined(__x86_64__)

// clang 14 knows neither F16C nor AVX-VNNI in __builtin_cpu_supports.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

// What the system has to save is what AVX2 uses.
bool has_avxvnni() {
  unsigned eax, ebx, ecx, edx;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & bit_AVXVNNI) != 0;
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

// The tiles are saved for a process that has asked for them. Refused, for good or for now, by Linux before 5.16, by
// some sandboxes, and while a thread's alternate signal stack is too small for them.
bool has_amx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILE_DATA
  constexpr unsigned kTiles = 1U << 24;
  constexpr unsigned kInt8 = 1U << 25;
  unsigned eax, ebx, ecx, edx;
  return has_avx512vnni() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTiles) != 0 &&
         (edx & kInt8) != 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#elif defined(__aarch64__)

bool has_neondot() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

bool has_neoni8mm() { return has_neondot() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }

#endif

struct InstructionSet {
  const char* name;
  bool (*present)();
  const Kernels& (*kernels)();
  const DenseKernels& (*dense)();
};

// Of this architecture, the fastest first.
constexpr InstructionSet kFastestFirst[] = {
#if defined(__x86_64__)
    {"amx", has_amx, amx_kernels, avx512_dense_kernels},
    {"avx512vnni", has_avx512vnni, avx512vnni_kernels, avx512_dense_kernels},
    {"avxvnni", has_avxvnni, avxvnni_kernels, avx2_dense_kernels},
    {"avx2", has_avx2, avx2_kernels, avx2_dense_kernels},
#elif defined(__aarch64__)
    {"neoni8mm", has_neoni8mm, neoni8mm_kernels, neon_dense_kernels},
    {"neondot", has_neondot, neondot_kernels, neon_dense_kernels},
#endif
    {"scalar", [] { return true; }, scalar_kernels, scalar_dense_kernels},
};

}  // namespace

const Kernels& best_kernels() {
  const InstructionSet* set = kFastestFirst;
  while (!set->present()) ++set;  // scalar always is
  return set->kernels();
}

const Kernels* find_kernels(const char* name) {
  for (const InstructionSet& set : kFastestFirst) {
    if (std::strcmp(set.name, name) == 0) return set.present() ? &set.kernels() : nullptr;
  }
  return nullptr;
}

const DenseKernels& dense_kernels_beside(const Kernels& kernels) {
  const InstructionSet* set = kFastestFirst;
  while (std::strcmp(set->name, kernels.name) != 0) ++set;
  return set->dense();
}

}  // namespace moedge
