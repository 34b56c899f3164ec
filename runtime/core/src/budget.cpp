#include "budget.hpp"

#include <algorithm>

#include "status.hpp"

namespace moedge {
namespace {

constexpr uint32_t kLeastRing = 2;
// A ring of an eighth of the places, at most thirty-two records: what fast flash delivers while a dense layer computes.
constexpr uint32_t kRingShare = 8;

}  // namespace

SlotCounts divide_slots(uint64_t slots, uint32_t records) {
  if (slots >= records) return {0, records};
  const auto ring = static_cast<uint32_t>(std::clamp<uint64_t>(slots / kRingShare, kLeastRing, kMaxRing));
  return {ring, static_cast<uint32_t>(slots) - ring};
}

uint32_t least_slots(uint32_t top_k) { return top_k + kLeastRing; }

SlotCounts slots_within(uint64_t budget_bytes, uint64_t buffer_bytes, uint64_t record_bytes, uint32_t records,
                        uint32_t top_k) {
  if (budget_bytes == 0) return divide_slots(records, records);
  const uint64_t least = std::min(least_slots(top_k), records);
  const uint64_t slots = budget_bytes > buffer_bytes ? (budget_bytes - buffer_bytes) / record_bytes : 0;
  if (slots >= least) return divide_slots(slots, records);
  const uint64_t needed = buffer_bytes + least * record_bytes;
  CoreError error(MOEDGE_BUDGET_TOO_SMALL, "budget of " + grouped(budget_bytes) + " bytes, at least " +
                                               grouped(needed) + " are needed: " + grouped(least) + " records of " +
                                               grouped(record_bytes) + " and " + grouped(buffer_bytes) +
                                               " for buffers");
  error.value = needed;
  throw error;
}

}  // namespace moedge
