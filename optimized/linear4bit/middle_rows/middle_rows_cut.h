#pragma once

#include <cstdint>

#include "optimized/host_device.h"
#include "optimized/linear4bit/work_split.h"

// How middle_rows.cu cuts a product: the forward one, y = x W^T, whose features are the weight's rows, and the
// gradient, dx = dy W, whose features are the weight's columns. A cluster of two thread blocks makes tiles of 128
// features by up to 512 rows of the input, its columns: each thread block half of the columns, each of its two
// warpgroups 64 of the features. Along the inner dimension it takes steps of 64. The part of the weight for a step is
// 128 lines of 64 elements, each in one block. Forward: a line is a feature, of which 64 of the inner dimension;
// gradient: one of the inner dimension, of which 64 features, first all of the first 64 features, then those of the
// others. Each thread block dequantizes half of the lines.
namespace qshard::optimized::middle_rows {

constexpr int kStep = 64;
constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kCluster = 2;
constexpr int kTileFeatures = 64 * kWarpgroups;
constexpr int kLines = kTileFeatures / kCluster;  // that a thread block dequantizes
constexpr int kTeamWarps = kLines / 32;           // a thread a line
constexpr int kInstructions = kStep / 16;         // of a step, for a warpgroup's 64 features
constexpr int kMostColumns = 256;
constexpr int kColumnCounts[] = {64, 96, 128, 144, 160, 192, 200, 224, 256};  // that the kernel is compiled for

/// Teams that take turns at steps: where a thread block's sums leave registers for them, four, and so many threads.
constexpr QSHARD_HOST_DEVICE int team_count(int columns) {
  return columns <= 200 ? 4 : 2;
}

/// The feature, of a tile's, that is row `line` of the matrix instructions: of each 16 the even ones come first, so
/// that a lane, which has rows g and g + 8 of 16, has two neighbours.
QSHARD_HOST_DEVICE int feature_of_line(int line) {
  return line / 16 * 16 + line % 8 * 2 + line / 8 % 2;
}

/// What a step of a tile costs, in columns that the matrix unit multiplies meanwhile, as measured: with fewer columns
/// shared memory is what takes longest, which also the weight passes through.
QSHARD_HOST_DEVICE int cost_of_columns(int columns) {
  return 60 + columns * 3 / 4;
}

/// How many columns, each a row of the input, a thread block's half of a tile has, and how many tiles there are: what
/// costs least.
struct ColumnCut {
  int columns = 0;
  int tiles = 0;

  explicit ColumnCut(std::int64_t rows) {
    constexpr std::int64_t kMost = kCluster * kMostColumns;
    const auto least = static_cast<int>((rows + kMost - 1) / kMost);
    for (int count = least; count <= least + 1; ++count) {
      const std::int64_t needed = (rows + kCluster * count - 1) / (kCluster * count);
      for (const int each : kColumnCounts) {
        if (each < needed) continue;
        if (tiles == 0 || cost_of_columns(each) * count < cost()) {
          columns = each;
          tiles = count;
        }
        break;
      }
    }
  }

  /// Of a step of all tiles.
  [[nodiscard]] int cost() const { return cost_of_columns(columns) * tiles; }
};

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

}  // namespace qshard::optimized::middle_rows
