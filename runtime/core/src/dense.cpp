#include "dense.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "attention.hpp"
#include "isa.hpp"
#include "product.hpp"
#include "status.hpp"
#include "weight_loader.hpp"

namespace moedge {
namespace {

constexpr Quantization kFloats{32, 32, true};
constexpr uint64_t kBufferAlignment = 4096;

uint32_t tokens_of_block(uint32_t group) { return std::max(1U, kQueriesOfTask / group); }

CoreError bad_input(const std::string& problem) { return {MOEDGE_BAD_INPUT, problem}; }

}  // namespace

Dense::Dense(DenseShape shape, float epsilon, uint32_t max_tokens, uint32_t slots, const Kernels& kernels,
             std::shared_ptr<ThreadPool> pool)
    : shape_(std::move(shape)),
      epsilon_(epsilon),
      max_tokens_(max_tokens),
      slots_(slots),
      kernels_(kernels),
      dense_(dense_kernels_beside(kernels)),
      pool_(std::move(pool)),
      layout_(DenseLayout::make(shape_)),
      buffers_(place_buffers(shape_, max_tokens, slots, pool_->size())),
      weights_(layout_.bytes),
      memory_(buffers_.end),
      loaded_(shape_.layers() + 1),
      phases_(*pool_) {
  weights_.take({{0, layout_.bytes}});
  memory_.take({{0, buffers_.end}});
  pool_->linger();
}

Dense::Buffers Dense::place_buffers(const DenseShape& shape, uint32_t max_tokens, uint32_t slots, uint32_t threads) {
  const Quantization& quantization = shape.quantization;
  size_t row =
      std::max(activation_row_bytes(shape.hidden, quantization), activation_row_bytes(shape.mixed(), quantization));
  if (shape.intermediate > 0) row = std::max(row, activation_row_bytes(shape.intermediate, quantization));
  row = std::max(row, activation_row_bytes(shape.hidden, shape.head_quantization));
  const uint32_t one = lanes_of(shape.group());
  const uint32_t most = lanes_of(tokens_of_block(shape.group()) * shape.group());
  Buffers buffers;
  const auto place = [&buffers](uint64_t bytes) {
    const uint64_t at = buffers.end;
    buffers.end = aligned(at + bytes, kBufferAlignment);
    return at;
  };
  const uint64_t tokens = max_tokens;
  buffers.rows = place(tokens * row);
  buffers.guess_rows = place(MOEDGE_LAYERS_AHEAD * row);
  buffers.projected = place(tokens * shape.projected() * sizeof(float));
  buffers.activated = place(tokens * shape.intermediate * sizeof(float));
  buffers.queries = place(uint64_t{shape.kv_heads} * shape.head_dim * one * sizeof(float));
  buffers.chunks = place(uint64_t{divide_up(slots, kChunkKeys)} * shape.kv_heads *
                         attended_floats(one, shape.head_dim) * sizeof(float));
  buffers.scratch_bytes =
      aligned((shape.hidden + AttentionScratch::floats(most, shape.head_dim)) * sizeof(float), kBufferAlignment);
  buffers.scratch = place(threads * buffers.scratch_bytes);
  return buffers;
}

AttentionScratch Dense::scratch(uint32_t thread) {
  return {normed(thread) + shape_.hidden, lanes_of(tokens_of_block(shape_.group()) * shape_.group()), shape_.head_dim};
}

float* Dense::normed(uint32_t thread) {
  return reinterpret_cast<float*>(memory_.data() + buffers_.scratch + thread * buffers_.scratch_bytes);
}

Attended Dense::chunk_result(uint32_t kv_head, uint32_t chunk) {
  const uint32_t lanes = lanes_of(shape_.group());
  auto* first = reinterpret_cast<float*>(memory_.data() + buffers_.chunks);
  const uint64_t place = uint64_t{kv_head} * divide_up(slots_, kChunkKeys) + chunk;
  return attended_at(first + place * attended_floats(lanes, shape_.head_dim), lanes, shape_.head_dim);
}

// --- weights ---------------------------------------------------------------------------------------------------------

void Dense::load_layer(uint32_t layer, const moedge_dense_weights& weights) {
  if (layer >= shape_.layers()) {
    throw bad_input("layer " + grouped(layer) + " does not exist; there are " + grouped(shape_.layers()));
  }
  if (loaded_[layer]) throw bad_input("layer " + grouped(layer) + " has its weights already");
  const DenseLayerLayout& to = layout_.layers[layer];
  const WeightLoader load{weights_.data(), "layer " + grouped(layer)};
  load.vector(weights.input_norm, shape_.hidden, to.input_norm, "input_norm");
  load.vector(weights.query_norm, shape_.head_dim, to.query_norm, "query_norm");
  load.vector(weights.key_norm, shape_.head_dim, to.key_norm, "key_norm");
  load.vector(weights.post_norm, shape_.hidden, to.post_norm, "post_norm");
  if (shape_.biased) {
    load.vector(weights.qkv.bias, shape_.projected(), to.qkv_bias, "qkv.bias");
    load.vector(weights.output.bias, shape_.hidden, to.output_bias, "output.bias");
  }
  load.matrix(weights.qkv, shape_.projected(), shape_.hidden, false, shape_.quantization, to.qkv, "qkv");
  load.matrix(weights.output, shape_.hidden, shape_.mixed(), false, shape_.quantization, to.output, "output");
  if (shape_.has_experts[layer]) {
    load.matrix(weights.router, shape_.experts, shape_.hidden, false, kFloats, to.router, "router");
    if (shape_.guesses(layer)) {
      load.vector(weights.next_norm, shape_.hidden, to.next_norm, "next_norm");
      load.matrix(weights.next_router, shape_.experts, shape_.hidden, false, shape_.quantization, to.next_router,
                  "next_router");
    }
  } else {
    load.matrix(weights.gate_up, 2 * shape_.intermediate, shape_.hidden, true, shape_.quantization, to.gate_up,
                "gate_up");
    load.matrix(weights.down, shape_.hidden, shape_.intermediate, false, shape_.quantization, to.down, "down");
  }
  loaded_[layer] = 1;
}

void Dense::load_head(const float* norm, const moedge_matrix& matrix) {
  uint8_t& loaded = loaded_[shape_.layers()];
  if (loaded) throw bad_input("the head has its weights already");
  const Quantization& quantization = shape_.head_quantization;
  const bool quantized = quantization.bits != 32;
  if (norm == nullptr || matrix.weight == nullptr || (quantized && matrix.scale == nullptr) ||
      (quantized && !quantization.symmetric && matrix.zero_point == nullptr)) {
    throw bad_input("a part of the head is missing");
  }
  std::memcpy(weights_.data() + layout_.head_norm, norm, shape_.hidden * sizeof(float));
  if (!pack_matrix({matrix.weight, matrix.scale, matrix.zero_point}, shape_.vocabulary, shape_.hidden, false,
                   quantization, layout_.head, weights_.data())) {
    throw bad_input("a scale of the head is no float16");
  }
  loaded = 1;
}

// --- a call ----------------------------------------------------------------------------------------------------------

void Dense::check(const moedge_dense_call& call) const {
  if (call.layer >= shape_.layers()) {
    throw bad_input("layer " + grouped(call.layer) + " does not exist; there are " + grouped(shape_.layers()));
  }
  // The router of the layer after the next one is among the next one's weights.
  const uint32_t foreseen = call.next_router_logits != nullptr ? shape_.foreseen(call.layer) : 0;
  for (uint32_t layer = call.layer; layer < call.layer + std::max(1U, foreseen); ++layer) {
    if (!loaded_[layer]) throw bad_input("layer " + grouped(layer) + " has no weights yet");
  }
  if (call.tokens < 1 || call.tokens > max_tokens_) {
    throw bad_input(grouped(call.tokens) + " tokens in one call; 1 to " + grouped(max_tokens_) + " are possible");
  }
  if (uint64_t{call.past} + call.tokens > slots_) {
    throw bad_input(grouped(call.past) + " tokens and " + grouped(call.tokens) + " more; the cache has room for " +
                    grouped(slots_));
  }
}

void Dense::run_layer(const moedge_dense_call& call) {
  check(call);
  call_ = call;
  layer_ = &layout_.layers[call.layer];
  foreseen_ = call.next_router_logits != nullptr ? shape_.foreseen(call.layer) : 0;
  finite_.store(true, std::memory_order_relaxed);
  tokens_of_block_ = tokens_of_block(shape_.group());
  const bool floats = shape_.quantization.bits == 32;
  const bool one = call.tokens == 1;
  const bool experts = shape_.has_experts[call.layer];
  const uint32_t groups = divide_up(call.tokens, kTokensOfTask);
  const uint32_t chunks = divide_up(call.past + call.tokens, kChunkKeys);
  std::array<uint32_t, kPhases> counts{};
  counts[kNormInput] = groups;
  counts[kProject] = tasks_of(layer_->qkv);
  counts[kRotate] = groups * shape_.kv_heads;
  chunks_of_task_ = std::max(1U, chunks * shape_.kv_heads / (pool_->size() * kTasksOfThread));
  counts[kAttend] =
      shape_.kv_heads * (one ? divide_up(chunks, chunks_of_task_) : divide_up(call.tokens, tokens_of_block_));
  counts[kMerge] = one ? shape_.kv_heads : 0;
  counts[kQuantizeMixed] = floats ? 0 : groups;
  counts[kOutput] = tasks_of(layer_->output);
  counts[kNormResidual] = groups;
  if (experts) {
    counts[kRoute] = tasks_of(layer_->router);
    if (foreseen_ > 0) counts[kRoute] += foreseen_ * tasks_of(layer_->next_router);
  } else {
    counts[kRoute] = tasks_of(layer_->gate_up);
    counts[kQuantizeActivated] = floats ? 0 : groups;
    counts[kDown] = tasks_of(layer_->down);
  }
  phases_.run(counts, [this](uint32_t phase, uint32_t task, uint32_t thread) { step(phase, task, thread); });
  if (!finite_.load(std::memory_order_relaxed)) throw bad_input("an activation of the attention is not finite");
}

void Dense::run_head(const float* hidden, float* logits) {
  if (!loaded_[shape_.layers()]) throw bad_input("the head has no weights yet");
  finite_.store(true, std::memory_order_relaxed);
  const Quantization& quantization = shape_.head_quantization;
  uint8_t* row = memory_.data() + buffers_.guess_rows;
  const std::array<uint32_t, 2> counts{1, tasks_of(layout_.head)};
  phases_.run(counts, [&](uint32_t phase, uint32_t task, uint32_t thread) {
    if (phase == 0) {
      float* normed = this->normed(thread);
      dense_.rms_norm(hidden, reinterpret_cast<const float*>(weights_.data() + layout_.head_norm), shape_.hidden,
                      epsilon_, normed);
      quantize(normed, shape_.hidden, quantization, row);
      return;
    }
    multiply(
        kernels_, weights_.data(), layout_.head, quantization, 1, task, [&](uint32_t) { return row; },
        [&](uint32_t tile, uint32_t, const float* values) {
          const uint32_t first = tile * kTileRows;
          std::copy_n(values, std::min(kTileRows, shape_.vocabulary - first), logits + first);
        });
  });
  if (!finite_.load(std::memory_order_relaxed)) throw bad_input("an activation of the head is not finite");
}

void Dense::step(uint32_t phase, uint32_t task, uint32_t thread) {
  const uint32_t stride = shape_.projected();
  uint8_t* rows = memory_.data() + buffers_.rows;
  auto* projected = reinterpret_cast<float*>(memory_.data() + buffers_.projected);
  auto* activated = reinterpret_cast<float*>(memory_.data() + buffers_.activated);
  const Quantization& quantization = shape_.quantization;
  const bool floats = quantization.bits == 32;
  const size_t hidden_row = activation_row_bytes(shape_.hidden, quantization);
  const size_t mixed_row = activation_row_bytes(shape_.mixed(), quantization);
  const size_t activated_row = activation_row_bytes(shape_.intermediate, quantization);
  const auto hidden_at = [&](uint32_t token) -> const uint8_t* { return rows + token * hidden_row; };
  const auto each_token = [&](uint32_t group, const auto& use) {
    const uint32_t end = std::min(call_.tokens, (group + 1) * kTokensOfTask);
    for (uint32_t token = group * kTokensOfTask; token < end; ++token) use(token);
  };
  switch (static_cast<Phase>(phase)) {
    case kNormInput: {
      float* normed = this->normed(thread);
      return each_token(task, [&](uint32_t token) { norm_input(token, normed); });
    }
    case kProject:
      return multiply(kernels_, weights_.data(), layer_->qkv, quantization, call_.tokens, task, hidden_at,
                      [&](uint32_t tile, uint32_t token, const float* values) {
                        const uint32_t first = tile * kTileRows;
                        const uint32_t count = std::min(kTileRows, stride - first);
                        float* to = projected + size_t{token} * stride + first;
                        std::copy_n(values, count, to);
                        if (!shape_.biased) return;
                        const auto* bias = reinterpret_cast<const float*>(weights_.data() + layer_->qkv_bias) + first;
                        for (uint32_t i = 0; i < count; ++i) to[i] += bias[i];
                      });
    case kRotate:
      return each_token(task / shape_.kv_heads, [&](uint32_t token) { rotate(task % shape_.kv_heads, token); });
    case kAttend:
      return call_.tokens == 1 ? attend_chunks(task, thread) : attend_tokens(task, thread);
    case kMerge:
      return merge_chunks(task, thread);
    case kQuantizeMixed:
      return each_token(task, [&](uint32_t token) {
        quantize(projected + size_t{token} * stride, shape_.mixed(), quantization, rows + token * mixed_row);
      });
    case kOutput: {
      const auto mixed_at = [&](uint32_t token) -> const uint8_t* {
        return floats ? reinterpret_cast<const uint8_t*>(projected + size_t{token} * stride) : rows + token * mixed_row;
      };
      return multiply(kernels_, weights_.data(), layer_->output, quantization, call_.tokens, task, mixed_at,
                      [&](uint32_t tile, uint32_t token, const float* values) {
                        const uint32_t first = tile * kTileRows;
                        const uint32_t count = std::min(kTileRows, shape_.hidden - first);
                        const size_t at = size_t{token} * shape_.hidden + first;
                        const auto* bias =
                            reinterpret_cast<const float*>(weights_.data() + layer_->output_bias) + first;
                        for (uint32_t i = 0; i < count; ++i) {
                          const float value = shape_.biased ? values[i] + bias[i] : values[i];
                          call_.residual[at + i] = call_.hidden[at + i] + value;
                        }
                      });
    }
    case kNormResidual: {
      float* normed = this->normed(thread);
      return each_token(task, [&](uint32_t token) { norm_residual(token, normed); });
    }
    case kRoute:
      return shape_.has_experts[call_.layer] ? route(task) : gate_and_up(task);
    case kQuantizeActivated:
      return each_token(task, [&](uint32_t token) {
        quantize(activated + size_t{token} * shape_.intermediate, shape_.intermediate, quantization,
                 rows + token * activated_row);
      });
    case kDown: {
      const auto activated_at = [&](uint32_t token) -> const uint8_t* {
        return floats ? reinterpret_cast<const uint8_t*>(activated + size_t{token} * shape_.intermediate)
                      : rows + token * activated_row;
      };
      return multiply(kernels_, weights_.data(), layer_->down, quantization, call_.tokens, task, activated_at,
                      [&](uint32_t tile, uint32_t token, const float* values) {
                        const uint32_t first = tile * kTileRows;
                        const uint32_t count = std::min(kTileRows, shape_.hidden - first);
                        float* to = call_.residual + size_t{token} * shape_.hidden + first;
                        for (uint32_t i = 0; i < count; ++i) to[i] += values[i];
                      });
    }
    case kPhases:
      return;
  }
}

// --- tasks -----------------------------------------------------------------------------------------------------------

// An activation row of `x`, and whether all of it is finite.
void Dense::quantize(const float* x, uint32_t count, const Quantization& quantization, uint8_t* row) {
  if (!make_row(kernels_, x, count, quantization, row)) finite_.store(false, std::memory_order_relaxed);
}

void Dense::norm_input(uint32_t token, float* normed) {
  const auto* weight = reinterpret_cast<const float*>(weights_.data() + layer_->input_norm);
  dense_.rms_norm(call_.hidden + size_t{token} * shape_.hidden, weight, shape_.hidden, epsilon_, normed);
  const size_t row = activation_row_bytes(shape_.hidden, shape_.quantization);
  quantize(normed, shape_.hidden, shape_.quantization, memory_.data() + buffers_.rows + token * row);
}

// The queries of a KV head, its key and its value: norms, rotary embedding, and into the cache.
void Dense::rotate(uint32_t kv_head, uint32_t token) {
  const uint32_t size = shape_.head_dim;
  const uint32_t half = size / 2;
  auto* row = reinterpret_cast<float*>(memory_.data() + buffers_.projected) + size_t{token} * shape_.projected();
  const float* cos = call_.cos + size_t{token} * half;
  const float* sin = call_.sin + size_t{token} * half;
  const auto* query_norm = reinterpret_cast<const float*>(weights_.data() + layer_->query_norm);
  const auto* key_norm = reinterpret_cast<const float*>(weights_.data() + layer_->key_norm);
  const float factor = 1.0F / std::sqrt(static_cast<float>(size));
  for (uint32_t g = 0; g < shape_.group(); ++g) {
    float* query = row + size_t{kv_head * shape_.group() + g} * size;
    dense_.rms_norm(query, query_norm, size, epsilon_, query);
    dense_.rotate(query, cos, sin, half, factor);
  }
  const size_t slot = (size_t{kv_head} * slots_ + call_.past + token) * size;
  dense_.rms_norm(row + size_t{shape_.heads + kv_head} * size, key_norm, size, epsilon_, call_.keys + slot);
  dense_.rotate(call_.keys + slot, cos, sin, half, 1.0F);
  std::copy_n(row + size_t{shape_.heads + shape_.kv_heads + kv_head} * size, size, call_.values + slot);
  if (call_.tokens == 1) {
    const uint32_t lanes = lanes_of(shape_.group());
    auto* all = reinterpret_cast<float*>(memory_.data() + buffers_.queries);
    gather_queries(kv_head, 0, 1, all + size_t{kv_head} * size * lanes);
  }
}

// The queries of some tokens side by side, what lanes are left over zero; returns the lanes.
uint32_t Dense::gather_queries(uint32_t kv_head, uint32_t begin, uint32_t end, float* queries) const {
  const uint32_t lanes = lanes_of((end - begin) * shape_.group());
  const auto* projected = reinterpret_cast<const float*>(memory_.data() + buffers_.projected);
  uint32_t lane = 0;
  for (uint32_t token = begin; token < end; ++token) {
    for (uint32_t g = 0; g < shape_.group(); ++g, ++lane) {
      const float* query =
          projected + size_t{token} * shape_.projected() + size_t{kv_head * shape_.group() + g} * shape_.head_dim;
      for (uint32_t d = 0; d < shape_.head_dim; ++d) queries[size_t{d} * lanes + lane] = query[d];
    }
  }
  for (; lane < lanes; ++lane) {
    for (uint32_t d = 0; d < shape_.head_dim; ++d) queries[size_t{d} * lanes + lane] = 0.0F;
  }
  return lanes;
}

// The reverse: what attention gave takes the place of the queries.
void Dense::put_mixed(uint32_t kv_head, uint32_t begin, uint32_t end, const Attended& all) {
  const uint32_t lanes = lanes_of((end - begin) * shape_.group());
  auto* projected = reinterpret_cast<float*>(memory_.data() + buffers_.projected);
  uint32_t lane = 0;
  for (uint32_t token = begin; token < end; ++token) {
    for (uint32_t g = 0; g < shape_.group(); ++g, ++lane) {
      float* to =
          projected + size_t{token} * shape_.projected() + size_t{kv_head * shape_.group() + g} * shape_.head_dim;
      for (uint32_t d = 0; d < shape_.head_dim; ++d) to[d] = all.mixed[size_t{d} * lanes + lane];
    }
  }
}

// Of the first `keys` slots of the cache; `more`: the caller goes on with the chunk behind it.
Chunk Dense::chunk_of(uint32_t kv_head, uint32_t chunk, uint32_t keys, bool more) const {
  const uint32_t first = chunk * kChunkKeys;
  const size_t at = (size_t{kv_head} * slots_ + first) * shape_.head_dim;
  return {call_.keys + at, call_.values + at, std::min(kChunkKeys, keys - first), more};
}

// Of one token: some chunks of a KV head.
void Dense::attend_chunks(uint32_t task, uint32_t thread) {
  const uint32_t keys = call_.past + 1;
  const uint32_t chunks = divide_up(keys, kChunkKeys);
  const uint32_t tasks = divide_up(chunks, chunks_of_task_);
  const uint32_t kv_head = task / tasks;
  const uint32_t begin = task % tasks * chunks_of_task_;
  const uint32_t end = std::min(chunks, begin + chunks_of_task_);
  const uint32_t lanes = lanes_of(shape_.group());
  const auto* all = reinterpret_cast<const float*>(memory_.data() + buffers_.queries);
  for (uint32_t chunk = begin; chunk < end; ++chunk) {
    dense_.attend(all + size_t{kv_head} * shape_.head_dim * lanes, lanes, shape_.head_dim,
                  chunk_of(kv_head, chunk, keys, chunk + 1 < end), nullptr, scratch(thread).scores,
                  chunk_result(kv_head, chunk));
  }
}

void Dense::merge_chunks(uint32_t kv_head, uint32_t thread) {
  const uint32_t lanes = lanes_of(shape_.group());
  const uint32_t chunks = divide_up(call_.past + 1, kChunkKeys);
  const Attended all = attended_at(scratch(thread).all, lanes, shape_.head_dim);
  begin_attention(all, lanes, shape_.head_dim);
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    dense_.merge(chunk_result(kv_head, chunk), lanes, shape_.head_dim, all);
  }
  dense_.divide(lanes, shape_.head_dim, all);
  put_mixed(kv_head, 0, 1, all);
}

// Of several tokens: some of them, all chunks of a KV head one after the other. The same steps in the same order as for
// one token alone.
void Dense::attend_tokens(uint32_t task, uint32_t thread) {
  const uint32_t blocks = divide_up(call_.tokens, tokens_of_block_);
  const uint32_t kv_head = task % shape_.kv_heads;
  const uint32_t block = blocks - 1 - task / shape_.kv_heads;  // the longest first
  const uint32_t begin = block * tokens_of_block_;
  const uint32_t end = std::min(call_.tokens, begin + tokens_of_block_);
  const uint32_t keys = call_.past + end;
  const AttentionScratch own = scratch(thread);
  const uint32_t lanes = gather_queries(kv_head, begin, end, own.queries);
  const auto seen = [&](uint32_t first, uint32_t count) -> const uint32_t* {
    if (first + count <= call_.past + begin + 1) return nullptr;
    for (uint32_t lane = 0; lane < lanes; ++lane) {
      const uint32_t sees = call_.past + begin + lane / shape_.group() + 1;  // keys, from the first of all on
      own.seen[lane] = sees > first ? sees - first : 0;
    }
    return own.seen;
  };
  const size_t at = size_t{kv_head} * slots_ * shape_.head_dim;
  put_mixed(kv_head, begin, end,
            attend_all(dense_, own, lanes, shape_.head_dim, call_.keys + at, call_.values + at, keys, seen));
}

// What the experts, or the MLP, and the guess compute with.
void Dense::norm_residual(uint32_t token, float* normed) {
  const Quantization& quantization = shape_.quantization;
  const float* residual = call_.residual + size_t{token} * shape_.hidden;
  const auto* weight = reinterpret_cast<const float*>(weights_.data() + layer_->post_norm);
  if (!all_finite(residual, shape_.hidden)) finite_.store(false, std::memory_order_relaxed);
  if (!shape_.has_experts[call_.layer]) {
    dense_.rms_norm(residual, weight, shape_.hidden, epsilon_, normed);
    const size_t row = activation_row_bytes(shape_.hidden, quantization);
    quantize(normed, shape_.hidden, quantization, memory_.data() + buffers_.rows + token * row);
    return;
  }
  dense_.rms_norm(residual, weight, shape_.hidden, epsilon_, call_.moe_input + size_t{token} * shape_.hidden);
  if (token + 1 < call_.tokens) return;
  for (uint32_t ahead = 0; ahead < foreseen_; ++ahead) {
    const auto* next = reinterpret_cast<const float*>(weights_.data() + layer_[ahead].next_norm);
    dense_.rms_norm(residual, next, shape_.hidden, epsilon_, normed);
    quantize(normed, shape_.hidden, quantization, guess_row(ahead));
  }
}

uint8_t* Dense::guess_row(uint32_t ahead) {
  return memory_.data() + buffers_.guess_rows + ahead * activation_row_bytes(shape_.hidden, shape_.quantization);
}

// Tiles of the router, then those of each guess.
void Dense::route(uint32_t task) {
  const uint32_t of_router = tasks_of(layer_->router);
  const auto into = [&](float* logits) {
    return [this, logits](uint32_t tile, uint32_t token, const float* values) {
      const uint32_t first = tile * kTileRows;
      std::copy_n(values, std::min(kTileRows, shape_.experts - first), logits + size_t{token} * shape_.experts + first);
    };
  };
  if (task < of_router) {
    const auto row = [&](uint32_t token) {
      return reinterpret_cast<const uint8_t*>(call_.moe_input + size_t{token} * shape_.hidden);
    };
    multiply(kernels_, weights_.data(), layer_->router, kFloats, call_.tokens, task, row, into(call_.router_logits));
  } else {
    const uint32_t of_guess = tasks_of(layer_->next_router);
    const uint32_t ahead = (task - of_router) / of_guess;
    const auto row = [&](uint32_t) -> const uint8_t* { return guess_row(ahead); };
    multiply(kernels_, weights_.data(), layer_[ahead].next_router, shape_.quantization, 1,
             (task - of_router) % of_guess, row, into(call_.next_router_logits + size_t{ahead} * shape_.experts));
  }
}

void Dense::gate_and_up(uint32_t task) {
  const size_t row = activation_row_bytes(shape_.hidden, shape_.quantization);
  const auto hidden_at = [&](uint32_t token) -> const uint8_t* { return memory_.data() + buffers_.rows + token * row; };
  auto* activated = reinterpret_cast<float*>(memory_.data() + buffers_.activated);
  multiply(kernels_, weights_.data(), layer_->gate_up, shape_.quantization, call_.tokens, task, hidden_at,
           [&](uint32_t tile, uint32_t token, const float* values) {
             float out[kHalfRows];
             kernels_.swiglu(values, out);
             const uint32_t first = tile * kHalfRows;
             std::copy_n(out, std::min(kHalfRows, shape_.intermediate - first),
                         activated + size_t{token} * shape_.intermediate + first);
           });
}

}  // namespace moedge
