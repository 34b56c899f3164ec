// The record of one expert, as docs/bundle-format.md describes it. No effects.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

// Rows of a tile: two halves of sixteen. A 64-byte load holds four inputs of the sixteen rows of a half.
constexpr uint32_t kHalfRows = 16;
constexpr uint32_t kTileRows = 2 * kHalfRows;
constexpr uint64_t kSectionAlignment = 4096;

struct Quantization {
  uint32_t bits = 4;  // 4, 8 or 32
  uint32_t block = 32;
  bool symmetric = true;

  // The stored integer that means zero, if symmetric.
  int32_t middle() const { return 1 << (bits - 1); }
};

// One matrix of a record; offsets in bytes from the record's start.
struct MatrixLayout {
  uint32_t tiles = 0;
  uint32_t blocks = 0;  // along the inputs; the inputs themselves at 32 bits
  uint64_t weight = 0;
  uint64_t scale = 0;
  uint64_t zero = 0;
  uint64_t weight_tile_bytes = 0;
  uint64_t scale_tile_bytes = 0;
  uint64_t zero_tile_bytes = 0;
};

struct RecordLayout {
  Quantization quantization;
  uint32_t hidden = 0;
  uint32_t intermediate = 0;
  MatrixLayout fc1;  // a tile is sixteen gates and the sixteen ups that belong to them
  MatrixLayout fc2;
  uint64_t fc2_offset = 0;  // where the second matrix begins: a multiple of kSectionAlignment
  uint64_t record_bytes = 0;

  // Source: ExpertLayout in moedge_runtime/bundle/experts.py, format_version 1.
  static RecordLayout make(uint32_t hidden, uint32_t intermediate, Quantization quantization);
};

// Lays a matrix of `tiles` out from `offset` on, as in a record; returns where it ends.
uint64_t place_matrix(MatrixLayout& matrix, uint32_t tiles, uint32_t inputs, const Quantization& quantization,
                      uint64_t offset);

// Of an activation row: rows that follow each other begin at cache lines if the first does.
constexpr size_t kRowAlignment = 64;
// Of a block's terms: a float scale and an int32 correction.
constexpr size_t kTermBytes = 8;

// Bytes of an activation row of `inputs` values: floats at 32 bits, else the int8 values of all blocks, and from
// terms_offset on the terms of all blocks.
size_t activation_row_bytes(uint32_t inputs, const Quantization& quantization);
size_t terms_offset(uint32_t inputs, uint32_t block);

// What Kernels::quantize multiplies a block's sum with, for kernels that subtract `bias8` from 8-bit weights.
int32_t correction_factor(const Quantization& quantization, int32_t bias8);

}  // namespace moedge
