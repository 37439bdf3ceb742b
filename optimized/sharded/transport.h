#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "optimized/sharded/peer_arenas.h"

namespace qshard::optimized {

/// How a flat's shards come together on one rank: gathered = shard of rank 0, shard of rank 1, ... Bytes are copied as
/// they are. Enqueued on `stream`; the host does not wait.
class Transport {
 public:
  virtual ~Transport() = default;

  /// offset: of the flat's shard in every rank's arena; shard_bytes of each go to `gathered`.
  virtual void gather(std::int64_t offset, std::int64_t shard_bytes, std::byte* gathered, cudaStream_t stream) = 0;
  /// For plans and records: "peer", "nccl".
  [[nodiscard]] virtual const char* name() const = 0;

 protected:
  Transport() = default;
  Transport(const Transport&) = default;
  Transport& operator=(const Transport&) = default;
};

/// Pulls every rank's shard by the copy engine. Frozen shards never change, so nothing waits for another rank;
/// trainable ones change between two barriers only. Needs peer access, or ranks that share one GPU.
std::unique_ptr<Transport> make_peer_transport(const PeerArenas& arenas);

}  // namespace qshard::optimized
