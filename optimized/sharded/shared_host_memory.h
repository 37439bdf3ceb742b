#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/launch/rank_link.h"
#include "core/launch/shared_memory.h"
#include "core/sharding/shard_layout.h"
#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

/// Where things lie in a rank's part of the host memory that the ranks share: its three ranges, as others read them,
/// the gradients that it offers, and the counters of StreamSignals.
class HostPlaces {
 public:
  HostPlaces(const ShardLayout& layout, const ShardPlaces& places);

  [[nodiscard]] std::int64_t begin(ShardRange range) const { return begins_[static_cast<std::size_t>(range)]; }
  [[nodiscard]] std::int64_t gradients(std::size_t buffer) const {
    return gradients_ + static_cast<std::int64_t>(buffer) * buffer_bytes_;
  }
  [[nodiscard]] std::int64_t counters() const { return counters_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t begins_[3] = {};
  std::int64_t gradients_ = 0;
  std::int64_t buffer_bytes_ = 0;
  std::int64_t counters_ = 0;
  std::int64_t bytes_ = 0;
};

/// SharedMemory, pinned and mapped for the current device: copies run at the bus's rate, and kernels may read it.
class SharedHostMemory {
 public:
  /// Collective. Throws as SharedMemory, and Error(out_of_resources) where it cannot be pinned.
  SharedHostMemory(const HostPlaces& places, RankLink& link);
  ~SharedHostMemory();
  SharedHostMemory(const SharedHostMemory&) = delete;
  SharedHostMemory& operator=(const SharedHostMemory&) = delete;

  [[nodiscard]] const HostPlaces& places() const { return places_; }
  /// A rank's part as this device addresses it; copies take the address, too.
  [[nodiscard]] std::byte* part(std::size_t rank) const { return parts_[rank]; }

 private:
  HostPlaces places_;
  SharedMemory memory_;
  std::vector<std::byte*> parts_;
};

}  // namespace qshard::optimized
