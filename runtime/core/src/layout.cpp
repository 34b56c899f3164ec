#include "layout.hpp"

namespace moedge {
namespace {

uint32_t divide_up(uint32_t value, uint32_t by) { return (value + by - 1) / by; }

uint64_t aligned(uint64_t bytes) { return (bytes + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment; }

}  // namespace

uint64_t place_matrix(MatrixLayout& matrix, uint32_t tiles, uint32_t inputs, const Quantization& quantization,
                      uint64_t offset) {
  matrix.tiles = tiles;
  if (quantization.bits == 32) {
    matrix.blocks = inputs;
    matrix.weight = offset;
    matrix.weight_tile_bytes = uint64_t{inputs} * kTileRows * sizeof(float);
    return offset + aligned(tiles * matrix.weight_tile_bytes);
  }
  matrix.blocks = divide_up(inputs, quantization.block);
  matrix.weight_tile_bytes = uint64_t{matrix.blocks} * kTileRows * quantization.block * quantization.bits / 8;
  matrix.scale_tile_bytes = uint64_t{matrix.blocks} * kTileRows * 2;
  matrix.weight = offset;
  offset += aligned(tiles * matrix.weight_tile_bytes);
  matrix.scale = offset;
  offset += aligned(tiles * matrix.scale_tile_bytes);
  if (!quantization.symmetric) {
    matrix.zero_tile_bytes = uint64_t{matrix.blocks} * kTileRows * quantization.bits / 8;
    matrix.zero = offset;
    offset += aligned(tiles * matrix.zero_tile_bytes);
  }
  return offset;
}

RecordLayout RecordLayout::make(uint32_t hidden, uint32_t intermediate, Quantization quantization) {
  RecordLayout layout;
  layout.quantization = quantization;
  layout.hidden = hidden;
  layout.intermediate = intermediate;
  layout.fc2_offset = place_matrix(layout.fc1, divide_up(intermediate, kHalfRows), hidden, quantization, 0);
  layout.record_bytes =
      place_matrix(layout.fc2, divide_up(hidden, kTileRows), intermediate, quantization, layout.fc2_offset);
  return layout;
}

size_t activation_row_bytes(uint32_t inputs, const Quantization& quantization) {
  if (quantization.bits == 32) return size_t{inputs} * sizeof(float);
  const size_t bytes = terms_offset(inputs, quantization.block) + divide_up(inputs, quantization.block) * kTermBytes;
  return (bytes + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

size_t terms_offset(uint32_t inputs, uint32_t block) { return size_t{divide_up(inputs, block)} * block; }

int32_t correction_factor(const Quantization& quantization, int32_t bias8) {
  if (quantization.bits == 32 || !quantization.symmetric) return 1;
  return -(quantization.middle() - (quantization.bits == 8 ? bias8 : 0));
}

}  // namespace moedge
