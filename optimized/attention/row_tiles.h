#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define QSHARD_HOST_DEVICE __host__ __device__
#else
#define QSHARD_HOST_DEVICE
#endif

// Which tiles of tokens there are and which tokens a tile has to do with, for rows of any lengths that only the device
// knows.
namespace qshard::optimized {

/// Tokens [first, first + tile) of a row, or what there is of them.
struct RowTile {
  int begin;   // the row's first token
  int length;  // the row's tokens
  int first;   // position of the tile's first token in its row

  [[nodiscard]] QSHARD_HOST_DEVICE bool exists() const { return first < length; }
};

/// Enough slots for the tiles of `rows` rows with `tokens` tokens together. Row r takes the slots from
/// offsets[r] / tile + r on: as many as it has tiles or one more, which then stays empty. So no list of tiles has to
/// be made, and no row's tiles have to be counted, before a kernel is launched.
QSHARD_HOST_DEVICE inline int tile_slots(int tokens, int rows, int tile) {
  return tokens / tile + rows;
}

/// The tile of a slot; it need not exist.
QSHARD_HOST_DEVICE inline RowTile tile_of_slot(const std::int32_t* offsets, int rows, int tile, int slot) {
  int low = 0;  // the last row whose slots begin at `slot` or before is in [low, high]
  int high = rows - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offsets[middle] / tile + middle <= slot) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int begin = offsets[low];
  return {begin, offsets[low + 1] - begin, (slot - (begin / tile + low)) * tile};
}

/// Positions [begin, end) of a row.
struct PositionRange {
  int begin;
  int end;
};

/// The positions that at least one of the tile's queries sees.
QSHARD_HOST_DEVICE inline PositionRange keys_of_queries(const RowTile& queries, int tile, int window) {
  const int end = queries.first + tile < queries.length ? queries.first + tile : queries.length;
  const int begin = window == 0 || queries.first < window ? 0 : queries.first - window + 1;
  return {begin, end};
}

/// The positions that see at least one of the tile's keys.
QSHARD_HOST_DEVICE inline PositionRange queries_of_keys(const RowTile& keys, int tile, int window) {
  const std::int64_t end = static_cast<std::int64_t>(keys.first) + tile - 1 + window;
  return {keys.first, window == 0 || end > keys.length ? keys.length : static_cast<int>(end)};
}

QSHARD_HOST_DEVICE inline bool sees(int query, int key, int window) {
  return key <= query && (window == 0 || query - key < window);
}

/// Whether any, and whether all, of the queries [query, query + queries) see any, or all, of the keys [key, key +
/// keys).
QSHARD_HOST_DEVICE inline bool any_sees(int query, int queries, int key, int keys, int window) {
  return key <= query + queries - 1 && (window == 0 || query - (key + keys - 1) < window);
}
QSHARD_HOST_DEVICE inline bool all_see(int query, int queries, int key, int keys, int window) {
  return key + keys - 1 <= query && (window == 0 || query + queries - 1 - key < window);
}

}  // namespace qshard::optimized

#undef QSHARD_HOST_DEVICE
