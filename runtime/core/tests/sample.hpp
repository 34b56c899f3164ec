// Arbitrary values that are the same in every run, and how many cases a build can afford.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

namespace moedge::test {

// Under a sanitizer or an emulator.
#ifdef MOEDGE_FEWER_CASES
constexpr bool kFewerCases = true;
#else
constexpr bool kFewerCases = false;
#endif

// How long a test waits for what must happen, on a busy machine under a sanitizer.
constexpr std::chrono::seconds kDeadline{60};

// Source: S. Vigna, splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return z ^ z >> 31;
  }

  uint32_t below(uint32_t count) { return static_cast<uint32_t>((next() >> 32) * count >> 32); }

  // A multiple of 2^-20 of the width, so that every machine gives the same bits.
  float between(float least, float most) {
    return least + static_cast<float>(next() >> 44) * 0x1p-20F * (most - least);
  }

  void fill(std::vector<uint8_t>& bytes) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(next() >> 56);
  }

  std::vector<float> floats(size_t count, float least, float most) {
    std::vector<float> values(count);
    for (float& value : values) value = between(least, most);
    return values;
  }

  // A binary16 between 2^-10 and 2^-6.
  uint16_t scale() { return static_cast<uint16_t>((5 + below(4)) << 10 | below(1024)); }

 private:
  uint64_t state_;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace moedge::test
