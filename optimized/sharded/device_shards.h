#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"

namespace qshard::optimized {

/// What a rank holds of the model lies in three ranges of bytes.
enum class ShardRange : std::uint8_t {
  frozen,     // its shards of the frozen flats
  trainable,  // its shards of the adapters
  constants,  // the nested maps and offsets of all 4-bit weights, which every rank has whole
};

/// From `begin` to before `end`; empty where they are equal.
struct ByteRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// Where one rank's shards of all flats lie in their ranges: the frozen flats in the order of the units; the trainable
/// ones one after the other, so that the optimizer works on one range. The places depend on the layout alone and are
/// the same on every rank.
class ShardPlaces {
 public:
  /// weights4bit: how many weights have constants.
  ShardPlaces(const ShardLayout& layout, std::size_t weights4bit);

  /// Bytes from the start of the flat's range to its shard; a multiple of 256.
  [[nodiscard]] std::int64_t offset(std::size_t unit, std::size_t flat) const { return offsets_[unit][flat]; }
  [[nodiscard]] std::int64_t bytes(ShardRange range) const { return bytes_[static_cast<std::size_t>(range)]; }

 private:
  std::vector<std::vector<std::int64_t>> offsets_;
  std::int64_t bytes_[3] = {};
};

/// Floats a 4-bit weight of the nested maps and offsets: the map, the offset, and padding to 16 bytes.
inline constexpr std::int64_t kNestedConstants = 260;

/// The ranges of one rank in its arena.
struct ShardMemory {
  Arena::Piece frozen;  // empty where frozen shards stay in host memory
  Arena::Piece trainable;
  Arena::Piece constants;

  ShardMemory(const ShardPlaces& places, bool offload, Arena& arena);

  [[nodiscard]] const Arena::Piece& piece(ShardRange range) const;
  /// Null in a dry run and for frozen shards that stay in host memory.
  [[nodiscard]] std::byte* at(ShardRange range) const { return piece(range).as<std::byte>(); }
};

inline ShardRange range_of(const Flat& flat) {
  return flat.trainable ? ShardRange::trainable : ShardRange::frozen;
}

}  // namespace qshard::optimized
