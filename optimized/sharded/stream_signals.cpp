#include "optimized/sharded/stream_signals.h"

#include <utility>

#include <cuda.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/driver_function.h"
#include "optimized/embedding.h"

namespace qshard::optimized {

namespace {

void check(CUresult result, const char* function) {
  if (result != CUDA_SUCCESS) fail(ExitCode::rank_failed, "{}: error {}", function, static_cast<int>(result));
}

std::int64_t place(std::size_t channel, std::size_t rank) {
  return static_cast<std::int64_t>((channel * kMostShards + rank) * sizeof(std::uint32_t));
}

}  // namespace

StreamSignals::StreamSignals(std::size_t channels, std::vector<std::byte*> counters, std::size_t own)
    : sent_(channels, 0), counters_(std::move(counters)), own_(own) {}

std::int64_t StreamSignals::bytes(std::size_t channels) {
  return place(channels, 0);
}

void StreamSignals::signal(std::size_t channel, cudaStream_t stream) {
  static const auto write = driver_function<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32", 12000);
  ++sent_[channel];
  for (std::byte* counters : counters_) {
    const auto address = reinterpret_cast<CUdeviceptr>(counters + place(channel, own_));
    check(write(stream, address, sent_[channel], CU_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
  }
}

void StreamSignals::wait(std::size_t channel, cudaStream_t stream) const {
  static const auto wait_value = driver_function<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32", 12000);
  for (std::size_t rank = 0; rank < counters_.size(); ++rank) {
    const auto address = reinterpret_cast<CUdeviceptr>(counters_[own_] + place(channel, rank));
    check(wait_value(stream, address, sent_[channel], CU_STREAM_WAIT_VALUE_GEQ), "cuStreamWaitValue32");
  }
}

}  // namespace qshard::optimized
