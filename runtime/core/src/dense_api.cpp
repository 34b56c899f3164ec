// The C interface of the dense layers.
#include <memory>
#include <vector>

#include "api_support.hpp"
#include "dense.hpp"

struct moedge_dense {
  moedge::Dense dense;
};

namespace {

using moedge::CoreError;
using moedge::guarded;
using moedge::present;
using moedge::within;

moedge::DenseShape shape_of(const moedge_dense_options& options) {
  constexpr uint64_t kMost = 1 << 20;
  within("layers", options.layers, 1, kMost);
  within("hidden_size", options.hidden_size, 1, kMost);
  within("kv_heads", options.kv_heads, 1, 1024);
  within("heads", options.heads, options.kv_heads, 4096);
  within("head_dim", options.head_dim, 2, 4096);
  within("experts", options.experts, 1, kMost);
  within("intermediate_size", options.intermediate_size, 0, kMost);
  within("vocabulary", options.vocabulary, 1, 1 << 24);
  if (options.heads % options.kv_heads != 0) {
    throw CoreError(MOEDGE_BAD_OPTION, "heads=" + moedge::grouped(options.heads) + " with kv_heads=" +
                                           moedge::grouped(options.kv_heads) + "; a multiple of these is possible");
  }
  if (options.head_dim % 2 != 0) {
    throw CoreError(MOEDGE_BAD_OPTION, "head_dim=" + moedge::grouped(options.head_dim) + "; it must be even");
  }
  if (options.has_experts == nullptr) {
    throw CoreError(MOEDGE_BAD_OPTION, "has_experts=NULL; a value for each layer is needed");
  }
  moedge::DenseShape shape;
  shape.hidden = options.hidden_size;
  shape.heads = options.heads;
  shape.kv_heads = options.kv_heads;
  shape.head_dim = options.head_dim;
  shape.experts = options.experts;
  shape.vocabulary = options.vocabulary;
  shape.biased = options.biased != 0;
  shape.quantization = moedge::quantization_of(options.bits, options.block_size, options.symmetric);
  shape.head_quantization = moedge::quantization_of(options.head_bits, options.head_block_size, options.head_symmetric);
  shape.has_experts.assign(options.has_experts, options.has_experts + options.layers);
  for (const bool has_experts : shape.has_experts) {
    if (has_experts) continue;
    within("intermediate_size", options.intermediate_size, 1, kMost);
    shape.intermediate = options.intermediate_size;
  }
  return shape;
}

std::unique_ptr<moedge_dense> make(const moedge_dense_options& options, const moedge_core* core) {
  moedge::same_abi(options.abi);
  const moedge::DenseShape shape = shape_of(options);
  within("max_tokens", options.max_tokens, 1, 1 << 20);
  within("slots", options.slots, 1, 1 << 24);
  if (!(options.epsilon >= 0)) throw CoreError(MOEDGE_BAD_OPTION, "epsilon is below 0");
  if (core == nullptr) within("threads", options.threads, 1, 64);
  auto pool = core != nullptr ? core->core.pool() : std::make_shared<moedge::ThreadPool>(options.threads);
  const moedge::Kernels& kernels = core != nullptr ? core->core.kernels() : moedge::kernels_for(options.isa);
  return std::unique_ptr<moedge_dense>(new moedge_dense{
      moedge::Dense(shape, options.epsilon, options.max_tokens, options.slots, kernels, std::move(pool))});
}

void check(const moedge_dense_call& call, const moedge::DenseShape& shape) {
  present("hidden", call.hidden);
  present("cos", call.cos);
  present("sin", call.sin);
  present("keys", call.keys);
  present("values", call.values);
  present("residual", call.residual);
  if (call.layer >= shape.layers() || !shape.has_experts[call.layer]) return;
  present("moe_input", call.moe_input);
  present("router_logits", call.router_logits);
}

}  // namespace

extern "C" {

MOEDGE_EXPORT moedge_status moedge_dense_open(const moedge_dense_options* options, const moedge_core* core,
                                              moedge_dense** dense, moedge_error* error) {
  return guarded(error, [&] { *dense = make(*options, core).release(); });
}

MOEDGE_EXPORT void moedge_dense_close(moedge_dense* dense) { delete dense; }

MOEDGE_EXPORT moedge_status moedge_dense_load_layer(moedge_dense* dense, uint32_t layer,
                                                    const moedge_dense_weights* weights, moedge_error* error) {
  return guarded(error, [&] { dense->dense.load_layer(layer, *weights); });
}

MOEDGE_EXPORT moedge_status moedge_dense_load_head(moedge_dense* dense, const float* norm, const moedge_matrix* matrix,
                                                   moedge_error* error) {
  return guarded(error, [&] { dense->dense.load_head(norm, *matrix); });
}

MOEDGE_EXPORT moedge_status moedge_dense_layer(moedge_dense* dense, const moedge_dense_call* call,
                                               moedge_error* error) {
  return guarded(error, [&] {
    check(*call, dense->dense.shape());
    dense->dense.run_layer(*call);
  });
}

MOEDGE_EXPORT moedge_status moedge_dense_head(moedge_dense* dense, const float* hidden, float* logits,
                                              moedge_error* error) {
  return guarded(error, [&] { dense->dense.run_head(hidden, logits); });
}

MOEDGE_EXPORT void moedge_dense_bytes(const moedge_dense* dense, uint64_t* weights, uint64_t* buffers) {
  *weights = dense->dense.weight_bytes();
  *buffers = dense->dense.buffer_bytes();
}

}  // extern "C"
