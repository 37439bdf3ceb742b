#include "optimized/sharded/shared_host_memory.h"

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sharded/pulled_exchange.h"

namespace qshard::optimized {

HostPlaces::HostPlaces(const ShardLayout& layout, const ShardPlaces& places) {
  const auto take = [this](std::int64_t bytes) {
    const std::int64_t begin = bytes_;
    bytes_ = (begin + bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    return begin;
  };
  for (const ShardRange range : {ShardRange::frozen, ShardRange::trainable, ShardRange::constants}) {
    begins_[static_cast<std::size_t>(range)] = take(places.bytes(range));
  }
  if (layout.world_size > 1) {
    const GradientRoom room = gradient_room(layout);
    buffer_bytes_ = room.elements * 4;
    gradients_ = take(static_cast<std::int64_t>(room.buffers) * buffer_bytes_);
  }
  counters_ = take(StreamSignals::bytes(kGradientChannels));
}

SharedHostMemory::SharedHostMemory(const HostPlaces& places, RankLink& link)
    : places_(places), memory_(places.bytes(), link), parts_(memory_.ranks()) {
  for (std::size_t rank = 0; rank < parts_.size(); ++rank) {
    const std::span<std::byte> part = memory_.part(rank);
    const cudaError_t status =
        cudaHostRegister(part.data(), part.size(), cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (status != cudaSuccess) {
      cudaGetLastError();
      fail(ExitCode::out_of_resources,
           "{} MiB of host memory that the ranks share cannot be pinned ({}); raise the limit of locked memory (ulimit "
           "-l) or use fsdp.transport: peer or nccl",
           part.size() >> 20, cudaGetErrorString(status));
    }
    void* address = nullptr;
    QSHARD_CUDA_CHECK(cudaHostGetDevicePointer(&address, part.data(), 0));
    parts_[rank] = static_cast<std::byte*>(address);
  }
}

// Copies may still be on their way.
SharedHostMemory::~SharedHostMemory() {
  cudaDeviceSynchronize();
  for (std::size_t rank = 0; rank < parts_.size(); ++rank) cudaHostUnregister(memory_.part(rank).data());
}

}  // namespace qshard::optimized
