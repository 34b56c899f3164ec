// The dense layers beside the experts: attention, router and head.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "attention.hpp"
#include "dense_kernels.hpp"
#include "dense_layout.hpp"
#include "kernels.hpp"
#include "moedge_core.h"
#include "phases.hpp"
#include "slab.hpp"
#include "thread_pool.hpp"

namespace moedge {

class Dense {
 public:
  // Throws CoreError OUT_OF_MEMORY.
  Dense(DenseShape shape, float epsilon, uint32_t max_tokens, uint32_t slots, const Kernels& kernels,
        std::shared_ptr<ThreadPool> pool);

  // See moedge_dense_load_layer, moedge_dense_load_head, moedge_dense_layer and moedge_dense_head; they throw
  // CoreError.
  void load_layer(uint32_t layer, const moedge_dense_weights& weights);
  void load_head(const float* norm, const moedge_matrix& matrix);
  void run_layer(const moedge_dense_call& call);
  void run_head(const float* hidden, float* logits);

  const DenseShape& shape() const { return shape_; }
  const Kernels& kernels() const { return kernels_; }
  uint64_t weight_bytes() const { return layout_.bytes; }
  uint64_t buffer_bytes() const { return buffers_.end; }

 private:
  // Of one token: tasks of attention for each thread, so that none waits long for another.
  static constexpr uint32_t kTasksOfThread = 4;
  // Tokens of a task that normalises or quantizes.
  static constexpr uint32_t kTokensOfTask = 8;

  enum Phase : uint32_t {
    kNormInput,
    kProject,
    kRotate,
    kAttend,
    kMerge,
    kQuantizeMixed,
    kOutput,
    kNormResidual,
    kRoute,
    kQuantizeActivated,
    kDown,
    kPhases
  };

  // Where in the slab of the buffers each lies, bytes.
  struct Buffers {
    uint64_t rows = 0;        // activation rows of the tokens, of whichever product is next
    uint64_t guess_rows = 0;  // activation rows of the last token, one for each guess
    uint64_t projected = 0;   // float [tokens, projected]; attention puts its result where the queries were
    uint64_t activated = 0;   // float [tokens, intermediate]
    uint64_t queries = 0;     // of one token: float [kv_heads, head_dim, lanes]
    uint64_t chunks = 0;      // of one token: what each chunk of each KV head gave
    uint64_t scratch = 0;     // of each thread
    uint64_t scratch_bytes = 0;
    uint64_t end = 0;
  };

  static Buffers place_buffers(const DenseShape& shape, uint32_t max_tokens, uint32_t slots, uint32_t threads);
  AttentionScratch scratch(uint32_t thread);
  float* normed(uint32_t thread);  // [hidden], in front of the scratch
  Attended chunk_result(uint32_t kv_head, uint32_t chunk);
  void check(const moedge_dense_call& call) const;
  void step(uint32_t phase, uint32_t task, uint32_t thread);
  void quantize(const float* x, uint32_t count, const Quantization& quantization, uint8_t* row);
  void norm_input(uint32_t token, float* normed);
  void rotate(uint32_t kv_head, uint32_t token);
  uint32_t gather_queries(uint32_t kv_head, uint32_t begin, uint32_t end, float* queries) const;
  void put_mixed(uint32_t kv_head, uint32_t begin, uint32_t end, const Attended& all);
  Chunk chunk_of(uint32_t kv_head, uint32_t chunk, uint32_t keys, bool more) const;
  void attend_chunks(uint32_t task, uint32_t thread);
  void attend_tokens(uint32_t task, uint32_t thread);
  void merge_chunks(uint32_t kv_head, uint32_t thread);
  void norm_residual(uint32_t token, float* normed);
  uint8_t* guess_row(uint32_t ahead);
  void route(uint32_t task);
  void gate_and_up(uint32_t task);

  const DenseShape shape_;
  const float epsilon_;
  const uint32_t max_tokens_;
  const uint32_t slots_;
  const Kernels& kernels_;
  const DenseKernels& dense_;
  const std::shared_ptr<ThreadPool> pool_;
  const DenseLayout layout_;
  const Buffers buffers_;
  Slab weights_;
  Slab memory_;
  std::vector<uint8_t> loaded_;  // by layer, the head last; layers may be loaded side by side
  Phases phases_;

  // The call under way.
  moedge_dense_call call_{};
  const DenseLayerLayout* layer_ = nullptr;
  uint32_t foreseen_ = 0;         // layers whose routers the last token is shown
  uint32_t tokens_of_block_ = 1;  // of a task that computes attention of several tokens
  uint32_t chunks_of_task_ = 1;   // of one that computes it of one token
  std::atomic<bool> finite_{true};
};

}  // namespace moedge
