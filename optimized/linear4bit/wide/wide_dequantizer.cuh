#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/line_scale.cuh"
#include "optimized/linear4bit/cluster/line_values.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// A thread's part: a line of the weight of every chunk of its team, from codes to a stage.
template <typename T, bool kForward, int kColumns, bool kNested>
class Dequantizer {
 public:
  __device__ __forceinline__ Dequantizer(const Task<T>& task, const SharedMemory<kColumns>& shared, int team)
      : task_(task),
        shared_(shared),
        team_(team),
        cluster_(static_cast<int>(blockIdx.x) / kCluster),
        steps_(task.order.steps_of(cluster_, task.tiles)),
        lane_(static_cast<int>(threadIdx.x) % 32),
        line_(line_of_thread(kForward, static_cast<int>(threadIdx.x) % kLines)),
        blocks_a_row_(task.in_features >> task.block_shift),
        scale_(task.scales, shared.map()) {
    asm("" : "+r"(lane_));  // kept, not computed again
  }

  /// When the barriers are set up. What needs no memory is done before the wait for earlier kernels. Each turn reads
  /// the codes of the next one and makes its values, so that nobody waits for them. Every instruction of a turn counts:
  /// up to 128 columns its time is what the product takes. The last turn reads codes that are not there, for which
  /// nobody waits.
  __device__ __forceinline__ void run() {
    const int chunks = steps_ * kChunks;
    if (team_ >= chunks) return;
    Turn next(*this, team_);
    int first_block = block_of(next);
    int own_block = block_in(first_block, next.inner);
    if (next.advance(*this, chunks)) first_block = block_of(next);
    int next_block = block_in(first_block, next.inner);
    // Made before the wait.
    asm volatile("" : "+r"(own_block), "+r"(next_block), "+r"(next.inner), "+r"(next.left), "+r"(next.after));
    scale_.prefetch(own_block);
    scale_.prefetch(next_block);
    CodesPlace place(shared_, team_, line_);
    std::uint32_t units[8];  // of 16 bytes, of the line in the first stage
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      units[i] = shared_.weight(0) + line_ * kLineBytes + (line_ % 8 ^ i) * 16;
      asm("" : "+r"(units[i]));  // kept, not computed again
    }
    grid_dependency_synchronize();
    scale_.begin();
    scale_.ask_first(own_block);
    const cluster::LineScale<kNested> own_scale = scale_;
    scale_.ask_first(next_block);
    scale_.template fill_map<kTeams * 128>(task_.scales, shared_.map());
    place.wait();
    uint4 first = load_shared_u32x4(place.address());
    uint4 second = load_shared_u32x4(place.address() ^ 16);
    SixteenValues values = cluster::scaled_codebook<T>(task_.codebook, own_scale.asked());
    fence_proxy_async_shared();
    __syncwarp();
    mbarrier_arrive_if(place.empty(), lane_ == 0);
    // Lane 0 releases the next turn's codes in every turn but the last, which has none, the others never.
    int unreleased = lane_ == 0 ? 1 : chunks;
    asm("" : "+r"(unreleased));  // kept, not computed again
    int stage = team_;
    std::uint32_t offset = team_ * Shared::kStageBytes;  // of the stage from the first one
    int parity = 1;
#pragma unroll 1
    for (int turns = (chunks - team_ + kTeams - 1) / kTeams; turns > 0; --turns) {
      place.advance();
      mbarrier_wait(shared_.empty(stage), parity);
      if (turns > 1) place.wait();
      cluster::write_two_units<kForward>(units[0] + offset, units[1] + offset, values, first.x, first.y);
      cluster::write_two_units<kForward>(units[2] + offset, units[3] + offset, values, first.z, first.w);
      first = load_shared_u32x4(place.address());
      const float scale = scale_.asked();
      cluster::write_two_units<kForward>(units[4] + offset, units[5] + offset, values, second.x, second.y);
      cluster::write_two_units<kForward>(units[6] + offset, units[7] + offset, values, second.z, second.w);
      second = load_shared_u32x4(place.address() ^ 16);
      fence_proxy_async_shared();  // an arrival alone would not wait for the loads of codes
      __syncwarp();
      mbarrier_arrive_if(shared_.full(stage), lane_ == 0);
      mbarrier_arrive_if(place.empty(), turns > unreleased);
      if (next.advance(*this, chunks)) first_block = block_of(next);
      scale_.ask(block_in(first_block, next.inner));
      values = cluster::scaled_codebook<T>(task_.codebook, scale);
      stage += kTeams;
      offset += kTeams * Shared::kStageBytes;
      if (stage >= Shared::kStages) {
        stage -= Shared::kStages;
        offset -= Shared::kStages * Shared::kStageBytes;
        parity ^= 1;
      }
    }
    __syncwarp();
  }

 private:
  using Shared = SharedMemory<kColumns>;
  static constexpr int kTeams = Shared::kTeams;

  /// A chunk of the cluster's.
  struct Turn {
    int inner;  // the chunk's first, of the tile's inner dimension
    int left;   // turns of the team until its segment ends, from this one on
    int after;  // the team's first chunk behind the segment
    int tile;

    __device__ __forceinline__ Turn(const Dequantizer& of, int number) { find(of, number); }

    /// Goes on to the team's next turn; returns whether it is in another tile. Behind the last turn it stays there.
    __device__ __forceinline__ bool advance(const Dequantizer& of, int chunks) {
      inner += kTeams * kChunk;
      if (--left != 0 || after >= chunks) return false;
      find(of, after);
      return true;
    }

   private:
    __device__ __forceinline__ void find(const Dequantizer& of, int number) {
      const Segment segment = of.task_.order.segment(of.cluster_, number / kChunks);
      inner = (number + (segment.first_step - segment.begin) * kChunks) * kChunk;
      left = (segment.end * kChunks - number + kTeams - 1) / kTeams;
      after = number + left * kTeams;
      tile = segment.tile;
    }
  };

  /// Where the codes of the thread's line lie in the team's next chunk. Forward they have a row a feature, of which a
  /// chunk takes half; in the gradient a row one of the inner dimension, of which a line takes half.
  class CodesPlace {
   public:
    __device__ __forceinline__ CodesPlace(const Shared& shared, int team, int line) : shared_(shared), half_(team) {
      const int row = kForward ? cluster::feature_of_line(line) : line % kChunk;
      const int unit = (kForward ? 0 : line / kChunk * 2) ^ row / 2 % 4;
      first_ = shared.codes(0) + row * 64 + unit * 16;
      if (kTeams == kChunks) first_ = of_half(team);
      asm("" : "+r"(first_));
    }

    [[nodiscard]] __device__ __forceinline__ std::uint32_t address() const {
      return (kTeams == kChunks ? first_ : of_half(half_)) + stage_.stage * Shared::kCodeBytes;
    }

    __device__ __forceinline__ void wait() const { mbarrier_wait(shared_.codes_full(stage_.stage), stage_.parity); }

    /// The barrier by which the team says that it has read them.
    [[nodiscard]] __device__ __forceinline__ std::uint32_t empty() const { return shared_.codes_empty(stage_.stage); }

    __device__ __forceinline__ void advance() {
      if (kTeams == kChunks || half_ == kChunks - 1) stage_.advance();
      if (kTeams != kChunks) half_ ^= 1;
    }

   private:
    static_assert(kChunks == 2 && kTeams <= kChunks);

    [[nodiscard]] __device__ __forceinline__ std::uint32_t of_half(int half) const {
      return kForward ? first_ ^ half * 32 : first_ + half * (kChunk * 64);
    }

    const Shared& shared_;
    int half_;             // of a step: which of its chunks
    std::uint32_t first_;  // in the first stage
    StageCounter<Shared::kCodeStages> stage_;
  };

  /// Forward: the first block of the line's row of the weight; gradient: the block of a row that the line lies in.
  [[nodiscard]] __device__ __forceinline__ int block_of(const Turn& turn) const {
    const int feature = first_feature(task_, turn.tile);
    if constexpr (kForward) {
      return min(feature + cluster::feature_of_line(line_), task_.out_features - 1) * blocks_a_row_;
    } else {
      return min(feature + line_ / kChunk * kChunk, task_.in_features - 1) >> task_.block_shift;
    }
  }

  /// The line's block in the chunk that begins with `inner`. There may be none: the places are clamped.
  [[nodiscard]] __device__ __forceinline__ int block_in(int first_block, int inner) const {
    if constexpr (kForward) {
      return first_block + (min(inner, task_.in_features - 1) >> task_.block_shift);
    } else {
      return first_block + min(inner + line_ % kChunk, task_.out_features - 1) * blocks_a_row_;
    }
  }

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  int team_;
  int cluster_;
  int steps_;  // of the cluster
  int lane_;
  int line_;
  int blocks_a_row_;
  cluster::LineScale<kNested> scale_;
};

}  // namespace qshard::optimized::wide

#endif
