#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "optimized/device/arena.h"
#include "optimized/sharded/peer_arenas.h"

namespace qshard::optimized {

/// Counters in the ranks' arenas by which their streams wait for each other while their hosts run ahead. A signal is a
/// write of the driver into each peer's memory after everything before it in the stream; a wait reads this rank's own
/// memory and takes no multiprocessor. A stream whose peer has died waits for ever: that the process ends is the
/// link's business.
class PeerSignals {
 public:
  /// channels: independent counters. In a dry run peers is empty. The arenas' offsets must be the same on all ranks.
  PeerSignals(std::size_t channels, const PeerArenas& peers, Arena& arena);

  /// Enqueues zeros. Every rank does it, and no rank may signal before all are done.
  void clear(cudaStream_t stream) const;
  /// Enqueues: tells every rank that what is in `stream` so far is done.
  void signal(std::size_t channel, cudaStream_t stream);
  /// Enqueues: `stream` goes on when every rank has signalled on the channel as often as this rank has.
  void wait(std::size_t channel, cudaStream_t stream) const;

 private:
  [[nodiscard]] std::int64_t place(std::size_t channel, std::size_t rank) const;

  const PeerArenas* peers_;
  std::vector<std::uint32_t> sent_;  // of each channel
  Arena::Piece counters_;            // [channel][rank that signals], uint32
};

}  // namespace qshard::optimized
