// The search of a block's scale, for any instruction set: a source file includes this and is compiled with its flags.
//
// Each lane of a vector works on a block of its own, from its first weight to its last. So no sum mixes lanes, and
// every instruction set, every order in memory and every cut between rows gives the same bits. Everything is in an
// anonymous namespace and nothing of the standard library is called: no code of one instruction set replaces another's.

#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.hpp"
#include "lanes.hpp"

namespace moedge::quantize {
namespace {

constexpr int kMaxBlock = 128;

template <int kBits>
constexpr float kTop = (1 << kBits) - 1;

// Integers without their zero point; not numbers stay so.
template <int kBits>
inline Floats integers(Floats weights, Floats inverse, Floats zero) {
  return rounded(clamped(weights * inverse, -zero, kTop<kBits> - zero));
}

constexpr int kCandidates = 5;

// Integer (negative side) that a block's largest weight is mapped to. On Gaussian weights in blocks of 32 these five
// reach 8.10 % relative error at 4 bits; forty candidates of both signs 8.08 %, round-to-nearest 9.69 %.
template <int kBits>
constexpr float kSymmetricLevels[kCandidates] = {7.0f, 7.6f, 8.0f, 8.4f, 9.0f};
template <>
constexpr float kSymmetricLevels<8>[kCandidates] = {127.3f, 127.7f, 128.0f, 128.4f, 129.0f};

// Part of a block's range that the integers span. Gaussian, 4 bits: 7.70 %; round-to-nearest 8.07 %.
template <int kBits>
constexpr float kAsymmetricRanges[kCandidates] = {1.03f, 0.97f, 0.92f, 0.87f, 0.80f};
template <>
constexpr float kAsymmetricRanges<8>[kCandidates] = {1.002f, 1.0f, 0.998f, 0.996f, 0.993f};

constexpr float kTiny = 1e-30f;

struct Proposal {
  Floats inverse[kCandidates], zero[kCandidates];
  Words plain;  // round-to-nearest's scale, in float16
  Floats plain_zero;
};

template <int kBits, bool kSymmetric>
inline Proposal propose(const Floats* weights, int size) {
  Floats highest = weights[0], lowest = weights[0];
  for (int i = 1; i < size; ++i) {
    highest = weights[i] > highest ? weights[i] : highest;
    lowest = weights[i] < lowest ? weights[i] : lowest;
  }
  Proposal made;
  if constexpr (kSymmetric) {
    constexpr float kHalf = 1 << (kBits - 1);
    const Floats largest = highest > -lowest ? highest : lowest;
    const Floats away = -inverse_of(largest);
    for (int c = 0; c < kCandidates; ++c) {
      made.inverse[c] = away * kSymmetricLevels<kBits>[c];
      made.zero[c] = all(kHalf);
    }
    made.plain = to_half_bits((largest < 0.0f ? -largest : largest) / (kHalf - 1));
    made.plain_zero = all(kHalf);
  } else {
    highest = highest < 0.0f ? all(0.0f) : highest;
    lowest = lowest > 0.0f ? all(0.0f) : lowest;
    const Floats range = (highest - lowest) / kTop<kBits>;
    const Floats step = range < kTiny ? all(kTiny) : range;
    const Floats middle = (highest + lowest) / 2.0f;
    for (int c = 0; c < kCandidates; ++c) {
      const Floats scale = step * kAsymmetricRanges<kBits>[c];
      made.inverse[c] = 1.0f / scale;
      made.zero[c] = rounded(clamped(kTop<kBits> / 2 - middle / scale, all(0.0f), all(kTop<kBits>)));
    }
    made.plain = to_half_bits(step);
    const Floats inverse = inverse_of(from_half_bits(made.plain));
    made.plain_zero = rounded(clamped(-lowest * inverse, all(0.0f), all(kTop<kBits>)));
  }
  return made;
}

struct Found {
  Floats scale, zero;
};

// A candidate takes weights w to integers q = w/s − r. The best scale for these integers is the least-squares one,
// Σwq/Σq² = s(1 + Σrq/Σq²), and it leaves the error s²(Σr² − (Σrq)²/Σq²). That equals Σw² − (Σwq)²/Σq², in which at 8
// bits the error is lost beside Σw²: in float32, another order of summing gave other integers to a fifth of the weights
// (uniform from 5 to 6, blocks of 128).
template <int kBits>
inline Found search(const Floats* weights, int size, const Proposal& proposal) {
  Found found = {all(0.0f), proposal.zero[0]};
  Floats best = all(__builtin_inff());
  for (int c = 0; c < kCandidates; ++c) {
    const Floats inverse = proposal.inverse[c], zero = proposal.zero[c];
    Floats rest_square = all(0.0f), rest_dot = all(0.0f), square = all(0.0f);
    for (int i = 0; i < size; ++i) {
      const Floats scaled = weights[i] * inverse;
      const Floats integer = rounded(clamped(scaled, -zero, kTop<kBits> - zero));
      const Floats rest = scaled - integer;
      rest_square += rest * rest;
      rest_dot += rest * integer;
      square += integer * integer;
    }
    const Floats scale = inverse_of(inverse), change = rest_dot / (square < kTiny ? all(kTiny) : square);
    const Floats error = (rest_square - rest_dot * change) * (scale * scale);
    const Mask better = error < best;
    best = better ? error : best;
    found.scale = better ? scale + scale * change : found.scale;
    found.zero = better ? zero : found.zero;
  }
  return found;
}

template <int kBits>
inline Floats error_of(const Floats* weights, int size, Floats scale, Floats zero) {
  const Floats inverse = inverse_of(scale);
  Floats sum = all(0.0f);
  for (int i = 0; i < size; ++i) {
    const Floats error = integers<kBits>(weights[i], inverse, zero) * scale - weights[i];
    sum += error * error;
  }
  return sum;
}

// A block for each lane, as it is stored.
struct Encoded {
  Words packed[kMaxBlock / 4], scale, zero_point;
  Floats weight, error, error_absmax;
};

// The low bits of integers from 0 to 255.
inline Words bits_of(Floats integers) { return (Words)(integers + 8388608.0f) & 0xFFu; }

template <int kBits, bool kSymmetric>
void encode(const Floats* weights, int size, Encoded& result) {
  const Proposal proposal = propose<kBits, kSymmetric>(weights, size);
  const Found found = search<kBits>(weights, size, proposal);
  const Words searched = to_half_bits(found.scale);
  const Floats error = error_of<kBits>(weights, size, from_half_bits(searched), found.zero);
  const Floats plain_error = error_of<kBits>(weights, size, from_half_bits(proposal.plain), proposal.plain_zero);
  const Mask kept = plain_error >= error;  // false if one of them is not a number
  result.scale = kept ? searched : proposal.plain;
  result.error = kept ? error : plain_error;
  result.error_absmax = plain_error;
  const Floats zero = kept ? found.zero : proposal.plain_zero;
  result.zero_point = bits_of(zero);
  const Floats inverse = inverse_of(from_half_bits(result.scale));
  constexpr int kPerWord = 32 / kBits;
  Floats squares = all(0.0f);
  for (int word = 0; word < size / kPerWord; ++word) {
    Words packed = {};
    for (int place = 0; place < kPerWord; ++place) {
      const Floats weight = weights[word * kPerWord + place];
      packed |= bits_of(integers<kBits>(weight, inverse, zero) + zero) << (place * kBits);
      squares += weight * weight;
    }
    result.packed[word] = packed;
  }
  result.weight = squares;
}

inline Floats widened(const float* values, std::uint64_t count) {
  Floats result = {};
  if (count >= kLanes) count = kLanes;
  std::memcpy(&result, values, count * sizeof *values);
  return result;
}

inline Words widened(const std::uint16_t* values, std::uint64_t count) {
  Halves result = {};
  if (count >= kLanes) {
    std::memcpy(&result, values, sizeof result);
  } else {
    std::memcpy(&result, values, count * sizeof *values);
  }
  return __builtin_convertvector(result, Words);
}

// Up to a vector of weights from the element `index` on; zeros behind `count`.
template <moedge_float_type kType>
inline Floats loaded(const void* weights, std::uint64_t index, std::uint64_t count) {
  if constexpr (kType == MOEDGE_FLOAT32) return widened(static_cast<const float*>(weights) + index, count);
  const Words bits = widened(static_cast<const std::uint16_t*>(weights) + index, count);
  return kType == MOEDGE_FLOAT16 ? from_half_bits(bits) : (Floats)(bits << 16);
}

// Weights of kRows rows' blocks, a row in each lane. With the inputs outermost a cache line holds 32 rows of two bytes.
constexpr int kRows = 32;
constexpr int kVectors = kRows / kLanes;
using Tile = Floats[kVectors][kMaxBlock];

// Block `block` of the rows from `row` on; zeros where the matrix ends.
template <moedge_float_type kType>
void load(const moedge_quantize_matrix& matrix, std::uint64_t row, std::uint64_t block, Tile& tile) {
  const std::uint64_t size = matrix.block_size, first = block * size;
  const std::uint64_t rows = matrix.rows - row, inputs = matrix.inputs - first;
  const std::uint64_t start = row * matrix.row_stride + first * matrix.input_stride;
  const auto weights = [&](bool inside, std::uint64_t offset, std::uint64_t count) {
    return inside ? loaded<kType>(matrix.weights, start + offset, count) : all(0.0f);
  };
  if (matrix.row_stride == 1) {
    for (std::uint64_t i = 0; i < size; ++i) {
      // The next block: a page or more away, where processors do not look ahead.
      const std::uint64_t ahead = i + size < inputs ? start + (i + size) * matrix.input_stride : start;
      __builtin_prefetch(static_cast<const char*>(matrix.weights) + ahead * (kType == MOEDGE_FLOAT32 ? 4 : 2));
      for (std::uint64_t v = 0; v < kVectors; ++v) {
        const std::uint64_t lane = v * kLanes;
        tile[v][i] = weights(i < inputs && lane < rows, i * matrix.input_stride + lane, rows - lane);
      }
    }
    return;
  }
  for (std::uint64_t v = 0; v < kVectors; ++v) {
    for (std::uint64_t i = 0; i < size; i += kLanes) {
      Floats square[kLanes];
      for (std::uint64_t lane = 0; lane < kLanes; ++lane) {
        const std::uint64_t from = v * kLanes + lane;
        square[lane] = weights(from < rows && i < inputs, from * matrix.row_stride + i, inputs - i);
      }
      for (int j = 0; j < kLanes; ++j) {
        for (int lane = 0; lane < kLanes; ++lane) tile[v][i + j][lane] = square[lane][j];
      }
    }
  }
}

inline void store(const Encoded& encoded, const moedge_quantize_matrix& matrix, std::uint64_t row, std::uint64_t block,
                  std::uint64_t blocks, int lanes) {
  const int words = static_cast<int>(matrix.block_size * matrix.bits / 32);
  for (int lane = 0; lane < lanes; ++lane) {
    const std::uint64_t place = (row + lane) * blocks + block;
    matrix.scale[place] = static_cast<std::uint16_t>(encoded.scale[lane]);
    if (!matrix.symmetric) matrix.zero_point[place] = static_cast<std::uint8_t>(encoded.zero_point[lane]);
    std::uint32_t packed[kMaxBlock / 4];
    for (int word = 0; word < words; ++word) packed[word] = encoded.packed[word][lane];
    std::memcpy(matrix.weight + place * words * 4, packed, words * 4);
  }
}

// Sums run over the blocks of a row, then over the rows.
void quantize_matrix(const moedge_quantize_matrix& matrix, moedge_quantize_sums& sums) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed words are stored as they are");
  const auto load_block = matrix.type == MOEDGE_FLOAT32   ? load<MOEDGE_FLOAT32>
                          : matrix.type == MOEDGE_FLOAT16 ? load<MOEDGE_FLOAT16>
                                                          : load<MOEDGE_BFLOAT16>;
  const auto encode_block = matrix.bits == 4 ? (matrix.symmetric ? encode<4, true> : encode<4, false>)
                                             : (matrix.symmetric ? encode<8, true> : encode<8, false>);
  const std::uint64_t blocks = (matrix.inputs + matrix.block_size - 1) / matrix.block_size;
  sums = {};
  for (std::uint64_t row = 0; row < matrix.rows; row += kRows) {
    const int rows = static_cast<int>(matrix.rows - row < kRows ? matrix.rows - row : kRows);
    moedge_quantize_sums of_row[kRows] = {};
    for (std::uint64_t block = 0; block < blocks; ++block) {
      Tile tile;
      load_block(matrix, row, block, tile);
      for (int v = 0; v * kLanes < rows; ++v) {
        const int lanes = rows - v * kLanes < kLanes ? rows - v * kLanes : kLanes;
        Encoded encoded;
        encode_block(tile[v], static_cast<int>(matrix.block_size), encoded);
        store(encoded, matrix, row + v * kLanes, block, blocks, lanes);
        for (int lane = 0; lane < lanes; ++lane) {
          moedge_quantize_sums& of = of_row[v * kLanes + lane];
          of.weight += static_cast<double>(encoded.weight[lane]);
          of.error += static_cast<double>(encoded.error[lane]);
          of.error_absmax += static_cast<double>(encoded.error_absmax[lane]);
        }
      }
    }
    for (int of = 0; of < rows; ++of) {
      sums.weight += of_row[of].weight;
      sums.error += of_row[of].error;
      sums.error_absmax += of_row[of].error_absmax;
    }
  }
}

void to_half(const float* values, std::uint16_t* halves, std::uint64_t count) {
  for (std::uint64_t index = 0; index < count; index += kLanes) {
    const Words bits = to_half_bits(widened(values + index, count - index));
    for (std::uint64_t lane = 0; lane < kLanes && index + lane < count; ++lane) {
      halves[index + lane] = static_cast<std::uint16_t>(bits[lane]);
    }
  }
}

}  // namespace
}  // namespace moedge::quantize
