#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optimized/host_device.h"

namespace qshard::optimized {

/// Tiles of equally many steps, cut into one contiguous range of steps a worker, of equal length or one longer, so that
/// workers may share a tile. A range is some last steps of a tile, whole tiles, and some first steps of another.
struct WorkSplit {
  int tiles;
  int steps;    // of a tile; tiles * steps is an int
  int workers;  // at most tiles * steps
  int shorter;  // steps of a worker
  int longer;   // workers, the first ones, that have one more

  WorkSplit(int tile_count, int tile_steps, int most_workers)
      : tiles(tile_count),
        steps(tile_steps),
        workers(most_workers < tiles * steps ? most_workers : tiles * steps),
        shorter(tiles * steps / workers),
        longer(tiles * steps % workers) {}

  /// The first of the worker's steps; worker `workers` begins where the last one ends.
  [[nodiscard]] QSHARD_HOST_DEVICE int begin(int worker) const {
    return worker * shorter + (worker < longer ? worker : longer);
  }

  /// The worker whose range holds the step.
  [[nodiscard]] QSHARD_HOST_DEVICE int worker_of(int step) const {
    const int rest = step - longer * (shorter + 1);
    return rest < 0 ? step / (shorter + 1) : longer + rest / shorter;
  }

  /// Where the worker's partial sums of a tile that it shares lie: its first tile's, or its last one's.
  [[nodiscard]] QSHARD_HOST_DEVICE int slot(int worker, int tile) const {
    return 2 * worker + (tile * steps <= begin(worker) ? 0 : 1);
  }

  [[nodiscard]] QSHARD_HOST_DEVICE int slots() const { return 2 * workers; }
};

/// `blocks` thread blocks dealt out to the products of a launch by their work; each has one at least.
inline std::vector<int> shares_of_blocks(int blocks, std::span<const std::int64_t> work) {
  std::int64_t rest = 0;
  for (const std::int64_t own : work) rest += own;
  auto others = static_cast<int>(work.size());
  std::vector<int> shares;
  for (const std::int64_t own : work) {
    const auto by_work = static_cast<int>((blocks * own + rest / 2) / rest);
    shares.push_back(larger(1, smaller(blocks - --others, by_work)));
    blocks -= shares.back();
    rest -= own;
  }
  return shares;
}

}  // namespace qshard::optimized
