#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/linear4bit/many_rows/add_up_shared.cuh"
#include "optimized/linear4bit/many_rows/many_rows_tiles.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/tensor_copy.cuh"
#include "optimized/ptx/uniform.cuh"
#include "optimized/ptx/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::many_rows {

/// A warpgroup's part of the weight in a stage, for matrix instruction `i` of a step: lines of 128 bytes in the copies'
/// swizzle. Forward: a line is a column of the output, 64 of the inner dimension; gradient: one of the inner dimension,
/// 64 columns.
template <bool kForward>
__device__ __forceinline__ std::uint64_t weight_descriptor(std::uint32_t weight, int i) {
  return swizzled_matrix_descriptor(weight) + (kForward ? 32 : 16 * 128) / 16 * i;
}

/// A warpgroup's part: 64 columns of each tile.
template <typename T, bool kForward, bool kAdapter>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Task& task, const CUtensorMap& output, const SharedMemory& shared)
      : task_(task),
        output_(output),
        shared_(shared),
        warpgroup_(warpgroup_index()),
        lane_(static_cast<int>(threadIdx.x) % 32) {
    asm("" : "+r"(lane_));  // kept, not computed again
  }

  __device__ __forceinline__ void run() {
    for (int item = static_cast<int>(blockIdx.x) / kCluster; item < task_.deal.items(); item += task_.clusters()) {
      const TilePart part = task_.deal.part(item);
      if (part.steps == 0) continue;
      const Place place(task_, part.tile);
      if constexpr (kAdapter) multiply_adapter(place, part.first_step == 0);
      int steps = part.steps;
      asm("" : "+r"(steps));  // kept in a register
      multiply_steps(steps, kAdapter);
      if (completes(part)) store(place);
    }
    if (threadIdx.x % 128 == 0) tma_store_wait();
  }

 private:
  static constexpr int kMaskWords = kTileRows / 32;

  /// Adds so many steps to the sums, or begins them where not `add`.
  __device__ __forceinline__ void multiply_steps(int steps, bool add) {
    int last_stage = 0;
    for (int step = 0; step < steps; ++step, at_.advance()) {
      multiply_step(add || step > 0);
      wgmma_wait<1>();
      if (step > 0) release(last_stage);
      last_stage = at_.stage;
    }
    wgmma_wait<0>(sums_);
    release(last_stage);
  }

  /// Whether the sums are those of a whole tile: of one that clusters share, of all of them, in one of them.
  __device__ __forceinline__ bool completes(const TilePart& part) {
    if (part.steps == task_.steps) return true;
    const int sharers = task_.deal.parts;
    const int tile = part.tile - task_.deal.whole;
    const int rank = cluster_rank();
    const auto partials = [&](int sharer) {
      const std::int64_t place = std::int64_t{tile * sharers + sharer} * kCluster + rank;
      return task_.partials + place * (kTileRows / 2) * kMultipliers + threadIdx.x;
    };
    const auto arrivals = [&](int sharer) {
      return task_.arrivals + ((tile * sharers + sharer) * kCluster + rank) * kWarpgroups + warpgroup_;
    };
    return add_up_shared<kMultipliers>(WarpgroupTeam{warpgroup_ + 1}, sharers, part.number, partials, arrivals, sums_);
  }

  /// Of each 32 rows: a lane has the bits of one row, for the warp's 16 columns.
  __device__ __forceinline__ void load_mask(const Place& place, std::uint32_t (&kept)[kMaskWords]) const {
    const int column = first_column(place) + static_cast<int>(threadIdx.x) % 128 / 32 * 16;
    const std::uint8_t* const mask = task_.adapter_mask + column / 8;
#pragma unroll
    for (int i = 0; i < kMaskWords; ++i) {
      const int row = place.row + 32 * i + lane_;
      const bool inside = row < task_.rows && column < task_.in_features;
      kept[i] = inside ? __ldg(reinterpret_cast<const std::uint16_t*>(mask + row * task_.mask_stride)) : 0;
    }
  }

  /// Sums of what the mask drops become 0; for where a thread's sums are, see store().
  __device__ __forceinline__ void drop_sums(const std::uint32_t (&kept)[kMaskWords]) {
#pragma unroll
    for (int i = 0; i < kTileRows / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const std::uint32_t bits = __shfl_sync(0xFFFFFFFFU, kept[i / 4], i % 4 * 8 + lane_ % 4 * 2 + j) >> lane_ / 4;
        if ((bits & 1) == 0) sums_[4 * i + j] = 0.0F;
        if ((bits & 0x100) == 0) sums_[4 * i + 2 + j] = 0.0F;
      }
    }
  }

  /// Makes the adapter's part of the output of a tile. Of a tile that clusters share one `counts`; the others take as
  /// many steps for zeros: where two ways to begin the sums meet, ptxas finds no registers.
  __device__ __forceinline__ void multiply_adapter(const Place& place, bool counts) {
    if constexpr (kForward) {
      multiply_steps(task_.adapter_steps, false);
    } else {
      const bool masked = task_.adapter_mask != nullptr;
      std::uint32_t kept[kMaskWords];
      if (masked) load_mask(place, kept);
      multiply_steps(task_.adapter_steps, false);
      if (masked) drop_sums(kept);
    }
    const float scale = counts ? task_.adapter_scale : 0.0F;
#pragma unroll
    for (float& sum : sums_) sum *= scale;
    wgmma_fence(sums_);
  }

  [[nodiscard]] __device__ __forceinline__ int first_column(const Place& place) const {
    return place.column + cluster_rank() * kTileColumns + warpgroup_ * kGroupColumns;
  }

  /// Puts a step's instructions behind those of the step before.
  __device__ __forceinline__ void multiply_step(bool add) {
    mbarrier_wait(shared_.full(at_.stage), at_.parity);
    const std::uint64_t input = swizzled_matrix_descriptor(shared_.input(at_.stage));
    const std::uint32_t weight = shared_.weight(at_.stage, warpgroup_);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
      wgmma_shared<T, !kForward>(sums_, weight_descriptor<kForward>(weight, i), input + 2 * i, add || i > 0);
    }
    wgmma_commit();
  }

  /// Tells both thread blocks' loaders that this warp has read the stage.
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();
    if (lane_ < kCluster) mbarrier_arrive_cluster(shared_.empty(stage), lane_);
  }

  /// Some rows at a time, through shared memory in the copy's 128-byte swizzle. A thread has two neighbouring rows of
  /// columns g and g + 8 of a warp's 16, g the lane's group of four; a transposing store makes lines of them.
  __device__ __forceinline__ void store(const Place& place) {
    constexpr int kRows = SharedMemory::kOutputRows;
    const int piece = static_cast<int>(threadIdx.x) % 128 / 32 * 2 + lane_ / 8 % 2;  // of 16 bytes
    const std::uint32_t staging = shared_.output(warpgroup_);
    const std::uint32_t own = staging + (lane_ / 16 * 8 + lane_ % 8) * 128 + (piece ^ lane_ % 8) * 16;
    const int column = first_column(place);
#pragma unroll
    for (int part = 0; part < kTileRows / kRows; ++part) {
      if (threadIdx.x % 128 == 0) tma_store_wait_read();
      named_barrier_sync<128>(warpgroup_ + 1);
#pragma unroll
      for (int i = 0; i < kRows / 16; ++i) {
        const float* const sums = sums_ + (part * kRows / 16 + i) * 8;
        stmatrix_transposed(own + i * 16 * 128, {round_pair<T>(sums[0], sums[1]), round_pair<T>(sums[2], sums[3]),
                                                 round_pair<T>(sums[4], sums[5]), round_pair<T>(sums[6], sums[7])});
      }
      fence_proxy_async_shared();
      named_barrier_sync<128>(warpgroup_ + 1);
      if (threadIdx.x % 128 == 0) {
        if (task_.add_to_out) {
          tma_reduce_add(output_, column, place.row + part * kRows, staging);
        } else {
          tma_store(output_, column, place.row + part * kRows, staging);
        }
      }
    }
  }

  const Task& task_;
  const CUtensorMap& output_;
  const SharedMemory& shared_;
  int warpgroup_;
  int lane_;
  Stage at_;
  float sums_[kTileRows / 2];
};

}  // namespace qshard::optimized::many_rows

#endif
