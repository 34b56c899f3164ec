// A vision tower of arbitrary weights as a graph has them, and what it must compute, in double precision.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dense_model.hpp"
#include "vision.hpp"

namespace moedge::test {

struct StoredNorm {
  std::vector<float> weight, bias;
};

struct StoredBlock {
  StoredNorm input_norm, post_norm;
  StoredMatrix qkv, output, up, down;

  moedge_vision_block_weights view() const;
};

struct StoredMerger {
  StoredNorm norm;
  StoredMatrix up, down;

  moedge_vision_merger_weights view() const;
};

struct VisionModel {
  VisionShape shape;
  float epsilon = 1e-6F;
  StoredMatrix patches;
  std::vector<float> positions;
  std::vector<StoredBlock> blocks;
  std::vector<StoredMerger> mergers;
};

// Three blocks and two taps.
VisionShape make_vision_shape(const Quantization& quantization, uint32_t hidden = 40, uint32_t heads = 2,
                              uint32_t merge = 4);
VisionModel make_vision_model(const VisionShape& shape, uint64_t seed = 1);

// A picture's inputs; the last corner of each patch counts nothing.
struct VisionInput {
  uint32_t patches, frames;
  std::vector<float> pixels, shares, cos, sin;
  std::vector<uint32_t> corners;
};

VisionInput make_vision_input(const VisionShape& shape, uint32_t patches, uint32_t frames, Random& random);

std::unique_ptr<Vision> open_vision(const VisionModel& model, uint32_t threads, const Kernels& kernels);

// All that a picture leaves behind: the hidden states after each block, and the features of each merger after the last.
struct VisionTrace {
  std::vector<float> hidden, features;

  bool operator==(const VisionTrace&) const = default;
};

// The C structure, whose arrays are those of `input` and the other arguments.
moedge_vision_picture picture_of(const VisionInput& input, std::vector<float>& hidden, std::vector<uint8_t>& memory);
VisionTrace run(Vision& vision, const VisionInput& input);

struct VisionExpectation {
  std::vector<double> hidden, features;
};

VisionExpectation expected(const VisionModel& model, const VisionInput& input);

}  // namespace moedge::test
