// The SSE4.2 crc32 instruction, behind detail::crc32c_sse42.
#include <nmmintrin.h>

#include "crc32c_runs.hpp"

namespace moedge {
namespace {

struct Instruction {
  static uint32_t word(uint32_t crc, uint64_t word) { return static_cast<uint32_t>(_mm_crc32_u64(crc, word)); }
  static uint32_t byte(uint32_t crc, uint8_t byte) { return _mm_crc32_u8(crc, byte); }
};

}  // namespace

uint32_t detail::crc32c_sse42(uint32_t crc, const uint8_t* data, size_t size) {
  return crc32c_runs<Instruction>(crc, data, size);
}

}  // namespace moedge
