#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Counters of the ranks by which their streams wait for each other while their hosts run ahead. A signal is a write of
/// the driver into each rank's counters after everything before it in the stream; a wait reads this rank's own
/// counters and takes no multiprocessor. A stream whose peer has died waits for ever: that the process ends is the
/// link's business.
class StreamSignals {
 public:
  /// channels: independent counters. counters: those of each rank, bytes(channels) of zeros, as this rank's device
  /// addresses them: device memory, or pinned host memory. No rank may signal before all ranks' are zero.
  StreamSignals(std::size_t channels, std::vector<std::byte*> counters, std::size_t own);

  static std::int64_t bytes(std::size_t channels);

  /// Enqueues: tells every rank that what is in `stream` so far is done.
  void signal(std::size_t channel, cudaStream_t stream);
  /// Enqueues: `stream` goes on when every rank has signalled on the channel as often as this rank has.
  void wait(std::size_t channel, cudaStream_t stream) const;

 private:
  std::vector<std::uint32_t> sent_;   // of each channel
  std::vector<std::byte*> counters_;  // index = rank; in them [channel][rank that signals], uint32
  std::size_t own_;
};

}  // namespace qshard::optimized
