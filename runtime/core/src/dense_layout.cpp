#include "dense_layout.hpp"

#include <cstring>

#include "places.hpp"

namespace moedge {
namespace {

constexpr Quantization kFloats{32, 32, true};

// The row of the graph's matrix that lies in row `r` of tile `tile`; `rows` or more if there is none.
uint32_t row_of(uint32_t tile, uint32_t r, uint32_t rows, bool paired) {
  if (!paired) return tile * kTileRows + r;
  const uint32_t pair = tile * kHalfRows + r % kHalfRows;
  if (pair >= rows / 2) return rows;
  return r < kHalfRows ? pair : rows / 2 + pair;
}

// Eight four-bit values of a row: from pairs of neighbours to pairs four apart.
void spread_nibbles(const uint8_t* from, uint8_t* to) {
  to[0] = static_cast<uint8_t>((from[0] & 15) | (from[2] & 15) << 4);
  to[1] = static_cast<uint8_t>(from[0] >> 4 | (from[2] & 0xF0));
  to[2] = static_cast<uint8_t>((from[1] & 15) | (from[3] & 15) << 4);
  to[3] = static_cast<uint8_t>(from[1] >> 4 | (from[3] & 0xF0));
}

// Row `r` of a tile whose parts begin at `weight`, `scale` and `zero`; `row` is its place in the graph's matrix.
bool pack_row(const GraphMatrix& from, size_t row, uint32_t r, const Quantization& quantization, uint32_t blocks,
              uint8_t* weight, uint16_t* scale, uint8_t* zero) {
  const uint32_t bits = quantization.bits;
  const uint32_t groups = quantization.block * bits / 8 / 4;  // of four bytes, in a block
  const uint32_t half = r / kHalfRows;
  const uint32_t in_half = r % kHalfRows;
  const auto* stored = static_cast<const uint8_t*>(from.weight) + row * blocks * groups * 4;
  for (size_t group = 0; group < size_t{blocks} * groups; ++group, stored += 4) {
    uint8_t* to = weight + (group * 2 + half) * 64 + in_half * 4;
    bits == 4 ? spread_nibbles(stored, to) : static_cast<void>(std::memcpy(to, stored, 4));
  }
  bool exact = true;
  const float* scales = from.scale + row * blocks;
  for (uint32_t block = 0; block < blocks; ++block) exact &= exact_half(scales[block], scale[block * kTileRows + r]);
  if (quantization.symmetric) return exact;
  const uint8_t* points = from.zero_point + row * divide_up(blocks * bits, 8);
  for (uint32_t block = 0; block < blocks; ++block) {
    if (bits == 8) {
      zero[block * kTileRows + r] = points[block];
    } else {
      const int point = points[block / 2] >> block % 2 * 4 & 15;
      zero[block * kHalfRows + in_half] |= static_cast<uint8_t>(point << half * 4);
    }
  }
  return exact;
}

}  // namespace

DenseLayout DenseLayout::make(const DenseShape& shape) {
  DenseLayout layout;
  Places places;
  for (uint32_t index = 0; index < shape.layers(); ++index) {
    DenseLayerLayout layer;
    layer.qkv_bias = places.vector(shape.biased ? shape.projected() : 0);
    layer.output_bias = places.vector(shape.biased ? shape.hidden : 0);
    layer.input_norm = places.vector(shape.hidden);
    layer.query_norm = places.vector(shape.head_dim);
    layer.key_norm = places.vector(shape.head_dim);
    layer.post_norm = places.vector(shape.hidden);
    layer.next_norm = places.vector(shape.guesses(index) ? shape.hidden : 0);
    places.matrix(layer.qkv, divide_up(shape.projected(), kTileRows), shape.hidden, shape.quantization);
    places.matrix(layer.output, divide_up(shape.hidden, kTileRows), shape.mixed(), shape.quantization);
    if (shape.has_experts[index]) {
      const uint32_t tiles = divide_up(shape.experts, kTileRows);
      places.matrix(layer.router, tiles, shape.hidden, kFloats);
      if (shape.guesses(index)) places.matrix(layer.next_router, tiles, shape.hidden, shape.quantization);
    } else {
      places.matrix(layer.gate_up, divide_up(shape.intermediate, kHalfRows), shape.hidden, shape.quantization);
      places.matrix(layer.down, divide_up(shape.hidden, kTileRows), shape.intermediate, shape.quantization);
    }
    layout.layers.push_back(layer);
  }
  layout.head_norm = places.vector(shape.hidden);
  places.matrix(layout.head, divide_up(shape.vocabulary, kTileRows), shape.hidden, shape.head_quantization);
  layout.bytes = places.end;
  return layout;
}

bool pack_matrix(const GraphMatrix& from, uint32_t rows, uint32_t inputs, bool paired, const Quantization& quantization,
                 const MatrixLayout& layout, uint8_t* to) {
  bool exact = true;
  for (uint32_t tile = 0; tile < layout.tiles; ++tile) {
    uint8_t* weight = to + layout.weight + tile * layout.weight_tile_bytes;
    auto* scale = reinterpret_cast<uint16_t*>(to + layout.scale + tile * layout.scale_tile_bytes);
    uint8_t* zero = to + layout.zero + tile * layout.zero_tile_bytes;
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const size_t row = row_of(tile, r, rows, paired);
      if (row >= rows) continue;
      if (quantization.bits == 32) {
        const float* values = static_cast<const float*>(from.weight) + row * inputs;
        auto* floats = reinterpret_cast<float*>(weight) + r;
        for (uint32_t i = 0; i < inputs; ++i) floats[size_t{i} * kTileRows] = values[i];
      } else {
        exact &= pack_row(from, row, r, quantization, layout.blocks, weight, scale, zero);
      }
    }
  }
  return exact;
}

bool exact_half(float value, uint16_t& half) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 127;
  const uint32_t fraction = bits & 0x7FFFFF;
  half = sign;
  if ((bits & 0x7FFFFFFF) == 0) return true;
  if (exponent >= -14 && exponent <= 15) {
    half = static_cast<uint16_t>(sign | (exponent + 15) << 10 | fraction >> 13);
    return (fraction & 0x1FFF) == 0;
  }
  if (exponent < -24 || exponent > 15) return false;
  const int dropped = -1 - exponent;  // of the significand's 24 bits; a subnormal counts units of 2^-24
  const uint32_t significand = 0x800000 | fraction;
  half = static_cast<uint16_t>(sign | significand >> dropped);
  return (significand & ((1U << dropped) - 1)) == 0;
}

}  // namespace moedge
