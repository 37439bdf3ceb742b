#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/launch/rank_link.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/transport.h"
#include "optimized/device/arena.h"
#include "optimized/device/device_buffer.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/exchange.h"
#include "optimized/sharded/nccl_communicator.h"
#include "optimized/sharded/peer_memory.h"
#include "optimized/sharded/shared_host_memory.h"

namespace qshard::bench {

/// How shards come together.
struct Way {
  Transport transport = Transport::peer;
  bool offload = false;                                 // frozen shards in host memory alone
  optimized::NcclCommunicator* communicator = nullptr;  // for Transport::nccl
};

/// One rank's shards of a layout, filled with random bytes, and two buffers that stages are gathered into in turn, as a
/// step does it. What a parameter's bytes are depends on its name alone, so every layout must gather the same.
class GatheredLayout {
 public:
  /// Collective. replicated: bytes that every rank holds besides, of statistics that are in no flat.
  GatheredLayout(const ShardLayout& layout, std::int64_t replicated, const Way& way, RankLink& link);

  /// Gathers every stage once. Collective over NCCL.
  void gather(cudaStream_t stream);
  /// The same, stage by stage; bits of all parameters that are not as they were before they were cut.
  [[nodiscard]] std::int64_t count_different_bits();

  /// Collective, before any rank ends this object's life: nobody reads another rank's shards any more.
  void close();

  /// Of pinned host memory that this rank brought along.
  [[nodiscard]] std::int64_t host_bytes() const { return host_ ? host_->places().bytes() : 0; }

 private:
  void fill(const ShardLayout& layout);
  void gather_stage(std::size_t stage, std::byte* to, cudaStream_t stream);

  const ShardLayout* layout_;
  RankLink* link_;
  std::size_t stages_;
  optimized::ShardPlaces places_;
  optimized::DeviceBuffer memory_;
  optimized::DeviceBuffer replicated_;
  std::optional<optimized::Arena> arena_;
  std::optional<optimized::ShardMemory> shards_;
  optimized::Arena::Piece room_;
  std::optional<optimized::PeerMemory> peers_;
  std::optional<optimized::SharedHostMemory> host_;
  std::unique_ptr<optimized::Exchange> exchange_;
  std::array<optimized::DeviceBuffer, 2> buffers_;
};

}  // namespace qshard::bench
