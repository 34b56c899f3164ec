// CRC-32C over an instruction with a latency of three cycles: three runs at a time.
#pragma once

#include <cstring>

#include "crc32c.hpp"

namespace moedge {
namespace {

inline uint64_t word_at(const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

template <class Instruction>
uint32_t crc32c_runs(uint32_t crc, const uint8_t* data, size_t size) {
  constexpr size_t kRun = detail::kCrcRun;
  crc = ~crc;
  while (size >= 3 * kRun) {
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < kRun; i += 8) {
      crc = Instruction::word(crc, word_at(data + i));
      second = Instruction::word(second, word_at(data + kRun + i));
      third = Instruction::word(third, word_at(data + 2 * kRun + i));
    }
    crc = detail::crc32c_shift_run(detail::crc32c_shift_run(crc) ^ second) ^ third;
    data += 3 * kRun;
    size -= 3 * kRun;
  }
  for (; size >= 8; data += 8, size -= 8) crc = Instruction::word(crc, word_at(data));
  for (; size > 0; ++data, --size) crc = Instruction::byte(crc, *data);
  return ~crc;
}

}  // namespace
}  // namespace moedge
