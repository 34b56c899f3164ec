// The C interface of the vision tower.
#include <memory>

#include "api_support.hpp"
#include "vision.hpp"

struct moedge_vision {
  moedge::Vision vision;
};

namespace {

using moedge::CoreError;
using moedge::guarded;
using moedge::present;
using moedge::within;

constexpr uint64_t kMostPatches = 1 << 20;

moedge::VisionShape shape_of(const moedge_vision_options& options) {
  constexpr uint64_t kMost = 1 << 16;
  within("blocks", options.blocks, 1, 1024);
  within("hidden_size", options.hidden_size, 1, kMost);
  within("heads", options.heads, 1, 4096);
  within("intermediate_size", options.intermediate_size, 1, kMost);
  within("patch_values", options.patch_values, 1, kMost);
  within("positions", options.positions, 1, 1 << 20);
  within("merge", options.merge, 1, 64);
  within("features", options.features, 1, kMost);
  within("taps", options.taps, 0, options.blocks);
  if (options.hidden_size % (2 * options.heads) != 0) {
    throw CoreError(MOEDGE_BAD_OPTION, "hidden_size=" + moedge::grouped(options.hidden_size) + " with heads=" +
                                           moedge::grouped(options.heads) + "; heads of an even size are possible");
  }
  moedge::VisionShape shape;
  shape.depth = options.blocks;
  shape.hidden = options.hidden_size;
  shape.heads = options.heads;
  shape.intermediate = options.intermediate_size;
  shape.patch_values = options.patch_values;
  shape.positions = options.positions;
  shape.merge = options.merge;
  shape.features = options.features;
  shape.taps = options.taps;
  shape.tanh = options.gelu_tanh != 0;
  shape.resident = options.resident != 0;
  shape.quantization = moedge::quantization_of(options.bits, options.block_size, options.symmetric);
  return shape;
}

std::unique_ptr<moedge_vision> make(const moedge_vision_options& options, const moedge_core* core) {
  moedge::same_abi(options.abi);
  const moedge::VisionShape shape = shape_of(options);
  if (!(options.epsilon >= 0)) throw CoreError(MOEDGE_BAD_OPTION, "epsilon is below 0");
  if (core == nullptr) within("threads", options.threads, 1, 64);
  auto pool = core != nullptr ? core->core.pool() : std::make_shared<moedge::ThreadPool>(options.threads);
  const moedge::Kernels& kernels = core != nullptr ? core->core.kernels() : moedge::kernels_for(options.isa);
  return std::unique_ptr<moedge_vision>(
      new moedge_vision{moedge::Vision(shape, options.epsilon, kernels, std::move(pool))});
}

void check(const moedge_vision_picture& picture) {
  if (picture.patches > kMostPatches) {
    throw CoreError(MOEDGE_BAD_INPUT, moedge::grouped(picture.patches) + " patches in one picture; 1 to " +
                                          moedge::grouped(kMostPatches) + " are possible");
  }
  present("hidden", picture.hidden);
  present("cos", picture.cos);
  present("sin", picture.sin);
  present("memory", picture.memory);
}

}  // namespace

extern "C" {

MOEDGE_EXPORT moedge_status moedge_vision_open(const moedge_vision_options* options, const moedge_core* core,
                                               moedge_vision** vision, moedge_error* error) {
  return guarded(error, [&] { *vision = make(*options, core).release(); });
}

MOEDGE_EXPORT void moedge_vision_close(moedge_vision* vision) { delete vision; }

MOEDGE_EXPORT moedge_status moedge_vision_load_patches(moedge_vision* vision, const moedge_matrix* matrix,
                                                       const float* positions, moedge_error* error) {
  return guarded(error, [&] { vision->vision.load_patches(*matrix, positions); });
}

MOEDGE_EXPORT moedge_status moedge_vision_load_block(moedge_vision* vision, uint32_t block,
                                                     const moedge_vision_block_weights* weights, moedge_error* error) {
  return guarded(error, [&] { vision->vision.load_block(block, *weights); });
}

MOEDGE_EXPORT moedge_status moedge_vision_load_merger(moedge_vision* vision, uint32_t merger,
                                                      const moedge_vision_merger_weights* weights,
                                                      moedge_error* error) {
  return guarded(error, [&] { vision->vision.load_merger(merger, *weights); });
}

MOEDGE_EXPORT moedge_status moedge_vision_embed(moedge_vision* vision, const moedge_vision_picture* picture,
                                                const float* pixels, const uint32_t* corners, const float* shares,
                                                moedge_error* error) {
  return guarded(error, [&] {
    check(*picture);
    present("pixels", pixels);
    present("corners", corners);
    present("shares", shares);
    vision->vision.embed(*picture, pixels, corners, shares);
  });
}

MOEDGE_EXPORT moedge_status moedge_vision_block(moedge_vision* vision, const moedge_vision_picture* picture,
                                                uint32_t block, moedge_error* error) {
  return guarded(error, [&] {
    check(*picture);
    vision->vision.run_block(*picture, block);
  });
}

MOEDGE_EXPORT moedge_status moedge_vision_merge(moedge_vision* vision, const moedge_vision_picture* picture,
                                                uint32_t merger, float* features, moedge_error* error) {
  return guarded(error, [&] {
    check(*picture);
    present("features", features);
    vision->vision.merge(*picture, merger, features);
  });
}

MOEDGE_EXPORT void moedge_vision_bytes(const moedge_vision* vision, uint32_t patches, uint64_t* weights,
                                       uint64_t* buffers, uint64_t* memory) {
  *weights = vision->vision.weight_bytes();
  *buffers = vision->vision.buffer_bytes();
  *memory = vision->vision.picture_bytes(patches);
}

}  // extern "C"
