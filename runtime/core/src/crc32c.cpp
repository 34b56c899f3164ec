#include "crc32c.hpp"

#include <array>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace moedge {
namespace {

using Table = std::array<uint32_t, 256>;

Table make_table() {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78U : crc >> 1;
    table[byte] = crc;
  }
  return table;
}

const Table& byte_table() {
  static const Table table = make_table();
  return table;
}

// Appending zero bytes is linear: the result for any crc is the sum of those of its four bytes.
using ShiftTable = std::array<Table, 4>;

ShiftTable make_shift_table() {
  ShiftTable shift{};
  std::array<uint32_t, 32> of_bit{};
  for (int bit = 0; bit < 32; ++bit) {
    uint32_t crc = 1U << bit;
    for (size_t i = 0; i < detail::kCrcRun; ++i) crc = byte_table()[crc & 0xFF] ^ crc >> 8;
    of_bit[bit] = crc;
  }
  for (int part = 0; part < 4; ++part) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      for (int bit = 0; bit < 8; ++bit) {
        if (byte >> bit & 1) shift[part][byte] ^= of_bit[8 * part + bit];
      }
    }
  }
  return shift;
}

using Implementation = uint32_t (*)(uint32_t, const uint8_t*, size_t);

Implementation choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return detail::crc32c_sse42;
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_CRC32) return detail::crc32c_armv8;
#endif
  return crc32c_table;
}

}  // namespace

uint32_t detail::crc32c_shift_run(uint32_t crc) {
  static const ShiftTable shift = make_shift_table();
  return shift[0][crc & 0xFF] ^ shift[1][crc >> 8 & 0xFF] ^ shift[2][crc >> 16 & 0xFF] ^ shift[3][crc >> 24];
}

uint32_t crc32c_table(uint32_t crc, const uint8_t* data, size_t size) {
  const Table& table = byte_table();
  crc = ~crc;
  for (size_t i = 0; i < size; ++i) crc = table[(crc ^ data[i]) & 0xFF] ^ crc >> 8;
  return ~crc;
}

uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t size) {
  static const Implementation implementation = choose();
  return implementation(crc, data, size);
}

}  // namespace moedge
