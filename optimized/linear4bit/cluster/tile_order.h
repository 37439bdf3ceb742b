#pragma once

#include <cstdint>

#include "optimized/host_device.h"
#include "optimized/linear4bit/work_split.h"

namespace qshard::optimized::cluster {

/// Some steps of a tile, of those that a cluster has one after the other: its steps `begin` to `end`, counted over its
/// tiles.
struct Segment {
  int tile;
  int first_step;  // of the tile
  int begin;
  int end;
};

/// Which cluster makes which tiles: the first ones whole, one after the other, so that all clusters read the same part
/// of the input at a time; the steps of the others, one after the other, are cut into equal ranges (WorkSplit).
struct TileOrder {
  int clusters;
  int whole;       // tiles, the first ones, that one cluster makes
  WorkSplit rest;  // of the others, if there are any

  /// most_clusters: that have a place at the same time. least_steps: of a cluster. input_stays: in the L2 cache, so
  /// that clusters may be at different steps, and all tiles are cut. Tiles that nearly fill their last wave are not
  /// cut.
  TileOrder(int tiles, int steps, int most_clusters, int least_steps, bool input_stays)
      : clusters(cluster_count(tiles, steps, most_clusters, least_steps)),
        whole(whole_tiles(tiles, clusters, input_stays)),
        rest(tiles > whole ? tiles - whole : 1, steps, clusters) {}

  /// Of the cluster's tiles that it makes alone.
  [[nodiscard]] QSHARD_HOST_DEVICE int whole_steps(int cluster) const {
    return cluster < whole ? (whole - 1 - cluster) / clusters * rest.steps + rest.steps : 0;
  }

  /// Of all the cluster's tiles. tiles: of the product.
  [[nodiscard]] QSHARD_HOST_DEVICE int steps_of(int cluster, int tiles) const {
    if (tiles == whole || cluster >= rest.workers) return whole_steps(cluster);
    return whole_steps(cluster) + rest.begin(cluster + 1) - rest.begin(cluster);
  }

  /// Where the cluster's step `number` lies, its last one or one before.
  [[nodiscard]] QSHARD_HOST_DEVICE Segment segment(int cluster, int number) const {
    const int alone = whole_steps(cluster);
    if (number < alone) {
      const int tile = number / rest.steps;
      return {cluster + tile * clusters, 0, tile * rest.steps, (tile + 1) * rest.steps};
    }
    const int before = rest.begin(cluster) - alone;  // steps of the rest are counted over all clusters
    const int tile = (number + before) / rest.steps;
    const int begin = larger(tile * rest.steps, rest.begin(cluster));
    const int end = smaller((tile + 1) * rest.steps, rest.begin(cluster + 1));
    return {whole + tile, begin - tile * rest.steps, begin - before, end - before};
  }

 private:
  static int cluster_count(int tiles, int steps, int most, int least_steps) {
    const std::int64_t useful = static_cast<std::int64_t>(tiles) * steps / least_steps;
    return useful < 1 ? 1 : useful < most ? static_cast<int>(useful) : most;
  }

  static int whole_tiles(int tiles, int clusters, bool input_stays) {
    const int left = tiles % clusters;
    if (left == 0 || left * 8 >= clusters * 7) return tiles;
    return input_stays ? 0 : tiles - left;
  }
};

}  // namespace qshard::optimized::cluster
