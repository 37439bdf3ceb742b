#pragma once

#include <cstdint>

#include "core/launch/rank_link.h"
#include "optimized/sharded/peer_arenas.h"

namespace qshard::optimized {

/// One allocation a rank, of the same size, that all ranks of a host can address: allocated once, exported by cudaIpc,
/// opened by the others. What a peer's process leaves behind stays readable after its death; that it died, the link
/// tells.
class PeerMemory {
 public:
  /// Collective. Allocates `bytes` on the current device and opens the other ranks' memory. Throws
  /// Error(out_of_resources) where the device has too little, Error(bad_input), naming both ranks and what to do, where
  /// a rank is on another host or its GPU cannot be reached from this one.
  PeerMemory(std::int64_t bytes, RankLink& link);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  [[nodiscard]] std::byte* own() const { return arenas_.bases[arenas_.own]; }
  [[nodiscard]] const PeerArenas& arenas() const { return arenas_; }

 private:
  PeerArenas arenas_;
};

}  // namespace qshard::optimized
