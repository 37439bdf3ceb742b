#include "optimized/device/stream.h"

#include <utility>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

Stream::Stream() {
  QSHARD_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

Stream::~Stream() {
  cudaStreamDestroy(stream_);
}

void Stream::synchronize() const {
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

void Event::record(cudaStream_t stream) {
  if (event_ == nullptr) QSHARD_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  QSHARD_CUDA_CHECK(cudaEventRecord(event_, stream));
}

void Event::hold_back(cudaStream_t stream) const {
  if (event_ != nullptr) QSHARD_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
}

}  // namespace qshard::optimized
