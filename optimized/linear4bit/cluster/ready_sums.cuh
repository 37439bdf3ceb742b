#pragma once

#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/ptx/signals.cuh"

// How a warp tells the clusters that share a tile that its partial sums are there to be read.
namespace qshard::optimized::cluster {

/// How many sharers of a tile have this warp's sums ready, and then how many owners besides have seen that all have.
/// second: the cluster that is the tile's second sharer, which it is of no other tile.
template <typename T>
__device__ __forceinline__ int* ready_count(const Task<T>& task, int second, int rank) {
  return task.ready + (second * kCluster + rank) * kMultiplierWarps + threadIdx.x / 32;
}

template <typename T>
__device__ __forceinline__ void tell_ready(const Task<T>& task, int second, int rank) {
  constexpr int kNotTheLast = 0x7FFFFFFF;  // for the owners count, too
  __syncwarp();
  if (threadIdx.x % 32 == 0) count_release(ready_count(task, second, rank), kNotTheLast);
}

/// Sums that are ready, but not yet told of, or none.
class ReadySums {
 public:
  ReadySums() = default;
  __device__ __forceinline__ ReadySums(int second) : second_(second) {}

  /// Waits until the sums are written; so it is called while matrix instructions run.
  template <typename T>
  __device__ __forceinline__ void tell(const Task<T>& task, int rank) {
    if (second_ != 0) tell_ready(task, second_, rank);
    second_ = 0;
  }

 private:
  int second_ = 0;  // sharer of their tile; 0: none
};

}  // namespace qshard::optimized::cluster
