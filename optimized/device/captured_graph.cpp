#include "optimized/device/captured_graph.h"

#include <memory>
#include <type_traits>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

Graph capture(cudaStream_t stream, const std::function<void()>& enqueue) {
  QSHARD_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  QSHARD_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  return Graph(graph);
}

}  // namespace

CapturedGraph::CapturedGraph(cudaStream_t stream, const std::function<void()>& enqueue) {
  const Graph graph = capture(stream, enqueue);
  QSHARD_CUDA_CHECK(cudaGraphInstantiate(&graph_, graph.get(), 0));
}

CapturedGraph::~CapturedGraph() {
  cudaGraphExecDestroy(graph_);
}

void CapturedGraph::launch(cudaStream_t stream) const {
  QSHARD_CUDA_CHECK(cudaGraphLaunch(graph_, stream));
}

}  // namespace qshard::optimized
