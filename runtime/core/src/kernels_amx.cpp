// AMX: an instruction multiplies up to sixteen activation rows with sixteen weight rows over 64 inputs. A 64-byte chunk
// of a record is a row of its right operand as it is; 4-bit weights are unpacked first. Few rows, and blocks of 32,
// which would fill half of an operand, are left to AVX-512.
#include "kernels_avx512vnni.hpp"

namespace moedge {
namespace {

struct Amx : Avx512Vnni {
  static constexpr int kMaxRows = 32;
};

// From so many activation rows on tiles are faster than AVX-512.
constexpr int kFewestRows = 4;
// Activation rows of a tile register, weight rows of another, and what both share.
constexpr int kRowsOfTile = 16;
constexpr int kStep = 64;
constexpr int kStepRows = kStep / 4;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // gcc takes registers as literals only. 0 to 3: the sums of a group of activation rows with a half of the weights,
  // 4 and 5: inputs of a group, 6 and 7: weights of a half.
  TileConfig(int first, int second) {
    for (const int tile : {0, 1, 4}) set(tile, first);
    for (const int tile : {2, 3, 5}) set(tile, second);
    for (const int tile : {6, 7}) set(tile, kStepRows);
  }

  void set(int tile, int count) {
    rows[tile] = static_cast<uint8_t>(count);
    row_bytes[tile] = count > 0 ? 64 : 0;
  }
};
static_assert(sizeof(TileConfig) == 64);

// Tile instructions read memory that gcc does not know them to read.
inline void written() { asm volatile("" ::: "memory"); }

// A step's weights of one half: rows of four inputs of sixteen weight rows.
inline void unpack(const uint8_t* weight, uint8_t* out) {
  for (int row = 0; row < kStepRows; row += 2, weight += 128) {
    const __m512i packed = Amx::load(weight);
    _mm512_store_si512(out + row * 64, Amx::low_nibbles(packed));
    _mm512_store_si512(out + row * 64 + 64, Amx::high_nibbles(packed));
  }
}

// A TileKernel for `rows` activation rows, in kGroups groups.
template <int kBits, bool kSymmetric, int kBlock, int kGroups>
[[gnu::noinline]] void multiply_tile(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t blocks,
                                     const uint8_t* const* x, float* out, int rows) {
  using V = Amx;
  constexpr int kSteps = kBlock / kStep;
  constexpr int kStepBytes = kStep * kTileRows * kBits / 8;
  // What vector instructions write for tile instructions, and these for those, is read a block later: it is in the
  // cache then, and neither waits for the other.
  struct Staged {
    alignas(64) uint8_t inputs[kSteps][kGroups * kRowsOfTile * kStep];
    alignas(64) uint8_t weights[kBits == 4 ? kSteps : 1][2][kStepRows * 64];
    alignas(64) int32_t products[2][kGroups * kRowsOfTile * kHalfRows];
  };
  Staged staged[2];

  // Rows at equal distances are read where they are.
  const ptrdiff_t distance = x[1] - x[0];
  bool equal = true;
  for (int t = 2; t < rows; ++t) equal &= x[t] - x[t - 1] == distance;

  const auto stage = [&](uint32_t block) {
    Staged& to = staged[block % 2];
    for (int step = 0; step < kSteps; ++step) {
      if (!equal) {
        const size_t at = size_t{block} * kBlock + step * kStep;
        for (int t = 0; t < rows; ++t) std::memcpy(to.inputs[step] + t * kStep, x[t] + at, kStep);
      }
      if constexpr (kBits == 4) {
        const uint8_t* from = weight + (size_t{block} * kSteps + step) * kStepBytes;
        unpack(from, to.weights[step][0]);
        unpack(from + 64, to.weights[step][1]);
      }
    }
    written();
  };

  const auto multiply = [&](uint32_t block) {
    Staged& own = staged[block % 2];
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kGroups == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (kBits == 4) {
        _tile_loadd(6, own.weights[step][0], 64);
        _tile_loadd(7, own.weights[step][1], 64);
      } else {
        const uint8_t* from = weight + (size_t{block} * kSteps + step) * kStepBytes;
        _tile_loadd(6, from, 128);
        _tile_loadd(7, from + 64, 128);
      }
      const uint8_t* inputs = equal ? x[0] + size_t{block} * kBlock + step * kStep : own.inputs[step];
      const ptrdiff_t stride = equal ? distance : kStep;
      _tile_loadd(4, inputs, stride);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      if constexpr (kGroups == 2) {
        _tile_loadd(5, inputs + kRowsOfTile * stride, stride);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
    }
    constexpr int kRowBytes = kHalfRows * 4;
    _tile_stored(0, own.products[0], kRowBytes);
    _tile_stored(1, own.products[1], kRowBytes);
    if constexpr (kGroups == 2) {
      _tile_stored(2, own.products[0] + kRowsOfTile * kHalfRows, kRowBytes);
      _tile_stored(3, own.products[1] + kRowsOfTile * kHalfRows, kRowBytes);
    }
  };

  const auto add = [&](uint32_t block) {
    const Staged& own = staged[block % 2];
    const size_t terms = size_t{blocks} * kBlock + block * kTermBytes;
    const uint8_t* zeros = zero + size_t{block} * kTileRows * kBits / 8;
    V::F scales[2];
    V::I zero_points[2] = {V::zero_i(), V::zero_i()};
    for (int half = 0; half < 2; ++half) {
      scales[half] = V::load_halfs(scale + size_t{block} * kTileRows + half * kHalfRows);
      if constexpr (!kSymmetric) {
        zero_points[half] = kBits == 8 ? V::widen(zeros + half * kHalfRows)
                            : half     ? V::high_nibbles(V::widen(zeros))
                                       : V::low_nibbles(V::widen(zeros));
      }
    }
    for (int t = 0; t < rows; ++t) {
      const V::F row_scale = V::broadcast_f(x[t] + terms);
      const V::I correction = V::broadcast(x[t] + terms + 4);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const V::I products = _mm512_load_si512(own.products[half] + t * kHalfRows);
        const V::I exact = kSymmetric ? _mm512_add_epi32(products, correction)
                                      : V::subtract(products, V::multiply(zero_points[half], correction));
        float* sum = out + t * kTileRows + half * kHalfRows;
        V::store(sum, V::fused(V::to_float(exact), V::multiply(scales[half], row_scale), V::load_f(sum)));
      }
    }
  };

  const TileConfig config(kGroups == 1 ? rows : kRowsOfTile, kGroups == 1 ? 0 : rows - kRowsOfTile);
  written();
  _tile_loadconfig(&config);
  for (int i = 0; i < rows * 2; ++i) V::store(out + i * kHalfRows, V::zero_f());
  stage(0);
  for (uint32_t block = 0; block < blocks; ++block) {
    if (block + 1 < blocks) stage(block + 1);
    multiply(block);
    if (block > 0) add(block - 1);
  }
  add(blocks - 1);
  _tile_release();
}

template <int kBits, bool kSymmetric, int kBlock, int kRows>
struct TileProduct<Amx, kBits, kSymmetric, kBlock, kRows> {
  static void compute(const uint8_t* weight, const uint16_t* scale, const uint8_t* zero, uint32_t blocks,
                      const uint8_t* const* x, float* out) {
    constexpr int kPasses = (kRows + Avx512Vnni::kMaxRows - 1) / Avx512Vnni::kMaxRows;  // of AVX-512
    constexpr int kFirst = (kRows + kPasses - 1) / kPasses;
    if constexpr (kBlock >= kStep && kRows >= kFewestRows) {
      constexpr int kGroups = kRows <= kRowsOfTile ? 1 : 2;
      multiply_tile<kBits, kSymmetric, kBlock, kGroups>(weight, scale, zero, blocks, x, out, kRows);
    } else {
      TileProduct<Avx512Vnni, kBits, kSymmetric, kBlock, kFirst>::compute(weight, scale, zero, blocks, x, out);
      if constexpr (kPasses > 1) {
        TileProduct<Amx, kBits, kSymmetric, kBlock, kRows - kFirst>::compute(weight, scale, zero, blocks, x + kFirst,
                                                                             out + kFirst * kTileRows);
      }
    }
  }
};

}  // namespace

const Kernels& amx_kernels() {
  static constexpr Kernels kKernels = make_kernels<Amx>("amx");
  return kKernels;
}

}  // namespace moedge
