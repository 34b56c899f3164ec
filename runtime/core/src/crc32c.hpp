// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), by the processor's instruction where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

// Continues `crc` (0 to begin with) over `size` bytes.
uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t size);

// The same by table, for processors without the instruction and for tests.
uint32_t crc32c_table(uint32_t crc, const uint8_t* data, size_t size);

namespace detail {
// Three interleaved runs of this many bytes hide the instruction's latency; their results are joined by tables.
constexpr size_t kCrcRun = 4096;
// What `crc` becomes after kCrcRun zero bytes, without the inversions at both ends.
uint32_t crc32c_shift_run(uint32_t crc);
uint32_t crc32c_sse42(uint32_t crc, const uint8_t* data, size_t size);
uint32_t crc32c_armv8(uint32_t crc, const uint8_t* data, size_t size);
}  // namespace detail

}  // namespace moedge
