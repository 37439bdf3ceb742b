#include "bench/shard_layout/gather_times.h"

#include <functional>

#include "optimized/device/cuda_check.h"
#include "optimized/device/stream.h"

namespace qshard::bench {
namespace {

/// What lies between two points of a stream.
class Span {
 public:
  Span() {
    QSHARD_CUDA_CHECK(cudaEventCreate(&begin_));
    QSHARD_CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~Span() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

  void record(cudaStream_t stream, const std::function<void()>& work) {
    QSHARD_CUDA_CHECK(cudaEventRecord(begin_, stream));
    work();
    QSHARD_CUDA_CHECK(cudaEventRecord(end_, stream));
  }
  /// Waits for its end.
  [[nodiscard]] double seconds() const {
    float milliseconds = 0;
    QSHARD_CUDA_CHECK(cudaEventSynchronize(end_));
    QSHARD_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

GatherTimes time_gathers(GatheredLayout& layout, const FrozenProducts& products, std::int64_t layers, int repetitions,
                         RankLink& link) {
  const optimized::Stream compute;
  const optimized::Stream copy;
  const auto forward = [&] {
    for (std::int64_t layer = 0; layer < layers; ++layer) products.forward(compute.get());
  };
  const auto gather = [&] { layout.gather(copy.get()); };
  GatherTimes times;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    Span alone;
    Span beside;
    Span products_alone;
    Span products_beside;
    link.barrier();
    alone.record(copy.get(), gather);
    copy.synchronize();
    products_alone.record(compute.get(), forward);
    compute.synchronize();
    link.barrier();
    products_beside.record(compute.get(), forward);
    beside.record(copy.get(), gather);
    copy.synchronize();
    compute.synchronize();
    if (repetition == 0) continue;  // warms up
    times.alone.push_back(alone.seconds());
    times.beside.push_back(beside.seconds());
    times.products_alone.push_back(products_alone.seconds());
    times.products_beside.push_back(products_beside.seconds());
  }
  return times;
}

}  // namespace qshard::bench
