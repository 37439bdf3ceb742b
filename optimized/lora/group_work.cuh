#pragma once

#include <cstdint>

#include "optimized/ptx/async_copy.cuh"

namespace qshard::optimized {

/// What a thread block of rank_product's or rank_gradient's kernel does, by its place in the grid (tile of rows, slice
/// of the sum's steps, block of column groups), and this warp of it, which has 32 of the rows and one column group.
/// kRowWarps: warps of a column group. kDepth: of a step.
template <int kRowWarps, int kDepth>
struct GroupWork {
  int row_warp;
  int group;        // of the thread block's
  int first_group;  // the thread block's, of the task's
  int groups;       // of the thread block
  int first_row;    // of the tile
  int begin;        // of the slice's steps
  int end;
  int stages;  // of shared memory, 2 or 3

  /// depth: of the whole sum.
  template <typename Task>
  __device__ __forceinline__ GroupWork(const Task& task, std::int64_t depth)
      : row_warp(static_cast<int>(threadIdx.x) / 32 % kRowWarps),
        group(static_cast<int>(threadIdx.x) / 32 / kRowWarps),
        first_group(static_cast<int>(blockIdx.z) * task.block_groups),
        groups(min(task.block_groups, task.group_count - first_group)),
        first_row(static_cast<int>(blockIdx.x) * (32 * kRowWarps)),
        begin(static_cast<int>(blockIdx.y) * task.cut.steps_a_slice),
        end(min((static_cast<int>(depth) + kDepth - 1) / kDepth, begin + task.cut.steps_a_slice)),
        stages(task.stages) {}

  /// In the last block of column groups warps may have none; they only help to load.
  [[nodiscard]] __device__ __forceinline__ bool has_group() const { return group < groups; }

  /// The one that holds the step.
  [[nodiscard]] __device__ __forceinline__ int stage(int step) const { return (step - begin) % stages; }

  /// Fills the first stages but for one: load(step) starts the asynchronous copies of a step to its stage.
  template <typename Load>
  __device__ __forceinline__ void start(const Load& load) const {
    for (int i = 0; i < stages - 1; ++i) load_if_there(begin + i, load);
  }

  /// After start(): calls multiply(step) for each step whose copies have arrived, while those of the next ones are
  /// under way.
  template <typename Load, typename Multiply>
  __device__ __forceinline__ void run(const Load& load, const Multiply& multiply) const {
    for (int step = begin; step < end; ++step) {
      if (stages == 3) {
        cp_async_wait<1>();
      } else {
        cp_async_wait<0>();
      }
      __syncthreads();  // this stage is there for all, and all are through with the one that is loaded next
      load_if_there(step + stages - 1, load);
      if (has_group()) multiply(step);
    }
  }

 private:
  /// A group of copies is closed for a step behind the last one too, since cp_async_wait() counts groups.
  template <typename Load>
  __device__ __forceinline__ void load_if_there(int step, const Load& load) const {
    if (step < end) load(step);
    cp_async_commit();
  }
};

}  // namespace qshard::optimized
