#include "optimized/side_stream.h"

#include "optimized/cuda_check.h"

namespace qshard::optimized {

SideStream::SideStream() {
  int lowest = 0;
  int highest = 0;
  QSHARD_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  QSHARD_CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest));
  QSHARD_CUDA_CHECK(cudaEventCreateWithFlags(&fork_, cudaEventDisableTiming));
  for (cudaEvent_t& mark : marks_) QSHARD_CUDA_CHECK(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming));
}

SideStream::~SideStream() {
  for (cudaEvent_t mark : marks_) cudaEventDestroy(mark);
  cudaEventDestroy(fork_);
  cudaStreamDestroy(stream_);
}

void SideStream::fork(cudaStream_t from) {
  QSHARD_CUDA_CHECK(cudaEventRecord(fork_, from));
  QSHARD_CUDA_CHECK(cudaStreamWaitEvent(stream_, fork_));
}

void SideStream::mark(int mark) {
  QSHARD_CUDA_CHECK(cudaEventRecord(marks_.at(mark), stream_));
}

void SideStream::wait(int mark, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaStreamWaitEvent(stream, marks_.at(mark)));
}

}  // namespace qshard::optimized
