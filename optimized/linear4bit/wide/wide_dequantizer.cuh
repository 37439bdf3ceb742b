#pragma once

#include <cstdint>

#include "optimized/linear4bit/cluster/matrix_lines.h"
#include "optimized/linear4bit/sixteen_values.h"
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
        map_(shared.map() + 4 * (lane_ % kMapCopies)),
        offset_(nested() ? __ldg(task.scales.offset) : 0.0F) {
    asm("" : "+r"(lane_), "+r"(map_));  // kept, not computed again
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
    SixteenValues values = scaled_codebook(asked_scale());
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
      write_pair_of_units(to, 0, values, first.x, first.y);
      write_pair_of_units(to, 2, values, first.z, first.w);
      first = load_shared_u32x4(codes_of(number + kTeams));
      const float scale = asked_scale();
      write_pair_of_units(to, 4, values, second.x, second.y);
      write_pair_of_units(to, 6, values, second.z, second.w);
      second = load_shared_u32x4(codes_of(number + kTeams) ^ 16);
      if (next.advance(*this, chunks)) first_block = block_of(next);
      ask_for_scale(first_block, next.chunk);
      fence_proxy_async_shared();  // an arrival alone would not wait for the loads of codes
      __syncwarp();
      if (lane_ == 0) {
        mbarrier_arrive(shared_.full(stage));
        if (more) release_codes(number + kTeams);
      }
      values = scaled_codebook(scale);
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

  [[nodiscard]] __device__ __forceinline__ bool nested() const {
    return task_.scales.absmax == nullptr;
  }

  /// Forward: the first block of the line's row of the weight; gradient: the block of a row that the line lies in.
  [[nodiscard]] __device__ __forceinline__ int block_of(const Turn& turn) const {
    const int feature = first_feature(task_, turn.tile);
    if constexpr (kForward) {
      return min(feature + cluster::feature_of_line(line_), task_.out_features - 1) * blocks_a_row_;
    } else {
      return min(feature + line_ / kChunk * kChunk, task_.in_features - 1) >> task_.block_shift;
    }
  }

  /// What a block's codes stand for, rounded to T: the bits of dequantize().
  [[nodiscard]] __device__ __forceinline__ SixteenValues scaled_codebook(float scale) const {
    const float* const value = task_.codebook.value;
    return SixteenValues([&](int code) {
      return round_pair<T>(multiply_ftz(value[code], scale), multiply_ftz(value[code + 1], scale));
    });
  }

  /// 16 elements of a line, whose address has the 128-byte swizzle in it. In the gradient the even features come first.
  __device__ __forceinline__ static void write_pair_of_units(std::uint32_t line, int unit, const SixteenValues& values,
                                                             std::uint32_t first, std::uint32_t second) {
    uint4 low;
    uint4 high;
    if constexpr (kForward) {
      values.look_up(first, low.x, low.y, low.z, low.w);
      values.look_up(second, high.x, high.y, high.z, high.w);
    } else {
      values.look_up_apart(first, low.x, low.y, high.x, high.y);
      values.look_up_apart(second, low.z, low.w, high.z, high.w);
    }
    store_shared_u32x4(line ^ unit * 16, low);
    store_shared_u32x4(line ^ (unit + 1) * 16, high);
  }

  /// Asks for the scale of the line in the chunk. There may be none: the places are clamped.
  __device__ __forceinline__ void ask_for_scale(int first_block, int chunk) {
    int block = first_block;
    if constexpr (kForward) {
      block += min(chunk * kChunk, task_.in_features - 1) >> task_.block_shift;
    } else {
      block += min(chunk * kChunk + line_ % kChunk, task_.out_features - 1) * blocks_a_row_;
    }
    if (nested()) {
      code_ = __ldg(task_.scales.absmax_codes + block);
      absmax_ = __ldg(task_.scales.nested_absmax + (block >> kNestedShift));
    } else {
      absmax_ = __ldg(task_.scales.absmax + block);
    }
  }

  /// The scale that was asked for.
  [[nodiscard]] __device__ __forceinline__ float asked_scale() const {
    if (!nested()) return absmax_;
    return nested_scale(__uint_as_float(load_shared_u32(map_ + 4 * kMapCopies * code_)), absmax_, offset_);
  }

  static constexpr int kNestedShift = 8;
  static_assert(kNestedBlocksize == 1 << kNestedShift);

  const Task<T>& task_;
  const SharedMemory<kColumns>& shared_;
  int team_;
  int cluster_;
  int steps_;  // of the cluster
  int lane_;
  int line_;
  int blocks_a_row_;
  std::uint32_t map_;  // the thread's copy of the nested map
  float offset_;
  std::uint32_t code_ = 0;
  float absmax_ = 0.0F;
};

}  // namespace qshard::optimized::wide

#endif
