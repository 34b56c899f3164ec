// How many places for records a budget has room for, and how they are divided. No effects.
#pragma once

#include <cstdint>

namespace moedge {

constexpr uint32_t kMaxRing = 32;

// Places for records: `ring` of them for the scan of a prefill, `dynamic` for what stays.
struct SlotCounts {
  uint32_t ring = 0;
  uint32_t dynamic = 0;

  uint32_t total() const { return ring + dynamic; }
};

// How `slots` places are divided; `records` is what there is to hold.
SlotCounts divide_slots(uint64_t slots, uint32_t records);

// Fewest places that a model with `top_k` experts a token can run in: the picks of a token and a ring of two.
uint32_t least_slots(uint32_t top_k);

// What a budget of `budget_bytes` has room for beside `buffer_bytes`; 0 is a budget for all records.
// Throws CoreError BUDGET_TOO_SMALL.
SlotCounts slots_within(uint64_t budget_bytes, uint64_t buffer_bytes, uint64_t record_bytes, uint32_t records,
                        uint32_t top_k);

}  // namespace moedge
