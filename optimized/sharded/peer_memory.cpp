#include "optimized/sharded/peer_memory.h"

#include <cstring>
#include <span>

#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t kPatternBytes = std::size_t{2} << 20;

std::byte* open_memory(const std::vector<std::byte>& bytes, std::size_t rank, std::size_t own) {
  cudaIpcMemHandle_t handle{};
  if (bytes.size() != sizeof handle) fail(ExitCode::rank_failed, "rank {} sent no memory handle", rank);
  std::memcpy(&handle, bytes.data(), sizeof handle);
  void* memory = nullptr;
  const cudaError_t status = cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess);
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail_input("the GPU of rank {} cannot read that of rank {} ({})", own, rank, cudaGetErrorString(status));
  }
  return static_cast<std::byte*>(memory);
}

// Other bytes for every rank, and no period that a shifted copy could hide in.
std::vector<std::uint32_t> pattern_of(std::size_t rank) {
  std::vector<std::uint32_t> pattern(kPatternBytes / 4);
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = (static_cast<std::uint32_t>(i) + 1) * 2654435761U ^ static_cast<std::uint32_t>(rank + 1) * 40503U;
  }
  return pattern;
}

void check_pattern(const PeerMemory& peers, std::size_t rank, std::size_t own) {
  std::vector<std::uint32_t> read(kPatternBytes / 4);
  DeviceBuffer here(kPatternBytes);
  QSHARD_CUDA_CHECK(cudaMemcpy(here.as(), peers.base(rank), kPatternBytes, cudaMemcpyDeviceToDevice));
  here.download(read.data(), kPatternBytes);
  if (read != pattern_of(rank)) {
    fail_input("the GPU of rank {} reads wrong bytes from that of rank {}, although the driver offers peer access", own,
               rank);
  }
}

}  // namespace

PeerMemory::PeerMemory(std::byte* own, RankLink& link)
    : bases_(static_cast<std::size_t>(link.world_size())), own_(static_cast<std::size_t>(link.rank())) {
  bases_[own_] = own;
  if (bases_.size() == 1) return;
  for (std::size_t rank = 0; rank < bases_.size(); ++rank) {
    if (link.ranks()[rank].host_id == link.ranks()[own_].host_id) continue;
    fail_input("rank {} is on another host than rank {}", rank, own_);
  }
  cudaIpcMemHandle_t handle{};
  QSHARD_CUDA_CHECK(cudaIpcGetMemHandle(&handle, own));
  const auto handles = link.all_gather(std::as_bytes(std::span(&handle, 1)));
  try {
    for (std::size_t rank = 0; rank < bases_.size(); ++rank) {
      if (rank != own_) bases_[rank] = open_memory(handles[rank], rank, own_);
    }
  } catch (...) {
    close();
    throw;
  }
}

PeerMemory::~PeerMemory() {
  close();
}

void PeerMemory::close() {
  for (std::size_t rank = 0; rank < bases_.size(); ++rank) {
    if (rank != own_ && bases_[rank] != nullptr) cudaIpcCloseMemHandle(bases_[rank]);
  }
}

std::optional<std::string> find_peer_obstacle(RankLink& link) {
  const auto own = static_cast<std::size_t>(link.rank());
  DeviceBuffer mine(kPatternBytes);
  mine.upload(pattern_of(own).data(), kPatternBytes);
  std::string obstacle;
  try {
    const PeerMemory peers(mine.as<std::byte>(), link);
    for (std::size_t rank = 0; rank < peers.ranks(); ++rank) check_pattern(peers, rank, own);
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_input) throw;
    obstacle = error.what();
  }
  std::optional<std::string> first;
  for (const std::vector<std::byte>& of_rank : link.all_gather(std::as_bytes(std::span(obstacle)))) {
    if (!first && !of_rank.empty()) first.emplace(reinterpret_cast<const char*>(of_rank.data()), of_rank.size());
  }
  return first;
}

}  // namespace qshard::optimized
