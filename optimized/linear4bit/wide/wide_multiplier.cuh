#pragma once

#include <cstdint>
#include <type_traits>

#include "optimized/linear4bit/wide/wide_forward_weights.cuh"
#include "optimized/linear4bit/wide/wide_gradient_weights.cuh"
#include "optimized/linear4bit/wide/wide_sums.cuh"
#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// A warp's part of the product: 16 features of every tile, which are rows of its matrix instructions. Each lane
/// dequantizes its part of a chunk to registers while the matrix unit works on the chunk before; the input is
/// multiplied from shared memory.
template <typename T, bool kForward, int kColumns>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Task<T>& task, const SharedMemory<kColumns>& shared, int begin, int end)
      : task_(task),
        shared_(shared),
        at_(task.split, begin),
        left_(end - begin),
        rank_(cluster_rank()),
        lane_(static_cast<int>(threadIdx.x) % 32),
        weights_(task, shared.table, shared.codes(0), shared.scales(static_cast<int>(threadIdx.x) / 32), shared.map(),
                 at_, left_, rank_) {}

  /// When shared memory is ready.
  __device__ __forceinline__ void run() {
    weights_.begin();
    wait_for_codes();
    prepare(0);
    while (left_ > 0) {
      const int first_step = at_.step;
      const int end_step = min(task_.split.steps, first_step + left_);
      int steps = end_step - first_step;
      asm("" : "+r"(steps));  // kept, not computed again
      bool add = false;
#pragma unroll 1
      for (; steps > 0; --steps) {
        multiply_step(add);
        add = true;
      }
      wgmma_wait<0>(sums_);
      release_input(1);
      const int feature = task_.first_feature(at_.tile, rank_) + weights_.own_feature();
      const int column = at_.tile % task_.column_tiles * kColumns;
      if (end_step - first_step == task_.split.steps) {
        store_sums<T>(task_, sums_, column, feature);
      } else {
        share_sums<T>(task_, sums_, at_.tile, column, feature, rank_);
      }
      ++at_.tile;
      at_.step = 0;
    }
  }

 private:
  using Shared = SharedMemory<kColumns>;

  /// Chunk 0 has been prepared. add: to the sums of the step before, whose chunk 1 is under way.
  __device__ __forceinline__ void multiply_step(bool add) {
    const bool more = --left_ > 0;
    start(0, add);
    wgmma_wait<1>();
    if (add) release_input(1);
    prepare(1);
    if (lane_ == 0) mbarrier_arrive(shared_.codes_empty(codes_at_.stage));
    start(1, true);
    wgmma_wait<1>();
    release_input(0);
    if (more) {
      codes_at_.advance();
      weights_.advance();
      wait_for_codes();
      prepare(0);
    }
  }

  __device__ __forceinline__ void wait_for_codes() const {
    mbarrier_wait(shared_.codes_full(codes_at_.stage), codes_at_.parity);
  }

  __device__ __forceinline__ void prepare(int chunk) {
    weights_.prepare(chunk, codes_at_.stage * Shared::kCodeBytes, registers_[chunk]);
  }

  __device__ __forceinline__ void start(int chunk, bool add) {
    input_stage_[chunk] = input_at_.stage;
    mbarrier_wait(shared_.input_full(input_at_.stage), input_at_.parity);
    input_at_.advance();
    const std::uint64_t input =
        swizzled_matrix_descriptor(shared_.input(0)) + input_stage_[chunk] * Shared::kInputBytes / 16;
    wgmma_fence(registers_[chunk]);
#pragma unroll
    for (int s = 0; s < kInstructions; ++s) wgmma<T>(sums_, registers_[chunk][s], input + 2 * s, add || s > 0);
    wgmma_commit();
  }

  /// Tells both thread blocks' loaders that this warp has read the chunk's input.
  __device__ __forceinline__ void release_input(int chunk) const {
    if (lane_ < kCluster) mbarrier_arrive_cluster(shared_.input_empty(input_stage_[chunk]), lane_);
  }

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  Place at_;
  int left_;  // steps
  int rank_;
  int lane_;
  std::conditional_t<kForward, ForwardWeights<T>, GradientWeights<T>> weights_;
  StageCounter<Shared::kCodeStages> codes_at_;
  StageCounter<Shared::kInputStages> input_at_;
  int input_stage_[kChunks];
  std::uint32_t registers_[kChunks][kInstructions][4];
  float sums_[kColumns / 2];
};

}  // namespace qshard::optimized::wide

#endif
