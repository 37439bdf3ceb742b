#pragma once

#include <cstdint>

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

/// Of `blocks` thread blocks for products of `all` work, those for the first product, which has `work` of it: by its
/// share, but at least one for each of the `others`.
inline int share_of_blocks(int blocks, std::int64_t work, std::int64_t all, int others) {
  const std::int64_t share = (blocks * work + all / 2) / all;
  return static_cast<int>(larger(1, smaller(blocks - others, static_cast<int>(share))));
}

}  // namespace qshard::optimized
