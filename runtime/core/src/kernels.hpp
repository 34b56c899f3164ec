// What an instruction set computes. One table for each; all give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moedge {

// Multiplies one tile of 32 rows with some activation rows.
//   weight, scale, zero  the tile's bytes in the record (docs/bundle-format.md); zero is unused if symmetric
//   blocks               blocks of a row; inputs of a row at 32 bits
//   x                    activation rows, see activation_row_bytes; floats at 32 bits
//   out                  float [rows, 32]
using TileKernel = void (*)(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t blocks,
                            const uint8_t* const* x, float* out);

struct Kernels {
  const char* name;
  // Most activation rows that a TileKernel takes at once.
  uint32_t max_rows;
  // Subtracted from stored 8-bit weights and zero points before they are multiplied: 128 where products are signed.
  int32_t bias8;

  // The kernel for `rows` activation rows, 1 to max_rows.
  TileKernel (*tile)(uint32_t bits, uint32_t block, bool symmetric, uint32_t rows);

  // Blocks of an activation row: the int8 values (in each block the one of the largest magnitude is −128), and for each
  // block the float scale and as int32 `factor` times the sum of its values. What the last block lacks is zero. Returns
  // false if a value is not finite.
  bool (*quantize)(const float* x, uint32_t count, uint32_t block, int32_t factor, uint8_t* values, uint8_t* terms);

  // out[i] = silu(x[i]) * x[16 + i] for i < 16.
  void (*swiglu)(const float* x, float* out);

  // result[i] += weight * x[i], fused.
  void (*accumulate)(float weight, const float* x, uint32_t count, float* result);
};

// Only those that this processor has may be used: see isa.hpp.
const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512vnni_kernels();
const Kernels& amx_kernels();
const Kernels& neondot_kernels();
const Kernels& neoni8mm_kernels();

}  // namespace moedge
