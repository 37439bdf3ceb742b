#pragma once

#include "optimized/host_device.h"
#include "optimized/linear4bit/work_split.h"

namespace qshard::optimized::cluster {

/// The workers that share a tile of a WorkSplit, one after the other. All but the last one end their ranges with it, at
/// about the same time; the last one, of whose range these are the first steps, mostly goes on. Those that end with it
/// own the tile, but for a limit: they add up the sums of all and write them.
struct TileSharers {
  static constexpr int kMostOwners = 8;

  int first = 0;   // worker
  int count = 1;   // of workers
  int owners = 1;  // the first ones

  TileSharers() = default;

  QSHARD_HOST_DEVICE TileSharers(const WorkSplit& split, int tile) {
    const int end = (tile + 1) * split.steps;
    first = split.worker_of(end - split.steps);
    count = split.worker_of(end - 1) - first + 1;
    const bool last_goes_on = split.begin(first + count) > end;
    owners = smaller(kMostOwners, last_goes_on && count > 1 ? count - 1 : count);
  }

  /// A worker that is this of no other tile.
  [[nodiscard]] QSHARD_HOST_DEVICE int second() const { return first + 1; }
};

}  // namespace qshard::optimized::cluster
