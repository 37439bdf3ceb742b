#include "optimized/sharded/peer_signals.h"

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

}  // namespace

PeerSignals::PeerSignals(std::size_t channels, const PeerArenas& peers, Arena& arena)
    : peers_(&peers), sent_(channels, 0), counters_(arena.take(place(channels, 0), "token rows")) {}

std::int64_t PeerSignals::place(std::size_t channel, std::size_t rank) const {
  return static_cast<std::int64_t>((channel * kMostShards + rank) * sizeof(std::uint32_t));
}

void PeerSignals::clear(cudaStream_t stream) const {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(counters_.as(), 0, static_cast<std::size_t>(place(sent_.size(), 0)), stream));
}

void PeerSignals::signal(std::size_t channel, cudaStream_t stream) {
  static const auto write = driver_function<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32", 12000);
  ++sent_[channel];
  for (std::byte* base : peers_->bases) {
    const auto address = reinterpret_cast<CUdeviceptr>(base + counters_.offset() + place(channel, peers_->own));
    check(write(stream, address, sent_[channel], CU_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
  }
}

void PeerSignals::wait(std::size_t channel, cudaStream_t stream) const {
  static const auto wait_value = driver_function<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32", 12000);
  for (std::size_t rank = 0; rank < peers_->bases.size(); ++rank) {
    const auto address = reinterpret_cast<CUdeviceptr>(counters_.as<std::byte>() + place(channel, rank));
    check(wait_value(stream, address, sent_[channel], CU_STREAM_WAIT_VALUE_GEQ), "cuStreamWaitValue32");
  }
}

}  // namespace qshard::optimized
