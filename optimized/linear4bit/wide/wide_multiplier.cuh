#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/segment_end.cuh"
#include "optimized/linear4bit/wide/wide_operands.cuh"
#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/uniform.cuh"
#include "optimized/ptx/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// A warpgroup's part of the product: 64 features of every tile, which are rows of its matrix instructions.
template <typename T, bool kForward, int kColumns>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Task<T>& task, const SharedMemory<kColumns>& shared)
      : task_(task),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % 32),
        input_(lower_word(shared.input(0))),
        weight_(lower_word(own_weight(shared))),
        operands_(own_weight(shared)) {}

  /// When the barriers are set up and earlier kernels are done.
  __device__ __forceinline__ void run() {
    const int own_cluster = static_cast<int>(blockIdx.x) / kCluster;
    const int all = task_.order.steps_of(own_cluster, task_.tiles);
    for (int number = 0; number < all;) {
      const Segment segment = task_.order.segment(own_cluster, number);
      number = segment.end;
      int chunks = (segment.end - segment.begin) * kChunks;
      asm("" : "+r"(chunks));  // kept, not computed again
      multiply_chunk(false);
      ready_.tell(task_, cluster_rank());
#pragma unroll 1
      for (int chunk = 1; chunk < chunks; ++chunk) {
        const int last_stage = stage_.stage;
        stage_.advance();
        multiply_chunk(true);
        release(last_stage);
      }
      const cluster::SegmentEnd end(task_, segment, segment.tile % task_.column_tiles * kColumns,
                                    first_feature(task_, segment.tile), cluster_rank());
      end.wait_ahead();
      wgmma_wait<0>(sums_);
      release(stage_.stage);
      stage_.advance();
      ready_ = end.finish(sums_);
    }
    ready_.tell(task_, cluster_rank());
  }

 private:
  using Shared = SharedMemory<kColumns>;
  static constexpr bool kLoads = loads_operands(kColumns);
  static constexpr int kHalf = kInstructions / 2;  // of a chunk
  static constexpr int kParts = part_count(kColumns);
  static constexpr int kPartSums = kColumns / 2 / kParts;
  static constexpr std::uint32_t kPartAdvance = kColumns / kParts * kLineBytes;
  /// From one matrix instruction of a chunk to the next: 16 elements of each line, or 16 lines.
  static constexpr std::uint32_t kWeightAdvance = kForward ? 32 : 16 * kLineBytes;

  /// The warpgroup's part of the first stage.
  __device__ __forceinline__ static std::uint32_t own_weight(const Shared& shared) {
    return shared.weight(0) + warpgroup_index() * (kLines / 2 * kLineBytes);
  }

  /// The lower word of the descriptor of a matrix, which has its address; the upper one is the same for all.
  __device__ __forceinline__ static std::uint32_t lower_word(std::uint32_t address) {
    return static_cast<std::uint32_t>(swizzled_matrix_descriptor(address));
  }

  __device__ __forceinline__ static std::uint64_t descriptor(std::uint32_t lower) {
    return swizzled_matrix_descriptor(0) >> 32 << 32 | lower;
  }

  [[nodiscard]] __device__ __forceinline__ auto& sums_of(int part) {
    return reinterpret_cast<float(&)[kPartSums]>(sums_[part * kPartSums]);
  }

  /// Puts a chunk's instructions behind those of the chunk before, which are done when it returns.
  __device__ __forceinline__ void multiply_chunk(bool add) {
    mbarrier_wait(shared_.full(stage_.stage), stage_.parity);
    if constexpr (kLoads) {
      multiply_loaded(0, add);
      multiply_loaded(1, true);
    } else {
      multiply_shared(add);
      wgmma_wait<1>();
    }
  }

  /// A chunk's instructions with both operands from shared memory.
  __device__ __forceinline__ void multiply_shared(bool add) {
    const std::uint32_t weight = weight_ + stage_.stage * (Shared::kStageBytes / 16);
    const std::uint32_t input = input_ + stage_.stage * (Shared::kStageBytes / 16);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        wgmma_shared<T, !kForward>(sums_of(part), descriptor(weight + kWeightAdvance / 16 * i),
                                   descriptor(input + kPartAdvance / 16 * part + 2 * i), add || i > 0);
      }
    }
    wgmma_commit();
  }

  /// Half of a chunk's instructions. Their first operands are loaded while the other half's run, to where those of this
  /// half of the chunk before were: when it returns all instructions before the other half's are done.
  __device__ __forceinline__ void multiply_loaded(int half, bool add) {
    const std::uint32_t input = input_ + stage_.stage * (Shared::kStageBytes / 16);
    auto& operands = loaded_[half];
    wgmma_wait<1>();
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      operands_.load(operands[i], stage_.stage * Shared::kStageBytes, half * kHalf + i);
    }
    wgmma_fence(operands);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        wgmma<T>(sums_of(part), operands[i], descriptor(input + kPartAdvance / 16 * part + 2 * (half * kHalf + i)),
                 add || i > 0);
      }
    }
    wgmma_commit();
  }

  /// Tells both thread blocks that this warp has read the stage.
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();
    if (lane_ < kCluster) mbarrier_arrive_cluster(shared_.empty(stage), lane_);
  }

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  int lane_;
  std::uint32_t input_;                // the lower words of the first stage's descriptors
  std::uint32_t weight_;               // used unless kLoads
  Operands<kForward> operands_;        // used where kLoads,
  std::uint32_t loaded_[2][kHalf][4];  // as are the operands of either half of a chunk
  StageCounter<Shared::kStages> stage_;
  cluster::ReadySums ready_;  // of the segment before
  float sums_[kColumns / 2];
};

}  // namespace qshard::optimized::wide

#endif
