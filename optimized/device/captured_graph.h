#pragma once

#include <functional>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Work of one stream, recorded once and launched again as a whole. What the work reads and writes must stay where it
/// is. Belongs to the device that is current when it is captured.
class CapturedGraph {
 public:
  /// Records what `enqueue` enqueues on `stream`, which does not run. `enqueue` may neither allocate nor synchronize,
  /// and every kernel in it must have run once before. Throws as check_cuda() and as `enqueue`.
  CapturedGraph(cudaStream_t stream, const std::function<void()>& enqueue);
  ~CapturedGraph();
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(cudaStream_t stream) const;

 private:
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace qshard::optimized
