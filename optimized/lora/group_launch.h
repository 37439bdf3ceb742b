#pragma once

#include <cstdint>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/lora/rank_cuts.h"

namespace qshard::optimized {

/// Launches the kernel of rank_product() or rank_gradient(), whose thread blocks each have a tile, a slice of the
/// task's cut and some of its column groups, with three stages of shared memory where there is room for them, or two.
/// group_warps: of a thread block, for each column group. stage_bytes: of shared memory.
template <typename Task>
void launch_groups(void (*kernel)(Task), Task task, std::int64_t tiles, int group_warps, int stage_bytes,
                   cudaStream_t stream) {
  const int room = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  task.stages = 3 * stage_bytes <= room ? 3 : 2;
  const int bytes = task.stages * stage_bytes;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(task.cut.slices),
                  static_cast<unsigned>(divide_up(task.group_count, task.block_groups)));
  launch_early(kernel, grid, 32 * group_warps * task.block_groups, bytes, stream, task);
}

}  // namespace qshard::optimized
