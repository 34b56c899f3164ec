// Where the weights of the vision tower lie in memory. No effects.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace moedge {

struct VisionShape {
  uint32_t depth = 0;  // blocks
  uint32_t hidden = 0;
  uint32_t heads = 0;
  uint32_t intermediate = 0;
  uint32_t patch_values = 0;  // of a patch's pixels
  uint32_t positions = 0;     // learned position embeddings
  uint32_t merge = 0;         // patches that become an image token
  uint32_t features = 0;      // values of an image token
  uint32_t taps = 0;          // mergers of blocks' results; one more is behind the last block
  bool tanh = false;          // the blocks' GELU is the approximation with tanh
  bool resident = true;       // all weights have a place of their own; else two blocks and two mergers, in turn
  Quantization quantization;

  uint32_t head_dim() const { return hidden / heads; }
  uint32_t merged() const { return hidden * merge; }
  uint32_t mergers() const { return taps + 1; }
  uint32_t block_places() const { return resident ? depth : std::min(2U, depth); }
  uint32_t merger_places() const { return resident ? mergers() : std::min(2U, mergers()); }
};

// Offsets in bytes from where the weights begin.
struct Norm {
  uint64_t weight = 0;
  uint64_t bias = 0;
};

struct Linear {
  MatrixLayout matrix;
  uint64_t bias = 0;
};

struct VisionBlockLayout {
  Norm input_norm;
  Linear qkv;
  Linear output;
  Norm post_norm;
  Linear up;
  Linear down;
};

struct VisionMergerLayout {
  Norm norm;  // of the merged patches; in the last merger of each patch, at most as large
  Linear up;
  Linear down;
};

struct VisionLayout {
  Linear patches;
  uint64_t positions = 0;
  std::vector<VisionBlockLayout> blocks;    // by place: of block i the i-th, or as often as there are places around
  std::vector<VisionMergerLayout> mergers;  // likewise
  uint64_t bytes = 0;

  // Source: vision_weight_bytes in moedge_runtime/inference/vision_sizes.py has the same sum.
  static VisionLayout make(const VisionShape& shape);
};

}  // namespace moedge
