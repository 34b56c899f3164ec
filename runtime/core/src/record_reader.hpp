// Reads one record and checks it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "record_source.hpp"

namespace moedge {

// What must be known of a file of records.
struct RecordFile {
  uint32_t layers = 0;
  uint32_t experts = 0;
  uint64_t record_bytes = 0;
  uint64_t fc2_offset = 0;       // bytes of a record that fc1 needs
  std::vector<uint32_t> crc32c;  // [layers * experts]

  uint32_t records() const { return layers * experts; }
};

// Why a record cannot be used: a clause, and errno or 0.
struct ReadProblem {
  std::string text;
  int os_error = 0;
};

// Reads record `key` to `to`, the part that fc1 needs first, and compares its CRC-32C. Blocks; throws nothing of the
// source's.
//   bytes      counts what has been read
//   fc1_there  called when the first part is there; the checksum is known only at the end
std::optional<ReadProblem> read_record(RecordSource& source, const RecordFile& file, uint32_t key, uint8_t* to,
                                       std::atomic<uint64_t>& bytes, const std::function<void()>& fc1_there);

}  // namespace moedge
