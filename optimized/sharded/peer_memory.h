#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "core/launch/rank_link.h"

namespace qshard::optimized {

/// One allocation a rank, of the same size, that all ranks of a host can address: exported by cudaIpc and opened by the
/// others. What a peer's process leaves behind stays readable after its death; that it died, the link tells.
class PeerMemory {
 public:
  /// Collective. `own` is what cudaMalloc gave, and outlives this object. Throws Error(bad_input), naming both ranks
  /// and what to do, where a rank is on another host or its GPU cannot be reached from this one.
  PeerMemory(std::byte* own, RankLink& link);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  /// A rank's allocation as this rank's device addresses it: what lies at an offset of one lies there in every one.
  [[nodiscard]] std::byte* base(std::size_t rank) const { return bases_[rank]; }
  [[nodiscard]] std::size_t ranks() const { return bases_.size(); }

 private:
  void close();

  std::vector<std::byte*> bases_;
  std::size_t own_;
};

/// Collective: why some GPU cannot read another's memory, found by reading a pattern from each; the same sentence on
/// every rank. Empty: all can. Some boards offer peer access and give wrong bytes.
std::optional<std::string> find_peer_obstacle(RankLink& link);

}  // namespace qshard::optimized
