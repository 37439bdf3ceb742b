#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/sharding/shard_layout.h"

namespace qshard::optimized {

/// Where one rank's shards of all flats lie in its region of device memory: frozen flats first, in the order of the
/// units, then the trainable ones one after the other, so that the optimizer works on one range. The places depend on
/// the layout alone and are the same on every rank: a peer's shard is at the peer's region plus the same offset.
class ShardPlaces {
 public:
  explicit ShardPlaces(const ShardLayout& layout);

  /// Bytes from the start of the region to a flat's shard; a multiple of 256 but for trainable flats (of 16).
  [[nodiscard]] std::int64_t offset(std::size_t unit, std::size_t flat) const { return offsets_[unit][flat]; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  /// The range of all trainable shards, in bytes.
  [[nodiscard]] std::int64_t trainable_begin() const { return trainable_begin_; }
  [[nodiscard]] std::int64_t trainable_bytes() const { return bytes_ - trainable_begin_; }

 private:
  std::vector<std::vector<std::int64_t>> offsets_;
  std::int64_t trainable_begin_ = 0;
  std::int64_t bytes_ = 0;
};

/// Number of shards that a flat of the layout is cut into: the world size, or 1 where every rank holds all of it.
std::size_t shard_count(const ShardLayout& layout);

}  // namespace qshard::optimized
