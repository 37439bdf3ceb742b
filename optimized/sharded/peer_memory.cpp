#include "optimized/sharded/peer_memory.h"

#include <cstring>
#include <span>

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

std::byte* open_memory(const std::vector<std::byte>& bytes, std::size_t rank, std::size_t own) {
  cudaIpcMemHandle_t handle{};
  if (bytes.size() != sizeof handle) fail(ExitCode::rank_failed, "rank {} sent no memory handle", rank);
  std::memcpy(&handle, bytes.data(), sizeof handle);
  void* memory = nullptr;
  const cudaError_t status = cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess);
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail_input(
        "the GPU of rank {} cannot read that of rank {} ({}); use fsdp.transport: nccl on GPUs without peer access",
        own, rank, cudaGetErrorString(status));
  }
  return static_cast<std::byte*>(memory);
}

}  // namespace

PeerMemory::PeerMemory(std::int64_t bytes, RankLink& link) {
  const auto world = static_cast<std::size_t>(link.world_size());
  arenas_.own = static_cast<std::size_t>(link.rank());
  arenas_.bases.resize(world);
  void* memory = nullptr;
  QSHARD_CUDA_CHECK(cudaMalloc(&memory, static_cast<std::size_t>(bytes)));
  arenas_.bases[arenas_.own] = static_cast<std::byte*>(memory);
  if (world == 1) return;
  for (std::size_t rank = 0; rank < world; ++rank) {
    if (link.ranks()[rank].host_id == link.ranks()[arenas_.own].host_id) continue;
    fail_input("rank {} is on another host than rank {}; fsdp.transport: nccl works between hosts", rank, arenas_.own);
  }
  cudaIpcMemHandle_t handle{};
  QSHARD_CUDA_CHECK(cudaIpcGetMemHandle(&handle, memory));
  const auto handles = link.all_gather(std::as_bytes(std::span(&handle, 1)));
  for (std::size_t rank = 0; rank < world; ++rank) {
    if (rank != arenas_.own) arenas_.bases[rank] = open_memory(handles[rank], rank, arenas_.own);
  }
}

PeerMemory::~PeerMemory() {
  for (std::size_t rank = 0; rank < arenas_.bases.size(); ++rank) {
    if (rank != arenas_.own && arenas_.bases[rank] != nullptr) cudaIpcCloseMemHandle(arenas_.bases[rank]);
  }
  if (!arenas_.bases.empty()) cudaFree(arenas_.bases[arenas_.own]);
}

}  // namespace qshard::optimized
