// What every file of the C interface needs: options are checked, exceptions become statuses.
#pragma once

#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "core.hpp"
#include "isa.hpp"
#include "layout.hpp"
#include "moedge_core.h"
#include "status.hpp"

#define MOEDGE_EXPORT __attribute__((visibility("default")))

struct moedge_core {
  moedge::Core core;
};

namespace moedge {

inline void fill(moedge_error* error, moedge_status status, const char* message) {
  if (error == nullptr) return;
  *error = moedge_error{};
  error->status = status;
  std::strncpy(error->message, message, sizeof error->message - 1);
}

template <class Function>
moedge_status guarded(moedge_error* error, Function function) {
  try {
    function();
    fill(error, MOEDGE_OK, "");
    return MOEDGE_OK;
  } catch (const CoreError& problem) {
    fill(error, problem.status, problem.what());
    if (error != nullptr) {
      error->os_error = problem.os_error;
      error->layer = problem.layer;
      error->expert = problem.expert;
      error->offset = problem.offset;
      error->value = problem.value;
    }
    return problem.status;
  } catch (const std::bad_alloc&) {
    fill(error, MOEDGE_OUT_OF_MEMORY, "memory for the buffers cannot be had");
    return MOEDGE_OUT_OF_MEMORY;
  } catch (const std::system_error& problem) {
    fill(error, MOEDGE_OUT_OF_MEMORY, (std::string("threads cannot be started (") + problem.what() + ")").c_str());
    return MOEDGE_OUT_OF_MEMORY;
  } catch (const std::exception& problem) {
    fill(error, MOEDGE_BAD_OPTION, problem.what());
    return MOEDGE_BAD_OPTION;
  }
}

inline void within(const char* name, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return;
  throw CoreError(MOEDGE_BAD_OPTION, std::string(name) + "=" + grouped(value) + "; " + grouped(least) + " to " +
                                         grouped(most) + " are possible");
}

inline void present(const char* name, const void* pointer) {
  if (pointer == nullptr) throw CoreError(MOEDGE_BAD_INPUT, std::string(name) + "=NULL; an array is needed");
}

inline void same_abi(uint32_t abi) {
  if (abi == MOEDGE_CORE_ABI) return;
  throw CoreError(MOEDGE_BAD_OPTION,
                  "interface version " + grouped(abi) + "; this library has " + grouped(MOEDGE_CORE_ABI));
}

inline const Kernels& kernels_for(const char* isa) {
  if (isa == nullptr) return best_kernels();
  const Kernels* kernels = find_kernels(isa);
  if (kernels == nullptr) {
    throw CoreError(MOEDGE_BAD_OPTION, std::string("isa=") + isa + " is not possible on this processor; its best is " +
                                           best_kernels().name);
  }
  return *kernels;
}

inline Quantization quantization_of(uint32_t bits, uint32_t block_size, uint32_t symmetric) {
  Quantization quantization{bits, block_size, symmetric != 0};
  if (bits != 4 && bits != 8 && bits != 32) {
    throw CoreError(MOEDGE_BAD_OPTION, "bits=" + grouped(bits) + "; 4, 8 and 32 are possible");
  }
  if (bits == 32) {
    quantization.block = 32;
    quantization.symmetric = true;
  } else if (block_size != 32 && block_size != 64 && block_size != 128) {
    throw CoreError(MOEDGE_BAD_OPTION, "block_size=" + grouped(block_size) + "; 32, 64 and 128 are possible");
  }
  return quantization;
}

}  // namespace moedge
