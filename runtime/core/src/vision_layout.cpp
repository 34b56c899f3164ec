#include "vision_layout.hpp"

#include "places.hpp"

namespace moedge {

VisionLayout VisionLayout::make(const VisionShape& shape) {
  VisionLayout layout;
  Places places;
  const auto norm = [&](uint32_t count) {
    const uint64_t weight = places.vector(count);
    return Norm{weight, places.vector(count)};
  };
  const auto linear = [&](uint32_t rows, uint32_t inputs) {
    Linear placed;
    placed.bias = places.vector(rows);
    places.matrix(placed.matrix, divide_up(rows, kTileRows), inputs, shape.quantization);
    return placed;
  };
  layout.patches = linear(shape.hidden, shape.patch_values);
  layout.positions = places.vector(uint64_t{shape.positions} * shape.hidden);
  for (uint32_t index = 0; index < shape.block_places(); ++index) {
    VisionBlockLayout block;
    block.input_norm = norm(shape.hidden);
    block.qkv = linear(3 * shape.hidden, shape.hidden);
    block.output = linear(shape.hidden, shape.hidden);
    block.post_norm = norm(shape.hidden);
    block.up = linear(shape.intermediate, shape.hidden);
    block.down = linear(shape.hidden, shape.intermediate);
    layout.blocks.push_back(block);
  }
  for (uint32_t index = 0; index < shape.merger_places(); ++index) {
    VisionMergerLayout merger;
    merger.norm = norm(index < shape.taps || !shape.resident ? shape.merged() : shape.hidden);
    merger.up = linear(shape.merged(), shape.merged());
    merger.down = linear(shape.features, shape.merged());
    layout.mergers.push_back(merger);
  }
  layout.bytes = places.end;
  return layout;
}

}  // namespace moedge
