#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/line_scale.cuh"
#include "optimized/linear4bit/cluster/line_values.cuh"
#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::wide {

/// A thread's part: a line of the weight of every chunk of its team, from codes to a stage.
template <typename T, bool kForward, int kColumns>
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

  /// When shared memory is ready. Each turn reads the codes of the next one and makes its values, so that nobody waits
  /// for them.
  __device__ __forceinline__ void run() {
    const int chunks = steps_ * kChunks;
    if (team_ >= chunks) return;
    Turn next(*this, team_);
    int first_block = block_of(next);
    ask_for_scale(first_block, next.chunk);
    // Codes: forward a row a feature, of which a chunk takes half; gradient a row one of the inner dimension, of which
    // a line takes half.
    const int code_row = kForward ? cluster::feature_of_line(line_) : line_ % kChunk;
    const int unit = (kForward ? 0 : line_ / kChunk * 2) ^ code_row / 2 % 4;
    std::uint32_t own_codes = shared_.codes(0) + code_row * 64 + unit * 16;
    std::uint32_t own_line = shared_.weight(0) + line_ * kLineBytes + line_ % 8 * 16;
    asm("" : "+r"(own_codes), "+r"(own_line));
    const auto codes_of = [&](unsigned number) {
      const unsigned half = number % kChunks;
      return (kForward ? own_codes ^ half * 32 : own_codes + half * (kChunk * 64)) +
             number / kChunks % Shared::kCodeStages * Shared::kCodeBytes;
    };
    const auto wait_for_codes = [&](unsigned number) {
      const unsigned step = number / kChunks;
      mbarrier_wait(shared_.codes_full(step % Shared::kCodeStages), step / Shared::kCodeStages % 2);
    };
    const auto release_codes = [&](unsigned number) {
      mbarrier_arrive(shared_.codes_empty(number / kChunks % Shared::kCodeStages));
    };
    wait_for_codes(team_);
    uint4 first = load_shared_u32x4(codes_of(team_));
    uint4 second = load_shared_u32x4(codes_of(team_) ^ 16);
    SixteenValues values = cluster::scaled_codebook<T>(task_.codebook, scale_.asked());
    fence_proxy_async_shared();
    __syncwarp();
    if (lane_ == 0) release_codes(team_);
    if (next.advance(*this, chunks)) first_block = block_of(next);
    ask_for_scale(first_block, next.chunk);
    int stage = team_;
    int parity = 1;
#pragma unroll 1
    for (int number = team_; number < chunks; number += kTeams) {
      const bool more = number + kTeams < chunks;
      mbarrier_wait(shared_.empty(stage), parity);
      if (more) wait_for_codes(number + kTeams);
      const std::uint32_t to = own_line + stage * Shared::kStageBytes;
      cluster::write_pair_of_units<kForward>(to, 0, values, first.x, first.y);
      cluster::write_pair_of_units<kForward>(to, 2, values, first.z, first.w);
      first = load_shared_u32x4(codes_of(number + kTeams));
      const float scale = scale_.asked();
      cluster::write_pair_of_units<kForward>(to, 4, values, second.x, second.y);
      cluster::write_pair_of_units<kForward>(to, 6, values, second.z, second.w);
      second = load_shared_u32x4(codes_of(number + kTeams) ^ 16);
      if (next.advance(*this, chunks)) first_block = block_of(next);
      ask_for_scale(first_block, next.chunk);
      fence_proxy_async_shared();  // an arrival alone would not wait for the loads of codes
      __syncwarp();
      if (lane_ == 0) {
        mbarrier_arrive(shared_.full(stage));
        if (more) release_codes(number + kTeams);
      }
      values = cluster::scaled_codebook<T>(task_.codebook, scale);
      stage += kTeams;
      if (stage >= Shared::kStages) {
        stage -= Shared::kStages;
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
    int number;
    int end;    // of its segment
    int chunk;  // of the tile
    int tile;

    __device__ __forceinline__ Turn(const Dequantizer& of, int at) : number(at) { find(of); }

    /// Goes on to the team's next turn; returns whether it is in another tile. Behind the last turn it stays there.
    __device__ __forceinline__ bool advance(const Dequantizer& of, int chunks) {
      number += kTeams;
      chunk += kTeams;
      if (number < end || number >= chunks) return false;
      find(of);
      return true;
    }

   private:
    __device__ __forceinline__ void find(const Dequantizer& of) {
      const Segment segment = of.task_.order.segment(of.cluster_, number / kChunks);
      end = segment.end * kChunks;
      chunk = number + (segment.first_step - segment.begin) * kChunks;
      tile = segment.tile;
    }
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

  /// Asks for the scale of the line in the chunk. There may be none: the places are clamped.
  __device__ __forceinline__ void ask_for_scale(int first_block, int chunk) {
    int block = first_block;
    if constexpr (kForward) {
      block += min(chunk * kChunk, task_.in_features - 1) >> task_.block_shift;
    } else {
      block += min(chunk * kChunk + line_ % kChunk, task_.out_features - 1) * blocks_a_row_;
    }
    scale_.ask(block);
  }

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  int team_;
  int cluster_;
  int steps_;  // of the cluster
  int lane_;
  int line_;
  int blocks_a_row_;
  cluster::LineScale scale_;
};

}  // namespace qshard::optimized::wide

#endif
