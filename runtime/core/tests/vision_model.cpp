#include "vision_model.hpp"

#include <algorithm>
#include <cmath>

namespace moedge::test {
namespace {

StoredNorm make_norm(uint32_t count, Random& random) {
  StoredNorm norm;
  norm.weight = random.floats(count, 0.5F, 1.5F);
  norm.bias = random.floats(count, -0.3F, 0.3F);
  return norm;
}

using Rows = std::vector<std::vector<double>>;

std::vector<double> layer_norm(const std::vector<double>& x, const StoredNorm& norm, double epsilon) {
  const auto size = static_cast<double>(x.size());
  double mean = 0;
  double variance = 0;
  for (const double value : x) mean += value / size;
  for (const double value : x) variance += (value - mean) * (value - mean) / size;
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = (x[i] - mean) / std::sqrt(variance + epsilon) * norm.weight[i] + norm.bias[i];
  }
  return out;
}

double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

void rotate(double* x, size_t half, const float* cos, const float* sin) {
  for (size_t i = 0; i < half; ++i) {
    const double first = x[i];
    const double second = x[half + i];
    x[i] = first * cos[i] - second * sin[i];
    x[half + i] = second * cos[i] + first * sin[i];
  }
}

void add(std::vector<double>& to, const std::vector<double>& values) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += values[i];
}

// What each patch takes from the patches of its frame.
Rows attention(const VisionShape& shape, const VisionInput& input, Rows& projected) {
  const size_t size = shape.head_dim();
  const size_t half = size / 2;
  const size_t frame = input.patches / input.frames;
  Rows mixed(input.patches, std::vector<double>(shape.hidden));
  for (size_t patch = 0; patch < input.patches; ++patch) {
    for (size_t head = 0; head < 2 * shape.heads; ++head) {  // queries, then keys
      rotate(projected[patch].data() + head * size, half, &input.cos[patch * half], &input.sin[patch * half]);
    }
  }
  for (size_t patch = 0; patch < input.patches; ++patch) {
    const size_t begin = patch / frame * frame;
    for (size_t head = 0; head < shape.heads; ++head) {
      std::vector<double> weights;
      for (size_t key = begin; key < begin + frame; ++key) {
        double score = 0;
        for (size_t d = 0; d < size; ++d) {
          score += projected[patch][head * size + d] * projected[key][shape.hidden + head * size + d];
        }
        weights.push_back(score / std::sqrt(static_cast<double>(size)));
      }
      const double largest = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - largest);
      for (size_t key = 0; key < frame; ++key) {
        for (size_t d = 0; d < size; ++d) {
          mixed[patch][head * size + d] +=
              weights[key] / sum * projected[begin + key][2 * shape.hidden + head * size + d];
        }
      }
    }
  }
  return mixed;
}

std::vector<double> merged(const VisionModel& model, uint32_t index, const Rows& hidden, size_t token) {
  const VisionShape& shape = model.shape;
  const StoredMerger& merger = model.mergers[index];
  std::vector<double> x;
  for (size_t i = 0; i < shape.merge; ++i) {
    std::vector<double> patch = hidden[token * shape.merge + i];
    if (index == shape.taps) patch = layer_norm(patch, merger.norm, model.epsilon);
    x.insert(x.end(), patch.begin(), patch.end());
  }
  if (index < shape.taps) x = layer_norm(x, merger.norm, model.epsilon);
  x = merger.up.times(x);
  for (double& value : x) value = gelu(value);
  return merger.down.times(x);
}

}  // namespace

moedge_vision_block_weights StoredBlock::view() const {
  moedge_vision_block_weights view{};
  view.input_norm = input_norm.weight.data();
  view.input_norm_bias = input_norm.bias.data();
  view.post_norm = post_norm.weight.data();
  view.post_norm_bias = post_norm.bias.data();
  view.qkv = qkv.view();
  view.output = output.view();
  view.up = up.view();
  view.down = down.view();
  return view;
}

moedge_vision_merger_weights StoredMerger::view() const {
  moedge_vision_merger_weights view{};
  view.norm = norm.weight.data();
  view.norm_bias = norm.bias.data();
  view.up = up.view();
  view.down = down.view();
  return view;
}

VisionShape make_vision_shape(const Quantization& quantization, uint32_t hidden, uint32_t heads, uint32_t merge) {
  VisionShape shape;
  shape.depth = 3;
  shape.hidden = hidden;
  shape.heads = heads;
  shape.intermediate = 70;
  shape.patch_values = 27;
  shape.positions = 11;
  shape.merge = merge;
  shape.features = 37;
  shape.taps = 2;
  shape.tanh = merge == 4;
  shape.quantization = quantization;
  return shape;
}

VisionModel make_vision_model(const VisionShape& shape, uint64_t seed) {
  Random random(seed);
  VisionModel model;
  model.shape = shape;
  const auto linear = [&](uint32_t rows, uint32_t inputs) {
    return make_matrix(rows, inputs, shape.quantization, true, random);
  };
  model.patches = linear(shape.hidden, shape.patch_values);
  model.positions = random.floats(size_t{shape.positions} * shape.hidden, -1, 1);
  for (uint32_t index = 0; index < shape.depth; ++index) {
    StoredBlock block;
    block.input_norm = make_norm(shape.hidden, random);
    block.post_norm = make_norm(shape.hidden, random);
    block.qkv = linear(3 * shape.hidden, shape.hidden);
    block.output = linear(shape.hidden, shape.hidden);
    block.up = linear(shape.intermediate, shape.hidden);
    block.down = linear(shape.hidden, shape.intermediate);
    model.blocks.push_back(block);
  }
  for (uint32_t index = 0; index < shape.mergers(); ++index) {
    StoredMerger merger;
    merger.norm = make_norm(index < shape.taps ? shape.merged() : shape.hidden, random);
    merger.up = linear(shape.merged(), shape.merged());
    merger.down = linear(shape.features, shape.merged());
    model.mergers.push_back(merger);
  }
  return model;
}

VisionInput make_vision_input(const VisionShape& shape, uint32_t patches, uint32_t frames, Random& random) {
  VisionInput input{patches, frames, {}, {}, {}, {}, {}};
  input.pixels = random.floats(size_t{patches} * shape.patch_values, -2, 2);
  input.cos = random.floats(size_t{patches} * shape.head_dim() / 2, -1, 1);  // no function of the C library
  input.sin = random.floats(size_t{patches} * shape.head_dim() / 2, -1, 1);
  for (uint32_t i = 0; i < patches * Vision::kCorners; ++i) {
    input.corners.push_back(random.below(shape.positions));
    input.shares.push_back(i % Vision::kCorners == 3 ? 0.0F : random.between(0, 1));
  }
  return input;
}

std::unique_ptr<Vision> open_vision(const VisionModel& model, uint32_t threads, const Kernels& kernels) {
  auto vision = std::make_unique<Vision>(model.shape, model.epsilon, kernels, std::make_shared<ThreadPool>(threads));
  if (!model.shape.resident) return vision;
  vision->load_patches(model.patches.view(), model.positions.data());
  for (uint32_t block = 0; block < model.shape.depth; ++block) vision->load_block(block, model.blocks[block].view());
  for (uint32_t merger = 0; merger < model.shape.mergers(); ++merger) {
    vision->load_merger(merger, model.mergers[merger].view());
  }
  return vision;
}

moedge_vision_picture picture_of(const VisionInput& input, std::vector<float>& hidden, std::vector<uint8_t>& memory) {
  moedge_vision_picture picture{};
  picture.patches = input.patches;
  picture.frames = input.frames;
  picture.hidden = hidden.data();
  picture.cos = input.cos.data();
  picture.sin = input.sin.data();
  picture.memory = memory.data();
  return picture;
}

VisionTrace run(Vision& vision, const VisionInput& input) {
  const VisionShape& shape = vision.shape();
  std::vector<float> hidden(size_t{input.patches} * shape.hidden);
  std::vector<uint8_t> memory(vision.picture_bytes(input.patches));
  const moedge_vision_picture picture = picture_of(input, hidden, memory);
  VisionTrace trace;
  vision.embed(picture, input.pixels.data(), input.corners.data(), input.shares.data());
  for (uint32_t block = 0; block < shape.depth; ++block) {
    vision.run_block(picture, block);
    trace.hidden.insert(trace.hidden.end(), hidden.begin(), hidden.end());
  }
  std::vector<float> features(size_t{input.patches} / shape.merge * shape.features);
  for (uint32_t merger = 0; merger < shape.mergers(); ++merger) {
    vision.merge(picture, merger, features.data());
    trace.features.insert(trace.features.end(), features.begin(), features.end());
  }
  return trace;
}

VisionExpectation expected(const VisionModel& model, const VisionInput& input) {
  const VisionShape& shape = model.shape;
  Rows hidden;
  for (size_t patch = 0; patch < input.patches; ++patch) {
    const float* pixels = input.pixels.data() + patch * shape.patch_values;
    hidden.push_back(model.patches.times({pixels, pixels + shape.patch_values}));
    for (size_t c = patch * Vision::kCorners; c < (patch + 1) * Vision::kCorners; ++c) {
      for (size_t i = 0; i < shape.hidden; ++i) {
        hidden[patch][i] += double{input.shares[c]} * model.positions[size_t{input.corners[c]} * shape.hidden + i];
      }
    }
  }
  VisionExpectation wanted;
  for (const StoredBlock& block : model.blocks) {
    Rows projected;
    for (const auto& x : hidden) projected.push_back(block.qkv.times(layer_norm(x, block.input_norm, model.epsilon)));
    const Rows mixed = attention(shape, input, projected);
    for (size_t patch = 0; patch < input.patches; ++patch) {
      std::vector<double>& x = hidden[patch];
      add(x, block.output.times(mixed[patch]));
      std::vector<double> up = block.up.times(layer_norm(x, block.post_norm, model.epsilon));
      for (double& value : up) value = shape.tanh ? gelu_tanh(value) : gelu(value);
      add(x, block.down.times(up));
      wanted.hidden.insert(wanted.hidden.end(), x.begin(), x.end());
    }
  }
  for (uint32_t merger = 0; merger < shape.mergers(); ++merger) {
    for (size_t token = 0; token < input.patches / shape.merge; ++token) {
      const std::vector<double> features = merged(model, merger, hidden, token);
      wanted.features.insert(wanted.features.end(), features.begin(), features.end());
    }
  }
  return wanted;
}

}  // namespace moedge::test
