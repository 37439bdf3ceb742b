#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <cuda.h>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/linear4bit/cluster/cluster_task.cuh"
#include "optimized/linear4bit/code_map.h"

namespace qshard::optimized::cluster {

/// The input in boxes of kChunk elements of each of `box_rows` rows, in the 128-byte swizzle.
inline CUtensorMap input_map(const Linear4bitProblem& problem, const Linear4bitCall& call, int box_rows) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(call.in), {problem.in_width() * 2, problem.rows},
                         {call.in_stride * 2}, {kChunk * 2, box_rows}, CU_TENSOR_MAP_SWIZZLE_128B);
}

/// Launches a kernel that takes a task and the maps of codes and input, as many clusters as the task is cut for.
template <typename T>
void launch_clusters(void (*kernel)(Task<T>, CUtensorMap, CUtensorMap), const Task<T>& task, const CUtensorMap& codes,
                     const CUtensorMap& input, int threads, std::uint32_t shared_bytes, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  launch_early(kernel, dim3(static_cast<unsigned>(task.order.clusters * kCluster)), threads, shared_bytes, stream, task,
               codes, input);
}

/// Cuts the product and calls launch(task, std::integral_constant<int, kColumns>{}) for the number of columns that the
/// cut has, which is one of the shape's.
template <typename T, const TileShape& kShape, typename Launch>
void cut_and_launch(const Linear4bitProblem& problem, const Linear4bitCall& call, const Launch& launch) {
  const ClusterCut cut(problem, kShape);
  const Task<T> task(problem, call, cut);
  const auto launch_if = [&]<int kColumns>(std::integral_constant<int, kColumns> columns) {
    if (cut.columns.columns == kColumns) launch(task, columns);
  };
  [&]<std::size_t... kAt>(std::index_sequence<kAt...>) {
    (launch_if(std::integral_constant<int, kShape.column_counts[kAt]>{}), ...);
  }
  (std::make_index_sequence<kShape.column_counts.size()>{});
}

}  // namespace qshard::optimized::cluster
