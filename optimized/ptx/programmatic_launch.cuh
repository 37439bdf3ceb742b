#pragma once

// Programmatic dependent launch, for kernels that launch_early() starts; nothing below sm_90, where none starts early.
namespace qshard::optimized {

/// Lets the stream's next kernel start as soon as multiprocessors are free.
__device__ __forceinline__ void trigger_programmatic_launch_completion() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until the stream's earlier kernels are done and their writes are seen.
__device__ __forceinline__ void grid_dependency_synchronize() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Both: what a small kernel begins with. Nothing that earlier kernels write may be read before.
__device__ __forceinline__ void begin_early_kernel() {
  trigger_programmatic_launch_completion();
  grid_dependency_synchronize();
}

}  // namespace qshard::optimized
