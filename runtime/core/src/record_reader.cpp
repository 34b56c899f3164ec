#include "record_reader.hpp"

#include <cstdio>
#include <cstring>
#include <exception>

#include "crc32c.hpp"
#include "status.hpp"

namespace moedge {
namespace {

// A read that ends elsewhere has met the end of the file; direct reads can only continue from here.
constexpr uint64_t kReadAlignment = 512;

std::string hexadecimal(uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

// Reads bytes begin to end of the record.
std::optional<ReadProblem> read_part(RecordSource& source, const RecordFile& file, uint32_t key, uint8_t* to,
                                     uint64_t begin, uint64_t end, std::atomic<uint64_t>& bytes) {
  while (begin < end) {
    const int64_t got = source.read(key * file.record_bytes + begin, to + begin, end - begin);
    if (got < 0) {
      const int os_error = static_cast<int>(-got);
      return ReadProblem{std::string("reading failed (") + std::strerror(os_error) + ")", os_error};
    }
    bytes.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
    begin += static_cast<uint64_t>(got);
    if (got == 0 || begin % kReadAlignment != 0) {
      if (begin == end) break;
      return ReadProblem{"the file ends after " + grouped(begin) + " of " + grouped(file.record_bytes) + " bytes", 0};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<ReadProblem> read_record(RecordSource& source, const RecordFile& file, uint32_t key, uint8_t* to,
                                       std::atomic<uint64_t>& bytes, const std::function<void()>& fc1_there) {
  try {
    if (auto problem = read_part(source, file, key, to, 0, file.fc2_offset, bytes)) return problem;
    uint32_t crc = crc32c(0, to, file.fc2_offset);
    fc1_there();
    if (auto problem = read_part(source, file, key, to, file.fc2_offset, file.record_bytes, bytes)) return problem;
    crc = crc32c(crc, to + file.fc2_offset, file.record_bytes - file.fc2_offset);
    const uint32_t wanted = file.crc32c[key];
    if (crc == wanted) return std::nullopt;
    return ReadProblem{"its CRC-32C is " + hexadecimal(crc) + ", the manifest says " + hexadecimal(wanted), 0};
  } catch (const std::exception& error) {
    return ReadProblem{std::string("its reader failed (") + error.what() + ")", 0};
  }
}

}  // namespace moedge
