// NEON with the matrix instructions of i8mm: one smmla multiplies eight inputs of two weight rows with those of two
// activation rows, twice the work of a dot product. So activation rows go in pairs; one alone is left to dot products.
//
// Why it is worth having, though it was never timed: for a 4-bit block of 32 inputs and four weight rows gcc 12 makes
// 20 (four activation rows) to 23 (two) instructions an activation row, where dot products take 35. llvm-mca 19 puts
// that at 8 to 10 cycles against 12 on Neoverse N2, 4 to 5 against 6 on V1.
#include "kernels_neondot.hpp"

namespace moedge {
namespace {

struct NeonI8mm : NeonDot {
  static constexpr int kVectors = 2;
  static constexpr int kMaxRows = 4;  // with six, gcc 12 keeps sums in memory and gains nothing

  static I matrix_product(I acc, I weights, I inputs) {
    return vmmlaq_s32(acc, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(inputs));
  }
};

// Two chunks zipped hold two groups of four inputs of each of two weight rows; at 4 bits the low nibbles are the even
// groups of the chunks' sixteen inputs, the high ones the odd groups. The same groups of two activation rows make the
// other operand. Until the block's end a vector of sums is (weight row 0, 1) × (activation row 0, 1).
template <int kBits, bool kSymmetric, int kBlock, int kVectors, int kRows>
  requires(kRows > 1)
struct BlockSums<NeonI8mm, kBits, kSymmetric, kBlock, kVectors, kRows> {
  using V = NeonI8mm;
  using I = V::I;
  static constexpr int kPairs = (kRows + 1) / 2;
  static constexpr int kInputsOfStep = 64 / kBits;  // inputs of a row in two 64-byte chunks

  [[gnu::always_inline]] static void compute(const uint8_t* const (&weight)[kVectors],
                                             const uint8_t* const (&rows)[kRows], size_t at, size_t terms,
                                             I (&acc)[kVectors][kRows]) {
    I sum[kVectors][kPairs][2];
#pragma GCC unroll 2
    for (int pair = 0; pair < kPairs; ++pair) {
      I start = V::zero_i();
      if constexpr (kSymmetric) {
        start = vzip1q_s32(V::broadcast(row(rows, 2 * pair) + terms + 4),
                           V::broadcast(row(rows, 2 * pair + 1) + terms + 4));
      }
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[v][pair][0] = sum[v][pair][1] = start;
    }
#pragma GCC unroll 4
    for (int step = 0; step < kBlock / kInputsOfStep; ++step) {
      I zipped[kVectors][2];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const I first = V::load(weight[v] + step * 256);
        const I second = V::load(weight[v] + step * 256 + 128);
        zipped[v][0] = vzip1q_s32(first, second);
        zipped[v][1] = vzip2q_s32(first, second);
      }
#pragma GCC unroll 2
      for (int part = 0; part < 8 / kBits; ++part) {
        I values[kVectors][2];
#pragma GCC unroll 4
        for (int i = 0; i < kVectors * 2; ++i) {
          const I both = zipped[i / 2][i % 2];
          values[i / 2][i % 2] = kBits == 8 ? V::byte_weights(both)
                                 : part     ? V::high_nibbles(both)
                                            : V::low_nibbles(both);
        }
#pragma GCC unroll 2
        for (int pair = 0; pair < kPairs; ++pair) {
          const size_t input = at + step * kInputsOfStep;
          const I inputs = of_both(row(rows, 2 * pair) + input, row(rows, 2 * pair + 1) + input, part);
#pragma GCC unroll 4
          for (int i = 0; i < kVectors * 2; ++i) {
            I& of_two_rows = sum[i / 2][pair][i % 2];
            of_two_rows = V::matrix_product(of_two_rows, values[i / 2][i % 2], inputs);
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 4
      for (int t = 0; t < kRows; ++t) {
        const I(&pair)[2] = sum[v][t / 2];
        acc[v][t] = t % 2 ? vuzp2q_s32(pair[0], pair[1]) : vuzp1q_s32(pair[0], pair[1]);
      }
    }
  }

  // The last of an odd number of rows is its own partner.
  static const uint8_t* row(const uint8_t* const (&rows)[kRows], int index) {
    return rows[index < kRows ? index : kRows - 1];
  }

  // Eight inputs of two activation rows, those that the weights of `part` belong to.
  static I of_both(const uint8_t* a, const uint8_t* b, int part) {
    if constexpr (kBits == 8) return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(a), vld1_u8(b)));
    return part ? vuzp2q_s32(V::load(a), V::load(b)) : vuzp1q_s32(V::load(a), V::load(b));
  }
};

}  // namespace

const Kernels& neoni8mm_kernels() {
  static constexpr Kernels kKernels = make_kernels<NeonI8mm>("neoni8mm");
  return kKernels;
}

}  // namespace moedge
