// Errors inside the core; the C interface turns them into a moedge_error.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "moedge_core.h"

namespace moedge {

struct CoreError : std::runtime_error {
  CoreError(moedge_status code, const std::string& message) : std::runtime_error(message), status(code) {}

  moedge_status status;
  int os_error = 0;
  uint32_t layer = 0;
  uint32_t expert = 0;
  uint64_t offset = 0;
  uint64_t value = 0;
};

// 1234567 as "1,234,567".
inline std::string grouped(uint64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t at = 0; at < digits.size(); ++at) {
    if (at > 0 && (digits.size() - at) % 3 == 0) text += ',';
    text += digits[at];
  }
  return text;
}

}  // namespace moedge
