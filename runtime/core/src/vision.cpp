#include "vision.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "isa.hpp"
#include "product.hpp"
#include "status.hpp"
#include "weight_loader.hpp"

namespace moedge {
namespace {

constexpr uint64_t kBufferAlignment = 4096;

CoreError bad_input(const std::string& problem) { return {MOEDGE_BAD_INPUT, problem}; }

}  // namespace

Vision::Vision(VisionShape shape, float epsilon, const Kernels& kernels, std::shared_ptr<ThreadPool> pool)
    : shape_(shape),
      epsilon_(epsilon),
      kernels_(kernels),
      dense_(dense_kernels_beside(kernels)),
      pool_(std::move(pool)),
      layout_(VisionLayout::make(shape_)),
      scratch_bytes_(
          aligned((shape_.merged() + AttentionScratch::floats(kQueriesOfTask, shape_.head_dim())) * sizeof(float),
                  kBufferAlignment)),
      weights_(layout_.bytes),
      memory_(buffer_bytes()),
      loaded_(layout_.blocks.size() + layout_.mergers.size() + 1),
      phases_(*pool_) {
  weights_.take({{0, layout_.bytes}});
  memory_.take({{0, buffer_bytes()}});
}

// --- weights ---------------------------------------------------------------------------------------------------------

void Vision::load_patches(const moedge_matrix& matrix, const float* positions) {
  uint32_t& loaded = begin_load(loaded_.size() - 1, 0, "the product of the patches");
  const WeightLoader load{weights_.data(), "the patches"};
  load.matrix(matrix, shape_.hidden, shape_.patch_values, false, shape_.quantization, layout_.patches.matrix, "proj");
  load.vector(matrix.bias, shape_.hidden, layout_.patches.bias, "proj.bias");
  load.vector(positions, uint64_t{shape_.positions} * shape_.hidden, layout_.positions, "positions");
  loaded = 1;
}

void Vision::load_block(uint32_t block, const moedge_vision_block_weights& weights) {
  const uint32_t place = block_place(block);
  const std::string name = "block " + grouped(block);
  uint32_t& loaded = begin_load(place, block, name);
  const WeightLoader load{weights_.data(), name};
  const VisionBlockLayout& to = layout_.blocks[place];
  const uint32_t hidden = shape_.hidden;
  const auto linear = [&](const moedge_matrix& from, uint32_t rows, uint32_t inputs, const Linear& into,
                          const std::string& part) {
    load.matrix(from, rows, inputs, false, shape_.quantization, into.matrix, part.c_str());
    load.vector(from.bias, rows, into.bias, (part + ".bias").c_str());
  };
  load.vector(weights.input_norm, hidden, to.input_norm.weight, "input_norm");
  load.vector(weights.input_norm_bias, hidden, to.input_norm.bias, "input_norm_bias");
  load.vector(weights.post_norm, hidden, to.post_norm.weight, "post_norm");
  load.vector(weights.post_norm_bias, hidden, to.post_norm.bias, "post_norm_bias");
  linear(weights.qkv, 3 * hidden, hidden, to.qkv, "qkv");
  linear(weights.output, hidden, hidden, to.output, "output");
  linear(weights.up, shape_.intermediate, hidden, to.up, "up");
  linear(weights.down, hidden, shape_.intermediate, to.down, "down");
  loaded = block + 1;
}

void Vision::load_merger(uint32_t merger, const moedge_vision_merger_weights& weights) {
  const uint32_t place = merger_place(merger);
  const std::string name = "merger " + grouped(merger);
  uint32_t& loaded = begin_load(layout_.blocks.size() + place, merger, name);
  const WeightLoader load{weights_.data(), name};
  const VisionMergerLayout& to = layout_.mergers[place];
  const uint32_t normed = merger < shape_.taps ? shape_.merged() : shape_.hidden;
  load.vector(weights.norm, normed, to.norm.weight, "norm");
  load.vector(weights.norm_bias, normed, to.norm.bias, "norm_bias");
  load.matrix(weights.up, shape_.merged(), shape_.merged(), false, shape_.quantization, to.up.matrix, "up");
  load.vector(weights.up.bias, shape_.merged(), to.up.bias, "up.bias");
  load.matrix(weights.down, shape_.features, shape_.merged(), false, shape_.quantization, to.down.matrix, "down");
  load.vector(weights.down.bias, shape_.features, to.down.bias, "down.bias");
  loaded = merger + 1;
}

uint32_t Vision::block_place(uint32_t block) const {
  if (block >= shape_.depth) {
    throw bad_input("block " + grouped(block) + " does not exist; there are " + grouped(shape_.depth));
  }
  return block % shape_.block_places();
}

uint32_t Vision::merger_place(uint32_t merger) const {
  if (merger >= shape_.mergers()) {
    throw bad_input("merger " + grouped(merger) + " does not exist; there are " + grouped(shape_.mergers()));
  }
  return merger % shape_.merger_places();
}

// Nobody is in the place until all of the new weights are.
uint32_t& Vision::begin_load(size_t place, uint32_t index, const std::string& name) {
  uint32_t& loaded = loaded_[place];
  if (loaded == index + 1) throw bad_input(name + " has its weights already");
  loaded = 0;
  return loaded;
}

void Vision::check_loaded(size_t place, uint32_t index, const std::string& name) const {
  if (loaded_[place] != index + 1) throw bad_input(name + " has no weights yet");
}

// --- a picture -------------------------------------------------------------------------------------------------------

// Of a patch: the largest activation row that it has a part in.
uint64_t Vision::row_bytes() const {
  const auto row = [&](uint32_t inputs) { return uint64_t{activation_row_bytes(inputs, shape_.quantization)}; };
  return std::max({row(shape_.patch_values), row(shape_.hidden), row(shape_.intermediate),
                   row(shape_.merged()) / shape_.merge + 1});
}

uint64_t Vision::picture_bytes(uint32_t patches) const {
  const uint64_t floats = std::max(3 * shape_.hidden, shape_.intermediate);
  return aligned(patches * row_bytes(), kBufferAlignment) + aligned(patches * floats * sizeof(float), kBufferAlignment);
}

Vision::Picture Vision::open(const moedge_vision_picture& picture) const {
  const uint32_t frame = picture.frames > 0 ? picture.patches / picture.frames : 0;
  if (frame == 0 || picture.patches % picture.frames != 0 || frame % shape_.merge != 0) {
    throw bad_input(grouped(picture.patches) + " patches in " + grouped(picture.frames) +
                    " frames; as many in each, in image tokens of " + grouped(shape_.merge) + ", are possible");
  }
  Picture own{};
  own.patches = picture.patches;
  own.of_frame = frame;
  own.rows = static_cast<uint8_t*>(picture.memory);
  own.queries = reinterpret_cast<float*>(own.rows + aligned(picture.patches * row_bytes(), kBufferAlignment));
  own.keys = own.queries + size_t{picture.patches} * shape_.hidden;
  own.values = own.keys + size_t{picture.patches} * shape_.hidden;
  own.activated = own.queries;
  return own;
}

void Vision::embed(const moedge_vision_picture& picture, const float* pixels, const uint32_t* corners,
                   const float* shares) {
  const Picture own = open(picture);
  check_loaded(loaded_.size() - 1, 0, "the product of the patches");
  for (uint64_t i = 0; i < uint64_t{picture.patches} * kCorners; ++i) {
    if (corners[i] >= shape_.positions) {
      throw bad_input("position " + grouped(corners[i]) + " does not exist; there are " + grouped(shape_.positions));
    }
  }
  const float* positions = vector(layout_.positions);
  const auto add = [&, positions](uint32_t patch, uint32_t first, const float* values, const float* bias,
                                  uint32_t count) {
    float* to = picture.hidden + size_t{patch} * shape_.hidden + first;
    for (uint32_t i = 0; i < count; ++i) {
      float position = 0.0F;
      for (uint32_t c = 0; c < kCorners; ++c) {
        const size_t corner = size_t{patch} * kCorners + c;
        position += positions[size_t{corners[corner]} * shape_.hidden + first + i] * shares[corner];
      }
      to[i] = values[i] + bias[i] + position;
    }
  };
  run(std::array{
      quantize(pixels, picture.patches, shape_.patch_values, own.rows),
      product(layout_.patches, picture.patches, shape_.patch_values, shape_.hidden, own.rows, add),
  });
}

void Vision::run_block(const moedge_vision_picture& picture, uint32_t block) {
  const Picture own = open(picture);
  const uint32_t place = block_place(block);
  check_loaded(place, block, "block " + grouped(block));
  const VisionBlockLayout& layer = layout_.blocks[place];
  const uint32_t patches = own.patches;
  const uint32_t hidden = shape_.hidden;
  const auto split_heads = [&](uint32_t patch, uint32_t first, const float* values, const float* bias, uint32_t count) {
    split(own, patch, first, values, bias, count);
  };
  const auto add = [&](uint32_t patch, uint32_t first, const float* values, const float* bias, uint32_t count) {
    float* to = picture.hidden + size_t{patch} * hidden + first;
    for (uint32_t i = 0; i < count; ++i) to[i] += values[i] + bias[i];
  };
  const auto activate = [&](uint32_t patch, uint32_t first, const float* values, const float* bias, uint32_t count) {
    float* to = own.activated + size_t{patch} * shape_.intermediate + first;
    shape_.tanh ? dense_.gelu_tanh(values, bias, count, to) : dense_.gelu(values, bias, count, to);
  };
  const auto rotate_group = [&](uint32_t task, uint32_t) {
    const uint32_t end = std::min(patches, (task + 1) * kTokensOfTask);
    for (uint32_t patch = task * kTokensOfTask; patch < end; ++patch) rotate(own, picture, patch);
  };
  const uint32_t blocks_of_queries = divide_up(own.of_frame, kQueriesOfTask);
  run(std::array{
      norm(picture.hidden, layer.input_norm, patches, hidden, hidden, own.rows),
      product(layer.qkv, patches, hidden, 3 * hidden, own.rows, split_heads),
      Part{divide_up(patches, kTokensOfTask), rotate_group},
      Part{picture.frames * shape_.heads * blocks_of_queries,
           [&](uint32_t task, uint32_t thread) { attend(own, task, thread); }},
      quantize(own.queries, patches, hidden, own.rows),
      product(layer.output, patches, hidden, hidden, own.rows, add),
      norm(picture.hidden, layer.post_norm, patches, hidden, hidden, own.rows),
      product(layer.up, patches, hidden, shape_.intermediate, own.rows, activate),
      quantize(own.activated, patches, shape_.intermediate, own.rows),
      product(layer.down, patches, shape_.intermediate, hidden, own.rows, add),
  });
}

void Vision::merge(const moedge_vision_picture& picture, uint32_t merger, float* features) {
  const Picture own = open(picture);
  const uint32_t place = merger_place(merger);
  check_loaded(layout_.blocks.size() + place, merger, "merger " + grouped(merger));
  const VisionMergerLayout& layer = layout_.mergers[place];
  const uint32_t tokens = own.patches / shape_.merge;
  const uint32_t merged = shape_.merged();
  const auto activate = [&](uint32_t token, uint32_t first, const float* values, const float* bias, uint32_t count) {
    dense_.gelu(values, bias, count, own.activated + size_t{token} * merged + first);
  };
  const auto put = [&](uint32_t token, uint32_t first, const float* values, const float* bias, uint32_t count) {
    float* to = features + size_t{token} * shape_.features + first;
    for (uint32_t i = 0; i < count; ++i) to[i] = values[i] + bias[i];
    if (!all_finite(to, count)) finite_.store(false, std::memory_order_relaxed);
  };
  run(std::array{
      norm(picture.hidden, layer.norm, tokens, merged, merger < shape_.taps ? merged : shape_.hidden, own.rows),
      product(layer.up, tokens, merged, merged, own.rows, activate),
      quantize(own.activated, tokens, merged, own.rows),
      product(layer.down, tokens, merged, shape_.features, own.rows, put),
  });
}

// --- steps -----------------------------------------------------------------------------------------------------------

void Vision::run(std::span<const Part> parts) {
  finite_.store(true, std::memory_order_relaxed);
  std::vector<uint32_t> counts;
  for (const Part& part : parts) counts.push_back(part.tasks);
  phases_.run(counts, [&](uint32_t phase, uint32_t task, uint32_t thread) { parts[phase].step(task, thread); });
  if (!finite_.load(std::memory_order_relaxed)) throw bad_input("an activation of the vision tower is not finite");
}

float* Vision::scratch(uint32_t thread) { return reinterpret_cast<float*>(memory_.data() + thread * scratch_bytes_); }

void Vision::make_row(const float* x, uint32_t count, uint8_t* row) {
  if (!moedge::make_row(kernels_, x, count, shape_.quantization, row)) finite_.store(false, std::memory_order_relaxed);
}

// Activation rows of `inputs` values, normalised `size` values at a time.
Vision::Part Vision::norm(const float* x, const Norm& weights, uint32_t count, uint32_t inputs, uint32_t size,
                          uint8_t* rows) {
  const auto step = [=, this, &weights](uint32_t task, uint32_t thread) {
    float* normed = scratch(thread);
    const size_t row = activation_row_bytes(inputs, shape_.quantization);
    const uint32_t end = std::min(count, (task + 1) * kTokensOfTask);
    for (uint32_t token = task * kTokensOfTask; token < end; ++token) {
      for (uint32_t first = 0; first < inputs; first += size) {
        dense_.layer_norm(x + size_t{token} * inputs + first, vector(weights.weight), vector(weights.bias), size,
                          epsilon_, normed + first);
      }
      make_row(normed, inputs, rows + token * row);
    }
  };
  return {divide_up(count, kTokensOfTask), step};
}

Vision::Part Vision::quantize(const float* x, uint32_t count, uint32_t inputs, uint8_t* rows) {
  const auto step = [=, this](uint32_t task, uint32_t) {
    const size_t row = activation_row_bytes(inputs, shape_.quantization);
    const uint32_t end = std::min(count, (task + 1) * kTokensOfTask);
    for (uint32_t token = task * kTokensOfTask; token < end; ++token) {
      make_row(x + size_t{token} * inputs, inputs, rows + token * row);
    }
  };
  return {divide_up(count, kTokensOfTask), step};
}

// use(token, first, values, bias, n) gets n products and the biases to add, from output `first` on.
template <class Use>
Vision::Part Vision::product(const Linear& linear, uint32_t count, uint32_t inputs, uint32_t outputs,
                             const uint8_t* rows, const Use& use) {
  const auto step = [=, this, &linear, &use](uint32_t task, uint32_t) {
    const size_t row = activation_row_bytes(inputs, shape_.quantization);
    const float* bias = vector(linear.bias);
    multiply(
        kernels_, weights_.data(), linear.matrix, shape_.quantization, count, task,
        [&](uint32_t token) { return rows + token * row; },
        [&](uint32_t tile, uint32_t token, const float* values) {
          const uint32_t first = tile * kTileRows;
          const uint32_t n = std::min(kTileRows, outputs - first);
          use(token, first, values, bias + first, n);
        });
  };
  return {tasks_of(linear.matrix), step};
}

// Outputs of the product of queries, keys and values, from `first` on, to their places.
void Vision::split(const Picture& own, uint32_t patch, uint32_t first, const float* values, const float* bias,
                   uint32_t count) const {
  const uint32_t hidden = shape_.hidden;
  const uint32_t size = shape_.head_dim();
  for (uint32_t end = first + count; first < end;) {
    const uint32_t within = first % hidden;
    const uint32_t run = std::min(end - first, size - within % size);  // of one head
    float* to = own.queries + size_t{patch} * hidden + within;
    if (first >= hidden) {
      float* all = first < 2 * hidden ? own.keys : own.values;
      to = all + (size_t{within / size} * own.patches + patch) * size + within % size;
    }
    for (uint32_t i = 0; i < run; ++i) to[i] = values[i] + bias[i];
    values += run;
    bias += run;
    first += run;
  }
}

void Vision::rotate(const Picture& own, const moedge_vision_picture& picture, uint32_t patch) const {
  const uint32_t size = shape_.head_dim();
  const uint32_t half = size / 2;
  const float* cos = picture.cos + size_t{patch} * half;
  const float* sin = picture.sin + size_t{patch} * half;
  const float factor = 1.0F / std::sqrt(static_cast<float>(size));
  for (uint32_t head = 0; head < shape_.heads; ++head) {
    dense_.rotate(own.queries + size_t{patch} * shape_.hidden + size_t{head} * size, cos, sin, half, factor);
    dense_.rotate(own.keys + (size_t{head} * own.patches + patch) * size, cos, sin, half, 1.0F);
  }
}

// Some queries of a frame over all of its keys; the result takes their place.
void Vision::attend(const Picture& own, uint32_t task, uint32_t thread) {
  const uint32_t size = shape_.head_dim();
  const uint32_t blocks = divide_up(own.of_frame, kQueriesOfTask);
  const uint32_t head = task / blocks % shape_.heads;
  const uint32_t frame = task / blocks / shape_.heads * own.of_frame;
  const uint32_t begin = task % blocks * kQueriesOfTask;
  const uint32_t queries = std::min(kQueriesOfTask, own.of_frame - begin);
  const uint32_t lanes = lanes_of(queries);
  const AttentionScratch scratch(this->scratch(thread) + shape_.merged(), kQueriesOfTask, size);
  float* first = own.queries + size_t{frame + begin} * shape_.hidden + size_t{head} * size;
  for (uint32_t d = 0; d < size; ++d) {
    float* row = scratch.queries + size_t{d} * lanes;
    for (uint32_t lane = 0; lane < queries; ++lane) row[lane] = first[size_t{lane} * shape_.hidden + d];
    std::fill(row + queries, row + lanes, 0.0F);
  }
  const size_t at = (size_t{head} * own.patches + frame) * size;
  const auto all_seen = [](uint32_t, uint32_t) -> const uint32_t* { return nullptr; };
  const Attended all = attend_all(dense_, scratch, lanes, size, own.keys + at, own.values + at, own.of_frame, all_seen);
  for (uint32_t lane = 0; lane < queries; ++lane) {
    float* to = first + size_t{lane} * shape_.hidden;
    for (uint32_t d = 0; d < size; ++d) to[d] = all.mixed[size_t{d} * lanes + lane];
  }
}

}  // namespace moedge
