#include "dense_model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace moedge::test {
namespace {

std::vector<double> rms_norm(const double* x, const std::vector<float>& weight, double epsilon) {
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += x[i] * x[i];
  const double root = std::sqrt(squares / static_cast<double>(weight.size()) + epsilon);
  std::vector<double> out(weight.size());
  for (size_t i = 0; i < weight.size(); ++i) out[i] = x[i] / root * weight[i];
  return out;
}

std::vector<double> rotated(const std::vector<double>& x, const float* cos, const float* sin) {
  const size_t half = x.size() / 2;
  std::vector<double> out(x.size());
  for (size_t i = 0; i < half; ++i) {
    out[i] = x[i] * cos[i] - x[half + i] * sin[i];
    out[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
  }
  return out;
}

}  // namespace

double StoredMatrix::at(uint32_t row, uint32_t input) const {
  if (quantization.bits == 32) return floats[size_t{row} * inputs + input];
  const uint32_t block = quantization.block;
  const uint32_t blocks = (inputs + block - 1) / block;
  const uint32_t k = input / block;
  const size_t begin = (size_t{row} * blocks + k) * block * quantization.bits / 8;
  const uint32_t i = input % block;
  const size_t points = size_t{row} * ((blocks * quantization.bits + 7) / 8);
  int stored = 0;
  int zero = 1 << (quantization.bits - 1);
  if (quantization.bits == 8) {
    stored = weight[begin + i];
    if (!quantization.symmetric) zero = zero_point[points + k];
  } else {
    stored = weight[begin + i / 2] >> i % 2 * 4 & 15;
    if (!quantization.symmetric) zero = zero_point[points + k / 2] >> k % 2 * 4 & 15;
  }
  return (stored - zero) * double{scale[size_t{row} * blocks + k]};
}

std::vector<double> StoredMatrix::times(const std::vector<double>& x) const {
  std::vector<double> out(rows);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t i = 0; i < inputs; ++i) out[row] += at(row, i) * x[i];
    if (!bias.empty()) out[row] += bias[row];
  }
  return out;
}

moedge_matrix StoredMatrix::view() const {
  const auto or_null = [](const auto& values) { return values.empty() ? nullptr : values.data(); };
  moedge_matrix view{};
  view.weight = quantization.bits == 32 ? static_cast<const void*>(or_null(floats)) : or_null(weight);
  view.scale = or_null(scale);
  view.zero_point = or_null(zero_point);
  view.bias = or_null(bias);
  return view;
}

StoredMatrix make_matrix(uint32_t rows, uint32_t inputs, const Quantization& quantization, bool biased,
                         Random& random) {
  StoredMatrix matrix;
  matrix.rows = rows;
  matrix.inputs = inputs;
  matrix.quantization = quantization;
  const float width = 1.7F / std::sqrt(static_cast<float>(inputs));
  if (quantization.bits == 32) {
    matrix.floats = random.floats(size_t{rows} * inputs, -width, width);
  } else {
    const uint32_t blocks = (inputs + quantization.block - 1) / quantization.block;
    matrix.weight.resize(size_t{rows} * blocks * quantization.block * quantization.bits / 8);
    random.fill(matrix.weight);
    // A float16: eight bits of fraction, a power of two.
    const float unit = std::exp2(std::floor(std::log2(width))) / static_cast<float>(quantization.middle());
    for (size_t i = 0; i < size_t{rows} * blocks; ++i) {
      matrix.scale.push_back(unit * (1.0F + static_cast<float>(random.below(256)) / 256.0F));
    }
    if (!quantization.symmetric) {
      matrix.zero_point.resize(size_t{rows} * ((blocks * quantization.bits + 7) / 8));
      random.fill(matrix.zero_point);
    }
  }
  if (biased) matrix.bias = random.floats(rows, -0.5F, 0.5F);
  return matrix;
}

double relative_error(const std::vector<float>& got, const std::vector<double>& wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  double error = 0;
  double all = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += (got[i] - wanted[i]) * (got[i] - wanted[i]);
    all += wanted[i] * wanted[i];
  }
  return std::sqrt(error / all);
}

moedge_dense_weights StoredLayer::view() const {
  const auto or_null = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };
  return {or_null(input_norm), or_null(query_norm), or_null(key_norm), or_null(post_norm),
          or_null(next_norm),  qkv.view(),          output.view(),     router.view(),
          next_router.view(),  gate_up.view(),      down.view()};
}

DenseShape make_dense_shape(const Quantization& quantization, uint32_t hidden, uint32_t heads, uint32_t kv_heads,
                            uint32_t head_dim, uint32_t intermediate) {
  DenseShape shape;
  shape.hidden = hidden;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.experts = 37;
  shape.intermediate = intermediate;
  shape.vocabulary = 75;
  shape.biased = heads % 4 == 2;
  shape.quantization = quantization;
  shape.head_quantization = quantization;
  shape.has_experts = {true, true, true};
  if (intermediate > 0) shape.has_experts.push_back(false);
  return shape;
}

DenseModel make_dense_model(const DenseShape& shape, uint64_t seed) {
  Random random(seed);
  DenseModel model;
  model.shape = shape;
  const Quantization floats{32, 32, true};
  for (uint32_t index = 0; index < shape.layers(); ++index) {
    StoredLayer layer;
    layer.input_norm = random.floats(shape.hidden, 0.5F, 1.5F);
    layer.query_norm = random.floats(shape.head_dim, 0.5F, 3);
    layer.key_norm = random.floats(shape.head_dim, 0.5F, 3);
    layer.post_norm = random.floats(shape.hidden, 0.5F, 1.5F);
    layer.qkv = make_matrix(shape.projected(), shape.hidden, shape.quantization, shape.biased, random);
    layer.output = make_matrix(shape.hidden, shape.mixed(), shape.quantization, shape.biased, random);
    if (shape.has_experts[index]) {
      layer.router = make_matrix(shape.experts, shape.hidden, floats, false, random);
      if (shape.guesses(index)) {
        layer.next_norm = random.floats(shape.hidden, 0.5F, 1.5F);
        layer.next_router = make_matrix(shape.experts, shape.hidden, shape.quantization, false, random);
      }
    } else {
      layer.gate_up = make_matrix(2 * shape.intermediate, shape.hidden, shape.quantization, false, random);
      layer.down = make_matrix(shape.hidden, shape.intermediate, shape.quantization, false, random);
    }
    model.layers.push_back(std::move(layer));
  }
  model.head_norm = random.floats(shape.hidden, 0.5F, 1.5F);
  model.head = make_matrix(shape.vocabulary, shape.hidden, shape.head_quantization, false, random);
  return model;
}

DenseState::DenseState(const DenseShape& shape, uint32_t slot_count)
    : slots(slot_count),
      keys(size_t{shape.kv_heads} * slot_count * shape.head_dim),
      values(keys.size()),
      next_router_logits(size_t{MOEDGE_LAYERS_AHEAD} * shape.experts) {}

DenseInput make_dense_input(const DenseShape& shape, uint32_t tokens, Random& random) {
  DenseInput input;
  input.tokens = tokens;
  input.hidden = random.floats(size_t{tokens} * shape.hidden, -2, 2);
  for (size_t i = 0; i < size_t{tokens} * shape.head_dim / 2; ++i) {
    const float cos = random.between(-1, 1);
    input.cos.push_back(cos);
    input.sin.push_back(std::sqrt(1 - cos * cos));
  }
  return input;
}

DenseInput part_of(const DenseShape& shape, const DenseInput& input, uint32_t begin, uint32_t end) {
  const auto rows = [&](const std::vector<float>& values, uint32_t size) {
    return std::vector<float>(values.begin() + size_t{begin} * size, values.begin() + size_t{end} * size);
  };
  return {end - begin, rows(input.hidden, shape.hidden), rows(input.cos, shape.head_dim / 2),
          rows(input.sin, shape.head_dim / 2)};
}

std::unique_ptr<Dense> open_dense(const DenseModel& model, uint32_t max_tokens, uint32_t slots, uint32_t threads,
                                  const Kernels& kernels) {
  auto dense = std::make_unique<Dense>(model.shape, model.epsilon, max_tokens, slots, kernels,
                                       std::make_shared<ThreadPool>(threads));
  for (uint32_t layer = 0; layer < model.shape.layers(); ++layer) {
    dense->load_layer(layer, model.layers[layer].view());
  }
  dense->load_head(model.head_norm.data(), model.head.view());
  return dense;
}

void run(Dense& dense, uint32_t layer, uint32_t past, const DenseInput& input, DenseState& state) {
  const DenseShape& shape = dense.shape();
  state.residual.assign(size_t{input.tokens} * shape.hidden, kUntouched);
  state.moe_input.assign(size_t{input.tokens} * shape.hidden, kUntouched);
  state.router_logits.assign(size_t{input.tokens} * shape.experts, kUntouched);
  state.next_router_logits.assign(size_t{MOEDGE_LAYERS_AHEAD} * shape.experts, kUntouched);
  moedge_dense_call call{};
  call.layer = layer;
  call.tokens = input.tokens;
  call.past = past;
  call.hidden = input.hidden.data();
  call.cos = input.cos.data();
  call.sin = input.sin.data();
  call.keys = state.keys.data();
  call.values = state.values.data();
  call.residual = state.residual.data();
  call.moe_input = state.moe_input.data();
  call.router_logits = state.router_logits.data();
  call.next_router_logits = state.next_router_logits.data();
  dense.run_layer(call);
}

DenseExpectation expected(const DenseModel& model, uint32_t index, const DenseInput& input) {
  const DenseShape& shape = model.shape;
  const StoredLayer& layer = model.layers[index];
  const uint32_t size = shape.head_dim;
  const std::vector<double> hidden(input.hidden.begin(), input.hidden.end());
  DenseExpectation out;
  std::vector<std::vector<double>> keys;  // of each token, all KV heads
  std::vector<std::vector<double>> values;
  for (uint32_t token = 0; token < input.tokens; ++token) {
    const float* cos = input.cos.data() + size_t{token} * size / 2;
    const float* sin = input.sin.data() + size_t{token} * size / 2;
    const double* x = hidden.data() + size_t{token} * shape.hidden;
    const std::vector<double> qkv = layer.qkv.times(rms_norm(x, layer.input_norm, model.epsilon));
    const auto head = [&](uint32_t at) { return qkv.data() + size_t{at} * size; };
    std::vector<double>& key = keys.emplace_back();
    for (uint32_t kv = 0; kv < shape.kv_heads; ++kv) {
      const auto one = rotated(rms_norm(head(shape.heads + kv), layer.key_norm, model.epsilon), cos, sin);
      key.insert(key.end(), one.begin(), one.end());
    }
    values.emplace_back(head(shape.heads + shape.kv_heads), head(shape.heads + 2 * shape.kv_heads));
    std::vector<double> mixed(shape.mixed());
    for (uint32_t h = 0; h < shape.heads; ++h) {
      const size_t kv = size_t{h / shape.group()} * size;
      const auto query = rotated(rms_norm(head(h), layer.query_norm, model.epsilon), cos, sin);
      std::vector<double> scores(token + 1);
      for (uint32_t other = 0; other <= token; ++other) {
        for (uint32_t d = 0; d < size; ++d)
          scores[other] += query[d] * keys[other][kv + d] / std::sqrt(static_cast<double>(size));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - largest);
      for (uint32_t other = 0; other <= token; ++other) {
        for (uint32_t d = 0; d < size; ++d) mixed[size_t{h} * size + d] += scores[other] / sum * values[other][kv + d];
      }
    }
    std::vector<double> residual = layer.output.times(mixed);
    for (uint32_t i = 0; i < shape.hidden; ++i) residual[i] += x[i];
    const std::vector<double> normed = rms_norm(residual.data(), layer.post_norm, model.epsilon);
    if (shape.has_experts[index]) {
      const std::vector<double> logits = layer.router.times(normed);
      out.router_logits.insert(out.router_logits.end(), logits.begin(), logits.end());
      out.next_router_logits.clear();  // the last token's
      for (uint32_t ahead = 0; ahead < shape.foreseen(index); ++ahead) {
        const StoredLayer& of = model.layers[index + ahead];
        const std::vector<double> guess = of.next_router.times(rms_norm(residual.data(), of.next_norm, model.epsilon));
        out.next_router_logits.insert(out.next_router_logits.end(), guess.begin(), guess.end());
      }
    } else {
      const std::vector<double> both = layer.gate_up.times(normed);
      std::vector<double> activated(shape.intermediate);
      for (uint32_t i = 0; i < shape.intermediate; ++i) {
        activated[i] = both[i] / (1 + std::exp(-both[i])) * both[shape.intermediate + i];
      }
      const std::vector<double> down = layer.down.times(activated);
      for (uint32_t i = 0; i < shape.hidden; ++i) residual[i] += down[i];
    }
    out.residual.insert(out.residual.end(), residual.begin(), residual.end());
    out.keys.insert(out.keys.end(), keys.back().begin(), keys.back().end());
    out.values.insert(out.values.end(), values.back().begin(), values.back().end());
  }
  return out;
}

std::vector<double> expected_logits(const DenseModel& model, const std::vector<float>& hidden) {
  const std::vector<double> x(hidden.begin(), hidden.end());
  return model.head.times(rms_norm(x.data(), model.head_norm, model.epsilon));
}

}  // namespace moedge::test
