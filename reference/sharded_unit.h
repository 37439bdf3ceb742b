#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "reference/memory_ledger.h"
#include "reference/process_group.h"

namespace qshard::reference {

/// What one rank sees of a unit while it is gathered: the whole of each flat, in the order of Unit::flats.
using GatheredFlats = std::vector<std::span<const std::byte>>;

/// The shards of one unit that the ranks of this process hold: the frozen bytes and the adapter's values between steps.
/// Bytes go in and out as they are; nothing here knows what they mean. `rank` counts the ranks of this process, from 0.
class ShardedUnit {
 public:
  /// Zero-filled shards; `shards` is ShardLayout's. `ranks` counts what each rank of this process holds and outlives
  /// this object.
  ShardedUnit(const Unit& layout, int shards, const ProcessGroup& group, std::vector<MemoryLedger>& ranks);

  [[nodiscard]] const Unit& layout() const { return layout_; }

  /// Cuts a whole parameter's bytes into shards and keeps those of this process.
  void store(std::size_t flat, const Slot& slot, std::span<const std::byte> bytes);
  /// A whole flat, put together from the shards of this process's first rank's group. Collective.
  [[nodiscard]] std::vector<std::byte> load(std::size_t flat) const;

  /// One rank's shard of a flat; all of the flat when it is replicated.
  [[nodiscard]] std::span<std::byte> shard(std::size_t flat, std::size_t rank) { return shards_[flat][rank]; }

  /// All-gathers every flat on every rank, or does nothing where it is gathered already or replicated. Collective.
  void gather();
  /// Frees what gather() made.
  void release();
  /// The gathered flats on `rank`; valid between gather() and release().
  [[nodiscard]] GatheredFlats gathered(std::size_t rank) const;

 private:
  using RankBytes = std::vector<std::vector<std::byte>>;  // index = rank

  [[nodiscard]] bool replicated() const { return parts_ == 1; }

  Unit layout_;
  ProcessGroup group_;
  std::size_t parts_;  // shards a flat is cut into; 1 when replicated
  std::vector<MemoryLedger>* ranks_;
  std::vector<RankBytes> shards_;    // index = flat
  std::vector<RankBytes> gathered_;  // index = flat; empty while not gathered
};

}  // namespace qshard::reference
