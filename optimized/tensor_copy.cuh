#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/warpgroup_instruction.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized {

/// Counts one arrival at the barrier, whose phase then also waits for this many bytes of copies.
__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Copies the box at (x, y) of a tensor of two dimensions to shared memory; `barrier` counts its bytes.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap& map, int x, int y,
                                         std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

/// The same of a tensor of three dimensions.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap& map, int x, int y, int z,
                                         std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

/// Programmatic dependent launch: lets the stream's next kernel start its prologue as soon as there is room for it.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Waits until the stream's earlier kernels are done and their writes are seen.
__device__ __forceinline__ void wait_for_earlier_kernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

}  // namespace qshard::optimized

#endif
