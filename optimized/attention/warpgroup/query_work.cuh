#pragma once

#include "optimized/attention/row_tiles.h"
#include "optimized/attention/warpgroup/warpgroup_stages.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::warpgroup_attention {

/// What a thread block does that keeps queries of one head and walks along the keys that they see.
struct QueryWork {
  RowTile tile;
  PositionRange keys;
  int head;
  int kv_head;
  int first_key;

  template <typename T>
  __device__ __forceinline__ QueryWork(const AttentionTask<T>& task, int queries)
      : tile(tile_of_slot(task.offsets, task.rows, queries, static_cast<int>(gridDim.y - 1 - blockIdx.y))),
        keys(keys_of_queries(tile, queries, task.window)),
        head(static_cast<int>(blockIdx.x)),
        kv_head(head / (task.heads / task.kv_heads)),
        first_key(keys.begin / kTileTokens * kTileTokens) {}
};

/// The producer's warp: fills one stage after the other with k and v.
template <int kDim, typename T, typename Memory>
__device__ __forceinline__ void load_keys(const HeadRows<T> (&keys)[2], const Memory& memory, const QueryWork& work) {
  StageCounter<Memory::kStageCount> counter;
  for (int key = work.first_key; key < work.keys.end; key += kTileTokens, counter.advance()) {
    mbarrier_wait(memory.empty(counter.stage), counter.parity ^ 1);
    load_tiles<kDim>(keys, work.kv_head, {memory.passing(counter.stage, 0), memory.passing(counter.stage, 1)},
                     work.tile.begin + key, work.tile.length - key, memory.full(counter.stage));
  }
}

/// A warpgroup's walk along the keys: the stage of each step, where at least one of its queries sees one of the keys.
template <typename Memory>
struct KeyWalk {
  int query;     // position of the warpgroup's first
  bool present;  // it has any
  int key;       // position of the step's first
  StageCounter<Memory::kStageCount> counter;

  __device__ __forceinline__ KeyWalk(const QueryWork& work, int group)
      : query(work.tile.first + group * kTileTokens), present(query < work.tile.length), key(work.first_key) {}

  /// Waits for the next keys, at or after those of this step, that a query sees; passes those over that none does.
  /// Returns whether there are any.
  __device__ __forceinline__ bool find(const Memory& memory, const QueryWork& work, int window) {
    for (; key < work.keys.end; advance()) {
      mbarrier_wait(memory.full(counter.stage), counter.parity);
      if (present && any_sees(query, kTileTokens, key, kTileTokens, window)) return true;
      release(memory, counter.stage);
    }
    return false;
  }

  __device__ __forceinline__ void advance() {
    key += kTileTokens;
    counter.advance();
  }
};

/// Sets to `hidden` those of a thread's sums, of queries from `query` on and keys from `key` on, whose key the query
/// does not see. row: the thread's first, below 64.
__device__ __forceinline__ void hide_keys(float (&sums)[32], int query, int row, int key, int window, float hidden) {
  if (all_see(query, kTileTokens, key, kTileTokens, window)) return;
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    if (!sees(query + row + i / 2 % 2 * 8, key + i / 4 * 8 + column + i % 2, window)) sums[i] = hidden;
  }
}

}  // namespace qshard::optimized::warpgroup_attention

#endif
