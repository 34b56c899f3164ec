// The crc32c instructions of Armv8, behind detail::crc32c_armv8.
#include <arm_acle.h>

#include "crc32c_runs.hpp"

namespace moedge {
namespace {

struct Instruction {
  static uint32_t word(uint32_t crc, uint64_t word) { return __crc32cd(crc, word); }
  static uint32_t byte(uint32_t crc, uint8_t byte) { return __crc32cb(crc, byte); }
};

}  // namespace

uint32_t detail::crc32c_armv8(uint32_t crc, const uint8_t* data, size_t size) {
  return crc32c_runs<Instruction>(crc, data, size);
}

}  // namespace moedge
