// Where the weights of the dense layers lie in memory, and how they come there from a graph's. No effects.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.hpp"
#include "moedge_core.h"

namespace moedge {

struct DenseShape {
  uint32_t hidden = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t experts = 0;
  uint32_t intermediate = 0;  // of the layers that have no experts
  uint32_t vocabulary = 0;
  bool biased = false;        // the products of the attention have a bias
  Quantization quantization;  // of every product but the router's and the head's
  Quantization head_quantization;
  std::vector<bool> has_experts;  // by layer

  uint32_t layers() const { return static_cast<uint32_t>(has_experts.size()); }
  uint32_t group() const { return heads / kv_heads; }
  uint32_t mixed() const { return heads * head_dim; }                       // inputs of the output product
  uint32_t projected() const { return (heads + 2 * kv_heads) * head_dim; }  // queries, keys, values
  // The layer has the next one's router, to guess what that would say.
  bool guesses(uint32_t layer) const { return layer + 1 < layers() && has_experts[layer] && has_experts[layer + 1]; }
  // Layers that follow and whose routers a token may be shown, up to MOEDGE_LAYERS_AHEAD: that of one is in the layer
  // before it.
  uint32_t foreseen(uint32_t layer) const {
    uint32_t count = 0;
    while (count < MOEDGE_LAYERS_AHEAD && guesses(layer + count)) ++count;
    return count;
  }
};

// Float32, and matrices in tiles; offsets in bytes from where the layer begins.
struct DenseLayerLayout {
  uint64_t begin = 0;
  uint64_t input_norm = 0;
  uint64_t query_norm = 0;
  uint64_t key_norm = 0;
  uint64_t post_norm = 0;
  uint64_t next_norm = 0;
  uint64_t qkv_bias = 0;
  uint64_t output_bias = 0;
  MatrixLayout qkv;
  MatrixLayout output;
  MatrixLayout router;       // float32
  MatrixLayout next_router;  // of the next layer, if both have experts
  MatrixLayout gate_up;      // a tile is sixteen gates and the sixteen ups that belong to them
  MatrixLayout down;
};

struct DenseLayout {
  std::vector<DenseLayerLayout> layers;
  uint64_t head_norm = 0;
  MatrixLayout head;
  uint64_t bytes = 0;

  // Source: dense_weight_bytes in moedge_runtime/inference/memory_plan.py has the same sum.
  static DenseLayout make(const DenseShape& shape);
};

// A matrix as ONNX Runtime's MatMulNBits has it, or plain float32 at 32 bits.
struct GraphMatrix {
  const void* weight = nullptr;         // uint8 [rows, blocks, block * bits / 8], or float [rows, inputs]
  const float* scale = nullptr;         // [rows, blocks]
  const uint8_t* zero_point = nullptr;  // [rows, ceil(blocks * bits / 8)] if not symmetric
};

// Puts `from` [rows, inputs] into tiles at `to`, which holds zeros; `paired`: the first half of the rows are gates.
// False if a scale is no float16.
bool pack_matrix(const GraphMatrix& from, uint32_t rows, uint32_t inputs, bool paired, const Quantization& quantization,
                 const MatrixLayout& layout, uint8_t* to);

// IEEE binary16 of a float that is one, in `half`; false if it is none.
bool exact_half(float value, uint16_t& half);

}  // namespace moedge
