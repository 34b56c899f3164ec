// The vision tower: patches of a picture to features of its image tokens.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attention.hpp"
#include "dense_kernels.hpp"
#include "kernels.hpp"
#include "moedge_core.h"
#include "phases.hpp"
#include "slab.hpp"
#include "thread_pool.hpp"
#include "vision_layout.hpp"

namespace moedge {

class Vision {
 public:
  // Throws CoreError OUT_OF_MEMORY.
  Vision(VisionShape shape, float epsilon, const Kernels& kernels, std::shared_ptr<ThreadPool> pool);

  // See moedge_vision_load_patches and so on; they throw CoreError.
  void load_patches(const moedge_matrix& matrix, const float* positions);
  void load_block(uint32_t block, const moedge_vision_block_weights& weights);
  void load_merger(uint32_t merger, const moedge_vision_merger_weights& weights);
  void embed(const moedge_vision_picture& picture, const float* pixels, const uint32_t* corners, const float* shares);
  void run_block(const moedge_vision_picture& picture, uint32_t block);
  void merge(const moedge_vision_picture& picture, uint32_t merger, float* features);

  const VisionShape& shape() const { return shape_; }
  const Kernels& kernels() const { return kernels_; }
  uint64_t weight_bytes() const { return layout_.bytes; }
  uint64_t buffer_bytes() const { return scratch_bytes_ * pool_->size(); }
  uint64_t picture_bytes(uint32_t patches) const;

  // Patches whose positions are blended from four learned ones each.
  static constexpr uint32_t kCorners = 4;

 private:
  // Tokens of a task that normalises or quantizes.
  static constexpr uint32_t kTokensOfTask = 8;

  // The picture's memory: activation rows of whichever product is next, and floats: of each patch the query, then what
  // attention made of it; behind these of each head the keys and the values of all patches; later what is between the
  // two products of an MLP.
  struct Picture {
    uint32_t patches;
    uint32_t of_frame;  // patches
    uint8_t* rows;
    float* queries;    // [patches, hidden]
    float* keys;       // [heads, patches, head_dim]
    float* values;     // [heads, patches, head_dim]
    float* activated;  // [patches, intermediate] or [patches / merge, merged], where the queries are
  };

  // What a step of a call computes on a task.
  using Step = std::function<void(uint32_t task, uint32_t thread)>;
  struct Part {
    uint32_t tasks;
    Step step;
  };

  void run(std::span<const Part> parts);
  Picture open(const moedge_vision_picture& picture) const;
  uint64_t row_bytes() const;
  float* scratch(uint32_t thread);
  const float* vector(uint64_t at) const { return reinterpret_cast<const float*>(weights_.data() + at); }
  void make_row(const float* x, uint32_t count, uint8_t* row);
  Part norm(const float* x, const Norm& weights, uint32_t count, uint32_t inputs, uint32_t size, uint8_t* rows);
  Part quantize(const float* x, uint32_t count, uint32_t inputs, uint8_t* rows);
  template <class Use>
  Part product(const Linear& linear, uint32_t count, uint32_t inputs, uint32_t outputs, const uint8_t* rows,
               const Use& use);
  void attend(const Picture& own, uint32_t task, uint32_t thread);
  void rotate(const Picture& own, const moedge_vision_picture& picture, uint32_t patch) const;
  void split(const Picture& own, uint32_t patch, uint32_t first, const float* values, const float* bias,
             uint32_t count) const;
  uint32_t block_place(uint32_t block) const;
  uint32_t merger_place(uint32_t merger) const;
  uint32_t& begin_load(size_t place, uint32_t index, const std::string& name);
  void check_loaded(size_t place, uint32_t index, const std::string& name) const;

  const VisionShape shape_;
  const float epsilon_;
  const Kernels& kernels_;
  const DenseKernels& dense_;
  const std::shared_ptr<ThreadPool> pool_;
  const VisionLayout layout_;
  const uint64_t scratch_bytes_;  // of a thread
  Slab weights_;
  Slab memory_;
  std::vector<uint32_t> loaded_;  // by place, blocks, mergers, the patches: who is there, counted from 1; 0 for nobody
  Phases phases_;
  std::atomic<bool> finite_{true};
};

}  // namespace moedge
