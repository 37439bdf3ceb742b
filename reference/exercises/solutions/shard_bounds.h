#pragma once

#include <algorithm>
#include <cstdint>

/// Exercise 7 (20 minutes; read core/sharding/shard_layout.h). A flat of `bytes` bytes is cut into `world_size` shards
/// of one size: the smallest multiple of 16 bytes that holds everything; what is left over at the end is padding. Gives
/// the first byte of the flat that rank `rank` holds, and the byte after its last one, without padding; a rank may hold
/// nothing.
struct Bounds {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool operator==(const Bounds&) const = default;
};

inline Bounds shard_bounds(std::int64_t bytes, std::int64_t world_size, std::int64_t rank) {
  const std::int64_t even = (bytes + world_size - 1) / world_size;
  const std::int64_t shard = (even + 15) / 16 * 16;
  return {std::min(rank * shard, bytes), std::min((rank + 1) * shard, bytes)};
}
