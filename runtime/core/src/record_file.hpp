// What must be known of a file of records.
#pragma once

#include <cstdint>
#include <vector>

namespace moedge {

struct RecordFile {
  uint32_t layers = 0;
  uint32_t experts = 0;
  uint64_t record_bytes = 0;
  uint64_t fc2_offset = 0;       // bytes of a record that fc1 needs
  std::vector<uint32_t> crc32c;  // [layers * experts]

  uint32_t records() const { return layers * experts; }
};

}  // namespace moedge
