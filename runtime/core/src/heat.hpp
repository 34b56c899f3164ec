// How often and how recently each record was used: what stays in memory, and what is worth reading first. No effects.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moedge {

class Heat {
 public:
  Heat(uint32_t layers, uint32_t experts);

  // A call begins: time goes on.
  void tick() { ++calls_; }

  // The record is used by this call, as much as by so many decoded tokens; above 0, and not always a whole number.
  void use(uint32_t key, double uses);

  // Forgets all uses. Every record gets the heat of one that has been used for ever as often as `counts` says, the
  // tokens that chose it among those that each chose `top_k` of its layer; 0 is never.
  //   counts  [layers * experts]
  void start_from(std::span<const uint64_t> counts, uint32_t top_k);

  // Comparable between records at any time; −infinity: never used.
  double of(uint32_t key) const { return heat_[key]; }

  // All records: the most heat first, of equal ones the lower key.
  std::vector<uint32_t> order() const;

 private:
  double now() const;

  const uint32_t layers_;
  const uint32_t experts_;
  uint64_t calls_ = 0;
  // The logarithm to base 2 of the sum over all uses of 2^(time of the use / half-life): ordered as exponentially aged
  // counts are, without ageing anything.
  std::vector<double> heat_;
};

}  // namespace moedge
